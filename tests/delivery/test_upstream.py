"""One upstream: how many connections it sees, who comes first, and what happens when it is set aside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery import health as module
from relay.delivery import pool
from relay.delivery.upstream import Upstream
from relay.events import UpstreamRestored, UpstreamSetAside
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.envelope import Recipient
from relay.mail.outcome import Deferred, Outcome, Stage, Trouble
from relay.policy.retry import Schedule
from relay.transport.port import Delivery, DeliveryRequest
from tests.delivery.ways import (
    BROKEN,
    CLOSING,
    DOWN,
    GREYLISTED,
    HUNG_UP,
    IN_DOUBT,
    LOCKED_OUT,
    NOT_HERE,
    REFUSED,
    STALE,
    TAKEN,
    UNABLE,
    Watch,
    Way,
    turns,
)
from tests.kit import configured
from tests.kit.extent import examples

SOON = Schedule((timedelta(milliseconds=20),), timedelta(days=1))
LATE = Schedule((timedelta(hours=1),), timedelta(days=1))
GROWING = Schedule((timedelta(minutes=1), timedelta(minutes=2), timedelta(hours=3)), timedelta(days=1))


class Street:
    """An upstream on a way of the test's."""

    def __init__(self, connections: int = 3) -> None:
        self.watch = Watch()
        self.way = Way("own", self.watch)
        self.changes = 0
        self.upstream = Upstream(
            self.way,
            configured.upstream_limits(max_connections=connections),
            observer=self.watch,
            changed=self._changed,
        )
        self._tasks: list[asyncio.Task[Delivery | None]] = []

    def _changed(self) -> None:
        self.changes += 1
        self.watch.stir()

    def send(
        self,
        name: str = "M",
        *,
        priority: int = 1,
        schedule: Schedule = SOON,
        patience: float | None = None,
        insist: bool = False,
    ) -> asyncio.Task[Delivery | None]:
        recipient = Recipient(Address.of("piet@example.com"))
        content = MemoryContent(b"\r\nhoi\r\n", 2)
        request = DeliveryRequest(name, None, (recipient,), b"\r\n", content, 2, patience=patience)
        task = asyncio.create_task(self.upstream.deliver(request, priority=priority, schedule=schedule, insist=insist))
        task.add_done_callback(lambda _: self.watch.stir())
        self._tasks.append(task)
        return task

    async def outcome(self, task: asyncio.Task[Delivery | None]) -> Outcome | None:
        async with asyncio.timeout(60):
            delivery = await task
        return None if delivery is None else delivery.outcomes[0]

    async def fall(self, trouble: Deferred = DOWN, schedule: Schedule = LATE) -> None:
        """It is set aside."""
        before, self.way.connects = self.way.connects, trouble
        assert await self.outcome(self.send("fall", schedule=schedule)) == trouble
        self.way.connects = before
        assert not self.upstream.up

    async def pause_over(self) -> None:
        async with asyncio.timeout(60):
            while self.upstream.opens_in > 0:
                await asyncio.sleep(self.upstream.opens_in)

    async def demolish(self) -> None:
        self.upstream.end(0.0)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.upstream.close()


@pytest_asyncio.fixture
async def street() -> AsyncIterator[Street]:
    street = Street()
    yield street
    await street.demolish()


# The pool


@pytest.mark.asyncio
async def test_a_connection_is_used_again(street: Street) -> None:
    for _ in range(5):
        assert await street.outcome(street.send()) == TAKEN
    assert (street.way.dialled, street.upstream.connections) == (1, (1, 0))


@pytest.mark.asyncio
async def test_no_more_connections_than_allowed_whoever_wants_them(street: Street) -> None:
    street.way.says = lambda request: None
    tasks = [street.send(f"M{n}") for n in range(10)]
    await turns()
    assert street.upstream.connections == (0, 3)
    for n in range(10):
        street.way.line_of(f"M{n}").tell(TAKEN)
        await turns()
    assert [await street.outcome(task) for task in tasks] == [TAKEN] * 10
    assert (street.way.most, street.way.dialled) == (3, 3)
    assert street.upstream.connections == (3, 0)


@pytest.mark.asyncio
async def test_who_waits_for_a_connection_goes_by_priority_and_then_by_age() -> None:
    street = Street(connections=1)
    street.way.says = lambda request: None
    street.send("first")
    await turns()
    for name, priority in (("low", 2), ("a", 1), ("code", 0), ("b", 1)):
        street.send(name, priority=priority)
    await turns()
    order = []
    for _ in range(5):
        (line,) = street.way.busy
        assert line.request is not None
        order.append(line.request.queue_id)
        line.tell(TAKEN)
        await turns()
    assert order == ["first", "code", "a", "b", "low"]
    await street.demolish()


@pytest.mark.asyncio
async def test_a_place_whose_taker_was_cancelled_goes_to_the_next() -> None:
    street = Street(connections=1)
    street.way.says = lambda request: None
    street.send("first")
    await turns()
    gone, early, stays = street.send("gone"), street.send("early"), street.send("stays")
    await turns()
    early.cancel()
    await turns()
    street.way.line_of("first").tell(TAKEN)
    await asyncio.sleep(0)  # the transaction ends, the place is handed on …
    gone.cancel()  # … to one that will not use it
    await turns()
    street.way.line_of("stays").tell(TAKEN)
    assert await street.outcome(stays) == TAKEN
    assert street.upstream.connections == (1, 0)
    await street.demolish()


@pytest.mark.asyncio
async def test_a_connection_that_timed_out_while_it_lay_idle_is_replaced_unnoticed(street: Street) -> None:
    for stale in (STALE, CLOSING, HUNG_UP):
        assert await street.outcome(street.send()) == TAKEN
        dialled = street.way.dialled
        answers: list[Outcome] = [stale, TAKEN]
        street.way.says = lambda request, answers=answers: answers.pop(0)  # type: ignore[misc]
        assert await street.outcome(street.send()) == TAKEN
        street.way.says = lambda request: TAKEN
        assert street.way.dialled == dialled + 1
    assert street.watch.of(UpstreamSetAside) == []
    assert street.upstream.connections == (1, 0)


@pytest.mark.asyncio
async def test_a_fresh_connection_that_drops_is_not_dialled_again_for_the_same_message(street: Street) -> None:
    street.way.says = lambda request: STALE
    assert await street.outcome(street.send()) == STALE
    assert street.way.dialled == 1
    assert street.upstream.up


@pytest.mark.asyncio
async def test_a_reused_connection_that_breaks_later_is_not_tried_again(street: Street) -> None:
    for trouble in (BROKEN, IN_DOUBT, replace(STALE, in_doubt=True)):  # it had left with its envelope
        street.way.says = lambda request: TAKEN
        assert await street.outcome(street.send()) == TAKEN
        street.way.says = lambda request, trouble=trouble: trouble  # type: ignore[misc]
        assert await street.outcome(street.send()) == trouble
    assert len(street.way.requests) == 6


@pytest.mark.asyncio
async def test_connections_without_work_are_closed_and_count_until_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE", 0.01)
    street = Street(connections=1)
    street.way.goodbye = asyncio.Event()
    assert await street.outcome(street.send()) == TAKEN
    async with asyncio.timeout(60):
        while street.upstream.connections != (0, 1):  # it says goodbye
            await asyncio.sleep(0)
    waiting = street.send()
    await turns()
    assert street.way.most == 1
    street.way.goodbye.set()
    assert await street.outcome(waiting) == TAKEN
    assert street.way.most == 1
    await street.demolish()


@pytest.mark.asyncio
async def test_content_that_cannot_be_read_frees_its_place_and_drops_the_connection(street: Street) -> None:
    street.way.says = lambda request: OSError("gone")
    with pytest.raises(OSError, match="gone"):
        await street.outcome(street.send())
    assert street.way.lines == []
    assert street.upstream.connections == (0, 0)


# Patience


@pytest.mark.asyncio
async def test_patience_covers_the_wait_for_a_connection_and_says_nothing_of_the_upstream() -> None:
    street = Street(connections=1)
    street.way.says = lambda request: None
    street.send("slow")
    await turns()
    outcome = await street.outcome(street.send("code", priority=0, patience=0.01))
    assert isinstance(outcome, Deferred)
    assert (outcome.stage, outcome.trouble, outcome.upstream_sick) == (Stage.CONNECT, Trouble.TIMEOUT, False)
    assert street.upstream.up
    street.way.line_of("slow").tell(TAKEN)
    await turns()
    assert street.upstream.connections == (1, 0)
    await street.demolish()


@pytest.mark.asyncio
async def test_patience_covers_the_connect_and_what_is_left_of_it_goes_to_the_transaction(street: Street) -> None:
    street.way.connects = None
    task = street.send(patience=30.0)
    await turns()
    street.way.dials[0].set_result(True)
    assert await street.outcome(task) == TAKEN
    (request,) = street.way.requests
    assert request.patience is not None
    assert 0 < request.patience < 30.0
    street.way.connects = None
    street.upstream.pool.drop_all()
    outcome = await street.outcome(street.send(patience=0.01))
    assert isinstance(outcome, Deferred)
    assert (outcome.stage, outcome.trouble) == (Stage.CONNECT, Trouble.TIMEOUT)
    assert street.way.dials[1].cancelled()


# Set aside


@pytest.mark.asyncio
async def test_an_upstream_that_is_down_is_set_aside_and_nobody_tries_it_in_the_pause(street: Street) -> None:
    await street.fall()
    assert await street.outcome(street.send()) is None
    assert street.way.dialled == 1
    assert 0.9 * 300 <= street.upstream.opens_in <= 1.1 * 300  # an interval of an hour: at most 5 minutes
    assert street.changes == 1


@pytest.mark.asyncio
async def test_after_the_pause_exactly_one_probes_and_then_all_come_back(street: Street) -> None:
    await street.fall(schedule=SOON)
    await street.pause_over()
    street.way.connects = None
    probe = street.send("probe")
    await turns()
    others = [street.send(f"M{n}") for n in range(5)]
    assert [await street.outcome(other) for other in others] == [None] * 5
    assert street.upstream.opens_in == float("inf")
    assert len(street.way.dials) == 1
    street.way.dials[0].set_result(True)
    assert await street.outcome(probe) == TAKEN
    assert street.watch.of(UpstreamRestored) == [UpstreamRestored("own")]
    assert (street.upstream.up, street.upstream.opens_in, street.changes) == (True, 0.0, 2)


@pytest.mark.asyncio
async def test_the_pause_grows_with_every_probe_that_fails_and_is_short_again_after_a_success(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paused() -> list[float]:
        return [round(event.seconds) for event in street.watch.events if isinstance(event, UpstreamSetAside)]

    monkeypatch.setattr(module.random, "random", lambda: 0.5)
    for _ in range(4):
        await street.fall(schedule=GROWING)
        street.upstream.try_now()
    assert paused() == [60, 120, 300, 300]
    assert await street.outcome(street.send()) == TAKEN
    street.upstream.pool.drop_all()
    await street.fall(schedule=GROWING)
    assert paused() == [60, 120, 300, 300, 60]


@pytest.mark.asyncio
async def test_attempts_that_began_before_it_was_set_aside_are_no_news(street: Street) -> None:
    street.way.connects = None
    tasks = [street.send(f"M{n}", schedule=LATE) for n in range(3)]
    await turns()
    for dial in street.way.dials:
        dial.set_result(DOWN)
    assert [await street.outcome(task) for task in tasks] == [DOWN] * 3
    assert len(street.watch.of(UpstreamSetAside)) == 1


@pytest.mark.asyncio
async def test_who_waited_for_a_connection_does_not_try_an_upstream_that_was_set_aside_meanwhile() -> None:
    street = Street(connections=1)
    street.way.connects = None
    first, waiting = street.send("first", schedule=LATE), street.send("waiting")
    await turns()
    street.way.dials[0].set_result(LOCKED_OUT)
    assert await street.outcome(first) == LOCKED_OUT
    assert await street.outcome(waiting) is None
    assert street.way.dialled == 1
    assert street.upstream.connections == (0, 0)
    await street.demolish()


@pytest.mark.asyncio
async def test_who_is_asked_to_insist_goes_past_the_pause_and_its_failure_makes_it_no_longer(street: Street) -> None:
    await street.fall()
    opens_in = street.upstream.opens_in
    street.way.connects = DOWN
    assert await street.outcome(street.send(insist=True)) == DOWN
    assert street.upstream.opens_in <= opens_in
    assert len(street.watch.of(UpstreamSetAside)) == 1
    street.way.connects = True
    assert await street.outcome(street.send(insist=True)) == TAKEN
    assert street.upstream.up


@pytest.mark.asyncio
async def test_who_insists_beside_a_probe_does_not_take_its_place(street: Street) -> None:
    await street.fall(schedule=SOON)
    await street.pause_over()
    street.way.connects = None
    street.send("probe", schedule=SOON)
    await turns()
    insisting = street.send("code", insist=True, schedule=SOON)
    await turns()
    street.way.dials[1].set_result(DOWN)
    assert await street.outcome(insisting) == DOWN
    assert street.upstream.opens_in == float("inf")
    assert len(street.watch.of(UpstreamSetAside)) == 1


@pytest.mark.asyncio
async def test_nobody_insists_where_repeated_tries_would_lock_the_account(street: Street) -> None:
    await street.fall(LOCKED_OUT)
    assert await street.outcome(street.send(insist=True)) is None
    assert street.way.dialled == 1


@pytest.mark.asyncio
async def test_a_connection_from_before_does_not_bring_back_an_upstream_that_refuses_the_password() -> None:
    street = Street(connections=2)
    street.way.says = lambda request: None
    old = street.send("old")
    await turns()
    await street.fall(LOCKED_OUT)
    street.way.line_of("old").tell(TAKEN)
    assert await street.outcome(old) == TAKEN
    assert not street.upstream.up
    await street.demolish()


@pytest.mark.asyncio
async def test_a_transaction_that_succeeds_shows_that_the_upstream_is_well(street: Street) -> None:
    street.way.says = lambda request: None
    old = street.send("old")
    await turns()
    await street.fall()
    street.way.line_of("old").tell(TAKEN)
    assert await street.outcome(old) == TAKEN
    assert street.upstream.up


@pytest.mark.asyncio
async def test_a_line_that_breaks_does_not_show_that_the_upstream_is_well(street: Street) -> None:
    street.way.says = lambda request: None
    old = street.send("old")
    await turns()
    await street.fall()
    street.way.line_of("old").tell(BROKEN)
    assert await street.outcome(old) == BROKEN
    assert not street.upstream.up


@pytest.mark.asyncio
@pytest.mark.parametrize("trouble", [STALE, BROKEN, IN_DOUBT, GREYLISTED, REFUSED, NOT_HERE])
async def test_a_message_that_fails_by_itself_keeps_no_upstream_set_aside(street: Street, trouble: Outcome) -> None:
    await street.fall(schedule=SOON)
    await street.pause_over()
    street.way.says = lambda request: trouble
    assert await street.outcome(street.send()) == trouble
    assert street.upstream.up
    assert await street.outcome(street.send()) == trouble
    assert street.upstream.up


@pytest.mark.asyncio
async def test_421_in_a_transaction_sets_the_upstream_aside(street: Street) -> None:
    street.way.says = lambda request: CLOSING
    assert await street.outcome(street.send()) == CLOSING
    (event,) = street.watch.of(UpstreamSetAside)
    assert isinstance(event, UpstreamSetAside)
    assert (event.stage, event.code, event.text) == (Stage.MAIL, 421, "bye")
    assert street.upstream.connections == (0, 0)


@pytest.mark.asyncio
@pytest.mark.parametrize("trouble", [UNABLE, HUNG_UP])
async def test_an_endpoint_that_is_unable_or_gives_no_answer_is_set_aside(street: Street, trouble: Deferred) -> None:
    street.way.says = lambda request: trouble
    assert await street.outcome(street.send(schedule=LATE)) == trouble
    (event,) = street.watch.of(UpstreamSetAside)
    assert isinstance(event, UpstreamSetAside)
    assert (event.stage, event.code) == (Stage.HTTP, trouble.reply.code if trouble.reply else 0)
    assert event.text == ("" if trouble.reply else "no answer")


@pytest.mark.asyncio
@pytest.mark.parametrize(("asked", "seconds"), [(0.0, 60), (7.0, 60), (90.0, 90), (86_400.0, 900)])
async def test_an_upstream_is_left_alone_for_as_long_as_it_asks_but_no_more_than_a_quarter_of_an_hour(
    street: Street, asked: float, seconds: int
) -> None:
    street.way.says = lambda request: replace(UNABLE, retry_after=asked)
    await street.outcome(street.send(schedule=GROWING))
    (event,) = street.watch.of(UpstreamSetAside)
    assert isinstance(event, UpstreamSetAside)
    assert event.seconds == pytest.approx(seconds, rel=0.11)


@pytest.mark.asyncio
@pytest.mark.parametrize("stage", [Stage.DATA, Stage.BODY, Stage.DOT])
async def test_what_a_421_says_about_content_is_not_told_since_it_may_quote_a_code(
    street: Street, stage: Stage
) -> None:
    street.way.says = lambda request: replace(CLOSING, stage=stage)
    await street.outcome(street.send())
    (event,) = street.watch.of(UpstreamSetAside)
    assert isinstance(event, UpstreamSetAside)
    assert (event.code, event.text) == (421, "")


@pytest.mark.asyncio
async def test_a_probe_that_ends_without_a_verdict_leaves_its_place_to_another_and_says_so(street: Street) -> None:
    await street.fall(schedule=SOON)
    await street.pause_over()
    changes = street.changes
    street.way.says = lambda request: OSError("the spool file is gone")
    with pytest.raises(OSError, match="spool"):
        await street.outcome(street.send())
    assert street.upstream.opens_in == 0
    assert street.changes == changes + 1
    street.way.connects = None
    cancelled = street.send()
    await turns()
    cancelled.cancel()
    await turns()
    assert street.upstream.opens_in == 0
    assert street.changes == changes + 2


@pytest.mark.asyncio
async def test_after_a_reload_the_pause_ends_and_what_was_under_way_says_nothing(street: Street) -> None:
    await street.fall(LOCKED_OUT, schedule=SOON)
    await street.pause_over()
    street.way.connects = None
    with_the_old_password = street.send("old", schedule=LATE)
    await turns()
    street.upstream.try_now()
    assert street.upstream.opens_in == 0
    probe = street.send("new")
    await turns()
    street.way.dials[0].set_result(LOCKED_OUT)
    assert await street.outcome(with_the_old_password) == LOCKED_OUT
    assert len(street.watch.of(UpstreamSetAside)) == 1
    assert street.upstream.opens_in == float("inf")
    street.way.dials[1].set_result(True)
    assert await street.outcome(probe) == TAKEN
    assert street.upstream.up


# The end


@pytest.mark.asyncio
async def test_at_the_end_only_what_is_past_the_dot_gets_time_for_its_answer() -> None:
    street = Street(connections=2)
    street.way.says = lambda request: None
    early, past, waiting = street.send("early"), street.send("past"), street.send("waiting")
    await turns()
    street.way.line_of("past").past_dot = True
    street.upstream.end(60.0)
    assert await street.outcome(early) == BROKEN
    assert await street.outcome(waiting) is None
    assert not past.done()
    street.way.line_of("past").tell(TAKEN)
    assert await street.outcome(past) == TAKEN
    assert await street.outcome(street.send()) is None
    await street.upstream.close()
    assert street.way.lines == []
    assert street.upstream.connections == (0, 0)


@pytest.mark.asyncio
async def test_an_answer_that_does_not_come_in_time_is_in_doubt() -> None:
    street = Street()
    street.way.says = lambda request: None
    past = street.send("past")
    await turns()
    street.way.line_of("past").past_dot = True
    street.upstream.end(0.001)
    assert await street.outcome(past) == IN_DOUBT
    await street.upstream.close()


@pytest.mark.asyncio
async def test_a_connect_under_way_at_the_end_was_no_attempt_and_says_nothing_of_the_upstream() -> None:
    street = Street()
    street.way.connects = None
    task = street.send()
    await turns()
    street.upstream.end(60.0)
    assert await street.outcome(task) is None
    assert street.way.dials[0].cancelled()
    assert street.watch.events == []
    await street.upstream.close()


@pytest.mark.asyncio
async def test_a_connection_that_is_there_just_as_the_relay_stops_carries_nothing() -> None:
    street = Street()
    street.way.connects = None
    task = street.send()
    await turns()
    street.way.dials[0].set_result(True)
    street.upstream.end(60.0)
    await street.outcome(task)
    assert street.way.lines == []
    assert not any(request.queue_id == "M" and outcome == TAKEN for request, outcome in _taken(street, task))
    await street.upstream.close()


def _taken(street: Street, task: asyncio.Task[Delivery | None]) -> list[tuple[DeliveryRequest, Outcome]]:
    delivery = task.result()
    return [] if delivery is None else [(request, delivery.outcomes[0]) for request in street.way.requests]


ANSWERS: list[Outcome] = [TAKEN, REFUSED, GREYLISTED, CLOSING, STALE, BROKEN, IN_DOUBT]


@examples(60)
@given(
    connections=st.integers(1, 3),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["send", "code", "connect", "down", "answer", "cancel", "reload"]), st.integers(0, 9)
        ),
        max_size=40,
    ),
)
def test_whatever_happens_places_are_kept_and_one_probes(connections: int, steps: list[tuple[str, int]]) -> None:
    async def live() -> None:
        street = Street(connections)
        street.way.connects = None
        street.way.says = lambda request: None
        tasks: list[asyncio.Task[Delivery | None]] = []
        for step, n in steps:
            dials = [dial for dial in street.way.dials if not dial.done()]
            busy = street.way.busy
            if step == "send":
                tasks.append(street.send(f"M{len(tasks)}", schedule=LATE))
            elif step == "code":
                tasks.append(street.send(f"C{len(tasks)}", priority=0, patience=30.0, insist=True))
            elif step in ("connect", "down") and dials:
                dials[n % len(dials)].set_result(DOWN if step == "down" else True)
            elif step == "answer" and busy:
                busy[n % len(busy)].tell(ANSWERS[n % len(ANSWERS)])
            elif step == "cancel" and tasks:
                tasks[n % len(tasks)].cancel()
            elif step == "reload":
                street.upstream.try_now()
            await turns()
            idle, held = street.upstream.connections
            assert idle >= 0
            assert 0 <= held <= connections
            assert len(street.way.lines) <= connections
        street.way.connects = True
        street.way.says = lambda request: TAKEN
        for dial in street.way.dials:
            if not dial.done():
                dial.set_result(True)
        for line in street.way.busy:
            line.tell(TAKEN)
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert street.upstream.connections[1] == 0
        street.upstream.try_now()
        assert await street.outcome(street.send()) == TAKEN
        assert street.upstream.up
        await street.demolish()
        assert street.way.lines == []

    asyncio.run(live())
