"""HTTP/1.1 over TCP or a Unix socket, for few clients with small requests: h11 on asyncio's streams.

What a peer can cost is bounded by `Limits`: connections at once, octets of a request, and the time of whatever waits
for the peer. When all places are taken, a newcomer gets that of the connection which waits for its peer and has asked
for nothing for the longest time. So who asks and takes the answer gets through, beside any number of connections that
are silent or slow or never read; only while all are being answered a newcomer is closed. Peers that are not known have
places of their own.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import field, replace
from email.utils import formatdate
from http import HTTPStatus
from itertools import count
from typing import TypeVar
from urllib.parse import parse_qsl, unquote

import h11

from relay.values import frozen

T = TypeVar("T")

_log = logging.getLogger("web")

BACKLOG = 64  # connections that may be waiting to be accepted
_READ, _WRITE = 4 * 1024, 64 * 1024  # octets at a time
_CLOSING = 1.0  # seconds that requests under way get when the server closes


@frozen
class Limits:
    """What peers may cost: connections at once, octets of one request, and seconds."""

    connections: int = 32
    strangers: int = 8  # connections of peers that are not known
    head: int = 8 * 1024
    fields: int = 32
    body: int = 64 * 1024
    silence: float = 30.0  # from connecting, or from the last answer, until the next head is there
    sending: float = 30.0  # until the body is there
    taking: float = 10.0  # until the next 64 KiB of an answer have left
    lingering: float = 1.0  # after the last answer, until the peer closes


class TooLong(Exception):
    """The body has more octets than it may have: "at most 65536 octets"."""


@frozen
class Request:
    """A request whose head is complete.

    `path` is decoded and begins with a slash. `headers` has names in lower case, and the last of equal ones. `peer` is
    an address, or "" where there is none. `body` is called once at most; it raises TooLong and TimeoutError.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    peer: str
    body: Callable[[], Awaitable[bytes]]


@frozen
class Response:
    """An answer. Where `body` makes pieces, each leaves as soon as it is made; it is closed in any case."""

    status: int
    content_type: str
    body: bytes | AsyncGenerator[bytes, None]
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Callable[[Request], Awaitable[Response]]
Refusal = Callable[[int, str], Response]
"""From a status and a sentence to the answer for what is no request (400, 408), and for a bug (500)."""


async def serve(
    where: tuple[str, int] | socket.socket,
    answer: Answer,
    refusal: Refusal,
    *,
    known: Callable[[str], bool] = lambda _: True,
    limits: Limits = Limits(),  # noqa: B008  # it is frozen
) -> Server:
    """Serve on a host and a port, or on a Unix socket that is bound. `known` says of which addresses peers are known.

    Raises OSError when that is not possible.
    """
    server = Server(answer, refusal, known, limits)
    await server.listen(where)
    return server


class Server:
    """The running server. `port` is the one in use, also where 0 was asked for; it is 0 on a Unix socket."""

    def __init__(self, answer: Answer, refusal: Refusal, known: Callable[[str], bool], limits: Limits) -> None:
        self.answer = answer
        self.refusal = refusal
        self.limits = limits
        self.stopping = False
        self.port = 0
        self.order = count()
        self._known = known
        self._open: dict[bool, set[_Connection]] = {True: set(), False: set()}  # by whether the peer is known

    async def listen(self, where: tuple[str, int] | socket.socket) -> None:
        if isinstance(where, socket.socket):
            self._server = await asyncio.start_unix_server(self._arrived, sock=where, limit=_READ, backlog=BACKLOG)
        else:
            self._server = await asyncio.start_server(self._arrived, *where, limit=_READ, backlog=BACKLOG)
            self.port = self._server.sockets[0].getsockname()[1]

    def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("peername")
        peer = address[0] if isinstance(address, tuple) else ""
        known = self._known(peer)
        if self.stopping or not self._has_place(known):
            writer.transport.abort()
            return
        connection = _Connection(self, reader, writer, peer)
        self._open[known].add(connection)

        def ended(_: asyncio.Task[None]) -> None:  # also of a task that was cancelled before it began
            self._open[known].discard(connection)
            writer.transport.abort()

        connection.task.add_done_callback(ended)

    def _has_place(self, known: bool) -> bool:
        """Whether there is a place for one more, or one was made."""
        taken, most = self._open[known], self.limits.connections if known else self.limits.strangers
        if len(taken) < most:
            return True
        waiting = [connection for connection in taken if connection.waits]
        if not waiting:
            return False
        longest = min(waiting, key=lambda connection: connection.asked)
        taken.discard(longest)
        longest.task.cancel()
        return True

    async def close(self) -> None:
        """Stop listening, give requests under way a second, close connections."""
        self.stopping = True
        self._server.close()
        connections = [*self._open[True], *self._open[False]]
        for connection in connections:
            if connection.between_requests:
                connection.task.cancel()
        if tasks := [connection.task for connection in connections]:
            await asyncio.wait(tasks, timeout=_CLOSING)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await self._server.wait_closed()


class _Gone(Exception):
    """The peer is gone, or does not take its answer."""


class _Connection:
    """A connection and the task that serves it. `waits`: for the peer. `asked`: in which order they last did."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str) -> None:
        self._server = server
        self._limits = server.limits
        self._reader = reader
        self._writer = writer
        self._peer = peer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=server.limits.head)
        self.waits = True
        self.asked = next(server.order)
        writer.transport.set_write_buffer_limits(high=0)  # what is drained has left, and can be followed by a close
        self.task = asyncio.create_task(self._run())

    @property
    def between_requests(self) -> bool:
        return self._http.our_state is h11.IDLE

    async def _run(self) -> None:
        try:
            while await self._exchange():
                self._http.start_next_cycle()
            await self._linger()
        except _Gone:
            pass
        except Exception:  # noqa: BLE001  # bulkhead: an answer broke off, and the peer sees that it did
            _log.exception("Error handling request")

    async def _exchange(self) -> bool:
        """Answer a request; whether another may follow."""
        try:
            async with asyncio.timeout(self._limits.silence):
                head = await self._event()
        except TimeoutError:
            began = bool(self._http.trailing_data[0])
            return began and await self._send(self._refusal(408, "the request never ended"))
        except h11.RemoteProtocolError:
            return await self._send(self._not_understood())
        if not isinstance(head, h11.Request):
            return False
        self.asked = next(self._server.order)
        return await self._send(await self._answer(head), with_body=head.method != b"HEAD")

    async def _answer(self, head: h11.Request) -> Response:
        size = len(head.target) + sum(len(name) + len(value) for name, value in head.headers)
        if size > self._limits.head or len(head.headers) > self._limits.fields:
            return self._not_understood()
        try:
            return await self._server.answer(self._request(head))
        except h11.RemoteProtocolError:
            return self._not_understood()
        except Exception:  # noqa: BLE001  # bulkhead: a bug is an answer and an event
            _log.exception("Error handling request")
            return self._refusal(500, "an unexpected error; the log of the relay has it")

    def _not_understood(self) -> Response:
        return self._refusal(400, "this is not a request we understand")

    def _refusal(self, status: int, sentence: str) -> Response:
        response = self._server.refusal(status, sentence)
        return replace(response, headers={**response.headers, "Connection": "close"})

    # From the peer

    def _request(self, head: h11.Request) -> Request:
        target = head.target.decode("ascii")
        if not target.startswith("/"):  # RFC 9112, section 3.2.2: "http://host/path" is understood as well
            target = "/" + target.partition("://")[2].partition("/")[2]
        path, _, query = target.partition("?")
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        length = int(headers.get("content-length", "0"))
        return Request(
            method=head.method.decode("ascii"),
            path=unquote(path),
            query=tuple(parse_qsl(query, keep_blank_values=True)),
            headers=headers,
            peer=self._peer,
            body=lambda: self._body(length),
        )

    async def _body(self, length: int) -> bytes:
        too_long = TooLong(f"at most {self._limits.body} octets")
        if length > self._limits.body:
            raise too_long
        if self._http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            self._say(self._http.send(go_on))
        body = bytearray()
        async with asyncio.timeout(self._limits.sending):
            while isinstance(event := await self._event(), h11.Data):
                body += event.data
                if len(body) > self._limits.body:
                    raise too_long
        return bytes(body)

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._patiently(self._read()))
        return event

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(_READ)
        except OSError:
            return b""

    async def _patiently(self, awaited: Awaitable[T]) -> T:
        """Await what the peer has to do; meanwhile its place may be given to another."""
        self.waits = True
        try:
            return await awaited
        finally:
            self.waits = False

    # To the peer

    async def _send(self, response: Response, *, with_body: bool = True) -> bool:
        """Send the answer to a request; whether another may follow."""
        headers = {
            "Content-Type": response.content_type,
            "Server": "relay",
            "Date": formatdate(usegmt=True),
            "Cache-Control": "no-store",
            **response.headers,
        }
        body = response.body
        if isinstance(body, bytes):
            headers["Content-Length"] = str(len(body))
            body = _pieces(body)
        if self._server.stopping or not self._is_whole():
            headers["Connection"] = "close"
        reason = HTTPStatus(response.status).phrase
        octets = self._http.send(h11.Response(status_code=response.status, headers=[*headers.items()], reason=reason))
        async with aclosing(body):
            if with_body:
                async for piece in body:
                    await self._write(octets + self._http.send(h11.Data(data=piece)))
                    octets = b""
        await self._write(octets + self._http.send(h11.EndOfMessage()))
        return self._http.our_state is h11.DONE

    def _is_whole(self) -> bool:
        """Whether all of the request is there; what nobody wanted of its body is dropped."""
        try:
            while self._http.their_state is h11.SEND_BODY and self._http.next_event() is not h11.NEED_DATA:
                pass
        except h11.RemoteProtocolError:
            pass
        return self._http.their_state is h11.DONE

    def _say(self, octets: bytes) -> None:
        if not self._writer.is_closing():  # else it is a RuntimeError of uvloop
            self._writer.write(octets)

    async def _write(self, octets: bytes) -> None:
        self._say(octets)
        try:
            async with asyncio.timeout(self._limits.taking):
                await self._patiently(self._drain())
        except OSError:
            raise _Gone from None

    async def _drain(self) -> None:
        await self._writer.drain()
        await asyncio.sleep(0)  # where the kernel takes everything at once, mail has its turn

    async def _linger(self) -> None:
        """Read on until the peer closes: a close before would take the answer from it (RFC 9112, section 9.6)."""
        if self._writer.is_closing():
            return
        try:
            self._writer.write_eof()
            async with asyncio.timeout(self._limits.lingering):
                while await self._patiently(self._read()):
                    pass
        except OSError:
            pass


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), _WRITE):
        yield body[start : start + _WRITE]
