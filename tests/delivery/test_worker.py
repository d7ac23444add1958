"""The worker of a route on a real store: nothing is lost, nothing is delivered twice, nobody is forgotten."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery import worker as module
from relay.delivery.window import MOST_MESSAGES
from relay.events import (
    ExceptionCaught,
    NotificationQueued,
    RecipientDeferred,
    RecipientDelivered,
    RecipientExpired,
    RecipientFailed,
    UpstreamSetAside,
    Warned,
)
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.outcome import Outcome
from relay.policy.retry import Schedule
from relay.queue.model import Lease, Ledger, Told
from relay.transport.port import Delivery, DeliveryRequest
from tests.delivery.house import DeliveryHouse, policy
from tests.delivery.ways import (
    BROKEN,
    CLOSING,
    DOWN,
    GREYLISTED,
    IN_DOUBT,
    LOCKED_OUT,
    REFUSED,
    STALE,
    TAKEN,
    all_of,
    turns,
)
from tests.kit.extent import examples
from tests.kit.ledger import balanced
from tests.queue.mail import NOON, an_entry

CODE = MemoryContent(b"Subject: code 913\r\n\r\n913\r\n", 21)
SOON = Schedule((timedelta(milliseconds=20),), timedelta(days=5))


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[DeliveryHouse]:
    house = await DeliveryHouse.build(tmp_path, policy())
    yield house
    await house.demolish()


def delivered(house: DeliveryHouse) -> list[str]:
    return [event.queue_id for event in house.watch.events if isinstance(event, RecipientDelivered)]


def paused(house: DeliveryHouse, schedule: Schedule = SOON) -> None:
    """Every route has this schedule, and with it an upstream its pauses."""
    routes = {name: replace(route, schedule=schedule) for name, route in house.policy.routes.items()}
    house.policy = replace(house.policy, routes=routes)


# Order, and the door


@pytest.mark.asyncio
async def test_waiting_mail_leaves_by_priority_and_then_by_age(house: DeliveryHouse) -> None:
    for n in range(6):
        await house.put(f"M{n}")
    await house.put("URGENT", priority=0)
    house.start()
    await house.watch.until(lambda: len(delivered(house)) == 7)
    assert delivered(house) == ["URGENT", *(f"M{n}" for n in range(6))]
    await house.watch.until(lambda: house.store.ledger == Ledger(accepted=7, delivered=7))


@pytest.mark.asyncio
async def test_fresh_mail_is_handed_over_in_memory_once_the_store_has_nothing_older(house: DeliveryHouse) -> None:
    worker = house.start()
    assert worker.room(1) is False
    await house.put("OLD")
    await house.watch.until(lambda: worker.room(1))
    assert await house.accept(an_entry(name="FRESH")) is True
    await house.watch.until(lambda: "FRESH" in delivered(house))
    assert worker._fresh_bytes == 0


@pytest.mark.asyncio
async def test_the_door_is_told_when_there_is_no_room(house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH_ENTRIES", 2)
    house.ways["own"].says = lambda request: None
    worker = house.start()
    await house.watch.until(lambda: worker.room(1))
    assert not worker.room(module.FRESH_BYTES + 1)
    taken = []
    for n in range(5):
        taken.append(await house.accept(an_entry(name=f"M{n}")))
        await turns()
    assert taken == [True, True, True, False, False]  # one is under way, two wait in memory
    house.ways["own"].says = lambda request: TAKEN
    house.ways["own"].line_of("M0").tell(TAKEN)
    await house.watch.until(lambda: len(delivered(house)) == 5)
    assert delivered(house) == [f"M{n}" for n in range(5)]
    await house.watch.until(lambda: worker.room(1))
    assert worker._fresh_bytes == 0


@pytest.mark.asyncio
async def test_mail_whose_time_has_come_is_not_passed_by_fresh_mail_for_ever(house: DeliveryHouse) -> None:
    answers: dict[str, Outcome | None] = {"OLD": GREYLISTED}
    house.ways["own"].says = lambda request: answers.get(request.queue_id, TAKEN)
    worker = house.start()
    await house.put("OLD")
    await house.watch.until(lambda: house.watch.of(RecipientDeferred) and worker.room(1))
    answers = {"M0": None}
    for n in range(3):
        assert await house.accept(an_entry(name=f"M{n}"))
    house.now += timedelta(hours=2)
    worker.bell.ring()
    await turns()
    assert not worker.room(1)  # from now on what is fresh queues up behind
    house.ways["own"].line_of("M0").tell(TAKEN)
    await house.watch.until(lambda: "OLD" in delivered(house))
    assert delivered(house) == ["M0", "M1", "M2", "OLD"]


# Set aside


@pytest.mark.asyncio
async def test_while_the_upstream_is_set_aside_mail_waits_in_the_store_and_is_not_counted_as_tried(
    house: DeliveryHouse,
) -> None:
    way = house.ways["own"]
    way.connects = None
    worker = house.start()
    await house.watch.until(lambda: worker.room(1))
    for n in range(5):
        assert await house.accept(an_entry(name=f"M{n}"))
    await house.watch.until(lambda: way.dials)
    way.connects = DOWN
    way.dials[0].set_result(DOWN)
    await house.watch.until(lambda: house.store.ledger.active == 0)
    assert (way.dialled, worker._fresh_bytes) == (1, 0)
    assert house.store.ledger == Ledger(accepted=5, deferred=1, pending=4)
    assert not worker.room(1)
    assert await house.accept(an_entry(name="M5")) is False
    way.connects = True
    house.upstreams["own"].try_now()
    await house.watch.until(lambda: len(delivered(house)) == 6)
    assert delivered(house) == [f"M{n}" for n in range(6)]
    attempts = [event.attempt for event in house.watch.events if isinstance(event, RecipientDelivered)]
    assert attempts == [2, 1, 1, 1, 1, 1]


@pytest.mark.asyncio
async def test_after_an_outage_one_message_probes_and_the_workers_of_other_routes_wait_for_it(tmp_path: Path) -> None:
    house = await DeliveryHouse.build(tmp_path, policy(default=("own",), other=("own",)), connections=3)
    paused(house)
    way = house.ways["own"]
    way.connects = DOWN
    for n in range(10):
        await house.put(f"D{n}")
        await house.put(f"O{n}", route="default")
    house.start("default", 3)
    house.start("other", 3)
    await house.watch.until(lambda: len(house.watch.of(UpstreamSetAside)) == 1)
    way.connects = None
    await house.watch.until(lambda: way.dials)
    before = way.dialled
    await turns(200)
    assert (way.dialled, len(way.dials)) == (before, 1)
    assert house.store.ledger.active == 1
    way.connects = True
    way.dials[0].set_result(True)
    await house.watch.until(lambda: len(delivered(house)) == 20)
    assert way.most <= 3
    await house.demolish()


@pytest.mark.asyncio
async def test_a_message_that_is_always_answered_with_421_does_not_hold_up_the_others(
    house: DeliveryHouse,
) -> None:
    paused(house)
    house.ways["own"].says = lambda request: CLOSING if request.queue_id == "POISON" else TAKEN
    await house.put("POISON")
    for n in range(3):
        await house.put(f"M{n}")
    house.start()
    await house.watch.until(lambda: len(delivered(house)) == 3)
    assert house.watch.of(UpstreamSetAside) == []


# Settling


@pytest.mark.asyncio
async def test_what_was_delivered_is_recorded_however_often_the_store_must_be_asked(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_PAUSE", 0.001)
    house.ways["own"].says = lambda request: None
    house.start()
    await house.put("M")
    await house.watch.until(lambda: house.ways["own"].busy)
    house.store.broken = True
    house.ways["own"].line_of("M").tell(TAKEN)
    await turns(200)
    assert delivered(house) == []
    house.store.broken = False
    await house.watch.until(lambda: delivered(house) == ["M"])
    assert len(house.ways["own"].requests) == 1
    assert house.store.ledger == Ledger(accepted=1, delivered=1)


@pytest.mark.asyncio
@pytest.mark.parametrize("before", [MOST_MESSAGES - 1, MOST_MESSAGES], ids=["a message", "a line"])
async def test_a_bounce_counts_at_once_and_the_line_of_a_summary_when_the_store_has_it(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setattr(module, "STORE_PAUSE", 0.001)
    jan, window = Address.of("jan@example.nl"), house.shared.window
    window.note([Told(jan, f"{number}", house.now) for number in range(before)])
    house.ways["own"].says = lambda request: None
    house.start()
    await house.put("M")
    await house.watch.until(lambda: house.ways["own"].busy)
    house.store.broken = True
    house.ways["own"].line_of("M").tell(REFUSED)
    await turns(200)
    assert window.full(house.now) == {jan}
    assert window.collected(jan) == 0
    house.ways["own"].says = lambda request: TAKEN
    house.store.broken = False
    await house.watch.until(lambda: house.store.ledger.failed == 1)
    await turns()
    assert window.collected(jan) == before - MOST_MESSAGES + 1


@pytest.mark.asyncio
async def test_a_relay_that_stops_does_not_wait_for_ever_for_its_store_and_says_what_may_arrive_twice(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_PAUSE", 0.001)
    house.ways["own"].says = lambda request: None
    house.start()
    await house.put("M")
    await house.watch.until(lambda: house.ways["own"].busy)
    house.store.broken = True
    house.ways["own"].line_of("M").tell(TAKEN)
    house.stopping = True
    await house.stop()
    (warning,) = house.watch.of(Warned)
    assert isinstance(warning, Warned)
    assert warning.text.startswith("M: ")
    assert delivered(house) == []


@pytest.mark.asyncio
async def test_mail_that_sleeps_is_found_again_after_the_store_failed_at_the_wrong_moment(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_PAUSE", 0.001)
    asked = asyncio.Event()
    next_due = house.store.next_due

    async def fail_once(route: str) -> object:
        asked.set()
        monkeypatch.setattr(house.store, "next_due", next_due)
        raise module.StoreUnavailable("io", "the disk is out of order")

    monkeypatch.setattr(house.store, "next_due", fail_once)
    lease = await house.store.put(an_entry(name="SLEEPS"), leased=True)
    await house.store.settle(module.Settlement(lease, (module.Result(0, module.State.PENDING),), NOON))
    house.now = NOON - timedelta(milliseconds=100)  # it is due in a moment
    worker = house.start()
    async with asyncio.timeout(60):
        await asked.wait()
        while worker._due_at is None:
            await asyncio.sleep(0)
    house.now = NOON
    await house.watch.until(lambda: delivered(house) == ["SLEEPS"])


# Stop and replace


@pytest.mark.asyncio
async def test_a_worker_that_stops_gives_back_what_it_did_not_try(house: DeliveryHouse) -> None:
    house.ways["own"].says = lambda request: None
    worker = house.start()
    await house.watch.until(lambda: worker.room(1))
    for n in range(4):
        assert await house.accept(an_entry(name=f"M{n}"))
    await house.watch.until(lambda: house.ways["own"].busy)
    house.ways["own"].line_of("M0").past_dot = True
    await house.stop()
    assert house.store.ledger == Ledger(accepted=4, deferred=1, pending=3)
    assert worker._fresh_bytes == 0
    assert not worker.room(1)


@pytest.mark.asyncio
async def test_a_worker_stopped_before_it_began_ends(house: DeliveryHouse) -> None:
    house.start().stop()
    async with asyncio.timeout(60):
        await asyncio.gather(*house._running)


@pytest.mark.asyncio
@pytest.mark.parametrize("steps", range(12))
async def test_no_lease_is_lost_at_whatever_moment_a_worker_is_replaced(house: DeliveryHouse, steps: int) -> None:
    for n in range(8):
        await house.put(f"M{n}")
    house.start()
    for _ in range(steps):
        await asyncio.sleep(0)
        if house.store.ledger.active:
            break
    house.start(runners=2)
    await house.watch.until(lambda: len(delivered(house)) == 8)
    assert sorted(delivered(house)) == [f"M{n}" for n in range(8)]


@pytest.mark.asyncio
async def test_no_lease_is_lost_when_a_worker_is_replaced_as_the_store_answers(house: DeliveryHouse) -> None:
    lease = house.store.lease
    replaced = False

    async def and_replaced(route: str, *, limit: int, now: object) -> list[Lease]:
        nonlocal replaced
        leases = await lease(route, limit=limit, now=now)
        if leases and not replaced:
            replaced = True
            house.start(runners=2)
        return leases

    house.store.lease = and_replaced  # type: ignore[method-assign]
    await house.put("M")
    house.start()
    await house.watch.until(lambda: delivered(house) == ["M"])
    assert replaced


@pytest.mark.asyncio
async def test_the_successor_of_a_worker_hears_when_mail_that_was_under_way_waits(house: DeliveryHouse) -> None:
    way = house.build_way("own", connections=2)
    way.says = lambda request: None
    house.start(runners=2)
    await house.put("LONG")
    await house.put("M")
    await house.watch.until(lambda: len(way.busy) == 2)
    successor = house.start(runners=3)
    await turns()
    way.line_of("M").tell(GREYLISTED)
    async with asyncio.timeout(60):
        while successor._due_at is None:
            await asyncio.sleep(0)
    assert successor._due_at >= NOON + timedelta(minutes=54)


# Routes that change


@pytest.mark.asyncio
async def test_mail_that_the_current_policy_sends_another_way_is_moved_there(house: DeliveryHouse) -> None:
    house.build_way("spare")
    await house.put("M", route="gone")
    house.start("gone")
    house.start("default")
    await house.watch.until(lambda: delivered(house) == ["M"])
    assert house.ways["own"].requests[0].queue_id == "M"


@pytest.mark.asyncio
async def test_a_route_whose_upstreams_are_gone_waits_and_does_not_spin(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = house.upstreams.pop("own")
    await house.put("M")
    leased = 0

    async def lease(*_: object, **__: object) -> list[Lease]:
        nonlocal leased
        leased += 1
        return []

    monkeypatch.setattr(house.store, "lease", lease)
    worker = house.start()
    await turns(200)
    assert not worker.room(1)
    assert leased == 0
    monkeypatch.undo()
    house.upstreams["own"] = own
    house.changed()
    await house.watch.until(lambda: delivered(house) == ["M"])


@pytest.mark.asyncio
async def test_an_upstream_replaced_by_a_reload_hands_its_waiting_mail_to_the_new_one(house: DeliveryHouse) -> None:
    old_way, old = house.ways["own"], house.upstreams["own"]
    old_way.says = lambda request: None
    house.start(runners=2)
    await house.put("M0")
    await house.put("M1")
    await house.watch.until(lambda: old_way.busy)
    await turns()
    new_way = house.build_way("own")
    await old.close()
    house.changed()
    await house.watch.until(lambda: delivered(house) == ["M1"])
    old_way.line_of("M0").tell(TAKEN)
    await house.watch.until(lambda: delivered(house) == ["M1", "M0"])
    assert [request.queue_id for request in new_way.requests] == ["M1"]
    assert old_way.lines == []


@pytest.mark.asyncio
async def test_ordinary_mail_that_a_reload_makes_a_session_code_does_not_spin(tmp_path: Path) -> None:
    house = await DeliveryHouse.build(tmp_path, policy(default=("own",), session_codes=("own",)))
    house.ways["own"].connects = DOWN
    for name in ("M0", "M1"):
        await house.put(name, content=CODE)  # accepted when it was none
    house.start("session-codes")
    house.start("default")
    await house.watch.until(lambda: len(house.watch.of(RecipientDeferred)) == 2)
    await turns(200)
    assert len(house.watch.of(RecipientDeferred)) == 2
    for event in house.watch.of(RecipientDeferred):
        assert isinstance(event, RecipientDeferred)
        assert event.next_attempt_at is not None
        assert event.next_attempt_at > NOON
    assert house.ways["own"].dialled == 1
    await house.demolish()


# Bugs


@pytest.mark.asyncio
async def test_a_message_that_cannot_be_prepared_waits_and_holds_up_nobody(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def decided(lease: Lease, policy: object) -> object:
        if lease.entry.queue_id == "BAD":
            raise RuntimeError("a bug")
        return await good(lease, policy)  # type: ignore[arg-type]

    good = module.decided
    monkeypatch.setattr(module, "decided", decided)
    await house.put("BAD")
    await house.put("GOOD")
    house.start()
    await house.watch.until(lambda: delivered(house) == ["GOOD"])
    (event,) = house.watch.of(RecipientDeferred)
    assert isinstance(event, RecipientDeferred)
    assert event.next_attempt_at is not None
    assert event.next_attempt_at > NOON
    assert len(house.watch.of(ExceptionCaught)) == 1


@pytest.mark.asyncio
async def test_when_the_judge_has_a_bug_what_was_delivered_is_recorded_and_the_rest_held_for_a_person(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settle(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "settle", settle)
    house.ways["own"].says = lambda request: Delivery((TAKEN, REFUSED, GREYLISTED))
    await house.put("M", "a@x.example", "b@x.example", "c@x.example")
    house.start()
    await house.watch.until(lambda: house.store.ledger == Ledger(accepted=3, delivered=1, held=2))
    assert len(house.watch.of(ExceptionCaught)) == 1
    assert len(house.ways["own"].requests) == 1


@pytest.mark.asyncio
async def test_what_the_error_of_a_bug_says_is_not_told_of_a_session_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await DeliveryHouse.build(tmp_path, policy(session_codes=("own",), default=("own",)))

    def settle(*_: object, **__: object) -> None:
        raise RuntimeError(CODE.head.decode())

    monkeypatch.setattr(module, "settle", settle)
    await house.put("M", content=CODE, route="session-codes", session_code=True)
    house.start("session-codes")
    await house.watch.until(lambda: house.watch.of(ExceptionCaught))
    assert "code 913" not in repr(house.watch.events)
    await house.demolish()


# Lifetimes


@pytest.mark.asyncio
async def test_mail_past_its_lifetime_is_tried_a_last_time_before_it_expires(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP", 0.001)
    for n in range(20):
        await house.put(f"M{n}", expires_at=NOON - timedelta(days=1))
    house.start()
    await house.watch.until(lambda: len(delivered(house)) == 20)
    assert house.watch.of(RecipientExpired) == []


@pytest.mark.asyncio
async def test_mail_past_its_lifetime_expires_behind_an_upstream_that_was_tried_in_vain(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP", 0.001)
    house.ways["own"].connects = DOWN
    house.steady = False
    await house.put("FIRST")
    for n in range(3):
        await house.put(f"M{n}", expires_at=NOON - timedelta(days=1))
    house.start()
    await house.watch.until(lambda: house.watch.of(UpstreamSetAside))
    await turns(200)
    assert house.watch.of(RecipientExpired) == []  # not while the clock cannot be believed
    house.steady = True
    await house.watch.until(lambda: len(house.watch.of(RecipientExpired)) == 3)
    assert len(house.watch.of(NotificationQueued)) == 3
    assert balanced(house.store.ledger)


@pytest.mark.asyncio
async def test_an_expiry_that_meets_a_bug_is_held_for_a_person_once(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expire(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "expire", expire)
    monkeypatch.setattr(module, "SWEEP", 0.001)
    house.ways["own"].connects = DOWN
    await house.put("FIRST")
    await house.put("M", expires_at=NOON - timedelta(days=1))
    house.start()
    await house.watch.until(lambda: house.store.ledger.held == 1)
    await turns(200)
    assert len(house.watch.of(ExceptionCaught)) == 1


@pytest.mark.asyncio
async def test_a_session_code_that_is_too_late_expires_instead_of_arriving_dead(tmp_path: Path) -> None:
    house = await DeliveryHouse.build(tmp_path, policy(session_codes=("own",), default=("own",)))
    house.steady = False  # it goes by the clock, always
    late = NOON - timedelta(seconds=1)
    await house.put("LATE", content=CODE, route="session-codes", session_code=True, expires_at=late)
    house.start("default")
    house.start("session-codes")
    await house.watch.until(lambda: house.watch.of(RecipientExpired))
    await house.watch.until(lambda: delivered(house) == ["BOUNCE0"])
    assert [request.queue_id for request in house.ways["own"].requests] == ["BOUNCE0"]
    await house.demolish()


# Session codes


@pytest.mark.asyncio
async def test_a_session_code_whose_every_way_refuses_the_password_waits_for_its_schedule(tmp_path: Path) -> None:
    house = await DeliveryHouse.build(tmp_path, policy(session_codes=("own",), default=("own",)))
    house.ways["own"].connects = LOCKED_OUT
    house.start("default")
    house.start("session-codes")
    for name in ("C0", "C1"):
        await house.put(name, content=CODE, route="session-codes", session_code=True)
    await house.watch.until(lambda: len(house.watch.of(RecipientDeferred)) == 2)
    assert house.ways["own"].dialled == 1
    for event in house.watch.of(RecipientDeferred):
        assert isinstance(event, RecipientDeferred)
        assert event.next_attempt_at is not None
        assert event.next_attempt_at > NOON
    await house.demolish()


# Everything at once

answers = st.sampled_from([TAKEN, TAKEN, REFUSED, GREYLISTED, CLOSING, STALE, BROKEN, IN_DOUBT, OSError("gone")])


@examples(25)
@given(
    recipients=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    said=st.lists(answers, max_size=12),
    downs=st.sets(st.integers(0, 6)),
    most=st.integers(1, 3),
    replace_at=st.sets(st.integers(0, 8)),
)
def test_every_recipient_ends_once_and_the_books_balance_at_every_moment(
    recipients: list[int],
    said: list[Outcome | Exception],
    downs: set[int],
    most: int,
    replace_at: set[int],
) -> None:
    async def live(folder: Path) -> None:
        house = await DeliveryHouse.build(folder, policy(default=("own", "spare")), connections=2)
        paused(house)
        took: list[tuple[str, str]] = []

        def answer(request: DeliveryRequest) -> Outcome | Delivery | Exception:
            steps = len(took) + len(house.watch.of(RecipientDeferred))
            house.now += timedelta(seconds=1)
            outcome = said.pop() if said else TAKEN
            if isinstance(outcome, Exception):
                return outcome
            if outcome is TAKEN:
                took.extend((request.queue_id, str(recipient.address)) for recipient in request.recipients)
            if steps in replace_at:
                house.start(runners=2)
            for name, way in house.ways.items():
                way.connects = DOWN if (steps + len(name)) in downs else True
            return all_of(request, outcome)

        for name in ("own", "spare"):
            house.build_way(name, 2, most).says = answer
        for n, count in enumerate(recipients):
            await house.put(f"M{n}", *(f"r{k}@x.example" for k in range(count)))
        house.start(runners=2)
        total = sum(recipients)

        def ended() -> bool:
            ledger = house.store.ledger
            assert balanced(ledger)
            done = [e for e in house.watch.events if isinstance(e, RecipientDelivered | RecipientFailed)]
            return len([event for event in done if event.queue_id.startswith("M")]) >= total

        async def hurry() -> None:
            while True:  # reloads: what waits is tried at once
                await house.store.make_due(now=house.now)
                for name, upstream in house.upstreams.items():
                    house.ways[name].connects = True
                    upstream.try_now()
                house.now += timedelta(seconds=1)
                house.changed()

        hurrying = asyncio.create_task(hurry())
        await house.watch.until(ended)
        hurrying.cancel()
        await asyncio.gather(hurrying, return_exceptions=True)
        done = [e for e in house.watch.events if isinstance(e, RecipientDelivered | RecipientFailed)]
        fates = [(event.queue_id, event.recipient) for event in done if event.queue_id.startswith("M")]
        assert len(fates) == len(set(fates)) == total
        assert len(took) == len(set(took))  # nobody got it twice
        assert balanced(house.store.ledger)
        assert all(way.most <= 2 for way in house.ways.values())
        await house.demolish()
        assert (house.store.ledger.active, balanced(house.store.ledger)) == (0, True)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder)))
