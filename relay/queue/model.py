"""The values of the queue: entries, leases, settlements, and the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum

from relay.mail.address import Address
from relay.mail.content import Content
from relay.mail.envelope import Recipient
from relay.mail.submission import Submission
from relay.policy.rewriting import Rendered
from relay.values import frozen


class State(StrEnum):
    """A recipient's state. Pending and held are in the queue, the others are ends."""

    PENDING = "pending"
    HELD = "held"
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Recorded(IntEnum):
    """What the history keeps of a message that is finished. SUBJECT: all of FATE, and its subject unless it is a
    session code."""

    NOTHING = 0
    FATE = 1
    SUBJECT = 2


class Kind(StrEnum):
    """Mail that was submitted, or a notification of our own (a bounce never bounces)."""

    MAIL = "mail"
    BOUNCE = "bounce"


@frozen
class Entry:
    """One message in the queue.

    `route` and `session_code` are as decided at the door; each attempt decides the route again.
    `priority` ranks within a route (lower first). `expires_at` is the end of the lifetime.
    `attempts` counts attempts begun, the one under way included. `released`: a person let it go, so that
    no sender rule holds it again. `warned`: its sender was told that it waits. `rerouted`: a person chose
    `route`, and a new decision does not move it from there while there is a route of that name.
    """

    submission: Submission
    content: Content
    route: str
    priority: int
    session_code: bool
    because: tuple[str, ...]
    expires_at: datetime
    kind: Kind = Kind.MAIL
    attempts: int = 0
    released: bool = False
    warned: bool = False
    rerouted: bool = False

    @property
    def queue_id(self) -> str:
        return self.submission.queue_id


@frozen
class Pending:
    """A recipient that still waits: its place in the envelope, and what the last attempt said.

    `last_reply` is "" before the first attempt. `in_doubt` counts the attempts that left it in doubt,
    `in_doubt_at` is the upstream of the last of them. `way`, of a session code: the one upstream that may have been
    sent it since that was committed, or "".
    """

    index: int
    recipient: Recipient
    last_reply: str = ""
    in_doubt: int = 0
    in_doubt_at: str = ""
    way: str = ""


@frozen
class Lease:
    """The pending recipients of one entry, ours until settled or given back.

    `entry.attempts` already counts the attempt that this lease is for. `key` is the store's own.
    `bounced`: an operator wants it returned to its sender, without another attempt.
    """

    entry: Entry
    pending: tuple[Pending, ...]
    key: object = None
    bounced: bool = False


@frozen
class Result:
    """What an attempt made of one recipient. `state` PENDING: it waits for the next attempt.

    `reply` is sanitised text ("550 5.1.1 No such user"), codes only for session codes;
    `in_doubt` is the new count, `in_doubt_at` the upstream of the last doubt. `upstream` is the one that
    was asked last, "" when none was.
    """

    index: int
    state: State
    reply: str = ""
    in_doubt: int = 0
    in_doubt_at: str = ""
    upstream: str = ""


@frozen
class Told:
    """A report about the message `queue_id` for `reader`, made `at` that moment.

    `line` "": it is a message of its own. Else it waits for a summary that will say this of it (`mail.summary_line`).
    """

    reader: Address
    queue_id: str
    at: datetime
    line: str = ""


@frozen
class Reader:
    """Whom we write to: when messages of ours to `address` were `sent`, and how many reports wait for a summary."""

    address: Address
    sent: tuple[datetime, ...]
    collected: int


@frozen
class Settlement:
    """What an attempt changes, in one transaction: results, the next attempt, and notifications of ours.

    There is one result for each recipient of the lease. `next_attempt_at` is None when no
    recipient is left. `route` is where the rest waits (a new decision may have moved it).
    `notifications` are new entries (bounces); they are not leased. `at` is when the attempt ended, and None
    when there was none (moved, held, expired while waiting): then nothing of it is kept for `queue show`.
    `warned`: a delay warning is among the notifications. `told` has a row for each reader of a failure or a delay,
    whether its report is among the notifications or waits for a summary. `left`: the message as somebody took it.
    """

    lease: Lease
    results: tuple[Result, ...]
    next_attempt_at: datetime | None = None
    route: str | None = None
    notifications: tuple[Entry, ...] = ()
    at: datetime | None = None
    warned: bool = False
    told: tuple[Told, ...] = ()
    left: Rendered | None = None


@frozen
class Memory:
    """What is known over restarts about `key`: a moment, and `value`, a text of whoever remembers it."""

    key: str
    moment: datetime
    value: str = ""


@dataclass(slots=True)
class Ledger:
    """Recipients, counted at the moment their transaction committed.

    found + accepted = delivered + failed + expired + cancelled + pending + deferred + active + held,
    at any moment. `deferred` is pending and tried at least once, `active` is leased.
    """

    found: int = 0
    accepted: int = 0
    delivered: int = 0
    failed: int = 0
    expired: int = 0
    cancelled: int = 0
    pending: int = 0
    deferred: int = 0
    active: int = 0
    held: int = 0


@frozen
class QueueView:
    """The queue at one moment, read beside the writer: messages and the oldest acceptance by route, bytes in all.

    `messages` and `oldest` tell of what waits or is active; `held` counts what waits for a person, by route.
    """

    messages: Mapping[str, int] = field(default_factory=dict)
    oldest: Mapping[str, datetime] = field(default_factory=dict)
    bytes: int = 0
    held: Mapping[str, int] = field(default_factory=dict)
