"""The seam between the event loop's side of a store and its database, and what a database promises there.

On the event loop `store_loop.GroupedStore` makes operations, keeps the books and answers callers; it knows no
database. A database is a `Disk`: it carries operations out in batches, and answers questions. `queue/sqlite` is one.
`tests/queue/conformance.py` and `operators.py` define what a store does, crashes included; a database that passes them
is one. A second needs

- a package beside `sqlite`, and where it has a library, an extra for it and a contract in `pyproject.toml`;
- its URL: a type in `config/values.py`, which `_store` and `Store` in `config/fields.py` read;
- its line in `wiring.open_store`;
- a house in `tests/queue`, for which those tests run.

**What is the database's own**: tables, SQL, connections, locks and retries; how it finds the leases of a dead process,
whose session codes are in doubt by their way (`QueueStore.change_way`), and what lies there at the start
(`ledger.Found`); how it copies itself, takes what is due (`Work.due`), removes what has ended (`Work.end`) and inserts
many rows; that after a commit with a `Wipe` it empties its log, and says so there (`done`); whether it looks for rows
that keep others from being taken (`Take.damaged`).

**What is not**: operations and questions name their statements, which each database has under these names
(`sqlite/statements.sql` is the list), with values and answers in the same order. Values are rows of `rows`: moments are
microseconds, flags are bools or 0 and 1, texts compare by code point. Keys are ours: they grow with acceptance, and a
batch that runs again has the same ones.

**Threads.** `Disk.commit` and `afterwards` run on the writer's thread, one at a time; `read` looks on a thread of the
database's choice, in a transaction of its own that sees what was committed before it was called; `save` runs on the
thread of its caller, beside all others. `Operation.gather` and `run`, and whatever looks, see nothing but their `Work`
and touch nothing of the loop's.

**What may run twice.** `gather` and `run`: in a batch that is tried again, or one operation at a time after the batch
failed. So each begins anew what it gathers in itself. `apply`, `undo` and `doubt` run once, on the event loop, by the
order of the batches, before the next one is handed over.

**Fate.** `commit` returns when the batch would survive a power cut, or says in its `Report` that it failed. An
operation that fails by itself fails alone (`Operation.error`), with nothing of it kept. Where the machine fails the
whole batch does, and `sure` says that nothing of it is there; a database that can find out (by a mark that the batch
commits with itself) tries until it knows. One that cannot reports `sure=False`: its callers are told that it failed,
and the next batch comes with a `Mend`, by which the database first makes itself say what the callers were told.

**Names.** A commit into what the next start would not find keeps nothing. Where a database is taken away while it is
open it refuses whatever somebody would be told is kept (`Operation.promises`), does all else with what it still has,
`save` as well, and says so in `afterwards`; and a batch behind which it finds out has failed, not for `sure`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from relay.queue.ledger import Books, Count
from relay.queue.listing import Saved
from relay.queue.model import Lease
from relay.queue.rows import EntryRow, Row
from relay.queue.spool import Spool
from relay.values import frozen

P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE = 512 * 1024  # octets of content, and one message more, in one statement


class Work(Protocol):
    """A transaction under way. Statements go by name."""

    def execute(self, name: str, bindings: Sequence[object] = ()) -> Iterator[Row]: ...

    def changed(self, name: str, bindings: Sequence[object] = ()) -> int:
        """Execute; how many rows it changed."""
        ...

    def insert(self, name: str, rows: Sequence[Row]) -> None: ...

    def keys(self, keys: Iterable[int]) -> object:
        """A binding for the keys of a whole batch."""
        ...

    def due(self, route: str, now: int, limit: int) -> Sequence[EntryRow]:
        """At most `limit` entries of `route` that are due, which nobody else takes before this transaction ends: by
        priority, and of one priority the oldest of each client in turn."""
        ...

    def end(self, keys: Sequence[int], *, overwrite: bool) -> None:
        """Delete entries with content and recipients; `overwrite` what they leave in the database's files."""
        ...


class Bulk:
    """What the operations of a batch do together. `unrecorded`: ended, and no history is kept of it.

    `withheld`: what goes before anything comes, as it comes anew under the same names.
    """

    def __init__(self) -> None:
        self.withheld: list[int] = []
        self.entries: list[Row] = []
        self.contents: list[Row] = []
        self.recipients: list[Row] = []
        self.history: list[Row] = []
        self.ended: list[int] = []
        self.unrecorded: list[int] = []
        self.overwrite = False

    def run(self, work: Work) -> None:
        if self.withheld:
            work.end(self.withheld, overwrite=True)
        if self.entries:
            work.insert("insert_entry", self.entries)
            for rows in _portions(self.contents):
                work.insert("insert_content", rows)
            work.insert("insert_recipient", self.recipients)
        if self.history:
            work.insert("insert_history", self.history)
        if self.ended:
            work.end(self.ended, overwrite=self.overwrite)
        if self.unrecorded:
            work.execute("delete_attempts", (work.keys(self.unrecorded),))


def _portions(contents: list[Row]) -> Iterator[list[Row]]:
    """What a database copies at once is bounded; most often it is one portion."""
    first = octets = 0
    for n, (*_, body) in enumerate(contents):
        octets += len(body)
        if octets > AT_ONCE:
            yield contents[first : n + 1]
            first, octets = n + 1, 0
    if first < len(contents):
        yield contents[first:]


class Operation(Generic[T]):
    """One thing that the store wants done, as part of a batch; a caller awaits `future`, which whoever submits makes.

    `gather` adds to what the whole batch does in a few statements, `run` does the rest; `run_all` is how a batch, or
    one operation alone, is carried out. After the commit `apply` changes the books and makes the result.

    `born` has the keys of the entries that must not be there when it failed, `uncounted` of those it leases
    without counting an attempt; `refused_file` and `ended_files` name the spool
    files that are of no use when it failed, or succeeded. `leaves_traces`: a session code's content is
    left in the files of the database, whether it succeeded or failed. `patient`: nobody waits for it who could do
    anything meanwhile but wait for its next message. `promises`: somebody is told that mail is kept now.
    """

    patient = False
    promises = False

    __slots__ = ("born", "ended_files", "error", "future", "leaves_traces", "refused_file", "uncounted")

    future: asyncio.Future[T]

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.born: Sequence[int] = ()
        self.uncounted: Sequence[int] = ()
        self.refused_file: str | None = None
        self.ended_files: Sequence[str] = ()
        self.leaves_traces = False

    def gather(self, bulk: Bulk) -> None: ...

    def run(self, work: Work) -> None: ...

    def apply(self, books: Books) -> T:
        raise NotImplementedError

    def undo(self, books: Books) -> None:
        """It failed, nothing of it is kept."""

    def doubt(self, books: Books) -> None:
        """It failed, and may be on the disk all the same. `undo` follows."""

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


@frozen
class Mend:
    """After a commit of unknown fate: what is leased, by its key, and what operators want of it; and the keys of what
    must not be there, and of what is to be there for nobody, if it is (`Books.withheld`).

    Whatever else the disk says is leased was leased by that commit: an attempt was counted, but for `uncounted`.
    """

    leased: Mapping[int, Lease]
    wishes: Mapping[int, str]
    undone: tuple[int, ...]
    uncounted: tuple[int, ...]
    withheld: tuple[int, ...]


@frozen
class Report:
    """What became of a batch. `trouble` is (reason, text) when the machine failed; `sure`: nothing of it is kept.

    `mended`: what the disk says after mending.
    """

    operations: Sequence[Operation[Any]]
    seconds: float
    mended: Count | None = None
    trouble: tuple[str, str] | None = None
    sure: bool = True


class Disk(Protocol):
    def commit(self, operations: list[Operation[Any]], mend: Mend | None) -> Report:
        """Carry out a batch as one transaction. Never raises: a dead thread would leave every caller waiting."""
        ...

    def afterwards(self) -> str:
        """Housekeeping for which no caller waits, after each commit and once a second; what is wrong with the names of
        its files ("moved"), in a sentence, or ""."""
        ...

    async def read(self, look: Callable[Concatenate[Work, P], T], *args: P.args, **named: P.kwargs) -> T:
        """What `look` finds, which is given these. Raises StoreUnavailable."""
        ...

    def save(self, path: Path, spool: Spool, stop: Callable[[], bool]) -> Saved:
        """A copy at `path`; after `stop` it is given up. Raises RelayError."""
        ...

    def close(self) -> None:
        """Let go of everything, after the last commit, on any thread."""
        ...
