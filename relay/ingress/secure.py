"""What makes a session more than a stranger's: TLS (RFC 3207, RFC 8314) and AUTH (RFC 4954).

Implicit TLS is begun here as well, with the first octet that comes: a handshake that fails is told, a
connection that never says anything is not one. Nothing said in clear counts inside TLS.
"""

from __future__ import annotations

import asyncio
import math
import ssl

from relay.events import AuthenticationJudged
from relay.ingress import cures, replies
from relay.ingress.authenticate import Tried, authenticate
from relay.ingress.bdat import Chunking
from relay.ingress.door import Door
from relay.mail.quirk import Quirk
from relay.mail.reply import sanitise
from relay.policy.client import is_loopback

HANDSHAKE = 30.0
AUTH_PAUSE = 1.0  # seconds that each bad AUTH adds to the wait for the answer to the next


class Secured(Chunking):
    """The part of a session that does TLS and AUTH."""

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(door, loop)
        self._in_handshake = False
        self._auth_failures = 0

    # TLS

    async def _begin_tls(self) -> bool:
        """Implicit TLS; False when the client left, or let its time run out, before it said anything."""
        self._in_handshake = True
        self._expect(min(HANDSHAKE, self._settings.limits.command))
        while not self._buffer:
            if self._over or self._ended:
                return False
            await self._wait()
        self._deadline = math.inf  # the handshake has a time of its own
        context, transport = self._settings.tls_context, self.transport
        if context is None or transport is None:
            raise ConnectionResetError
        handshake = self.loop.create_task(self._shake_hands(context))
        await asyncio.sleep(0)  # now the protocol of TLS has the transport; what came before is handed on to it
        protocol, early = transport.get_protocol(), bytes(self._buffer)
        self._buffer.clear()
        if protocol is not self:
            _hand_on(early, protocol)
        await handshake
        return True

    async def smtp_STARTTLS(self, argument: bytes) -> bytes:
        settings = self._settings
        if settings.tls != "starttls" or settings.tls_context is None:
            if self._tls is None:
                self._cure = cures.NO_STARTTLS
                self._transaction.quirks.add(Quirk.WANTS_STARTTLS)
            return replies.NOT_IMPLEMENTED
        if argument:
            return replies.BAD_SYNTAX
        if self._tls is not None:
            return replies.TLS_ALREADY
        await self._forget_chunks(b"")
        self._write(replies.START_TLS)
        self._buffer.clear()  # what was sent in clear behind STARTTLS does not count (RFC 3207, section 4.2)
        self._in_handshake = True
        await self._shake_hands(settings.tls_context)
        self._transaction.reset()
        self.session, self._peer = self._create_session(), None
        return b""

    async def _shake_hands(self, context: ssl.SSLContext) -> None:
        if self.transport is None:
            raise ConnectionResetError
        transport = await self.loop.start_tls(
            self.transport, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE
        )
        if transport is None:
            raise ConnectionResetError
        self._in_handshake = False
        self._reading = True
        self.transport = transport
        cipher = transport.get_extra_info("cipher")
        self._tls = f"{cipher[1]} {cipher[0]}" if cipher else "TLS"

    # AUTH

    @property
    def _auth_offered(self) -> bool:
        settings = self._settings
        if settings.auth == "none" or self.session.auth_data is not None:
            return False
        return self._tls is not None if settings.tls != "none" else is_loopback(self._client)

    async def smtp_AUTH(self, argument: bytes) -> bytes:
        settings, door = self._settings, self._door
        if settings.auth == "none":
            self._cure = cures.NO_AUTH
            self._transaction.quirks.add(Quirk.WANTS_AUTH)
            return replies.NOT_IMPLEMENTED
        if self.session.auth_data is not None:
            return replies.AUTHENTICATED_ALREADY
        if self._transaction.open:
            return replies.NO_AUTH_IN_MAIL
        if not self._auth_offered:
            self._cure = cures.of_auth_in_clear(settings.tls)
            return replies.AUTH_NEEDS_TLS
        if door.auth_tries.refuses(self._client, self.loop.time()):
            self._ended = "errors"
            return replies.AUTH_LATER
        tried = await authenticate(argument, self._ask, settings.verify if settings.auth == "users" else None)
        door.observer.observe(
            AuthenticationJudged(settings.name, self._client, sanitise(tried.user, 255), tried.mechanism, tried.result)
        )
        if tried.result == "ok":
            self._peer = None
            self.session.auth_data = sanitise(tried.user, 255)  # type: ignore[assignment]  # anything, says aiosmtpd
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
        """Send `challenge`; the client's line, or None when the session ends."""
        self._expect(self._settings.limits.command)
        await self.push(challenge)
        while (line := self._next_line()) is None:
            if self._over or self._ended or self._door.stopping:
                return None
            await self._wait()
        self._deadline = math.inf
        return line


def _hand_on(octets: bytes, protocol: asyncio.BufferedProtocol) -> None:
    """`protocol` gets what arrived before the transport was its own."""
    while octets:
        buffer = memoryview(protocol.get_buffer(len(octets)))
        length = min(len(buffer), len(octets))
        buffer[:length] = octets[:length]
        protocol.buffer_updated(length)
        octets = octets[length:]
