"""A wire between a client and the relay that remembers what the client said, byte for byte.

async with Wire(house.port()) as wire:
    ...run a client against 127.0.0.1:wire.port...
assert received.content.endswith(wire.content())
"""

from __future__ import annotations

import asyncio
import re
from types import TracebackType
from typing import Self

_DATA = re.compile(rb"(?i)(?:\A|\r\n)DATA *\r\n")
_END = b"\r\n.\r\n"


class Wire:
    """Every connection to `port` leads to `beyond`; `said` is what the clients wrote on all of them."""

    def __init__(self, beyond: int) -> None:
        self._beyond = beyond
        self.said = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._joined, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)
        await asyncio.sleep(0)  # what was aborted is closed in the next turn of the loop

    def content(self) -> bytes:
        """The content of the one message that was sent, unstuffed, with the CRLF of its last line."""
        opened = _DATA.search(self.said)
        assert opened is not None, self.said
        # The CRLF of DATA counts, so that a message may be empty.
        begin = opened.end() - 2
        end = self.said.index(_END, begin)
        return bytes(self.said[begin : end + 2]).replace(b"\r\n.", b"\r\n")[2:]

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        onward: asyncio.StreamWriter | None = None
        try:
            onward_reader, onward = await asyncio.open_connection("127.0.0.1", self._beyond)
            await asyncio.gather(self._carry(reader, onward, self.said), self._carry(onward_reader, writer, None))
        except (OSError, asyncio.CancelledError):
            pass  # one of them has gone, or the test is over
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            if onward is not None:
                onward.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, remembered: bytearray | None
    ) -> None:
        while piece := await reader.read(2**16):
            if remembered is not None:
                remembered += piece
            writer.write(piece)
            await writer.drain()
        writer.close()
