"""The judge of an attempt: what each outcome makes of a recipient, and who is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.notify import NOBODY, Audience, most_notices
from relay.delivery.settle import Settled, bounce, expire, hold, settle
from relay.events import (
    EntryHeld,
    Event,
    NotificationCollected,
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
from relay.mail.outcome import Deferred, Delivered, Failed, Outcome, Refusal, Stage, Trouble
from relay.mail.reply import Reply
from relay.mail.submission import Peer, Submission
from relay.mail.summary_line import of_text
from relay.policy.decide import DELAY_WARNING, Policy, Route
from relay.policy.retry import Schedule
from relay.queue.model import Entry, Kind, Lease, Pending, Result, State, Told
from tests.kit import configured
from tests.kit.extent import examples

ACCEPTED = datetime(2026, 11, 23, 21, 0, 0, tzinfo=UTC)
NOW = ACCEPTED + timedelta(minutes=1)
LATER = ACCEPTED + timedelta(days=6)
SECRET = "sessiecode 482913"
BODY = b"\r\n482913\r\n"
NEW = ("7QK3BBBBBBBB", "7QK3CCCCCCCC")
HEAD = b"From: jan@klant.example\r\nSubject: sessiecode 482913\r\n\r\n"
DEFAULT = configured.route(
    "default", ("own",), Schedule((timedelta(minutes=1), timedelta(minutes=5)), timedelta(days=5))
)
CODES = configured.route(
    "session-codes", ("vendor", "own"), Schedule((timedelta(seconds=2),), timedelta(minutes=10)), priority=0
)
HOLDING = replace(DEFAULT, hold_in_doubt=True)
POLICY = configured.policy(
    routes={"default": DEFAULT, "session-codes": CODES},
    session_codes=configured.session_codes(),
    bounces_from=Address.of("administratie@example.nl"),
)
BEHEER = Address.of("beheer@example.nl")
ALSO = replace(POLICY, bounces_also=(BEHEER, Address.of("it@example.nl")))
WARNING = replace(POLICY, delay_warning=timedelta(hours=1))
DROPPING = replace(POLICY, session_codes=configured.session_codes(bounce_on_expiry=False))

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
    warned: bool = False,
    ret: str | None = None,
) -> Lease:
    recipients = tuple(Recipient(Address.of(f"r{n}@x.example"), notify=notify) for n in range(count))
    envelope = Envelope(Address.of(reverse_path) if reverse_path else None, recipients, ret=ret)
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
        warned=warned,
    )
    return Lease(entry, tuple(Pending(n, r, last_reply, in_doubt) for n, r in enumerate(recipients)), key=7)


def settled(
    mail: Lease,
    *outcomes: Outcome,
    now: datetime = NOW,
    policy: Policy = POLICY,
    jitter: float = 0.5,
    may_expire: bool = True,
    route: Route | None = None,
    audience: Audience = NOBODY,
) -> Settled:
    return settle(
        mail,
        outcomes,
        route=route or (CODES if mail.entry.session_code else DEFAULT),
        policy=policy,
        upstream="own",
        now=now,
        jitter=jitter,
        new_queue_ids=NEW,
        rule="fallback",
        may_expire=may_expire,
        audience=audience,
    )


def states(done: Settled) -> list[State]:
    return [result.state for result in done.settlement.results]


def kinds(done: Settled) -> list[type[Event]]:
    return [type(event) for event in done.events]


def bounced(mail: Lease, policy: Policy = POLICY, now: datetime = NOW) -> Settled:
    return bounce(mail, route=DEFAULT, policy=policy, now=now, new_queue_ids=NEW)


def text_of(entry: Entry) -> bytes:
    return entry.content.read(0, entry.content.size)


def readers(entry: Entry) -> list[str]:
    return [str(recipient.address) for recipient in entry.submission.envelope.recipients]


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


@pytest.mark.parametrize(("stage", "code"), [(Stage.MAIL, 421), (Stage.HTTP, 450)])
def test_mail_that_met_421_or_a_sick_endpoint_waits_longer_than_the_upstream_is_set_aside(
    stage: Stage, code: int
) -> None:
    closing = Deferred(stage, Trouble.TRANSIENT, "bye", Reply(code, "4.3.2", "bye"), upstream_sick=True)
    at = settled(lease(), closing, jitter=0).settlement.next_attempt_at
    assert at is not None
    assert at >= NOW + DEFAULT.schedule.set_aside(1, 1.0)
    assert at <= NOW + timedelta(seconds=66)


# The second time


QUOTA = Deferred(
    Stage.MAIL, Trouble.PERMANENT, "quota", Reply(554, "5.2.0", "quota"), upstream_sick=True, refusal=Refusal.QUOTA
)
LESS = replace(QUOTA, trouble=Trouble.TRANSIENT, reply=Reply(451, "4.7.0", "slower"), refusal=Refusal.THROTTLED)
CLOSING = Deferred(Stage.MAIL, Trouble.TRANSIENT, "bye", Reply(421, "4.3.2", "bye"), upstream_sick=True)
UNABLE = Deferred(Stage.HTTP, Trouble.TRANSIENT, "no", Reply(450, "4.0.503", "no"), upstream_sick=True)


@pytest.mark.parametrize(
    ("outcome", "pauses"),
    [
        (QUOTA, (0, 330, 660)),
        (replace(QUOTA, stage=Stage.DOT), (66, 330, 660)),
        (LESS, (0, 60, 60)),
        (replace(LESS, stage=Stage.DOT), (66, 330, 660)),
        (GREYLISTED, (60, 300, 600)),
        (SICK, (0, 0, 0)),
        (IN_DOUBT, (120, 600, 900)),
        (CLOSING, (66, 330, 660)),
        (replace(QUOTA, reply=CLOSING.reply), (66, 330, 660)),
        (replace(LESS, reply=CLOSING.reply), (66, 330, 660)),
        (UNABLE, (66, 330, 660)),
    ],
    ids=[
        "the account, at MAIL", "the account, later", "throttled at MAIL", "throttled later", "greylisted",
        "before a transaction", "in doubt", "421", "421 of the account", "421 that asks for less", "a sick endpoint",
    ],
)  # fmt: skip
def test_what_the_account_is_blamed_for_at_mail_is_due_at_once_the_first_time_and_all_else_by_the_schedule(
    outcome: Deferred, pauses: tuple[float, ...]
) -> None:
    minutes = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=10))
    route = replace(DEFAULT, schedule=Schedule(minutes, timedelta(days=5)))
    for attempts, pause in enumerate(pauses, start=1):
        done = settled(lease(attempts=attempts), outcome, route=route)
        assert done.settlement.next_attempt_at == NOW + timedelta(seconds=pause), attempts


@pytest.mark.parametrize("outcome", [QUOTA, LESS, GREYLISTED, SICK, IN_DOUBT])
def test_a_session_code_waits_for_the_interval_of_its_attempt_whatever_the_reason(outcome: Deferred) -> None:
    schedule = Schedule((timedelta(seconds=2), timedelta(seconds=5)), timedelta(minutes=10))
    for attempts, seconds in ((1, 2), (2, 5), (3, 5)):
        code = lease(session_code=True, attempts=attempts)
        pause = settled(code, outcome, route=replace(CODES, schedule=schedule)).settlement.next_attempt_at
        assert pause is not None
        assert 0.9 * seconds <= (pause - NOW).total_seconds() <= 1.1 * seconds


def test_a_greylisted_recipient_keeps_the_schedule_when_the_upstream_falls_ill_for_the_others() -> None:
    assert settled(lease(2), GREYLISTED, SICK).settlement.next_attempt_at == NOW + timedelta(minutes=1)


def test_mail_in_doubt_waits_twice_the_interval_and_the_doubt_is_counted() -> None:
    done = settled(lease(in_doubt=1), IN_DOUBT)
    assert done.settlement.next_attempt_at == NOW + timedelta(minutes=2)
    assert done.settlement.results[0].in_doubt == 2
    assert states(done) == [State.PENDING]


def test_mail_in_doubt_on_a_route_that_holds_it_waits_for_a_person_and_the_others_go_on() -> None:
    done = settled(lease(3), IN_DOUBT, GREYLISTED, TAKEN, route=HOLDING)
    assert states(done) == [State.HELD, State.PENDING, State.DELIVERED]
    held = done.settlement.results[0]
    assert held.reply == "no answer after the end of the message: it may have been delivered"
    assert (held.in_doubt, held.in_doubt_at) == (1, "own")
    assert done.settlement.next_attempt_at == NOW + timedelta(minutes=1)  # the doubt makes nobody wait longer
    assert kinds(done) == [RecipientDeferred, RecipientDeferred, RecipientDelivered, EntryHeld]
    assert done.events[-1] == EntryHeld("7QK3AAAAAAAA", "", 1, in_doubt=True)
    (doubt, *_) = done.events
    assert isinstance(doubt, RecipientDeferred)
    assert (doubt.in_doubt, doubt.next_attempt_at) == (True, None)


def test_mail_held_in_doubt_does_not_expire_with_its_attempt() -> None:
    done = settled(lease(), IN_DOUBT, route=HOLDING, now=LATER)
    assert states(done) == [State.HELD]
    assert (done.settlement.next_attempt_at, done.settlement.route) == (None, "default")
    assert done.settlement.notifications == ()


def test_a_bounce_in_doubt_is_tried_again_whatever_the_route_says() -> None:
    assert states(settled(lease(kind=Kind.BOUNCE, reverse_path=None), IN_DOUBT, route=HOLDING)) == [State.PENDING]


def test_a_session_code_in_doubt_is_not_held_and_not_tried_again_where_the_route_says_hold() -> None:
    done = settled(lease(session_code=True), IN_DOUBT, route=replace(CODES, hold_in_doubt=True))
    assert states(done) == [State.FAILED]
    assert done.settlement.notifications == ()
    (event,) = done.events
    assert isinstance(event, RecipientFailed)
    assert (event.in_doubt, event.text) == (True, "no answer after the end of the message: it may have been delivered")


def test_whoever_looks_at_the_queue_sees_that_what_waits_may_have_been_delivered() -> None:
    assert settled(lease(), IN_DOUBT).settlement.results[0].reply.endswith(": it may have been delivered")
    code = settled(lease(session_code=True), IN_DOUBT).settlement.results[0]
    assert code.reply == "dropped at dot: it may have been delivered"


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
    done = expire(mail, route=CODES, policy=POLICY, now=LATER, new_queue_ids=NEW)
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
        new_queue_ids=NEW,
    )
    told = [e for e in done.events if isinstance(e, RecipientDelivered | RecipientDeferred)]
    assert [event.upstream for event in told] == ["own", "spare", ""]
    assert [result.in_doubt_at for result in done.settlement.results] == ["", "spare", ""]


def test_ordinary_mail_on_the_route_of_session_codes_waits_for_its_schedule() -> None:
    done = settle(lease(), (SICK,), route=CODES, policy=POLICY, upstream="own", now=NOW, jitter=0.5, new_queue_ids=NEW)
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
    done = expire(mail, route=DEFAULT, policy=POLICY, now=LATER, new_queue_ids=NEW)
    assert states(done) == [State.EXPIRED, State.EXPIRED]
    assert {result.reply for result in done.settlement.results} == {"450 4.2.0 later"}
    (bounce,) = done.settlement.notifications
    assert b"x-relay; 450 4.2.0 later" in bounce.content.read(0, bounce.content.size)


def test_an_attempt_is_kept_with_its_end_and_the_upstream_of_each_recipient() -> None:
    done = settled(lease(4), TAKEN, REFUSED, GREYLISTED, IN_DOUBT)
    assert done.settlement.at == NOW
    assert [result.upstream for result in done.settlement.results] == ["own"] * 4
    late = settled(lease(), SICK, now=LATER)
    assert (late.settlement.at, late.settlement.results[0].upstream) == (LATER, "own")


def test_what_ends_while_it_waits_is_no_attempt() -> None:
    mail = lease()
    for done in (
        expire(mail, route=DEFAULT, policy=POLICY, now=LATER, new_queue_ids=NEW),
        bounced(mail),
        hold(mail, route=DEFAULT, rule="look"),
    ):
        assert done.settlement.at is None
        assert done.settlement.results[0].upstream == ""


# Held


def test_what_is_held_keeps_what_is_known_of_it_and_waits_where_it_will_go() -> None:
    mail = lease(2, in_doubt=1, last_reply="450 4.2.0 later")
    done = hold(mail, route=DEFAULT, rule="look")
    assert done.settlement.results == tuple([Result(n, State.HELD, "450 4.2.0 later", 1) for n in range(2)])
    assert (done.settlement.next_attempt_at, done.settlement.route) == (None, "default")
    assert done.settlement.notifications == ()
    assert done.events == (EntryHeld("7QK3AAAAAAAA", "look", 2),)


# Returned by an operator


def test_what_an_operator_returns_has_failed_by_nobody_s_reply_and_its_sender_is_told() -> None:
    done = bounced(lease(2, last_reply="450 4.2.0 later", attempts=3))
    assert states(done) == [State.FAILED, State.FAILED]
    assert done.settlement.next_attempt_at is None
    assert kinds(done) == [RecipientFailed, RecipientFailed, NotificationQueued]
    assert done.events[0] == RecipientFailed(
        "7QK3AAAAAAAA", "r0@x.example", "default", "", 3, None, 0, "5.7.0",
        "returned by the administrator of this relay", 60.0, False, False,
    )  # fmt: skip
    (report,) = done.settlement.notifications
    assert readers(report) == ["jan@klant.example"]
    assert text_of(report).count(b"Status: 5.7.0") == 2
    assert b"Diagnostic-Code" not in text_of(report)
    assert b"4.2.0 later" not in text_of(report)


@pytest.mark.parametrize(
    ("mail", "why"),
    [
        (lease(reverse_path=None), "null reverse-path"),
        (lease(kind=Kind.BOUNCE, reverse_path=None, notify=frozenset({"never"})), "a bounce never bounces"),
        (lease(notify=frozenset({"never"})), "notify=never"),
    ],
)
def test_an_operator_returns_to_nobody_who_cannot_or_will_not_hear_it(mail: Lease, why: str) -> None:
    done = bounced(mail)
    assert states(done) == [State.FAILED]
    assert done.settlement.notifications == ()
    assert done.events[1:] == (NotificationSuppressed("7QK3AAAAAAAA", why),)


def test_a_session_code_that_an_operator_returns_is_told_even_in_doubt_and_never_quoted() -> None:
    done = bounced(lease(session_code=True, in_doubt=1), policy=DROPPING)
    assert states(done) == [State.FAILED]
    (report,) = done.settlement.notifications
    assert b"482913" not in text_of(report)
    assert b"482913" not in repr(done.events).encode()


# Delays


def told_late(mail: Lease, *outcomes: Outcome, policy: Policy = WARNING, **more: object) -> Settled:
    now = ACCEPTED + timedelta(hours=1)
    return settled(mail, *(outcomes or (GREYLISTED,)), policy=policy, now=now, **more)  # type: ignore[arg-type]


def test_mail_that_waits_as_long_as_the_configuration_says_is_told_of_once() -> None:
    early = settled(lease(), GREYLISTED, policy=WARNING, now=ACCEPTED + timedelta(minutes=59))
    assert (early.settlement.notifications, early.settlement.warned) == ((), False)
    done = told_late(lease(2), GREYLISTED, SICK)
    assert states(done) == [State.PENDING, State.PENDING]
    assert done.settlement.warned
    assert done.events[-1] == NotificationQueued("7QK3BBBBBBBB", "7QK3AAAAAAAA", "delay", "jan@klant.example")
    (warning,) = done.settlement.notifications
    assert warning.kind is Kind.BOUNCE
    assert warning.submission.envelope.reverse_path is None
    assert readers(warning) == ["jan@klant.example"]
    text = text_of(warning)
    assert text.count(b"Action: delayed") == 2
    assert text.count(b"Will-Retry-Until: Sat, 28 Nov 2026 21:00:00 +0000") == 2
    assert b"smtp; 450 4.2.0 later" in text
    assert b"x-relay; connection timed out" in text
    again = told_late(lease(2, warned=True), GREYLISTED, SICK)
    assert (again.settlement.notifications, again.settlement.warned) == ((), False)
    assert kinds(again) == [RecipientDeferred, RecipientDeferred]


@pytest.mark.parametrize(
    "mail",
    [
        lease(session_code=True),
        lease(kind=Kind.BOUNCE, reverse_path=None),
        lease(kind=Kind.BOUNCE),
        lease(reverse_path=None),
        lease(notify=frozenset({"never"})),
        lease(notify=frozenset({"success", "failure"})),
    ],
)
def test_of_some_delays_nobody_can_or_wants_to_hear(mail: Lease) -> None:
    longer = replace(CODES, schedule=Schedule(CODES.schedule.intervals, timedelta(days=1)))
    if mail.entry.session_code:
        mail = replace(mail, entry=replace(mail.entry, expires_at=ACCEPTED + longer.schedule.lifetime))
    done = told_late(mail)
    assert states(done) == [State.PENDING]
    assert (done.settlement.notifications, done.settlement.warned) == ((), False)
    assert kinds(done) == [RecipientDeferred]


def test_where_the_configuration_warns_of_no_delay_only_who_asked_hears_of_it_after_four_hours() -> None:
    asked, plain = (lease(notify=wish) for wish in (frozenset({"failure", "delay"}), None))
    for mail, now, told in (
        (asked, ACCEPTED + DELAY_WARNING - timedelta(seconds=1), False),
        (asked, ACCEPTED + DELAY_WARNING, True),
        (plain, ACCEPTED + timedelta(days=4), False),
    ):
        done = settled(mail, GREYLISTED, now=now)
        assert (len(done.settlement.notifications), done.settlement.warned) == (told, told)


def test_a_warning_names_only_those_recipients_whose_delay_is_asked_for() -> None:
    mail = lease(2)
    first, second = mail.pending
    mail = replace(
        mail, pending=(first, replace(second, recipient=replace(second.recipient, notify=frozenset({"never"}))))
    )
    (warning,) = told_late(mail, GREYLISTED, GREYLISTED).settlement.notifications
    assert b"r0@x.example" in text_of(warning)
    assert b"r1@x.example" not in text_of(warning)


def test_failure_and_delay_are_told_in_one_notification_and_the_delay_is_not_told_again() -> None:
    done = told_late(lease(3), REFUSED, GREYLISTED, TAKEN)
    (report,) = done.settlement.notifications
    assert (text_of(report).count(b"Action: failed"), text_of(report).count(b"Action: delayed")) == (1, 1)
    assert done.settlement.warned
    assert done.events[-1] == NotificationQueued("7QK3BBBBBBBB", "7QK3AAAAAAAA", "failure", "jan@klant.example")


def test_after_a_jump_of_the_clock_nobody_is_told_that_mail_waits_for_long() -> None:
    assert told_late(lease(), may_expire=False).settlement.notifications == ()


# Other readers


def test_a_failure_is_told_to_the_other_readers_in_one_more_message() -> None:
    done = settled(lease(2, ret="full"), REFUSED, TAKEN, policy=ALSO)
    bounce_, copy = done.settlement.notifications
    assert (readers(bounce_), readers(copy)) == (["jan@klant.example"], ["beheer@example.nl", "it@example.nl"])
    assert (copy.queue_id, copy.kind, copy.route) == ("7QK3CCCCCCCC", Kind.BOUNCE, "default")
    assert copy.submission.envelope.reverse_path is None
    assert {recipient.notify for recipient in copy.submission.envelope.recipients} == {frozenset({"never"})}
    assert done.events[-2:] == (
        NotificationQueued("7QK3BBBBBBBB", "7QK3AAAAAAAA", "failure", "jan@klant.example"),
        NotificationQueued("7QK3CCCCCCCC", "7QK3AAAAAAAA", "failure", "beheer@example.nl, it@example.nl"),
    )
    assert BODY in text_of(bounce_)  # it comes back to who asked
    assert BODY not in text_of(copy)
    assert b"text/rfc822-headers" in text_of(copy)
    assert b"Subject: sessiecode 482913" in text_of(copy)


@pytest.mark.parametrize("notify", [frozenset({"never"}), frozenset({"success"})])
def test_the_other_readers_hear_of_a_failure_that_the_sender_does_not_want_to_hear_of(notify: frozenset[str]) -> None:
    done = settled(lease(notify=notify), REFUSED, policy=ALSO)
    (copy,) = done.settlement.notifications
    assert (copy.queue_id, readers(copy)) == ("7QK3BBBBBBBB", ["beheer@example.nl", "it@example.nl"])
    assert done.events[1:] == (
        NotificationSuppressed("7QK3AAAAAAAA", "notify=never"),
        NotificationQueued("7QK3BBBBBBBB", "7QK3AAAAAAAA", "failure", "beheer@example.nl, it@example.nl"),
    )


def test_the_other_readers_hear_of_a_failure_of_mail_without_a_sender() -> None:
    done = settled(lease(reverse_path=None), REFUSED, policy=ALSO)
    (copy,) = done.settlement.notifications
    assert b"A message from <> was not delivered to:" in text_of(copy)
    assert done.events[1] == NotificationSuppressed("7QK3AAAAAAAA", "null reverse-path")


def test_a_bounce_that_fails_or_expires_is_told_to_nobody_at_all() -> None:
    mail = lease(kind=Kind.BOUNCE, reverse_path=None, notify=frozenset({"never"}))
    expired = expire(mail, route=DEFAULT, policy=ALSO, now=LATER, new_queue_ids=NEW)
    for done in (settled(mail, REFUSED, policy=ALSO), bounced(mail, policy=ALSO), expired):
        assert done.settlement.notifications == ()
        assert done.events[1:] == (NotificationSuppressed("7QK3AAAAAAAA", "a bounce never bounces"),)


@pytest.mark.parametrize("notify", [None, frozenset({"never"})])
def test_a_reader_who_is_the_sender_reads_it_as_the_sender_only(notify: frozenset[str] | None) -> None:
    mail = lease(reverse_path="BEHEER@example.nl", notify=notify)
    done = settled(mail, REFUSED, policy=replace(ALSO, bounces_also=(BEHEER,)))
    assert [readers(entry) for entry in done.settlement.notifications] == (
        [["BEHEER@example.nl"]] if not notify else []
    )


def test_a_reader_named_twice_reads_it_once() -> None:
    twice = replace(ALSO, bounces_also=(BEHEER, Address.of("Beheer@example.nl")))
    assert len(readers(settled(lease(), REFUSED, policy=twice).settlement.notifications[1])) == 1


def test_the_other_readers_hear_neither_of_delays_nor_of_successes() -> None:
    policy = replace(WARNING, bounces_also=ALSO.bounces_also)
    for mail, outcome in ((lease(), GREYLISTED), (lease(notify=frozenset({"success"})), TAKEN)):
        done = told_late(mail, outcome, policy=policy)
        assert [readers(entry) for entry in done.settlement.notifications] == [["jan@klant.example"]]
    _, copy = told_late(lease(2), REFUSED, GREYLISTED, policy=policy).settlement.notifications
    assert b"r0@x.example" in text_of(copy)
    assert b"r1@x.example" not in text_of(copy)


def test_the_other_readers_hear_of_what_expires_and_of_what_is_returned() -> None:
    for done in (
        expire(lease(), route=DEFAULT, policy=ALSO, now=LATER, new_queue_ids=NEW),
        bounced(lease(), policy=ALSO),
    ):
        assert [len(readers(entry)) for entry in done.settlement.notifications] == [1, 2]


def test_what_the_operator_drops_is_told_to_no_other_reader_either() -> None:
    dropping = replace(DROPPING, bounces_also=(BEHEER,))
    assert settled(lease(session_code=True), SICK, now=LATER, policy=dropping).settlement.notifications == ()


# Laws


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


@examples(300)
@given(
    said=st.lists(outcomes, min_size=1, max_size=5),
    notify=wishes,
    reverse_path=st.sampled_from([None, "jan@klant.example"]),
    kind=st.sampled_from(Kind),
    session_code=st.booleans(),
    doubts=st.integers(0, 2),
    age=st.integers(0, 10**6),
    jitter=st.floats(0, 1),
    policy=st.sampled_from([POLICY, DROPPING, ALSO, replace(ALSO, delay_warning=timedelta(0))]),
    warned=st.booleans(),
    ret=st.sampled_from([None, "full"]),
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
    warned: bool,
    ret: str | None,
) -> None:
    mail = lease(
        len(said),
        reverse_path=reverse_path,
        notify=notify,
        session_code=session_code,
        kind=kind,
        in_doubt=doubts,
        warned=warned,
        ret=ret,
    )
    now = ACCEPTED + timedelta(seconds=age)
    done = settled(mail, *said, now=now, policy=policy, jitter=jitter)
    results = done.settlement.results
    assert [result.index for result in results] == [pending.index for pending in mail.pending]
    told = [event for event in done.events if hasattr(event, "recipient")]
    assert [ENDS.get(type(event), State.PENDING) for event in told] == states(done)
    assert len(done.events) <= len(told) + 3
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
    notifications = done.settlement.notifications
    assert len(notifications) == kinds(done).count(NotificationQueued)
    everybody = [reader for entry in notifications for reader in readers(entry)]
    assert len(everybody) == len(set(everybody))
    assert set(everybody) <= {"jan@klant.example", *map(str, policy.bounces_also)}
    if reverse_path is None:
        assert "jan@klant.example" not in everybody
    if kind is Kind.BOUNCE:
        assert not notifications
    delayed = [entry for entry in notifications if b"\r\nAction: delayed\r\n" in text_of(entry)]
    assert done.settlement.warned == bool(delayed)
    assert not delayed or not (warned or session_code)
    for entry in notifications:
        if "jan@klant.example" not in readers(entry):
            assert BODY not in text_of(entry)
            assert b"Content-Type: message/rfc822" not in text_of(entry)
    if session_code:
        quoted = [repr(done.events), repr([result.reply for result in results])]
        quoted += [repr(entry.content.read(0, entry.content.size)) for entry in done.settlement.notifications]
        assert not any("482913" in text or "sessiecode" in text for text in quoted)


# Who reads


OFFICE = Address.of("administratie@klant.example")
TO_ADDRESS, TO_BOTH = (replace(WARNING, bounces_to=to) for to in ("address", "both"))


def heard(mail: Lease, *outcomes: Outcome, policy: Policy, audience: Audience, now: datetime = NOW) -> Settled:
    return settle(
        mail,
        outcomes or (REFUSED,),
        route=DEFAULT,
        policy=policy,
        upstream="own",
        now=now,
        jitter=0.5,
        new_queue_ids=[f"NEW{n}" for n in range(most_notices(policy))],
        audience=audience,
    )


def test_a_bounce_goes_to_the_address_of_the_rule_and_says_whose_message_it_was() -> None:
    mail = lease(ret="full")
    done = heard(mail, policy=TO_ADDRESS, audience=Audience(OFFICE))
    (report,) = done.settlement.notifications
    assert readers(report) == [str(OFFICE)]
    text = text_of(report)
    assert b"Een bericht van jan@klant.example is niet bezorgd bij:" in text
    assert b"Wat u kunt doen" in text
    assert b"Kenmerk voor uw beheerder" in text
    assert b"Content-Type: text/rfc822-headers" in text  # whatever the sender asked for
    assert done.events[-1] == NotificationQueued("NEW0", "7QK3AAAAAAAA", "failure", str(OFFICE))


def test_a_delay_goes_there_as_well() -> None:
    late = ACCEPTED + timedelta(hours=2)
    done = heard(lease(), GREYLISTED, policy=TO_ADDRESS, audience=Audience(OFFICE), now=late)
    (report,) = done.settlement.notifications
    assert readers(report) == [str(OFFICE)]
    assert b"Een bericht van jan@klant.example is nog niet bezorgd bij:" in text_of(report)


@pytest.mark.parametrize("policy", [TO_ADDRESS, TO_BOTH])
def test_without_a_rule_with_an_address_the_sender_is_told(policy: Policy) -> None:
    (report,) = heard(lease(), policy=policy, audience=Audience()).settlement.notifications
    assert readers(report) == ["jan@klant.example"]
    assert b"Uw bericht is niet bezorgd bij:" in text_of(report)


def test_both_are_told_each_once() -> None:
    done = heard(lease(), policy=TO_BOTH, audience=Audience(OFFICE))
    assert [readers(one) for one in done.settlement.notifications] == [["jan@klant.example"], [str(OFFICE)]]
    same = heard(lease(), policy=TO_BOTH, audience=Audience(Address.of("JAN@klant.example")))
    assert [readers(one) for one in same.settlement.notifications] == [["jan@klant.example"]]
    also = replace(TO_BOTH, bounces_also=(BEHEER, OFFICE, Address.of("jan@klant.example")))
    done = heard(lease(), policy=also, audience=Audience(OFFICE))
    assert [readers(one) for one in done.settlement.notifications][-1] == [str(BEHEER)]
    assert len(done.settlement.notifications) == most_notices(also) == 3


def test_a_sender_who_is_not_told_otherwise_may_read_along() -> None:
    also = replace(TO_ADDRESS, bounces_also=(Address.of("jan@klant.example"),))
    done = heard(lease(), policy=also, audience=Audience(OFFICE))
    assert [readers(one) for one in done.settlement.notifications] == [[str(OFFICE)], ["jan@klant.example"]]


@pytest.mark.parametrize("policy", [TO_ADDRESS, TO_BOTH])
def test_mail_with_a_null_reverse_path_is_told_to_those_who_read_along_and_nobody_else(policy: Policy) -> None:
    null = lease(reverse_path=None)
    assert heard(null, policy=policy, audience=Audience(OFFICE)).settlement.notifications == ()
    done = heard(null, policy=replace(policy, bounces_also=(BEHEER,)), audience=Audience(OFFICE))
    assert [readers(one) for one in done.settlement.notifications] == [[str(BEHEER)]]
    bounce_ = lease(reverse_path=None, kind=Kind.BOUNCE)
    done = heard(bounce_, policy=replace(policy, bounces_also=(BEHEER,)), audience=Audience(OFFICE))
    assert (done.settlement.notifications, done.settlement.told) == ((), ())


def test_who_ends_mail_without_an_attempt_tells_the_address_too() -> None:
    for end in (expire, bounce):
        audience = Audience(OFFICE)
        done = end(lease(), route=DEFAULT, policy=TO_ADDRESS, now=LATER, new_queue_ids=NEW, audience=audience)
        assert [readers(one) for one in done.settlement.notifications] == [[str(OFFICE)]]


# Summaries


JAN = Address.of("jan@klant.example")


def test_what_a_reader_is_told_counts() -> None:
    done = heard(lease(2), REFUSED, GREYLISTED, policy=ALSO, audience=Audience())
    assert done.settlement.told == tuple(Told(reader, "7QK3AAAAAAAA", NOW) for reader in (JAN, *ALSO.bounces_also))


def test_who_has_enough_gets_a_line_of_a_summary_instead() -> None:
    done = heard(lease(2), REFUSED, TAKEN, policy=ALSO, audience=Audience(full=frozenset({JAN, BEHEER})))
    (copy,) = done.settlement.notifications
    assert readers(copy) == ["it@example.nl"]
    assert done.events[2:] == (
        NotificationCollected("7QK3AAAAAAAA", "failure", "jan@klant.example"),
        NotificationQueued("NEW0", "7QK3AAAAAAAA", "failure", "it@example.nl"),
        NotificationCollected("7QK3AAAAAAAA", "failure", "beheer@example.nl"),
    )
    lines = {str(told.reader): told.line for told in done.settlement.told}
    assert lines.pop("it@example.nl") == ""
    mine, theirs = (of_text("7QK3AAAAAAAA", NOW, line) for line in lines.values())
    assert (mine.sender, theirs.sender) == ("", "jan@klant.example")
    assert mine.subject == "sessiecode 482913"
    assert [str(fate.recipient.address) for fate in mine.fates] == ["r0@x.example"]
    assert mine.fates[0].reply == REFUSED.reply


def test_a_delay_is_collected_as_well_and_counts_as_told() -> None:
    done = told_late(lease(), audience=Audience(full=frozenset({JAN})))
    assert done.settlement.notifications == ()
    assert done.settlement.warned
    assert done.events[-1] == NotificationCollected("7QK3AAAAAAAA", "delay", "jan@klant.example")


def test_who_asked_to_hear_of_success_hears_it_however_much_there_was() -> None:
    asked = lease(notify=frozenset({"success"}))
    done = settled(asked, TAKEN, audience=Audience(full=frozenset({JAN})))
    assert len(done.settlement.notifications) == 1
    assert done.settlement.told == ()


def test_what_is_collected_of_a_session_code_quotes_nothing() -> None:
    quoting = Failed(Stage.DOT, Reply(550, "5.7.1", f"{SECRET} refused"))
    done = settled(lease(session_code=True), quoting, audience=Audience(full=frozenset({JAN})))
    (told,) = done.settlement.told
    assert told.line
    assert "482913" not in told.line
    assert "5.7.1" in told.line
