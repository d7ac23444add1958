"""Mail that a rule keeps for a person: accepted as ever, sent when it is released, returned when it is not wanted."""

from __future__ import annotations

import pytest

from relay.delivery import worker
from relay.events import (
    EntryHeld,
    MessageQueued,
    NotificationQueued,
    RecipientDeferred,
    RecipientDelivered,
    RecipientExpired,
    RecipientFailed,
)
from relay.queue.listing import Did, Verb
from relay.wiring import now
from tests.kit.house import JAN, PIET, RunningHouse, Site, mail

LOOK = {"name": "look", "match": {"to": "*@example.org"}, "hold": True}


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends without an attempt is looked for all the time."""
    monkeypatch.setattr(worker, "SWEEP", 0.02)


async def act(house: RunningHouse, verb: Verb, queue_id: str) -> None:
    (acted,) = await house.relay.store.act(verb, [queue_id], now=now())
    assert acted.did is Did.DONE
    await house.relay.reload()  # whatever is due now is tried


@pytest.mark.asyncio
async def test_mail_that_a_rule_holds_is_accepted_and_waits_and_leaves_when_it_is_released(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, senders=[LOOK])
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET, "klaas@example.org"])
            assert await house.event(EntryHeld) == EntryHeld(queue_id, "look", 2)
            kinds = [type(event) for event in house.seen.events]
            assert kinds.index(MessageQueued) < kinds.index(EntryHeld)
            other = await house.send(JAN, ["jan@elders.example"])
            await house.event(RecipientDelivered, queue_id=other)
            assert house.ledger.held == 2
            await act(house, Verb.RELEASE, queue_id)
            await house.event(RecipientDelivered, 2, queue_id=queue_id)
            assert len(house.seen.all(EntryHeld)) == 1
    assert [message.recipients for message in own.messages] == [("jan@elders.example",), (PIET, "klaas@example.org")]


@pytest.mark.asyncio
async def test_what_was_held_is_released_to_the_rules_below_which_make_a_sender_that_the_provider_takes(
    site: Site,
) -> None:
    fallback = {"name": "fallback", "address": "administratie@example.nl", "when": "refused"}
    async with site.upstream() as own:
        own.content_allowed = lambda one: "554 5.2.252 SendAsDenied" if one.reverse_path == JAN else None
        site.configure(upstreams={"own": site.way_to(own)}, senders=[LOOK, fallback])
        async with site.house() as house:
            queue_id = await house.send(JAN, ["klaas@example.org"])
            await house.event(EntryHeld, queue_id=queue_id, rule="look")
            await act(house, Verb.RELEASE, queue_id)
            await house.event(RecipientDelivered, queue_id=queue_id, rule="fallback")
            assert house.seen.all(NotificationQueued) == []
    assert [message.reverse_path for message in own.messages] == ["administratie@example.nl"]


@pytest.mark.asyncio
async def test_held_mail_is_still_held_after_a_restart(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, senders=[LOOK])
        async with site.house() as house:
            queue_id = await house.send(JAN, ["klaas@example.org"])
            await house.event(EntryHeld)
        async with site.house() as house:
            assert house.ledger.held == 1
            await act(house, Verb.RELEASE, queue_id)
            await house.event(RecipientDelivered, queue_id=queue_id)
    assert len(own.messages) == 1


@pytest.mark.asyncio
async def test_held_mail_whose_route_is_gone_after_a_restart_leaves_when_it_is_released(site: Site) -> None:
    async with site.upstream() as own:
        routes = {"default": {"retry": "1s"}, "extra": {"retry": "1s"}}
        site.configure(upstreams={"own": site.way_to(own)}, routes=routes, senders=[{**LOOK, "route": "extra"}])
        async with site.house() as house:
            queue_id = await house.send(JAN, ["klaas@example.org"])
            await house.event(EntryHeld)
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            await act(house, Verb.RELEASE, queue_id)
            await house.event(RecipientDelivered, queue_id=queue_id)


@pytest.mark.asyncio
async def test_a_rule_that_a_reload_brings_holds_what_waits_and_an_operator_returns_it(site: Site) -> None:
    async with site.upstream() as own:
        own.script("rcpt", lambda _: "450 4.2.1 busy" if "klaas" in own.commands[-1] else None, times=None)
        site.configure(upstreams={"own": site.way_to(own)}, routes={"default": {"retry": "1d"}})
        async with site.house() as house:
            queue_id = await house.send(JAN, ["klaas@example.org"])
            await house.event(RecipientDeferred, queue_id=queue_id)
            site.configuration["senders"] = [LOOK]
            site.write()
            await house.relay.reload()
            await house.event(EntryHeld, queue_id=queue_id, rule="look")
            await act(house, Verb.BOUNCE, queue_id)
            failed = await house.event(RecipientFailed, queue_id=queue_id)
            assert (failed.stage, failed.status) == (None, "5.7.0")
            told = await house.event(NotificationQueued, about=queue_id)
            await house.event(RecipientDelivered, queue_id=told.queue_id)
    (bounce,) = own.messages
    assert bounce.recipients == (JAN,)
    assert b"Returned by the administrator of this relay." in bounce.content


@pytest.mark.asyncio
async def test_a_session_code_that_a_rule_holds_ends_with_its_lifetime(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(
            upstreams={"own": site.way_to(own)},
            senders=[LOOK],
            session_codes={
                "enabled": True,
                "via_own_smtp": True,
                "fallback": False,
                "lifetime": "1s",
                "match": [{"subject": "*sessiecode*"}],
            },
        )
        async with site.house() as house:
            queue_id = await house.send(JAN, ["klaas@example.org"], mail("Uw sessiecode 482913"))
            await house.event(EntryHeld, queue_id=queue_id, rule="look")
            expired = await house.event(RecipientExpired, queue_id=queue_id)
            assert (expired.session_code, expired.attempt) == (True, 0)
            await house.event(RecipientDelivered, recipient=JAN)
    (bounce,) = own.messages
    assert b"482913" not in bounce.content
