"""The way out to a vendor's HTTPS endpoint: dial, TLS, key; then `exchange` takes over. `docs/vendor-endpoint.md` is
the contract with the vendor.

The URL comes from the configuration, never from a message. What it promises before a request goes out:

- The name does not lead to an address of the link or of a cloud's metadata, unless that is allowed.
- The certificate is valid for the name, by the system's authorities or the configured one; where keys are pinned,
  its key is one of them.
- Secrets are read anew for each connection, and after a reload there is a new one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import cast

from relay.errors import RelayError
from relay.events import Observer, UpstreamConnected
from relay.mail.outcome import Deferred, Stage, Trouble
from relay.policy.link_local import is_link_local
from relay.transport import dial, pin
from relay.transport.credentials import Auth, Credentials
from relay.transport.exchange import HttpsConnection, Terms, Wire
from relay.transport.stopped import Stopped, reason, stop
from relay.transport.tls import TlsContext, TlsTerms, end_of, explain
from relay.values import frozen


@frozen
class HttpsSettings:
    """One upstream. `secret` reveals what `auth` needs, is asked at each connect, and may raise RelayError.

    `tls_pin`: see `pin`; none: any key. `connect`: seconds for all until TLS is there.
    """

    name: str
    port: int
    terms: Terms
    auth: Auth
    username: str | None = field(repr=False)
    secret: Callable[[], str] | None = field(repr=False)
    auth_header: str | None
    tls_ca: str | None
    tls_certificate: str | None
    tls_key: str | None
    tls_pin: tuple[str, ...]
    link_local: bool
    connect: float


class HttpsTransport:
    """An https upstream (`port.Transport`)."""

    size_limit: int | None = None

    def __init__(self, settings: HttpsSettings, *, observer: Observer) -> None:
        self._settings = settings
        self._observer = observer
        self._dialer = dial.Dialer(settings.terms.host, settings.port)
        self._tls = TlsContext(TlsTerms(True, settings.tls_ca, settings.tls_certificate, settings.tls_key))
        self._reloads = 0

    @property
    def name(self) -> str:
        return self._settings.name

    def reload(self) -> None:
        """Certificates and secrets are read anew; connections with the old ones carry nothing more."""
        self._tls.reload()
        self._reloads += 1

    async def connect(self) -> HttpsConnection | Deferred:
        """A connection past TLS, or how far it came. Raises nothing for what an endpoint or a network does."""
        settings, reloads = self._settings, self._reloads
        try:
            credentials = self._credentials()
            wire, certificate = await self._open(asyncio.get_running_loop().time() + settings.connect)
        except Stopped as stopped:
            return stopped.outcome
        self._observer.observe(UpstreamConnected(self.name, end_of(certificate)))
        return HttpsConnection(wire, settings.terms, credentials, lambda: reloads == self._reloads)

    def _credentials(self) -> Credentials:
        settings = self._settings
        try:
            secret = settings.secret() if settings.secret is not None else ""
        except RelayError as error:
            stop(Stage.AUTH, Trouble.TRANSIENT, str(error))
        if settings.auth in ("bearer", "header") and not secret.isascii():
            stop(Stage.AUTH, Trouble.TRANSIENT, f"the token of {self.name} is not of ASCII, as a header field must be")
        return Credentials(settings.auth, secret, settings.username or "", settings.auth_header or "")

    async def _open(self, end: float) -> tuple[Wire, dict[str, object] | None]:
        """TLS with the endpoint, and the certificate it showed."""
        settings, host = self._settings, self._settings.terms.host
        try:
            context = await self._tls.get()
        except OSError as error:
            stop(Stage.TLS, Trouble.TRANSIENT, f"the TLS files of {self.name} cannot be used: {error}")
        left = end - asyncio.get_running_loop().time()
        addresses = await self._addresses(host, left)
        where = f"{host} port {settings.port}"
        try:
            async with asyncio.timeout_at(end):
                sock = await dial.connect(addresses, settings.connect)
        except TimeoutError:
            stop(Stage.CONNECT, Trouble.TIMEOUT, f"no connection to {where} within {settings.connect:g} s")
        except OSError as error:
            stop(Stage.CONNECT, Trouble.TRANSIENT, f"no connection to {where}: {reason(error)}")
        try:
            async with asyncio.timeout_at(end):
                return await self._handshake(sock, context)
        except TimeoutError:
            stop(Stage.TLS, Trouble.TIMEOUT, f"the TLS handshake was not done within {settings.connect:g} s")

    async def _addresses(self, host: str, left: float) -> Sequence[dial.Address]:
        try:
            found = await self._dialer.resolve(left)
        except TimeoutError:
            stop(Stage.DNS, Trouble.TIMEOUT, f"the name {host} was not resolved in time")
        except (OSError, UnicodeError) as error:
            stop(Stage.DNS, Trouble.TRANSIENT, f"the name {host} cannot be resolved: {reason(error)}")
        if self._settings.link_local:
            return found
        good = [one for one in found if not is_link_local(str(one[4][0]))]
        if found and not good:
            text = f"{host} leads to an address of the link or of a cloud's metadata, where no endpoint should be"
            stop(Stage.CONNECT, Trouble.TRANSIENT, text)
        return good

    async def _handshake(self, sock: socket.socket, context: ssl.SSLContext) -> tuple[Wire, dict[str, object] | None]:
        settings, host, loop = self._settings, self._settings.terms.host, asyncio.get_running_loop()
        try:
            transport, wire = await loop.create_connection(
                lambda: Wire(loop),
                sock=sock,
                ssl=context,
                server_hostname=host,
                ssl_handshake_timeout=settings.connect + 5,  # ours comes first
            )
        except BaseException as error:
            sock.close()
            if isinstance(error, TimeoutError) or not isinstance(error, OSError):
                raise
            dropped = isinstance(error, (ConnectionError, ssl.SSLEOFError))
            text = "the endpoint closed the connection during the TLS handshake" if dropped else explain(error, host)
            stop(Stage.TLS, Trouble.DROPPED if dropped else Trouble.TRANSIENT, text)
        try:
            await self._check(transport.get_extra_info("ssl_object"))
        except BaseException:
            transport.abort()
            raise
        return wire, cast("dict[str, object] | None", transport.get_extra_info("peercert"))

    async def _check(self, session: ssl.SSLObject | None) -> None:
        """The key is one of those that are pinned."""
        # An end that came before the handshake began is no error to every loop: a cipher proves that there was one.
        if session is None or session.cipher() is None:
            stop(Stage.TLS, Trouble.DROPPED, "the endpoint closed the connection before the TLS handshake")
        if self._settings.tls_pin:
            try:
                key = await asyncio.to_thread(pin.of, session.getpeercert(binary_form=True) or b"")
            except ValueError as error:
                stop(Stage.TLS, Trouble.TRANSIENT, f"the upstream's key cannot be compared with tls_pin: {error}")
            if key not in self._settings.tls_pin:
                stop(Stage.TLS, Trouble.TRANSIENT, "the upstream's key is none of those in tls_pin")
