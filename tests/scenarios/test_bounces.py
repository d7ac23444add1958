"""When the upstream says no: one report to the sender, through the same strict upstream."""

from __future__ import annotations

import email
from email.message import Message
from typing import cast

import pytest

from relay.events import (
    NotificationQueued,
    NotificationSuppressed,
    RecipientDeferred,
    RecipientDelivered,
    RecipientExpired,
    RecipientFailed,
)
from tests.kit.house import ACCOUNT, JAN, PIET, Site, mail
from tests.kit.upstream import Received, ScriptedUpstream, Session

NO_SUCH_USER = "550 5.1.1 <niemand@example.org>: no such user"


def refuse(upstream: ScriptedUpstream, *refused: str, reply: str = NO_SUCH_USER) -> None:
    """Refuse these recipients, always."""

    def judge(_: object) -> str | None:
        word = upstream.commands[-1]
        return reply if any(f"<{address}>" in word for address in refused) else None

    upstream.script("rcpt", judge, times=None)


def parts(received: Received) -> tuple[Message, list[Message], Message]:
    """The report, the blocks of its delivery status, and what it returns."""
    report = email.message_from_bytes(received.content)
    _, status, returned = cast("list[Message]", report.get_payload())
    return report, cast("list[Message]", status.get_payload()), returned


@pytest.mark.asyncio
async def test_a_refused_recipient_makes_one_report_that_arrives_at_the_sender(site: Site) -> None:
    async with site.upstream() as own:
        refuse(own, "niemand@example.org")
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            queue_id = await house.send(JAN, ["niemand@example.org"])
            failed = await house.event(RecipientFailed, queue_id=queue_id)
            assert (failed.code, failed.status) == (550, "5.1.1")
            notification = await house.event(NotificationQueued, about=queue_id)
            assert (notification.kind, notification.reader) == ("failure", JAN)
            await house.event(RecipientDelivered, queue_id=notification.queue_id)
            assert (house.ledger.accepted, house.ledger.failed, house.ledger.delivered) == (2, 1, 1)

    (received,) = own.messages
    assert (received.reverse_path, received.recipients) == ("", (JAN,))
    report, blocks, returned = parts(received)
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    assert report["Auto-Submitted"] == "auto-replied"
    assert ACCOUNT in report["From"]
    assert blocks[0]["Reporting-MTA"] == "dns; relay.example.nl"
    assert blocks[1]["Final-Recipient"] == "rfc822; niemand@example.org"
    assert (blocks[1]["Action"], blocks[1]["Status"]) == ("failed", "5.1.1")
    assert "no such user" in blocks[1]["Diagnostic-Code"]
    assert b"Factuur 2024-117" in returned.as_bytes()
    assert b"Bijgaand" not in received.content


@pytest.mark.asyncio
async def test_only_the_refused_recipient_is_reported_and_the_other_has_the_mail(site: Site) -> None:
    async with site.upstream() as own:
        refuse(own, "niemand@example.org")
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET, "niemand@example.org"])
            await house.event(RecipientDelivered, queue_id=queue_id, recipient=PIET)
            await house.event(RecipientFailed, queue_id=queue_id, recipient="niemand@example.org")
            await house.event(RecipientDelivered, recipient=JAN)
    delivered, bounce = own.messages
    assert delivered.recipients == (PIET,)
    _, blocks, _ = parts(bounce)
    assert [block["Final-Recipient"] for block in blocks[1:]] == ["rfc822; niemand@example.org"]


@pytest.mark.asyncio
async def test_many_refused_recipients_are_told_in_one_report(site: Site) -> None:
    gone = [f"weg{number}@example.org" for number in range(7)]
    async with site.upstream() as own:
        refuse(own, *gone)
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            await house.send(JAN, gone)
            await house.event(RecipientDelivered, recipient=JAN)
            await house.empty()
            assert len(house.seen.all(NotificationQueued)) == 1
    _, blocks, _ = parts(await own.message())
    assert len(blocks) == 1 + len(gone)


@pytest.mark.asyncio
async def test_an_upstream_that_refuses_the_null_reverse_path_gets_the_report_from_an_address(site: Site) -> None:
    def no_null_path(sender: str) -> str | None:
        return None if sender else "550 5.7.1 null sender not accepted"

    async with site.upstream(sender_allowed=no_null_path) as own:
        refuse(own, "niemand@example.org")
        site.configure(upstreams={"own": site.way_to(own)}, bounces={"from": "beheer@example.nl"})
        async with site.house() as house:
            await house.send(JAN, ["niemand@example.org"])
            await house.event(RecipientDelivered, recipient=JAN)
            await house.empty()
            assert len(house.seen.all(RecipientFailed)) == 1
    (bounce,) = own.messages
    assert bounce.reverse_path == "beheer@example.nl"
    assert parts(bounce)[0]["From"] == "Mail Delivery System <beheer@example.nl>"


@pytest.mark.asyncio
async def test_nobody_is_told_about_mail_with_a_null_reverse_path(site: Site) -> None:
    async with site.upstream() as own:
        refuse(own, "niemand@example.org")
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            queue_id = await house.send("", ["niemand@example.org"], mail())
            suppressed = await house.event(NotificationSuppressed, about=queue_id)
            assert suppressed.why == "null reverse-path"
            await house.empty()
    assert own.messages == []


@pytest.mark.asyncio
async def test_a_bounce_never_bounces(site: Site) -> None:
    async with site.upstream() as own:
        refuse(own, "niemand@example.org", JAN)
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            await house.send(JAN, ["niemand@example.org"])
            await house.event(RecipientFailed, 2)
            suppressed = await house.event(NotificationSuppressed)
            assert suppressed.why == "a bounce never bounces"
            await house.empty()
            assert house.ledger.failed == 2
    assert own.messages == []


@pytest.mark.asyncio
async def test_mail_that_waited_longer_than_its_lifetime_expires_with_the_last_reply_told(site: Site) -> None:
    async with site.upstream() as own:
        refuse(own, PIET, reply="450 4.2.1 mailbox busy")
        site.configure(upstreams={"own": site.way_to(own)}, routes={"default": {"retry": "1s", "lifetime": "1s"}})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            expired = await house.event(RecipientExpired, queue_id=queue_id)
            assert expired.text == "450 4.2.1 mailbox busy"
            await house.event(RecipientDelivered, recipient=JAN)
    _, blocks, _ = parts(await own.message())
    assert (blocks[1]["Action"], blocks[1]["Final-Recipient"]) == ("failed", f"rfc822; {PIET}")


@pytest.mark.asyncio
async def test_who_else_is_to_read_of_failures_gets_the_header_and_the_sender_the_message(site: Site) -> None:
    async with site.upstream() as own:
        refuse(own, "niemand@example.org")
        site.configure(upstreams={"own": site.way_to(own)}, bounces={"also": ["beheer@example.nl", "it@example.nl"]})
        async with site.house() as house:
            queue_id = await house.send(JAN, ["niemand@example.org"])
            for reader in (JAN, "beheer@example.nl", "it@example.nl"):
                await house.event(RecipientDelivered, recipient=reader)
            told = house.seen.all(NotificationQueued, about=queue_id)
            assert [event.reader for event in told] == [JAN, "beheer@example.nl, it@example.nl"]
            await house.empty()
    copy = next(message for message in own.messages if message.recipients != (JAN,))
    assert (copy.reverse_path, copy.recipients) == ("", ("beheer@example.nl", "it@example.nl"))
    report, _, returned = parts(copy)
    words = cast("list[Message]", report.get_payload())[0].get_payload(decode=True)
    assert isinstance(words, bytes)
    assert b"A message from jan@example.nl was not delivered to:" in words
    assert b"Factuur 2024-117" in returned.as_bytes()
    assert b"Bijgaand" not in copy.content


@pytest.mark.asyncio
async def test_mail_that_waits_longer_than_delay_warning_is_told_once_and_arrives_later(site: Site) -> None:
    async with site.upstream() as own:
        refuse(own, PIET, reply="450 4.2.1 mailbox busy")
        site.configure(
            upstreams={"own": site.way_to(own)},
            routes={"default": {"retry": "1s", "lifetime": "1h"}},
            bounces={"delay_warning": "1s"},
        )
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            told = await house.event(NotificationQueued, about=queue_id)
            assert (told.kind, told.reader) == ("delay", JAN)
            await house.event(RecipientDelivered, queue_id=told.queue_id)
            before = len(house.seen.all(RecipientDeferred, queue_id=queue_id))
            await house.event(RecipientDeferred, before + 1, queue_id=queue_id)
            assert len(house.seen.all(NotificationQueued)) == 1
            own.unscript("rcpt")
            await house.event(RecipientDelivered, queue_id=queue_id)
    warning = next(message for message in own.messages if message.recipients == (JAN,))
    _, blocks, _ = parts(warning)
    assert (blocks[1]["Action"], blocks[1]["Status"]) == ("delayed", "4.2.1")
    assert blocks[1]["Will-Retry-Until"]


# Who reads them

OFFICE = "administratie@example.nl"
FALLBACK = {"name": "fallback", "match": {"from": "*@example.nl"}, "address": OFFICE}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("to", "sender", "readers"),
    [
        ("sender", JAN, [JAN]),
        ("address", JAN, [OFFICE]),
        ("both", JAN, [JAN, OFFICE]),
        ("address", "kees@elders.example", ["kees@elders.example"]),  # no rule with an address spoke
        ("both", "kees@elders.example", ["kees@elders.example"]),
        ("both", OFFICE, [OFFICE]),
    ],
)
async def test_a_bounce_is_read_by_whom_the_configuration_says(
    site: Site, to: str, sender: str, readers: list[str]
) -> None:
    async with site.upstream() as own:
        refuse(own, "niemand@example.org")
        site.configure(upstreams={"own": site.way_to(own)}, senders=[FALLBACK], bounces={"to": to})
        async with site.house() as house:
            queue_id = await house.send(sender, ["niemand@example.org"])
            for reader in readers:
                await house.event(RecipientDelivered, recipient=reader)
            await house.empty()
            assert [event.reader for event in house.seen.all(NotificationQueued, about=queue_id)] == readers


@pytest.mark.asyncio
async def test_mail_with_a_null_reverse_path_makes_no_bounce_to_the_address_of_the_rule(site: Site) -> None:
    async with site.upstream() as own:
        refuse(own, "niemand@example.org")
        site.configure(
            upstreams={"own": site.way_to(own)}, senders=[FALLBACK], bounces={"to": "both", "also": "it@example.nl"}
        )
        async with site.house() as house:
            queue_id = await house.send("", ["niemand@example.org"], mail())
            await house.event(RecipientDelivered, recipient="it@example.nl")
            await house.empty()
            assert [event.reader for event in house.seen.all(NotificationQueued)] == ["it@example.nl"]
            assert house.seen.all(NotificationSuppressed)[0].about == queue_id


# They get out


def only_the_account(received: Received) -> str | None:
    """Content whose From is not the account's is refused, as Microsoft 365 does."""
    author = str(email.message_from_bytes(received.content)["From"])
    return None if f"<{ACCOUNT}>" in author else "554 5.2.252 SendAsDenied; not allowed to send as that sender"


@pytest.mark.asyncio
async def test_a_bounce_gets_out_where_neither_the_null_reverse_path_nor_an_unknown_from_is_taken(site: Site) -> None:
    def only_the_account_path(sender: str) -> str | None:
        return None if sender == ACCOUNT else "553 5.7.1 sender address rejected: not owned by this account"

    async with site.upstream(sender_allowed=only_the_account_path, content_allowed=only_the_account) as own:
        refuse(own, "niemand@example.org")
        site.configure(
            upstreams={"own": site.way_to(own)}, senders=[{"address": ACCOUNT, "match": {"from": "*@example.nl"}}]
        )
        async with site.house() as house:
            await house.send(JAN, ["niemand@example.org"])
            await house.event(RecipientDelivered, recipient=JAN)
            await house.empty()
            assert len(house.seen.all(RecipientFailed)) == 1
    (bounce,) = own.messages
    assert bounce.reverse_path == ACCOUNT
    assert parts(bounce)[0]["From"] == f"Mail Delivery System <{ACCOUNT}>"


@pytest.mark.asyncio
@pytest.mark.parametrize("stage", ["rcpt", "data", "dot"])
async def test_a_null_reverse_path_that_is_refused_later_is_tried_with_an_address_as_well(
    site: Site, stage: str
) -> None:
    def refused(session: Session) -> str | None:
        if "niemand@example.org" in own.commands[-1]:
            return NO_SUCH_USER
        return (
            "550 5.7.60 Client does not have permissions to send as this sender" if not session.reverse_path else None
        )

    async with site.upstream() as own:
        if stage == "dot":  # by then the session has forgotten
            own.content_allowed = lambda received: None if received.reverse_path else "554 5.2.252 SendAsDenied"
            refuse(own, "niemand@example.org")
        else:
            own.script(stage, refused, times=None)
            if stage != "rcpt":
                refuse(own, "niemand@example.org")
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            await house.send(JAN, ["niemand@example.org"])
            await house.event(RecipientDelivered, recipient=JAN)
            await house.empty()
            assert len(house.seen.all(RecipientFailed)) == 1
    (bounce,) = own.messages
    assert bounce.reverse_path == ACCOUNT


@pytest.mark.asyncio
async def test_a_bounce_whose_reader_is_unknown_is_not_tried_twice(site: Site) -> None:
    async with site.upstream() as own:
        refuse(own, "niemand@example.org", JAN)
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            await house.send(JAN, ["niemand@example.org"])
            await house.event(NotificationSuppressed)
            await house.empty()
    assert [word for word in own.commands if word.startswith("MAIL FROM:<>")] != []
    assert [word for word in own.commands if word.startswith(f"MAIL FROM:<{ACCOUNT}>")] == []
