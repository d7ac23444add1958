"""BDAT: content in chunks, between which commands are read (RFC 3030, section 2).

The octets of a chunk are read even when the command is refused: they must never be taken for commands,
and what follows them is one. Where their number cannot be read, the session ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from relay.ingress import replies
from relay.ingress.chunks import ChunkReader
from relay.ingress.door import Door
from relay.ingress.intake import Intake


class Chunking(Intake):
    """The part of a session that takes content in chunks."""

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(door, loop)
        self._chunks: ChunkReader | None = None  # there once a first chunk came, until the last
        self._chunk_ended_at = 0.0

    def smtp_BDAT(self, argument: bytes) -> bytes | Awaitable[bytes]:
        octets, last = _octets(argument)
        if octets is None:
            self._ended = "errors"
            return replies.BAD_CHUNK
        transaction = self._transaction
        if not transaction.open or not transaction.recipients:
            reader = self._a_reader(ChunkReader)
            reader.drop()
            self._begin(reader, octets, last=False)
            return self._skip(reader, replies.NO_RECIPIENT if transaction.open else replies.NO_MAIL)
        if self._chunks is None:
            self._chunks = self._a_reader(ChunkReader)
        else:
            self._since += self.loop.time() - self._chunk_ended_at
        reader = self._chunks
        self._begin(reader, octets, last=last)
        if reader.ended and not (last or reader.pieces or reader.too_large):
            self._end_chunk(reader)
            return replies.CHUNK_OK
        return self._take_chunk(reader)

    def _begin(self, reader: ChunkReader, octets: int, *, last: bool) -> None:
        """What arrives from now on is the chunk; what of it is there already is read."""
        reader.begin(octets, last=last)
        self._reader = reader
        self._expect(self._settings.limits.data)
        there = bytes(self._buffer[:octets])
        del self._buffer[:octets]
        reader.feed(there)
        self._resume()

    async def _take_chunk(self, reader: ChunkReader) -> bytes:
        """Read the chunk; the last one is answered like a final dot."""
        over = True
        try:
            trouble = await self._read_content(reader)
            if reader.ended and not (reader.whole or reader.too_large or trouble):
                over = False
                self._end_chunk(reader)
                return replies.CHUNK_OK
            return await self._conclude(reader, trouble)
        finally:
            if over:
                self._chunks = None
                await self._end_content(reader)

    def _end_chunk(self, reader: ChunkReader) -> None:
        self._chunk_ended_at = self.loop.time()
        self._read_commands(reader)

    async def _skip(self, reader: ChunkReader, reply: bytes) -> bytes:
        """Throw the chunk of a refused BDAT away."""
        try:
            await self._read_content(reader)
        finally:
            self._read_commands(reader)
            reader.abandon()
        return reply

    def _reset(self, reply: bytes) -> bytes | Awaitable[bytes]:
        """The transaction is over, by a command that is answered with `reply`."""
        if self._chunks is not None:
            return self._forget_chunks(reply)
        self._transaction.reset()
        return reply

    async def _forget_chunks(self, reply: bytes) -> bytes:
        """Chunks came, and the last one never will."""
        reader, self._chunks = self._chunks, None
        if reader is not None:
            reader.leftover = b""
            await self._end_content(reader)
        return reply

    async def _lose_chunks(self) -> None:
        """The session ends between two chunks: the message was not taken."""
        if self._chunks is not None:
            self._refuse_content("aborted", replies.aborted(self._too_slow if self._ended == "timeout" else ""))
            await self._forget_chunks(b"")


def _octets(argument: bytes) -> tuple[int | None, bool]:
    """`octets [LAST]`; None when there is no number."""
    words = argument.split()
    last = len(words) == 2 and words[1].upper() == b"LAST"
    if len(words) != 1 + last or not words[0].isdigit() or len(words[0]) > 20:
        return None, False
    return int(words[0]), last
