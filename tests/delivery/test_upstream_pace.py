"""One upstream: what it does when it asks for less, when its quota is used up, and what is kept for session codes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any

from relay.delivery import pool, warm
from relay.delivery.account import Account, Terms
from relay.delivery.pace import Pace
from relay.delivery.places import RECOVERS, Places
from relay.delivery.upstream import Upstream, UpstreamLimits
from relay.events import UpstreamRestored, UpstreamSetAside, UpstreamThrottled
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.envelope import Recipient
from relay.mail.outcome import Deferred, Failed, Outcome, Refusal, Stage, Trouble
from relay.mail.reply import Reply
from relay.policy.pacing import DAY, Limit
from relay.policy.refusal import Line, Table
from relay.policy.retry import Schedule
from relay.transport.port import Delivery, DeliveryRequest
from tests.delivery.ways import CLOSING, DOWN, LOCKED_OUT, STALE, TAKEN, Watch, Way, turns
from tests.kit import configured, virtual_time
from tests.kit.alone import forgetful

LATE = Schedule((timedelta(hours=1),), timedelta(days=1))
CODES = Schedule((timedelta(seconds=2), timedelta(seconds=5)), timedelta(minutes=10))
TOO_MANY = Deferred(Stage.MAIL, Trouble.TRANSIENT, "too many", Reply(432, "4.3.2", "Concurrent connections limit"))
TOO_FAST = Deferred(Stage.DOT, Trouble.TRANSIENT, "slow down", Reply(451, "4.7.0", "rate limit exceeded"))
FOR_ONE = replace(TOO_FAST, stage=Stage.RCPT)
USED_UP = Failed(Stage.DOT, Reply(554, "5.2.0", "SubmissionQuotaExceeded"))
TABLE = Table(
    (
        Line(Refusal.THROTTLED, codes=("432",)),
        Line(Refusal.THROTTLED, texts=("rate limit",)),
        Line(Refusal.QUOTA, texts=("submissionquotaexceeded",)),
    )
)

Scene = Callable[[], Coroutine[Any, Any, None]]


def in_virtual_time(scene: Scene) -> Callable[[], None]:
    def test() -> None:
        virtual_time.run(scene())

    test.__name__, test.__doc__ = scene.__name__, scene.__doc__
    return test


class Road:
    """An upstream of an account, on a way of the test's; several may share the account."""

    def __init__(
        self, connections: int = 3, *limits: Limit, codes: bool = False, account: Account | None = None
    ) -> None:
        self.watch = Watch()
        self.way = Way("own", self.watch)
        if account is None:
            account = Account(Pace(now=virtual_time.now), Places(connections))
            account.configure(Terms(connections, limits, codes))
        self.account = account
        self.changes = 0
        self.upstream = Upstream(
            self.way,
            configured.upstream_limits(max_connections=connections),
            refusals=TABLE,
            account=account,
            recipients=forgetful(self.watch),
            observer=self.watch,
            changed=self._changed,
            long_lines=None,
        )
        self._tasks: list[asyncio.Task[Delivery | None]] = []

    def _changed(self) -> None:
        self.changes += 1

    def send(
        self, name: str = "M", *, code: bool = False, insist: bool = False, goes_on: bool = False
    ) -> asyncio.Task[Delivery | None]:
        recipient = Recipient(Address.of("piet@example.com"))
        content = MemoryContent(b"\r\nhoi\r\n", 2)
        patience = 5.0 if code else None
        request = DeliveryRequest(name, None, (recipient,), b"\r\n", content, 2, patience=patience, session_code=code)
        schedule = CODES if code else LATE
        task = asyncio.create_task(
            self.upstream.deliver(request, priority=0 if code else 1, schedule=schedule, insist=insist, goes_on=goes_on)
        )
        self._tasks.append(task)
        return task

    async def outcome(self, task: asyncio.Task[Delivery | None]) -> Outcome | None:
        delivery = await task
        return None if delivery is None else delivery.outcomes[0]

    async def demolish(self) -> None:
        self.upstream.end(0.0)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.upstream.close()
        self.account.places.close()
        await self.account.pace.close()


# What is told


@in_virtual_time
async def test_what_is_said_of_a_session_code_is_told_by_its_codes_only() -> None:
    closing = replace(CLOSING, reply=Reply(421, "4.3.2", "no 913 today"))
    quota = Failed(Stage.RCPT, Reply(554, "5.2.0", "SubmissionQuotaExceeded by 913"))
    crowd = replace(TOO_MANY, reply=Reply(432, "4.3.2", "no 913 over so many connections"))
    for said, kind in ((closing, UpstreamSetAside), (quota, UpstreamSetAside), (crowd, UpstreamThrottled)):
        for code in (True, False):
            road = Road()
            road.way.says = lambda request, said=said: said  # type: ignore[misc]
            if said is not crowd:
                await road.outcome(road.send("ANOTHER"))  # else it might be the message
            await road.outcome(road.send(code=code))
            (event,) = road.watch.of(kind)
            assert isinstance(event, UpstreamSetAside | UpstreamThrottled)
            reply = said.reply
            assert reply is not None
            assert (event.code, event.status, event.text) == (reply.code, reply.status, "" if code else reply.text)
            await road.demolish()


@in_virtual_time
async def test_a_login_that_is_refused_to_a_session_code_is_told_as_it_is() -> None:
    road = Road()
    road.way.connects = LOCKED_OUT
    await road.outcome(road.send(code=True))
    (event,) = road.watch.of(UpstreamSetAside)
    assert isinstance(event, UpstreamSetAside)
    assert (event.code, event.text) == (535, "no")  # nothing of the mail was said to the upstream
    await road.demolish()


# Asked for less


@in_virtual_time
async def test_an_upstream_that_asks_for_less_gets_nothing_for_seconds_and_is_not_set_aside() -> None:
    road = Road()
    road.way.says = lambda request: TOO_FAST
    outcome = await road.outcome(road.send())
    assert isinstance(outcome, Deferred)
    assert (outcome.refusal, outcome.upstream_sick) == (Refusal.THROTTLED, True)
    assert road.upstream.up
    assert road.upstream.takes_later
    assert 1.5 < road.upstream.ready_in() < 2.5
    assert await road.outcome(road.send()) is None
    assert road.watch.of(UpstreamSetAside) == []
    await asyncio.sleep(2.5)
    road.way.says = lambda request: TAKEN
    assert await road.outcome(road.send()) == TAKEN
    await road.demolish()


@in_virtual_time
async def test_the_pauses_grow_to_a_minute_and_are_short_again_after_a_success() -> None:
    road = Road()
    road.way.says = lambda request: TOO_FAST
    for _ in range(8):
        await road.outcome(road.send())
        await asyncio.sleep(road.upstream.ready_in())
    pauses = [round(event.seconds) for event in road.watch.events if isinstance(event, UpstreamThrottled)]
    assert pauses[:5] == sorted(set(pauses[:5]))
    assert 50 < pauses[-1] < 70
    road.way.says = lambda request: TAKEN
    assert await road.outcome(road.send()) == TAKEN
    road.way.says = lambda request: TOO_FAST
    await road.outcome(road.send())
    assert road.upstream.ready_in() < 2.5
    await road.demolish()


@in_virtual_time
async def test_too_many_connections_are_one_less_for_a_while_and_never_none() -> None:
    road = Road(3)
    places = road.upstream.places
    for left in (2, 1, 1):
        road.way.says = lambda request: TOO_MANY
        await road.outcome(road.send())
        assert places.allowed == left
        await asyncio.sleep(road.upstream.ready_in())
    road.way.says = lambda request: None
    tasks = [road.send(f"M{n}") for n in range(3)]
    await turns()
    assert len(road.way.busy) == 1
    await asyncio.sleep(RECOVERS)
    assert len(road.way.busy) == 2
    await asyncio.sleep(RECOVERS)
    assert len(road.way.busy) == 3
    for line in road.way.busy:
        line.tell(TAKEN)
    assert [await road.outcome(task) for task in tasks] == [TAKEN] * 3
    await road.demolish()


@in_virtual_time
async def test_a_421_about_connections_is_one_less_once_another_message_has_met_it() -> None:
    road = Road(3)
    crowded = Reply(421, "4.7.0", "rate limit of connections")
    road.way.says = lambda request: replace(CLOSING, reply=crowded)
    await road.outcome(road.send("ONE"))
    assert (road.upstream.places.allowed, road.upstream.ready_in()) == (3, 0)
    await road.outcome(road.send("ANOTHER"))
    assert road.upstream.places.allowed == 2
    assert 0 < road.upstream.ready_in() < 1
    await road.demolish()


@in_virtual_time
async def test_three_refused_at_once_are_one_connection_less_and_not_three() -> None:
    road = Road(3)
    road.way.says = lambda request: None
    tasks = [road.send(f"M{n}") for n in range(3)]
    await turns()
    for n in range(3):
        road.way.line_of(f"M{n}").tell(TOO_MANY)
    for task in tasks:
        await task
    assert road.upstream.places.allowed == 2
    assert len(road.watch.of(UpstreamThrottled)) == 1
    await road.demolish()


@in_virtual_time
async def test_a_connection_too_many_does_not_stay_open_idle() -> None:
    road = Road(3)
    road.way.says = lambda request: None
    tasks = [road.send(f"M{n}") for n in range(3)]
    await turns()
    road.way.line_of("M0").tell(TOO_MANY)
    await tasks[0]
    await turns()
    assert len(road.way.lines) == 2
    for n in (1, 2):
        road.way.line_of(f"M{n}").tell(TAKEN)
    assert [await road.outcome(task) for task in tasks[1:]] == [TAKEN] * 2
    assert road.upstream.connections == (2, 0)
    await road.demolish()


@in_virtual_time
async def test_too_much_mail_for_one_recipient_holds_up_nobody_else() -> None:
    road = Road()
    road.way.says = lambda request: FOR_ONE
    outcome = await road.outcome(road.send())
    assert isinstance(outcome, Deferred)
    assert not outcome.upstream_sick
    assert road.upstream.ready_in() == 0
    await road.demolish()


@in_virtual_time
async def test_a_session_code_goes_past_the_pause_when_it_insists() -> None:
    road = Road()
    road.way.says = lambda request: TOO_FAST
    await road.outcome(road.send())
    road.way.says = lambda request: TAKEN
    assert await road.outcome(road.send(code=True)) is None  # the other way first
    assert await road.outcome(road.send(code=True, insist=True)) == TAKEN
    await road.demolish()


# A quota


@in_virtual_time
async def test_a_used_up_quota_holds_the_upstream_for_an_hour_at_a_time_and_one_message_asks() -> None:
    road = Road()
    road.way.says = lambda request: USED_UP
    outcome = await road.outcome(road.send("first"))
    assert isinstance(outcome, Deferred)
    assert outcome.refusal is Refusal.QUOTA
    await road.send("first")
    assert road.upstream.up  # it may be this message that brings about such words
    await road.send("second")
    assert not road.upstream.up
    assert road.upstream.opens_in == 3600
    (event,) = road.watch.of(UpstreamSetAside)
    assert isinstance(event, UpstreamSetAside)
    assert (event.refusal, event.text) == (Refusal.QUOTA, "")
    await asyncio.sleep(3600)
    road.way.says = lambda request: None
    probe, other = road.send("probe"), road.send("other")
    await turns()
    assert await road.outcome(other) is None
    road.way.line_of("probe").tell(USED_UP)
    await probe
    assert road.upstream.opens_in == 3600
    await asyncio.sleep(3600)
    road.way.says = lambda request: TAKEN
    assert await road.outcome(road.send()) == TAKEN
    assert len(road.watch.of(UpstreamRestored)) == 1
    await road.demolish()


@in_virtual_time
async def test_one_message_that_hears_of_a_quota_keeps_no_other_from_its_way() -> None:
    road = Road()
    road.way.says = lambda request: USED_UP if request.queue_id == "poison" else TAKEN
    for number in range(5):
        await road.send("poison")
        assert await road.outcome(road.send(f"good{number}")) == TAKEN
    assert road.watch.of(UpstreamSetAside) == []
    await road.demolish()


@in_virtual_time
async def test_a_probe_that_hears_of_the_quota_closes_the_way_at_once() -> None:
    road = Road()
    road.way.connects = DOWN
    await road.send("first")
    await asyncio.sleep(road.upstream.opens_in)
    road.way.connects = True
    road.way.says = lambda request: USED_UP
    await road.send("probe")
    assert road.upstream.opens_in == 3600
    assert await road.outcome(road.send("another")) is None
    assert [request.queue_id for request in road.way.requests] == ["probe"]
    await road.demolish()


@in_virtual_time
async def test_where_the_window_is_known_a_quota_is_waited_for_until_the_oldest_leaves_it() -> None:
    road = Road(3, Limit(4, DAY, of_recipients=True))
    for _ in range(2):
        assert await road.outcome(road.send()) == TAKEN
        await asyncio.sleep(3600)
    road.way.says = lambda request: USED_UP
    await road.send("first")
    await road.send("second")
    assert DAY - 7200 <= road.upstream.opens_in <= DAY - 7200 + 2 * DAY / 60
    await road.demolish()


@in_virtual_time
async def test_what_began_before_a_quota_was_used_up_does_not_prove_that_it_is_back() -> None:
    road = Road()
    road.way.says = lambda request: None
    old, first, last = road.send("old"), road.send("first"), road.send("last")
    await turns()
    for name, task in (("first", first), ("last", last)):
        road.way.line_of(name).tell(USED_UP)
        await task
    road.way.line_of("old").tell(TAKEN)
    assert await road.outcome(old) == TAKEN
    assert not road.upstream.up
    await road.demolish()


@in_virtual_time
async def test_a_hold_is_remembered_at_the_start_and_ended_by_a_person() -> None:
    first = Road()
    first.way.says = lambda request: USED_UP
    await first.send("one")
    await first.send("another")
    await asyncio.sleep(600)
    after = Road(account=first.account)
    after.upstream.remember()
    assert round(after.upstream.opens_in) == 3000
    (event,) = after.watch.of(UpstreamSetAside)
    assert isinstance(event, UpstreamSetAside)
    assert (event.refusal, event.code) == (Refusal.QUOTA, 554)
    after.upstream.try_now()
    assert after.upstream.opens_in == 0
    assert after.account.pace.held is None
    await after.demolish()
    await first.demolish()


# A refused login


@in_virtual_time
async def test_the_pauses_after_a_refused_login_grow_also_where_the_schedule_is_one_of_seconds() -> None:
    road = Road()
    road.way.connects = LOCKED_OUT
    for _ in range(9):
        await road.outcome(road.send(code=True, insist=True))
        assert await road.outcome(road.send(code=True, insist=True)) is None  # never past it
        await asyncio.sleep(road.upstream.opens_in)
    pauses = [event.seconds for event in road.watch.events if isinstance(event, UpstreamSetAside)]
    assert pauses[0] < 3
    assert 270 <= pauses[-1] <= 300
    assert road.way.dialled == 9
    await road.demolish()


# The pace


@in_virtual_time
async def test_over_the_pace_nothing_is_tried_and_a_failed_connect_counts_for_nothing() -> None:
    road = Road(3, Limit(2, 60.0))
    assert await road.outcome(road.send()) == TAKEN
    road.way.connects = DOWN
    road.upstream.pool.drop_all()
    assert await road.outcome(road.send()) == DOWN
    road.upstream.try_now()
    road.way.connects = True
    assert await road.outcome(road.send()) == TAKEN
    assert await road.outcome(road.send()) is None
    assert road.upstream.takes_later
    assert 60 < road.upstream.ready_in() < 62.5
    await asyncio.sleep(road.upstream.ready_in())
    assert await road.outcome(road.send()) == TAKEN
    await road.demolish()


@in_virtual_time
async def test_upstreams_of_one_account_share_its_pace_and_its_connections() -> None:
    first = Road(2, Limit(4, 60.0))
    second = Road(2, account=first.account)
    assert await first.outcome(first.send()) == TAKEN  # its connection lies idle now
    second.way.says = lambda request: None
    tasks = [second.send(f"M{n}") for n in range(2)]
    await turns()
    assert len(second.way.lines) == 2
    assert first.way.lines == []  # it gave way
    for line in second.way.busy:
        line.tell(TAKEN)
    for task in tasks:
        assert await second.outcome(task) == TAKEN
    assert await first.outcome(first.send()) == TAKEN
    assert await second.outcome(second.send()) is None
    await second.demolish()
    await first.demolish()


@in_virtual_time
async def test_mail_leaves_while_another_upstream_of_the_account_says_goodbye() -> None:
    before = Road(1)
    after = Road(1, account=before.account)  # as after a reload
    assert await before.outcome(before.send()) == TAKEN
    before.way.goodbye = asyncio.Event()
    closing = asyncio.create_task(before.upstream.close())
    await turns()
    assert not closing.done()
    assert await after.outcome(after.send()) == TAKEN
    before.way.goodbye.set()
    await closing
    await after.demolish()
    await before.demolish()


@in_virtual_time
async def test_a_transaction_has_no_more_recipients_than_the_account_has_in_a_day_also_after_a_reload() -> None:
    road = Road(3)
    assert road.upstream.limits.max_recipients == 100
    road.account.configure(Terms(3, (Limit(40, DAY, True, kept=1), Limit(4, 60.0)), codes=True))  # another is stricter
    assert road.upstream.limits == UpstreamLimits(3, 39)
    road.account.configure(Terms(3, (Limit(500, DAY, True),)))
    assert road.upstream.limits.max_recipients == 100
    await road.demolish()


@in_virtual_time
async def test_who_goes_on_with_an_attempt_waits_for_the_pace_ahead_of_all_others() -> None:
    road = Road(3, Limit(1, 60.0))
    assert await road.outcome(road.send()) == TAKEN
    again = road.send("again", goes_on=True)
    await asyncio.sleep(58)
    assert not again.done()
    assert await road.outcome(road.send("other")) is None
    assert await road.outcome(again) == TAKEN
    assert [request.queue_id for request in road.way.requests] == ["M", "again"]
    await road.demolish()


@in_virtual_time
async def test_a_session_code_waits_for_the_pace_no_longer_than_its_patience() -> None:
    road = Road(3, Limit(1, 60.0))
    assert await road.outcome(road.send()) == TAKEN
    outcome = await road.outcome(road.send(code=True, insist=True))
    assert isinstance(outcome, Deferred)
    assert not outcome.upstream_sick
    await asyncio.sleep(58)
    assert await road.outcome(road.send(code=True, insist=True)) == TAKEN
    await road.demolish()


@in_virtual_time
async def test_a_relay_that_stops_waits_for_no_pace() -> None:
    road = Road(3, Limit(1, 60.0))
    assert await road.outcome(road.send()) == TAKEN
    waiting = road.send(goes_on=True)
    await turns()
    road.upstream.end(0.0)
    await turns()
    assert waiting.done()
    assert await road.outcome(waiting) is None
    await road.demolish()


# What is kept for session codes


@in_virtual_time
async def test_one_connection_is_kept_for_session_codes_where_there_are_two() -> None:
    road = Road(2, codes=True)
    road.way.says = lambda request: None
    for n in range(3):
        road.send(f"M{n}")
    await turns()
    assert len(road.way.busy) == 1
    code = road.send("code", code=True)
    await turns()
    assert {line.request.queue_id for line in road.way.busy if line.request} == {"M0", "code"}
    road.way.line_of("M0").tell(TAKEN)
    await turns()
    assert {line.request.queue_id for line in road.way.busy if line.request} == {"code"}  # the next code finds one
    road.way.line_of("code").tell(TAKEN)
    assert await road.outcome(code) == TAKEN
    await turns()
    assert {line.request.queue_id for line in road.way.busy if line.request} == {"M1"}
    await road.demolish()


@in_virtual_time
async def test_with_a_single_connection_a_code_waits_for_the_one_transaction_under_way() -> None:
    road = Road(1, codes=True)
    road.way.says = lambda request: None
    for n in range(3):
        road.send(f"M{n}")
    await turns()
    road.send("code", code=True)
    await turns()
    road.way.line_of("M0").tell(TAKEN)
    await turns()
    road.way.line_of("code").tell(TAKEN)
    await road.demolish()


# The connection that lies ready


@in_virtual_time
async def test_a_connection_lies_ready_and_a_code_needs_none_of_its_own() -> None:
    road = Road(3, codes=True)
    road.upstream.keep_warm(True)
    await turns()
    assert (road.way.dialled, road.upstream.connections) == (1, (1, 0))
    assert await road.outcome(road.send("code", code=True)) == TAKEN
    assert road.way.dialled == 1
    await asyncio.sleep(1)
    assert (road.way.dialled, road.upstream.connections) == (1, (1, 0))
    await road.demolish()


@in_virtual_time
async def test_ordinary_mail_leaves_the_ready_connection_alone() -> None:
    road = Road(3, codes=True)
    road.upstream.keep_warm(True)
    await turns()
    (ready,) = road.way.lines
    road.way.says = lambda request: None
    for n in range(4):
        road.send(f"M{n}")
    await turns()
    assert len(road.way.busy) == 2
    assert ready not in road.way.busy
    road.send("code", code=True)
    await turns()
    assert ready in road.way.busy
    assert road.way.most == 3
    await road.demolish()


@in_virtual_time
async def test_another_is_opened_while_the_ready_one_is_long_in_use() -> None:
    road = Road(3, codes=True)
    road.upstream.keep_warm(True)
    await turns()
    road.way.says = lambda request: None
    road.send("code", code=True)
    await asyncio.sleep(warm.COMES_BACK + 0.1)
    assert road.upstream.connections == (1, 1)
    road.way.line_of("code").tell(TAKEN)
    await asyncio.sleep(3 * pool.IDLE)
    assert road.upstream.connections == (1, 0)  # one is enough
    await road.demolish()


@in_virtual_time
async def test_it_says_something_before_it_is_thought_dead_and_is_replaced_after_a_while() -> None:
    road = Road(3, codes=True)
    road.upstream.keep_warm(True)
    await turns()
    (first,) = road.way.lines
    await asyncio.sleep(10 * warm.SILENCE + 1)
    assert first.refreshed == 10
    assert road.way.lines == [first]
    await asyncio.sleep((warm.NOOPS - 9) * warm.SILENCE)
    assert first.refreshed == warm.NOOPS
    assert not first.usable
    assert road.upstream.connections == (1, 0)
    assert road.way.most == 2  # the new one was there before the old one left
    await road.demolish()


@in_virtual_time
async def test_one_that_was_lost_is_opened_again_and_the_next_is_refreshed_in_time() -> None:
    road = Road(3, codes=True)
    road.upstream.keep_warm(True)
    await asyncio.sleep(30)
    road.way.lines[0].lose()  # after half a minute of silence
    await asyncio.sleep(1)
    assert (road.way.dialled, road.upstream.connections) == (2, (1, 0))
    (line,) = road.way.lines
    await asyncio.sleep(29)
    assert line.refreshed == 1
    assert road.watch.of(UpstreamSetAside) == []
    await road.demolish()


@in_virtual_time
async def test_its_first_failure_is_doubted_and_the_second_sets_the_upstream_aside() -> None:
    road = Road(3, codes=True)
    road.way.connects = DOWN
    road.upstream.keep_warm(True)
    await asyncio.sleep(1)
    assert (road.way.dialled, road.upstream.up) == (1, True)
    await asyncio.sleep(6)
    assert (road.way.dialled, road.upstream.up) == (2, False)
    await asyncio.sleep(3600)
    assert road.way.dialled < 20  # with growing pauses
    road.way.connects = True
    await asyncio.sleep(600)
    assert road.upstream.up
    assert road.upstream.connections == (1, 0)
    await road.demolish()


@in_virtual_time
async def test_where_the_login_is_refused_it_is_tried_once_and_again_after_a_reload() -> None:
    road = Road(3, codes=True)
    road.way.connects = LOCKED_OUT
    road.upstream.keep_warm(True)
    await asyncio.sleep(7200)
    assert road.way.dialled == 1
    assert not road.upstream.up
    road.way.connects = True
    road.upstream.try_now()
    await asyncio.sleep(1)
    assert road.upstream.up
    assert road.upstream.connections == (1, 0)
    await road.demolish()


@in_virtual_time
async def test_with_a_single_connection_the_ready_one_serves_all_mail() -> None:
    road = Road(1, codes=True)
    road.upstream.keep_warm(True)
    await turns()
    assert await road.outcome(road.send()) == TAKEN
    await asyncio.sleep(300)
    assert (road.way.dialled, road.way.most) == (1, 1)
    await road.demolish()


@in_virtual_time
async def test_a_ready_connection_that_proves_dead_costs_a_code_one_dial() -> None:
    road = Road(3, codes=True)
    road.upstream.keep_warm(True)
    await turns()
    answers: list[Outcome] = [STALE, TAKEN]
    road.way.says = lambda request: answers.pop(0)
    assert await road.outcome(road.send("code", code=True)) == TAKEN
    assert road.way.dialled == 2
    await road.demolish()


@in_virtual_time
async def test_without_session_codes_no_connection_is_kept_longer_than_others() -> None:
    road = Road(3)
    road.upstream.keep_warm(True)
    await asyncio.sleep(1)
    road.upstream.keep_warm(False)
    assert await road.outcome(road.send()) == TAKEN
    await asyncio.sleep(3 * pool.IDLE)
    assert road.upstream.connections == (0, 0)
    await road.demolish()
