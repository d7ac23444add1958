"""Queue and judge together, in any order, with commits that fail and processes that die: the books balance at any
moment, every recipient comes to one end, and who is to be told is told once.

The machine is the worker without its clockwork: it accepts, leases, attempts (chance is the upstream), sweeps, does
what operators wish, loses commits of which nobody knows whether they reached the disk, and crashes. The store is the
real one; the judge is asked by `Machine._judged` and `Machine._ended` only.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import NamedTuple

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from relay.delivery.attempt import decision_for, held_by
from relay.delivery.settle import Settled, bounce, expire, hold, settle
from relay.errors import StoreUnavailable
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.envelope import Envelope, Recipient
from relay.mail.outcome import Deferred, Failed, Outcome, Stage, Trouble
from relay.mail.reply import Reply
from relay.policy.decide import Accept, Policy, decide
from relay.policy.match import Match
from relay.queue.listing import Did, Place, Verb, Wanted
from relay.queue.model import Entry, Kind, Lease, Ledger, Settlement, State
from tests.delivery.house import Contains, policy
from tests.delivery.ways import BROKEN, CLOSING, DOWN, GREYLISTED, IN_DOUBT, LOCKED_OUT, REFUSED, TAKEN
from tests.kit import configured
from tests.kit.ledger import balanced
from tests.queue.conformance import _Known as Known
from tests.queue.house import FailingDisk, FailingFile, SqliteHouse
from tests.queue.mail import an_entry

JAN, ADMIN = Address.of("jan@example.nl"), Address.of("admin@example.nl")
SUBJECTS = ("Factuur", "Factuur", "contract", "code 913")
NOTIFY = (None, frozenset({"never"}), frozenset({"failure"}), frozenset({"success", "delay"}))
UNEASY = Deferred(Stage.DATA, Trouble.TRANSIENT, "full", Reply(452, "4.3.1", "full"))
BAD = Failed(Stage.DOT, Reply(554, "5.7.1", "spam"))
OUTCOMES: tuple[Outcome, ...] = (
    TAKEN, TAKEN, REFUSED, REFUSED, GREYLISTED, IN_DOUBT, BROKEN, DOWN, CLOSING, LOCKED_OUT, UNEASY, BAD
)  # fmt: skip
OPEN = (State.PENDING, State.HELD)
HOLDING = configured.rule("contracts", Match(subject=(Contains("contract"),)), None, hold=True)
MINUTE = timedelta(minutes=1)


def policies() -> list[Policy]:
    """With and without a rule that holds, and a reader of all bounces."""
    plain = policy(default=("own",), second=("own",), session_codes=("own",))
    assert plain.session_codes is not None
    dropping = configured.session_codes(*plain.session_codes.match, bounce_on_expiry=False)
    return [
        replace(plain, delay_warning=2 * MINUTE),
        replace(plain, senders=(HOLDING,), bounces_also=(ADMIN,), session_codes=dropping),
    ]


IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a crash is a copy: nothing here needs a disk
POLICIES = policies()
ROUTES = tuple(POLICIES[0].routes)


class Seen(NamedTuple):
    place: Place
    route: str
    attempts: int
    wish: str
    states: tuple[str, ...]


class Mail(NamedTuple):
    """What an application hands in; `fresh`: the worker has it at once."""

    notify: list[frozenset[str] | None]
    sender: Address | None
    subject: str
    life: int
    fresh: bool


MAILS = st.builds(
    Mail,
    st.lists(st.sampled_from(NOTIFY), min_size=1, max_size=3),
    st.sampled_from([JAN, JAN, None]),
    st.sampled_from(SUBJECTS),
    st.integers(1, 6),
    st.booleans(),
)
SELDOM = st.integers(0, 4).map(lambda n: n == 4)


@dataclass
class Model:
    """What is so, as far as anybody was told. `told`: the failures that each notification to a sender is about."""

    known: dict[str, Known] = field(default_factory=dict)
    total: Ledger = field(default_factory=Ledger)
    told: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)

    def copy(self) -> Model:
        known = {name: replace(one, states=list(one.states)) for name, one in self.known.items()}
        return Model(known, replace(self.total), dict(self.told))

    def leased(self) -> list[Known]:
        return [one for one in self.known.values() if one.lease]

    def put(self, entry: Entry, *, held: bool = False) -> Known:
        recipients = len(entry.submission.envelope.recipients)
        self.total.accepted += recipients
        states = [State.HELD if held else State.PENDING] * recipients
        one = Known(entry, 0, entry.submission.received_at, entry.route, states=states)
        self.known[entry.queue_id] = one
        return one

    def take(self, lease: Lease, *, counted: bool) -> None:
        one = self.known[lease.entry.queue_id]
        assert one.lease is None
        if lease.entry.session_code and not counted:
            one.set(one.held(), State.PENDING)  # a session code ends when held as well
        assert [pending.index for pending in lease.pending] == one.open()
        one.lease, one.counted = lease, counted
        one.attempts += counted
        assert lease.entry.attempts == one.attempts
        if lease.bounced:
            assert one.to_bounce
            one.wish, one.to_bounce = "bounce:", False

    def settle(self, settlement: Settlement) -> None:
        lease = settlement.lease
        one = self.known[lease.entry.queue_id]
        for result in settlement.results:
            assert one.states[result.index] is State.PENDING
            one.states[result.index] = result.state
        one.route = settlement.route or one.route
        self.end(settlement)
        self.let_go(one)

    def end(self, settlement: Settlement) -> None:
        """What stands of a settlement that reached the disk, and nobody knew: what waits is leased as before."""
        lease = settlement.lease
        one = self.known[lease.entry.queue_id]
        for result in settlement.results:
            if result.state not in OPEN:
                one.states[result.index] = result.state
                setattr(self.total, result.state, getattr(self.total, result.state) + 1)
        if lease.bounced and one.wish == "bounce:":
            one.wish = ""
        for entry in settlement.notifications:
            self.put(entry)
            report = entry.content.read(0, entry.content.size)
            if entry.submission.envelope.recipients[0].address == lease.entry.submission.envelope.reverse_path:
                self.told[entry.queue_id] = (lease.entry.queue_id, failures(report))

    def let_go(self, one: Known) -> None:
        """The lease has ended: what an operator wished meanwhile is done."""
        verb, _, route = one.wish.partition(":")
        one.lease, one.wish = None, ""
        if verb and one.place() is not Place.FINISHED:
            self.act(one, verb, route)

    def act(self, one: Known, verb: str, route: str) -> Did:
        before = one.states.count(State.CANCELLED)
        did = one.does(verb, one.at, route)
        self.total.cancelled += one.states.count(State.CANCELLED) - before
        return did

    def begin_anew(self) -> None:
        """Another process opens the store."""
        self.total = Ledger(found=sum(len(one.open()) + len(one.held()) for one in self.known.values()))
        for one in self.leased():
            self.let_go(one)

    def count_as(self, seen: dict[str, Seen]) -> None:
        """Whose attempt was counted though its lease was lost, only the disk knows."""
        for name, one in self.known.items():
            if name in seen and seen[name].attempts == one.attempts + 1:
                one.attempts += 1

    def ledger(self) -> Ledger:
        states = Counter[str]()
        for one in self.known.values():
            states[str(one.place())] += len(one.open())
            states["held"] += len(one.held())
        there = {name: states[name] for name in ("pending", "deferred", "active")}
        return replace(self.total, **there, held=states["held"])

    def seen(self) -> dict[str, Seen]:
        """What an operator sees of each message."""
        return {
            name: Seen(
                one.place(),
                one.route,
                one.attempts,
                "bounce" if one.to_bounce else one.wish.partition(":")[0],
                tuple("active" if one.lease and state is State.PENDING else str(state) for state in one.states),
            )
            for name, one in self.known.items()
        }


def failures(report: bytes) -> frozenset[str]:
    """The recipients that a notification says failed."""
    found = re.findall(rb"Final-Recipient: rfc822; ?(\S+)\r\nAction: failed", report)
    return frozenset(address.decode() for address in found)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.model = Model()
        self.maybe: list[Model] = []  # what may be on the disk instead, since the last commit that succeeded
        self.unsettled: dict[str, Settled] = {}  # what a worker could not record yet, by message
        self.taken = False  # and whether attempts may have been counted there that nobody began
        self.policy = POLICIES[0]
        self.numbers = count()
        self.acknowledged: set[str] = set()
        self.ends: dict[tuple[str, int], str] = {}
        self.house = SqliteHouse(Path(tempfile.mkdtemp(prefix="ledger", dir=IN_MEMORY)))
        self.run(self.house.open())

    def run(self, awaitable: Awaitable[object]) -> object:
        async def wait() -> object:
            return await awaitable

        return self.loop.run_until_complete(wait())

    def teardown(self) -> None:
        FailingFile.fail = False
        self.run(self.house.demolish())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def commit(self, awaitable: Awaitable[object], change: Callable[[Model, object], None], *, fails: bool) -> object:
        """Have the store do it, and the model after it; None where the store could not: then nothing has happened,
        unless the process dies before it knows."""
        with self._disk(fails):
            try:
                result = self.run(awaitable)
            except StoreUnavailable:
                assert fails
                return None
        change(self.model, result)
        self.has_committed()
        return result

    def has_committed(self) -> None:
        """The disk works again and says what the books say; what could not be recorded is recorded, as workers do.

        They do so within a second; a `crash` may come before.
        """
        self.maybe.clear()
        self.taken = False
        while self.unsettled:
            self.record(self.unsettled.pop(next(iter(self.unsettled))), fails=False)

    @contextmanager
    def _disk(self, fails: bool) -> Iterator[None]:
        if fails:
            # The last connection takes the index of the log with it: what reached the disk is then found again.
            disk = self.house.store._disk  # type: ignore[attr-defined]
            if disk._reader is not None:
                disk._reader.close()
                disk._reader = None
        FailingFile.fail = fails
        try:
            yield
        finally:
            FailingFile.fail = False

    def new_id(self) -> str:
        return f"M{next(self.numbers):04}"

    # The judge

    def _judged(self, lease: Lease, outcomes: Sequence[Outcome], may_expire: bool) -> Settled:
        decision = decision_for(lease, self.policy)
        rule = held_by(lease, decision)
        if rule is not None:
            return hold(lease, route=decision.route, rule=rule)
        return settle(
            lease,
            outcomes[: len(lease.pending)],
            route=decision.route,
            policy=self.policy,
            upstream="own",
            now=self.house.now,
            jitter=0.5,
            new_queue_ids=[self.new_id(), self.new_id()],
            may_expire=may_expire,
        )

    def _ended(self, lease: Lease) -> Settled:
        return (bounce if lease.bounced else expire)(
            lease,
            route=decision_for(lease, self.policy).route,
            policy=self.policy,
            now=self.house.now,
            new_queue_ids=[self.new_id(), self.new_id()],
        )

    # What happens

    @initialize(mails=st.lists(MAILS, min_size=3, max_size=6))
    def begin(self, mails: list[Mail]) -> None:
        for mail in mails:
            self.accept(mail, fails=False)

    @rule(mail=MAILS, fails=SELDOM)
    def accept(self, mail: Mail, fails: bool) -> None:
        head = f"From: jan@example.nl\r\nSubject: {mail.subject}\r\n\r\n".encode()
        entry = an_entry(content=MemoryContent(head, len(head)), name=self.new_id())
        recipients = tuple(Recipient(Address.of(f"r{n}@x.nl"), notify) for n, notify in enumerate(mail.notify))
        submission = replace(
            entry.submission, envelope=Envelope(mail.sender, recipients), head=head, received_at=self.house.now
        )
        decision = decide(submission, self.policy)
        assert isinstance(decision, Accept)
        entry = replace(
            entry,
            submission=submission,
            route=decision.route.name,
            session_code=decision.session_code,
            expires_at=self.house.now + mail.life * MINUTE,
        )
        held = decision.rule is not None and decision.rule.hold
        leased = mail.fresh and not held

        def change(model: Model, lease: object) -> None:
            one = model.put(entry, held=held)
            if leased:
                assert isinstance(lease, Lease)
                one.lease, one.attempts, one.counted = lease, 1, True

        def kept(model: Model) -> None:
            model.put(entry, held=held).attempts = int(leased)

        if self.commit(self.house.store.put(entry, leased=leased, held=held), change, fails=fails):
            self.acknowledged.add(entry.queue_id)
        else:
            self.perhaps(kept)

    def perhaps(self, change: Callable[[Model], None]) -> None:
        """A commit failed: the disk may have it all the same."""
        other = self.model.copy()
        change(other)
        self.maybe.append(other)

    @rule(route=st.sampled_from(ROUTES), limit=st.integers(1, 4), fails=SELDOM)
    def take(self, route: str, limit: int, fails: bool) -> None:
        def change(model: Model, leases: object) -> None:
            assert isinstance(leases, list)
            for lease in leases:
                model.take(lease, counted=True)

        taking = self.house.store.lease(route, limit=limit, now=self.house.now)
        if self.commit(taking, change, fails=fails) is None:
            self.taken = True
            self.perhaps(lambda model: None)

    @rule(
        outcomes=st.lists(st.lists(st.sampled_from(OUTCOMES), min_size=3, max_size=3), min_size=1, max_size=4),
        which=st.integers(0, 9),
        may_expire=st.booleans(),
        fails=SELDOM,
    )
    def attempt(self, outcomes: list[list[Outcome]], which: int, may_expire: bool, fails: bool) -> None:
        """Attempts come to their end; what could not be recorded before is recorded now."""
        for route in ROUTES:
            if len(self.model.leased()) < len(outcomes):
                self.take(route, 4, fails=False)
        leased = self.model.leased()
        for one, said in zip(leased[which % max(1, len(leased)) :], outcomes, strict=False):
            settled = self.unsettled.pop(one.entry.queue_id, None)
            if settled is None:
                if one.lease is None:  # it was recorded meanwhile
                    continue
                settled = self._judged(one.lease, said, may_expire) if one.counted else self._ended(one.lease)
            self.record(settled, fails=fails)

    @rule(codes=SELDOM, fails=SELDOM)
    def sweep(self, codes: bool, fails: bool) -> None:
        for route in ROUTES:
            sweeping = self.house.store.lease_expired(route, limit=9, now=self.house.now, session_codes_only=codes)
            leases = self.run(sweeping)
            assert isinstance(leases, list)
            if leases:  # else there was no commit
                self.has_committed()
            for lease in leases:
                self.model.take(lease, counted=False)
            for lease in leases:
                self.record(self._ended(lease), fails=fails)

    def record(self, settled: Settled, *, fails: bool) -> None:
        settlement = settled.settlement
        entry = settlement.lease.entry
        to_sender = [
            one
            for one in settlement.notifications
            if one.submission.envelope.recipients[0].address == entry.submission.envelope.reverse_path
        ]
        assert len(to_sender) <= 1
        if entry.kind is Kind.BOUNCE:
            assert settlement.notifications == ()
        if entry.submission.envelope.reverse_path is None:
            assert to_sender == []
        done = self.commit(self.house.store.settle(settlement), lambda model, _: model.settle(settlement), fails=fails)
        if done is None:
            self.unsettled[entry.queue_id] = settled
            self.perhaps(lambda model: model.settle(settlement))

    @rule(which=st.integers(0, 9), fails=SELDOM)
    def give_back(self, which: int, fails: bool) -> None:
        leased = [one for one in self.model.leased() if one.entry.queue_id not in self.unsettled]
        if not leased:
            return
        name = leased[which % len(leased)].entry.queue_id
        lease = self.model.known[name].lease
        assert lease is not None

        def given(model: Model) -> None:
            one = model.known[name]
            one.attempts -= one.counted
            one.to_bounce |= lease.bounced and one.wish == "bounce:"
            model.let_go(one)

        if self.commit(self.house.store.give_back([lease]), lambda model, _: given(model), fails=fails) is None:
            self.perhaps(given)

    @rule(
        which=st.lists(st.integers(0, 9), max_size=3),
        verb=st.sampled_from(list(Verb)),
        route=st.sampled_from(["default", "second"]),
    )
    def operate(self, which: list[int], verb: Verb, route: str) -> None:
        if self.maybe:  # what an operator looks at is what the books say
            self.commit(self.house.store.check(), lambda model, _: None, fails=False)
        names = list(self.model.known)
        chosen = [names[n % len(names)] for n in which] if names else []

        def change(model: Model, acted: object) -> None:
            assert isinstance(acted, Sequence)
            for name, answer in zip(chosen, acted, strict=True):
                one = model.known[name]
                if one.place() is Place.FINISHED:
                    assert answer.did is Did.UNKNOWN
                elif one.lease:
                    assert answer.did is one.wishes(verb, route)
                else:
                    assert answer.did is model.act(one, verb, route)

        to = route if verb is Verb.REROUTE else None
        self.commit(self.house.store.act(verb, chosen, now=self.house.now, route=to), change, fails=False)

    @rule(minutes=st.integers(0, 4), which=st.integers(0, len(POLICIES) - 1), wake=st.booleans())
    def meanwhile(self, minutes: int, which: int, wake: bool) -> None:
        """Time passes, and an administrator reloads."""
        self.house.now += minutes * MINUTE
        self.policy = POLICIES[which]
        if wake:
            self.run(self.house.store.make_due(now=self.house.now))

    @rule(mended=st.booleans())
    def crash(self, mended: bool) -> None:
        """The process dies, with whatever it had in hand; maybe between a commit that succeeds after others had
        failed and what workers then record."""
        if mended and self.unsettled:
            self.run(self.house.store.check())
            assert self.house.store.ledger == self.model.ledger()
            self.maybe.clear()
            self.taken = False
            for settled in self.unsettled.values():
                self.perhaps(lambda model, settlement=settled.settlement: model.end(settlement))  # type: ignore[misc]
        self.run(self.house.crash())
        seen = self.seen()
        models = [self.model, *self.maybe]
        for model in models:
            model.begin_anew()
            if self.taken:
                model.count_as(seen)
        there = [model for model in models if model.seen() == seen]
        assert there, (seen, [model.seen() for model in models])
        self.model, self.taken = there[-1], False
        self.maybe.clear()
        self.unsettled.clear()

    # What holds at any moment

    def seen(self) -> dict[str, Seen]:
        found = self.run(self.house.store.find(Wanted(), limit=999))
        assert isinstance(found, list)
        assert len({one.queue_id for one in found}) == len(found)
        return {
            one.queue_id: Seen(one.place, one.route, one.attempts, one.wish, tuple(to.state for to in one.recipients))
            for one in found
        }

    @invariant()
    def the_books_balance_and_say_what_was_told(self) -> None:
        ledger = self.house.store.ledger
        assert balanced(ledger)
        if not self.maybe:
            assert ledger == self.model.ledger()
            seen, expected = self.seen(), self.model.seen()
            assert {name: (one, seen.get(name)) for name, one in expected.items() if one != seen.get(name)} == {}
            assert set(seen) == set(expected)
            there = {name: n for name, n in self.house.counted().items() if n}
            assert there == {name: n for name in self.house.counted() if (n := getattr(ledger, name))}

    @invariant()
    def nothing_acknowledged_is_missing_and_an_end_is_an_end(self) -> None:
        assert self.acknowledged <= set(self.model.known)
        for name, one in self.model.known.items():
            for n, state in enumerate(one.states):
                if state not in OPEN:
                    assert self.ends.setdefault((name, n), state) == state
                else:
                    assert (name, n) not in self.ends

    @invariant()
    def whoever_waits_for_word_of_a_failure_has_it_once(self) -> None:
        words = Counter((about, address) for about, told in self.model.told.values() for address in told)
        assert not words or max(words.values()) == 1
        for name, one in self.model.known.items():
            envelope = one.entry.submission.envelope
            for n, (recipient, state) in enumerate(zip(envelope.recipients, one.states, strict=True)):
                wanted = recipient.notify is None or "failure" in recipient.notify
                told = words[name, str(recipient.address)]
                failed = state in (State.FAILED, State.EXPIRED)
                if one.entry.kind is Kind.BOUNCE or envelope.reverse_path is None or not wanted or not failed:
                    assert told == 0, (name, n)
                elif not one.entry.session_code:
                    assert told == 1, (name, n)


def test_the_books_balance_and_everybody_comes_to_one_end_whatever_happens() -> None:
    disk = FailingDisk()
    unshrunk = set(Phase) - {Phase.shrink}  # to make a failing run short takes longer than a test may
    try:
        run_state_machine_as_test(
            Machine, settings=settings(max_examples=40, stateful_step_count=40, deadline=None, phases=unshrunk)
        )
    finally:
        disk.unregister()
