"""Group commit: one writer thread, and no timer.

What arrives while a commit runs is the next batch. A batch goes to the thread in one hand-over
and comes back in one `call_soon_threadsafe`. The next batch is handed over only after the results
of the last one were applied on the event loop: at each hand-over the loop knows what the disk knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
Context = TypeVar("Context")
Report = TypeVar("Report")


class GroupCommit(Generic[Item, Context, Report]):
    """Runs `commit(items)` on the thread, then `apply(report)` on the loop, then `afterwards()` on the thread.

    `prepare` is called on the loop at each hand-over; what it returns goes to `commit` as well.
    `commit` must not raise.
    """

    def __init__(
        self,
        *,
        commit: Callable[[list[Item], Context], Report],
        prepare: Callable[[], Context],
        apply: Callable[[Report], None],
        afterwards: Callable[[], None],
    ) -> None:
        self._commit = commit
        self._prepare = prepare
        self._apply = apply
        self._afterwards = afterwards
        self._loop = asyncio.get_running_loop()
        self._next: list[Item] = []
        self._busy = False
        self._idle: asyncio.Future[None] | None = None
        self._work: SimpleQueue[tuple[list[Item], Context] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="queue-writer", daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> None:
        """Take `item` into the next batch. On the event loop only."""
        self._next.append(item)
        if not self._busy:
            # Not at once: whatever else this turn of the loop submits goes along.
            self._busy = True
            self._loop.call_soon(self._hand_over)

    async def close(self) -> None:
        """Finish all that was submitted, and end the thread."""
        while self._busy:
            if self._idle is None:
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)
        self._work.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _hand_over(self) -> None:
        batch, self._next = self._next, []
        self._work.put((batch, self._prepare()))

    def _back(self, report: Report) -> None:
        try:
            self._apply(report)
        finally:
            if self._next:
                self._hand_over()
            else:
                self._busy = False
                if self._idle is not None:
                    self._idle.set_result(None)
                    self._idle = None

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            report = self._commit(*work)
            try:
                self._loop.call_soon_threadsafe(self._back, report)
            except RuntimeError:  # the loop was closed over our head; nobody is left to be told
                return
            del work, report  # an idle thread must not keep the last batch's content in memory
            self._afterwards()
