"""Content: from the 354 to the reply to the final dot (RFC 5321, section 4.1.1.4).

Small content stays in memory, large content goes to a spool file while it arrives. It is read to its
end whatever happens to it, since what follows 354 must never be taken for commands. A client has to keep
coming: content may neither stop nor trickle. Time in which we do not read, or write to the disk, is not its.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from typing import TypeVar

from relay.errors import StoreUnavailable
from relay.events import ClientDescribed, MessageRefused, QuirksTolerated
from relay.ingress import quirks, replies
from relay.ingress.data import ContentReader
from relay.ingress.door import Door
from relay.ingress.limits import PAUSE, PAUSES, too_slow
from relay.ingress.settings import IN_MEMORY
from relay.ingress.smtp import Wire
from relay.ingress.transaction import Transaction
from relay.mail.content import Content, MemoryContent
from relay.mail.submission import Peer, Submission
from relay.queue.content import FileContent
from relay.queue.spool import SpoolWriter

R = TypeVar("R", bound=ContentReader)


class Intake(Wire):
    """The part of a session that takes content, and what it has to know of the client for it."""

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        settings = door.settings
        self._door = door
        self._settings = settings
        self._reader: ContentReader | None = None
        self._writer: SpoolWriter | None = None
        self._transaction = Transaction(
            complete=settings.hostname if settings.complete_addresses else "",
            aliases=settings.aliases,
            auth=settings.auth != "none",
            memory=door.memory,
        )
        self._client = ""
        self._pauses = 0.0  # seconds, of the content that is being read
        self._limit = ""  # the key of the listener by which the session ends
        self._tls: str | None = None
        self._peer: Peer | None = None
        self._messages = 0
        self._cure = ""  # what to do about the 5xx to be said, for the log
        self._excused = False  # the 5xx to be said is no error of the client, but an upstream's

    def _largest(self) -> int:
        """The largest message that the listener takes, and some upstream as well."""
        upstreams = self._door.size_limit()
        listener = self._settings.max_message_size
        return listener if upstreams is None else min(listener, upstreams)

    def _a_reader(self, kind: type[R]) -> R:
        """One for a new message; the client's time for its first octets begins."""
        settings = self._settings
        self._since = self.loop.time()
        self._deadline = self._since + settings.limits.data
        self._pauses = 0.0
        return kind(
            limit=settings.max_message_size,
            in_memory=max(IN_MEMORY, settings.limits.header_size),
            memory=self._door.memory,
            bare_newline=settings.bare_newline,
        )

    def _expect_content(self) -> None:
        """What arrives from now on is content."""
        self._reader = self._a_reader(ContentReader)
        if self._buffer:  # content that did not wait for 354
            self._reader.feed(bytes(self._buffer))
            self._buffer.clear()
        self._resume()

    @property
    def _content_waits(self) -> bool:
        """True when the task has something to do about content."""
        reader = self._reader
        return reader is not None and (reader.ended or reader.hopeless or bool(reader.pieces))

    def _time_left(self, now: float) -> float:
        reader = self._reader
        if reader is not None and not reader.ended:
            if not self._reading:  # the spool file is behind, not the client
                return self._tick
            self._limit = self._passed(reader.received, now)
            if self._limit:
                return 0.0
        return self._deadline - now

    def _go_on(self) -> None:
        """Content came, and the time for more begins. A pause that was long is none of the client's speed."""
        now, allowed = self.loop.time(), self._settings.limits.data
        silent = now - self._deadline + allowed
        if silent > PAUSE:
            self._since += silent
            self._pauses += silent
        self._deadline = now + allowed

    def _passed(self, received: int, now: float) -> str:
        """The limit that the client has passed within content, as the key of the listener; "" for none."""
        limits = self._settings.limits
        silent = now - self._deadline + limits.data
        pause = silent if silent > PAUSE else 0.0
        if silent >= limits.data or self._pauses + pause > PAUSES * limits.data:
            return "limits.data"
        return "limits.data_rate" if too_slow(received, now - self._since - pause, rate=limits.data_rate) else ""

    async def _take_content(self) -> bytes:
        """Read the content that `_reader` gets, keep the message, and give the reply to the final dot."""
        reader = self._reader
        assert reader is not None
        trouble = None
        try:
            if not reader.ended or reader.pieces:
                trouble = await self._read_content(reader)
            return await self._conclude(reader, trouble)
        finally:
            await self._end_content(reader)

    async def _conclude(self, reader: ContentReader, trouble: StoreUnavailable | None) -> bytes:
        """All that will come has come: judge it and keep it. The reply."""
        started = time.perf_counter()
        self._deadline = math.inf
        try:
            refusal = self._judge_content(reader)
            if refusal is not None:
                return refusal
            if trouble is not None:
                raise trouble
            return await self._keep(reader, started)
        except StoreUnavailable as error:
            return self._refuse_content("store_failed", replies.unkept(error))

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
                self._read_on()
            if reader.ended or reader.hopeless or self._over or self._ended:
                return trouble
            await self._wait()

    async def _spool(self, data: bytes) -> None:
        memory = self._door.memory
        memory.used += len(data)
        memory.spooling += len(data)
        try:
            if self._writer is None:
                self._writer = self._door.spool.begin()
            await self._writer.write(data)
        finally:
            memory.used -= len(data)
            memory.spooled(len(data))

    def wait_for_room(self) -> None:
        """Read no more content until spool files have taken some of what came."""
        if self._reader is not None and self._reading and not self._reader.ended:
            self._pause()
            self._door.memory.wait(self._read_on)

    def _read_on(self) -> None:
        """Read what follows, unless something has to be written before."""
        reader = self._reader
        if reader is None or not reader.queued:
            self._resume()
            if self._door.memory.crowded:
                self.wait_for_room()

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
        patience = self._settings.patience
        reply = await door.acceptor.accept(
            submission, content, lambda: time.perf_counter() - started, patience=patience, waits=self._waits
        )
        self._excused = patience is not None and reply[:1] == b"5"
        if reply[:1] == b"2":
            self._describe(reader)
            self._messages += 1
        elif isinstance(content, FileContent):
            door.spool.remove([door.spool.name(content)])
        return reply

    def _waits(self) -> bool:
        """False when the client is known to be gone; one that only sends nothing more may well wait."""
        return self.transport is not None

    def _describe(self, reader: ContentReader) -> None:
        """Tell what the message that was just taken says of the client."""
        transaction = self._transaction
        if not self._messages:
            software = quirks.software(reader.head)
            self._door.observer.observe(
                ClientDescribed(self._settings.name, self._client, self.session.host_name or "", software)
            )
        found = quirks.of_content(reader, announced=transaction.size, smtputf8=transaction.smtputf8_asked)
        if found:
            transaction.quirks |= found
        if transaction.quirks:
            self._tell_quirks()

    def _tell_quirks(self) -> None:
        noticed = self._transaction.quirks
        self._door.observer.observe(QuirksTolerated(self._settings.name, self._client, tuple(sorted(noticed))))
        noticed.clear()

    def _judge_content(self, reader: ContentReader) -> bytes | None:
        """None when the content is whole and within bounds; else the reply (b"" when nobody hears it)."""
        if not reader.ended:
            if reader.hopeless:
                self._ended, self._limit = "limit", "max_message_size"
                return self._refuse_content("rejected_size", replies.TOO_LARGE)
            self._refuse_content("aborted", replies.aborted(self._too_slow if self._ended == "timeout" else ""))
            return b""
        if reader.too_large:
            return self._refuse_content("rejected_size", replies.TOO_LARGE)
        if self._settings.bare_newline == "reject" and (reader.bare_lf or reader.bare_cr):
            return self._refuse_content("rejected_syntax", replies.bare(lf=reader.bare_lf, cr=reader.bare_cr))
        if reader.no_room:
            return self._refuse_content("limited", replies.STORE_FULL)
        limits = self._settings.limits
        fields = reader.head.count(b"\r\n")
        if fields > limits.header_fields:
            fields -= reader.head.count(b"\r\n ") + reader.head.count(b"\r\n\t") + 1
        if reader.header_too_long or len(reader.head) > limits.header_size or fields > limits.header_fields:
            return self._refuse_content("rejected_size", replies.HEADER_TOO_LARGE)
        return None

    @property
    def _too_slow(self) -> str:
        """By which limit a session ended for its time."""
        limits = self._settings.limits
        match self._limit:
            case "limits.data_rate":
                return f"it came slower than limits.data_rate ({limits.data_rate} octets a second)"
            case "limits.data":
                return (
                    f"the client was silent for longer than limits.data ({limits.data:g} s; all pauses: {PAUSES} times)"
                )
            case _:
                return f"no command came within limits.command ({limits.command:g} s)"

    def _refuse_content(self, result: str, reply: bytes) -> bytes:
        transaction = self._transaction
        code, status, text = reply.decode().rstrip().split(" ", 2)
        self._door.observer.observe(
            MessageRefused(
                listener=self._settings.name,
                client=self._client,
                user=self.session.auth_data,
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
        """The message is over, and commands are read again."""
        self._read_commands(reader)
        reader.abandon()
        self._transaction.reset()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with suppress(StoreUnavailable):  # then it is an orphan for the next start
                await writer.discard()

    def _read_commands(self, reader: ContentReader) -> None:
        """What came behind the data is the first of the commands to come."""
        self._reader = None
        self._expect(self._settings.limits.command)
        if not reader.ended and not self._over:
            self._ended = self._ended or "errors"  # the rest of the content is still to come, and is no command
        if reader.leftover:
            self._buffer[:0] = reader.leftover
        self._resume()

    def _who(self, smtputf8: bool) -> Peer:
        peer, said = self._peer, self.session
        if peer is None or smtputf8:
            protocol = "ESMTP" if said.extended_smtp else "SMTP"
            if said.extended_smtp:
                protocol = ("UTF8SMTP" if smtputf8 else "ESMTP") + "S" * (self._tls is not None)
                protocol += "A" * (said.auth_data is not None)
            peer = Peer(self._client, said.host_name or "", protocol, self._tls, said.auth_data)
            self._peer = None if smtputf8 else peer
        return peer
