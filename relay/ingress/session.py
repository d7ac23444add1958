"""The session: a client's conversation, from the banner to the last reply (RFC 5321, section 3).

Theory of operation: what arrives goes to a buffer, or to the content reader. Commands that need no
waiting are answered right where they arrive, what came pipelined in one write; the session's one task
is woken for the others, and for content (`intake`). An exception of ours is 451 and a constant text.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from relay.events import (
    AuthenticationJudged,
    CommandRefused,
    ConnectionAccepted,
    ConnectionDenied,
    ExceptionCaught,
    SessionEnded,
)
from relay.ingress import replies
from relay.ingress.authenticate import OFFERED, Tried, authenticate
from relay.ingress.door import Door
from relay.ingress.intake import Intake
from relay.ingress.smtp import LONGEST_LINE, PIPELINED_AT_MOST
from relay.mail.reply import sanitise
from relay.policy.client import allowed, is_loopback, plain

WRITES_BEHIND = 1024 * 1024  # content that waits for the spool file; beyond it the socket is not read
REPLIES_AT_ONCE = 100  # then the replies are sent, and other sessions have their turn
HANDSHAKE = 30.0
AUTH_PAUSE = 1.0  # seconds that each bad AUTH adds to the wait for the answer to the next
NOT_SMTP = frozenset({b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"DELETE", b"HOST:"})
WITHOUT_TLS = frozenset({b"EHLO", b"HELO", b"STARTTLS", b"NOOP", b"RSET", b"QUIT", b"HELP"})
WITHOUT_AUTH = WITHOUT_TLS | {b"AUTH"}


_Work = tuple[str, Awaitable[bytes]]  # a verb, and what remains to be done about it


class Session(Intake):
    """One connection of a client, as a conversation."""

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(door, loop)
        self.task: asyncio.Task[None]
        self._work: _Work | None = None
        self._entered = False
        self._in_handshake = False
        self._errors = 0
        self._auth_failures = 0

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        peername = transport.get_extra_info("peername")
        self._client = plain(peername[0]) if isinstance(peername, tuple) else "local"
        if transport.get_extra_info("sslcontext") is not None:
            self._tls = _tls_text(transport)
        self._door.live.add(self)
        self.task = self.loop.create_task(self._handle_client())

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader is not None and not reader.ended:
            self._expect(self._settings.limits.data)
            reader.feed(data)
            if reader.queued and (reader.queued > WRITES_BEHIND or self._door.memory.scarce):
                self._pause()
            if not self._content_waits:
                return
        else:
            self._expect(self._settings.limits.command)
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

    async def _read_line(self) -> bytes | None:
        """The next line of an AUTH exchange; None when the session ends."""
        while (line := self._next_line()) is None:
            if self._over or self._ended or self._door.stopping:
                return None
            await self._wait()
        return line

    # The session

    async def _handle_client(self) -> None:
        door, limits = self._door, self._settings.limits
        try:
            refusal = self._admit()
            if refusal:
                self._write(refusal)
                return
            self._expect(limits.command)
            self._timer = self.loop.call_later(limits.command, self._look_at_the_clock)
            await self.push(b"220 %b ESMTP relay\r\n" % self._hostname)
            await self._converse()
        except Exception as error:  # noqa: BLE001  # bulkhead: a bug ends no session and loses no mail
            if self._in_handshake:
                self._ended = "reset"
                text = sanitise(str(error) or type(error).__name__, 200)
                door.observer.observe(ConnectionDenied(self._settings.name, self._client, "tls_error", text))
            else:
                self._report(error)
                self._write(replies.LOCAL_ERROR)
        finally:
            self._leave()

    def _admit(self) -> bytes | None:
        """None, or the reply that turns the client away."""
        door, settings = self._door, self._settings
        if not allowed(self._client, settings.allow):
            door.observer.observe(ConnectionDenied(settings.name, self._client, "denied_address"))
            return replies.NOT_ALLOWED
        if door.stopping:
            return replies.SHUTTING_DOWN
        limits = settings.limits
        if not door.sessions.enter(self._client, most=limits.sessions, most_per_client=limits.per_client):
            door.observer.observe(ConnectionDenied(settings.name, self._client, "denied_limit"))
            return replies.TOO_MANY_SESSIONS
        self._entered = True
        door.observer.observe(ConnectionAccepted(settings.name, self._client))
        return None

    def _leave(self) -> None:
        door = self._door
        if self._timer is not None:
            self._timer.cancel()
        door.live.discard(self)
        if self._reader is not None:
            self._reader.abandon()
        if self._entered:
            door.sessions.leave(self._client)
            why = self._ended or self._over or "errors"
            door.observer.observe(SessionEnded(self._settings.name, self._client, why, self._messages))
        if self.transport is not None:
            transport = self.transport
            transport.close()
            # A client that does not read must not keep the connection.
            self.loop.call_later(5, transport.abort)

    async def _converse(self) -> None:
        """Take commands and content until the session ends."""
        while True:
            work, self._work = self._work or self._answer(), None
            if self._paused:
                with suppress(ConnectionError):
                    await self._drain_helper()
            if work is not None:
                verb, coroutine = work
                await self.push(self._told(verb, await self._guarded(coroutine)))
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

    def _answer(self) -> _Work | None:
        """Carry out the commands that are there, up to one that takes time, which is returned.

        What came pipelined is answered in one write. DATA opens a content reader, and ends the commands.
        """
        waiting: list[bytes] = []
        work: _Work | None = None
        while work is None and self._reader is None and not self._ended and (line := self._next_line()) is not None:
            if len(line) > LONGEST_LINE:
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
        if waiting:
            self._write(b"".join(waiting))
        return work

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
            if verb[:5] in (b"MAIL\t", b"RCPT\t"):
                return self._parse(line.replace(b"\t", b" "))
            if verb in NOT_SMTP and not self._helo:
                return "other", self._not_smtp, argument
            return "other", self._unknown, argument
        settings = self._settings
        if settings.require_tls and self._tls is None and verb not in WITHOUT_TLS:
            return name, self._say_tls_required, argument
        if settings.auth == "users" and self._user is None and verb not in WITHOUT_AUTH:
            return name, self._say_auth_required, argument
        return name, method.__get__(self), argument.strip(b" \t")

    def _erred(self, reply: bytes, verb: str, *, told: bool = False) -> bytes:
        """Count an error, and tell of it unless it was `told`; too many end the session."""
        self._errors += 1
        if not told:
            code, status, text = reply.decode("utf-8", "replace").rstrip().split(" ", 2)
            self._door.observer.observe(
                CommandRefused(self._settings.name, self._client, verb, int(code), status, sanitise(text, 200))
            )
        if self._errors >= self._settings.limits.errors and not self._ended:
            self._ended = "errors"
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
        """A bug of ours is a transient failure with a constant text; the session goes on."""
        self._report(error)
        self._transaction.reset()
        return replies.LOCAL_ERROR

    def _report(self, error: Exception) -> None:
        text = "".join(traceback.format_exception(error))
        self._door.observer.observe(ExceptionCaught("session", type(error).__name__, text))

    # Commands

    def smtp_HELO(self, argument: bytes) -> bytes:
        return self._greet(argument, esmtp=False) or b"250 %b\r\n" % self._hostname

    def smtp_EHLO(self, argument: bytes) -> bytes:
        return self._greet(argument, esmtp=True) or self._capabilities()

    def _greet(self, argument: bytes, *, esmtp: bool) -> bytes | None:
        if not argument:
            return replies.BAD_SYNTAX
        self._transaction.reset()
        self._helo = sanitise(argument[:255].decode("ascii", "replace")).replace("\ufffd", "?")
        self._esmtp = esmtp
        self._peer = None
        return None

    @property
    def _hostname(self) -> bytes:
        return self._settings.hostname.encode("ascii", "replace")

    def _capabilities(self) -> bytes:
        settings = self._settings
        lines = [
            self._hostname,
            b"SIZE %d" % settings.max_message_size,
            b"8BITMIME",
            b"SMTPUTF8",
            b"PIPELINING",
            b"DSN",
            b"ENHANCEDSTATUSCODES",
        ]
        if settings.tls == "starttls" and self._tls is None:
            lines.append(b"STARTTLS")
        if self._auth_offered:
            lines.append(b"AUTH " + OFFERED)
            lines.append(b"AUTH=" + OFFERED)  # what old Outlook looks for
        lines.append(b"HELP")
        return b"".join([b"250-%b\r\n" % line for line in lines[:-1]]) + b"250 %b\r\n" % lines[-1]

    @property
    def _auth_offered(self) -> bool:
        settings = self._settings
        if settings.auth == "none" or self._user is not None:
            return False
        return self._tls is not None if settings.tls != "none" else is_loopback(self._client)

    def smtp_MAIL(self, argument: bytes) -> bytes:
        settings = self._settings
        if settings.limits.messages is not None and self._messages >= settings.limits.messages:
            self._ended = "limit"
            return replies.TOO_MANY_MESSAGES
        if not self._door.space():
            return replies.STORE_FULL
        return self._transaction.mail(argument, largest=settings.max_message_size)

    def smtp_RCPT(self, argument: bytes) -> bytes:
        return self._transaction.rcpt(argument, most=self._settings.limits.recipients)

    def smtp_RSET(self, _argument: bytes) -> bytes:
        self._transaction.reset()
        return replies.OK

    def smtp_NOOP(self, _argument: bytes) -> bytes:
        return replies.OK

    def smtp_HELP(self, _argument: bytes) -> bytes:
        return replies.HELP

    def smtp_VRFY(self, argument: bytes) -> bytes:
        return replies.CANNOT_VERIFY if argument else replies.BAD_SYNTAX

    def smtp_EXPN(self, _argument: bytes) -> bytes:
        return replies.NOT_IMPLEMENTED

    def smtp_QUIT(self, _argument: bytes) -> bytes:
        self._ended = "quit"
        return replies.BYE

    def _unknown(self, _argument: bytes) -> bytes:
        return replies.UNKNOWN

    def _not_smtp(self, _argument: bytes) -> bytes:
        self._ended = "errors"
        self._door.observer.observe(ConnectionDenied(self._settings.name, self._client, "not_smtp"))
        return replies.NOT_SMTP

    def _say_tls_required(self, _argument: bytes) -> bytes:
        return replies.TLS_REQUIRED

    def _say_auth_required(self, _argument: bytes) -> bytes:
        return replies.AUTH_REQUIRED

    async def smtp_STARTTLS(self, argument: bytes) -> bytes:
        settings = self._settings
        if settings.tls != "starttls" or settings.tls_context is None:
            return replies.NOT_IMPLEMENTED
        if argument:
            return replies.BAD_SYNTAX
        if self._tls is not None:
            return replies.TLS_ALREADY
        self._write(replies.START_TLS)
        self._buffer.clear()  # what was sent in clear behind STARTTLS does not count (RFC 3207, section 4.2)
        self._in_handshake = True
        if self.transport is None:
            raise ConnectionResetError
        transport = await self.loop.start_tls(
            self.transport, self, settings.tls_context, server_side=True, ssl_handshake_timeout=HANDSHAKE
        )
        if transport is None:
            raise ConnectionResetError
        self._in_handshake = False
        self._reading = True
        self.transport = transport
        self._tls = _tls_text(transport)
        self._transaction.reset()
        self._helo, self._esmtp, self._user, self._peer = "", False, None, None
        return b""

    async def smtp_AUTH(self, argument: bytes) -> bytes:
        settings, door = self._settings, self._door
        if settings.auth == "none":
            return replies.NOT_IMPLEMENTED
        if self._user is not None:
            return replies.AUTHENTICATED_ALREADY
        if self._transaction.open:
            return replies.NO_AUTH_IN_MAIL
        if not self._auth_offered:
            return replies.AUTH_NEEDS_TLS
        if door.auth_tries.refuses(self._client, self.loop.time()):
            self._ended = "errors"
            return replies.AUTH_LATER
        tried = await authenticate(argument, self._ask, settings.verify if settings.auth == "users" else None)
        door.observer.observe(
            AuthenticationJudged(settings.name, self._client, sanitise(tried.user, 255), tried.mechanism, tried.result)
        )
        if tried.result == "ok":
            self._user, self._peer = sanitise(tried.user, 255), None
            return tried.reply
        return await self._auth_failed(tried)

    async def _auth_failed(self, tried: Tried) -> bytes:
        """Each answer comes a second later than the last; the fifth ends the session."""
        if tried.result == "bad":
            self._auth_failures += 1
            self._door.auth_tries.failed(self._client, self.loop.time())
            await asyncio.sleep(self._auth_failures * AUTH_PAUSE)
        if self._auth_failures >= 5:
            self._ended = "errors"
            return replies.TOO_MANY_AUTH_FAILURES
        return tried.reply

    async def _ask(self, challenge: bytes) -> bytes | None:
        await self.push(challenge)
        return await self._read_line()

    def smtp_DATA(self, argument: bytes) -> bytes:
        transaction = self._transaction
        if argument:
            return replies.BAD_SYNTAX
        if not transaction.open:
            return replies.NO_MAIL
        if not transaction.recipients:
            return replies.NO_RECIPIENT
        self._expect_content()
        return replies.START_DATA


_NOT_COUNTED = frozenset({"HELP", "EXPN"})
_NO_METHOD = ("other", None)
_METHODS: dict[bytes, tuple[str, Any]] = {
    name[5:].encode(): ("other" if name[5:] in _NOT_COUNTED else name[5:], method)
    for name, method in vars(Session).items()
    if name.startswith("smtp_")
}


async def _others_first() -> bytes:
    """Other sessions have their turn."""
    await asyncio.sleep(0)
    return b""


def _tls_text(transport: asyncio.BaseTransport) -> str:
    cipher = transport.get_extra_info("cipher")
    return f"{cipher[1]} {cipher[0]}" if cipher else "TLS"
