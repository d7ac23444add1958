"""Clients that mean harm, or might as well: each kind is a function that goes on until it is cancelled.

    async with besieged(port, each=20) as siege:     # 20 of each kind, all connected once it begins
        ...
        siege.open()                                 # how many connections each kind has right now

They come from addresses of 127.0.0.0/8 of their own, one for each kind, so that ordinary clients at 127.0.0.1 do not
share the limits of any. Each does something about ten times a second, and comes back when it is thrown out.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

PAUSE = 0.1  # seconds between two deeds of one client
_HANDSHAKE = bytes.fromhex("16030100f8010000f40303")  # a ClientHello that never goes on

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says nothing."""
    await reader.read()


async def slow_command(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A command of one octet at a time."""
    writer.write(b"EHLO ")
    await _for_ever(writer, b"a")


async def slow_data(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Content of one octet at a time."""
    await _until_data(reader, writer)
    await _for_ever(writer, b"a")


async def endless_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A body without a line end."""
    await _until_data(reader, writer)
    writer.write(b"Subject: x\r\n\r\n")
    await _for_ever(writer, b"a" * 2**14)


async def endless_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Field after field."""
    await _until_data(reader, writer)
    await _for_ever(writer, b"X-Field: value\r\n" * 50)


async def endless_recipients(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Recipient after recipient, each reply read."""
    writer.write(b"EHLO hostile\r\nMAIL FROM:<x@example.net>\r\n")
    reading = asyncio.create_task(_read_on(reader))
    try:
        await _for_ever(writer, b"".join(b"RCPT TO:<r%d@example.org>\r\n" % number for number in range(20)))
    finally:
        reading.cancel()


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Octets of chance."""
    while True:
        await _for_once(writer, os.urandom(512) + b"\r\n")


async def stalled_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """TLS begun, and left there (where STARTTLS is not offered: garbage)."""
    writer.write(b"EHLO hostile\r\nSTARTTLS\r\n")
    await reader.readuntil(b"220 2.0.0")
    writer.write(_HANDSHAKE)
    await reader.read()


async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Commands without end, and no reply is ever read."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await _for_ever(writer, b"NOOP\r\n" * 100)


async def storm(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Connected, and reset at once."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


KINDS: tuple[Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], ...] = (
    idle,
    slow_command,
    slow_data,
    endless_line,
    endless_header,
    endless_recipients,
    garbage,
    stalled_handshake,
    never_reads,
    storm,
)


class Siege:
    """What the hostile clients came to: connections made, and those that are open."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.now: Counter[str] = Counter()
        self._changed = asyncio.Event()

    async def until_all(self, each: int) -> None:
        while any(self.made[kind.__name__] < each for kind in KINDS):
            self._changed.clear()
            await self._changed.wait()

    async def attack(self, kind: Callable[..., Awaitable[None]], source: str, port: int) -> None:
        name = kind.__name__
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            except OSError:
                await asyncio.sleep(PAUSE)
                continue
            self.made[name] += 1
            self.now[name] += 1
            self._changed.set()
            try:
                await kind(reader, writer)
            except (OSError, EOFError, asyncio.LimitOverrunError):
                pass  # thrown out
            finally:
                self.now[name] -= 1
                writer.transport.abort()
            await asyncio.sleep(PAUSE)


@asynccontextmanager
async def besieged(port: int, *, each: int) -> AsyncIterator[Siege]:
    """So many of each kind are at work on `port` of 127.0.0.1 until the block ends."""
    siege = Siege()
    attackers = [
        asyncio.create_task(siege.attack(kind, f"127.0.1.{number}", port))
        for number, kind in enumerate(KINDS, 1)
        for _ in range(each)
    ]
    try:
        async with asyncio.timeout(60):
            await siege.until_all(each)
        yield siege
    finally:
        for attacker in attackers:
            attacker.cancel()
        await asyncio.gather(*attackers, return_exceptions=True)


async def _until_data(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"EHLO hostile\r\nMAIL FROM:<x@example.net>\r\nRCPT TO:<y@example.org>\r\nDATA\r\n")
    await reader.readuntil(b"354 ")


async def _for_once(writer: asyncio.StreamWriter, piece: bytes) -> None:
    writer.write(piece)
    await writer.drain()
    await asyncio.sleep(PAUSE)


async def _for_ever(writer: asyncio.StreamWriter, piece: bytes) -> None:
    while True:
        await _for_once(writer, piece)


async def _read_on(reader: asyncio.StreamReader) -> None:
    while await reader.read(2**16):
        pass
