"""The wire of a session: aiosmtpd's SMTP protocol, with our own reading, writing and deadline.

From aiosmtpd come the protocol, with asyncio's flow control under it, the names of things (`smtp_VERB`, `push`), and
its `Session`: what the client said of itself. All that runs for a command or for content is replaced, each part for a
defect: `docs/decisions/6-what-runs-of-aiosmtpd.md` has the table, and a test holds it.
"""

from __future__ import annotations

import asyncio
from asyncio.streams import FlowControlMixin
from contextlib import suppress
from typing import Any

from aiosmtpd import smtp

LONGEST_LINE = 4096
THROWN_AWAY_AT_MOST = 1024 * 1024  # of one line; who sends more speaks something else
PIPELINED_AT_MOST = 32 * 1024  # commands that wait; beyond it the socket is not read
UNREAD_AT_MOST = 8 * 1024  # replies that wait for a client that reads none; beyond it nothing more is answered

# Commands here take octets and answer with them, most without waiting; the types of aiosmtpd's are others.
_Protocol: Any = smtp.SMTP


class Wire(_Protocol):  # type: ignore[misc]
    """One connection of a client, below the conversation. One task at a time may `_wait`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        FlowControlMixin.__init__(self, loop)  # SMTP.__init__ scans 100 names and may ask the DNS
        self.loop = loop
        self.session: smtp.Session = self._create_session()
        self.transport: Any = None
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._at_ease = False  # the task waits for commands, which `data_received` then answers by itself
        self._reading = True
        self._over = ""  # why nothing more comes: "eof" or "reset"
        self._ended = ""  # why the session ends, once it does
        self._thrown_away = 0  # octets of a line that is too long
        self._tick = 60.0  # no look at the clock is further away
        self._deadline = 0.0
        self._since = 0.0  # when the content that is being read began
        self._paused_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_lost(self, error: Exception | None) -> None:
        FlowControlMixin.connection_lost(self, error)
        self._over = self._over or ("eof" if error is None else "reset")
        self.transport = None
        self._wake()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _wake(self) -> None:
        self._at_ease = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _pause(self) -> None:
        if self._reading and self.transport is not None:
            self._reading = False
            self._paused_at = self.loop.time()
            self.transport.pause_reading()

    def _resume(self) -> None:
        if not self._reading and self.transport is not None:
            self._reading = True
            elapsed = self.loop.time() - self._paused_at
            self._deadline += elapsed
            self._since += elapsed
            self.transport.resume_reading()

    def _write(self, data: bytes) -> None:
        if data and self.transport is not None:
            self.transport.write(data)

    async def push(self, status: bytes) -> None:
        """Send a reply; wait only when the client does not read."""
        self._write(status)
        if self._paused:
            with suppress(ConnectionError):
                await self._drain_helper()

    def _look_at_the_clock(self) -> None:
        left = self._time_left(self.loop.time())
        if left > 0:
            self._timer = self.loop.call_later(min(left, self._tick), self._look_at_the_clock)
        else:
            self._ended = self._ended or "timeout"
            if self._paused:  # the client does not read: nothing can be told to it
                self.abort()
            self._wake()

    def _time_left(self, now: float) -> float:
        """Seconds until the client is given up."""
        return self._deadline - now

    def _expect(self, seconds: float) -> None:
        self._deadline = self.loop.time() + seconds

    def _next_line(self) -> bytes | None:
        """A command line without its end, or None when none is complete."""
        buffer = self._buffer
        end = buffer.find(b"\n")
        if end < 0:
            if len(buffer) > LONGEST_LINE:
                self._thrown_away += len(buffer) - LONGEST_LINE - 1
                del buffer[LONGEST_LINE + 1 :]  # bounded: the rest of the line is thrown away
            self._resume()
            return None
        if end > LONGEST_LINE:
            self._thrown_away = 0
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        return line
