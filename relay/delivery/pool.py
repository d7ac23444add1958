"""The connections of one upstream that lie idle: kept for a while, then said goodbye to.

Where session codes are to find one that is ready, the last is left to them: it stays (`warm` sees to it), and ordinary
mail opens another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from relay.delivery.places import Places
from relay.transport.port import Connection

IDLE = 30.0  # seconds a connection is kept without work


@dataclass(slots=True, eq=False)
class Idle:
    """`since` it lies idle; `touched`: when the other end last said something; `refreshed`: how often only that."""

    connection: Connection
    since: float
    touched: float
    refreshed: int = 0


class Pool:
    """`stirred` is called whenever a connection came, went, or was lost; `lost` with the seconds of silence before.

    `warm`: one is to be kept for session codes.
    """

    def __init__(self, places: Places, *, stirred: Callable[[], None], lost: Callable[[float], None]) -> None:
        self.warm = False
        self.idle: list[Idle] = []
        self._places = places
        self._stirred = stirred
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._reaper: asyncio.TimerHandle | None = None
        self._goodbyes: set[asyncio.Task[None]] = set()
        self.closing = 0  # connections that are being refreshed, or said goodbye to

    def put(self, connection: Connection, since: float | None = None, refreshed: int = 0) -> None:
        """It has no work now, or none since then."""
        now = self._loop.time()
        one = Idle(connection, now if since is None else since, now, refreshed)
        self.idle.append(one)
        self._count()
        connection.when_lost(lambda: self._is_gone(one))
        if self._reaper is None:
            self._reaper = self._loop.call_later(IDLE, self._reap)
        self._stirred()

    def take(self, *, session_code: bool) -> Connection | None:
        """One that is there, for a transaction; its place is the caller's care."""
        while len(self.idle) > (0 if session_code else self._left_to_codes()):
            connection = self.idle.pop().connection
            self._count()
            self._stirred()
            if connection.usable:
                return connection
            connection.abort()
        return None

    def take_this(self, one: Idle) -> None:
        self.idle.remove(one)
        self._count()

    def _left_to_codes(self) -> int:
        return int(self.warm and self._places.keeps_one)

    async def give_way(self) -> None:
        """Another upstream of the account needs the place of one."""
        if not self.idle:
            self._count()  # so that nobody asks again
            return
        one = self.idle[0]
        self.take_this(one)
        await one.connection.close()

    def let_go(self) -> None:
        """There are more than there may be: the one that had no work for longest goes, if there is one."""
        if self.idle:
            self.say_goodbye(self.idle[0])

    def drop_all(self) -> None:
        idle, self.idle = self.idle, []
        self._count()
        for one in idle:
            one.connection.abort()

    async def refresh(self, one: Idle) -> None:
        """Have it say something, so that the other end does not think it dead. It is busy meanwhile."""
        self.take_this(one)
        self._places.take_anyhow()
        self.closing += 1
        try:
            if await one.connection.refresh() and one.connection.usable:
                self.put(one.connection, one.since, one.refreshed + 1)
        finally:
            self.closing -= 1
            self._places.leave()

    def say_goodbye(self, one: Idle) -> None:
        self.take_this(one)
        self._places.take_anyhow()  # the upstream counts it until it is closed
        self.closing += 1
        task = self._loop.create_task(self._close(one.connection))
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)

    async def _close(self, connection: Connection) -> None:
        try:
            await connection.close()
        finally:
            self.closing -= 1
            self._places.leave()
            self._stirred()

    def _reap(self) -> None:
        """Say goodbye to connections that had no work for a while."""
        self._reaper = None
        oldest = self._loop.time() - IDLE
        late = [one for one in self.idle if one.since <= oldest]
        for one in late[: len(self.idle) - 1] if self.warm else late:
            self.say_goodbye(one)
        if any(one.since > oldest for one in self.idle):
            self._reaper = self._loop.call_later(IDLE / 2, self._reap)

    def _is_gone(self, one: Idle) -> None:
        if one in self.idle:
            self.take_this(one)
            self._lost(self._loop.time() - one.touched)
            self._stirred()

    def _count(self) -> None:
        self._places.idle[self] = len(self.idle)

    async def close(self) -> None:
        """Close all of them; those that are busy end with their transaction."""
        if self._reaper is not None:
            self._reaper.cancel()
        idle, self.idle = self.idle, []
        self._count()  # who shares the account goes on while these say goodbye
        await asyncio.gather(*self._goodbyes, *(one.connection.close() for one in idle))
        self._places.idle.pop(self, None)
