"""One attempt: which upstream is asked for whom, and that no recipient gets another's outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from relay.delivery.attempt import Attempted, attempt, decision_for, held_by
from relay.delivery.call import NOT_ASKED
from relay.events import AttemptEnded, ExceptionCaught, SenderDecided
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.outcome import Deferred, Failed, Outcome, Stage, Trouble
from relay.mail.reply import Reply
from relay.policy.rules import Match
from relay.queue.model import Kind, Lease, Pending
from relay.transport.port import DeliveryRequest
from tests.delivery.house import DeliveryHouse, policy
from tests.delivery.ways import (
    CLOSING,
    DOWN,
    GREYLISTED,
    HUNG_UP,
    IN_DOUBT,
    LOCKED_OUT,
    NOT_HERE,
    REFUSED,
    STALE,
    TAKEN,
    UNABLE,
    turns,
)
from tests.kit import configured
from tests.queue.mail import an_entry

CODE = MemoryContent(b"Subject: code 913\r\n\r\n913\r\n", 21)
NULL_REFUSED = Failed(Stage.MAIL, Reply(550, "5.7.1", "no null reverse-path here"))
TOO_LARGE = Failed(Stage.MAIL, Reply(552, "5.3.4", "the message has 60 octets"), unasked=True)
LOOK = configured.rule("look", Match(), None, hold=True)
RULE = configured.rule("fallback", Match(), configured.rewrite(Address.of("administratie@example.nl")))


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[DeliveryHouse]:
    house = await DeliveryHouse.build(tmp_path, policy(default=("own", "spare"), session_codes=("spare", "own")))
    yield house
    await house.demolish()


def leased(*to: str, code: bool = False, kind: Kind = Kind.MAIL) -> Lease:
    to = to or ("piet@example.com",)
    content = CODE if code else None
    entry = an_entry(*to, name="M", content=content, session_code=code, kind=kind)
    pending = [Pending(n, recipient) for n, recipient in enumerate(entry.submission.envelope.recipients)]
    return Lease(replace(entry, attempts=1), tuple(pending))


def in_doubt(lease: Lease, at: str) -> Lease:
    return replace(lease, pending=tuple([replace(one, in_doubt=1, in_doubt_at=at) for one in lease.pending]))


async def tried(house: DeliveryHouse, lease: Lease) -> Attempted | None:
    decision = decision_for(lease, house.policy)
    async with asyncio.timeout(60):
        return await attempt(
            lease,
            decision,
            house.policy,
            house.upstreams,
            observer=house.watch,
            verdicts=house.verdicts,
            stragglers=house.stragglers,
            change_way=house.change_way,
            now=house.shared.now,
        )


async def outcomes(house: DeliveryHouse, lease: Lease) -> tuple[Outcome, ...]:
    attempted = await tried(house, lease)
    assert attempted is not None
    return attempted.outcomes


async def set_aside(house: DeliveryHouse, name: str, trouble: Deferred = DOWN) -> None:
    way = house.ways[name]
    for line in [line for line in way.lines if line.request is None]:
        line.abort()
    way.connects = trouble
    request = DeliveryRequest("X", None, leased().entry.submission.envelope.recipients, b"\r\n", CODE, 21)
    schedule = house.policy.routes["default"].schedule
    await house.upstreams[name].deliver(request, priority=1, schedule=schedule)
    way.connects = True
    way.dialled = 0


# Ordinary mail


@pytest.mark.asyncio
async def test_the_first_upstream_is_asked_and_the_second_left_alone(house: DeliveryHouse) -> None:
    assert await tried(house, leased()) == Attempted((TAKEN,), "own")
    assert house.ways["spare"].requests == []


@pytest.mark.asyncio
async def test_the_second_takes_over_when_the_first_is_down_or_set_aside(house: DeliveryHouse) -> None:
    house.ways["own"].connects = DOWN
    assert await tried(house, leased()) == Attempted((TAKEN,), "spare")
    assert await tried(house, leased()) == Attempted((TAKEN,), "spare")
    assert house.ways["own"].dialled == 1


@pytest.mark.asyncio
async def test_what_one_upstream_cannot_carry_is_carried_by_another(house: DeliveryHouse) -> None:
    house.ways["own"].says = lambda request: TOO_LARGE
    assert await tried(house, leased()) == Attempted((TAKEN,), "spare")


@pytest.mark.asyncio
async def test_what_no_upstream_can_carry_fails(house: DeliveryHouse) -> None:
    for way in house.ways.values():
        way.says = lambda request: TOO_LARGE
    assert await outcomes(house, leased()) == (TOO_LARGE,)


@pytest.mark.asyncio
@pytest.mark.parametrize("small", ["own", "spare"])
async def test_what_one_cannot_carry_waits_for_the_other_that_is_down(house: DeliveryHouse, small: str) -> None:
    (other,) = {"own", "spare"} - {small}
    house.ways[small].says = lambda request: TOO_LARGE
    house.ways[other].connects = DOWN
    first = await outcomes(house, leased())
    second = await outcomes(house, leased())
    # Not due at once: a way that cannot carry it would be asked again and again.
    put_off = Deferred(Stage.MAIL, Trouble.TRANSIENT, "the message has 60 octets")
    assert {*first, *second} <= {put_off, DOWN}
    assert second == (put_off,)


@pytest.mark.asyncio
async def test_what_one_cannot_carry_and_the_other_greylists_waits(house: DeliveryHouse) -> None:
    house.ways["own"].says = lambda request: TOO_LARGE
    house.ways["spare"].says = lambda request: GREYLISTED
    assert await outcomes(house, leased()) == (GREYLISTED,)


@pytest.mark.asyncio
@pytest.mark.parametrize("outcome", [GREYLISTED, REFUSED, IN_DOUBT, HUNG_UP])
async def test_what_one_upstream_has_answered_or_may_have_taken_goes_to_no_other(
    house: DeliveryHouse, outcome: Outcome
) -> None:
    house.ways["own"].says = lambda request: outcome
    assert await outcomes(house, leased()) == (outcome,)
    assert house.ways["spare"].requests == []


@pytest.mark.asyncio
@pytest.mark.parametrize("outcome", [UNABLE, NOT_HERE])
async def test_what_an_endpoint_did_not_take_goes_to_the_next(house: DeliveryHouse, outcome: Outcome) -> None:
    house.ways["own"].says = lambda request: outcome
    assert await tried(house, leased()) == Attempted((TAKEN,), "spare")


@pytest.mark.asyncio
async def test_a_message_may_leave_at_once_unless_doubt_would_do_harm(house: DeliveryHouse) -> None:
    """In one write with its envelope, a broken line leaves more in doubt."""
    requests = house.ways["own"].requests
    many = [f"{number}@example.com" for number in range(11)]
    for lease, may in (
        (leased(), True),
        (leased(*many[:10]), True),
        (leased(*many), False),
        (in_doubt(leased("a@example.com", "b@example.com"), "own"), False),
    ):
        await tried(house, lease)
        assert requests[-1].at_once is may
    held = replace(house.policy.routes["default"], hold_in_doubt=True)
    house.policy = replace(house.policy, routes={**house.policy.routes, "default": held})
    await tried(house, leased())
    assert not requests[-1].at_once


@pytest.mark.asyncio
async def test_a_session_code_never_leaves_at_once(house: DeliveryHouse) -> None:
    """It can be called back until DATA."""
    await tried(house, leased(code=True))
    assert [request.at_once for way in house.ways.values() for request in way.requests] == [False]


@pytest.mark.asyncio
async def test_a_request_knows_the_place_of_its_recipients_at_each_attempt(house: DeliveryHouse) -> None:
    lease = leased("a@example.com", "b@example.com", "c@example.com")
    await tried(house, replace(lease, pending=lease.pending[1:]))
    assert house.ways["own"].requests[0].places == (1, 2)


@pytest.mark.asyncio
async def test_when_all_are_set_aside_nothing_is_tried_and_nothing_told(house: DeliveryHouse) -> None:
    house.policy = replace(house.policy, senders=(RULE,))
    for name in ("own", "spare"):
        await set_aside(house, name)
    before = len(house.watch.events)
    assert await tried(house, leased()) is None
    assert house.watch.events[before:] == []


@pytest.mark.asyncio
async def test_an_upstream_that_a_reload_took_away_is_passed_over(house: DeliveryHouse) -> None:
    del house.upstreams["own"]
    assert await tried(house, leased()) == Attempted((TAKEN,), "spare")


# Many recipients


@pytest.mark.asyncio
async def test_more_recipients_than_one_transaction_takes_are_split(house: DeliveryHouse) -> None:
    way = house.build_way("own", most=2)
    names = [f"r{n}@x.example" for n in range(5)]
    assert await outcomes(house, leased(*names)) == (TAKEN,) * 5
    assert [[str(r.address) for r in request.recipients] for request in way.requests] == [
        names[:2],
        names[2:4],
        names[4:],
    ]


@pytest.mark.asyncio
async def test_whoever_was_not_sent_to_has_not_got_it_though_the_part_before_was_taken(house: DeliveryHouse) -> None:
    del house.upstreams["spare"]
    way = house.build_way("own", connections=2, most=1)
    way.says = lambda request: None
    task = asyncio.create_task(tried(house, leased("a@x.example", "b@x.example", "c@x.example")))
    await turns()
    await set_aside(house, "own")  # another message's failure, and the password is wrong
    house.upstreams["own"].health._aside_for = LOCKED_OUT
    way.line_of("M").tell(TAKEN)
    attempted = await task
    assert attempted == Attempted((TAKEN, NOT_ASKED, NOT_ASKED), "", ("own", "", ""))
    assert len(way.requests) == 1


@pytest.mark.asyncio
async def test_what_the_first_upstream_no_longer_takes_goes_to_the_second_and_each_is_named(
    house: DeliveryHouse,
) -> None:
    said: list[Outcome] = [TAKEN, CLOSING, CLOSING]  # the second on a new connection
    house.build_way("own", most=1).says = lambda request: said.pop(0)
    attempted = await tried(house, leased("a@x.example", "b@x.example", "c@x.example"))
    assert attempted == Attempted((TAKEN, TAKEN, TAKEN), "spare", ("own", "spare", "spare"))


@pytest.mark.asyncio
@pytest.mark.parametrize(("error", "bug"), [(FileNotFoundError(2, "the file is gone"), False), (RuntimeError(), True)])
async def test_a_bug_in_one_transaction_takes_nothing_from_those_who_got_it_in_another(
    house: DeliveryHouse, error: Exception, bug: bool
) -> None:
    """Content that cannot be read is no bug, and leaves nobody in doubt: it never came to its final dot."""
    said: list[Outcome | Exception] = [TAKEN, error, TAKEN]
    house.build_way("own", most=1).says = lambda request: said.pop(0)
    first, second, third = await outcomes(house, leased("a@x.example", "b@x.example", "c@x.example"))
    assert (first, third) == (TAKEN, TAKEN)
    assert isinstance(second, Deferred)
    assert second.in_doubt is bug
    assert len(house.watch.of(ExceptionCaught)) == bug


# Bounces


@pytest.mark.asyncio
async def test_a_bounce_whose_null_reverse_path_is_refused_goes_out_with_the_address_of_bounces(
    house: DeliveryHouse,
) -> None:
    way = house.ways["own"]
    way.says = lambda request: NULL_REFUSED if request.reverse_path is None else TAKEN
    lease = leased(kind=Kind.BOUNCE)
    entry = lease.entry
    envelope = replace(entry.submission.envelope, reverse_path=None)
    entry = replace(entry, submission=replace(entry.submission, envelope=envelope))
    assert await outcomes(house, replace(lease, entry=entry)) == (TAKEN,)
    assert [request.reverse_path for request in way.requests] == [None, house.policy.bounces_from]


@pytest.mark.asyncio
async def test_ordinary_mail_refused_at_mail_is_not_sent_again_with_another_address(house: DeliveryHouse) -> None:
    house.ways["own"].says = lambda request: NULL_REFUSED
    assert await outcomes(house, leased()) == (NULL_REFUSED,)
    assert len(house.ways["own"].requests) == 1


# Session codes: the chosen way is "spare", the other "own"


@pytest.mark.asyncio
@pytest.mark.parametrize("outcome", [GREYLISTED, CLOSING, STALE])
async def test_a_code_takes_the_other_way_when_the_chosen_does_not_want_it_yet(
    house: DeliveryHouse, outcome: Outcome
) -> None:
    house.ways["spare"].says = lambda request: outcome
    assert await tried(house, leased(code=True)) == Attempted((TAKEN,), "own")


@pytest.mark.asyncio
@pytest.mark.parametrize("outcome", [REFUSED, IN_DOUBT])
async def test_a_code_that_was_refused_or_may_have_been_taken_takes_no_other_way(
    house: DeliveryHouse, outcome: Outcome
) -> None:
    house.ways["spare"].says = lambda request: outcome
    assert await tried(house, leased(code=True)) == Attempted((outcome,), "spare")


@pytest.mark.asyncio
async def test_a_code_goes_first_where_nothing_is_set_aside(house: DeliveryHouse) -> None:
    await set_aside(house, "spare")
    assert await tried(house, leased(code=True)) == Attempted((TAKEN,), "own")
    assert house.ways["spare"].dialled == 0


@pytest.mark.asyncio
async def test_a_code_is_tried_all_the_same_when_both_ways_are_set_aside(house: DeliveryHouse) -> None:
    for name in ("own", "spare"):
        await set_aside(house, name)
    house.ways["spare"].connects = DOWN
    assert await tried(house, leased(code=True)) == Attempted((TAKEN,), "own")
    assert house.ways["spare"].dialled == 1


@pytest.mark.asyncio
async def test_a_code_does_not_lock_an_account(house: DeliveryHouse) -> None:
    for name in ("own", "spare"):
        await set_aside(house, name, LOCKED_OUT)
    assert await tried(house, leased(code=True)) is None
    assert [way.dialled for way in house.ways.values()] == [0, 0]


@pytest.mark.asyncio
async def test_each_way_is_asked_once_in_an_attempt(house: DeliveryHouse) -> None:
    for way in house.ways.values():
        way.connects = DOWN
    assert await outcomes(house, leased(code=True)) == (DOWN,)
    assert [way.dialled for way in house.ways.values()] == [1, 1]


@pytest.mark.asyncio
@pytest.mark.parametrize(("at", "other"), [("own", "spare"), ("spare", "own")])
async def test_a_code_in_doubt_goes_again_by_the_same_way_and_never_by_the_other(
    house: DeliveryHouse, at: str, other: str
) -> None:
    lease = in_doubt(leased(code=True), at)
    assert await tried(house, lease) == Attempted((TAKEN,), at)
    await set_aside(house, at)
    house.ways[at].connects = DOWN
    assert await tried(house, lease) == Attempted((DOWN,), at)
    assert house.ways[other].requests == []


@pytest.mark.asyncio
async def test_a_code_in_doubt_whose_way_is_gone_is_not_tried(house: DeliveryHouse) -> None:
    assert await tried(house, in_doubt(leased(code=True), "gone")) is None


@pytest.mark.asyncio
async def test_recipients_of_a_code_go_each_by_the_way_that_left_them_in_doubt(house: DeliveryHouse) -> None:
    lease = leased("a@x.example", "b@x.example", "c@x.example", code=True)
    a, b, c = lease.pending
    lease = replace(lease, pending=(replace(a, in_doubt_at="own", in_doubt=1), b, replace(c, in_doubt_at="gone")))
    assert await tried(house, lease) == Attempted((TAKEN, TAKEN, NOT_ASKED), "", ("own", "spare", ""))


@pytest.mark.asyncio
async def test_ordinary_mail_in_doubt_may_go_by_any_way(house: DeliveryHouse) -> None:
    assert await tried(house, in_doubt(leased(), "spare")) == Attempted((TAKEN,), "own")


# What is told


@pytest.mark.asyncio
async def test_an_attempt_tells_of_the_sender_and_then_how_it_ended(house: DeliveryHouse) -> None:
    house.policy = replace(house.policy, senders=(RULE,))
    assert await outcomes(house, leased()) == (TAKEN,)
    decided, ended = house.watch.events[-2:]
    assert decided == SenderDecided("M", "fallback", "rewritten", 1)
    assert isinstance(ended, AttemptEnded)
    assert (ended.upstream, ended.stage, ended.trouble) == ("own", None, None)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("outcome", "stage", "trouble"),
    [(REFUSED, Stage.RCPT, Trouble.PERMANENT), (GREYLISTED, Stage.RCPT, Trouble.TRANSIENT)],
)
async def test_an_attempt_tells_what_went_wrong(
    house: DeliveryHouse, outcome: Outcome, stage: Stage, trouble: Trouble
) -> None:
    house.ways["own"].says = lambda request: outcome
    await outcomes(house, leased())
    (ended,) = house.watch.of(AttemptEnded)
    assert isinstance(ended, AttemptEnded)
    assert (ended.stage, ended.trouble) == (stage, trouble)


def test_what_was_accepted_is_never_rejected_later() -> None:
    head = b"Received: from a by b\r\n" * 60 + b"\r\n"
    entry = an_entry(content=MemoryContent(head, len(head)), route="gone")
    decision = decision_for(Lease(entry, ()), policy())
    assert (decision.route.name, decision.rule, decision.because) == ("default", None, ("loop",))


def test_a_route_that_an_operator_chose_stays_while_there_is_one_of_that_name() -> None:
    lease = leased()
    chosen = replace(lease, entry=replace(lease.entry, route="slow", rerouted=True))
    two = replace(policy(default=("own",), slow=("spare",)), senders=(RULE,))
    decision = decision_for(chosen, two)
    assert (decision.route, decision.rule, decision.lifetime) == (two.routes["slow"], RULE, timedelta(days=5))
    assert decision_for(replace(chosen, entry=replace(chosen.entry, rerouted=False)), two).route.name == "default"
    assert decision_for(chosen, policy(default=("own",))).route.name == "default"


def test_a_route_that_an_operator_chose_stays_when_a_rule_or_a_code_would_go_another_way() -> None:
    lease = leased(code=True)  # what is a code now was accepted when it was none
    chosen = replace(lease, entry=replace(lease.entry, session_code=False, route="slow", rerouted=True))
    routes = policy(default=("own",), slow=("spare",), session_codes=("own",))
    assert decision_for(chosen, routes).route.name == "slow"
    default = replace(chosen, entry=replace(chosen.entry, route="default"))
    assert decision_for(default, replace(routes, senders=(replace(RULE, route="slow"),))).route.name == "default"


def test_a_rule_holds_what_it_speaks_for_until_a_person_released_it_and_never_a_notification() -> None:
    holding = replace(policy(), senders=(LOOK,))
    lease = leased()
    assert held_by(lease, decision_for(lease, holding)) == "look"
    assert held_by(lease, decision_for(lease, policy())) is None
    assert held_by(lease, decision_for(lease, replace(policy(), senders=(RULE, LOOK)))) is None
    released = replace(lease, entry=replace(lease.entry, released=True))
    assert held_by(released, decision_for(released, holding)) is None
    report = leased(kind=Kind.BOUNCE)
    assert held_by(report, decision_for(report, holding)) is None
