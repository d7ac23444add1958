"""The pace of an account: counted over kills, written down ahead, and not for every message."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.pace import Claim, Pace
from relay.errors import StoreUnavailable
from relay.mail.outcome import Stage
from relay.policy.pacing import DAY, Limit
from tests.kit.extent import examples

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class Machine:
    """What outlives a kill: the clocks, and what was written down."""

    def __init__(self, *limits: Limit) -> None:
        self.limits = limits
        self.clock = 5000.0
        self.wall = NOON
        self.written: tuple[datetime, str] | None = None
        self.writes = 0
        self.freed = 0
        self.broken = False
        self.pace = self.start()

    def start(self) -> Pace:
        self.pace = Pace(now=lambda: self.wall, write=self._write, freed=self._freed, clock=lambda: self.clock)
        self.pace.configure(self.limits)
        if self.written is not None:
            self.pace.restore(*self.written)
        return self.pace

    async def _write(self, moment: datetime, value: str) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise StoreUnavailable("io", "the disk is out of order")
        self.written = moment, value
        self.writes += 1

    def _freed(self) -> None:
        self.freed += 1

    def is_covered(self) -> bool:
        """Whether a relay that were killed now would count at least what was used."""
        found = Pace(now=lambda: self.wall, clock=lambda: self.clock)
        found.configure(self.limits)
        if self.written is not None:
            found.restore(*self.written)
        pairs = zip(found.used(), self.pace.used(), strict=True)
        return all(written >= used for (_, written), (_, used) in pairs)

    def passes(self, seconds: float) -> None:
        self.clock += seconds
        self.wall += timedelta(seconds=seconds)

    async def send(self, recipients: int = 1, *, session_code: bool = False) -> bool:
        claim = self.pace.claim(recipients, session_code=session_code)
        if claim is not None:
            await claim.use()
        return claim is not None


@examples(150)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["send", "send", "send", "together", "claim", "drop", "use", "kill", "stop"]),
            st.sampled_from([0.0, 0.0, 0.3, 1.0, 2.5, 10.0, 59.0]),
            st.integers(1, 4),
        ),
        max_size=60,
    )
)
def test_in_no_window_more_leaves_than_allowed_however_often_the_relay_is_killed(
    steps: list[tuple[str, float, int]],
) -> None:
    async def live() -> None:
        rate, day = Limit(5, 60.0), Limit(9, 600.0, of_recipients=True)
        machine = Machine(rate, day)
        left: list[tuple[float, int]] = []
        claims: list[tuple[Claim, int]] = []
        for step, pause, n in steps:
            machine.passes(pause)
            match step:
                case "send":
                    if await machine.send(n):
                        left.append((machine.clock, n))
                case "together":
                    sent = await asyncio.gather(*(machine.send() for _ in range(n)))
                    left += [(machine.clock, 1)] * sum(sent)
                case "claim":
                    claim = machine.pace.claim(n, session_code=False)
                    if claim is not None:
                        claims.append((claim, n))
                case "drop" if claims:
                    claims.pop()[0].drop()
                case "use" if claims:
                    claim, recipients = claims.pop(0)
                    await claim.use()
                    left.append((machine.clock, recipients))
                case "kill":
                    machine.start()
                    claims.clear()
                case "stop":
                    for claim, _ in claims:
                        claim.drop()
                    claims.clear()
                    await machine.pace.close()
                    machine.start()
            assert machine.is_covered()
        for first, _ in left:
            assert sum(first <= at < first + 60.0 for at, _ in left) <= 5
            assert sum(n for at, n in left if first <= at < first + 600.0) <= 9

    asyncio.run(live())


@pytest.mark.asyncio
async def test_what_was_paid_for_early_and_used_late_counts_from_its_use() -> None:
    machine = Machine(Limit(10, 60.0))
    assert await machine.send()
    assert await machine.send()  # pays for the next one as well
    writes = machine.writes
    machine.passes(2.0)
    assert await machine.send()
    assert machine.writes == writes
    machine.start()
    machine.passes(59.5)
    assert machine.pace.used()[0][1] >= 1


@pytest.mark.asyncio
async def test_what_is_used_while_a_block_is_written_down_is_covered_as_well() -> None:
    machine = Machine(Limit(100, 60.0), Limit(1000, 600.0, of_recipients=True))
    assert await machine.send()
    assert await machine.send()  # pays for one recipient more
    assert await asyncio.gather(machine.send(5), machine.send()) == [True, True]
    for _ in range(40):
        assert machine.is_covered()
        assert await machine.send()


@pytest.mark.asyncio
async def test_a_busy_account_is_written_down_a_few_times_and_not_for_each_message() -> None:
    machine = Machine(Limit(100_000, DAY))
    for _ in range(1000):
        machine.passes(0.005)
        assert await machine.send()
    assert machine.writes < 20
    await machine.pace.close()
    machine.start()
    assert machine.pace.used() == ((machine.limits[0], 1000),)  # and exactly, after an orderly end


@pytest.mark.asyncio
async def test_a_relay_that_is_killed_counts_a_little_more_than_left_and_never_for_long() -> None:
    machine = Machine(Limit(30, 60.0))
    for _ in range(10):
        await machine.send()
    machine.start()
    ((_, used),) = machine.pace.used()
    assert 10 <= used <= 30
    machine.passes(64.0)
    assert machine.pace.used() == ((machine.limits[0], 0),)


@pytest.mark.asyncio
async def test_a_clock_that_was_wrong_holds_mail_up_no_longer_than_the_window() -> None:
    machine = Machine(Limit(2, 60.0))
    machine.wall += timedelta(days=400)  # wrong, and so written down
    assert await machine.send()
    assert await machine.send()
    machine.wall = NOON
    machine.start()
    assert not await machine.send()
    assert 0 < machine.pace.ready_in() <= 65.0
    machine.passes(65.0)
    assert await machine.send()


@pytest.mark.asyncio
async def test_the_clock_may_leap_while_the_relay_runs() -> None:
    machine = Machine(Limit(2, 60.0))
    assert await machine.send()
    machine.wall -= timedelta(days=3)
    assert await machine.send()
    assert not await machine.send()
    machine.clock += 63.0
    assert await machine.send()


@pytest.mark.asyncio
async def test_what_is_kept_for_session_codes_only_they_may_use() -> None:
    machine = Machine(Limit(5, 60.0, kept=1))
    assert [await machine.send() for _ in range(6)] == [True] * 4 + [False] * 2
    assert machine.pace.ready_in() > 0
    assert machine.pace.ready_in(session_code=True) == 0
    assert [await machine.send(session_code=True) for _ in range(2)] == [True, False]


@pytest.mark.asyncio
async def test_a_message_for_many_waits_until_there_is_room_for_all_of_them_and_keeps_its_turn() -> None:
    machine = Machine(Limit(10, DAY, of_recipients=True))
    assert await machine.send(8)
    assert not await machine.send(5)
    assert machine.pace.ready_in() > 3600
    machine.passes(61.0)
    assert machine.pace.ready_in() == 0  # whoever was to be first did not come back
    assert await machine.send(2)


@pytest.mark.asyncio
async def test_a_message_for_more_than_there_ever_is_leaves_when_all_of_it_is_there() -> None:
    machine = Machine(Limit(3, DAY, of_recipients=True))
    assert await machine.send(5)
    assert not await machine.send(5)
    assert machine.pace.ready_in() > 3600
    machine.passes(machine.pace.ready_in())
    assert machine.pace.ready_in() == 0
    assert await machine.send(5)  # who is told that it may come is not sent away


@pytest.mark.asyncio
async def test_who_was_sent_away_hears_when_a_claim_is_dropped() -> None:
    machine = Machine(Limit(1, 60.0))
    claim = machine.pace.claim(1, session_code=False)
    assert claim is not None
    assert machine.pace.claim(1, session_code=False) is None
    assert machine.pace.ready_in() > 0
    assert machine.freed == 0
    claim.drop()
    claim.drop()
    assert machine.freed == 1
    assert machine.pace.ready_in() == 0


@pytest.mark.asyncio
async def test_a_claim_ahead_lets_nobody_in_between() -> None:
    machine = Machine(Limit(1, 60.0))
    assert await machine.send()
    ahead = machine.pace.claim_ahead(1)
    assert machine.pace.due_in(session_code=False) > 0
    machine.passes(63.0)
    assert machine.pace.due_in(session_code=False) == 0
    assert not await machine.send()
    await ahead.use()


@pytest.mark.asyncio
async def test_while_the_store_is_out_of_order_what_is_under_way_goes_on_and_is_counted() -> None:
    machine = Machine(Limit(3, 60.0))
    machine.broken = True
    assert [await machine.send() for _ in range(4)] == [True, True, True, False]
    machine.broken = False
    machine.passes(65.0)
    assert await machine.send()
    assert machine.written is not None


@pytest.mark.asyncio
async def test_a_changed_rate_counts_what_left_before_it() -> None:
    machine = Machine(Limit(5, 60.0))
    for _ in range(4):
        await machine.send()
    machine.pace.configure((Limit(3, 60.0), Limit(100, 3600.0)))
    assert machine.pace.room() == 0
    machine.pace.configure((Limit(10, 60.0),))
    assert machine.pace.room() == 6


@pytest.mark.asyncio
async def test_a_hold_for_a_quota_outlives_a_restart_and_ends_in_time() -> None:
    machine = Machine()
    assert machine.pace.hold(Stage.MAIL, 550, "5.4.5") == 3600
    await machine.pace.close()
    machine.passes(600)
    machine.start()
    assert machine.pace.held is not None
    assert (machine.pace.held.code, machine.pace.held_for) == (550, 3000)
    machine.pace.release()
    await machine.pace.close()
    assert machine.start().held is None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "value",
    [
        "",
        "no json",
        "[]",
        "3",
        '{"60": 7}',
        '{"60": [[1]]}',
        '{"60": [["a", "b"]]}',
        '{"held": [1]}',
        '{"held": [1e300, "mail", 1, "x"]}',
        '{"held": [1, "nowhere", 1, "x"]}',
    ],
)
async def test_what_cannot_be_read_is_left(value: str) -> None:
    machine = Machine(Limit(5, 60.0))
    machine.pace.restore(NOON, value)
    assert machine.pace.room() == 5
    assert machine.pace.held is None
