"""The answer after the final dot is lost: sent again under the same Message-ID, or kept for a person."""

from __future__ import annotations

import email

import pytest

from relay.events import (
    EntryHeld,
    NotificationQueued,
    RecipientCancelled,
    RecipientDeferred,
    RecipientDelivered,
    RecipientFailed,
)
from tests.kit.house import JAN, PIET, Site, mail
from tests.kit.upstream import DROP, Session
from tests.scenarios.desk import reachable, relay

KLAAS = "klaas@example.org"
HELD = {"default": {"retry": "1d", "in_doubt": "hold"}}
WHY = "no answer after the end of the message: it may have been delivered"


@pytest.mark.asyncio
@pytest.mark.parametrize("given", [b"", b"Message-ID: <factuur-117@werkplek-7>\r\n"], ids=["ours", "its own"])
async def test_what_is_sent_again_has_the_message_id_of_the_first_time(site: Site, given: bytes) -> None:
    async with site.upstream() as own:
        own.script("dot", DROP)
        site.configure(upstreams={"own": site.way_to(own)}, routes={"default": {"retry": "1d"}})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET], given + mail())
            deferred = await house.event(RecipientDeferred, queue_id=queue_id)
            assert deferred.in_doubt
            await reachable(site)
            shown = await relay(site, "queue", "list")
            await house.relay.reload()  # whatever waits is tried
            await house.event(RecipientDelivered, queue_id=queue_id)
    assert "it may have been delivered" in shown.out
    first, second = [email.message_from_bytes(copy.content)["Message-ID"] for copy in own.messages]
    assert first == second
    assert first == ("<factuur-117@werkplek-7>" if given else f"<{queue_id}@relay.example.nl>")


@pytest.mark.asyncio
async def test_held_in_doubt_waits_for_a_person_who_sees_why_and_other_recipients_go_on(site: Site) -> None:
    async with site.upstream() as own:
        own.script("dot", DROP)
        site.configure(upstreams={"own": site.way_to(own, max_recipients=1)}, routes=HELD)
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET, KLAAS])
            held = await house.event(EntryHeld)
            assert held == EntryHeld(queue_id, "", 1, in_doubt=True)
            assert await house.event(RecipientDeferred, in_doubt=True, recipient=PIET, next_attempt_at=None)
            await house.relay.reload()
            await house.event(RecipientDelivered, queue_id=queue_id, recipient=KLAAS)
            assert house.ledger.held == 1
            await reachable(site)
            listed = await relay(site, "queue", "list", "--state", "held")
            shown = await relay(site, "queue", "show", queue_id)
            status = await relay(site, "status")
            released = await relay(site, "queue", "release", queue_id)
            await house.event(RecipientDelivered, queue_id=queue_id, recipient=PIET)
            await house.empty()
            assert house.ledger.held == 0
            assert house.seen.all(NotificationQueued) == []
    assert WHY.replace(" ", "") in listed.out.replace(" ", "")
    (why,) = [line for line in shown.lines if line.startswith(PIET) and "held" in line]
    assert WHY in why
    assert "may have been delivered" in status.out
    assert "relay queue release ID" in status.out
    assert status.code == 1
    assert released.code == 0
    assert [one.recipients for one in own.messages] == [(PIET,), (KLAAS,), (PIET,)]


@pytest.mark.asyncio
@pytest.mark.parametrize("verb", ["cancel", "bounce"])
async def test_held_in_doubt_ends_as_a_person_says_and_survives_a_restart_until_then(site: Site, verb: str) -> None:
    async with site.upstream() as own:
        own.script("dot", DROP)
        site.configure(upstreams={"own": site.way_to(own)}, routes=HELD)
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            await house.event(EntryHeld, in_doubt=True)
        async with site.house() as house:
            assert house.ledger.held == 1
            await reachable(site)
            assert (await relay(site, "queue", verb, queue_id)).code == 0
            if verb == "cancel":
                await house.event(RecipientCancelled, queue_id=queue_id)
            else:
                await house.event(RecipientFailed, queue_id=queue_id)
                told = await house.event(NotificationQueued, about=queue_id, reader=JAN)
                await house.event(RecipientDelivered, queue_id=told.queue_id)
            await house.empty()
    assert [one.recipients for one in own.messages[1:]] == ([(JAN,)] if verb == "bounce" else [])


@pytest.mark.asyncio
async def test_a_bounce_in_doubt_is_sent_again_and_never_held(site: Site) -> None:
    def refused(session: Session) -> str | None:
        return "550 5.1.1 no such user" if PIET in own.commands[-1] else None

    async with site.upstream() as own:
        own.script("rcpt", refused, times=None)
        own.script("dot", DROP)
        site.configure(upstreams={"own": site.way_to(own)}, routes=HELD)
        async with site.house() as house:
            await house.send(JAN, [PIET])
            assert await house.event(RecipientDeferred, recipient=JAN, in_doubt=True)
            await house.relay.reload()
            await house.event(RecipientDelivered, recipient=JAN)
            assert house.seen.all(EntryHeld) == []
