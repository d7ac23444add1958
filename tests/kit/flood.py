"""A peer on 127.0.0.1 that answers without end, with TLS or without.

    async with Flood(b"HTTP/1.1 100 \\r\\n\\r\\n", certificate=certificates.good) as flood:
        ...ask flood.port...
        await flood.left()

It waits for `after` (b"": for nothing), says `first` once, and `piece` again and again, as fast as it is read, or at
each turn of the loop where `drips`. `sent` is what it could say to the last who came, in octets.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from tests.kit.certificates import Certificate
from tests.kit.ports import port_for

PATIENCE = 60.0


class Flood:
    def __init__(
        self,
        piece: bytes,
        *,
        first: bytes = b"",
        after: bytes = b"\r\n\r\n",
        drips: bool = False,
        certificate: Certificate | None = None,
    ) -> None:
        self._first = first
        self._piece = piece
        self._after = after
        self._drips = drips
        self._context = None if certificate is None else certificate.server()
        self._left = asyncio.Event()
        self._tasks = set[asyncio.Task[None]]()
        self.connections = 0
        self.sent = 0
        self.port = port_for(self)

    async def __aenter__(self) -> Flood:
        self._server = await asyncio.start_server(self._arrived, "127.0.0.1", self.port, ssl=self._context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def left(self) -> None:
        """Wait until somebody who came has hung up."""
        async with asyncio.timeout(PATIENCE):
            await self._left.wait()

    def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._talk(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.sent = 0
        pieces = self._piece if self._drips else self._piece * (65_536 // len(self._piece))
        try:
            if self._after:
                await reader.readuntil(self._after)
            writer.write(self._first)
            while not writer.is_closing():
                writer.write(pieces)
                self.sent += len(pieces)
                await writer.drain()
                await asyncio.sleep(0)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            self._left.set()
