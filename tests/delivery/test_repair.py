"""Sender repair: a refused sender goes again at once as its rule has it, is remembered, and is asked about once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from relay.config.preset import table
from relay.delivery import verdicts
from relay.delivery.attempt import Attempted, attempt, decision_for
from relay.delivery.call import NOT_YET
from relay.events import (
    RecipientDeferred,
    RecipientDelivered,
    SenderDecided,
    SenderForgotten,
    SenderJudged,
    SenderPinned,
    UpstreamRefused,
)
from relay.mail.address import Address
from relay.mail.outcome import Deferred, Delivered, Failed, Outcome, Refusal, Stage
from relay.mail.reply import Reply
from relay.policy.rules import Match
from relay.policy.verdict import TOPIC, Sender, Verdict, key_of, value_of
from relay.queue.model import Entry, Kind, Lease, Pending
from relay.transport.port import Delivery, DeliveryRequest
from tests.delivery.house import DeliveryHouse, policy
from tests.delivery.ways import CLOSING, GREYLISTED, IN_DOUBT, REFUSED, TAKEN, turns
from tests.kit import configured
from tests.queue.mail import NOON, an_entry

ADDRESS = "administratie@example.nl"
FALLBACK = configured.rule(
    "fallback",
    Match(),
    configured.rewrite(Address.of(ADDRESS), display_name="{name} via Administratie"),
    when_refused=True,
    remember=timedelta(days=1),
)
NOT_YOURS = Failed(Stage.MAIL, Reply(550, "5.7.60", "SMTP; Client does not have permissions to send as this sender"))
DENIED = Failed(Stage.DOT, Reply(554, "5.2.252", "SendAsDenied; relay@example.nl not allowed to send as jan@x.nl"))
JAN = Sender("jan@example.nl", "jan@example.nl")


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[DeliveryHouse]:
    rules = replace(policy(default=("own", "spare")), senders=(FALLBACK,))
    house = await DeliveryHouse.build(tmp_path, rules, connections=3)
    for upstream in house.upstreams.values():
        upstream.refusals = table("m365")
    yield house
    await house.demolish()


def leased(*to: str, kind: Kind = Kind.MAIL, name: str = "M", code: bool = False) -> Lease:
    entry = an_entry(*to, name=name, kind=kind, session_code=code)
    pending = [Pending(n, recipient) for n, recipient in enumerate(entry.submission.envelope.recipients)]
    return Lease(replace(entry, attempts=1), tuple(pending))


def headed(head: bytes) -> Lease:
    lease = leased()
    submission = replace(lease.entry.submission, head=head)
    return replace(lease, entry=replace(lease.entry, submission=submission))


def of_piet(name: str) -> Entry:
    entry = an_entry(name=name)
    envelope = replace(entry.submission.envelope, reverse_path=Address.of("piet@example.nl"))
    return replace(entry, submission=replace(entry.submission, envelope=envelope))


async def tried(house: DeliveryHouse, lease: Lease) -> Attempted:
    decision = decision_for(lease, house.policy)
    async with asyncio.timeout(60):
        done = await attempt(
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
    assert done is not None
    return done


def refusing(refusal: Failed, times: int = 10**6) -> Callable[[DeliveryRequest], Outcome]:
    """Refuses whatever does not come from the rule's address, so often; then takes it as well."""
    left = [times]

    def says(request: DeliveryRequest) -> Outcome:
        if str(request.reverse_path) == ADDRESS or not left[0]:
            return TAKEN
        left[0] -= 1
        return refusal

    return says


def paths(house: DeliveryHouse, way: str = "own") -> list[str]:
    return [str(request.reverse_path) for request in house.ways[way].requests]


@pytest.mark.asyncio
async def test_a_refused_sender_goes_again_at_once_with_the_address_of_its_rule(house: DeliveryHouse) -> None:
    house.ways["own"].says = refusing(NOT_YOURS)
    done = await tried(house, leased())
    assert done.outcomes == (TAKEN,)
    assert paths(house) == ["jan@example.nl", ADDRESS]
    head = house.ways["own"].requests[1].head
    assert b"From: jan via Administratie <administratie@example.nl>\r\n" in head
    assert b"Reply-To: jan@example.nl\r\n" in head
    assert b"X-Original-From: jan@example.nl\r\n" in head
    assert house.watch.of(SenderJudged) == [
        SenderJudged("own", "jan@example.nl", "jan@example.nl", 550, "5.7.60", NOON + timedelta(days=1))
    ]
    assert [event.result for event in house.watch.of(SenderDecided)] == ["unchanged", "repaired"]  # type: ignore[attr-defined]
    assert house.watch.of(UpstreamRefused) == [
        UpstreamRefused("M", "default", "own", Stage.MAIL, Refusal.SENDER, 550, "5.7.60")
    ]


@pytest.mark.asyncio
async def test_the_next_message_of_a_refused_sender_is_right_the_first_time_also_after_a_restart(
    house: DeliveryHouse,
) -> None:
    house.ways["own"].says = refusing(NOT_YOURS)
    await tried(house, leased())
    await tried(house, leased())
    await house.verdicts.load()
    await tried(house, leased())
    assert paths(house) == ["jan@example.nl", ADDRESS, ADDRESS, ADDRESS]
    assert house.verdicts.counts() == {"own": 1}


@pytest.mark.asyncio
async def test_a_refusal_that_comes_and_goes_is_no_verdict_when_the_same_is_taken_the_second_time(
    house: DeliveryHouse,
) -> None:
    house.ways["own"].says = refusing(DENIED, times=1)
    assert (await tried(house, leased())).outcomes == (TAKEN,)
    assert paths(house) == ["jan@example.nl", "jan@example.nl"]
    assert house.verdicts.counts() == {}
    assert house.watch.of(SenderJudged) == []


@pytest.mark.asyncio
async def test_a_refusal_that_comes_and_goes_is_believed_the_second_time(house: DeliveryHouse) -> None:
    house.ways["own"].says = refusing(DENIED)
    assert (await tried(house, leased())).outcomes == (TAKEN,)
    assert paths(house) == ["jan@example.nl", "jan@example.nl", ADDRESS]
    assert house.verdicts.counts() == {"own": 1}


@pytest.mark.asyncio
@pytest.mark.parametrize("first", [IN_DOUBT, GREYLISTED, REFUSED], ids=["in doubt", "greylisted", "no such user"])
async def test_nothing_but_a_refusal_of_the_sender_is_answered_with_another_sender(
    house: DeliveryHouse, first: Outcome
) -> None:
    house.ways["own"].says = lambda request: first
    assert (await tried(house, leased())).outcomes == (first,)
    assert paths(house) == ["jan@example.nl"]


@pytest.mark.asyncio
async def test_an_answer_that_is_lost_in_the_second_try_ends_the_attempt(house: DeliveryHouse) -> None:
    answers = iter((DENIED, IN_DOUBT))
    house.ways["own"].says = lambda request: next(answers)
    assert (await tried(house, leased())).outcomes == (IN_DOUBT,)
    assert paths(house) == ["jan@example.nl", "jan@example.nl"]
    assert house.verdicts.counts() == {}


@pytest.mark.asyncio
async def test_only_the_recipients_whose_sender_was_refused_get_the_repaired_message(house: DeliveryHouse) -> None:
    refused = Failed(Stage.RCPT, Reply(553, "5.7.1", "Sender address rejected: not owned by user relay@example.nl"))

    def says(request: DeliveryRequest) -> Outcome | Delivery:
        return Delivery((TAKEN, refused, REFUSED)) if len(request.recipients) == 3 else TAKEN

    house.ways["own"].says = says
    done = await tried(house, leased("a@example.com", "b@example.com", "c@example.com"))
    assert done.outcomes == (TAKEN, TAKEN, REFUSED)
    again = house.ways["own"].requests[1]
    assert [str(one.address) for one in again.recipients] == ["b@example.com"]
    assert str(again.reverse_path) == ADDRESS


@pytest.mark.asyncio
async def test_where_the_rules_address_is_refused_as_well_the_message_fails_and_nothing_is_remembered(
    house: DeliveryHouse,
) -> None:
    house.ways["own"].says = lambda request: NOT_YOURS
    done = await tried(house, leased())
    assert done.outcomes == (NOT_YOURS,)
    assert isinstance(done.outcomes[0], Failed)
    assert done.outcomes[0].refusal is Refusal.SENDER
    assert paths(house) == ["jan@example.nl", ADDRESS]
    assert house.verdicts.counts() == {}


@pytest.mark.asyncio
async def test_a_sender_that_its_rule_keeps_is_not_repaired(house: DeliveryHouse) -> None:
    house.policy = replace(house.policy, senders=(configured.rule("keep", Match(), None), FALLBACK))
    house.ways["own"].says = lambda request: NOT_YOURS
    assert (await tried(house, leased())).outcomes == (NOT_YOURS,)
    assert paths(house) == ["jan@example.nl"]


@pytest.mark.asyncio
async def test_a_null_reverse_path_stays_null_and_only_the_header_is_repaired(house: DeliveryHouse) -> None:
    lease = leased()
    submission = lease.entry.submission
    bare = replace(submission, envelope=replace(submission.envelope, reverse_path=None))
    house.ways["own"].says = lambda request: TAKEN if b"via Administratie" in request.head else DENIED
    done = await tried(house, replace(lease, entry=replace(lease.entry, submission=bare)))
    assert done.outcomes == (TAKEN,)
    assert {request.reverse_path for request in house.ways["own"].requests} == {None}


@pytest.mark.asyncio
async def test_each_upstream_has_verdicts_of_its_own(house: DeliveryHouse) -> None:
    house.ways["own"].says = refusing(NOT_YOURS)
    await tried(house, leased())
    house.ways["own"].says = lambda request: CLOSING
    house.ways["spare"].says = lambda request: TAKEN
    assert (await tried(house, leased())).outcomes == (TAKEN,)
    assert paths(house, "spare") == ["jan@example.nl"]


@pytest.mark.asyncio
async def test_after_its_time_the_sender_is_tried_unchanged_and_forgotten_if_taken(
    house: DeliveryHouse,
) -> None:
    house.ways["own"].says = refusing(NOT_YOURS, times=1)
    await tried(house, leased())
    house.now += timedelta(days=1)
    await tried(house, leased())
    assert paths(house) == ["jan@example.nl", ADDRESS, "jan@example.nl"]
    assert house.watch.of(SenderForgotten) == [SenderForgotten("own", "jan@example.nl", "jan@example.nl", "taken")]
    assert await house.store.memories(TOPIC) == []


@pytest.mark.asyncio
async def test_while_nobody_knows_one_attempt_asks_and_the_others_wait_for_its_answer(house: DeliveryHouse) -> None:
    way = house.ways["own"]
    way.says = lambda request: TAKEN if str(request.reverse_path) == ADDRESS else None
    attempts = [asyncio.create_task(tried(house, leased(name=f"M{number}"))) for number in range(3)]
    await house.watch.until(lambda: way.busy)
    await turns()
    assert paths(house) == ["jan@example.nl"]
    way.busy[0].tell(NOT_YOURS)
    assert [done.outcomes for done in await asyncio.gather(*attempts)] == [(TAKEN,)] * 3
    assert paths(house) == ["jan@example.nl", ADDRESS, ADDRESS, ADDRESS]


@pytest.mark.asyncio
async def test_once_a_sender_was_taken_nobody_waits_for_another(house: DeliveryHouse) -> None:
    way = house.ways["own"]
    await tried(house, leased())
    way.says = lambda request: None
    attempts = [asyncio.create_task(tried(house, leased(name=f"M{number}"))) for number in range(3)]
    await house.watch.until(lambda: len(way.busy) == 3)
    for line in way.busy:
        line.tell(TAKEN)
    await asyncio.gather(*attempts)


@pytest.mark.asyncio
async def test_who_waits_goes_on_when_the_attempt_before_ends_without_an_answer(house: DeliveryHouse) -> None:
    way = house.ways["own"]
    way.says = lambda request: None
    first = asyncio.create_task(tried(house, leased(name="M1")))
    await house.watch.until(lambda: way.busy)
    second = asyncio.create_task(tried(house, leased(name="M2")))
    way.busy[0].tell(GREYLISTED)
    await first
    await house.watch.until(lambda: way.busy)
    way.busy[0].tell(TAKEN)
    assert (await second).outcomes == (TAKEN,)


@pytest.mark.asyncio
async def test_who_has_waited_long_enough_for_an_answer_is_for_later_without_being_sent_anywhere(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "PATIENCE", 0.01)
    way = house.ways["own"]
    way.says = lambda request: None
    first = asyncio.create_task(tried(house, leased(name="M1")))
    await house.watch.until(lambda: way.busy)
    waiting = [asyncio.create_task(tried(house, leased(name=f"M{number}"))) for number in (2, 3)]
    assert [done.outcomes for done in await asyncio.gather(*waiting)] == [(NOT_YET,)] * 2
    assert (paths(house), paths(house, "spare")) == (["jan@example.nl"], [])
    way.busy[0].tell(TAKEN)
    assert (await first).outcomes == (TAKEN,)
    way.says = lambda request: TAKEN
    assert (await tried(house, leased(name="M2"))).outcomes == (TAKEN,)


@pytest.mark.asyncio
async def test_an_upstream_that_is_silent_about_one_sender_keeps_no_connection_from_the_others(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "PATIENCE", 0.01)
    way = house.ways["own"]
    way.says = lambda request: None if str(request.reverse_path) == "jan@example.nl" else TAKEN
    for number in range(3):
        await house.put(f"JAN{number}")
    for number in range(10):
        await house.store.put(of_piet(f"PIET{number}"), leased=False)
    house.start(runners=3)
    await house.watch.until(lambda: len(house.watch.of(RecipientDelivered)) == 10)
    assert [line.told[-1] for line in way.busy] == ["JAN0"]
    assert paths(house).count("jan@example.nl") == 1
    assert len(house.watch.of(RecipientDeferred)) == 2  # each once: they come back when the schedule says


@pytest.mark.asyncio
async def test_a_session_code_waits_for_nobody(house: DeliveryHouse) -> None:
    way = house.ways["own"]
    way.says = lambda request: None
    attempts = [asyncio.create_task(tried(house, leased(name=f"M{number}", code=True))) for number in range(2)]
    await house.watch.until(lambda: len(way.busy) == 2)
    for line in way.busy:
        line.tell(TAKEN)
    await asyncio.gather(*attempts)


@pytest.mark.asyncio
async def test_a_pinned_sender_is_not_tried_unchanged_again(house: DeliveryHouse) -> None:
    pinned = Verdict("own", JAN, NOON, None)
    await house.store.remember(TOPIC, key_of("own", JAN), NOON, value_of(pinned))
    await house.verdicts.reload()
    assert house.watch.of(SenderPinned) == [SenderPinned("own", "jan@example.nl", "jan@example.nl")]
    house.now += timedelta(days=400)
    await tried(house, leased())
    assert paths(house) == [ADDRESS]
    await house.store.forget_memory(TOPIC, key_of("own", JAN))
    await house.verdicts.reload()
    await tried(house, leased())
    assert paths(house) == [ADDRESS, "jan@example.nl"]
    assert house.watch.of(SenderForgotten) == [SenderForgotten("own", "jan@example.nl", "jan@example.nl", "operator")]


# A person has a word while an attempt is under way


async def pin(house: DeliveryHouse) -> None:
    await house.store.remember(TOPIC, key_of("own", JAN), NOON, value_of(Verdict("own", JAN, NOON, None)))
    await house.verdicts.reload()


async def forget(house: DeliveryHouse) -> None:
    await house.store.forget_memory(TOPIC, key_of("own", JAN))
    await house.verdicts.reload()


async def under_way(house: DeliveryHouse) -> asyncio.Task[Attempted]:
    """An attempt whose upstream has not answered yet."""
    trying = asyncio.create_task(tried(house, leased()))
    await house.watch.until(lambda: house.ways["own"].busy)
    return trying


@pytest.mark.asyncio
async def test_a_sender_that_a_person_pins_while_an_attempt_is_under_way_stays_pinned(house: DeliveryHouse) -> None:
    way = house.ways["own"]
    way.says = lambda request: TAKEN if str(request.reverse_path) == ADDRESS else None
    trying = await under_way(house)
    await pin(house)
    way.busy[0].tell(NOT_YOURS)
    assert (await trying).outcomes == (TAKEN,)
    assert house.watch.of(SenderJudged) == []
    house.now += timedelta(days=400)
    await tried(house, leased())
    await house.verdicts.load()  # a restart
    await tried(house, leased())
    assert paths(house) == ["jan@example.nl", ADDRESS, ADDRESS, ADDRESS]


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [TAKEN, NOT_YOURS, GREYLISTED], ids=["taken", "refused", "greylisted"])
async def test_a_sender_that_is_pinned_stays_so_whatever_is_said_to_an_attempt_that_began_before(
    house: DeliveryHouse, answer: Outcome
) -> None:
    way = house.ways["own"]
    way.says = lambda request: None
    trying = await under_way(house)
    await pin(house)
    way.busy[0].tell(answer)
    way.says = lambda request: NOT_YOURS  # the address of the rule, too
    await trying
    assert house.watch.of(SenderForgotten) == []
    assert house.verdicts.refuses("own", JAN)
    (memory,) = await house.store.memories(TOPIC)
    assert memory.value == value_of(Verdict("own", JAN, NOON, None))


@pytest.mark.asyncio
@pytest.mark.parametrize("pinned", [True, False])
async def test_a_sender_that_a_person_forgets_while_an_attempt_is_under_way_is_asked_about_again(
    house: DeliveryHouse, pinned: bool
) -> None:
    way = house.ways["own"]
    if pinned:
        await pin(house)
    else:
        way.says = refusing(NOT_YOURS)
        await tried(house, leased())
    way.requests.clear()
    way.says = lambda request: None
    trying = await under_way(house)  # as its rule has it
    await forget(house)
    way.busy[0].tell(TAKEN)
    assert (await trying).outcomes == (TAKEN,)
    assert not house.verdicts.refuses("own", JAN)
    way.says = refusing(NOT_YOURS)
    await tried(house, leased())
    assert paths(house) == [ADDRESS, "jan@example.nl", ADDRESS]
    (memory,) = await house.store.memories(TOPIC)  # what is found out now is remembered for its day
    assert memory.moment == NOON + timedelta(days=1)


@pytest.mark.asyncio
async def test_a_memory_that_cannot_be_read_is_left_out(house: DeliveryHouse) -> None:
    await house.store.remember(TOPIC, "no JSON", NOON, "{}")
    await house.store.remember(TOPIC, key_of("own", JAN), NOON + timedelta(hours=1), "[]")
    await house.verdicts.load()
    assert house.verdicts.counts() == {}
    assert await house.store.memories(TOPIC) == []


@pytest.mark.asyncio
async def test_a_store_that_fails_keeps_no_message_from_being_repaired(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relay.errors import StoreUnavailable

    async def full(*_: object) -> None:
        raise StoreUnavailable("full", "no space left")

    monkeypatch.setattr(house.store, "remember", full)
    house.ways["own"].says = refusing(NOT_YOURS)
    assert (await tried(house, leased())).outcomes == (TAKEN,)
    await tried(house, leased())
    assert paths(house)[2:] == [ADDRESS]


@pytest.mark.asyncio
async def test_what_speaks_of_the_account_defers_and_sets_the_upstream_aside(house: DeliveryHouse) -> None:
    quota = Failed(Stage.DOT, Reply(554, "5.2.0", "STOREDRV.Submission.Exception:SubmissionQuotaExceededException"))
    house.ways["own"].says = lambda request: quota
    house.ways["spare"].says = lambda request: TAKEN
    for name in ("M1", "M2"):
        done = await tried(house, leased(name=name))
        assert done.outcomes == (TAKEN,)
        assert done.upstream == "spare"
    assert not house.upstreams["own"].up
    house.ways["spare"].says = lambda request: quota
    last = (await tried(house, leased())).outcomes[0]
    assert isinstance(last, Deferred)
    assert not isinstance(last, Delivered)


@pytest.mark.asyncio
async def test_a_fault_of_ours_in_the_second_try_takes_nothing_back_from_who_got_the_message(
    house: DeliveryHouse,
) -> None:
    refused = Failed(Stage.RCPT, Reply(553, "5.7.1", "<jan@example.nl>: Sender address rejected: not owned by user"))

    def says(request: DeliveryRequest) -> Outcome | Delivery | Exception:
        return Delivery((TAKEN, refused)) if len(request.recipients) == 2 else OSError("the spool file is gone")

    house.ways["own"].says = says
    first, second = (await tried(house, leased("a@example.com", "b@example.com"))).outcomes
    assert first == TAKEN
    assert isinstance(second, Deferred)


@pytest.mark.asyncio
@pytest.mark.parametrize("status", ["5.7.60", "5.2.252"])
async def test_what_the_login_may_not_send_as_is_a_verdict_also_where_it_is_said_of_a_recipient(
    house: DeliveryHouse, status: str
) -> None:
    refused = Failed(Stage.RCPT, Reply(550, status, "SMTP; Client does not have permissions to send as this sender"))
    house.ways["own"].says = refusing(refused)
    assert (await tried(house, leased())).outcomes == (TAKEN,)
    assert paths(house)[-1] == ADDRESS
    assert sum(house.verdicts.counts().values()) == 1


@pytest.mark.asyncio
async def test_one_recipient_that_does_not_want_a_sender_is_no_verdict_for_all(house: DeliveryHouse) -> None:
    unwanted = Failed(Stage.RCPT, Reply(550, "5.7.1", "<piet@example.com>: sender rejected by recipient policy"))
    house.ways["own"].says = refusing(unwanted)
    assert (await tried(house, leased())).outcomes == (TAKEN,)
    assert paths(house) == ["jan@example.nl", ADDRESS]
    assert house.verdicts.counts() == {}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "head",
    [
        b"From: jan@example.nl, evil@other.example\r\n",
        b"From: jan@example.nl\r\nFrom: evil@other.example\r\n",
        b"From: jan@example.nl\r\nFrom: jan@example.nl\r\n",
        b"Sender: evil@other.example\r\nFrom: jan@example.nl\r\n",
        b"Sender: evil\r\nFrom: jan@example.nl\r\n",
        b"From: jan@example.nl\r\nResent-From: evil@other.example\r\n",
        b"From: jan@example.nl\r\nResent-Sender: evil@other.example\r\n",
        b"From: <evil@other.example> <jan@example.nl>\r\n",
        b"From: evil@other.example jan@example.nl\r\n",
        b"From: jan@example.nl!\r\nSender: evil@other.example\r\n",
        b"From: evil@other.example!\r\n",
        b"From: jan@example.nl\r\nSender : jan@example.nl\r\n",
        "From: kees@example.nl\r\nSender: \u212aees@example.nl\r\n".encode(),
        b"From: jan@example.nl\r\n" + b"Resent-From: jan@example.nl\r\n" * 101,
    ],
)
async def test_a_message_in_which_another_could_be_meant_says_nothing_about_its_author(
    house: DeliveryHouse, head: bytes
) -> None:
    house.ways["own"].says = refusing(NOT_YOURS, times=1)
    assert (await tried(house, headed(head + b"\r\n"))).outcomes == (TAKEN,)
    assert house.verdicts.counts() == {}
    await tried(house, leased())
    assert paths(house) == ["jan@example.nl", ADDRESS, "jan@example.nl"]


@pytest.mark.asyncio
async def test_a_sender_field_with_the_author_in_it_names_nobody_else(house: DeliveryHouse) -> None:
    house.ways["own"].says = refusing(NOT_YOURS)
    head = b"From: Jan <jan@example.nl>\r\nSender: JAN@example.NL\r\n\r\n"
    await tried(house, headed(head))
    assert house.verdicts.counts() == {"own": 1}


@pytest.mark.asyncio
async def test_of_too_many_verdicts_the_oldest_is_asked_anew_and_a_persons_word_stays(
    house: DeliveryHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "MOST", 3)
    known, no = house.verdicts, Reply(550, "5.7.60", "no")
    pinned, *others = [Sender("<>", f"u{number}@example.nl") for number in range(5)]
    await house.store.remember(TOPIC, key_of("own", pinned), NOON, value_of(Verdict("own", pinned, NOON, None)))
    await known.load()
    for sender in (*others, others[2], others[0]):
        await known.refused("own", sender, no, remember=timedelta(days=1))
    for _ in range(2):  # in memory, and in the store
        assert [known.refuses("own", sender) for sender in (pinned, *others)] == [True, True, False, True, False]
        await known.load()
    house.now += timedelta(days=2)
    await known.load()
    assert [memory.key for memory in await house.store.memories(TOPIC)] == [key_of("own", pinned)]
