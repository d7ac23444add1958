"""The doorstep: where a load balancer says whom it speaks for, before the session (and its TLS) begins.

From a load balancer that the listener lists, the header must come first, whole, and within `PATIENCE`; from
anybody else it is no header, just an unknown command. A connection of the load balancer itself (its
health checks) is judged by its own address, and ends without a word in the log where that may not send.

Theory of operation: the loop reads into a buffer of the size that the header still lacks, so what is behind
it stays in the socket, for the session or for its handshake.
"""

from __future__ import annotations

import asyncio
from typing import Any

from relay.events import ConnectionDenied
from relay.ingress import replies
from relay.ingress.door import Door
from relay.ingress.proxy import BadHeader, HeaderReader
from relay.ingress.session import Session
from relay.policy.client import LOCAL, allowed, plain

PATIENCE = 5.0  # seconds until the header must be complete


class Doorstep(asyncio.BufferedProtocol):
    """One connection, until a session takes it over; it is in `waiting` so long."""

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop, waiting: set[Doorstep]) -> None:
        self._door = door
        self._settings = door.settings
        self._loop = loop
        self._waiting = waiting
        self._header = HeaderReader()
        self._buffer = bytearray()
        self._transport: Any = None
        self._peer = ""  # the other end of the connection
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        peername = transport.get_extra_info("peername")
        self._peer = plain(peername[0]) if isinstance(peername, tuple) else LOCAL
        if not allowed(self._peer, self._settings.proxy_protocol):
            self._let_in(self._peer)
        elif len(self._waiting) >= self._settings.limits.sessions:
            self._deny("denied_limit")
        else:
            self._waiting.add(self)
            self._timer = self._loop.call_later(PATIENCE, self._too_late)

    def get_buffer(self, _sizehint: int) -> bytearray:
        self._buffer = bytearray(self._header.wanted)
        return self._buffer

    def buffer_updated(self, count: int) -> None:
        try:
            header = self._header.feed(bytes(self._buffer[:count]))
        except BadHeader as error:
            self._deny("not_smtp", str(error))
            return
        if header is None:
            return
        settings = self._settings
        if header.client is None and not allowed(self._peer, settings.allow):  # a health check, which is no news
            if settings.tls != "implicit":
                self._transport.write(replies.NOT_ALLOWED)
            self._transport.close()
            return
        self._let_in(header.client or self._peer)

    def eof_received(self) -> bool:
        return False  # it looked whether somebody listens; close

    def connection_lost(self, _error: Exception | None) -> None:
        self._leave()

    def abort(self) -> None:
        self._transport.abort()

    def _let_in(self, client: str) -> None:
        self._leave()
        session = Session(self._door, self._loop, client)
        # The loop chose how to read when reading began; it chooses anew when it begins again.
        self._transport.pause_reading()
        self._transport.set_protocol(session)
        self._transport.resume_reading()
        session.connection_made(self._transport)

    def _too_late(self) -> None:
        what = "the PROXY header did not come to its end" if self._header.begun else "no PROXY header came"
        self._deny("not_smtp", f"{what} within {PATIENCE:.0f} s (does the load balancer send one?)")

    def _deny(self, reason: str, text: str = "") -> None:
        self._door.observer.observe(ConnectionDenied(self._settings.name, self._peer, reason, text))
        self._transport.abort()

    def _leave(self) -> None:
        self._waiting.discard(self)
        if self._timer is not None:
            self._timer.cancel()
