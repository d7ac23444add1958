"""The demo's own upstream: a real SMTP server on loopback, as strict as Microsoft 365 about senders.

STARTTLS with a certificate of a CA made for the occasion, AUTH inside TLS only, and for an account
with an address nothing but that address as reverse-path and as author. What it takes it keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.utils import getaddresses
from pathlib import Path

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from relay.mail.encoding import text
from relay.mail.header import Header, split, value

SIZE_LIMIT = 35 * 1024 * 1024  # what Microsoft 365 takes by default


@dataclass(frozen=True, slots=True)
class Account:
    """Who may log in. `address` is the only sender it may use, or None: any."""

    username: str
    password: str = field(repr=False)
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """A message this server took responsibility for."""

    upstream: str
    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes
    tls: str

    @property
    def header(self) -> Header:
        return Header.parse(self.content[: split(self.content)])

    @property
    def body(self) -> bytes:
        return self.content[split(self.content) :]

    def field(self, name: bytes) -> str:
        """The value of the first field called `name`, raw but for its folds; "" if there is none."""
        found = self.header.first(name)
        return text(value(found)) if found else ""


@dataclass  # without slots: aiosmtpd reads every attribute of it, which Python before 3.11.3 does not survive
class Upstream:
    """A running server. `refusals` are the replies to senders that the account may not use."""

    name: str
    account: Account
    port: int = 0
    received: list[Received] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    # What aiosmtpd asks for.

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, said: object
    ) -> AuthResult:
        right = LoginPassword(self.account.username.encode(), self.account.password.encode())
        return AuthResult(success=said == right, handled=False)

    async def handle_MAIL(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        allowed = self.account.address
        if allowed is not None and address.lower() != allowed:
            return self._refuse("550 5.7.60 SMTP; Client does not have permissions to send as this sender")
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Sender OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        received = Received(
            self.name,
            envelope.mail_from or "",
            tuple(envelope.rcpt_tos),
            envelope.content,
            _tls_version(server),
        )
        allowed = self.account.address
        authors = [address.lower() for _, address in getaddresses([received.field(b"from")])]
        if allowed is not None and authors != [allowed]:
            return self._refuse(
                f"554 5.2.252 SendAsDenied; {allowed} not allowed to send as {' '.join(authors) or '(nobody)'}; "
                "STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied"
            )
        self.received.append(received)
        return f"250 2.0.0 OK <{len(self.received)}@{self.name}.demo> Queued mail for delivery"

    def _refuse(self, reply: str) -> str:
        self.refusals.append(reply)
        return reply


def _tls_version(server: SMTP) -> str:
    assert server.transport is not None
    tls = server.transport.get_extra_info("ssl_object")
    return str(tls.version()) if tls else ""


class _Session(SMTP):
    """aiosmtpd's session, with long lines (legacy software writes them) and a way to end it at once."""

    line_length_limit = 1024 * 1024

    def end(self) -> asyncio.Task[None] | None:
        """Drop the connection; the task that is to be awaited."""
        # The one next to the socket: that of TLS may be half taken apart already.
        transport = self._original_transport or self.transport
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()
        task: asyncio.Task[None] | None = self._handler_coroutine
        return task


class Authority:
    """The certification authority of the demo; `certificate` is what the relay has to trust."""

    def __init__(self) -> None:
        self._ca = trustme.CA(organization_name="The relay's demo")
        self.certificate = self._ca.cert_pem.bytes()

    def write(self, path: Path) -> Path:
        path.write_bytes(self.certificate)
        return path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        return context


@contextlib.asynccontextmanager
async def running(name: str, account: Account, authority: Authority) -> AsyncIterator[Upstream]:
    """The upstream `name` on a free port of 127.0.0.1, in this event loop, until the block ends."""
    logging.getLogger("mail.log").setLevel(logging.ERROR)  # aiosmtpd warns of its own attributes at each AUTH
    loop = asyncio.get_running_loop()
    upstream = Upstream(name, account)
    context = authority.server_context()
    sessions: list[_Session] = []

    def session() -> _Session:
        made = _Session(
            upstream,
            hostname=f"{name}.demo",
            ident="ESMTP, the relay's demo",
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=upstream.authenticate,
            data_size_limit=SIZE_LIMIT,
            enable_SMTPUTF8=True,
            loop=loop,
        )
        sessions.append(made)
        return made

    server = await loop.create_server(session, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        ended = [task for made in sessions if (task := made.end()) is not None]
        await asyncio.gather(*ended, return_exceptions=True)
        await server.wait_closed()
