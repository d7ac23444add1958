"""What a batch of operations is made of: the operation, the transaction it runs in, what all do together.

`gather` adds to what the whole batch does in a few statements, `run` does the rest; both run on the
writer thread, inside the transaction, and may run twice. After the commit `apply` runs on the event
loop. `run_all` is how a batch, or one operation alone, is carried out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from relay.queue.ledger import Books
from relay.queue.model import Lease
from relay.queue.rows import Row

T = TypeVar("T")

AT_ONCE = 512 * 1024  # octets of content, and one message more, in one statement


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
    for n, row in enumerate(contents):
        octets += len(row[-1])
        if octets > AT_ONCE:
            yield contents[first : n + 1]
            first, octets = n + 1, 0
    if first < len(contents):
        yield contents[first:]


class Operation(Generic[T]):
    """Awaited through `future`, which whoever submits it makes.

    `born` has the keys of the entries that must not be there when it failed, `uncounted` of those it leases
    without counting an attempt; `refused_file` and `ended_files` name the spool
    files that are of no use when it failed, or succeeded. `leaves_traces`: a session code's content is
    left in the write-ahead log, whether it succeeded or failed. `patient`: nobody waits for it who could do
    anything meanwhile but wait for its next message.
    """

    patient = False

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
