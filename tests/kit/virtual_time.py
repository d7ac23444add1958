"""Hours in seconds: an event loop whose clock jumps to the next timer as soon as nobody has anything to do.

    def test_a_quiet_hour() -> None:
        run(scenario(), start=NOON)

Within `run`, `loop.time()` and `now()` are virtual and go together; code with timers, timeouts and deadlines of the
loop lives through hours at the speed of its work. What is real stays real, and the clock stands still for it:

- threads that have work for the loop: `run_in_executor`, `asyncio.to_thread`, and the writer of a store;
- sockets of this machine: what has been written arrives before the clock jumps. A peer in another process is
  waited for only while one of our threads waits for it.

What nobody can wait for ends the test with `Stuck`, after `PATIENCE` real seconds. A thread that waits for something
that only virtual time can bring is such a case: talk to the loop from the loop. Clocks that are read past the loop
(`time.monotonic`, `datetime.now`) are real: hand `now` to whoever takes a clock.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from unittest import mock
from weakref import WeakSet

from relay.queue.writer import GroupCommit

T = TypeVar("T")

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PATIENCE = 60.0  # real seconds without any event until we say that there will be none
ARRIVAL = 0.001  # real seconds in which what was written to a socket of this machine can be read


class Stuck(RuntimeError):
    """Nothing will ever happen again."""


def run(main: Coroutine[Any, Any, T], *, start: datetime = NOON) -> T:
    """What `main` returns, in virtual time that begins at `start`."""
    with _stores_known(), asyncio.Runner(loop_factory=lambda: VirtualLoop(start)) as runner:
        return runner.run(main)


def now() -> datetime:
    """The virtual moment; on the loop. (`VirtualLoop.now` is the same for any thread.)"""
    return running_loop().now()


def running_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop), "to be called within virtual_time.run"
    return loop


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, start: datetime) -> None:
        self._start = start
        self._elapsed = 0.0
        self._threads = 0  # hand-overs to threads that have not come back
        self.writers: WeakSet[GroupCommit[Any, Any, Any]] = WeakSet()
        self.jumps = 0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._elapsed

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def jump(self, seconds: float) -> None:
        """The selector's side: nobody has anything to do for so long."""
        self._elapsed += seconds
        self.jumps += 1

    @property
    def threads_have_work(self) -> bool:
        """True while a thread will come back to the loop. Changes on the loop only, so it is exact there."""
        return self._threads > 0 or any(writer._busy and writer._waiting is None for writer in self.writers)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._back)
        return future

    async def shutdown_default_executor(self, *args: Any, **more: Any) -> None:
        self._threads += 1
        try:
            await super().shutdown_default_executor(*args, **more)
        finally:
            self._threads -= 1

    def _back(self, _: object) -> None:
        self._threads -= 1


class _Selector(selectors.DefaultSelector):
    """The real one, that lets the clock jump instead of sleeping."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._loop.threads_have_work or timeout is None:
            ready = super().select(PATIENCE)
            if not ready:
                raise Stuck("a thread does not come back" if self._loop.threads_have_work else "there is no timer")
            return ready
        if len(self.get_map()) > 1:  # more than the loop's own
            ready = super().select(ARRIVAL)
        if not ready:
            self._loop.jump(timeout)
        return ready


@contextmanager
def _stores_known() -> Iterator[None]:
    """A store's writer thread is no executor: each announces itself with its first operation."""
    submit = GroupCommit.submit

    def announced(self: GroupCommit[Any, Any, Any], item: Any, *, patient: bool = False) -> None:
        submit(self, item, patient=patient)
        if isinstance(self._loop, VirtualLoop):
            self._loop.writers.add(self)

    with mock.patch.object(GroupCommit, "submit", announced):
        yield
