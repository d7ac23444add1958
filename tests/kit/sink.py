"""An upstream for much mail: it keeps of each message a digest of its body, and may stop reading.

    async with Sink() as sink:
        ...deliver to 127.0.0.1:sink.port...
        await sink.until(lambda: len(sink.bodies) == 200)

`bodies`: by digest, how often a body came. While `hold` is set it reads no content beyond the first octets of each
message, until `read_on`; `holding` says how many connections wait so (`small_buffers`: the kernel is to take little
for them). `ScriptedUpstream` can do more, and keeps everything.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections import Counter
from collections.abc import Callable
from typing import cast

KEYWORDS = ("PIPELINING", "8BITMIME", "SIZE 104857600", "ENHANCEDSTATUSCODES")
_END = b"\r\n.\r\n"
RECEIVE_BUFFER = 4096  # octets that the kernel takes for a connection that is not read


def digest(body: bytes) -> str:
    """Of a body as it stands in `bodies`, with the line end of its last line."""
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()


class Sink:
    """See the top of the module."""

    def __init__(self, *, keywords: tuple[str, ...] = KEYWORDS, small_buffers: bool = False) -> None:
        self.keywords = keywords
        self.hold = False
        self.bodies: Counter[str] = Counter()
        self.connections = 0
        self.broken_off = 0  # connections that ended within content
        self.port = 0
        self._small_buffers = small_buffers
        self.open: set[Connection] = set()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Sink:
        # asyncio sets TCP_NODELAY only on sockets that say they are TCP.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if self._small_buffers:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        listening.bind(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), sock=listening)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in tuple(self.open):
            connection.transport.abort()
        await asyncio.sleep(0)  # what was aborted is closed in the next turn of the loop

    @property
    def holding(self) -> int:
        return sum(connection.held for connection in self.open)

    def read_on(self) -> None:
        """Everything is read again, now and from here on."""
        self.hold = False
        for connection in self.open:
            connection.held = False
            connection.transport.resume_reading()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it is looked at whenever something happens here."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def note(self) -> None:
        self._changed.set()


class Connection(asyncio.Protocol):
    """One of them."""

    transport: asyncio.Transport

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._rest = b""
        self._content: _Content | None = None
        self.held = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._sink.open.add(self)
        self._sink.connections += 1
        self.transport.write(b"220 sink.example ESMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._sink.open.discard(self)
        self._sink.broken_off += self._content is not None
        self._sink.note()

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while self._read_content() if self._content is not None else self._read_command():
            pass

    def _read_command(self) -> bool:
        """Answer the next command; False when none is complete."""
        line, found, rest = self._rest.partition(b"\r\n")
        if not found:
            return False
        self._rest = rest
        match line[:4].upper():
            case b"EHLO":
                *first, last = ("sink.example", *self._sink.keywords)
                self._say("".join([*(f"250-{text}\r\n" for text in first), f"250 {last}\r\n"]).encode())
            case b"DATA":
                self._content = _Content()
                self._say(b"354 go ahead\r\n")
            case b"QUIT":
                self._say(b"221 2.0.0 bye\r\n")
            case _:
                self._say(b"250 2.0.0 ok\r\n")
        return True

    def _read_content(self) -> bool:
        """Take content; False when its end has not come."""
        assert self._content is not None
        if self._sink.hold and self._rest:
            self.held = True
            self.transport.pause_reading()
            self._sink.note()
            return False
        end = self._rest.find(_END)
        if end < 0:
            taken = max(0, len(self._rest) - 4)
            self._content.take(self._rest[:taken])
            self._rest = self._rest[taken:]
            return False
        self._content.take(self._rest[: end + 2])
        self._rest = self._rest[end + len(_END) :]
        self._sink.bodies[self._content.digest()] += 1
        self._content = None
        self._say(b"250 2.0.0 taken\r\n")
        self._sink.note()
        return True

    def _say(self, reply: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(reply)


class _Content:
    """The digest of the body of one message; its lines do not begin with a dot."""

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self._digest = hashlib.sha1(usedforsecurity=False)

    def take(self, octets: bytes) -> None:
        if self._head is None:
            self._digest.update(octets)
            return
        self._head += octets
        _, found, body = self._head.partition(b"\r\n\r\n")
        if found:
            self._head = None
            self._digest.update(body)

    def digest(self) -> str:
        return self._digest.hexdigest()
