"""Short ways to say what these tests are about."""

from __future__ import annotations

from typing import Any

from relay.events import Event
from relay.mail.address import Address
from relay.mail.content import Content, MemoryContent
from relay.mail.envelope import Recipient
from relay.mail.outcome import Deferred
from relay.transport.port import DeliveryRequest
from relay.transport.smtp import SmtpTransport
from relay.transport.transaction import SmtpConnection, SmtpTimeouts
from tests.kit import configured
from tests.kit.upstream import ScriptedUpstream

MESSAGE = b"From: jan@example.nl\r\nSubject: factuur\r\n\r\nBijgaand.\r\n"
PATIENT = SmtpTimeouts(connect=20, greeting=20, command=20, data=20, progress=20, final=20)
SOON = 0.5  # seconds for what will not come; on a busy machine all that comes before it takes some of them
HASTY = SmtpTimeouts(connect=SOON, greeting=SOON, command=SOON, data=SOON, progress=SOON, final=SOON)


class Seen:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)


def transport_to(upstream: ScriptedUpstream, observer: Seen | None = None, **settings: Any) -> SmtpTransport:
    terms: dict[str, Any] = {
        "name": "own",
        "host": upstream.host,
        "port": upstream.port,
        "hostname": "relay.example.nl",
        "tls": upstream.tls,
        "timeouts": PATIENT,
        **settings,
    }
    return SmtpTransport(configured.smtp(**terms), observer=observer or Seen())


async def connected(upstream: ScriptedUpstream, **settings: Any) -> SmtpConnection:
    connection = await transport_to(upstream, **settings).connect()
    assert isinstance(connection, SmtpConnection), connection
    return connection


async def refused(upstream: ScriptedUpstream, **settings: Any) -> Deferred:
    """How far a connection that does not come about gets."""
    outcome = await transport_to(upstream, **settings).connect()
    assert isinstance(outcome, Deferred), outcome
    assert outcome.upstream_sick
    assert not outcome.in_doubt
    return outcome


def request(
    *recipients: str | Recipient, message: bytes = MESSAGE, content: Content | None = None, **more: Any
) -> DeliveryRequest:
    """`message` (its first two lines are the head) to `recipients`."""
    content = content or MemoryContent(message, message.find(b"\r\n\r\n") + 4)
    terms: dict[str, Any] = {
        "queue_id": "7QK3Z0M5X2A1",
        "reverse_path": Address.of("jan@example.nl"),
        "recipients": tuple(
            one if isinstance(one, Recipient) else Recipient(Address.of(one))
            for one in recipients or ("piet@example.org",)
        ),
        "head": content.head,
        "content": content,
        "body_offset": len(content.head),
        **more,
    }
    return DeliveryRequest(**terms)
