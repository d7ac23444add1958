"""Hedging: a slow way costs a code seconds, never a second copy, and each recipient has one fate.

In virtual time. The chosen way is "vendor", the other "own".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.delivery.attempt import Attempted, attempt, decision_for
from relay.delivery.call import PATIENCE_WITH_SESSION_CODES
from relay.delivery.hedge import HEDGE_AFTER
from relay.events import AttemptEnded, HedgeBegun, UpstreamSetAside
from relay.mail.outcome import Deferred, Outcome, Stage, Trouble
from relay.mail.reply import Reply
from relay.queue.model import Lease
from relay.transport.port import Delivery
from tests.delivery.house import DeliveryHouse, policy
from tests.delivery.test_attempt import in_doubt, leased
from tests.delivery.ways import CLOSING, GREYLISTED, IN_DOUBT, REFUSED, TAKEN, Line, turns
from tests.kit import virtual_time

AFTER_ALL = Deferred(Stage.DATA, Trouble.TRANSIENT, "not now", Reply(451, "4.3.0", "not now"))
SILENT = Deferred(Stage.MAIL, Trouble.TIMEOUT, "no answer", upstream_sick=True)
BOTH = ("vendor", "own")


class Codes(DeliveryHouse):
    """A house with two ways that wait for the test, and codes under way."""

    async def leave(self, lease: Lease) -> Attempted | None:
        decision = decision_for(lease, self.policy)
        return await attempt(
            lease,
            decision,
            self.policy,
            self.upstreams,
            observer=self.watch,
            verdicts=self.verdicts,
            stragglers=self.stragglers,
            change_way=self.change_way,
            now=self.shared.now,
        )

    async def send(self, lease: Lease | None = None) -> asyncio.Task[Attempted | None]:
        """A code that has waited for the chosen way as long as it does, and a little longer."""
        task = asyncio.create_task(self.leave(lease or leased(code=True)))
        await asyncio.sleep(HEDGE_AFTER + 0.1)
        return task

    def line(self, name: str) -> Line:
        return self.ways[name].line_of("M")


async def a_house(folder: Path) -> Codes:
    house = await Codes.build(folder, policy(default=("own",), session_codes=BOTH), connections=2)
    assert isinstance(house, Codes)
    for way in house.ways.values():
        way.says = lambda request: None
    return house


def scene(play: Callable[[Codes], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """A test that plays in virtual time, in a house of its own."""

    def test(tmp_path: Path) -> None:
        async def whole() -> None:
            house = await a_house(tmp_path)
            try:
                await play(house)
            finally:
                await house.demolish()

        virtual_time.run(whole())

    test.__name__ = play.__name__
    return test


def delivery(*outcomes: Outcome) -> Delivery:
    return Delivery(outcomes)


@scene
async def test_a_way_that_is_ready_in_time_has_no_other_beside_it(house: Codes) -> None:
    task = asyncio.create_task(house.leave(leased(code=True)))
    await asyncio.sleep(HEDGE_AFTER - 0.1)
    assert await house.line("vendor").ready()
    await asyncio.sleep(60)  # for its answer to the message, that is
    house.line("vendor").tell(TAKEN)
    assert await task == Attempted((TAKEN,), "vendor")
    assert house.ways["own"].dialled == 0


@scene
async def test_a_code_goes_by_the_other_way_when_the_chosen_is_slow_to_connect(house: Codes) -> None:
    house.ways["vendor"].connects = None
    house.ways["own"].says = lambda request: TAKEN
    begun = virtual_time.now()
    assert await house.leave(leased(code=True)) == Attempted((TAKEN,), "own")
    assert (virtual_time.now() - begun).total_seconds() == pytest.approx(HEDGE_AFTER, abs=0.1)
    (hedge,) = house.watch.of(HedgeBegun)
    assert hedge == HedgeBegun("M", "session-codes", "vendor", "own", HEDGE_AFTER)
    house.ways["vendor"].dials[0].set_result(True)  # at last
    await turns()
    assert not await house.line("vendor").ready()


@scene
async def test_the_chosen_way_sends_when_it_is_ready_first_after_all(house: Codes) -> None:
    task = await house.send()
    assert await house.line("vendor").ready()
    assert not await house.line("own").ready()
    house.line("vendor").tell(TAKEN)
    assert await task == Attempted((TAKEN,), "vendor")
    assert [event.upstream for event in house.watch.of(AttemptEnded)] == ["vendor"]


@pytest.mark.parametrize(("first", "second"), [BOTH, BOTH[::-1]])
def test_of_two_ways_that_are_ready_in_the_same_moment_one_sends(tmp_path: Path, first: str, second: str) -> None:
    async def play(house: Codes) -> None:
        task = await house.send()
        for name in (first, second):
            house.line(name).tell(TAKEN)
        assert await task == Attempted((TAKEN,), first)

    scene(play)(tmp_path)


@scene
async def test_what_the_sending_way_leaves_in_doubt_goes_by_no_other(house: Codes) -> None:
    task = await house.send()
    assert await house.line("own").ready()
    house.line("own").tell(IN_DOUBT)
    assert await task == Attempted((IN_DOUBT,), "own")
    assert not await house.line("vendor").ready()


@scene
async def test_a_refusal_of_the_chosen_way_calls_the_other_off(house: Codes) -> None:
    task = await house.send()
    house.line("vendor").tell(REFUSED)
    assert await task == Attempted((REFUSED,), "vendor")
    assert not await house.line("own").ready()


@pytest.mark.parametrize("refusal", [GREYLISTED, CLOSING, AFTER_ALL])
def test_the_other_way_goes_on_where_it_is_when_the_chosen_does_not_want_it_now(
    tmp_path: Path, refusal: Deferred
) -> None:
    async def play(house: Codes) -> None:
        task = await house.send()
        house.line("vendor").tell(refusal)
        await turns()
        assert await house.line("own").ready()
        house.line("own").tell(TAKEN)
        assert await task == Attempted((TAKEN,), "own")
        assert len(house.ways["own"].requests) == 1

    scene(play)(tmp_path)


@pytest.mark.parametrize(
    ("chosen", "fate"), [(TAKEN, Attempted((TAKEN,), "vendor")), (SILENT, Attempted((REFUSED,), "own"))]
)
def test_a_refusal_of_the_other_way_counts_only_if_the_chosen_does_not_take_it(
    tmp_path: Path, chosen: Outcome, fate: Attempted
) -> None:
    async def play(house: Codes) -> None:
        task = await house.send()
        house.line("own").tell(REFUSED)
        await asyncio.sleep(1)
        assert not task.done()
        house.line("vendor").tell(chosen)
        assert await task == fate

    scene(play)(tmp_path)


@scene
async def test_when_both_are_slow_each_has_its_time_and_the_code_waits_for_its_next_attempt(house: Codes) -> None:
    for way in house.ways.values():
        way.connects = None
    begun = virtual_time.now()
    attempted = await house.leave(leased(code=True))
    assert attempted is not None
    (outcome,) = attempted.outcomes
    assert isinstance(outcome, Deferred)
    assert outcome.trouble is Trouble.TIMEOUT
    spent = (virtual_time.now() - begun).total_seconds()
    assert spent == pytest.approx(HEDGE_AFTER + PATIENCE_WITH_SESSION_CODES, abs=0.1)
    assert [way.dialled for way in house.ways.values()] == [1, 1]


@scene
async def test_the_way_called_off_has_its_turn_when_the_other_does_not_want_the_message_after_all(
    house: Codes,
) -> None:
    task = await house.send()
    assert await house.line("own").ready()
    assert not await house.line("vendor").ready()
    house.line("own").tell(AFTER_ALL)  # the reply to DATA
    house.ways["vendor"].says = lambda request: TAKEN
    assert await task == Attempted((TAKEN,), "vendor")
    assert [len(way.requests) for way in house.ways.values()] == [1, 2]


@scene
async def test_a_silent_way_that_lost_is_set_aside_so_that_the_next_code_does_not_wait(house: Codes) -> None:
    house.ways["vendor"].connects = None
    house.ways["own"].says = lambda request: TAKEN
    await house.leave(leased(code=True))
    await asyncio.sleep(PATIENCE_WITH_SESSION_CODES)
    (aside,) = house.watch.of(UpstreamSetAside)
    assert isinstance(aside, UpstreamSetAside)
    assert aside.upstream == "vendor"
    begun = virtual_time.now()
    assert await house.leave(leased(code=True)) == Attempted((TAKEN,), "own")
    assert virtual_time.now() == begun


@pytest.mark.parametrize("ways", [BOTH, BOTH[:1]])
def test_a_code_whose_lifetime_ends_while_a_way_is_slow_is_not_sent_any_more(
    tmp_path: Path, ways: tuple[str, ...]
) -> None:
    async def play(house: Codes) -> None:
        house.policy = policy(default=("own",), session_codes=ways)
        lease = leased(code=True)
        task = await house.send(lease)
        house.now = lease.entry.expires_at
        for name in ways:
            house.line(name).tell(TAKEN)
        assert await task is None
        assert sum(len(way.requests) for way in house.ways.values()) == len(ways)

    scene(play)(tmp_path)


# What the store knows of it


def written(lease: Lease, way: str) -> Lease:
    return replace(lease, pending=tuple([replace(one, way=way) for one in lease.pending]))


@scene
async def test_a_code_that_goes_by_its_own_way_needs_no_commit(house: Codes) -> None:
    house.ways["vendor"].says = lambda request: TAKEN
    assert await house.leave(written(leased(code=True), "vendor")) == Attempted((TAKEN,), "vendor")
    assert house.changes == []


@scene
async def test_the_other_way_gets_no_octet_before_the_store_knows_and_the_first_none_meanwhile(house: Codes) -> None:
    task = await house.send(written(leased(code=True), "vendor"))
    house.committing = asyncio.Event()
    passing = asyncio.create_task(house.line("own").ready())
    await turns()
    assert house.changes == [((0,), "own")]
    assert not passing.done()
    assert not await house.line("vendor").ready()
    house.committing.set()
    assert await passing
    house.line("own").tell(TAKEN)
    assert await task == Attempted((TAKEN,), "own")


@scene
async def test_a_code_whose_change_of_way_cannot_be_kept_goes_by_the_other_way_not_at_all(house: Codes) -> None:
    task = await house.send(written(leased(code=True), "vendor"))
    house.unkept = True
    for way in house.ways.values():
        way.says = lambda request: TAKEN  # if it gets that far
    assert not await house.line("own").ready()
    assert not await house.line("vendor").ready()  # nobody knows any more which of them the store names
    assert await task is None
    assert house.changes == []


@scene
async def test_the_first_way_may_have_the_code_after_a_change_that_failed_once_the_store_knows(house: Codes) -> None:
    task = await house.send(written(leased(code=True), "vendor"))
    house.unkept = True
    assert not await house.line("own").ready()
    house.unkept = False
    assert await house.line("vendor").ready()
    house.line("vendor").tell(TAKEN)
    assert await task == Attempted((TAKEN,), "vendor")
    assert house.changes == [((0,), "vendor")]


@scene
async def test_a_code_whose_lifetime_ends_while_its_change_of_way_is_committed_is_not_sent(house: Codes) -> None:
    lease = written(leased(code=True), "vendor")
    task = await house.send(lease)
    house.committing = asyncio.Event()
    passing = asyncio.create_task(house.line("own").ready())
    await turns()
    house.now = lease.entry.expires_at
    house.committing.set()
    assert not await passing
    assert not await house.line("vendor").ready()
    assert await task is None


@scene
async def test_only_whom_the_first_way_did_not_take_is_given_to_the_other(house: Codes) -> None:
    house.ways["vendor"].says = lambda request: delivery(TAKEN, GREYLISTED)
    house.ways["own"].says = lambda request: TAKEN
    lease = written(leased("a@x.example", "b@x.example", code=True), "vendor")
    assert await house.leave(lease) == Attempted((TAKEN, TAKEN), "own", ("vendor", "own"))
    assert house.changes == [((1,), "own")]


# Several recipients


@scene
async def test_whoever_the_chosen_way_refused_is_not_given_to_the_other_with_the_rest(house: Codes) -> None:
    task = await house.send(leased("a@x.example", "b@x.example", code=True))
    called_off = house.line("own")
    house.ways["own"].says = lambda request: TAKEN
    house.line("vendor").tell(delivery(REFUSED, GREYLISTED))
    await turns()
    assert not await called_off.ready()
    assert await task == Attempted((REFUSED, TAKEN), "own", ("vendor", "own"))
    asked = [[str(one.address) for one in request.recipients] for request in house.ways["own"].requests]
    assert asked == [["a@x.example", "b@x.example"], ["b@x.example"]]


@scene
async def test_whoever_the_sending_way_did_not_take_has_the_answer_of_the_other(house: Codes) -> None:
    task = await house.send(leased("a@x.example", "b@x.example", code=True))
    house.line("own").tell(delivery(GREYLISTED, REFUSED))
    await turns()
    house.line("vendor").tell(delivery(TAKEN, GREYLISTED))
    assert await task == Attempted((TAKEN, REFUSED), "own", ("vendor", "own"))


@scene
async def test_whoever_got_it_by_the_other_way_has_got_it_whatever_the_chosen_says_later(house: Codes) -> None:
    task = await house.send(leased("a@x.example", "b@x.example", code=True))
    assert await house.line("own").ready()
    house.line("vendor").tell(delivery(REFUSED, REFUSED))
    await turns()
    assert not task.done()
    house.line("own").tell(delivery(TAKEN, GREYLISTED))
    assert await task == Attempted((TAKEN, REFUSED), "vendor", ("own", "vendor"))


@pytest.mark.parametrize("at", BOTH)
def test_what_is_in_doubt_at_one_way_has_no_other_beside_it(tmp_path: Path, at: str) -> None:
    async def play(house: Codes) -> None:
        task = await house.send(in_doubt(leased(code=True), at))
        await asyncio.sleep(2)
        house.line(at).tell(TAKEN)
        assert await task == Attempted((TAKEN,), at)
        assert sum(way.dialled for way in house.ways.values()) == 1

    scene(play)(tmp_path)


@scene
async def test_what_the_other_way_cannot_carry_in_one_transaction_has_none_beside_it(house: Codes) -> None:
    house.build_way("own", most=1)
    task = await house.send(leased("a@x.example", "b@x.example", code=True))
    house.line("vendor").tell(TAKEN)
    assert await task == Attempted((TAKEN, TAKEN), "vendor")
    assert house.ways["own"].dialled == 0


@scene
async def test_ordinary_mail_waits_for_its_upstream(house: Codes) -> None:
    house.policy = policy(default=BOTH, session_codes=BOTH)
    task = await house.send(leased())
    await asyncio.sleep(60)
    house.line("vendor").tell(TAKEN)
    assert await task == Attempted((TAKEN,), "vendor")
    assert house.ways["own"].dialled == 0


# The end


@scene
async def test_an_attempt_that_is_given_up_sends_by_neither_way(house: Codes) -> None:
    task = await house.send()
    vendor, own = house.line("vendor").request, house.line("own").request
    assert vendor is not None
    assert own is not None
    task.cancel()
    for request in (vendor, own):  # from this very moment on
        assert request.gate is not None
        assert not await request.gate()
    with pytest.raises(asyncio.CancelledError):
        await task
    await house.stragglers.over()
    assert [way.busy for way in house.ways.values()] == [[], []]


@scene
async def test_a_worker_that_stops_waits_for_what_it_called_off(house: Codes) -> None:
    worker = house.start("session-codes")
    await house.put("M", content=leased(code=True).entry.content, route="session-codes", session_code=True)
    await asyncio.sleep(HEDGE_AFTER + 0.5)
    house.line("own").tell(TAKEN)
    await turns()
    begun = virtual_time.now()
    await house.stop()
    assert house.ways["vendor"].busy == []
    assert virtual_time.now() == begun
    assert worker.stragglers._tasks == set()
