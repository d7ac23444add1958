"""The session: a client's conversation, from the banner to the last reply (RFC 5321, section 3).

Theory of operation: what arrives goes to a buffer, or to the content reader. Commands that need no
waiting are answered right where they arrive, what came pipelined in one write; the session's one task
is woken for the others, and for content (`intake`, `bdat`). An exception of ours is 451 and a constant text.
A command has to be complete in its time: octets that trickle in do not give it more.
"""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from relay.events import ClientLeft, CommandRefused, ConnectionAccepted, ConnectionDenied, ExceptionCaught, SessionEnded
from relay.ingress import cures, replies
from relay.ingress.bdat import Chunking
from relay.ingress.commands import Commands
from relay.ingress.door import Door
from relay.ingress.secure import Secured
from relay.ingress.smtp import LONGEST_LINE, PIPELINED_AT_MOST, THROWN_AWAY_AT_MOST, UNREAD_AT_MOST
from relay.ingress.strangers import begins_binary, is_stranger
from relay.mail.quirk import Quirk
from relay.mail.reply import sanitise
from relay.policy.client import LOCAL, allowed, plain

HEARD_OUT = 30.0  # seconds in which a client that is sent away may go on talking
TURNED_AWAY_AT_ONCE = 20  # clients that may begin TLS only to hear that they are refused
SILENCE = 2.0  # seconds after which it has nothing more to say
WRITES_BEHIND = 1024 * 1024  # content that waits for the spool file; beyond it the socket is not read
REPLIES_AT_ONCE = 100  # then the replies are sent, and other sessions have their turn
# BDAT is among them, since its octets are read whatever it is answered.
WITHOUT_TLS = frozenset({b"EHLO", b"HELO", b"STARTTLS", b"NOOP", b"RSET", b"QUIT", b"HELP", b"BDAT"})
WITHOUT_AUTH = WITHOUT_TLS | {b"AUTH"}


_Work = tuple[str, Awaitable[bytes]]  # a verb, and what remains to be done about it


class Session(Commands):
    """One connection of a client, as a conversation.

    `client`: its address, where somebody in between told it; else that of the socket.
    """

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop, client: str | None = None) -> None:
        super().__init__(door, loop)
        self.task: asyncio.Task[None]
        self._told_client = client
        self._work: _Work | None = None
        self._entered = False
        self._spoken = False  # a command came
        self._errors = 0

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.set_write_buffer_limits(UNREAD_AT_MOST)
        peername = transport.get_extra_info("peername")
        self._client = self._told_client or (plain(peername[0]) if isinstance(peername, tuple) else LOCAL)
        self._door.live.add(self)
        self.task = self.loop.create_task(self._handle_client())

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader is not None and not reader.ended:
            self._go_on()
            reader.feed(data)
            if reader.queued and (reader.queued > WRITES_BEHIND or self._door.memory.scarce):
                self._pause()
            if self._door.memory.crowded:
                for session in self._door.live:
                    session.wait_for_room()
            if not self._content_waits:
                return
        else:
            self._buffer += data
            if self._at_ease and not self._paused:
                self._work = self._answer()
                if self._work is None and not self._ended and not self._content_waits:
                    return
            if len(self._buffer) > PIPELINED_AT_MOST:
                self._pause()
        self._wake()

    def eof_received(self) -> bool:
        self._over = self._over or "eof"
        self._wake()
        return self._tls is None  # half-closed is fine: the client may still wait for our reply

    def shut_down(self) -> None:
        """End as soon as no message is half-way: idle sessions get 421, content in progress finishes."""
        if self._in_handshake:
            self.abort()
        self._wake()

    # The session

    async def _handle_client(self) -> None:
        door, limits = self._door, self._settings.limits
        try:
            refusal = self._admit()
            self._expect(limits.command)
            self._tick = min(limits.command, limits.data, self._tick)
            self._look_at_the_clock()
            if self._settings.tls == "implicit" and not (self._may_begin_tls(refusal) and await self._begin_tls()):
                return
            if refusal:
                self._write(refusal)
                return
            self._expect(limits.command)
            await self.push(b"220 %b ESMTP relay\r\n" % self._hostname)
            await self._converse()
        except Exception as error:  # noqa: BLE001  # bulkhead: a bug ends no session and loses no mail
            if self._in_handshake:
                self._ended = "reset"
                said = str(error) or type(error).__name__
                text = "; ".join(filter(None, (sanitise(said, 200), cures.of_handshake(said))))
                door.observer.observe(ConnectionDenied(self._settings.name, self._client, "tls_error", text))
            else:
                self._report(error)
                self._write(replies.LOCAL_ERROR)
        finally:
            try:
                await self._lose_chunks()
            finally:
                self._leave()

    def _admit(self) -> bytes | None:
        """None, or the reply that turns the client away."""
        door, settings = self._door, self._settings
        if self._client != LOCAL and not allowed(self._client, settings.allow):
            door.observer.observe(ConnectionDenied(settings.name, self._client, "denied_address", "not in allow"))
            return replies.NOT_ALLOWED
        if door.stopping:
            return replies.SHUTTING_DOWN
        limits = settings.limits
        if not door.sessions.enter(self._client, most=limits.sessions, most_per_client=limits.per_client):
            key = "sessions" if door.sessions.total >= limits.sessions else "per_client"
            door.observer.observe(ConnectionDenied(settings.name, self._client, "denied_limit", f"limits.{key}"))
            return replies.TOO_MANY_SESSIONS
        self._entered = True
        door.observer.observe(ConnectionAccepted(settings.name, self._client))
        return None

    def _may_begin_tls(self, refusal: bytes | None) -> bool:
        """False for a client that is turned away while many are: they hold connections that no limit counts."""
        return refusal is None or len(self._door.live) - self._door.sessions.total <= TURNED_AWAY_AT_ONCE

    def _leave(self) -> None:
        door = self._door
        if self._timer is not None:
            self._timer.cancel()
        door.live.discard(self)
        if self._reader is not None:
            self._reader.abandon()
        self._transaction.reset()
        if self._entered:
            door.sessions.leave(self._client)
            why = self._ended or self._over or "errors"
            if self._spoken and why in ("eof", "reset") and not self._in_handshake:
                self._transaction.quirks.add(Quirk.NO_QUIT)
            if not self._transaction.begun and self.session.extended_smtp and not self._errors:
                self._saw_and_left()
            if self._transaction.quirks:
                self._tell_quirks()
            limit = self._limit or ("limits.command" if why == "timeout" else "")
            door.observer.observe(SessionEnded(self._settings.name, self._client, why, self._messages, limit))
        if self.transport is not None:
            transport = self.transport
            transport.close()
            # A client that does not read must not keep the connection.
            self.loop.call_later(5, transport.abort)

    def _saw_and_left(self) -> None:
        """A client that asked what is offered, and handed in nothing; it is told of once."""
        cure = cures.of_leaving(self._settings.auth, self._settings.tls)
        if cure:
            self._transaction.quirks.add(Quirk.ONLY_EHLO)
            if self._door.is_news(self._client):
                self._door.observer.observe(ClientLeft(self._settings.name, self._client, cure))

    async def _converse(self) -> None:
        """Take commands and content until the session ends."""
        while True:
            work, self._work = self._work or self._answer(), None
            if self._paused and self._reader is None:  # content goes to its file also while its client reads nothing
                with suppress(ConnectionError):
                    await self._drain_helper()
            if work is not None:
                verb, coroutine = work
                told = verb == "BDAT" and self._chunks is not None
                if verb != "BDAT":
                    self._deadline = math.inf  # the time that it takes is ours
                reply = await self._guarded(coroutine)
                self._expect(self._settings.limits.command)
                self._write(self._told(verb, reply, told=told))
            elif self._reader is not None:
                await self.push(self._told("DATA", await self._guarded(self._take_content()), told=True))
            elif self._ended:
                break
            elif self._over:
                return
            elif self._door.stopping:
                self._ended = "shutdown"
                await self.push(replies.SHUTTING_DOWN)
            else:
                self._at_ease = True  # until it is woken
                await self._wait()
        if self._ended == "timeout":
            await self.push(replies.TOO_SLOW)
        elif self._ended in ("errors", "limit"):
            await self._hear_out()

    async def _hear_out(self) -> None:
        """Read on until the client falls silent, or has seen that we have ended: of a connection that is closed with
        octets unread the kernel makes a reset, and the reply that says why may be lost with it."""
        if self._over or self.transport is None or not self.transport.can_write_eof():
            return
        with suppress(OSError):  # it is gone, and that is about to be told
            self.transport.write_eof()
        end = self.loop.time() + HEARD_OUT
        while not (self._over or self._door.stopping) and self.loop.time() < end:
            self._buffer.clear()
            self._resume()
            silence = self.loop.call_later(SILENCE, self._wake)
            await self._wait()
            silence.cancel()
            if not self._buffer:
                return

    def _answer(self) -> _Work | None:
        """Carry out the commands that are there, up to one that takes time, which is returned.

        What came pipelined is answered in one write. DATA opens a content reader, and ends the commands.
        """
        waiting: list[bytes] = []
        work: _Work | None = None
        while work is None and self._reader is None and not self._ended and (line := self._next_line()) is not None:
            if len(line) > LONGEST_LINE:
                if line.lstrip(b" \t")[:4].upper() == b"BDAT":
                    self._ended = "errors"  # what follows is no command, and nobody knows where it ends
                waiting.append(self._told("other", replies.LINE_TOO_LONG))
                continue
            verb, method, argument = self._parse(line)
            try:
                reply = method(argument)
            except Exception as error:  # noqa: BLE001  # bulkhead: a bug ends no session and loses no mail
                reply = self._failed(error)
            if isinstance(reply, bytes):
                waiting.append(self._told(verb, reply))
                if len(waiting) == REPLIES_AT_ONCE:
                    work = "other", _others_first()
            else:
                work = verb, reply
        if waiting or work is not None:
            self._spoken = True
            if self._reader is None:
                self._expect(self._settings.limits.command)
            self._write(b"".join(waiting))
        elif self._buffer and not self._ended and self._reader is None:
            self._write(self._told("other", self._doubt()))
        return work

    def _doubt(self) -> bytes:
        """The reply to a line that has not ended yet, when it is clear that no end of it would help."""
        if self._thrown_away > THROWN_AWAY_AT_MOST:
            self._ended = "errors"
            return replies.LINE_TOO_LONG
        if not self.session.host_name and begins_binary(self._buffer):
            return self._begin_of_tls(b"") if self._buffer[0] == cures.TLS_HANDSHAKE else self._not_smtp(b"")
        return b""

    def _told(self, verb: str, reply: bytes, *, told: bool = False) -> bytes:
        """`reply`, counted."""
        if reply[:1] == b"5":
            reply = self._erred(reply, verb, told=told)
        if reply:
            self._door.replies[verb, reply[0] - 48] += 1
        return reply

    def _parse(self, line: bytes) -> tuple[str, Callable[[bytes], bytes | Awaitable[bytes]], bytes]:
        """The verb for counting, what carries it out, and its argument."""
        word, _, argument = line.strip(b" \t\r").partition(b" ")
        verb = word.upper()
        name, method = _METHODS.get(verb, _NO_METHOD)
        if method is None:
            if verb[:5] in (b"MAIL\t", b"RCPT\t", b"BDAT\t"):
                return self._parse(line.replace(b"\t", b" "))
            if verb[:4] == b"BDAT":  # octets follow that are no commands; how many cannot be read, so that it ends
                return "BDAT", self.smtp_BDAT, b""
            if not verb:  # a line end too many, behind a command or the final dot: an answer would be one too many
                return "other", self._say_nothing, argument
            if not self.session.host_name and is_stranger(verb):
                early = verb[0] == cures.TLS_HANDSHAKE
                return "other", self._begin_of_tls if early else self._not_smtp, argument
            return "other", self._unknown, argument
        if 0 in argument and verb != b"BDAT":
            return name, self._bad_octet, argument
        settings = self._settings
        if settings.require_tls and self._tls is None and verb not in WITHOUT_TLS:
            return name, self._say_tls_required, argument
        if settings.auth == "users" and self.session.auth_data is None and verb not in WITHOUT_AUTH:
            return name, self._say_auth_required, argument
        return name, method.__get__(self), argument.lstrip(b" \t")

    def _erred(self, reply: bytes, verb: str, *, told: bool = False) -> bytes:
        """Count an error, and tell of it unless it was `told`; too many end the session."""
        if self._excused:
            self._excused = False
            return reply
        self._errors += 1
        if not told:
            code, status, text = reply.decode("utf-8", "replace").rstrip().split(" ", 2)
            text = f"{sanitise(text, 200)}{self._cure and f': {self._cure}'}"
            self._door.observer.observe(
                CommandRefused(self._settings.name, self._client, verb, int(code), status, text)
            )
            self._cure = ""
        if self._errors >= self._settings.limits.errors and not self._ended:
            self._ended, self._limit = "errors", "limits.errors"
            return reply + replies.TOO_MANY_ERRORS
        return reply

    async def _guarded(self, coroutine: Awaitable[bytes]) -> bytes:
        try:
            return await coroutine
        except Exception as error:  # bulkhead: a bug ends no session and loses no mail
            if self._in_handshake:
                raise
            return self._failed(error)

    def _failed(self, error: Exception) -> bytes:
        """A bug of ours is a transient failure with a constant text; the session goes on, but not within content."""
        self._report(error)
        self._transaction.reset()
        if self._reader is not None:
            self._reader.abandon()
            self._reader = None
            self._ended = self._ended or "errors"
        elif self._chunks is not None:
            self._ended = self._ended or "errors"
        return replies.LOCAL_ERROR

    def _report(self, error: Exception) -> None:
        text = "".join(traceback.format_exception(error))
        self._door.observer.observe(ExceptionCaught("session", type(error).__name__, text))

    # Commands that are none

    def _unknown(self, _argument: bytes) -> bytes:
        return replies.UNKNOWN

    def _say_nothing(self, _argument: bytes) -> bytes:
        return b""

    def _bad_octet(self, _argument: bytes) -> bytes:
        return replies.BAD_SYNTAX

    def _not_smtp(self, _argument: bytes, cure: str = "") -> bytes:
        self._ended = "errors"
        self._door.observer.observe(ConnectionDenied(self._settings.name, self._client, "not_smtp", cure))
        return replies.NOT_SMTP

    def _begin_of_tls(self, argument: bytes) -> bytes:
        self._transaction.quirks.add(Quirk.SPEAKS_TLS)
        return self._not_smtp(argument, cures.of_early_tls(self._settings.tls))

    def _say_tls_required(self, _argument: bytes) -> bytes:
        return replies.TLS_REQUIRED

    def _say_auth_required(self, _argument: bytes) -> bytes:
        return replies.AUTH_REQUIRED


_NOT_COUNTED = frozenset({"HELP", "EXPN"})
_NO_METHOD = ("other", None)
_METHODS: dict[bytes, tuple[str, Any]] = {
    name[5:].encode(): ("other" if name[5:] in _NOT_COUNTED else name[5:], method)
    for part in (Chunking, Secured, Commands)
    for name, method in vars(part).items()
    if name.startswith("smtp_")
}


async def _others_first() -> bytes:
    """Other sessions have their turn."""
    await asyncio.sleep(0)
    return b""
