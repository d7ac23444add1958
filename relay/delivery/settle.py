"""Settlement: what the outcomes of an attempt change. Pure; the worker does what is said here.

The judge of an attempt, in one table (the rest waits, the ends leave the queue):

    outcome                          becomes     and
    Delivered                        delivered   a "relayed" report where NOTIFY=SUCCESS and the next hop has no DSN
    Failed                           failed      a bounce
    Deferred                         pending     the schedule says when
    Deferred before a transaction    pending     due at once: the upstream set aside is what holds it back
    Deferred as one too many         pending     due at once: the others have left
    Deferred because of the account  pending     at MAIL, for the first time, the same; else the latest that the
                                                 schedule allows: this message may be what brings about such words
    the same, throttled at MAIL      pending     within a minute, and others first
    Deferred in doubt                pending     twice the interval: a duplicate is worse than a delay
    the same, `in_doubt: hold`       held        a person decides; others of the message go on
    Deferred by a 421 in between     pending     the latest that the schedule allows, so that another message probes
    the same, by a sick endpoint     pending     as above
    session code, deferred anyhow    pending     its own interval, whatever the reason
    Deferred past its lifetime       expired     a bounce
    session code, in doubt twice     failed      no bounce: it may well have been delivered
    the same, once, `in_doubt: hold` failed      as above: to hold a code is worthless
    session code past its lifetime   expired     a bounce, or nothing with `on_expire: drop`
    the same, once in doubt          failed      no bounce, as above

Without an attempt an entry is held (a sender rule wants a person to see it), or ends: its lifetime ran out
while it waited, or an operator has it returned. Mail that still waits after hours is told of once.

Mail is worth trying a last time when its lifetime ends; a session code is not, and expires by the
clock alone. What is kept and told about session codes are codes of replies, never their text.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import assert_never

from relay.delivery.notify import NOBODY, Audience, Notices, delay_is_to_be_told, notify
from relay.delivery.recipients import one_too_many
from relay.events import (
    EntryHeld,
    Event,
    NotificationSuppressed,
    RecipientDeferred,
    RecipientDelivered,
    RecipientExpired,
    RecipientFailed,
)
from relay.mail import dsn
from relay.mail.dsn_text import Action, Fate
from relay.mail.outcome import BEFORE_A_TRANSACTION, Deferred, Delivered, Failed, Outcome, Refusal, Stage
from relay.mail.reply import Reply
from relay.policy.decide import DEFAULT, SESSION_CODES, Policy, Route
from relay.policy.refusal import OF_THE_ACCOUNT
from relay.policy.rewriting import Rendered
from relay.queue.model import Kind, Lease, Pending, Result, Settlement, State
from relay.values import frozen

OTHERS_FIRST = timedelta(minutes=1)
_NO_REPLY = Reply(0, "", "")
_DOUBT = "it may have been delivered"
_MAY_BE_DELIVERED = f"no answer after the end of the message: {_DOUBT}"
_BOUNCED = "returned by the administrator of this relay"


@frozen
class Settled:
    """`events` are to be told once `settlement` is committed."""

    settlement: Settlement
    events: tuple[Event, ...]


@frozen
class Attempt:
    """The attempt that is being settled. `rule` is the sender rule that spoke, `upstream` where it went."""

    lease: Lease
    policy: Policy
    route: Route
    upstream: str
    rule: str | None
    now: datetime
    may_expire: bool
    opens_at: datetime | None = None

    @property
    def over(self) -> bool:
        """The lifetime has ended and may do so: for session codes by the clock, always."""
        entry = self.lease.entry
        return self.now >= entry.expires_at and (self.may_expire or entry.session_code)

    @property
    def late(self) -> bool:
        """It waits for so long that who wants to hear of a delay is to be told, if the clock can be believed."""
        return self.may_expire and delay_is_to_be_told(self.lease.entry, self.policy, self.now)

    @property
    def delay(self) -> float:
        """Seconds since acceptance."""
        return max(0.0, (self.now - self.lease.entry.submission.received_at).total_seconds())


@frozen
class _Judgement:
    """What one outcome leads to. `fate` None: nobody needs to be told."""

    result: Result
    event: Event
    fate: Fate | None = None
    waits_for: Deferred | None = None


def settle(
    lease: Lease,
    outcomes: Sequence[Outcome],
    *,
    route: Route,
    policy: Policy,
    upstream: str,
    now: datetime,
    jitter: float,
    new_queue_ids: Sequence[str],
    asked: Sequence[str] = (),
    left: Rendered | None = None,
    opens_at: datetime | None = None,
    rule: str | None = None,
    may_expire: bool = True,
    audience: Audience = NOBODY,
) -> Settled:
    """What an attempt by `route` at `upstream` changes; one outcome for each of `lease.pending`, in order.

    Where the outcomes come from several upstreams, `asked` names that of each, "" where none was asked. `left`: the
    message as somebody took it. Until `opens_at` the upstreams hold back whatever waits.

    `jitter` is chance between 0 and 1; `new_queue_ids` name the notifications (none are needed where
    everybody got the message and nobody asked to hear so, else `notify.most_notices`), which go by the
    route "default". `may_expire` False (the clock has jumped) puts off the expiry of ordinary mail by one
    interval, and the word that it waits. `audience` is who reads notifications now.
    Raises ValueError when the counts differ.
    """
    attempt = Attempt(lease, policy, route, upstream, rule, now, may_expire, opens_at)
    next_attempt_at = _next_attempt(attempt, outcomes, jitter)
    attempts = [attempt] * len(lease.pending)
    if asked:
        attempts = [Attempt(lease, policy, route, name, rule, now, may_expire, opens_at) for name in asked]
    judgements = [
        _judge(one, pending, outcome, next_attempt_at)
        for one, pending, outcome in zip(attempts, lease.pending, outcomes, strict=True)
    ]
    if next_attempt_at is not None and all(judgement.waits_for is None for judgement in judgements):
        next_attempt_at = None
    return _settled(attempt, judgements, next_attempt_at, now, new_queue_ids, audience, left)


def expire(
    lease: Lease,
    *,
    route: Route,
    policy: Policy,
    now: datetime,
    new_queue_ids: Sequence[str],
    audience: Audience = NOBODY,
) -> Settled:
    """The end of an entry whose lifetime ran out while it waited; the last reply known is what is told."""
    attempt = Attempt(lease, policy, route, "", None, now, True)
    judgements = [_too_late(attempt, pending, None) for pending in lease.pending]
    return _settled(attempt, judgements, None, None, new_queue_ids, audience)


def bounce(
    lease: Lease,
    *,
    route: Route,
    policy: Policy,
    now: datetime,
    new_queue_ids: Sequence[str],
    audience: Audience = NOBODY,
) -> Settled:
    """The end of an entry that an operator has returned to its sender, whatever it is and whatever was in doubt."""
    attempt = Attempt(lease, policy, route, "", None, now, True)
    judgements = [_bounced(attempt, pending) for pending in lease.pending]
    return _settled(attempt, judgements, None, None, new_queue_ids, audience)


def hold(lease: Lease, *, route: Route, rule: str) -> Settled:
    """Everybody who still waits waits for a person, as `rule` says; once released, by `route`."""
    held = tuple([Result(p.index, State.HELD, p.last_reply, p.in_doubt, p.in_doubt_at) for p in lease.pending])
    return Settled(
        Settlement(lease, held, route=route.name), (EntryHeld(lease.entry.queue_id, rule, len(lease.pending)),)
    )


def _settled(
    attempt: Attempt,
    judgements: Sequence[_Judgement],
    next_attempt_at: datetime | None,
    tried_at: datetime | None,
    new_queue_ids: Sequence[str],
    audience: Audience,
    left: Rendered | None = None,
) -> Settled:
    """`tried_at` None: there was no attempt."""
    lease, policy = attempt.lease, attempt.policy
    events, results, fates, held = list[Event](), list[Result](), list[Fate](), 0
    for judgement in judgements:
        events.append(judgement.event)
        results.append(judgement.result)
        held += judgement.result.state is State.HELD
        if judgement.fate is not None:
            fates.append(judgement.fate)
    if held:
        events.append(EntryHeld(lease.entry.queue_id, "", held, in_doubt=True))
    notices = Notices()
    if fates:
        told = _worth_telling(fates, policy, lease.entry.session_code)
        notices = notify(
            lease.entry,
            told,
            policy=policy,
            route=policy.routes[DEFAULT],
            queue_ids=new_queue_ids,
            now=attempt.now,
            audience=audience,
        )
        events += notices.events
        if len(told) < len(fates):
            events.append(NotificationSuppressed(lease.entry.queue_id, "on_expire=drop"))
    settlement = Settlement(
        lease,
        tuple(results),
        next_attempt_at,
        attempt.route.name if held or next_attempt_at is not None else None,
        notices.entries,
        tried_at,
        notices.warned,
        notices.told,
        left,
    )
    return Settled(settlement, tuple(events))


def _worth_telling(fates: list[Fate], policy: Policy, session_code: bool) -> list[Fate]:
    codes = policy.session_codes
    if not session_code or codes is None or codes.bounce_on_expiry:
        return fates
    return [fate for fate in fates if not fate.expired]


def _next_attempt(attempt: Attempt, outcomes: Sequence[Outcome], jitter: float) -> datetime | None:
    """When what is deferred is tried again; None when nothing is.

    One time for all recipients: doubt about any of them waits longer, and only what says nothing of the message waits
    for no schedule: the upstream's own pause holds it back.
    """
    deferred = [outcome for outcome in outcomes if isinstance(outcome, Deferred) and not _holds(attempt, outcome)]
    if not deferred:
        return None
    entry = attempt.lease.entry
    # What goes by the route of session codes does not wait for an upstream's pause: its schedule must hold it back.
    urgent = entry.session_code or attempt.route.name == SESSION_CODES
    if not urgent and all(_says_nothing_of_the_message(attempt, outcome) for outcome in deferred):
        return attempt.now
    # It may be this message that the upstream cannot bear: whatever else waits is to be the probe.
    if any(map(_may_be_its_fault, deferred)):
        jitter = 1.0
    # For a session code the same code twice does no harm, and a late one is worth nothing.
    patient = not entry.session_code and any(outcome.in_doubt for outcome in deferred)
    by_schedule = attempt.route.schedule.next_attempt(attempt.now, entry.attempts, jitter, in_doubt=patient)
    if not urgent and all(map(_asks_for_less, deferred)):
        return min(by_schedule, attempt.now + OTHERS_FIRST)
    return by_schedule


def _may_be_its_fault(outcome: Deferred) -> bool:
    """True when the upstream is left alone for what was said in a transaction: another message is to be the next."""
    http = outcome.stage is Stage.HTTP and outcome.upstream_sick
    return http or _of_the_account(outcome) or (outcome.reply or _NO_REPLY).code == 421


def _says_nothing_of_the_message(attempt: Attempt, outcome: Deferred) -> bool:
    """True before a transaction, and for who was one too many in one; and once at MAIL, where the account alone was the
    reason. Said again, or later, it may be this message that brings it about."""
    if outcome.stage in BEFORE_A_TRANSACTION or one_too_many(outcome):
        return True
    return _of_the_account(outcome) and outcome.stage is Stage.MAIL and attempt.lease.entry.attempts < 2


def _asks_for_less(outcome: Deferred) -> bool:
    """At MAIL, an upstream that wants less mail, or fewer connections."""
    return outcome.refusal is Refusal.THROTTLED and outcome.stage is Stage.MAIL and _of_the_account(outcome)


def _of_the_account(outcome: Deferred) -> bool:
    """True where a reply blames the account. The words of a 421 do not count: a message may bring them about."""
    if outcome.refusal not in OF_THE_ACCOUNT or not outcome.upstream_sick or outcome.in_doubt:
        return False
    return (outcome.reply or _NO_REPLY).code != 421


def _judge(attempt: Attempt, pending: Pending, outcome: Outcome, next_attempt_at: datetime | None) -> _Judgement:
    match outcome:
        case Delivered():
            return _delivered(attempt, pending, outcome)
        case Failed():
            return _failed(attempt, pending, outcome)
        case Deferred():
            code = attempt.lease.entry.session_code
            if code and outcome.in_doubt and (pending.in_doubt or attempt.route.hold_in_doubt):
                return _given_up(attempt, pending, outcome)
            if _holds(attempt, outcome):
                return _in_doubt(attempt, pending, outcome)
            if attempt.over:
                return _too_late(attempt, pending, outcome)
            return _deferred(attempt, pending, outcome, next_attempt_at)
        case _:
            assert_never(outcome)


def _delivered(attempt: Attempt, pending: Pending, outcome: Delivered) -> _Judgement:
    entry, recipient = attempt.lease.entry, pending.recipient
    reply = _quiet(outcome.reply) if entry.session_code else outcome.reply
    event = RecipientDelivered(
        entry.queue_id,
        str(recipient.address),
        attempt.route.name,
        attempt.upstream,
        attempt.rule,
        entry.attempts,
        reply.code,
        reply.status,
        reply.text,
        attempt.delay,
        entry.session_code,
    )
    fate = None
    if recipient.notify is not None and not outcome.reported:
        fate = Fate(recipient, Action.RELAYED, attempt.upstream, reply)
    return _Judgement(_result(attempt, pending, State.DELIVERED, _kept(reply)), event, fate)


def _failed(attempt: Attempt, pending: Pending, outcome: Failed) -> _Judgement:
    entry = attempt.lease.entry
    reply = _quiet(outcome.reply) if entry.session_code else outcome.reply
    event = _failure(attempt, pending, outcome.stage, reply, reply.text, in_doubt=False, refusal=outcome.refusal)
    fate = Fate(pending.recipient, Action.FAILED, attempt.upstream, reply, refusal=outcome.refusal)
    return _Judgement(_result(attempt, pending, State.FAILED, _kept(reply)), event, fate)


def _bounced(attempt: Attempt, pending: Pending) -> _Judgement:
    """Nobody refused it: no stage, no reply; the status is what the report says."""
    fate = Fate(pending.recipient, Action.FAILED, "", returned=True)
    event = _failure(attempt, pending, None, Reply(0, dsn.RETURNED, ""), _BOUNCED, in_doubt=False)
    return _Judgement(_result(attempt, pending, State.FAILED, _BOUNCED), event, fate)


def _given_up(attempt: Attempt, pending: Pending, outcome: Deferred | None) -> _Judgement:
    """A session code that was in doubt, and is so again, is too late or is not to be tried again: it ends, and nobody
    is told that it failed."""
    event = _failure(attempt, pending, Stage.DOT, _NO_REPLY, _MAY_BE_DELIVERED, in_doubt=True)
    return _Judgement(_result(attempt, pending, State.FAILED, _MAY_BE_DELIVERED, outcome), event)


def _result(attempt: Attempt, pending: Pending, state: State, said: str, outcome: Deferred | None = None) -> Result:
    return Result(pending.index, state, said, *_doubt(attempt, pending, outcome), attempt.upstream)


def _doubt(attempt: Attempt, pending: Pending, outcome: Deferred | None) -> tuple[int, str]:
    """How often it was left in doubt, and where the last time."""
    if outcome is not None and outcome.in_doubt:
        return pending.in_doubt + 1, attempt.upstream
    return pending.in_doubt, pending.in_doubt_at


def _failure(
    attempt: Attempt,
    pending: Pending,
    stage: Stage | None,
    reply: Reply,
    text: str,
    *,
    in_doubt: bool,
    refusal: Refusal | None = None,
) -> RecipientFailed:
    entry = attempt.lease.entry
    return RecipientFailed(
        entry.queue_id,
        str(pending.recipient.address),
        attempt.route.name,
        attempt.upstream,
        entry.attempts,
        stage,
        reply.code,
        reply.status,
        text,
        attempt.delay,
        in_doubt,
        entry.session_code,
        refusal,
    )


def _deferred(attempt: Attempt, pending: Pending, outcome: Deferred, next_attempt_at: datetime | None) -> _Judgement:
    entry = attempt.lease.entry
    reply = outcome.reply or _NO_REPLY
    said = _said(outcome, session_code=entry.session_code)
    event = RecipientDeferred(
        entry.queue_id,
        str(pending.recipient.address),
        attempt.route.name,
        attempt.upstream,
        entry.attempts,
        outcome.stage,
        outcome.trouble,
        reply.code,
        reply.status,
        "" if entry.session_code else reply.text or outcome.text,
        outcome.in_doubt,
        _later(next_attempt_at, attempt.opens_at),
        entry.session_code,
    )
    fate = None
    if attempt.late:
        until = entry.expires_at
        fate = Fate(pending.recipient, Action.DELAYED, attempt.upstream, outcome.reply, said, retry_until=until)
    return _Judgement(_result(attempt, pending, State.PENDING, said, outcome), event, fate, waits_for=outcome)


def _later(at: datetime | None, opens_at: datetime | None) -> datetime | None:
    """When the next attempt can be."""
    return at if at is None or opens_at is None else max(at, opens_at)


def _holds(attempt: Attempt, outcome: Deferred) -> bool:
    """Whether a person has to say what becomes of it: by the route, and for mail that somebody else wrote."""
    entry = attempt.lease.entry
    return outcome.in_doubt and attempt.route.hold_in_doubt and not entry.session_code and entry.kind is not Kind.BOUNCE


def _in_doubt(attempt: Attempt, pending: Pending, outcome: Deferred) -> _Judgement:
    """Held: it neither expires nor is tried again before a person has looked."""
    event = _deferred(attempt, pending, outcome, None).event
    return _Judgement(_result(attempt, pending, State.HELD, _MAY_BE_DELIVERED, outcome), event)


def _too_late(attempt: Attempt, pending: Pending, outcome: Deferred | None) -> _Judgement:
    if attempt.lease.entry.session_code and _doubt(attempt, pending, outcome)[0]:
        return _given_up(attempt, pending, outcome)
    return _expired(attempt, pending, outcome)


def _expired(attempt: Attempt, pending: Pending, outcome: Deferred | None) -> _Judgement:
    """The lifetime is over; `outcome` is that of the last attempt, or None when there was none now."""
    entry = attempt.lease.entry
    said = pending.last_reply if outcome is None else _said(outcome, session_code=entry.session_code)
    text = "" if entry.session_code else said
    event = RecipientExpired(
        entry.queue_id,
        str(pending.recipient.address),
        attempt.route.name,
        entry.attempts,
        text,
        attempt.delay,
        entry.session_code,
    )
    reply = None
    if outcome is not None and outcome.reply is not None:
        reply = _quiet(outcome.reply) if entry.session_code else outcome.reply
    fate = Fate(pending.recipient, Action.FAILED, attempt.upstream, reply, text, expired=True)
    return _Judgement(_result(attempt, pending, State.EXPIRED, said, outcome), event, fate)


def _quiet(reply: Reply) -> Reply:
    """The reply without its text, which may quote."""
    return Reply(reply.code, reply.status, "")


def _kept(reply: Reply) -> str:
    return str(reply).rstrip()


def _said(outcome: Deferred, *, session_code: bool) -> str:
    """What is kept of a deferral: the reply or what happened; for session codes codes, or how far it came."""
    if outcome.reply is not None:
        return _kept(_quiet(outcome.reply) if session_code else outcome.reply)
    text = f"{outcome.trouble} at {outcome.stage}" if session_code else outcome.text
    return f"{text}: {_DOUBT}" if outcome.in_doubt else text
