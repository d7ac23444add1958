"""Authors as software writes them: the person and the address stay what a reader finds, and the mail is delivered."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.events import MessageQueued, RecipientDelivered, SenderJudged
from relay.mail.header import Header, split, value
from tests.kit.house import JAN, PIET, Site
from tests.kit.upstream import Received

CASES = Path(__file__).parent.parent / "cases"
RELAY = "relay@example.nl"
NOT_OWNED = (
    "550 5.7.0 Sender header address or From header address rejected: the account does not own it"  # as Yandex says it
)
BADLY_WRITTEN = "550 5.7.1 From header syntax error: messages with multiple addresses in From: header are not accepted"


def case(name: str, file: str = "message.eml") -> bytes:
    return (CASES / name / file).read_bytes()


def fields(received: Received, name: str) -> list[bytes]:
    header = Header.parse(received.content[: split(received.content)])
    return [value(field) for field in header.all(name.encode())]


def no_other_sender(received: Received) -> str | None:
    return None if all(RELAY.encode() in written for written in fields(received, "sender")) else NOT_OWNED


def a_plain_from(received: Received) -> str | None:
    return None if RELAY.encode() in b"".join(fields(received, "from")) else BADLY_WRITTEN


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("written", "name"),
    [
        (b"Bakker, Jan <jan@example.nl>", b'"Bakker, Jan"'),
        (b"Jansen BV, Administratie <info@example.nl>", b'"Jansen BV, Administratie"'),
        (b"&quot;Jan&quot; <jan@example.nl>", b'"&quot;Jan&quot;"'),
        (b"=?utf-8?Q?Jan_<jan@example.nl>?=", b"Jan"),
        (b"Jan <mailto:jan@example.nl>", b"Jan"),
    ],
)
async def test_a_person_whose_name_is_not_quoted_keeps_name_and_address(
    site: Site, written: bytes, name: bytes
) -> None:
    message = case("author-with-a-comma").replace(b"Bakker, Jan <jan@example.nl>", written)
    async with site.upstream() as own:
        senders = [{"address": RELAY, "display_name": "{name}"}]
        site.configure(upstreams={"own": site.way_to(own)}, senders=senders)
        async with site.house() as house:
            await house.send(JAN, [PIET], message)
            await house.event(RecipientDelivered)
    (received,) = own.messages
    assert fields(received, "from") == [name + b" <relay@example.nl>"]
    address = b"info@example.nl" if b"info" in written else b"jan@example.nl"
    assert fields(received, "reply-to") == [name + b" <" + address + b">"]
    assert fields(received, "x-original-from") == [written]


@pytest.mark.asyncio
@pytest.mark.parametrize("rule", [{}, {"when": "refused"}], ids=["always", "refused"])
async def test_a_sender_field_does_not_undo_what_a_rule_repairs(site: Site, rule: dict[str, str]) -> None:
    async with site.upstream(content_allowed=no_other_sender) as own:
        site.configure(upstreams={"own": site.way_to(own)}, senders=[{"address": RELAY, **rule}])
        async with site.house() as house:
            await house.send("root@e379890e3f75", [PIET], case("sender-field-beside-a-good-from"))
            await house.event(RecipientDelivered)
    taken = own.messages[-1]
    assert fields(taken, "sender") == []
    assert fields(taken, "from") == [b"Beheer <relay@example.nl>"]


@pytest.mark.asyncio
async def test_a_message_without_from_leaves_with_the_reverse_path_as_its_author(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, bounces={"from": RELAY})
        async with site.house() as house:
            await house.send(JAN, [PIET], b"To: piet@example.org\r\nSubject: x\r\n\r\nHallo\r\n")
            await house.send("", [PIET], b"To: piet@example.org\r\nSubject: x\r\n\r\nHallo\r\n")
            await house.event(RecipientDelivered, 2)
    assert sorted(fields(received, "from")[0] for received in own.messages) == [b"jan@example.nl", b"relay@example.nl"]


@pytest.mark.asyncio
async def test_a_reply_about_the_form_of_a_field_repairs_one_message_and_condemns_nobody(site: Site) -> None:
    async with site.upstream(content_allowed=a_plain_from) as own:
        senders = [{"address": RELAY, "when": "refused"}]
        site.configure(upstreams={"own": site.way_to(own)}, senders=senders)
        async with site.house() as house:
            await house.send(JAN, [PIET], b"From: Jan <jan@example.nl>\r\nSubject: x\r\n\r\nHallo\r\n")
            await house.event(RecipientDelivered)
            assert house.seen.all(MessageQueued)
            assert house.seen.all(SenderJudged) == []
