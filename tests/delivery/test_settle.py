"""The judge of an attempt: what each outcome makes of a recipient, and who is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.delivery.settle import Settled, expire, settle
from relay.events import (
    Event,
    NotificationQueued,
    NotificationSuppressed,
    RecipientDeferred,
    RecipientDelivered,
    RecipientExpired,
    RecipientFailed,
)
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.envelope import Envelope, Recipient
from relay.mail.outcome import Deferred, Delivered, Failed, Outcome, Stage, Trouble
from relay.mail.reply import Reply
from relay.policy.decide import Policy, Route, SessionCodes
from relay.policy.retry import Schedule
from relay.policy.submission import Peer, Submission
from relay.queue.model import Entry, Kind, Lease, Pending, State

ACCEPTED = datetime(2026, 11, 23, 21, 0, 0, tzinfo=UTC)
NOW = ACCEPTED + timedelta(minutes=1)
LATER = ACCEPTED + timedelta(days=6)
SECRET = "sessiecode 482913"
HEAD = b"From: jan@klant.example\r\nSubject: sessiecode 482913\r\n\r\n"
DEFAULT = Route("default", ("own",), Schedule((timedelta(minutes=1), timedelta(minutes=5)), timedelta(days=5)))
CODES = Route("session-codes", ("vendor", "own"), Schedule((timedelta(seconds=2),), timedelta(minutes=10)), priority=0)
POLICY = Policy(
    hostname="relay.example.nl",
    senders=(),
    routes={"default": DEFAULT, "session-codes": CODES},
    session_codes=SessionCodes(()),
    bounces_from=Address.of("administratie@example.nl"),
)
DROPPING = replace(POLICY, session_codes=SessionCodes((), bounce_on_expiry=False))

TAKEN = Delivered(Reply(250, "2.0.0", "queued as 1"))
REFUSED = Failed(Stage.RCPT, Reply(550, "5.1.1", "No such user"))
GREYLISTED = Deferred(Stage.RCPT, Trouble.TRANSIENT, "450 4.2.0 later", Reply(450, "4.2.0", "later"))
SICK = Deferred(Stage.CONNECT, Trouble.TIMEOUT, "connection timed out", upstream_sick=True)
IN_DOUBT = Deferred(Stage.DOT, Trouble.DROPPED, "connection lost after the end", in_doubt=True, upstream_sick=True)


def lease(
    count: int = 1,
    *,
    reverse_path: str | None = "jan@klant.example",
    notify: frozenset[str] | None = None,
    session_code: bool = False,
    kind: Kind = Kind.MAIL,
    attempts: int = 1,
    in_doubt: int = 0,
    last_reply: str = "",
) -> Lease:
    recipients = tuple(Recipient(Address.of(f"r{n}@x.example"), notify=notify) for n in range(count))
    envelope = Envelope(Address.of(reverse_path) if reverse_path else None, recipients)
    submission = Submission("7QK3AAAAAAAA", envelope, HEAD, 99, Peer("127.0.0.1"), "legacy", ACCEPTED)
    route = CODES if session_code else DEFAULT
    entry = Entry(
        submission=submission,
        content=MemoryContent(HEAD + b"482913\r\n", len(HEAD)),
        route=route.name,
        priority=route.priority,
        session_code=session_code,
        because=(),
        expires_at=ACCEPTED + route.schedule.lifetime,
        kind=kind,
        attempts=attempts,
    )
    return Lease(entry, tuple(Pending(n, r, last_reply, in_doubt) for n, r in enumerate(recipients)), key=7)


def settled(
    mail: Lease,
    *outcomes: Outcome,
    now: datetime = NOW,
    policy: Policy = POLICY,
    jitter: float = 0.5,
    may_expire: bool = True,
) -> Settled:
    return settle(
        mail,
        outcomes,
        route=CODES if mail.entry.session_code else DEFAULT,
        policy=policy,
        upstream="own",
        now=now,
        jitter=jitter,
        new_queue_id="7QK3BBBBBBBB",
        rule="fallback",
        may_expire=may_expire,
    )


def states(done: Settled) -> list[State]:
    return [result.state for result in done.settlement.results]


def kinds(done: Settled) -> list[type[Event]]:
    return [type(event) for event in done.events]


def test_taken_mail_is_delivered_and_nobody_is_written_to() -> None:
    done = settled(lease(2), TAKEN, TAKEN)
    assert states(done) == [State.DELIVERED, State.DELIVERED]
    assert done.settlement.results[0].reply == "250 2.0.0 queued as 1"
    assert done.settlement.next_attempt_at is None
    assert done.settlement.notifications == ()
    assert done.events[0] == RecipientDelivered(
        "7QK3AAAAAAAA", "r0@x.example", "default", "own", "fallback", 1, 250, "2.0.0", "queued as 1", 60.0, False
    )


def test_a_refused_recipient_fails_and_the_sender_gets_one_bounce_by_the_default_route() -> None:
    done = settled(lease(3), REFUSED, TAKEN, REFUSED)
    assert states(done) == [State.FAILED, State.DELIVERED, State.FAILED]
    (bounce,) = done.settlement.notifications
    assert bounce.kind is Kind.BOUNCE
    assert bounce.submission.envelope.reverse_path is None
    assert [str(r.address) for r in bounce.submission.envelope.recipients] == ["jan@klant.example"]
    assert (bounce.queue_id, bounce.route, bounce.attempts) == ("7QK3BBBBBBBB", "default", 0)
    assert bounce.expires_at == NOW + timedelta(days=5)
    text = bounce.content.read(0, bounce.content.size)
    assert text.count(b"Final-Recipient: ") == 2
    assert b"r0@x.example" in text
    assert b"r2@x.example" in text
    assert bounce.content.head.endswith(b"\r\n\r\n")
    assert bounce.submission.head == bounce.content.head
    assert bounce.submission.size == bounce.content.size
    assert kinds(done) == [RecipientFailed, RecipientDelivered, RecipientFailed, NotificationQueued]
    assert done.events[-1] == NotificationQueued("7QK3BBBBBBBB", "7QK3AAAAAAAA", "failure", "jan@klant.example")


def test_deferred_mail_waits_as_the_schedule_says() -> None:
    done = settled(lease(attempts=2), GREYLISTED)
    assert states(done) == [State.PENDING]
    assert done.settlement.results[0].reply == "450 4.2.0 later"
    assert done.settlement.next_attempt_at == NOW + timedelta(minutes=5)
    assert done.settlement.route == "default"
    (event,) = done.events
    assert isinstance(event, RecipientDeferred)
    assert (event.code, event.text, event.next_attempt_at) == (450, "later", NOW + timedelta(minutes=5))


def test_mail_that_a_sick_upstream_kept_waiting_is_due_at_once() -> None:
    done = settled(lease(2), SICK, SICK)
    assert done.settlement.next_attempt_at == NOW
    assert done.settlement.results[0].reply == "connection timed out"
    (event, _) = done.events
    assert isinstance(event, RecipientDeferred)
    assert (event.code, event.status, event.text) == (0, "", "connection timed out")


def test_a_message_that_makes_the_upstream_hang_up_waits_for_the_schedule() -> None:
    broken = Deferred(Stage.BODY, Trouble.DROPPED, "connection lost", upstream_sick=True)
    assert settled(lease(), broken).settlement.next_attempt_at == NOW + timedelta(minutes=1)


def test_mail_that_met_421_within_a_transaction_waits_longer_than_the_upstream_is_set_aside() -> None:
    closing = Deferred(Stage.MAIL, Trouble.TRANSIENT, "421 bye", Reply(421, "4.3.2", "bye"), upstream_sick=True)
    at = settled(lease(), closing, jitter=0).settlement.next_attempt_at
    assert at is not None
    assert at >= NOW + DEFAULT.schedule.set_aside(1, 1.0)
    assert at <= NOW + timedelta(seconds=66)


def test_a_greylisted_recipient_keeps_the_schedule_when_the_upstream_falls_ill_for_the_others() -> None:
    assert settled(lease(2), GREYLISTED, SICK).settlement.next_attempt_at == NOW + timedelta(minutes=1)


def test_mail_in_doubt_waits_twice_the_interval_and_the_doubt_is_counted() -> None:
    done = settled(lease(in_doubt=1), IN_DOUBT)
    assert done.settlement.next_attempt_at == NOW + timedelta(minutes=2)
    assert done.settlement.results[0].in_doubt == 2
    assert states(done) == [State.PENDING]


def test_mail_whose_lifetime_ended_expires_with_its_attempt_and_bounces() -> None:
    done = settled(lease(), SICK, now=LATER)
    assert states(done) == [State.EXPIRED]
    assert done.settlement.next_attempt_at is None
    assert kinds(done) == [RecipientExpired, NotificationQueued]
    (bounce,) = done.settlement.notifications
    assert b"Status: 4.4.7" in bounce.content.read(0, bounce.content.size)


def test_a_last_attempt_that_succeeds_delivers_expired_mail() -> None:
    assert states(settled(lease(), TAKEN, now=LATER)) == [State.DELIVERED]


def test_after_a_jump_of_the_clock_mail_waits_one_more_interval_and_a_session_code_does_not() -> None:
    assert states(settled(lease(), GREYLISTED, now=LATER, may_expire=False)) == [State.PENDING]
    assert states(settled(lease(session_code=True), GREYLISTED, now=LATER, may_expire=False)) == [State.EXPIRED]


@pytest.mark.parametrize(
    ("mail", "why"),
    [
        (lease(reverse_path=None), "null reverse-path"),
        (lease(kind=Kind.BOUNCE, reverse_path=None, notify=frozenset({"never"})), "a bounce never bounces"),
        (lease(notify=frozenset({"never"})), "notify=never"),
        (lease(notify=frozenset({"success", "delay"})), "notify=never"),
    ],
)
def test_a_failure_that_nobody_can_or_wants_to_hear_of_is_told_to_those_who_watch(mail: Lease, why: str) -> None:
    done = settled(mail, REFUSED)
    assert done.settlement.notifications == ()
    assert done.events[1:] == (NotificationSuppressed("7QK3AAAAAAAA", why),)


def test_a_delivered_bounce_is_the_end_of_it() -> None:
    done = settled(lease(kind=Kind.BOUNCE, reverse_path=None, notify=frozenset({"never"})), TAKEN)
    assert kinds(done) == [RecipientDelivered]


def test_who_asked_for_success_hears_that_the_message_was_handed_on_unless_the_next_hop_tells_it() -> None:
    asked = lease(notify=frozenset({"success", "failure"}))
    done = settled(asked, TAKEN)
    assert done.events[-1] == NotificationQueued("7QK3BBBBBBBB", "7QK3AAAAAAAA", "relayed", "jan@klant.example")
    (report,) = done.settlement.notifications
    assert b"Action: relayed" in report.content.read(0, report.content.size)
    assert settled(asked, Delivered(TAKEN.reply, reported=True)).settlement.notifications == ()


def test_one_notification_tells_of_success_and_failure_together() -> None:
    done = settled(lease(2, notify=frozenset({"success", "failure"})), TAKEN, REFUSED)
    (report,) = done.settlement.notifications
    text = report.content.read(0, report.content.size)
    assert (text.count(b"Action: relayed"), text.count(b"Action: failed")) == (1, 1)
    assert done.events[-1] == NotificationQueued("7QK3BBBBBBBB", "7QK3AAAAAAAA", "failure", "jan@klant.example")


def test_a_session_code_in_doubt_is_sent_once_more_and_soon() -> None:
    done = settled(lease(session_code=True), IN_DOUBT)
    assert states(done) == [State.PENDING]
    assert done.settlement.next_attempt_at == NOW + timedelta(seconds=2)


def test_a_session_code_waits_for_its_own_schedule_even_when_every_upstream_is_sick() -> None:
    assert settled(lease(session_code=True), SICK).settlement.next_attempt_at == NOW + timedelta(seconds=2)


def test_a_session_code_in_doubt_twice_has_failed_without_a_bounce() -> None:
    done = settled(lease(session_code=True, in_doubt=1), IN_DOUBT)
    assert states(done) == [State.FAILED]
    assert done.settlement.results[0].in_doubt == 2
    assert done.settlement.notifications == ()
    (event,) = done.events
    assert isinstance(event, RecipientFailed)
    assert event.in_doubt
    assert "may have been delivered" in event.text


@pytest.mark.parametrize(("doubts", "outcome"), [(1, SICK), (0, IN_DOUBT)])
def test_a_session_code_in_doubt_that_is_too_late_has_failed_without_a_bounce(doubts: int, outcome: Outcome) -> None:
    done = settled(lease(session_code=True, in_doubt=doubts), outcome, now=LATER)
    assert states(done) == [State.FAILED]
    (event,) = done.events
    assert isinstance(event, RecipientFailed)
    assert event.in_doubt


def test_a_session_code_in_doubt_that_became_too_late_while_it_waited_has_failed_without_a_bounce() -> None:
    mail = lease(session_code=True, in_doubt=1)
    done = expire(mail, route=CODES, policy=POLICY, now=LATER, new_queue_id="7QK3BBBBBBBB")
    assert states(done) == [State.FAILED]
    assert done.settlement.notifications == ()


def test_it_is_kept_which_upstream_left_a_recipient_in_doubt() -> None:
    first = settled(lease(session_code=True), IN_DOUBT).settlement.results[0]
    assert (first.in_doubt, first.in_doubt_at) == (1, "own")
    mail = lease(session_code=True)
    again = replace(mail, pending=(replace(mail.pending[0], in_doubt=1, in_doubt_at="vendor"),))
    second = settled(again, SICK).settlement.results[0]
    assert (second.state, second.in_doubt, second.in_doubt_at) == (State.PENDING, 1, "vendor")


def test_each_recipient_is_told_of_with_the_upstream_that_answered_for_it() -> None:
    done = settle(
        lease(3),
        (TAKEN, IN_DOUBT, SICK),
        route=DEFAULT,
        policy=POLICY,
        upstream="",
        asked=("own", "spare", ""),
        now=NOW,
        jitter=0.5,
        new_queue_id="7QK3BBBBBBBB",
    )
    told = [e for e in done.events if isinstance(e, RecipientDelivered | RecipientDeferred)]
    assert [event.upstream for event in told] == ["own", "spare", ""]
    assert [result.in_doubt_at for result in done.settlement.results] == ["", "spare", ""]


def test_ordinary_mail_on_the_route_of_session_codes_waits_for_its_schedule() -> None:
    done = settle(
        lease(), (SICK,), route=CODES, policy=POLICY, upstream="own", now=NOW, jitter=0.5, new_queue_id="7QK3BBBBBBBB"
    )
    assert done.settlement.next_attempt_at == NOW + timedelta(seconds=2)


def test_a_session_code_expires_with_a_bounce_or_without_as_the_operator_said() -> None:
    told, dropped = (settled(lease(session_code=True), SICK, now=LATER, policy=p) for p in (POLICY, DROPPING))
    assert states(told) == states(dropped) == [State.EXPIRED]
    assert kinds(told) == [RecipientExpired, NotificationQueued]
    assert kinds(dropped) == [RecipientExpired, NotificationSuppressed]
    assert dropped.settlement.notifications == ()


def test_a_refused_session_code_bounces_even_where_expired_ones_are_dropped() -> None:
    assert len(settled(lease(session_code=True), REFUSED, policy=DROPPING).settlement.notifications) == 1


def test_what_expires_while_it_waits_tells_the_last_reply_known() -> None:
    mail = lease(2, last_reply="450 4.2.0 later", attempts=3)
    done = expire(mail, route=DEFAULT, policy=POLICY, now=LATER, new_queue_id="7QK3BBBBBBBB")
    assert states(done) == [State.EXPIRED, State.EXPIRED]
    assert {result.reply for result in done.settlement.results} == {"450 4.2.0 later"}
    (bounce,) = done.settlement.notifications
    assert b"x-relay; 450 4.2.0 later" in bounce.content.read(0, bounce.content.size)


def test_an_outcome_too_few_is_a_bug_and_says_so() -> None:
    with pytest.raises(ValueError, match="shorter"):
        settled(lease(2), TAKEN)


texts = st.sampled_from(["OK", SECRET, f"rejected: {SECRET}", "", "é"])
replies = st.builds(Reply, st.sampled_from([421, 450, 550, 554]), st.sampled_from(["", "5.7.1", "4.2.0"]), texts)
outcomes = (
    st.builds(Delivered, texts.map(lambda text: Reply(250, "2.0.0", text)), st.booleans())
    | st.builds(Failed, st.sampled_from(Stage), replies)
    | st.builds(
        Deferred,
        st.sampled_from(Stage),
        st.sampled_from(Trouble),
        texts,
        st.none() | replies,
        st.booleans(),
        st.booleans(),
    )
)
wishes = st.none() | st.sets(st.sampled_from(["success", "failure", "delay"]), min_size=1).map(frozenset)
ENDS = {RecipientDelivered: State.DELIVERED, RecipientFailed: State.FAILED, RecipientExpired: State.EXPIRED}


@settings(max_examples=300, deadline=None)
@given(
    said=st.lists(outcomes, min_size=1, max_size=5),
    notify=wishes,
    reverse_path=st.sampled_from([None, "jan@klant.example"]),
    kind=st.sampled_from(Kind),
    session_code=st.booleans(),
    doubts=st.integers(0, 2),
    age=st.integers(0, 10**6),
    jitter=st.floats(0, 1),
    policy=st.sampled_from([POLICY, DROPPING]),
)
def test_every_outcome_is_settled_once_and_told_once_and_a_session_code_never_quoted(
    said: Sequence[Outcome],
    notify: frozenset[str] | None,
    reverse_path: str | None,
    kind: Kind,
    session_code: bool,
    doubts: int,
    age: int,
    jitter: float,
    policy: Policy,
) -> None:
    mail = lease(
        len(said), reverse_path=reverse_path, notify=notify, session_code=session_code, kind=kind, in_doubt=doubts
    )
    now = ACCEPTED + timedelta(seconds=age)
    done = settled(mail, *said, now=now, policy=policy, jitter=jitter)
    results = done.settlement.results
    assert [result.index for result in results] == [pending.index for pending in mail.pending]
    told = [event for event in done.events if hasattr(event, "recipient")]
    assert [ENDS.get(type(event), State.PENDING) for event in told] == states(done)
    assert len(done.events) <= len(told) + 2
    for outcome, result in zip(said, results, strict=True):
        if isinstance(outcome, Delivered):
            assert result.state is State.DELIVERED
        elif isinstance(outcome, Failed):
            assert result.state is State.FAILED
        else:
            assert result.in_doubt == doubts + outcome.in_doubt
    waits = State.PENDING in states(done)
    assert (done.settlement.next_attempt_at is not None) == waits
    assert done.settlement.next_attempt_at is None or done.settlement.next_attempt_at >= now
    assert len(done.settlement.notifications) <= 1
    assert len(done.settlement.notifications) == kinds(done).count(NotificationQueued)
    if reverse_path is None or kind is Kind.BOUNCE:
        assert not done.settlement.notifications
    if session_code:
        quoted = [repr(done.events), repr([result.reply for result in results])]
        quoted += [repr(entry.content.read(0, entry.content.size)) for entry in done.settlement.notifications]
        assert not any("482913" in text or "sessiecode" in text for text in quoted)
