"""Group commit: one writer thread.

What arrives while a commit runs is the next batch. What nobody waits for (`patient`) waits a moment for company,
as long as more is likely to come: a sync for it alone would be one that the next client has to wait for as well. A
batch goes to the thread in one hand-over and comes back in one `call_soon_threadsafe`. The next batch is handed over
only after the results of the last one were applied on the event loop: at each hand-over the loop knows what the disk
knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

COMPANY = 0.002  # seconds that a batch waits which nobody waits for
AT_LEAST_EVERY = 1.0  # seconds from one `afterwards` to the next
Item = TypeVar("Item")
Context = TypeVar("Context")
Report = TypeVar("Report")
Notice = TypeVar("Notice")


class GroupCommit(Generic[Item, Context, Report, Notice]):
    """Runs `commit(items)` on the thread, then `apply(report)` on the loop, then `afterwards()` on the thread.

    `afterwards` is called once a second at least; what it returns goes to `noticed`, on the loop, when it is another
    than before. What it raises goes to the loop's exception handler, once until all is well again: the thread goes on,
    since without it nobody would be answered any more. `prepare` is called on the loop at each hand-over; what it
    returns goes to `commit` as well. `more_to_come` says whether it is worth while to wait for company. `commit` must
    not raise.
    """

    def __init__(
        self,
        *,
        commit: Callable[[list[Item], Context], Report],
        prepare: Callable[[], Context],
        apply: Callable[[Report], None],
        afterwards: Callable[[], Notice],
        noticed: Callable[[Notice], None],
        more_to_come: Callable[[], bool],
    ) -> None:
        self._commit = commit
        self._prepare = prepare
        self._apply = apply
        self._afterwards = afterwards
        self._noticed = noticed
        self._more_to_come = more_to_come
        self._loop = asyncio.get_running_loop()
        self._next: list[Item] = []
        self._urgent = False  # somebody waits for the next batch
        self._waiting: asyncio.TimerHandle | None = None
        self._busy = False
        self._idle: asyncio.Future[None] | None = None
        self._work: SimpleQueue[tuple[list[Item], Context] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="queue-writer", daemon=True)
        self._thread.start()

    def submit(self, item: Item, *, patient: bool = False) -> None:
        """Take `item` into the next batch. On the event loop only."""
        self._next.append(item)
        self._urgent |= not patient
        if not self._busy:
            # Not at once: whatever else this turn of the loop submits goes along.
            self._busy = True
            self._loop.call_soon(self._begin)
        elif self._waiting is not None and not patient:
            self._waiting.cancel()
            self._waiting = None
            self._loop.call_soon(self._hand_over)

    async def close(self) -> None:
        """Finish all that was submitted, and end the thread."""
        while self._busy:
            if self._idle is None:
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)
        self._work.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _begin(self) -> None:
        if self._urgent or not self._more_to_come():
            self._hand_over()
        else:
            self._waiting = self._loop.call_later(COMPANY, self._hand_over)

    def _hand_over(self) -> None:
        self._waiting, self._urgent = None, False
        batch, self._next = self._next, []
        self._work.put((batch, self._prepare()))

    def _back(self, report: Report) -> None:
        try:
            self._apply(report)
        finally:
            if self._next:
                self._begin()
            else:
                self._busy = False
                if self._idle is not None:
                    self._idle.set_result(None)
                    self._idle = None

    def _report(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "queue: behind a commit", "exception": error})

    def _run(self) -> None:
        before: Notice | None = None
        failed = ""
        try:
            while True:
                try:
                    work = self._work.get(timeout=AT_LEAST_EVERY)
                    if work is None:
                        return
                    report = self._commit(*work)
                    self._loop.call_soon_threadsafe(self._back, report)
                    del work, report  # an idle thread must not keep the last batch's content in memory
                except Empty:
                    pass
                try:
                    notice = self._afterwards()
                except Exception as error:  # noqa: BLE001  # bulkhead
                    if repr(error) != failed:
                        failed = repr(error)
                        self._loop.call_soon_threadsafe(self._report, error)
                    continue
                failed = ""
                if notice != before:
                    self._loop.call_soon_threadsafe(self._noticed, notice)
                    before = notice
        except RuntimeError:  # the loop was closed over our head; nobody is left to be told
            return
