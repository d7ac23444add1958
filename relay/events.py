"""What has happened: frozen, in the past tense, without content and without secrets.

Log, metrics and whatever else watches live on these; nothing that watches steers. Events of
session-code mail carry reply codes only, never a text of the upstream (it may quote).
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from relay.mail.outcome import Refusal, Stage, Trouble
from relay.mail.quirk import Quirk
from relay.values import frozen


class Event:
    """Base of all events."""

    __slots__ = ()


class Observer(Protocol):
    """Who is told. It must not block and not raise; one that raises is set aside."""

    def observe(self, event: Event) -> None: ...


# The door


@frozen
class ConnectionAccepted(Event):
    listener: str
    client: str


@frozen
class ConnectionDenied(Event):
    """`reason`: denied_limit, denied_address, tls_error or not_smtp."""

    listener: str
    client: str
    reason: str
    text: str = ""


@frozen
class SessionEnded(Event):
    """`why`: "quit", "eof", "reset", "timeout", "shutdown", "errors", "limit". `limit`: the key of the listener that
    ended it, as "limits.errors"; "" where none did."""

    listener: str
    client: str
    why: str
    messages: int
    limit: str = ""


@frozen
class AuthenticationJudged(Event):
    """AUTH at the door. `result`: ok, bad (refused) or error (malformed). `user` is what the client said."""

    listener: str
    client: str
    user: str
    mechanism: str
    result: str


@frozen
class ClientDescribed(Event):
    """What a client said of itself, once in a session, at its first message. `software`: its X-Mailer or User-Agent."""

    listener: str
    client: str
    helo: str
    software: str


@frozen
class ClientLeft(Event):
    """A client said EHLO, handed in nothing and left, for the first time; `text`: what it may have missed."""

    listener: str
    client: str
    text: str


@frozen
class QuirksTolerated(Event):
    """A command, a message or the end of a session deviated from the standards, and was taken all the same."""

    listener: str
    client: str
    quirks: tuple[Quirk, ...]


@frozen
class MessageQueued(Event):
    """The commit is done and the client hears 250. `seconds`: final dot to reply. `reverse_path` "" is `<>`.

    With `reply: direct` it comes after the attempt, and may be told of a message that is delivered already."""

    queue_id: str
    listener: str
    client: str
    user: str | None
    reverse_path: str
    recipients: tuple[str, ...]
    route: str
    rule: str | None
    size: int
    seconds: float
    session_code: bool
    because: tuple[str, ...]


@frozen
class MessageRefused(Event):
    """A content transaction that was not accepted.

    `result`: rejected_policy, rejected_size, rejected_syntax, store_failed, limited or aborted. With `reply: direct` an
    upstream that refused everybody is rejected_policy, with its code, status and text.
    """

    listener: str
    client: str
    user: str | None
    reverse_path: str
    recipients: tuple[str, ...]
    result: str
    code: int
    status: str
    text: str
    because: tuple[str, ...] = ()


@frozen
class CommandRefused(Event):
    """A command got a 5xx: syntax, sequence, an address or a recipient that cannot be. `text` is ours."""

    listener: str
    client: str
    verb: str
    code: int
    status: str
    text: str


@frozen
class LoopDetected(Event):
    listener: str
    client: str
    reverse_path: str


# Delivery


@frozen
class SenderDecided(Event):
    """A sender rule spoke at an attempt. `result`: rewritten, unchanged, or repaired (the original is refused).

    `signatures_removed`: DKIM fields.
    """

    queue_id: str
    rule: str
    result: str
    attempt: int
    signatures_removed: int = 0


@frozen
class DuplicatesRemoved(Event):
    """Fields that may stand only once stood more often, and the message left with one of each (`repair_duplicates`).

    `signatures_removed`: DKIM fields.
    """

    queue_id: str
    upstream: str
    fields: tuple[str, ...]
    signatures_removed: int = 0


@frozen
class UpstreamRefused(Event):
    """A reply of an upstream that was no success, once for each class in a transaction; also where another sender
    was taken after it. `refusal` is of `mail.outcome.Refusal`."""

    queue_id: str
    route: str
    upstream: str
    stage: Stage
    refusal: Refusal
    code: int
    status: str


@frozen
class SenderJudged(Event):
    """An upstream refuses this original sender, and takes it as its rule makes it: until then it goes so at once.

    `reverse_path` "<>" is the null one, `author` "" an unusable From.
    """

    upstream: str
    reverse_path: str
    author: str
    code: int
    status: str
    until: datetime


@frozen
class SenderForgotten(Event):
    """The upstream took the sender unchanged again (`why` "taken"), it refused what the rule makes of it as well ("in
    vain"), a person wants it asked anew ("operator"), or it is the oldest of too many ("too many")."""

    upstream: str
    reverse_path: str
    author: str
    why: str


@frozen
class SenderPinned(Event):
    """A person says that the upstream refuses this sender, for good."""

    upstream: str
    reverse_path: str
    author: str


@frozen
class MessageReencoded(Event):
    """The upstream could not take the message as it was. `why`: no SMTPUTF8, no 8BITMIME, long lines; `parts` of it
    were encoded (0: only header fields). `signatures_removed` counts the DKIM-Signature fields that broke.
    """

    queue_id: str
    upstream: str
    why: str
    parts: int
    signatures_removed: int


@frozen
class AttemptEnded(Event):
    """One transaction, or one failed connect, at one upstream; not told of one that was called off.

    `stage` and `trouble` None: all went well.
    """

    queue_id: str
    route: str
    upstream: str
    seconds: float
    stage: Stage | None = None
    trouble: Trouble | None = None


@frozen
class HedgeBegun(Event):
    """`upstream` was not ready for a session code after `seconds`: `beside` has its chance as well, one sends."""

    queue_id: str
    route: str
    upstream: str
    beside: str
    seconds: float


@frozen
class RecipientDelivered(Event):
    """`delay`: seconds since acceptance."""

    queue_id: str
    recipient: str
    route: str
    upstream: str
    rule: str | None
    attempt: int
    code: int
    status: str
    text: str
    delay: float
    session_code: bool


@frozen
class RecipientDeferred(Event):
    """`code` 0: no reply was given, `text` says what happened. `in_doubt`: it may be delivered twice."""

    queue_id: str
    recipient: str
    route: str
    upstream: str
    attempt: int
    stage: Stage
    trouble: Trouble
    code: int
    status: str
    text: str
    in_doubt: bool
    next_attempt_at: datetime | None
    session_code: bool


@frozen
class RecipientFailed(Event):
    """Refused for good, or a session code left in doubt twice (`in_doubt`: it may have been delivered), or an
    operator had it returned to its sender (`stage` None, `code` 0: no upstream said so).

    With `reply: direct` the client may have heard it: then it was never accepted, and MessageRefused follows."""

    queue_id: str
    recipient: str
    route: str
    upstream: str
    attempt: int
    stage: Stage | None
    code: int
    status: str
    text: str
    delay: float
    in_doubt: bool
    session_code: bool
    refusal: Refusal | None = None


@frozen
class RecipientExpired(Event):
    queue_id: str
    recipient: str
    route: str
    attempt: int
    text: str
    delay: float
    session_code: bool


@frozen
class RecipientCancelled(Event):
    """An operator took it out of the queue; nobody else is told."""

    queue_id: str
    recipient: str
    route: str
    attempt: int
    delay: float
    session_code: bool


@frozen
class EntryHeld(Event):
    """It waits for a person. `rule`: the sender rule that holds it, or "" when an operator does, or when it is
    `in_doubt`: nobody knows whether it was delivered, and its route holds such mail."""

    queue_id: str
    rule: str
    recipients: int
    in_doubt: bool = False


@frozen
class EntryChanged(Event):
    """An operator acted on an entry. `verb`: retry, release, reroute (to `route`) or bounce (it will be)."""

    queue_id: str
    verb: str
    route: str = ""


@frozen
class NotificationQueued(Event):
    """A message of our own about `about`. `kind`: failure, delay, relayed or summary (of many of them)."""

    queue_id: str
    about: str
    kind: str
    reader: str


@frozen
class NotificationCollected(Event):
    """The reader had many reports in the last hour: this one waits for a summary. `kind`: failure or delay."""

    about: str
    kind: str
    reader: str


@frozen
class NotificationSuppressed(Event):
    """Nobody could or wanted to be told (null reverse-path, NOTIFY=NEVER, a bounce that failed)."""

    about: str
    why: str


# Upstreams


@frozen
class UpstreamConnected(Event):
    """`certificate_expires`: the end of theirs, None without TLS."""

    upstream: str
    certificate_expires: datetime | None = None


@frozen
class UpstreamSetAside(Event):
    """It is left alone for so many seconds. `refusal`: what its reply spoke of, None without one."""

    upstream: str
    stage: Stage
    trouble: Trouble
    code: int
    status: str
    text: str
    seconds: float
    refusal: Refusal | None = None


@frozen
class ChunkingGivenUp(Event):
    """The upstream offers CHUNKING and does not do it well (`why`): mail goes by DATA until a reload."""

    upstream: str
    why: str


@frozen
class RecipientsLimited(Event):
    """It takes that many recipients in one transaction, and refused more: for a day there are no more in one."""

    upstream: str
    recipients: int


@frozen
class UpstreamThrottled(Event):
    """It asked for less: mail waits for it so many seconds, and then goes over at most so many connections."""

    upstream: str
    stage: Stage
    code: int
    status: str
    text: str
    seconds: float
    connections: int


@frozen
class MessageBlamed(Event):
    """The upstream broke off that message, or blamed the account for it, and others went through after that: it is the
    message's own trouble. `code` 0: no reply was given."""

    queue_id: str
    upstream: str
    stage: Stage
    code: int


@frozen
class UpstreamRestored(Event):
    upstream: str


@frozen
class TokenFetched(Event):
    """A new OAuth2 token was had for an upstream."""

    upstream: str
    expires_at: datetime


@frozen
class TokenRefused(Event):
    """No new OAuth2 token was to be had. `permanent`: asking again will not change that; `text` holds no secret."""

    upstream: str
    permanent: bool
    text: str


# The store


@frozen
class BatchCommitted(Event):
    """One group commit: how many operations, how long."""

    operations: int
    seconds: float


@frozen
class StoreFailed(Event):
    """`reason`: full, io, busy, corrupt, moved (a file of the queue was taken away or overwritten) or other."""

    reason: str
    text: str


@frozen
class StoreRecovered(Event):
    pass


@frozen
class EntrySetAside(Event):
    """An entry that cannot be read was taken out of the way; it is kept for a person to look at."""

    queue_id: str
    text: str


@frozen
class EntriesFound(Event):
    """What lay in the queue at the start; `leases` of a dead process were taken back."""

    entries: int
    recipients: int
    leases: int


# What needs a person


@frozen
class AlarmRaised(Event):
    """Something needs a person. `cause` names it for good (auth-refused:own), `text`: what is wrong, what to do.

    `severity`: error (mail suffers now) or warning.
    """

    cause: str
    severity: str
    text: str


@frozen
class AlarmCleared(Event):
    cause: str


@frozen
class AlarmSent(Event):
    """An alarm left by `way`: mail, command or webhook. `reader`: who or what got it."""

    cause: str
    way: str
    reader: str


@frozen
class AlarmNotSent(Event):
    """An alarm could not leave by `way`: `text` says why. It is tried again."""

    cause: str
    way: str
    text: str


# The house


@frozen
class RelayStarted(Event):
    version: str
    listeners: tuple[str, ...]


@frozen
class RelayStopping(Event):
    pass


@frozen
class RelayStopped(Event):
    pass


@frozen
class ConfigReloaded(Event):
    """`needs_restart` names keys whose change waits for a restart."""

    needs_restart: tuple[str, ...] = ()


@frozen
class ReloadRefused(Event):
    """The file is bad; the running configuration stays."""

    problems: tuple[str, ...]


@frozen
class Warned(Event):
    """Something legal but unwise, or soon a trouble: a sentence for the operator."""

    text: str


@frozen
class ExceptionCaught(Event):
    """A bug was caught at a bulkhead. `component`: session, accept, attempt, observer, web, daemon, queue, other."""

    component: str
    text: str
    traceback: str
