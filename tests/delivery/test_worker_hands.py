"""A person's hand in the queue: what is held, released, returned, cancelled or sent another way while workers run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from relay.delivery import worker as module
from relay.events import (
    EntryHeld,
    ExceptionCaught,
    NotificationQueued,
    NotificationSuppressed,
    RecipientCancelled,
    RecipientDeferred,
    RecipientDelivered,
    RecipientExpired,
    RecipientFailed,
)
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.policy.match import Match
from relay.policy.rules import SenderRule
from relay.queue.listing import Did, Verb
from relay.queue.model import Kind, Ledger
from relay.transport.port import Delivery
from tests.delivery.house import DeliveryHouse, policy
from tests.delivery.ways import CLOSING, GREYLISTED, IN_DOUBT, REFUSED, TAKEN, turns
from tests.kit import configured
from tests.kit.ledger import balanced
from tests.queue.mail import NOON

LOOK = configured.rule("look", Match(), None, hold=True)
CODE = MemoryContent(b"Subject: code 913\r\n\r\n913\r\n", 21)
LIFETIME = timedelta(minutes=10)


@pytest_asyncio.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DeliveryHouse]:
    monkeypatch.setattr(module, "SWEEP", 0.001)
    routes = policy(default=("own",), other=("spare",), session_codes=("own",))
    house = await DeliveryHouse.build(tmp_path, routes)
    yield house
    await house.demolish()


def holding(house: DeliveryHouse, *rules: SenderRule) -> None:
    house.policy = replace(house.policy, senders=rules or (LOOK,))


def delivered(house: DeliveryHouse) -> list[str]:
    return [event.queue_id for event in house.watch.events if isinstance(event, RecipientDelivered)]


async def act(house: DeliveryHouse, verb: Verb, queue_id: str, route: str | None = None) -> Did:
    (acted,) = await house.store.act(verb, [queue_id], now=house.now, route=route)
    house.changed()
    return acted.did


async def put_code(house: DeliveryHouse, name: str) -> None:
    late = house.now + LIFETIME
    await house.put(name, content=CODE, route="session-codes", session_code=True, expires_at=late)


# Held by a rule


@pytest.mark.asyncio
async def test_waiting_mail_that_a_rule_now_holds_waits_for_a_person_without_being_tried(house: DeliveryHouse) -> None:
    await house.put("M", "a@x.example", "b@x.example")
    holding(house)
    house.start()
    await house.watch.until(lambda: house.watch.of(EntryHeld))
    assert house.watch.of(EntryHeld) == [EntryHeld("M", "look", 2)]
    assert house.store.ledger == Ledger(accepted=2, held=2)
    assert house.ways["own"].dialled == 0
    shown = await house.store.show("M")
    assert shown is not None
    assert shown.tries == ()


@pytest.mark.asyncio
async def test_what_a_person_released_is_not_held_again(house: DeliveryHouse) -> None:
    await house.put("M")
    holding(house)
    house.start()
    await house.watch.until(lambda: house.store.ledger.held)
    assert await act(house, Verb.RELEASE, "M") is Did.DONE
    await house.watch.until(lambda: delivered(house) == ["M"])
    assert len(house.watch.of(EntryHeld)) == 1


@pytest.mark.asyncio
async def test_what_a_rule_would_send_another_way_is_held_where_it_will_go(house: DeliveryHouse) -> None:
    await house.put("M")
    holding(house, replace(LOOK, route="other"))
    house.start("default")
    await house.watch.until(lambda: house.store.ledger.held)
    house.start("other")
    await act(house, Verb.RELEASE, "M")
    await house.watch.until(lambda: delivered(house) == ["M"])
    assert [request.queue_id for request in house.ways["spare"].requests] == ["M"]


@pytest.mark.asyncio
async def test_a_notification_of_ours_is_never_held(house: DeliveryHouse) -> None:
    await house.put("B", kind=Kind.BOUNCE)
    holding(house)
    house.start()
    await house.watch.until(lambda: delivered(house) == ["B"])
    assert house.watch.of(EntryHeld) == []


@pytest.mark.asyncio
async def test_a_session_code_is_held_too_and_its_lifetime_goes_on(house: DeliveryHouse) -> None:
    await put_code(house, "C")
    holding(house)
    house.start("default")
    house.start("session-codes")
    await house.watch.until(lambda: house.store.ledger.held == 1)
    await turns(200)
    assert house.watch.of(RecipientExpired) == []
    house.now += LIFETIME
    await house.watch.until(lambda: house.watch.of(RecipientExpired))
    await house.watch.until(lambda: delivered(house) == ["BOUNCE0"])
    assert balanced(house.store.ledger)
    assert [request.queue_id for request in house.ways["own"].requests] == ["BOUNCE0"]


# Returned by an operator


@pytest.mark.asyncio
async def test_what_an_operator_returns_goes_back_to_its_sender_without_another_attempt(house: DeliveryHouse) -> None:
    house.ways["own"].says = lambda request: GREYLISTED if request.queue_id == "M" else TAKEN
    house.steady = False  # nor does it wait for the clock
    await house.put("M", "a@x.example", "b@x.example")
    house.start()
    await house.watch.until(lambda: len(house.watch.of(RecipientDeferred)) == 2)
    assert await act(house, Verb.BOUNCE, "M") is Did.DONE
    await house.watch.until(lambda: len(delivered(house)) == 1)
    failed = house.watch.of(RecipientFailed)
    assert [(e.recipient, e.upstream, e.stage, e.code, e.status) for e in failed] == [  # type: ignore[attr-defined]
        ("a@x.example", "", None, 0, "5.7.0"),
        ("b@x.example", "", None, 0, "5.7.0"),
    ]
    assert len([request for request in house.ways["own"].requests if request.queue_id == "M"]) == 1
    assert house.store.ledger == Ledger(accepted=3, failed=2, delivered=1)


@pytest.mark.asyncio
async def test_what_is_held_can_be_returned_and_the_rule_does_not_hold_it_again(house: DeliveryHouse) -> None:
    await house.put("M")
    holding(house)
    house.start()
    await house.watch.until(lambda: house.store.ledger.held)
    await act(house, Verb.BOUNCE, "M")
    await house.watch.until(lambda: delivered(house) == ["BOUNCE0"])
    assert house.store.ledger == Ledger(accepted=2, failed=1, delivered=1)


@pytest.mark.asyncio
async def test_a_notification_that_an_operator_returns_only_ends(house: DeliveryHouse) -> None:
    house.ways["own"].says = lambda request: GREYLISTED
    await house.put("B", kind=Kind.BOUNCE)
    house.start()
    await house.watch.until(lambda: house.watch.of(RecipientDeferred))
    await act(house, Verb.BOUNCE, "B")
    await house.watch.until(lambda: house.watch.of(NotificationSuppressed))
    assert house.store.ledger == Ledger(accepted=1, failed=1)


@pytest.mark.asyncio
async def test_a_return_that_meets_a_bug_is_held_for_a_person_once(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bounce(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "bounce", bounce)
    house.ways["own"].says = lambda request: GREYLISTED
    await house.put("M")
    house.start()
    await house.watch.until(lambda: house.watch.of(RecipientDeferred))
    await act(house, Verb.BOUNCE, "M")
    await house.watch.until(lambda: house.store.ledger.held == 1)
    await turns(200)
    assert len(house.watch.of(ExceptionCaught)) == 1


@pytest.mark.asyncio
async def test_whoever_looks_at_what_a_bug_left_sees_which_upstream_said_what_to_whom_and_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settle(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "settle", settle)
    house = await DeliveryHouse.build(tmp_path, policy(default=("own", "spare")))
    said = [TAKEN, CLOSING, CLOSING]  # the second on a new connection
    house.build_way("own", most=1).says = lambda request: said.pop(0)
    house.ways["spare"].says = lambda request: REFUSED
    await house.put("M", "a@x.example", "b@x.example")
    house.start()
    await house.watch.until(lambda: house.store.ledger == Ledger(accepted=2, delivered=1, held=1))
    shown = await house.store.show("M")
    assert shown is not None
    assert [(one.upstream, one.reply) for one in shown.listed.recipients] == [
        ("own", "250 2.0.0"),
        ("spare", "550 5.1.1"),
    ]
    assert [(one.at, one.upstream) for one in shown.tries] == [(NOON, "spare")]
    await house.demolish()


# Sent another way


@pytest.mark.asyncio
async def test_mail_that_an_operator_sent_another_way_stays_there(house: DeliveryHouse) -> None:
    await house.put("M")
    assert await act(house, Verb.REROUTE, "M", "other") is Did.DONE
    house.start("default")
    house.start("other")
    await house.watch.until(lambda: delivered(house) == ["M"])
    assert [request.queue_id for request in house.ways["spare"].requests] == ["M"]


@pytest.mark.asyncio
async def test_mail_that_was_sent_another_way_comes_back_when_that_way_is_gone(house: DeliveryHouse) -> None:
    await house.put("M")
    await act(house, Verb.REROUTE, "M", "other")
    rest = {name: route for name, route in house.policy.routes.items() if name != "other"}
    house.policy = replace(house.policy, routes=rest)
    house.start("default")
    house.start("other")
    await house.watch.until(lambda: delivered(house) == ["M"])
    assert [request.queue_id for request in house.ways["own"].requests] == ["M"]


# A wish about mail that is being tried


@pytest.mark.asyncio
@pytest.mark.parametrize(("verb", "left"), [(Verb.CANCEL, Ledger(cancelled=1)), (Verb.HOLD, Ledger(held=1))])
async def test_a_worker_goes_on_with_other_mail_when_a_wish_took_away_what_it_settled(
    house: DeliveryHouse, verb: Verb, left: Ledger
) -> None:
    way = house.ways["own"]
    way.says = lambda request: None if request.queue_id == "M" else TAKEN
    await house.put("M")
    house.start()
    await house.watch.until(lambda: way.busy)
    assert await act(house, verb, "M") is Did.AFTER_ATTEMPT
    way.line_of("M").tell(GREYLISTED)
    await house.watch.until(lambda: house.watch.of(EntryHeld) or house.watch.of(RecipientCancelled))
    house.now += timedelta(hours=2)  # the worker was told that M is due by then
    await house.put("NEXT")
    await house.watch.until(lambda: delivered(house) == ["NEXT"])
    assert house.store.ledger == replace(left, accepted=2, delivered=1)
    assert len([request for request in way.requests if request.queue_id == "M"]) == 1


@pytest.mark.asyncio
async def test_mail_that_is_being_tried_is_returned_after_its_attempt(house: DeliveryHouse) -> None:
    way = house.ways["own"]
    way.says = lambda request: None if request.queue_id == "M" else TAKEN
    await house.put("M", "a@x.example", "b@x.example")
    house.start()
    await house.watch.until(lambda: way.busy)
    assert await act(house, Verb.BOUNCE, "M") is Did.AFTER_ATTEMPT
    way.line_of("M").tell(Delivery((TAKEN, GREYLISTED)))
    await house.watch.until(lambda: delivered(house) == ["M", "BOUNCE1"])
    (failed,) = house.watch.of(RecipientFailed)
    assert isinstance(failed, RecipientFailed)
    assert failed.recipient == "b@x.example"


async def under_way(house: DeliveryHouse, *to: str) -> None:
    """M is being tried, and the upstream has not answered yet."""
    way = house.ways["own"]
    way.says = lambda request: None if request.queue_id == "M" else TAKEN
    await house.put("M", *to)
    house.start("default")
    house.start("other")
    await house.watch.until(lambda: way.busy)


@pytest.mark.asyncio
@pytest.mark.parametrize("verb", [Verb.HOLD, Verb.CANCEL, Verb.BOUNCE, Verb.REROUTE])
async def test_mail_that_its_attempt_delivers_is_delivered_whatever_a_person_wished_meanwhile(
    house: DeliveryHouse, verb: Verb
) -> None:
    await under_way(house)
    assert await act(house, verb, "M", "other" if verb is Verb.REROUTE else None) is Did.AFTER_ATTEMPT
    house.ways["own"].line_of("M").tell(TAKEN)
    await house.watch.until(lambda: delivered(house) == ["M"])
    await house.put("NEXT")
    await house.watch.until(lambda: delivered(house) == ["M", "NEXT"])
    assert house.store.ledger == Ledger(accepted=2, delivered=2)
    assert house.ways["spare"].requests == []


@pytest.mark.asyncio
async def test_mail_that_is_sent_another_way_while_it_is_tried_goes_that_way_at_once_and_stays_there(
    house: DeliveryHouse,
) -> None:
    spare = house.ways["spare"]
    spare.says = lambda request: GREYLISTED
    await under_way(house, "a@x.example", "b@x.example")
    assert await act(house, Verb.REROUTE, "M", "other") is Did.AFTER_ATTEMPT
    house.ways["own"].line_of("M").tell(Delivery((TAKEN, GREYLISTED)))
    await house.watch.until(lambda: len(house.watch.of(RecipientDeferred)) == 2)
    assert [[str(one.address) for one in request.recipients] for request in spare.requests] == [["b@x.example"]]
    spare.says = lambda request: TAKEN
    house.now += timedelta(hours=2)
    house.changed()
    await house.watch.until(lambda: delivered(house) == ["M", "M"])
    assert len(house.ways["own"].requests) == 1


@pytest.mark.asyncio
async def test_a_person_who_thinks_better_of_it_before_the_attempt_is_over_holds_nothing(house: DeliveryHouse) -> None:
    await under_way(house)
    for verb in (Verb.HOLD, Verb.RELEASE):
        assert await act(house, verb, "M") is Did.AFTER_ATTEMPT
    house.ways["own"].line_of("M").tell(GREYLISTED)
    await house.watch.until(lambda: house.watch.of(RecipientDeferred))
    house.ways["own"].says = lambda request: TAKEN
    house.now += timedelta(hours=2)
    house.changed()
    await house.watch.until(lambda: delivered(house) == ["M"])
    assert house.watch.of(EntryHeld) == []


@pytest.mark.asyncio
async def test_who_is_held_in_doubt_goes_with_the_others_when_a_person_releases_it_while_they_are_tried(
    house: DeliveryHouse,
) -> None:
    routes = {name: replace(route, hold_in_doubt=True) for name, route in house.policy.routes.items()}
    house.policy = replace(house.policy, routes=routes)
    way = house.ways["own"]
    await under_way(house, "a@x.example", "b@x.example")
    way.line_of("M").tell(Delivery((IN_DOUBT, GREYLISTED)))
    await house.watch.until(lambda: house.watch.of(EntryHeld))
    house.now += timedelta(hours=2)
    house.changed()
    await house.watch.until(lambda: way.busy)
    assert [str(one.address) for one in way.busy[0].request.recipients] == ["b@x.example"]  # type: ignore[union-attr]
    assert await act(house, Verb.RELEASE, "M") is Did.AFTER_ATTEMPT
    way.says = lambda request: TAKEN
    way.line_of("M").tell(TAKEN)
    await house.watch.until(lambda: delivered(house) == ["M", "M"])
    assert [str(one.address) for one in way.requests[-1].recipients] == ["a@x.example"]
    assert house.store.ledger == Ledger(accepted=2, delivered=2)


# Told


@pytest.mark.asyncio
async def test_that_mail_waits_is_told_once_however_often_it_is_tried_and_whoever_tries_it(
    house: DeliveryHouse,
) -> None:
    house.policy = replace(house.policy, delay_warning=timedelta(hours=3))
    house.ways["own"].says = lambda request: GREYLISTED if request.queue_id == "M" else TAKEN
    await house.put("M")
    worker = house.start()
    for hours in range(1, 7):
        await house.watch.until(lambda hours=hours: len(house.watch.of(RecipientDeferred)) == hours)  # type: ignore[misc]
        told = house.watch.of(NotificationQueued)
        assert len(told) == (hours > 3)
        house.now = NOON + timedelta(hours=hours)
        await house.store.make_due(now=house.now)
        worker = house.start()
        worker.make_due()
    await house.watch.until(lambda: len(delivered(house)) == 1)
    (told_once,) = house.watch.of(NotificationQueued)
    assert isinstance(told_once, NotificationQueued)
    assert (told_once.about, told_once.kind, told_once.reader) == ("M", "delay", "jan@example.nl")


@pytest.mark.asyncio
async def test_a_failure_reaches_its_sender_and_the_other_readers(house: DeliveryHouse) -> None:
    house.policy = replace(house.policy, bounces_also=(Address.of("beheer@example.nl"), Address.of("it@example.nl")))
    house.ways["own"].says = lambda request: REFUSED if request.queue_id == "M" else TAKEN
    await house.put("M")
    house.start()
    await house.watch.until(lambda: len(delivered(house)) == 3)
    sent = {request.queue_id: [str(r.address) for r in request.recipients] for request in house.ways["own"].requests}
    assert sent == {
        "M": ["piet@example.com"],
        "BOUNCE0": ["jan@example.nl"],
        "BOUNCE1": ["beheer@example.nl", "it@example.nl"],
    }
    assert house.store.ledger == Ledger(accepted=4, failed=1, delivered=3)
