"""The seam between the event loop's side of a store and its disk.

A `Disk` carries out batches of operations, each as one transaction, on the writer thread, and reads and copies
on other threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from relay.queue.ledger import Count
from relay.queue.listing import Saved
from relay.queue.spool import Spool
from relay.queue.work import Operation, Work
from relay.values import frozen

T = TypeVar("T")


@frozen
class Kept:
    """A lease as the books have it: what its row has to say."""

    key: int
    attempts: int
    route: str
    wish: str
    pending: tuple[int, ...]


@frozen
class Mend:
    """After a commit of unknown fate: what is leased, and the keys of what must not be there, and of what is to be
    there for nobody, if it is (`Books.withheld`).

    Whatever else the disk says is leased was leased by that commit: an attempt was counted, but for `uncounted`.
    """

    leased: tuple[Kept, ...]
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
    """The thread's side. `commit` and `afterwards` run on the writer thread, `close` after its end."""

    def commit(self, operations: list[Operation[Any]], mend: Mend | None) -> Report: ...

    def afterwards(self) -> None:
        """Housekeeping for which no caller waits."""
        ...

    async def read(self, look: Callable[[Work], T]) -> T:
        """`look` in a short read transaction, on the reading thread."""
        ...

    def save(self, path: Path, spool: Spool, stop: Callable[[], bool]) -> Saved:
        """A copy at `path`, on the thread that calls it; after `stop` it is given up."""
        ...

    def close(self) -> None: ...
