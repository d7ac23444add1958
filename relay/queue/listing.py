"""What an operator sees of the queue and its history, and what may be asked for: values only.

Nothing here holds content; of session codes, replies are codes only, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from relay.queue.model import Kind
from relay.values import frozen

PAGE = 500  # entries of one transaction, and IDs of one order
MOST_LISTED = 10_000  # entries of one answer


class Place(StrEnum):
    """Where an entry is: as the ledger's states, then damaged (it cannot be read), then in the history."""

    PENDING = "pending"
    DEFERRED = "deferred"
    ACTIVE = "active"
    HELD = "held"
    DAMAGED = "damaged"
    FINISHED = "finished"


class Verb(StrEnum):
    """What an operator may do to an entry."""

    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"
    CANCEL = "cancel"
    BOUNCE = "bounce"
    REROUTE = "reroute"


@frozen
class Wanted:
    """Which entries; None or "": any. `to` and `from_` are globs (`*`, `?`), case-insensitive, on bare addresses.

    `from_` "<>" is the null reverse-path. `since` is about the moment of acceptance. `subject` is part of one, in any
    case; no session code has any.
    """

    place: Place | None = None
    route: str = ""
    to: str = ""
    from_: str = ""
    since: datetime | None = None
    subject: str = ""


@frozen
class Addressee:
    """A recipient and its fate so far: `state` is a `queue.model.State`, or "active" while it is leased."""

    address: str
    state: str
    reply: str
    upstream: str
    ended_at: datetime | None


@frozen
class LeftAs:
    """The sender as which a message left: its author, its reverse-path ("" is the null one), and what the sender rule
    did: "rewritten", "repaired" (only after the provider had refused the original one), "unchanged", or None without a
    rule."""

    author: str
    reverse_path: str
    result: str | None


@frozen
class Listed:
    """An entry, or a finished message (`place` FINISHED, then `ended_at` is set).

    `reverse_path` "" is the null one. `next_attempt_at` only while pending or deferred. `wish` is the verb that
    waits for the end of the attempt under way, "bounce" as well while it is to be bounced, or "". `damage` says
    what cannot be read, or "".
    `key` orders by acceptance, for paging. `left_as`: None while nobody took it. `message_id` and `subject` are None
    where they are not known.
    """

    key: int
    queue_id: str
    place: Place
    kind: Kind
    route: str
    size: int
    attempts: int
    received_at: datetime
    next_attempt_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    listener: str
    client: str
    user: str | None
    reverse_path: str
    recipients: tuple[Addressee, ...]
    session_code: bool
    wish: str = ""
    damage: str = ""
    left_as: LeftAs | None = None
    message_id: str | None = None
    subject: str | None = None


@frozen
class Searched:
    """What was found, newest first. `whole`: there was time to look at everything."""

    entries: Sequence[Listed]
    whole: bool


@frozen
class Tried:
    """One attempt that did not finish a recipient: when, and what it said. `address` is the recipient's."""

    attempt: int
    at: datetime
    address: str
    upstream: str
    reply: str


@frozen
class Shown:
    """Everything about one message. `head` is its header block, without the subject of a session code.

    Once it is finished, `head`, `helo`, `protocol`, `tls` and `envid` are gone; a damaged one has no `head`.
    """

    listed: Listed
    because: tuple[str, ...]
    helo: str
    protocol: str
    tls: str | None
    envid: str | None
    head: bytes
    tries: tuple[Tried, ...]


class Did(StrEnum):
    """What became of a wish."""

    DONE = "done"
    AFTER_ATTEMPT = "after-attempt"  # it is active: done after its attempt, unless that ends it
    NOTHING = "nothing"  # it is so already
    IMPOSSIBLE = "impossible"
    UNKNOWN = "unknown"  # no such entry (any more)


@frozen
class Acted:
    """What became of one entry. `why` is a sentence for IMPOSSIBLE and NOTHING, else ""."""

    queue_id: str
    did: Did
    why: str = ""


@frozen
class Standing:
    """How many messages of a route are at a place of the queue, and the oldest acceptance among them.

    `in_doubt`: how many of those held may have been delivered.
    """

    route: str
    place: Place
    messages: int
    oldest: datetime
    in_doubt: int = 0


@frozen
class Saved:
    """What a backup holds: session codes are left out."""

    entries: int
    octets: int
    left_out: int
