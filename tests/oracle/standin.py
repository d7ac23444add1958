"""Our session in the clothes of `aiosmtpd.smtp.SMTP`: its constructor, and its handler behind the final dot.

Nothing of the session is replaced. What aiosmtpd's tests ask for beyond the wire (its hooks, its private
attributes) is not imitated: those tests are among the deviations.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import Envelope, LoginPassword
from aiosmtpd.smtp import Session as Facts

from relay.events import Event
from relay.ingress.accept import QueueIds
from relay.ingress.door import Door
from relay.ingress.limits import AuthTries, Memory, Sessions
from relay.ingress.session import Session
from relay.mail.content import Content
from relay.mail.submission import Submission
from relay.queue.spool import Spool
from tests.kit import configured

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class _Deaf:
    def observe(self, event: Event) -> None:
        pass


class _ToHandler:
    """Where an acceptor would decide and store, the handler of the test is asked."""

    def __init__(self, server: StandIn) -> None:
        self._server = server

    async def accept(
        self, submission: Submission, content: Content, elapsed: Callable[[], float], **direct: object
    ) -> bytes:
        server = self._server
        handle = getattr(server.event_handler, "handle_DATA", None)
        if handle is None:
            return b"250 OK\r\n"
        envelope = Envelope()
        envelope.mail_from = str(submission.envelope.reverse_path or "")
        envelope.rcpt_tos = [str(recipient.address) for recipient in submission.envelope.recipients]
        envelope.smtp_utf8 = submission.envelope.smtputf8
        octets = content.read(0, content.size)
        envelope.original_content = octets
        envelope.content = octets.decode() if server.decode_data else octets
        reply: str = await handle(server, server.session, envelope)
        return reply.encode() + b"\r\n"


class StandIn(Session):
    """What `SMTP(handler, …)` makes. Options of aiosmtpd that the relay has no word for change nothing."""

    def __init__(
        self,
        handler: Any,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        hostname: str | None = None,
        data_size_limit: int = 33_554_432,
        decode_data: bool = False,
        timeout: float = 300,
        tls_context: ssl.SSLContext | None = None,
        require_starttls: bool = False,
        auth_required: bool = False,
        auth_callback: Callable[[str, bytes, bytes], bool] | None = None,
        authenticator: Callable[..., Any] | None = None,
        **_without_a_word: Any,
    ) -> None:
        self.event_handler = handler
        self.decode_data = decode_data

        def verify(user: str, password: str) -> bool:
            login = LoginPassword(user.encode(), password.encode())
            if authenticator is not None:
                return bool(authenticator(self, self.session, Envelope(), "PLAIN", login).success)
            return auth_callback is not None and bool(auth_callback("PLAIN", *login))

        asks = auth_required or auth_callback is not None or authenticator is not None
        settings = configured.listener(
            name="oracle",
            hostname=hostname or socket.getfqdn(),
            allow=LOOPBACK,
            max_message_size=data_size_limit or 2**40,
            tls="starttls" if tls_context is not None else "none",
            tls_context=tls_context,
            require_tls=require_starttls,
            auth="users" if asks else "none",
            verify=verify if asks else None,
            limits=configured.limits(command=timeout, data=timeout),
        )
        loop = loop or asyncio.get_event_loop()
        self.session = Facts(loop)
        door = Door(
            settings=settings,
            sessions=Sessions(),
            auth_tries=AuthTries(),
            memory=Memory(),
            acceptor=_ToHandler(self),  # type: ignore[arg-type]  # only `accept` is asked for
            queue_ids=QueueIds(),
            spool=Spool(Path(tempfile.gettempdir())),  # nothing here is large enough for a file
            space=lambda: True,
            observer=_Deaf(),
            now=lambda: datetime.now(UTC),
            replies=Counter(),
            live=set(),
        )
        super().__init__(door, loop)

    @property
    def _handler_coroutine(self) -> asyncio.Task[None]:
        return self.task
