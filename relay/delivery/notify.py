"""Who is to be told about an attempt, and the notification as a new entry: pure.

One message and attempt make at most one notification, whatever became of how many recipients.
Nobody is told about mail with a null reverse-path, so a bounce never bounces; NOTIFY is honoured
(RFC 3461, section 4.1), and where nobody asked, a failure is told and a success is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from relay.events import Event, NotificationQueued, NotificationSuppressed
from relay.mail import dsn
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.dsn_text import Action, Fate
from relay.mail.envelope import Envelope, Recipient
from relay.policy.decide import Policy, Route
from relay.policy.submission import Peer, Submission
from relay.queue.model import Entry, Kind

_WANTED = {Action.FAILED: "failure", Action.RELAYED: "success", Action.DELAYED: "delay"}


def notify(
    entry: Entry, fates: Sequence[Fate], *, policy: Policy, route: Route, queue_id: str, now: datetime
) -> tuple[Entry | None, tuple[Event, ...]]:
    """The notification about `fates`, by way of `route`, or None; and the event that says so.

    A fate that is only worth telling when asked for (relayed, delayed) may be given always.
    """
    told = [fate for fate in fates if _wanted(fate)]
    if not told and not any(fate.action is Action.FAILED for fate in fates):
        return None, ()
    reader = entry.submission.envelope.reverse_path
    if entry.kind is Kind.BOUNCE:
        return None, (NotificationSuppressed(entry.queue_id, "a bounce never bounces"),)
    if reader is None:
        return None, (NotificationSuppressed(entry.queue_id, "null reverse-path"),)
    if not told:
        return None, (NotificationSuppressed(entry.queue_id, "notify=never"),)
    report = _report(entry, told, reader, policy=policy, route=route, queue_id=queue_id, now=now)
    kind = "failure" if any(fate.action is Action.FAILED for fate in told) else "relayed"
    return report, (NotificationQueued(queue_id, entry.queue_id, kind, str(reader)),)


def _wanted(fate: Fate) -> bool:
    asked = fate.recipient.notify
    if asked is None:
        return fate.action is Action.FAILED
    return _WANTED[fate.action] in asked


def _report(
    entry: Entry,
    fates: Sequence[Fate],
    reader: Address,
    *,
    policy: Policy,
    route: Route,
    queue_id: str,
    now: datetime,
) -> Entry:
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
        reader=reader,
        now=now,
    )
    content = MemoryContent(data, data.index(b"\r\n\r\n") + 4)
    envelope = Envelope(
        reverse_path=None,
        # A report must not cause reports further on (RFC 3461, section 4.1).
        recipients=(Recipient(reader, notify=frozenset({"never"})),),
        smtputf8=not (reader.is_ascii and policy.bounces_from.is_ascii),
    )
    return Entry(
        submission=Submission(queue_id, envelope, content.head, content.size, Peer(""), "", now),
        content=content,
        route=route.name,
        priority=route.priority,
        session_code=False,
        because=("bounce",),
        expires_at=now + route.schedule.lifetime,
        kind=Kind.BOUNCE,
    )
