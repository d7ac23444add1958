"""Letters beyond ASCII, long lines, long addresses and fields that stand twice: what others lose is delivered."""

from __future__ import annotations

import asyncio
import email
import email.policy
from pathlib import Path

import pytest

from relay.events import (
    DuplicatesRemoved,
    MessageQueued,
    MessageReencoded,
    NotificationQueued,
    QuirksTolerated,
    RecipientDelivered,
    RecipientFailed,
)
from relay.mail.author import parse
from relay.mail.header import Header, split, value
from tests.kit.house import JAN, PIET, RunningHouse, Site
from tests.kit.upstream import KEYWORDS, Received, ScriptedUpstream

CASES = Path(__file__).parent.parent / "cases"
PLAIN = tuple(word for word in KEYWORDS if word != "SMTPUTF8")
OLD = ("SIZE 52428800",)


def case(name: str, file: str = "message.eml") -> bytes:
    return (CASES / name / file).read_bytes()


def commands(name: str) -> list[list[bytes]]:
    """What the client of a case says up to DATA, for each of its messages."""
    said: list[list[bytes]] = []
    for line in case(name, "client.dialogue").splitlines():
        if line.startswith(b"C: MAIL"):
            said.append([])
        if line.startswith((b"C: MAIL", b"C: RCPT")):
            said[-1].append(line.removeprefix(b"C: "))
    return said


async def submit(house: RunningHouse, envelope: list[bytes], content: bytes, helo: str = "app.example.nl") -> None:
    """A session with one message, to which every answer is a yes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port())
    try:
        for line in (None, b"EHLO " + helo.encode(), *envelope, b"DATA", content + b"."):
            if line is not None:
                writer.write(line + b"\r\n")
            while (answer := await reader.readline())[3:4] == b"-":
                pass
            assert answer[:1] in b"23", (line, answer)
    finally:
        writer.transport.abort()


def header(received: Received) -> Header:
    return Header.parse(received.content[: split(received.content)])


def values(received: Received, name: bytes) -> list[bytes]:
    return [value(field) for field in header(received).all(name)]


def way(site: Site, upstream: ScriptedUpstream, **more: object) -> None:
    site.configure(upstreams={"own": site.way_to(upstream)}, **more)


# Domains beyond ASCII


@pytest.mark.asyncio
@pytest.mark.parametrize("keywords", [PLAIN, OLD, KEYWORDS])
@pytest.mark.parametrize("asked", [b"", b" SMTPUTF8"])
async def test_a_recipient_in_a_domain_beyond_ascii_gets_the_message(
    site: Site, keywords: tuple[str, ...], asked: bytes
) -> None:
    async with site.upstream(keywords=keywords, tls="none", users=None) as own:
        way(site, own)
        async with site.house() as house:
            (envelope,) = commands("idn-recipient")
            await submit(house, [envelope[0] + asked, *envelope[1:]], case("idn-recipient"))
            await house.event(RecipientDelivered)
        (received,) = own.messages
        if keywords == KEYWORDS:
            assert received.recipients == ("jan@münchen.example",)
        else:
            assert received.recipients == ("jan@xn--mnchen-3ya.example",)
            assert "SMTPUTF8" not in received.mail_parameters
            assert received.content.isascii()
            assert values(received, b"to") == [b"jan@xn--mnchen-3ya.example"]


@pytest.mark.asyncio
async def test_only_the_recipient_whose_local_part_is_beyond_ascii_fails_and_the_bounce_names_it(site: Site) -> None:
    async with site.upstream(keywords=PLAIN) as own:
        way(site, own)
        async with site.house() as house:
            everybody = ["jörg@example.org", "jan@münchen.example", PIET]
            envelope = ["MAIL FROM:<jan@bücher.example>", *[f"RCPT TO:<{one}>" for one in everybody]]
            await submit(house, [line.encode() for line in envelope], case("idn-recipient"))
            failed = await house.event(RecipientFailed)
            assert (failed.recipient, failed.code, failed.status) == ("jörg@example.org", 550, "5.6.7")
            await house.event(NotificationQueued)
            bounce = await own.message(2)
            await house.event(RecipientDelivered, 3)
        (first, _) = own.messages
        assert first.reverse_path == "jan@xn--bcher-kva.example"
        assert first.recipients == ("jan@xn--mnchen-3ya.example", PIET)
        assert bounce.recipients == ("jan@xn--bcher-kva.example",)
        assert bounce.content.isascii()
        assert values(bounce, b"to") == [b"<jan@xn--bcher-kva.example>"]


@pytest.mark.asyncio
async def test_a_bounce_names_a_recipient_in_a_domain_beyond_ascii_by_its_a_labels(site: Site) -> None:
    async with site.upstream(keywords=PLAIN) as own:
        own.script("rcpt", "550 5.1.1 no such user")
        way(site, own)
        async with site.house() as house:
            (envelope,) = commands("idn-recipient")
            await submit(house, envelope, case("idn-recipient"))
            bounce = email.message_from_bytes((await own.message()).content, policy=email.policy.default)
        status = bounce.get_payload(1).get_payload(1)  # type: ignore[union-attr]
        assert status["Final-Recipient"] == "rfc822; jan@xn--mnchen-3ya.example"  # type: ignore[index,call-overload]


@pytest.mark.asyncio
@pytest.mark.parametrize("keywords", [PLAIN, OLD, KEYWORDS])
async def test_a_rule_makes_nothing_undeliverable(site: Site, keywords: tuple[str, ...]) -> None:
    rule = {"address": "administratie@büro.example", "display_name": "{name} via Büro"}
    async with site.upstream(keywords=keywords) as own:
        way(site, own, senders=[rule], bounces={"also": "beheer@büro.example"})
        async with site.house() as house:
            mail = "From: Jörg <jan@münchen.example>\r\nTo: piet@example.org\r\n\r\nDag\r\n".encode()
            await submit(house, ["MAIL FROM:<jan@münchen.example>".encode(), b"RCPT TO:<piet@example.org>"], mail)
            await house.event(RecipientDelivered)
        (received,) = own.messages
        assert received.reverse_path == "administratie@xn--bro-hoa.example"
        assert "SMTPUTF8" not in received.mail_parameters or keywords == KEYWORDS
        (written,) = parse(values(received, b"from")[0])
        assert written == ("Jörg via Büro", "administratie@xn--bro-hoa.example")
        assert parse(values(received, b"reply-to")[0]) == (("Jörg", "jan@xn--mnchen-3ya.example"),)
        if keywords != KEYWORDS:
            assert values(received, b"x-original-from")[0].endswith(b"<jan@xn--mnchen-3ya.example>")


@pytest.mark.asyncio
async def test_what_our_own_offer_of_smtputf8_led_to_is_delivered_without(site: Site) -> None:
    async with site.upstream(keywords=PLAIN, tls="none", users=None) as own:
        way(site, own)
        async with site.house() as house:
            (envelope,) = commands("utf8-subject-after-smtputf8")
            await submit(house, envelope, case("utf8-subject-after-smtputf8"))
            await house.event(RecipientDelivered)
            assert (await house.event(MessageReencoded)).why == "no SMTPUTF8"
        (received,) = own.messages
        assert received.mail_parameters == (f"SIZE={len(received.content)}",)
        assert values(received, b"subject") == [b"=?utf-8?b?RmFjdHV1ciDDqcOpbg==?="]


@pytest.mark.asyncio
async def test_smtputf8_is_asked_for_only_where_something_needs_it(site: Site) -> None:
    async with site.upstream() as own:
        way(site, own)
        async with site.house() as house:
            await submit(
                house, [b"MAIL FROM:<jan@example.nl> SMTPUTF8", b"RCPT TO:<piet@example.org>"], case("duplicate-fields")
            )
            await house.event(RecipientDelivered)
            (envelope,) = commands("utf8-subject-after-smtputf8")
            await submit(house, envelope, case("utf8-subject-after-smtputf8"))
            await house.event(RecipientDelivered, 2)
        assert ["SMTPUTF8" in received.mail_parameters for received in own.messages] == [False, True]
        assert own.messages[1].content.endswith(case("utf8-subject-after-smtputf8"))


# Long lines


@pytest.mark.asyncio
@pytest.mark.parametrize(("file", "name"), [("message.eml", b"to"), ("references.eml", b"references")])
async def test_a_long_field_without_blanks_is_folded_in_the_same_attempt(site: Site, file: str, name: bytes) -> None:
    def short_lines_only(received: Received) -> str | None:
        long = max(map(len, received.content.split(b"\r\n"))) > 998
        return "501 Syntax error - line too long" if long else None

    async with site.upstream(keywords=PLAIN, content_allowed=short_lines_only, tls="none", users=None) as own:
        way(site, own)
        async with site.house() as house:
            content = case("long-to-without-blanks", file)
            await house.send(JAN, [PIET], content)
            assert (await house.event(RecipientDelivered)).attempt == 1
        (received,) = own.messages
        before = value(Header.parse(content).all(name)[0])
        (after,) = values(received, name)
        assert after.replace(b" ", b"") == before
        assert received.content.endswith(b"Geachte klant,\r\n\r\nhierbij de factuur.\r\n")


# Fields that stand twice


@pytest.mark.asyncio
@pytest.mark.parametrize(("file", "quirk"), [("message.eml", "duplicate-field"), ("nul.eml", "nul")])
async def test_what_providers_refuse_in_a_message_is_told_of_its_client(site: Site, file: str, quirk: str) -> None:
    async with site.upstream() as own:
        way(site, own)
        async with site.house() as house:
            await house.send(JAN, [PIET], case("duplicate-fields", file))
            assert quirk in (await house.event(QuirksTolerated)).quirks
            await house.event(RecipientDelivered)
        assert own.messages[0].content.endswith(case("duplicate-fields", file))


@pytest.mark.asyncio
async def test_where_it_is_wanted_the_first_of_each_leaves_and_recipients_are_joined(site: Site) -> None:
    def as_gmail_does(received: Received) -> str | None:
        fields = [name for name, _ in header(received).fields if name != b"received"]
        return "550 5.7.1 there are multiple Subject fields" if len(set(fields)) != len(fields) else None

    async with site.upstream(content_allowed=as_gmail_does, tls="none", users=None) as own:
        doors = [{"name": "legacy", "listen": "127.0.0.1:0", "repair_duplicates": True}]
        way(site, own, listeners=doors)
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET], case("duplicate-fields"))
            await house.event(RecipientDelivered, queue_id=queue_id)
            removed = await house.event(DuplicatesRemoved)
            assert (removed.queue_id, removed.fields) == (queue_id, ("to", "subject", "date", "message-id"))
        (received,) = own.messages
        assert values(received, b"subject") == [b"Factuur 2026-001"]
        assert values(received, b"message-id") == [b"<1@app.example.nl>"]
        assert values(received, b"date") == [b"Mon, 02 Nov 2026 10:00:00 +0100"]
        assert values(received, b"to") == [b"klant@example.org, boekhouding@example.org"]


@pytest.mark.asyncio
async def test_a_pickup_folder_has_these_keys_as_well(site: Site) -> None:
    folder = site.folder / "out"
    pickup = {"name": "out", "type": "pickup", "directory": str(folder), "repair_duplicates": True, "received": "short"}
    async with site.upstream() as own:
        way(site, own, listeners=[pickup], queue={"store": f"sqlite:{site.folder}/queue/queue.db", "min_free": "1MiB"})
        async with site.house() as house:
            (folder / "message.new").write_bytes(case("duplicate-fields"))
            (folder / "message.new").rename(folder / "message.eml")
            assert "duplicate-field" in (await house.event(QuirksTolerated)).quirks
            await house.event(RecipientDelivered, 2)
        (received,) = own.messages
        assert values(received, b"to") == [b"klant@example.org, boekhouding@example.org"]
        assert values(received, b"received")[0].startswith(b"by relay.example.nl id ")


# Received


@pytest.mark.asyncio
@pytest.mark.parametrize("received", ["full", "short"])
async def test_received_names_the_client_or_not_as_the_listener_says(site: Site, received: str) -> None:
    async with site.upstream() as own:
        way(site, own, listeners=[{"name": "legacy", "listen": "127.0.0.1:0", "received": received}])
        async with site.house() as house:
            envelope = [b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<klant@example.org>"]
            await submit(house, envelope, case("received-names-the-inside"), helo="PC-VAN-JAN")
            await house.event(RecipientDelivered)
        (trace,) = values(own.messages[0], b"received")
        begins = b"from PC-VAN-JAN ([127.0.0.1]) by relay" if received == "full" else b"by relay"
        assert trace.startswith(begins + b".example.nl with ESMTP id ")
        assert (b"PC-VAN-JAN" in trace, b"127.0.0.1" in trace) == (received == "full",) * 2


# Long addresses


@pytest.mark.asyncio
async def test_an_address_of_exchange_is_handed_to_the_upstream_which_judges_it(site: Site) -> None:
    async with site.upstream(tls="none", users=None) as own:
        way(site, own)
        async with site.house() as house:
            to, from_ = commands("local-part-of-140")
            await submit(house, to, case("local-part-of-140"))
            await submit(house, [*from_, b"RCPT TO:<piet@example.org>"], case("local-part-of-140"))
            await house.event(RecipientDelivered, 2)
            site.configuration["senders"] = [{"address": "relay@example.nl"}]
            site.write()
            await house.relay.reload()
            await submit(house, [*from_, b"RCPT TO:<piet@example.org>"], case("local-part-of-140"))
            await house.event(RecipientDelivered, 3)
            assert len(house.seen.all(MessageQueued)) == 3
        long = to[1].partition(b"<")[2][:-1].decode()
        assert [one.recipients for one in own.messages] == [(long,), (PIET,), (PIET,)]
        assert [one.reverse_path for one in own.messages] == [JAN, long, "relay@example.nl"]
