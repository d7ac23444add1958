"""The log: events as lines on stderr, off the hot path.

`observe` only notes the event and its time. At most every 50 ms the notes go to a thread of the
log's own, which formats and writes them in one piece: a stderr that blocks stops no mail. What waits
is bounded; events beyond that are dropped, and a line says how many. Order is kept.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Protocol

from relay.events import Event, ExceptionCaught, Warned
from relay.observe.log_lines import Lines
from relay.observe.table import ROWS, Level

MOST_WAITING = 100_000
FLUSH_EVERY = 0.05
"""Seconds."""

_AT_A_TIME = 64  # lines after which the writing thread lets others run


class Stream(Protocol):
    """What has a file descriptor, such as sys.stderr."""

    def fileno(self) -> int: ...


class LogWriter:
    """An observer that writes the log. Made and used on the event loop; `close` ends its thread.

    `level` and `format` are the configuration's: debug, info, warning or error; text or json.
    """

    def __init__(self, stream: Stream, *, level: str, format: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[int, Event]] = []
        self._silent: frozenset[type[Event]] = frozenset()
        self._timer: asyncio.TimerHandle | None = None
        self._dropped = 0
        self._closed = False
        self._writer = _Writer(stream.fileno())
        self.configure(level=level, format=format)

    def configure(self, *, level: str, format: str) -> None:
        """Change level and format for what is written from now on."""
        threshold = Level.of(level)
        self._silent = frozenset(kind for kind, row in ROWS.items() if row.loudest > threshold)
        self._writer.configure(threshold, format)

    def observe(self, event: Event) -> None:
        if type(event) in self._silent or self._closed:
            return
        waiting = self._waiting
        if len(waiting) >= MOST_WAITING:
            self._dropped += 1
            return
        waiting.append((time.time_ns(), event))
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_EVERY, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if self._writer.busy:
            # One batch at a time, or the bound on what waits would bound nothing.
            self._timer = self._loop.call_later(FLUSH_EVERY, self._flush)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._dropped:
            text = f"the log could not keep up; {self._dropped} events were not written"
            self._waiting.append((time.time_ns(), Warned(text)))
            self._dropped = 0
        if self._waiting:
            self._writer.write(self._waiting)
            self._waiting = []

    def close(self, patience: float = 5.0) -> None:
        """Write what waits and end the thread; what stderr has not taken after `patience` seconds is lost."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._hand_over()
        self._writer.close(patience)


class _Writer:
    """The thread that formats and writes, one batch after the other."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._journal = is_journal(descriptor)
        self._batches: SimpleQueue[list[tuple[int, Event]] | None] = SimpleQueue()
        self._settings = (Level.INFO, Lines("text", journal=self._journal))
        self.busy = False
        # A daemon, because a stderr that nobody reads must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def configure(self, threshold: Level, form: str) -> None:
        self._settings = (threshold, Lines(form, journal=self._journal))

    def write(self, batch: list[tuple[int, Event]]) -> None:
        self.busy = True
        self._batches.put(batch)

    def close(self, patience: float) -> None:
        self._batches.put(None)
        self._thread.join(patience)

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                self._put("".join(self._lines(batch)).encode())
            except OSError:
                pass  # a reader that went away, a full disk: there is nobody left to tell
            finally:
                self.busy = False

    def _lines(self, batch: list[tuple[int, Event]]) -> Iterator[str]:
        threshold, lines = self._settings
        for number, (at, event) in enumerate(batch, 1):
            try:
                yield lines.line(at, event, threshold)
            except (AttributeError, KeyError, TypeError, ValueError) as error:  # a bug; the log goes on
                text = f"no line for {type(event).__name__}: {type(error).__name__}"
                yield lines.line(at, ExceptionCaught("observer", text, ""), threshold)
            if number % _AT_A_TIME == 0:
                time.sleep(0)  # let the event loop have the interpreter

    def _put(self, octets: bytes) -> None:
        rest = memoryview(octets)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody made the shared terminal or pipe non-blocking
                writable = select.poll()
                writable.register(self._descriptor, select.POLLOUT)
                writable.poll()


def is_journal(descriptor: int) -> bool:
    """Whether `descriptor` leads to journald, as $JOURNAL_STREAM tells (systemd.exec(5))."""
    told = os.environ.get("JOURNAL_STREAM", "")
    file = os.fstat(descriptor)
    return told == f"{file.st_dev}:{file.st_ino}"
