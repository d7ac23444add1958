"""Who is to be told about an attempt, and the notifications as new entries: pure.

One message and attempt make at most one notification to the sender, whatever became of how many recipients.
Nobody is told at a null reverse-path, so a bounce never bounces; NOTIFY is honoured (RFC 3461, section 4.1),
and where nobody asked, a failure is told, a success is not, and a delay as the configuration says.

The readers of `bounces.also` hear of every failure of mail that was submitted, also where its sender cannot
be told or wants no word of it: they answer for the relay. They are no readers of other people's mail, so
what they get holds no more of it than its header; and none of them is told twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from relay.delivery.own import own_entry
from relay.events import Event, NotificationQueued, NotificationSuppressed
from relay.mail import dsn
from relay.mail.address import Address
from relay.mail.dsn_text import Action, Fate
from relay.policy.decide import DELAY_WARNING, Policy, Route
from relay.queue.model import Entry, Kind

_WANTED = {Action.FAILED: "failure", Action.RELAYED: "success", Action.DELAYED: "delay"}
_KIND = {Action.FAILED: "failure", Action.RELAYED: "relayed", Action.DELAYED: "delay"}


@dataclass(frozen=True, slots=True)
class Notices:
    """`entries` are to be queued, `events` say so. `warned`: the sender is told of a delay."""

    entries: tuple[Entry, ...] = ()
    events: tuple[Event, ...] = ()
    warned: bool = False


def most_notices(policy: Policy) -> int:
    """How many entries `notify` makes at most: so many queue IDs it needs."""
    return 2 if policy.bounces_also else 1


def delay_is_to_be_told(entry: Entry, policy: Policy, now: datetime) -> bool:
    """True when whoever wants to hear of a delay is to be told of this one: once, and never of a session code."""
    if entry.warned or entry.session_code or entry.kind is Kind.BOUNCE:
        return False
    submission = entry.submission
    patience = DELAY_WARNING if policy.delay_warning is None else policy.delay_warning
    return submission.envelope.reverse_path is not None and now - submission.received_at >= patience


def notify(
    entry: Entry, fates: Sequence[Fate], *, policy: Policy, route: Route, queue_ids: Sequence[str], now: datetime
) -> Notices:
    """The notifications about `fates`, by way of `route`; `most_notices` of `queue_ids` will do.

    A fate that is only worth telling when asked for (relayed, delayed) may be given always.
    """
    told = [fate for fate in fates if _wanted(fate, policy)]
    failures = [fate for fate in fates if fate.action is Action.FAILED]
    if not told and not failures:
        return Notices()
    if entry.kind is Kind.BOUNCE:
        return Notices(events=(NotificationSuppressed(entry.queue_id, "a bounce never bounces"),))
    desk = _Desk(entry, policy, route, now)
    sender = entry.submission.envelope.reverse_path
    entries: list[Entry] = []
    events: list[Event] = []
    if sender is None:
        events.append(NotificationSuppressed(entry.queue_id, "null reverse-path"))
    elif not told:
        events.append(NotificationSuppressed(entry.queue_id, "notify=never"))
    else:
        action = next(action for action in Action if any(fate.action is action for fate in told))
        entries.append(desk.report(told, (sender,), queue_ids[0], to_sender=True))
        events.append(NotificationQueued(queue_ids[0], entry.queue_id, _KIND[action], str(sender)))
    readers = _also(policy, sender) if failures else ()
    if readers:
        queue_id = queue_ids[len(entries)]
        entries.append(desk.report(failures, readers, queue_id, to_sender=False))
        events.append(NotificationQueued(queue_id, entry.queue_id, "failure", ", ".join(map(str, readers))))
    warned = any(fate.action is Action.DELAYED for fate in told) and sender is not None
    return Notices(tuple(entries), tuple(events), warned)


def _wanted(fate: Fate, policy: Policy) -> bool:
    """Whether the sender wants to hear it."""
    asked = fate.recipient.notify
    if asked is not None:
        return _WANTED[fate.action] in asked
    return fate.action is Action.FAILED or (fate.action is Action.DELAYED and policy.delay_warning is not None)


def _also(policy: Policy, sender: Address | None) -> tuple[Address, ...]:
    """The other readers, each once, without the sender. Case does not count: nobody has two mailboxes by it."""
    readers = {str(reader).lower(): reader for reader in policy.bounces_also}
    if sender is not None:
        readers.pop(str(sender).lower(), None)
    return tuple(readers.values())


@dataclass(frozen=True, slots=True)
class _Desk:
    """Where reports about `entry` are written."""

    entry: Entry
    policy: Policy
    route: Route
    now: datetime

    def report(self, fates: Sequence[Fate], readers: Sequence[Address], queue_id: str, *, to_sender: bool) -> Entry:
        entry, policy, route, now = self.entry, self.policy, self.route, self.now
        submission = entry.submission
        original = dsn.Original(
            queue_id=entry.queue_id,
            envelope=submission.envelope,
            received_at=submission.received_at,
            attempts=entry.attempts,
            content=entry.content,
            session_code=entry.session_code,
        )
        data = dsn.build(
            original,
            fates,
            queue_id=queue_id,
            hostname=policy.hostname,
            author=policy.bounces_from,
            readers=readers,
            now=now,
            to_sender=to_sender,
        )
        return own_entry(
            data, readers, author=policy.bounces_from, queue_id=queue_id, route=route, because="bounce", now=now
        )
