"""The event loop's side of a store with group commit: it makes operations, keeps the books, answers the callers.

The other side is a `Disk`: it carries out a batch of operations as one transaction, on the writer
thread, and answers reading questions on a thread of its own. Nothing here knows which database it is.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from relay.errors import StoreUnavailable
from relay.events import BatchCommitted, Observer, StoreFailed, StoreRecovered
from relay.queue.books import Books
from relay.queue.model import Entry, Lease, Ledger, QueueView, Settlement
from relay.queue.operations import Check, GiveBack, MakeDue, Operation, Put, Settle, Take, TakeExpired, Wipe
from relay.queue.rows import microseconds, moment
from relay.queue.spool import Spool
from relay.queue.writer import GroupCommit

T = TypeVar("T")

WIPE_AFTER = 1.0  # seconds from the settling of a session code to the wiping of the log: at most 5
WAKE_AT_ONCE = 5000  # entries of one transaction of `make_due`, so that no commit waits for all of them


@dataclass(frozen=True, slots=True)
class Mend:
    """After a commit of unknown fate: the keys that are leased, and of those that must not be there."""

    leased: tuple[int, ...]
    undone: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a batch. `trouble` is (reason, text) when the machine failed; `sure`: nothing of it is kept."""

    operations: Sequence[Operation[Any]]
    seconds: float
    mended: bool = False
    trouble: tuple[str, str] | None = None
    sure: bool = True


class Disk(Protocol):
    """The thread's side. `commit` and `afterwards` run on the writer thread, `close` after its end."""

    def commit(self, operations: list[Operation[Any]], mend: Mend | None) -> Report: ...

    def afterwards(self) -> None:
        """Housekeeping for which no caller waits."""
        ...

    async def first(self, route: str) -> tuple[bool, int] | None:
        """Whether the first waiting entry of `route` is due, and when."""
        ...

    async def last_sleeping(self) -> int | None: ...

    async def waiting(self) -> list[tuple[str, int, int]]:
        """Route, messages and the oldest acceptance of what waits; a route may come twice."""
        ...

    def close(self) -> None: ...


class GroupedStore:
    """A QueueStore (`store`) with a spool, and `low_on_space`."""

    def __init__(
        self,
        disk: Disk,
        *,
        spool: Spool,
        books: Books,
        last_key: int,
        observer: Observer,
        directory: Path,
        min_free: int,
        now: Callable[[], datetime],
    ) -> None:
        self.spool = spool
        self._disk = disk
        self._books = books
        self._last_key = last_key
        self._observer = observer
        self._directory = directory
        self._min_free = min_free
        self._now = now
        self._low = False
        self._look_again_at = 0.0
        self._failed = False
        self._unsure = False
        self._undone: list[int] = []
        self._abandoned: list[Lease] = []
        self._wipe_timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._commits: GroupCommit[Operation[Any], Mend | None, Report] = GroupCommit(
            commit=disk.commit, prepare=self._mend, apply=self._apply, afterwards=disk.afterwards
        )

    @property
    def ledger(self) -> Ledger:
        return self._books.ledger

    @property
    def low_on_space(self) -> bool:
        """Less than `min_free` is left where the queue lies; looked up at most once a second."""
        now = time.monotonic()
        if now >= self._look_again_at:
            self._look_again_at = now + 1.0
            self._low = self.disk_free() < self._min_free
        return self._low

    def keep_free(self, octets: int) -> None:
        """From now on this is `min_free`."""
        self._min_free = octets
        self._look_again_at = 0.0

    def disk_free(self) -> int:
        """Octets free for us on the queue's file system."""
        there = os.statvfs(self._directory)
        return there.f_bavail * there.f_frsize

    async def put(self, entry: Entry, *, leased: bool) -> Lease:
        return await self._submit(Put(self._key(), entry, self.spool, leased=leased))

    async def lease(self, route: str, *, limit: int, now: datetime) -> list[Lease]:
        return await self._submit(Take(route, limit, microseconds(now), self.spool))

    async def lease_expired(
        self, route: str, *, limit: int, now: datetime, session_codes_only: bool = False
    ) -> list[Lease]:
        only, ledger = session_codes_only, self.ledger
        if not ledger.pending + ledger.deferred:
            return []  # asked every few seconds, and nothing waits: no commit for that
        return await self._submit(TakeExpired(route, limit, microseconds(now), self.spool, session_codes_only=only))

    async def settle(self, settlement: Settlement) -> None:
        lease = settlement.lease
        key = self._books.key(lease)
        results = sorted([result.index for result in settlement.results])
        if results != [pending.index for pending in lease.pending]:
            raise ValueError(f"{lease.entry.queue_id}: a settlement has one result for each recipient of its lease")
        at = settlement.next_attempt_at
        born = [self._key() for _ in settlement.notifications]
        operation = Settle(key, settlement, microseconds(self._now() if at is None else at), born, self.spool)
        self._books.ending(key)
        await self._submit(operation)

    async def give_back(self, leases: Sequence[Lease]) -> None:
        if leases:
            await self._submit(self._give_back(leases))

    async def make_due(self, *, now: datetime, route: str | None = None) -> None:
        until = await self._disk.last_sleeping()
        if until is None:
            return
        # Up to what sleeps now, so that entries which fall asleep again meanwhile are no endless work.
        while await self._submit(MakeDue(route, microseconds(now), until, WAKE_AT_ONCE)) == WAKE_AT_ONCE:
            pass

    async def next_due(self, route: str) -> datetime | None:
        first = await self._disk.first(route)
        if first is None:
            return None
        due, at = first
        return min(moment(at), self._now()) if due else moment(at)

    async def view(self) -> QueueView:
        """What waits or is leased; held entries wait for a person, and count in `bytes` only."""
        messages: dict[str, int] = {}
        oldest: dict[str, datetime] = {}
        waiting = [(route, count, moment(at)) for route, count, at in await self._disk.waiting()]
        leases = self._books.leases.values()
        active = [(lease.entry.route, 1, lease.entry.submission.received_at) for lease in leases]
        for route, count, at in (*waiting, *active):
            messages[route] = messages.get(route, 0) + count
            oldest[route] = min(oldest.get(route, at), at)
        return QueueView(messages, oldest, self._books.octets)

    async def check(self) -> None:
        await self._submit(Check())

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._wipe_timer is not None:
            self._wipe_timer.cancel()
        await self._commits.close()
        await self._loop.run_in_executor(None, self._close_files)

    def _close_files(self) -> None:
        try:
            self._disk.close()
        finally:
            self.spool.close()

    def _key(self) -> int:
        self._last_key += 1
        return self._last_key

    async def _submit(self, operation: Operation[T]) -> T:
        if self._closing is not None:
            operation.undo(self._books)
            raise StoreUnavailable("other", "the queue is closed")
        return await self._begin(operation)

    def _begin(self, operation: Operation[T]) -> asyncio.Future[T]:
        operation.future = self._loop.create_future()
        self._commits.submit(operation)
        return operation.future

    def _give_back(self, leases: Sequence[Lease]) -> GiveBack:
        keys = [self._books.key(lease) for lease in leases]
        for key in keys:
            self._books.ending(key)
        counted = [key for key in keys if self._books.counted(key)]
        return GiveBack(counted, [key for key in keys if not self._books.counted(key)])

    def _mend(self) -> Mend | None:
        return Mend(tuple(self._books.leases), tuple(self._undone)) if self._unsure else None

    def _apply(self, report: Report) -> None:
        """The commit is over: on the event loop, keep the books and answer."""
        if report.trouble is not None:
            self._fail(report, *report.trouble)
            return
        if report.mended:
            self._unsure, self._undone = False, []
        ended: list[str] = []
        for operation in report.operations:
            if operation.error is not None:
                self._refuse(operation, operation.error)
                continue
            result = operation.apply(self._books)
            if not operation.future.done():
                operation.future.set_result(result)
            else:
                self._abandoned += operation.orphaned(result)
            if operation.ended_file is not None:
                ended.append(operation.ended_file)
            if operation.leaves_traces:
                self._wipe_soon()
        if ended:
            self.spool.remove(ended)
        self._observer.observe(BatchCommitted(len(report.operations), report.seconds))
        if self._failed:
            self._failed = False
            self._observer.observe(StoreRecovered())
        if self._abandoned:
            self._take_back()

    def _fail(self, report: Report, reason: str, text: str) -> None:
        self._failed = True
        if not report.sure:
            self._unsure = True
        for operation in report.operations:
            if not report.sure:
                self._undone += operation.born
            self._refuse(operation, StoreUnavailable(reason, text))
        self._observer.observe(StoreFailed(reason, text))

    def _refuse(self, operation: Operation[Any], error: Exception) -> None:
        operation.undo(self._books)
        if not operation.future.done():
            operation.future.set_exception(error)
        if operation.refused_file is not None:
            self.spool.remove([operation.refused_file])
        if operation.leaves_traces:
            self._wipe_soon()

    def _take_back(self) -> None:
        """Leases whose callers were cancelled before they had them go back, now or after the next commit."""
        leases, self._abandoned = self._abandoned, []
        operation = self._give_back(leases)

        def look(future: asyncio.Future[None]) -> None:
            if future.exception() is not None:
                self._abandoned += leases

        self._begin(operation).add_done_callback(look)

    def _wipe_soon(self) -> None:
        if self._wipe_timer is None and self._closing is None:
            self._wipe_timer = self._loop.call_later(WIPE_AFTER, self._wipe)

    def _wipe(self) -> None:
        self._wipe_timer = None
        operation = Wipe()

        def look(future: asyncio.Future[bool]) -> None:
            if future.exception() is not None or not future.result():
                self._wipe_soon()

        self._begin(operation).add_done_callback(look)
