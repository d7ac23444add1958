"""The connections that an account may have at once: who has a place, who waits for one, and which is kept free.

Session codes come first, and where there are two places one of them is theirs. An upstream that says that there are
too many connections is believed: one place less, and one more again for each five quiet minutes.

What was sent and is not recorded yet, a crash repeats. However many routes lead to an account, that is no more than two
messages of each of its connections: where the disk is slow, who wants a place waits for it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

RECOVERS = 300.0  # seconds until a place that was given up is tried again
REPEATED = 2  # messages of each connection that a crash may repeat


class Idling(Protocol):
    """Who has connections that lie idle (`pool`)."""

    async def give_way(self) -> None:
        """Close one."""
        ...

    def let_go(self) -> None:
        """Close one, and do not wait for that."""
        ...


class Places:
    """`most` is what the configuration allows. Whoever was given a place leaves it."""

    def __init__(self, most: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._most = most
        self._kept = 0
        self._lowered = 0
        self._taken = 0
        self._unrecorded = 0  # messages that were sent
        self._waiting: list[tuple[bool, int, int, asyncio.Future[bool], object]] = []
        self._turn = 0
        self._recovery: asyncio.TimerHandle | None = None
        self.idle: dict[Idling, int] = {}  # how many connections lie idle; they count at the other end

    def configure(self, most: int, *, codes: bool) -> None:
        """`codes`: session codes go this way as well."""
        self._most, self._kept = most, int(codes)
        self._hand_on()

    @property
    def allowed(self) -> int:
        """How many there may be now."""
        return max(1, self._most - self._lowered)

    @property
    def keeps_one(self) -> bool:
        """True where ordinary mail leaves one place to session codes."""
        return self._kept > 0 and self.allowed > 1

    @property
    def crowded(self) -> bool:
        """True when there are more connections, idle ones as well, than there may be."""
        return self._taken + sum(self.idle.values()) > self.allowed

    def there_is_one(self, *, session_code: bool) -> bool:
        # One less: who leaves a place is among the unrecorded a moment later.
        if self._taken + self._unrecorded >= REPEATED * self.allowed - 1:
            return False
        return self._taken < (self.allowed if session_code or not self.keeps_one else self.allowed - 1)

    def take_now(self, *, session_code: bool) -> bool:
        """A place, if nobody has to be waited for."""
        busy = self._taken + self._unrecorded
        if busy >= self._most - self._lowered - self._kept and not self.there_is_one(session_code=session_code):
            return False
        self._taken += 1
        return True

    async def make_room(self, owner: object) -> None:
        """Before another connection is opened at a place that was taken: others give up what lies idle with them."""
        while self.crowded:
            others = [other for other, count in self.idle.items() if count and other is not owner]
            if not others:
                return
            await others[0].give_way()

    def take_anyhow(self) -> None:
        """A place for a connection that is there already."""
        self._taken += 1

    async def wait_for_one(self, owner: object, priority: int, deadline: float | None, *, session_code: bool) -> bool:
        """Wait for a place, since there is none now; False when there was none in time, or `owner` is refused."""
        future: asyncio.Future[bool] = self._loop.create_future()
        self._turn += 1
        heapq.heappush(self._waiting, (not session_code, priority, self._turn, future, owner))
        timer = None if deadline is None else self._loop.call_at(deadline, _answer, future, False)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.result():
                self.leave()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def leave(self) -> None:
        self._taken -= 1
        if self._waiting:
            self._hand_on()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Until what became of a message that was sent is recorded."""
        self._unrecorded += 1
        try:
            yield
        finally:
            self._unrecorded -= 1
            if self._waiting:
                self._hand_on()

    def refuse(self, owner: object) -> None:
        """Who waits for a place of `owner` is sent away."""
        for _, _, _, future, whose in self._waiting:
            if whose is owner:
                _answer(future, False)

    def lower(self) -> None:
        """The upstream said that there are too many."""
        if self.allowed > 1:
            self._lowered += 1
        self._recover_later()
        too_many = self._taken + sum(self.idle.values()) - self.allowed  # those that lie idle count over there as well
        for whose in [whose for whose, count in self.idle.items() for _ in range(count)][: max(0, too_many)]:
            whose.let_go()

    def _recover_later(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()
        self._recovery = self._loop.call_later(RECOVERS, self._recover) if self._lowered else None

    def _recover(self) -> None:
        self._recovery = None
        self._lowered -= 1
        self._recover_later()
        self._hand_on()

    def _hand_on(self) -> None:
        while self._waiting:
            if not self._waiting[0][3].done():
                if not self.take_now(session_code=not self._waiting[0][0]):
                    return
                self._waiting[0][3].set_result(True)
            heapq.heappop(self._waiting)

    def close(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()


def _answer(future: asyncio.Future[bool], place: bool) -> None:
    if not future.done():
        future.set_result(place)
