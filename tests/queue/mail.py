"""Entries for the tests of the queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

from relay.events import Event
from relay.mail.address import Address
from relay.mail.content import Content, MemoryContent
from relay.mail.envelope import Envelope, Recipient
from relay.mail.queue_id import queue_id
from relay.mail.submission import Peer, Submission
from relay.queue.model import Entry, Kind, Lease, Pending, Result, Settlement, State

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HEAD = b"From: jan@example.nl\r\nSubject: Factuur\r\n\r\n"
_numbers = count(1_770_000_000_000_000)


def memory(body: bytes = b"Goedemiddag\r\n") -> MemoryContent:
    return MemoryContent(HEAD + body, len(HEAD))


def submission_of(
    content: Content, recipients: tuple[Recipient, ...], name: str | None = None, client: str = "192.0.2.7"
) -> Submission:
    return Submission(
        queue_id=name or queue_id(next(_numbers), 7),
        envelope=Envelope(Address("jan", "example.nl"), recipients),
        head=content.head,
        size=content.size,
        peer=Peer(client, "imuis"),
        listener="legacy",
        received_at=NOON,
    )


def an_entry(
    *to: str,
    content: Content | None = None,
    route: str = "default",
    priority: int = 1,
    session_code: bool = False,
    expires_at: datetime = NOON + timedelta(days=5),
    kind: Kind = Kind.MAIL,
    name: str | None = None,
    client: str = "192.0.2.7",
) -> Entry:
    content = content or memory()
    recipients = tuple(Recipient(Address.of(text)) for text in to or ("piet@example.com",))
    return Entry(
        submission=submission_of(content, recipients, name, client),
        content=content,
        route=route,
        priority=priority,
        session_code=session_code,
        because=("default",),
        expires_at=expires_at,
        kind=kind,
    )


def tried(entry: Entry) -> Lease:
    """What an attempt holds that is made before the entry is kept."""
    recipients = entry.submission.envelope.recipients
    return Lease(replace(entry, attempts=1), tuple(Pending(n, recipient) for n, recipient in enumerate(recipients)))


def ended(lease: Lease, state: State = State.DELIVERED) -> Settlement:
    """Every recipient of `lease` comes to the same end."""
    return Settlement(lease, tuple(Result(pending.index, state, "250 2.0.0 ok") for pending in lease.pending))


def deferred(lease: Lease, until: datetime) -> Settlement:
    results = tuple(Result(pending.index, State.PENDING, "451 4.7.1 later") for pending in lease.pending)
    return Settlement(lease, results, next_attempt_at=until)


def ids(leases: list[Lease]) -> list[str]:
    return [lease.entry.queue_id for lease in leases]


class Noted:
    """An observer that remembers, and tells `follow`."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.follow: Callable[[Event], None] | None = None

    def observe(self, event: Event) -> None:
        self.events.append(event)
        if self.follow is not None:
            self.follow(event)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]
