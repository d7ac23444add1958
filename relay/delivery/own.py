"""Mail of our own as an entry of the queue: it never bounces, and asks nobody further on for a report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.envelope import Envelope, Recipient
from relay.mail.submission import Peer, Submission
from relay.policy.decide import Route
from relay.queue.model import Entry, Kind

_NEVER = frozenset({"never"})  # RFC 3461, section 4.1


def own_entry(
    data: bytes,
    readers: Sequence[Address],
    *,
    author: Address,
    queue_id: str,
    route: Route,
    because: str,
    now: datetime,
) -> Entry:
    """`data`, header and body, to `readers` by way of `route`, with a null reverse-path."""
    content = MemoryContent(data, data.index(b"\r\n\r\n") + 4)
    envelope = Envelope(
        reverse_path=None,
        recipients=tuple([Recipient(reader, notify=_NEVER) for reader in readers]),
        smtputf8=not all(address.is_ascii for address in (author, *readers)),
    )
    return Entry(
        submission=Submission(queue_id, envelope, content.head, content.size, Peer(""), "", now),
        content=content,
        route=route.name,
        priority=route.priority,
        session_code=False,
        because=(because,),
        expires_at=now + route.schedule.lifetime,
        kind=Kind.BOUNCE,
    )
