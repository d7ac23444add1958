"""The pace of an account: what may leave now, counted over routes, connections and restarts.

Who wants to send claims first, and uses the claim when the transaction begins; so nobody waits with a connection in
hand. What is used is written down ahead of its use, in blocks that hold for a moment: a relay that is killed finds
at least as much as it used, and no message waits for a commit of its own. While the store is out of order mail that
is under way goes on, counted in memory.

That an upstream said its quota is used up is remembered here as well.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from relay.errors import StoreUnavailable
from relay.mail.outcome import Stage
from relay.policy import pacing
from relay.policy.pacing import Limit, Uses
from relay.values import frozen

AHEAD = 2.0  # seconds for which a block that was written down may be used
MOST_AHEAD = 256
UNLIMITED = 1_000_000
PATIENT = 60.0  # seconds for which a message that needs more than there is keeps its turn
LONGEST_HOLD = 25 * pacing.HOUR  # a hold beyond it comes from a clock that was wrong

Write = Callable[[datetime, str], Awaitable[None]]


@frozen
class Hold:
    """An upstream that said its quota is used up: until when it is left alone, and what it said."""

    until: datetime
    stage: Stage
    code: int
    status: str


class Claim:
    """A transaction that may begin. Used or dropped, once; what comes after that changes nothing."""

    __slots__ = ("_pace", "_recipients")

    def __init__(self, pace: Pace, recipients: int) -> None:
        self._pace: Pace | None = pace
        self._recipients = recipients

    async def use(self) -> None:
        """The transaction begins."""
        pace, self._pace = self._pace, None
        if pace is None:
            return
        if pace.limits:
            await pace._use(self._recipients)
        else:
            pace._unclaim(self._recipients)

    def drop(self) -> None:
        """It does not."""
        pace, self._pace = self._pace, None
        if pace is not None:
            pace._unclaim(self._recipients)
            pace._tell()


class Pace:
    """`write` keeps a text over restarts; `freed` is called when who was sent away may come again before the time
    that it was told. `clock` says seconds and does not go back; `now` is what the calendar says."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        write: Write | None = None,
        freed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.limits: tuple[Limit, ...] = ()
        self.most_recipients = UNLIMITED  # of one transaction: more than this may never leave at once
        self.held: Hold | None = None
        self._now = now
        self._write_down = write
        self._freed = freed
        self._clock = clock or asyncio.get_running_loop().time
        self._uses: dict[tuple[float, bool], Uses] = {}
        self._claimed = [0, 0]  # transactions, recipients
        self._ahead = [0, 0]  # written down and not used yet
        self._ahead_until = float("-inf")
        self._block = 1
        self._writing = asyncio.Lock()
        self._sent_away = False
        self._wanted = 1  # recipients of the message whose turn it is
        self._wanted_until = float("-inf")
        self._later: set[asyncio.Task[None]] = set()

    def configure(self, limits: Sequence[Limit]) -> None:
        """What counted already goes on counting, where a limit is of the same length."""
        self.limits = tuple(limits)
        of_recipients = [limit.most(session_code=False) for limit in self.limits if limit.of_recipients]
        self.most_recipients = min(of_recipients, default=UNLIMITED)
        self._uses = {_span(limit): self._uses.get(_span(limit), ()) for limit in self.limits}

    # What may leave

    def room(self, *, session_code: bool = False) -> int:
        """How many transactions may begin now."""
        if not self.limits:
            return UNLIMITED
        now = self._clock()
        return max(0, min([self._free(limit, now, session_code=session_code) for limit in self.limits]))

    def ready_in(self, *, session_code: bool = False) -> float:
        """Seconds until a transaction may begin; 0 now. What is claimed counts as used."""
        if not self.limits:
            return 0.0
        now = self._clock()
        waits = 0.0
        for limit in self.limits:
            uses = self._uses[_span(limit)]
            claimed = self._claimed[limit.of_recipients]
            if claimed:
                uses = pacing.noted(limit, uses, now, claimed)
            wanted = self._wanted if limit.of_recipients and now < self._wanted_until else 1
            wanted = min(wanted, limit.most(session_code=session_code))
            waits = max(waits, pacing.opens_in(limit, uses, now, wanted, session_code=session_code))
        if waits:
            self._sent_away = True
        return waits

    def claim(self, recipients: int, *, session_code: bool) -> Claim | None:
        """A transaction with so many recipients, or None when there is no room for it now."""
        if self.limits:
            now = self._clock()
            for limit in self.limits:
                # Who needs more than there ever is goes when all of it is there, as `ready_in` says.
                wanted = min(recipients if limit.of_recipients else 1, limit.most(session_code=session_code))
                if self._free(limit, now, session_code=session_code) < wanted:
                    if not session_code:
                        self._wanted, self._wanted_until = recipients, now + PATIENT
                    self._sent_away = True
                    return None
            if not session_code:
                self._wanted_until = now
        return self.claim_ahead(recipients)

    def claim_ahead(self, recipients: int) -> Claim:
        """A claim that may be used when `due_in` is 0; until then nobody else gets in between."""
        self._claimed[0] += 1
        self._claimed[1] += recipients
        return Claim(self, recipients)

    def due_in(self, *, session_code: bool) -> float:
        """Seconds until all that is claimed may be used; 0 now."""
        now, waits = self._clock(), 0.0
        for limit in self.limits:
            wanted = min(self._claimed[limit.of_recipients], limit.most(session_code=session_code))
            uses = self._uses[_span(limit)]
            waits = max(waits, pacing.opens_in(limit, uses, now, wanted, session_code=session_code))
        return waits

    def _free(self, limit: Limit, now: float, *, session_code: bool) -> int:
        free = pacing.free(limit, self._uses[_span(limit)], now, session_code=session_code)
        return free - self._claimed[limit.of_recipients]

    def _unclaim(self, recipients: int) -> None:
        self._claimed[0] -= 1
        self._claimed[1] -= recipients

    def _tell(self) -> None:
        if self._sent_away:
            self._sent_away = False
            self._freed()

    async def _use(self, recipients: int) -> None:
        try:
            if self.limits and not self._paid(recipients):
                async with self._writing:
                    if not self._paid(recipients):
                        await self._pay(recipients)
        finally:
            self._unclaim(recipients)
            for limit in self.limits:
                count = recipients if limit.of_recipients else 1
                self._uses[_span(limit)] = pacing.noted(limit, self._uses[_span(limit)], self._clock(), count)
            self._ahead[0] -= 1
            self._ahead[1] -= recipients

    # Over restarts

    def _paid(self, recipients: int) -> bool:
        """Whether what is about to be used is written down already."""
        return self._clock() <= self._ahead_until and self._ahead[0] >= 1 and self._ahead[1] >= recipients

    async def _pay(self, recipients: int) -> None:
        """Write down a block. As long as blocks are used up before their time is over they grow."""
        used_up = self._clock() <= self._ahead_until
        self._block = min(self._block * 2, MOST_AHEAD) if used_up else max(1, self._block // 2)
        self._ahead = [0, 0]  # what is written now stands for what was written before
        allowed = AHEAD
        while True:
            now = self._clock()
            transactions = max(self._block, self._claimed[0])
            block = [transactions, max(self._claimed[1], recipients * transactions)]
            for limit in self.limits:
                # No more than there is, and all that is claimed: it was there when it was claimed.
                there = pacing.free(limit, self._uses[_span(limit)], now, session_code=True)
                claimed = self._claimed[limit.of_recipients]
                block[limit.of_recipients] = min(block[limit.of_recipients], max(there, claimed))
            until = now + allowed
            try:
                await self._write(now, block, until)
            except StoreUnavailable:  # it has told everybody
                return
            if self._clock() <= until:
                self._ahead, self._ahead_until = block, until
                return
            allowed *= 2

    async def _write(self, now: float, ahead: Sequence[int], until: float) -> None:
        if self._write_down is None:
            return
        value: dict[str, Any] = {}
        for limit in self.limits:
            uses = self._uses[_span(limit)]
            if count := ahead[limit.of_recipients]:
                uses = (*uses, (until, count))
            value[_name(limit)] = pacing.aged(uses, now)
        if self.held is not None:
            held = self.held
            value["held"] = [held.until.timestamp(), held.stage, held.code, held.status]
        await self._write_down(self._now(), json.dumps(value, separators=(",", ":")))

    def _write_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self._write_as_it_is())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _write_as_it_is(self) -> None:
        """What is written down says what was used and no more; what is claimed pays again."""
        async with self._writing:
            now = self._clock()
            self._ahead, self._ahead_until = [0, 0], float("-inf")
            with suppress(StoreUnavailable):
                await self._write(now, (0, 0), now)

    def restore(self, moment: datetime, value: str) -> None:
        """Take in what was written down at `moment`, after `configure`. What cannot be read is left."""
        now, wall = self._clock(), self._now()
        # A moment that is yet to come was written by a clock that was wrong: then no time has passed.
        elapsed = max(0.0, (wall - moment).total_seconds())
        try:
            known = json.loads(value)
            uses = {
                _span(limit): pacing.dated(known[_name(limit)], now, elapsed)
                for limit in self.limits
                if _name(limit) in known
            }
            held = known.get("held")
            if held is not None:
                until = datetime.fromtimestamp(held[0], wall.tzinfo)
                held = Hold(until, Stage(held[1]), int(held[2]), str(held[3]))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, OSError):
            return
        self._uses |= uses
        if held is not None and held.until > wall:
            latest = wall + timedelta(seconds=LONGEST_HOLD)
            self.held = held if held.until <= latest else None

    async def close(self) -> None:
        """Write down what was used, and nothing ahead."""
        if self._later:
            await asyncio.wait(self._later)
        if self._ahead_until > float("-inf"):
            await self._write_as_it_is()

    # The quota

    def hold(self, stage: Stage, code: int, status: str) -> float:
        """The upstream said that its quota is used up; seconds until it is worth asking again."""
        pairs = [(limit, self._uses[_span(limit)]) for limit in self.limits]
        seconds = pacing.clears_in(pairs, self._clock())
        seconds = pacing.HOUR if seconds is None else seconds
        self.held = Hold(self._now() + timedelta(seconds=seconds), stage, code, status)
        self._write_soon()
        return seconds

    @property
    def held_for(self) -> float:
        """Seconds that are left of it."""
        return 0.0 if self.held is None else max(0.0, (self.held.until - self._now()).total_seconds())

    def release(self) -> None:
        """It takes mail again, or a person wants it tried."""
        if self.held is not None:
            self.held = None
            self._write_soon()

    # What is shown

    def used(self) -> tuple[tuple[Limit, int], ...]:
        """Each limit, and how much of it is used."""
        now = self._clock()
        return tuple([(limit, pacing.used(limit, self._uses[_span(limit)], now)) for limit in self.limits])


def _span(limit: Limit) -> tuple[float, bool]:
    return limit.seconds, limit.of_recipients


def _name(limit: Limit) -> str:
    return f"{limit.seconds:g}{'r' if limit.of_recipients else ''}"
