"""Who is to be told about an attempt, and the notifications as new entries: pure.

One message and attempt make at most one notification to each reader, whatever became of how many recipients.
`bounces.to` says who reads: the sender, the address of the sender rule that spoke, or both. Nobody is told at a null
reverse-path, so a bounce never bounces; NOTIFY is honoured (RFC 3461, section 4.1), and where nobody asked, a failure
is told, a success is not, and a delay as the configuration says.

The readers of `bounces.also` hear of every failure of mail that was submitted, also where its sender cannot
be told or wants no word of it: they answer for the relay. They are no readers of other people's mail, so
what they get holds no more of it than its header; and none of them is told twice.

A reader who had many failures and delays in an hour (`Audience.full`) gets no message of their own about the next: they
are collected for a summary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from relay.delivery.own import own_entry
from relay.events import Event, NotificationCollected, NotificationQueued, NotificationSuppressed
from relay.mail import dsn, summary_line
from relay.mail.address import Address
from relay.mail.dsn_text import Action, Fate
from relay.policy.decide import DELAY_WARNING, Policy, Route
from relay.queue.model import Entry, Kind, Told
from relay.values import frozen

_WANTED = {Action.FAILED: "failure", Action.RELAYED: "success", Action.DELAYED: "delay"}
_KIND = {Action.FAILED: "failure", Action.RELAYED: "relayed", Action.DELAYED: "delay"}


@frozen
class Audience:
    """What is known of the readers now: the `address` of the sender rule that spoke, and who has enough for an hour."""

    address: Address | None = None
    full: frozenset[Address] = frozenset()


NOBODY = Audience()


@frozen
class Notices:
    """`entries` are to be queued, `told` to be kept, `events` say so. `warned`: the sender is told of a delay."""

    entries: tuple[Entry, ...] = ()
    events: tuple[Event, ...] = ()
    warned: bool = False
    told: tuple[Told, ...] = ()


def most_notices(policy: Policy) -> int:
    """How many entries `notify` makes at most: so many queue IDs it needs."""
    return 1 + (policy.bounces_to == "both") + bool(policy.bounces_also)


def delay_is_to_be_told(entry: Entry, policy: Policy, now: datetime) -> bool:
    """True when whoever wants to hear of a delay is to be told of this one: once, and never of a session code."""
    if entry.warned or entry.session_code or entry.kind is Kind.BOUNCE:
        return False
    submission = entry.submission
    patience = DELAY_WARNING if policy.delay_warning is None else policy.delay_warning
    return submission.envelope.reverse_path is not None and now - submission.received_at >= patience


def notify(
    entry: Entry,
    fates: Sequence[Fate],
    *,
    policy: Policy,
    route: Route,
    queue_ids: Sequence[str],
    now: datetime,
    audience: Audience = NOBODY,
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
    reports = _Reports(entry, policy, route, now, audience, iter(queue_ids))
    sender = entry.submission.envelope.reverse_path
    readers = _readers(policy, sender, audience.address)
    if sender is None:
        reports.events.append(NotificationSuppressed(entry.queue_id, "null reverse-path"))
    elif not told:
        reports.events.append(NotificationSuppressed(entry.queue_id, "notify=never"))
    else:
        for reader in readers:
            reports.tell(told, (reader,), stands_in=not _same(reader, sender))
    also = _also(policy, readers) if failures else ()
    if also:
        reports.tell(failures, also, to_sender=False)
    warned = any(fate.action is Action.DELAYED for fate in told) and sender is not None
    return Notices(tuple(reports.entries), tuple(reports.events), warned, tuple(reports.told))


def _wanted(fate: Fate, policy: Policy) -> bool:
    """Whether the sender wants to hear it."""
    asked = fate.recipient.notify
    if asked is not None:
        return _WANTED[fate.action] in asked
    return fate.action is Action.FAILED or (fate.action is Action.DELAYED and policy.delay_warning is not None)


def _readers(policy: Policy, sender: Address | None, address: Address | None) -> tuple[Address, ...]:
    """Who is told as `bounces.to` says, each once; nobody where there is no sender."""
    if sender is None:
        return ()
    if address is None or policy.bounces_to == "sender" or _same(address, sender):
        return (sender,)
    return (sender, address) if policy.bounces_to == "both" else (address,)


def _also(policy: Policy, told: Sequence[Address]) -> tuple[Address, ...]:
    """The other readers, each once, without those of `bounces.to`."""
    readers = {str(reader).lower(): reader for reader in policy.bounces_also}
    for reader in told:
        readers.pop(str(reader).lower(), None)
    return tuple(readers.values())


def _same(one: Address, other: Address) -> bool:
    """Case does not count: nobody has two mailboxes by it."""
    return str(one).lower() == str(other).lower()


class _Reports:
    """Where reports about `entry` are written, or collected."""

    def __init__(
        self,
        entry: Entry,
        policy: Policy,
        route: Route,
        now: datetime,
        audience: Audience,
        queue_ids: Iterator[str],
    ) -> None:
        self.entries: list[Entry] = []
        self.events: list[Event] = []
        self.told: list[Told] = []
        self._entry = entry
        self._policy = policy
        self._route = route
        self._now = now
        self._audience = audience
        self._queue_ids = queue_ids

    def tell(
        self, fates: Sequence[Fate], readers: Sequence[Address], *, to_sender: bool = True, stands_in: bool = False
    ) -> None:
        """One message to those readers who have not had enough, a line of a summary to each of the others."""
        about = self._entry.queue_id
        action = next(action for action in Action if any(fate.action is action for fate in fates))
        counts = action is not Action.RELAYED  # that one was asked for
        now = [reader for reader in readers if not counts or reader not in self._audience.full]
        if now:
            queue_id = next(self._queue_ids)
            self.entries.append(self._report(fates, now, queue_id, to_sender=to_sender, stands_in=stands_in))
            self.events.append(NotificationQueued(queue_id, about, _KIND[action], ", ".join(map(str, now))))
        if not counts:
            return
        self.told += [Told(reader, about, self._now) for reader in now]
        for reader in readers:
            if reader not in now:
                line = self._line(fates, named=stands_in or not to_sender)
                self.told.append(Told(reader, about, self._now, summary_line.to_text(line)))
                self.events.append(NotificationCollected(about, _KIND[action], str(reader)))

    def _report(
        self, fates: Sequence[Fate], readers: Sequence[Address], queue_id: str, *, to_sender: bool, stands_in: bool
    ) -> Entry:
        entry, policy, route, now = self._entry, self._policy, self._route, self._now
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
            languages=policy.languages,
            refused=self._audience.address,
            to_sender=to_sender,
            stands_in=stands_in,
        )
        return own_entry(
            data, readers, author=policy.bounces_from, queue_id=queue_id, route=route, because="bounce", now=now
        )

    def _line(self, fates: Sequence[Fate], *, named: bool) -> summary_line.Line:
        entry = self._entry
        submission = entry.submission
        return summary_line.Line(
            entry.queue_id,
            submission.received_at,
            self._now,
            tuple(fates),
            "" if entry.session_code else dsn.subject_of(entry.content.head),
            str(submission.envelope.reverse_path or "<>") if named else "",
            entry.session_code,
        )
