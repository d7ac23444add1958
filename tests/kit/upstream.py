"""A scripted SMTP upstream: raw asyncio, real sockets, real TLS; it does what the test says.

    async with ScriptedUpstream(users={"relay": "secret"}, tls="starttls", certificate=certificates.good) as upstream:
        upstream.script("rcpt", "450 4.7.1 greylisted")          # once; then all goes well again
        upstream.script("dot", DROP, times=None)                 # always
        ...deliver to upstream.host, upstream.port...
        received = await upstream.message(1)                     # the first message, byte for byte

Stages: banner, ehlo, starttls, tls, auth, mail, rcpt, data, body (the first octet of content came), dot, rset, quit;
with CHUNKING among the keywords also bdat (the command came, its chunk was not read; after a refusal there it is taken
for commands), and dot is the reply to the last chunk. After a BDAT that was refused, RSET is due.
A fault is a reply ("450 4.7.1 later", with or without CRLF; several lines joined by CRLF), raw `bytes`, `DROP`
(reset), `CLOSE` (orderly end), `SILENCE`, `half("250 o")`, `then_drop("421 bye")`, `STOP_READING` (the usual reply,
but nothing more is read until `read_on`), or a callable `(Session) -> fault | None`, None meaning: go on as usual.

`sender_allowed` sees each reverse-path ("" for <>), `content_allowed` each `Received`; a text they return is the reply.
`host` and `port`: where it listens, by default somewhere on 127.0.0.1. `longest_line`: the octets of the longest
command line that it takes, the response of AUTH aside.
`tokens` judges (user, token) of XOAUTH2; `token_error` is the JSON of the 334 that a bad one gets first, as at Google
(None: 535 at once, as at Microsoft).
`connections`, `open`, `auth_tries`, `commands`, `messages` tell what happened; `until(...)` waits for it.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from tests.kit.certificates import Certificate
from tests.kit.ports import port_for

KEYWORDS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "SIZE 52428800")


@dataclass(frozen=True)
class Act:
    """Send `reply`, then `go` on as usual, or "drop", "close", "silence", "stop-reading".

    `after_client`: only once the client has said something, which nobody looks at.
    """

    reply: bytes = b""
    then: str = "go"
    after_client: bool = False


DROP = Act(then="drop")
CLOSE = Act(then="close")
SILENCE = Act(then="silence")
STOP_READING = Act(then="stop-reading")


def half(text: str) -> Act:
    """A reply without its end, then a reset."""
    return Act(text.encode(), "close")


def then_drop(text: str) -> Act:
    return Act(text.encode() + b"\r\n", "close")


Fault = Act | str | bytes | Callable[["Session"], Any]


@dataclass(frozen=True)
class Received:
    """`mail_parameters` and `rcpt_parameters` are raw, upper or lower as they came; `content` is unstuffed."""

    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes
    mail_parameters: tuple[str, ...] = ()
    rcpt_parameters: tuple[tuple[str, ...], ...] = ()
    user: str | None = None
    tls: bool = False
    connection: int = 0


@dataclass
class AuthTry:
    mechanism: str
    username: str
    password: str
    encrypted: bool
    accepted: bool


@dataclass
class Session:
    """One connection, as the callables of a script see it."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    wire: asyncio.Transport
    encrypted: bool = False
    buffer: bytearray = field(default_factory=bytearray)
    user: str | None = None
    reverse_path: str | None = None
    mail_parameters: tuple[str, ...] = ()
    recipients: list[str] = field(default_factory=list)
    rcpt_parameters: list[tuple[str, ...]] = field(default_factory=list)
    chunk_refused: bool = False

    def forget(self) -> None:
        self.reverse_path = None
        self.recipients = []
        self.rcpt_parameters = []


class _Over(Exception):
    """The connection ends."""


class ScriptedUpstream:
    """See the top of the module."""

    def __init__(
        self,
        *,
        tls: str = "none",
        certificate: Certificate | None = None,
        keywords: tuple[str, ...] = KEYWORDS,
        users: Mapping[str, str] | None = None,
        mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN", "CRAM-MD5"),
        tokens: Callable[[str, str], bool] | None = None,
        token_error: Mapping[str, str] | None = None,
        sender_allowed: Callable[[str], str | None] | None = None,
        content_allowed: Callable[[Received], str | None] | None = None,
        receive_buffer: int | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
        longest_line: int = 2**17,
    ) -> None:
        self.tls = tls
        self.keywords = keywords
        self.users = dict(users) if users is not None else {} if tokens is not None else None
        self.mechanisms = mechanisms if tokens is None else (*mechanisms, "XOAUTH2")
        self.tokens = tokens
        self.token_error = token_error
        self.sender_allowed = sender_allowed
        self.content_allowed = content_allowed
        self.messages: list[Received] = []
        self.auth_tries: list[AuthTry] = []
        self.commands: list[str] = []
        self.connections = 0
        self.open = 0
        self.resets = 0
        self.chunks = 0  # messages that came by BDAT to somebody, taken or not
        self.pause = 0.0  # seconds before each read, which then takes at most 64 KiB: a slow upstream
        self.rest = b""  # content of a transaction that never came to its dot
        self.host = host
        self.port = port or port_for(self)
        self.longest_line = longest_line
        self._context = certificate.server() if certificate is not None else None
        self._receive_buffer = receive_buffer
        self._scripts: dict[str, list[tuple[Fault, bool]]] = {}
        self._changed = asyncio.Condition()
        self._paused: list[Session] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._fillers: list[socket.socket] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> ScriptedUpstream:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go_down()

    async def _listen(self) -> None:
        # asyncio sets TCP_NODELAY only on sockets that say they are TCP.
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._receive_buffer is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        listening.bind((self.host, self.port))
        self._server = await asyncio.start_server(self._connected, sock=listening, limit=2**18)

    async def go_down(self) -> None:
        """Connections end, and new ones are refused."""
        await self.stop_listening()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def come_back(self, certificate: Certificate | None = None) -> None:
        """After `go_down`: at the same port, with another certificate if one is given."""
        await self.stop_listening()
        if certificate is not None:
            self._context = certificate.server()
        await self._listen()

    async def let_nobody_in(self) -> None:
        """New connections are neither taken nor refused, as behind a firewall; `come_back` ends it."""
        await self.stop_listening()
        full = socket.socket()
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        full.bind((self.host, self.port))
        full.listen(0)
        self._fillers = [full, *(socket.socket() for _ in range(4))]
        for filler in self._fillers[1:]:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())

    async def stop_listening(self) -> None:
        """New connections are refused from here on."""
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        if self._server is not None:
            self._server.close()
            self._server = None
            await asyncio.sleep(0)

    def script(self, stage: str, *faults: Fault, times: int | None = 1) -> None:
        """Do `faults` in turn at the next occasions of `stage`; each `times` times, or (None) for ever."""
        queue = self._scripts.setdefault(stage, [])
        for fault in faults:
            queue.extend([(fault, times is None)] * (times or 1))

    def unscript(self, stage: str) -> None:
        """As usual again."""
        self._scripts.pop(stage, None)

    def read_on(self) -> None:
        """Connections that stopped reading go on."""
        for session in self._paused:
            session.wire.resume_reading()
        self._paused.clear()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it is looked at whenever something happens here."""
        async with self._changed:
            await self._changed.wait_for(condition)

    async def message(self, number: int = 1) -> Received:
        """The message of that number, counted from 1, as soon as it is there."""
        await self.until(lambda: len(self.messages) >= number)
        return self.messages[number - 1]

    # Below: the server

    async def _note(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        session = Session(self.connections, reader, writer, cast(asyncio.Transport, writer.transport))
        try:
            await self._note()
            await self._speak(session)
        except (_Over, OSError, EOFError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            self.open -= 1
            session.writer.transport.abort()
            await self._note()

    async def _speak(self, session: Session) -> None:
        if self.tls == "implicit":
            await self._encrypt(session)
        await self._act(session, "banner", "220 upstream.example ESMTP")
        while True:
            line = (await self._line(session)).decode("utf-8", "surrogateescape")
            verb, _, argument = line.partition(" ")
            self.commands.append(line)
            await self._note()
            method = getattr(self, f"_on_{verb.lower()}", None)
            if len(line) + 2 > self.longest_line:
                await self._send(session, b"500 5.5.2 Line too long\r\n")
            elif method is None:
                await self._send(session, b"500 5.5.2 what?\r\n")
            else:
                await method(session, argument)

    async def _line(self, session: Session) -> bytes:
        while (end := session.buffer.find(b"\r\n")) < 0:
            await self._read(session)
            if len(session.buffer) > 2**17:
                raise _Over
        line = bytes(session.buffer[:end])
        del session.buffer[: end + 2]
        return line

    async def _read(self, session: Session) -> None:
        if self.pause:
            await asyncio.sleep(self.pause)
        received = await session.reader.read(2**16 if self.pause else 2**18)
        if not received:
            raise EOFError
        session.buffer += received

    async def _send(self, session: Session, data: bytes) -> None:
        session.writer.write(data)
        await session.writer.drain()

    async def _act(self, session: Session, stage: str, usual: str) -> bool:
        """Do what the script says, or give the usual reply. True when the reply was a positive one."""
        fault: Fault | None = None
        queue = self._scripts.get(stage)
        if queue:
            fault, for_ever = queue[0]
            if not for_ever:
                queue.pop(0)
            if callable(fault):
                fault = fault(session)
        if isinstance(fault, str):
            fault = Act(fault.encode() + (b"" if fault.endswith("\r\n") else b"\r\n"))
        elif isinstance(fault, bytes):
            fault = Act(fault)
        if fault == STOP_READING:
            session.wire.pause_reading()
            self._paused.append(session)
            fault = None
        if fault is None:
            if usual:
                await self._send(session, usual.encode() + b"\r\n")
            return usual[:1] in ("2", "3")
        assert isinstance(fault, Act)
        if fault.after_client:
            await self._read(session)
        if fault.reply:
            await self._send(session, fault.reply)
        match fault.then:
            case "drop":
                self._reset(session)
                raise _Over
            case "close":
                session.writer.close()
                raise _Over
            case "silence":
                while True:
                    await self._read(session)
                    session.buffer.clear()
        return fault.reply[:1] in (b"2", b"3")

    def _reset(self, session: Session) -> None:
        sock = session.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        session.writer.transport.abort()

    async def _on_ehlo(self, session: Session, _: str) -> None:
        session.forget()
        words = ["upstream.example", *self.keywords]
        if self.tls == "starttls" and not session.encrypted:
            words.append("STARTTLS")
        if self.users is not None:
            words.append("AUTH " + " ".join(self.mechanisms))
        lines = [f"250{'-' if n < len(words) else ' '}{word}" for n, word in enumerate(words, 1)]
        await self._act(session, "ehlo", "\r\n".join(lines))

    async def _on_helo(self, session: Session, _: str) -> None:
        session.forget()
        await self._send(session, b"250 upstream.example\r\n")

    async def _on_starttls(self, session: Session, _: str) -> None:
        if await self._act(session, "starttls", "220 2.0.0 go on"):
            await self._encrypt(session)

    async def _encrypt(self, session: Session) -> None:
        await self._act(session, "tls", "")
        assert self._context is not None
        await session.writer.start_tls(self._context, ssl_handshake_timeout=5)
        session.encrypted = True
        session.forget()

    async def _on_auth(self, session: Session, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        username = password = ""
        good = False
        assert self.users is not None
        match mechanism.upper():
            case "PLAIN":
                parts = base64.b64decode(initial or await self._challenge(session, b"")).split(b"\0")
                username, password = parts[1].decode(), parts[2].decode()
                good = self.users.get(username) == password
            case "LOGIN":
                username = base64.b64decode(initial or await self._challenge(session, b"Username:")).decode()
                password = base64.b64decode(await self._challenge(session, b"Password:")).decode()
                good = self.users.get(username) == password
            case "CRAM-MD5":
                challenge = b"<1.2@upstream.example>"
                answer = base64.b64decode(await self._challenge(session, challenge)).decode()
                username, _, password = answer.rpartition(" ")
                expected = hmac.new(self.users.get(username, "").encode(), challenge, "md5").hexdigest()
                good = username in self.users and expected == password
            case "XOAUTH2":
                parts = base64.b64decode(initial or await self._challenge(session, b"")).split(b"\x01")
                username = parts[0].decode().removeprefix("user=")
                password = parts[1].decode().removeprefix("auth=Bearer ")
                good = self.tokens is not None and parts[2:] == [b"", b""] and self.tokens(username, password)
                if not good and self.token_error is not None:
                    ended = await self._challenge(session, json.dumps(self.token_error).encode())
                    assert ended == b"", "the client has to send an empty line"
        self.auth_tries.append(AuthTry(mechanism.upper(), username, password, session.encrypted, good))
        refusal = "535 5.7.8 wrong name or password"
        if mechanism.upper() == "XOAUTH2" and self.token_error is None:
            refusal = "535 5.7.3 Authentication unsuccessful"
        usual = "235 2.7.0 welcome" if good else refusal
        if await self._act(session, "auth", usual) and good:
            session.user = username

    async def _challenge(self, session: Session, text: bytes) -> bytes:
        await self._send(session, b"334 " + base64.b64encode(text) + b"\r\n")
        return await self._line(session)

    async def _on_mail(self, session: Session, argument: str) -> None:
        path, parameters = _path(argument)
        refusal = self.sender_allowed(path) if self.sender_allowed else None
        if session.reverse_path is not None or session.chunk_refused:
            refusal = "503 5.5.1 nested MAIL"
        elif self.users is not None and session.user is None:
            refusal = "530 5.7.0 authentication required"
        if await self._act(session, "mail", refusal or "250 2.1.0 sender ok"):
            session.reverse_path, session.mail_parameters = path, parameters

    async def _on_rcpt(self, session: Session, argument: str) -> None:
        path, parameters = _path(argument)
        usual = "503 5.5.1 MAIL first" if session.reverse_path is None else "250 2.1.5 recipient ok"
        if await self._act(session, "rcpt", usual) and session.reverse_path is not None:
            session.recipients.append(path)
            session.rcpt_parameters.append(parameters)

    async def _on_data(self, session: Session, _: str) -> None:
        usual = "354 go ahead" if session.recipients else "554 5.5.1 no valid recipients"
        if not await self._act(session, "data", usual):
            return
        await self._judge(session, await self._content(session))

    async def _on_bdat(self, session: Session, argument: str) -> None:
        if "CHUNKING" not in self.keywords:
            await self._send(session, b"500 5.5.2 what?\r\n")
            return
        size, _, last = argument.partition(" ")
        assert last == "LAST", "a message is one chunk"
        if self._scripts.get("bdat") and not await self._act(session, "bdat", ""):
            return
        chunk = await self._chunk(session, int(size))
        if not session.recipients:
            session.chunk_refused = True
            await self._act(session, "dot", "503 5.5.1 no valid recipients")
        else:
            self.chunks += 1
            session.chunk_refused = not await self._judge(session, chunk)

    async def _chunk(self, session: Session, size: int) -> bytes:
        data = session.buffer
        try:
            if self._scripts.get("body"):
                while not data:
                    await self._read(session)
                await self._act(session, "body", "")
            while len(data) < size:
                await self._read(session)
        except (OSError, EOFError):
            self.rest = bytes(data)
            raise
        chunk = bytes(data[:size])
        del data[:size]
        return chunk

    async def _judge(self, session: Session, content: bytes) -> bool:
        """The answer to the content; True when it was taken."""
        received = Received(
            session.reverse_path or "",
            tuple(session.recipients),
            content,
            session.mail_parameters,
            tuple(session.rcpt_parameters),
            session.user,
            session.encrypted,
            session.number,
        )
        refusal = self.content_allowed(received) if self.content_allowed else None
        if not received.recipients:
            refusal = "554 5.5.1 no valid recipients"
        number = len(self.messages) + 1
        session.forget()
        if refusal is None:
            # What is accepted is kept before it is said, as elsewhere.
            position = len(self.messages)
            self.messages.append(received)
            taken = await self._act(session, "dot", f"250 2.0.0 queued as {number}")
            if not taken:
                self.messages.pop(position)
        else:
            taken = await self._act(session, "dot", refusal)
        await self._note()
        return taken

    async def _content(self, session: Session) -> bytes:
        """Everything up to CRLF.CRLF, unstuffed."""
        data = session.buffer
        data[:0] = b"\r\n"
        self.rest = b""
        try:
            if self._scripts.get("body"):
                while len(data) < 3:
                    await self._read(session)
                await self._act(session, "body", "")
            seen = 0
            while (end := data.find(b"\r\n.\r\n", seen)) < 0:
                seen = max(0, len(data) - 4)
                await self._read(session)
        except (OSError, EOFError):
            self.rest = bytes(data[2:])
            raise
        content = bytes(data[: end + 2]).replace(b"\r\n.", b"\r\n")[2:]
        del data[: end + 5]
        return content

    async def _on_rset(self, session: Session, _: str) -> None:
        session.forget()
        session.chunk_refused = False
        self.resets += 1
        await self._act(session, "rset", "250 2.0.0 ok")

    async def _on_noop(self, session: Session, _: str) -> None:
        await self._send(session, b"250 2.0.0 ok\r\n")

    async def _on_quit(self, session: Session, _: str) -> None:
        await self._act(session, "quit", "221 2.0.0 bye")
        session.writer.close()
        raise _Over


def _path(argument: str) -> tuple[str, tuple[str, ...]]:
    """The path in FROM:<…> or TO:<…>, and the parameters behind it."""
    _, _, rest = argument.partition(":<")
    quoted = False
    for position, character in enumerate(rest):
        if character == '"' and (position == 0 or rest[position - 1] != "\\"):
            quoted = not quoted
        if character == ">" and not quoted:
            return rest[:position], tuple(rest[position + 1 :].split())
    return rest, ()
