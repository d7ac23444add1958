"""Content: from the 354 to the reply to the final dot (RFC 5321, section 4.1.1.4).

Small content stays in memory, large content goes to a spool file while it arrives. It is read to its
end whatever happens to it, since what follows 354 must never be taken for commands.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from relay.errors import StoreUnavailable
from relay.events import MessageRefused
from relay.ingress import replies
from relay.ingress.data import ContentReader
from relay.ingress.door import Door
from relay.ingress.settings import IN_MEMORY
from relay.ingress.smtp import Wire
from relay.ingress.transaction import Transaction
from relay.mail.content import Content, FileContent, MemoryContent
from relay.policy.submission import Peer, Submission
from relay.queue.spool import SpoolWriter


class Intake(Wire):
    """The part of a session that takes content, and what it has to know of the client for it."""

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._door = door
        self._settings = door.settings
        self._reader: ContentReader | None = None
        self._writer: SpoolWriter | None = None
        self._transaction = Transaction()
        self._client = ""
        self._helo = ""
        self._esmtp = False
        self._tls: str | None = None
        self._user: str | None = None
        self._peer: Peer | None = None
        self._messages = 0

    def _expect_content(self) -> None:
        """What arrives from now on is content."""
        limits = self._settings.limits
        self._reader = ContentReader(
            limit=self._settings.max_message_size,
            in_memory=max(IN_MEMORY, limits.header_size),
            memory=self._door.memory,
        )
        if self._buffer:  # content that did not wait for 354
            self._reader.feed(bytes(self._buffer))
            self._buffer.clear()
            self._resume()
        self._expect(limits.data)

    @property
    def _content_waits(self) -> bool:
        """True when the task has something to do about content."""
        reader = self._reader
        return reader is not None and (reader.ended or reader.hopeless or bool(reader.pieces))

    async def _take_content(self) -> bytes:
        """Read the content that `_reader` gets, keep the message, and give the reply to the final dot."""
        limits, reader = self._settings.limits, self._reader
        assert reader is not None
        try:
            trouble = await self._read_content(reader)
            started = time.perf_counter()
            self._expect(limits.command)
            refusal = self._judge_content(reader)
            if refusal is not None:
                return refusal
            if trouble is not None:
                raise trouble
            return await self._keep(reader, started)
        except StoreUnavailable as error:
            full = error.reason == "full"
            return self._refuse_content("store_failed", replies.STORE_FULL if full else replies.STORE_FAILED)
        finally:
            self._expect(limits.command)
            await self._end_content(reader)

    async def _read_content(self, reader: ContentReader) -> StoreUnavailable | None:
        """Read to the end of the data, or until it is pointless; large content goes to a spool file.

        Where that fails, the rest is read all the same, and the trouble returned.
        """
        trouble: StoreUnavailable | None = None
        while True:
            while reader.pieces:
                try:
                    await self._spool(reader.take())
                except StoreUnavailable as error:
                    trouble = error
                    reader.drop()
                self._resume()
            if reader.ended or reader.hopeless or self._over or self._ended:
                return trouble
            await self._wait()

    async def _spool(self, data: bytes) -> None:
        memory = self._door.memory
        memory.used += len(data)
        try:
            if self._writer is None:
                self._writer = self._door.spool.begin()
            await self._writer.write(data)
        finally:
            memory.used -= len(data)

    async def _keep(self, reader: ContentReader, started: float) -> bytes:
        """Hand the message to the acceptor; the reply."""
        door = self._door
        now = door.now()
        queue_id = door.queue_ids.next(now)
        content: Content
        if self._writer is None:
            content = MemoryContent(reader.rest, len(reader.head))
        else:
            await self._spool(reader.take() + reader.rest)
            content = await self._writer.finish(queue_id, reader.head, reader.size)
            self._writer = None
        envelope = self._transaction.envelope()
        submission = Submission(
            queue_id, envelope, reader.head, reader.size, self._who(envelope.smtputf8), self._settings.name, now
        )
        reply = await door.acceptor.accept(submission, content, lambda: time.perf_counter() - started)
        if reply[:1] == b"2":
            self._messages += 1
        elif isinstance(content, FileContent):
            door.spool.remove([door.spool.name(content)])
        return reply

    def _judge_content(self, reader: ContentReader) -> bytes | None:
        """None when the content is whole and within bounds; else the reply (b"" when nobody hears it)."""
        if not reader.ended:
            if reader.hopeless:
                self._ended = "limit"
                return self._refuse_content("rejected_size", replies.TOO_LARGE)
            self._refuse_content("aborted", replies.ABORTED)
            return b""
        if reader.too_large:
            return self._refuse_content("rejected_size", replies.TOO_LARGE)
        if reader.no_room:
            return self._refuse_content("limited", replies.STORE_FULL)
        limits = self._settings.limits
        fields = reader.head.count(b"\r\n")
        if fields > limits.header_fields:
            fields -= reader.head.count(b"\r\n ") + reader.head.count(b"\r\n\t") + 1
        if reader.header_too_long or len(reader.head) > limits.header_size or fields > limits.header_fields:
            return self._refuse_content("rejected_size", replies.HEADER_TOO_LARGE)
        return None

    def _refuse_content(self, result: str, reply: bytes) -> bytes:
        transaction = self._transaction
        code, status, text = reply.decode().rstrip().split(" ", 2)
        self._door.observer.observe(
            MessageRefused(
                listener=self._settings.name,
                client=self._client,
                user=self._user,
                reverse_path=transaction.reverse_path,
                recipients=tuple([str(recipient.address) for recipient in transaction.recipients]),
                result=result,
                code=int(code),
                status=status,
                text=text,
            )
        )
        return reply

    async def _end_content(self, reader: ContentReader) -> None:
        """Commands are read again; what came behind the data is the first of them."""
        self._reader = None
        reader.abandon()
        if not reader.ended and not self._over:
            self._ended = self._ended or "errors"  # the rest of the content is still to come, and is no command
        self._buffer[:0] = reader.leftover
        self._resume()
        self._transaction.reset()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with suppress(StoreUnavailable):  # then it is an orphan for the next start
                await writer.discard()

    def _who(self, smtputf8: bool) -> Peer:
        peer = self._peer
        if peer is None or smtputf8:
            protocol = "ESMTP" if self._esmtp else "SMTP"
            if self._esmtp:
                protocol = ("UTF8SMTP" if smtputf8 else "ESMTP") + "S" * (self._tls is not None)
                protocol += "A" * (self._user is not None)
            peer = Peer(self._client, self._helo, protocol, self._tls, self._user)
            self._peer = None if smtputf8 else peer
        return peer
