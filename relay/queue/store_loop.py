"""The event loop's side of a store with group commit: it makes operations, keeps the books, answers the callers.

The other side is a `Disk`. Nothing here knows which database it is.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from relay.errors import RelayError, StoreUnavailable
from relay.events import BatchCommitted, EntriesFound, Observer, StoreFailed, StoreRecovered
from relay.mail.address import Address
from relay.queue import questions
from relay.queue.disk import Disk, Mend, Operation, Report, Work
from relay.queue.ledger import Books, Found
from relay.queue.listing import Acted, Listed, Place, Saved, Searched, Shown, Standing, Verb, Wanted
from relay.queue.model import Entry, Lease, Ledger, Memory, QueueView, Reader, Recorded, Settlement, Told
from relay.queue.operations.lease import Take, TakeExpired
from relay.queue.operations.operator import Act
from relay.queue.operations.walk import (
    ChangeWay,
    Forget,
    ForgetSubjects,
    GiveBack,
    MakeDue,
    Put,
    Record,
    Settle,
    Summarise,
    Wipe,
    Write,
)
from relay.queue.rows import microseconds, moment
from relay.queue.spool import Spool
from relay.queue.writer import GroupCommit

T = TypeVar("T")

ANOTHER_SOON = 0.02  # seconds from the last message put, within which another is likely
WIPE_AFTER = 1.0  # seconds from the settling of a session code to the wiping of the log: at most 5
FORGET_AT_ONCE = 500  # messages of one transaction of `forget`, likewise
FORGET_RESTS = 2  # times as long as a slice took: mail that comes and goes meanwhile has most of the disk
ALL_KEYS = 1 << 62
WAKE_AT_ONCE = 1000  # entries of one transaction of `make_due`, so that no commit waits for all of them


class GroupedStore:
    """A QueueStore (`store`) over a database, in which `found` lay."""

    def __init__(
        self,
        disk: Disk,
        found: Found,
        *,
        spool: Spool,
        observer: Observer,
        min_free: int,
        history: Recorded,
        now: Callable[[], datetime],
    ) -> None:
        self.spool = spool
        spool.told = self._spool_told
        self._disk = disk
        self._books = Books(observer)
        self._last_key = found.last_key
        self._observer = observer
        self._min_free = min_free
        self._history = history
        self._now = now
        self._low = False
        self._look_again_at = 0.0
        self._failing = set[str]()  # the database, the spool, or the names of their files
        self._moved = ""  # what is wrong with these names
        self._unsure = False
        self._undone: list[int] = []
        self._uncounted: list[int] = []
        self._abandoned: list[Lease] = []
        self._wipe_timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._saving: asyncio.Future[Saved] | None = None
        self._put_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._commits: GroupCommit[Operation[Any], Mend | None, Report, str] = GroupCommit(
            commit=disk.commit,
            prepare=self._mend,
            apply=self._apply,
            afterwards=disk.afterwards,
            noticed=self._noticed,
            more_to_come=lambda: self._loop.time() - self._put_at < ANOTHER_SOON,
        )
        self._books.open(found)
        if any(change.gone and change.session_code for change in found.changes):
            self._wipe_soon()
        observer.observe(EntriesFound(found.entries, self.ledger.found, found.leases))

    @property
    def ledger(self) -> Ledger:
        return self._books.ledger

    @property
    def octets(self) -> int:
        return self._books.octets

    @property
    def low_on_space(self) -> bool:
        now = time.monotonic()
        if now >= self._look_again_at:
            self._look_again_at = now + 1.0
            self._low = self.disk_free() < self._min_free
        return self._low

    def keep_free(self, octets: int) -> None:
        self._min_free = octets
        self._look_again_at = 0.0

    def keep_history(self, history: Recorded) -> None:
        self._history = history

    def disk_free(self) -> int:
        there = os.statvfs(self.spool.folder.fileno())  # wherever it is by now
        return there.f_bavail * there.f_frsize

    async def put(self, entry: Entry, *, leased: bool, held: bool = False, ways: Sequence[str] = ()) -> Lease:
        if leased and held:
            raise ValueError("what waits for a person cannot be leased")
        self._put_at = self._loop.time()
        return await self._submit(Put(self._key(), entry, self.spool, leased=leased, held=held, ways=ways))

    async def lease(self, route: str, *, limit: int, now: datetime) -> list[Lease]:
        return await self._submit(Take(route, limit, microseconds(now), self.spool))

    async def lease_expired(
        self, route: str, *, limit: int, now: datetime, session_codes_only: bool = False
    ) -> list[Lease]:
        only, ledger, at = session_codes_only, self.ledger, microseconds(now)
        if not ledger.pending + ledger.deferred + ledger.held:
            return []
        # Asked every few seconds, and nearly always for nothing: no commit for that.
        if not await self._disk.read(questions.any_over, route, at, session_codes_only=only):
            return []
        return await self._submit(TakeExpired(route, limit, at, self.spool, session_codes_only=only))

    async def change_way(self, lease: Lease, places: Sequence[int], way: str) -> None:
        await self._submit(ChangeWay(self._books.key(lease), places, way))

    async def settle(self, settlement: Settlement) -> Sequence[str]:
        key = self._books.key(settlement.lease)
        operation = self._settlement(Settle, key, settlement)
        operation.withheld = self._books.withheld.get(key, ())
        self._books.ending(key)
        return await self._submit(operation)

    async def record(self, settlement: Settlement) -> Sequence[str]:
        lease, key = settlement.lease, self._key()
        if len(lease.pending) != len(lease.entry.submission.envelope.recipients):
            raise ValueError(f"{lease.entry.queue_id}: an attempt before the first commit is for all recipients")
        return await self._submit(self._settlement(Record, key, replace(settlement, lease=replace(lease, key=key))))

    def _settlement(self, kind: type[Settle], key: int, settlement: Settlement) -> Settle:
        lease = settlement.lease
        results = sorted([result.index for result in settlement.results])
        if results != [pending.index for pending in lease.pending]:
            raise ValueError(f"{lease.entry.queue_id}: a settlement has one result for each recipient of its lease")
        ended_at = microseconds(self._now() if settlement.at is None else settlement.at)
        next_at = settlement.next_attempt_at
        return kind(
            key,
            settlement,
            [self._key() for _ in settlement.notifications],
            self.spool,
            ended_at=ended_at,
            next_attempt_at=ended_at if next_at is None else microseconds(next_at),
            history=self._history,
        )

    async def give_back(self, leases: Sequence[Lease]) -> Sequence[str]:
        return await self._submit(self._give_back(leases)) if leases else ()

    async def make_due(
        self, *, now: datetime, route: str | None = None, woken: Callable[[], None] = lambda: None
    ) -> None:
        for name, until in await self._disk.read(questions.sleeping):
            # Up to what sleeps now, so that entries which fall asleep again meanwhile are no endless work.
            slept = WAKE_AT_ONCE if route in (None, name) else 0
            while slept == WAKE_AT_ONCE:
                slept = await self._submit(MakeDue(name, microseconds(now), until, WAKE_AT_ONCE))
                if slept:
                    woken()

    async def next_due(self, route: str) -> datetime | None:
        first = await self._disk.read(questions.first, route)
        if first is None:
            return None
        due, at = first
        return min(moment(at), self._now()) if due else moment(at)

    # The operator's questions

    async def routes(self) -> Sequence[str]:
        return await self._disk.read(questions.routes)

    async def view(self) -> QueueView:
        messages: dict[str, int] = {}
        oldest: dict[str, datetime] = {}
        held: dict[str, int] = {}
        for there in await self.standing():
            route = there.route
            if there.place in (Place.HELD, Place.DAMAGED):
                held[route] = held.get(route, 0) + there.messages
            else:
                messages[route] = messages.get(route, 0) + there.messages
                oldest[route] = min(oldest.get(route, there.oldest), there.oldest)
        return QueueView(messages, oldest, self._books.octets, held)

    async def standing(self) -> Sequence[Standing]:
        waiting = await self._disk.read(questions.standing)
        leases = self._books.leases.values()
        active = [Standing(lease.entry.route, Place.ACTIVE, 1, lease.entry.submission.received_at) for lease in leases]
        return questions.gathered((*waiting, *active))

    async def find(self, wanted: Wanted, *, limit: int = 100) -> Sequence[Listed]:
        return (await self.search(wanted, limit=limit, patience=math.inf)).entries

    async def search(self, wanted: Wanted, *, limit: int, patience: float) -> Searched:
        deadline = self._loop.time() + patience
        found, whole = await self._find_waiting(wanted, limit, deadline)
        if wanted.place in (None, Place.FINISHED):
            finished, all_of_it = await self._find_finished(wanted, limit, deadline)
            found, whole = found + finished, whole and all_of_it
        return Searched(sorted(found, key=lambda listed: -listed.key)[:limit], whole)

    async def _find_waiting(self, wanted: Wanted, limit: int, deadline: float) -> tuple[list[Listed], bool]:
        found: list[Listed] = []
        before = ALL_KEYS
        for among in questions.slices(headers=bool(wanted.subject)):
            left = limit - len(found)
            some, end = await self._disk.read(questions.latest, wanted, before=before, among=among, limit=left)
            found += some
            if end is None or len(found) >= limit:
                break
            before = end
            if self._loop.time() >= deadline:
                return found, False
        return found, True

    async def _find_finished(self, wanted: Wanted, limit: int, deadline: float) -> tuple[list[Listed], bool]:
        """A slice at a time: a rare address makes it look at all of the history."""
        found: list[Listed] = []
        last: int | None
        least, last = await self._disk.read(questions.ends_of_history)
        for among in questions.slices():
            if not last or last < least or len(found) >= limit:
                break
            if self._loop.time() >= deadline:
                return found, False
            left = limit - len(found)
            some, last = await self._disk.read(questions.finished, wanted, above=last - among, up_to=last, limit=left)
            found += some
        return found, True

    async def named(self, entries: Sequence[Listed]) -> Sequence[Listed]:
        found: list[Listed] = []
        for start in range(0, len(entries), questions.HEADERS_AT_ONCE):
            some = entries[start : start + questions.HEADERS_AT_ONCE]
            found += await self._disk.read(questions.named_by_header, some, self._history)
        return found

    async def match(self, prefix: str) -> Sequence[str]:
        return await self._disk.read(questions.named, prefix)

    async def show(self, queue_id: str) -> Shown | None:
        return await self._disk.read(questions.shown, queue_id, self._history)

    async def recall(self, topic: str, key: str) -> datetime | None:
        return await self._disk.read(questions.recalled, topic, key)

    async def memories(self, topic: str) -> Sequence[Memory]:
        return await self._disk.read(questions.memories, topic)

    # What an operator does

    async def act(
        self, verb: Verb, queue_ids: Sequence[str], *, now: datetime, route: str | None = None
    ) -> Sequence[Acted]:
        if (verb is Verb.REROUTE) != bool(route):
            raise ValueError("a route is given to reroute, and for nothing else")
        return await self._submit(Act(verb, queue_ids, microseconds(now), route or "", history=self._history))

    async def remember(self, topic: str, key: str, moment: datetime, value: str = "") -> None:
        await self._submit(Write("remember", topic, key, microseconds(moment), value))

    async def forget_memory(self, topic: str, key: str) -> None:
        await self._submit(Write("forget_memory", topic, key))

    async def readers(self, *, since: datetime) -> Sequence[Reader]:
        return await self._disk.read(questions.readers, microseconds(since))

    async def collected(self, reader: Address, *, limit: int) -> Sequence[Told]:
        return await self._disk.read(questions.collected, reader, limit)

    async def summarise(self, entry: Entry, told: Sequence[Told]) -> None:
        await self._submit(Summarise(self._key(), entry, told, self.spool))

    async def forget_told(self, *, before: datetime) -> None:
        await self._submit(Write("forget_told", microseconds(before)))

    async def forget(self, *, before: datetime) -> int:
        at = microseconds(before)
        first = await self._disk.read(questions.first_since, at)
        below = ALL_KEYS if first is None else first
        forgotten = await self._forget(partial(questions.ended_before, at=at, below=below), Forget)
        if self._history is not Recorded.SUBJECT:
            await self._forget(questions.with_subject, ForgetSubjects)
        return forgotten

    async def _forget(self, of_history: Callable[[Work, int, int], list[int]], kind: type[Forget]) -> int:
        """Carry out `kind` for the messages whose keys `of_history` gives: those above one, so many at most."""
        above = forgotten = 0
        while keys := await self._disk.read(of_history, above, FORGET_AT_ONCE):
            began = time.perf_counter()
            await self._submit(kind(keys))
            above = keys[-1]
            forgotten += len(keys)
            if len(keys) == FORGET_AT_ONCE:
                await asyncio.sleep(FORGET_RESTS * (time.perf_counter() - began))
        return forgotten

    async def backup(self, path: Path) -> Saved:
        if self._closing is not None:
            raise StoreUnavailable("other", "the queue is closed")
        if self._saving is not None:
            raise RelayError("a backup is under way: wait for its end")
        given_up = False

        def stop() -> bool:
            return given_up or self._closing is not None

        saving = self._loop.run_in_executor(None, self._disk.save, path, self.spool, stop)
        self._saving = saving
        saving.add_done_callback(self._saved)
        try:
            return await asyncio.shield(saving)
        except asyncio.CancelledError:
            given_up = True
            raise

    def _saved(self, saving: asyncio.Future[Saved]) -> None:
        self._saving = None
        if not saving.cancelled():
            saving.exception()  # whoever waits for it is told; nobody may be

    async def list(self, wanted: Wanted, *, after: int = 0, limit: int = 100) -> Sequence[Listed]:
        found: list[Listed] = []
        for among in questions.slices():
            left = limit - len(found)
            some, end = await self._disk.read(questions.listed, wanted, after=after, among=among, limit=left)
            found += some
            if end is None or len(found) >= limit:
                break
            after = end
        return found

    async def check(self) -> None:
        await self._submit(Write("beat"))  # a commit that has something to prove
        if self._moved:
            raise StoreUnavailable("moved", self._moved)
        if "spool" in self._failing:
            await self.spool.try_out()

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._wipe_timer is not None:
            self._wipe_timer.cancel()
        if self._saving is not None:
            await asyncio.wait([self._saving])
        await self._commits.close()
        await self._loop.run_in_executor(None, self._close_files)

    def _close_files(self) -> None:
        self.spool.close()
        self._disk.close()

    def _key(self) -> int:
        self._last_key += 1
        return self._last_key

    def _submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        if self._closing is not None:
            operation.undo(self._books)
            raise StoreUnavailable("other", "the queue is closed")
        return self._begin(operation)

    def _begin(self, operation: Operation[T]) -> asyncio.Future[T]:
        operation.future = self._loop.create_future()
        self._commits.submit(operation, patient=operation.patient)
        return operation.future

    def _give_back(self, leases: Sequence[Lease]) -> GiveBack:
        books = self._books
        counted: dict[int, Lease] = {}
        uncounted: dict[int, Lease] = {}
        for lease in leases:
            key = books.key(lease)
            (counted if books.counted(key) else uncounted)[key] = lease
        for key in (*counted, *uncounted):
            books.ending(key)
        return GiveBack(counted, uncounted, now=microseconds(self._now()), history=self._history)

    def _mend(self) -> Mend | None:
        if not self._unsure:
            return None
        books = self._books
        withheld = tuple(chain.from_iterable(books.withheld.values()))
        return Mend(dict(books.leases), dict(books.wishes), tuple(self._undone), tuple(self._uncounted), withheld)

    def _apply(self, report: Report) -> None:
        """The commit is over: on the event loop, keep the books and answer."""
        if report.trouble is not None:
            self._fail(report, *report.trouble)
            return
        if report.mended is not None:
            self._unsure, self._undone, self._uncounted = False, [], []
            self._books.count_anew(report.mended)
        for operation in report.operations:
            if operation.error is not None:
                self._refuse(operation, operation.error)
                continue
            result = operation.apply(self._books)
            if not operation.future.done():
                operation.future.set_result(result)
            else:
                self._abandoned += operation.orphaned(result)
            if operation.ended_files:
                self.spool.remove(operation.ended_files, at_once=operation.leaves_traces)
            if operation.leaves_traces:
                self._wipe_soon()
        self._observer.observe(BatchCommitted(len(report.operations), report.seconds))
        self._works("database")
        if self._abandoned:
            self._take_back()

    def _fail(self, report: Report, reason: str, text: str) -> None:
        if not report.sure:
            self._unsure = True
        for operation in report.operations:
            if not report.sure:
                self._undone += operation.born
                self._uncounted += operation.uncounted
                operation.doubt(self._books)
            self._refuse(operation, StoreUnavailable(reason, text))
        if reason != "moved":  # that is told when it is noticed
            self._failing.add("database")
            self._observer.observe(StoreFailed(reason, text))

    def _noticed(self, moved: str) -> None:
        self._moved = moved
        self._failing.discard("spool")  # the names say more
        if moved:
            self._failing.add("names")
            self._observer.observe(StoreFailed("moved", moved))
        else:
            self._works("names")

    def _works(self, part: str) -> None:
        if part in self._failing:
            self._failing.discard(part)
            if not self._failing:
                self._observer.observe(StoreRecovered())

    def _spool_told(self, trouble: StoreUnavailable | None) -> None:
        if trouble is None:
            self._works("spool")
        elif not self._moved:  # which says more
            self._failing.add("spool")
            self._observer.observe(StoreFailed(trouble.reason, str(trouble)))

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

        def look(future: asyncio.Future[Sequence[str]]) -> None:
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
