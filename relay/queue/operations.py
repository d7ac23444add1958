"""What a store is asked to do: each operation knows its rows, and what it changes in the books.

`gather` adds to what the whole batch does in a few statements, `run` does the rest; both run on the
writer thread, inside the transaction, and may run twice. After the commit `apply` runs on the event
loop. `run_all` is how a batch, or one operation alone, is carried out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar, cast

from relay.mail.content import FileContent
from relay.queue.books import Books, SetAside
from relay.queue.model import Entry, Lease, Pending, Settlement, State
from relay.queue.rows import (
    DUE,
    HELD,
    LEASED,
    SLEEPING,
    Row,
    Unreadable,
    content_row,
    entry_of,
    entry_row,
    pending_of,
    recipient_rows,
)
from relay.queue.spool import Spool

T = TypeVar("T")

_WAITS = (State.PENDING, State.HELD)


class Work(Protocol):
    """A transaction under way. Statements go by the names of `statements.sql`."""

    def execute(self, name: str, bindings: Sequence[object] = ()) -> Iterator[Row]: ...

    def changed(self, name: str, bindings: Sequence[object] = ()) -> int:
        """Execute; how many rows it changed."""
        ...

    def insert(self, name: str, rows: Sequence[Row]) -> None: ...

    def keys(self, keys: Iterable[int]) -> object:
        """A binding for `IN carray(?)`."""
        ...

    def end(self, keys: Sequence[int], *, overwrite: bool) -> None:
        """Delete entries with content and recipients; `overwrite` what they leave on the pages."""
        ...


class Bulk:
    """What the operations of a batch do together."""

    def __init__(self) -> None:
        self.entries: list[Row] = []
        self.contents: list[Row] = []
        self.recipients: list[Row] = []
        self.ended: list[int] = []
        self.overwrite = False

    def run(self, work: Work) -> None:
        if self.entries:
            work.insert("insert_entry", self.entries)
            work.insert("insert_content", self.contents)
            work.insert("insert_recipient", self.recipients)
        if self.ended:
            work.end(self.ended, overwrite=self.overwrite)


class Operation(Generic[T]):
    """Awaited through `future`, which whoever submits it makes.

    `born` has the keys of the entries that it makes; `refused_file` and `ended_file` name the spool
    file that is of no use when it failed, or succeeded. `leaves_traces`: a session code's content is
    left in the write-ahead log, whether it succeeded or failed.
    """

    __slots__ = ("born", "ended_file", "error", "future", "leaves_traces", "refused_file")

    future: asyncio.Future[T]

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.born: Sequence[int] = ()
        self.refused_file: str | None = None
        self.ended_file: str | None = None
        self.leaves_traces = False

    def gather(self, bulk: Bulk) -> None: ...

    def run(self, work: Work) -> None: ...

    def apply(self, books: Books) -> T:
        raise NotImplementedError

    def undo(self, books: Books) -> None:
        """It failed, nothing of it is kept."""

    def orphaned(self, result: T) -> Sequence[Lease]:  # noqa: ARG002
        """The caller was cancelled and the commit was not: leases that nobody has now."""
        return ()


def run_all(operations: Iterable[Operation[object]], work: Work) -> None:
    bulk = Bulk()
    for operation in operations:
        operation.gather(bulk)
    bulk.run(work)
    for operation in operations:
        operation.run(work)


class _New:
    """An entry to be put, as rows."""

    __slots__ = ("attempts", "content", "entry", "key", "recipients", "row")

    def __init__(self, key: int, entry: Entry, place: int, attempts: int, spool: Spool) -> None:
        self.key = key
        self.entry = entry
        self.attempts = attempts
        self.row = entry_row(key, entry, place, attempts, spool)
        self.content = content_row(key, entry)
        self.recipients = recipient_rows(key, entry.submission.envelope.recipients)

    def gather(self, bulk: Bulk) -> None:
        bulk.entries.append(self.row)
        bulk.contents.append(self.content)
        bulk.recipients += self.recipients


class Put(Operation[Lease]):
    __slots__ = ("_leased", "_new")

    def __init__(self, key: int, entry: Entry, spool: Spool, *, leased: bool) -> None:
        super().__init__()
        self._leased = leased
        self._new = _New(key, entry, LEASED if leased else DUE, entry.attempts + leased, spool)
        self.born = (key,)
        if isinstance(entry.content, FileContent):
            self.refused_file = self._new.row[12]

    def gather(self, bulk: Bulk) -> None:
        self._new.gather(bulk)

    def undo(self, books: Books) -> None:  # noqa: ARG002
        self.leaves_traces = self._new.entry.session_code

    def apply(self, books: Books) -> Lease:
        new = self._new
        entry = new.entry
        kept = Entry(
            entry.submission,
            entry.content,
            entry.route,
            entry.priority,
            entry.session_code,
            entry.because,
            entry.expires_at,
            entry.kind,
            new.attempts,
        )
        pending = tuple([Pending(n, recipient) for n, recipient in enumerate(entry.submission.envelope.recipients)])
        lease = Lease(kept, pending, new.key)
        books.put(kept, lease if self._leased else None, new.attempts)
        return lease

    def orphaned(self, result: Lease) -> Sequence[Lease]:
        return (result,) if self._leased else ()


class Settle(Operation[None]):
    __slots__ = ("_key", "_new", "_next_attempt_at", "_remaining", "_results", "gone", "settlement")

    def __init__(
        self, key: int, settlement: Settlement, next_attempt_at: int, born: Sequence[int], spool: Spool
    ) -> None:
        super().__init__()
        entry = settlement.lease.entry
        self._key = key
        self.settlement = settlement
        self._next_attempt_at = next_attempt_at
        self._new = [
            _New(key, notification, DUE, notification.attempts, spool)
            for key, notification in zip(born, settlement.notifications, strict=True)
        ]
        self.born = born
        self._remaining = [result.state for result in settlement.results if result.state in _WAITS]
        # Recipients beyond the lease are final or held: only the database knows.
        everybody = len(settlement.results) == len(entry.submission.envelope.recipients)
        self.gone = everybody and not self._remaining
        self._results = () if self.gone else settlement.results
        if isinstance(entry.content, FileContent):
            self.ended_file = spool.name(entry.content)

    def gather(self, bulk: Bulk) -> None:
        for new in self._new:
            new.gather(bulk)
        if not self._results:
            bulk.ended.append(self._key)
            bulk.overwrite |= self.settlement.lease.entry.session_code

    def run(self, work: Work) -> None:
        if not self._results:
            return
        for result in self._results:
            said = (result.state, result.reply, result.in_doubt, result.in_doubt_at)
            work.execute("settle_recipient", (*said, self._key, result.index))
        entry = self.settlement.lease.entry
        if State.PENDING in self._remaining:
            place = SLEEPING
        elif next(work.execute("count_held", (self._key,)))[0]:
            place = HELD
        else:
            self.gone = True
            work.end([self._key], overwrite=entry.session_code)
            return
        self.gone = False
        work.execute("move_entry", (place, self._next_attempt_at, self.settlement.route or entry.route, self._key))

    def apply(self, books: Books) -> None:
        for new in self._new:
            books.put(new.entry, None, new.attempts)
        books.settled(self._key, self.settlement, gone=self.gone)
        if not self.gone:
            self.ended_file = None
        self.leaves_traces = self.gone and self.settlement.lease.entry.session_code

    def undo(self, books: Books) -> None:
        books.still_leased(self._key)


class Take(Operation[list[Lease]]):
    """Lease due entries of a route."""

    __slots__ = ("_aside", "_leases", "_limit", "_now", "_route", "_spool")

    counted = 1  # attempts

    def __init__(self, route: str, limit: int, now: int, spool: Spool) -> None:
        super().__init__()
        self._route = route
        self._limit = limit
        self._now = now
        self._spool = spool
        self._leases: list[Lease] = []
        self._aside: list[SetAside] = []

    def run(self, work: Work) -> None:
        self._leases, self._aside = [], []
        while (missing := self._limit - len(self._leases)) > 0:
            rows = list(self._select(work, missing))
            read = self._read(work, rows) if rows else []
            if read:
                work.execute("lease", (self.counted, work.keys([cast("int", lease.key) for lease in read])))
                self._leases += read
            if len(rows) < missing:
                break

    def _select(self, work: Work, limit: int) -> Iterator[Row]:
        work.execute("wake", (self._route, self._now))
        return work.execute("select_due", (self._route, limit))

    def _read(self, work: Work, rows: Sequence[Row]) -> list[Lease]:
        """The leases for `rows`, in their order, without those that must be set aside."""
        keys = [row[0] for row in rows]
        recipients: dict[int, list[Row]] = {key: [] for key in keys}
        for recipient in work.execute("select_recipients", (work.keys(keys),)):
            recipients[recipient[-1]].append(recipient)
        contents = {content[-1]: content[:2] for content in work.execute("select_contents", (work.keys(keys),))}
        leases: list[Lease] = []
        for row in rows:
            key, attempts = row[0], row[7]
            try:
                entry = entry_of(row, recipients[key], contents.get(key), attempts + self.counted, self._spool)
                leases.append(Lease(entry, pending_of(entry, recipients[key]), key))
            except Unreadable as error:
                self._aside.append(set_aside(work, row[:8], str(error)))
        return leases

    def apply(self, books: Books) -> list[Lease]:
        books.set_aside(self._aside)
        books.leased(self._leases, counted=bool(self.counted))
        return self._leases

    def orphaned(self, result: list[Lease]) -> Sequence[Lease]:
        return result


class TakeExpired(Take):
    """Lease entries of a route past their lifetime; no attempt is counted."""

    __slots__ = ("_session_codes_only",)

    counted = 0

    def __init__(self, route: str, limit: int, now: int, spool: Spool, *, session_codes_only: bool) -> None:
        super().__init__(route, limit, now, spool)
        self._session_codes_only = session_codes_only

    def _select(self, work: Work, limit: int) -> Iterator[Row]:
        return work.execute("select_expired", (self._route, self._now, self._session_codes_only, limit))


def set_aside(work: Work, row: Row, text: str) -> SetAside:
    """Take an entry that cannot be read out of the way; `row` are its first columns, up to the attempts."""
    key, queue_id, attempts = row[0], row[1], row[7]
    waiting = next(work.execute("count_waiting", (key,)))[0]
    work.execute("set_aside", (text, key))
    return SetAside(queue_id, text, attempts > 0, waiting)


class GiveBack(Operation[None]):
    __slots__ = ("_counted", "_uncounted")

    def __init__(self, counted: list[int], uncounted: list[int]) -> None:
        super().__init__()
        self._counted = counted
        self._uncounted = uncounted

    def run(self, work: Work) -> None:
        for attempts, keys in ((1, self._counted), (0, self._uncounted)):
            if keys:
                work.execute("give_back", (attempts, work.keys(keys)))

    def apply(self, books: Books) -> None:
        for key in (*self._counted, *self._uncounted):
            books.given_back(key)

    def undo(self, books: Books) -> None:
        for key in (*self._counted, *self._uncounted):
            books.still_leased(key)


class MakeDue(Operation[int]):
    """One slice: at most `limit` entries that sleep until `until` or less. The result says how many woke."""

    __slots__ = ("_limit", "_now", "_route", "_until", "_woken")

    def __init__(self, route: str | None, now: int, until: int, limit: int) -> None:
        super().__init__()
        self._route = route
        self._now = now
        self._until = until
        self._limit = limit
        self._woken = 0

    def run(self, work: Work) -> None:
        rest = (self._until, self._limit)
        if self._route is None:
            self._woken = work.changed("make_due", (self._now, *rest))
        else:
            self._woken = work.changed("make_route_due", (self._now, self._route, *rest))

    def apply(self, books: Books) -> int:  # noqa: ARG002
        return self._woken


class Check(Operation[None]):
    """Write something, so that the commit has something to prove."""

    __slots__ = ()

    def run(self, work: Work) -> None:
        work.execute("beat")

    def apply(self, books: Books) -> None: ...


class Wipe(Operation[bool]):
    """Ask for a checkpoint that empties the write-ahead log; the result says whether it did."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        super().__init__()
        self.done = False

    def apply(self, books: Books) -> bool:  # noqa: ARG002
        return self.done
