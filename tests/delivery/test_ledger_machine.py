"""Queue and judge together, in any order, with commits that fail and processes that die: the books balance at any
moment, every recipient comes to one end, who is to be told is told once, and of a session code that has ended nothing
is left.

The machine is the worker without its clockwork: it accepts, leases, attempts (chance is the upstream), gives back, does
what operators wish, several of it in one commit; it sweeps, loses commits of which nobody knows whether they reached
the disk, and crashes. The store is the real one; the judge is asked by `Machine._judged` and `Machine._ended` only.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import relay.queue.store_loop
from relay.delivery.attempt import decision_for, held_by
from relay.delivery.settle import Settled, bounce, expire, hold, settle
from relay.errors import StoreUnavailable
from relay.events import BatchCommitted
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.envelope import Envelope, Recipient
from relay.mail.outcome import Deferred, Failed, Outcome, Stage, Trouble
from relay.mail.reply import Reply
from relay.policy.decide import Accept, Policy, decide
from relay.policy.match import Match
from relay.policy.pattern import pattern
from relay.queue.listing import Did, Place, Verb, Wanted
from relay.queue.model import Entry, Kind, Lease, Ledger, Settlement, State
from tests.delivery.house import policy
from tests.delivery.ways import BROKEN, CLOSING, DOWN, GREYLISTED, IN_DOUBT, LOCKED_OUT, REFUSED, TAKEN
from tests.kit import configured
from tests.kit.files import contents
from tests.kit.ledger import balanced
from tests.kit.machine import MEMORY
from tests.queue.conformance import _Known as Known
from tests.queue.house import FailingDisk, FailingFile, SqliteHouse
from tests.queue.mail import an_entry, tried

JAN, ADMIN = Address.of("jan@example.nl"), Address.of("admin@example.nl")
SUBJECTS = ("Factuur", "contract", "code 913")
NOTIFY = (None, frozenset({"never"}), frozenset({"failure"}), frozenset({"success", "delay"}))
UNEASY = Deferred(Stage.DATA, Trouble.TRANSIENT, "full", Reply(452, "4.3.1", "full"))
BAD = Failed(Stage.DOT, Reply(554, "5.7.1", "spam"))
OUTCOMES: tuple[Outcome, ...] = (
    TAKEN, TAKEN, REFUSED, REFUSED, GREYLISTED, IN_DOUBT, BROKEN, DOWN, CLOSING, LOCKED_OUT, UNEASY, BAD
)  # fmt: skip
OPEN = (State.PENDING, State.HELD)
HOLDING = configured.rule("contracts", Match(subject=(pattern("*contract*"),)), None, hold=True)
MINUTE = timedelta(minutes=1)
WIPE_AFTER = 3600.0


def policies() -> list[Policy]:
    """With and without a rule that holds, and a reader of all bounces."""
    plain = policy(default=("own",), second=("own",), session_codes=("own",))
    assert plain.session_codes is not None
    dropping = configured.session_codes(*plain.session_codes.match, bounce_on_expiry=False)
    return [
        replace(plain, delay_warning=2 * MINUTE),
        replace(plain, senders=(HOLDING,), bounces_also=(ADMIN,), session_codes=dropping),
    ]


POLICIES = policies()
ROUTES = tuple(POLICIES[0].routes)


class Seen(NamedTuple):
    place: Place
    route: str
    attempts: int
    wish: str
    states: tuple[str, ...]


class Mail(NamedTuple):
    """What an application hands in; `fresh`: the worker has it at once. `lines` of content, of which those of a session
    code are its secret."""

    notify: list[frozenset[str] | None]
    sender: Address | None
    subject: str
    life: int
    fresh: bool
    lines: int


class Direct(NamedTuple):
    """Mail that is tried before it is kept."""

    mail: Mail
    outcomes: list[Outcome]


class Take(NamedTuple):
    route: str
    limit: int


class End(NamedTuple):
    """An attempt comes to its end; what could not be recorded before is recorded now."""

    which: int
    outcomes: list[Outcome]
    may_expire: bool


class GiveBack(NamedTuple):
    which: int


class Wish(NamedTuple):
    """What an operator wants of some messages."""

    verb: Verb
    which: list[int]
    route: str


MAILS = st.builds(
    Mail,
    st.lists(st.sampled_from(NOTIFY), min_size=1, max_size=3),
    st.sampled_from([JAN, JAN, None]),
    st.sampled_from(SUBJECTS),
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from([1, 1, 30, 900]),
)
SAID = st.just([TAKEN] * 3) | st.lists(st.sampled_from(OUTCOMES), min_size=3, max_size=3)
ENDS = st.builds(End, st.integers(0, 9), SAID, st.booleans())
WANTED = st.one_of(
    MAILS,
    ENDS,
    ENDS,
    st.builds(Direct, MAILS, SAID),
    st.builds(Take, st.sampled_from(ROUTES), st.integers(1, 4)),
    st.builds(GiveBack, st.integers(0, 9)),
    st.builds(
        Wish,
        st.sampled_from(list(Verb)),
        st.lists(st.integers(0, 9), max_size=3),
        st.sampled_from(["default", "second"]),
    ),
)
SELDOM = st.integers(0, 4).map(lambda n: n == 4)
SECRET = re.compile(rb"GEHEIM (M\d+)")


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
        """The ends of a settlement; what waits is leased as before."""
        lease = settlement.lease
        one = self.known[lease.entry.queue_id]
        for result in settlement.results:
            if result.state not in OPEN:
                one.states[result.index] = result.state
                setattr(self.total, result.state, getattr(self.total, result.state) + 1)
        if lease.bounced and one.wish == "bounce:":
            one.wish = ""

    def tell(self, settlement: Settlement) -> None:
        about = settlement.lease.entry
        for entry in settlement.notifications:
            self.put(entry)
            report = entry.content.read(0, entry.content.size)
            if entry.submission.envelope.recipients[0].address == about.submission.envelope.reverse_path:
                self.told[entry.queue_id] = (about.queue_id, failures(report))

    def given_back(self, name: str, lease: Lease) -> None:
        one = self.known[name]
        one.attempts -= one.counted
        one.to_bounce |= lease.bounced and one.wish == "bounce:"
        self.let_go(one)

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

    def free_as(self, seen: dict[str, Seen]) -> None:
        """Whether a held session code was let go to expire, only the disk knows."""
        for name, one in self.known.items():
            if one.entry.session_code and name in seen:
                one.set([n for n in one.held() if seen[name].states[n] == State.PENDING], State.PENDING)

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


@dataclass
class Step:
    """What the store is to do, and the model after it.

    `first` is what a commit does of it before it does anything else in the order asked; then comes `change`, with what
    the store said. `lost`: it failed; `stands` is what stays on the disk all the same, when later commits took back
    what can be taken back.
    """

    work: Awaitable[object]
    first: Callable[[Model], object] = lambda model: None
    change: Callable[[Model, object], None] = lambda model, said: None
    lost: Callable[[], None] = lambda: None
    stands: Callable[[Model], object] = lambda model: None


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.ahead = 0.0  # of the loop's clock, which begins to wipe when we say so, and not in the midst of a failure
        clock = self.loop.time
        self.loop.time = lambda: clock() + self.ahead  # type: ignore[method-assign]
        self.model = Model()
        self.maybe: list[Model] = []  # what may be on the disk instead, since the last commit that succeeded
        self.doubted: list[list[Step]] = []  # what failed since then, by commit
        self.taken = False  # and whether attempts may have been counted there that nobody began
        self.freed = False  # and whether held session codes may have been let go there
        self.unsettled: dict[str, Settled] = {}  # what a worker could not record yet, by message
        self.policy = POLICIES[0]
        self.numbers = count()
        self.acknowledged: set[str] = set()
        self.ends: dict[tuple[str, int], str] = {}
        # A crash is a copy: nothing here needs a disk.
        self.house = SqliteHouse(Path(tempfile.mkdtemp(prefix="ledger", dir=MEMORY)))
        self.run(self.house.open())

    def run(self, awaitable: Awaitable[object]) -> object:
        async def wait() -> object:
            return await awaitable

        return self.loop.run_until_complete(wait())

    def teardown(self) -> None:
        self.run(self.house.demolish())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def commit(self, steps: Sequence[Step], *, fails: bool) -> None:
        """Have the store do it in one commit; where it could not, nothing has happened, unless the process dies before
        it knows."""

        async def together() -> list[object]:
            return await asyncio.gather(*(step.work for step in steps), return_exceptions=True)

        with self._disk(fails):
            said = self.loop.run_until_complete(together())
        if not fails or not any(isinstance(answer, StoreUnavailable) for answer in said):  # what writes nothing is good
            self.change(self.model, steps, said)
            self.has_committed()
            return
        assert [getattr(error, "reason", error) for error in said] == ["io"] * len(steps)
        other = self.model.copy()
        self.change(other, steps, [None] * len(steps))
        self.maybe.append(other)
        self.doubted.append(list(steps))
        for step in steps:
            step.lost()

    def change(self, model: Model, steps: Sequence[Step], said: Sequence[object]) -> None:
        for step in steps:
            step.first(model)
        for step, answer in zip(steps, said, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            step.change(model, answer)

    def perhaps(self, work: Awaitable[object], *, fails: bool = False) -> object:
        """What needs a commit only where there is something to do."""
        before = len(self.house.noted.of(BatchCommitted))
        with self._disk(fails):
            said = self.run(work)
        if len(self.house.noted.of(BatchCommitted)) > before:
            self.has_committed()
        return said

    def check(self) -> None:
        self.run(self.house.store.check())
        self.has_committed()

    def has_committed(self) -> None:
        """The disk works again and says what the books say; what could not be recorded is recorded, as workers do.

        They do so within a second; a `crash` may come before.
        """
        if self.freed:
            self.model.free_as(self.seen())
        self.maybe.clear()
        self.doubted.clear()
        self.taken = self.freed = False
        unsettled = list(self.unsettled.values())
        self.unsettled.clear()
        if unsettled:
            self.commit([self._settling(settled) for settled in unsettled], fails=False)

    @contextmanager
    def _disk(self, fails: bool) -> Iterator[None]:
        with FailingFile.in_doubt(self.house) if fails else nullcontext():
            yield

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
        self.commit([self._putting(mail) for mail in mails], fails=False)

    @rule(wanted=st.lists(WANTED, min_size=1, max_size=6), fails=SELDOM)
    def together(self, wanted: list[Mail | Direct | Take | End | GiveBack | Wish], fails: bool) -> None:
        """What comes in one turn of the loop is in one commit."""
        wishes = any(isinstance(one, Wish) for one in wanted)
        if self.freed or (self.maybe and wishes):
            self.check()  # what an operator looks at is what the books say
        if sum(isinstance(one, End) for one in wanted) > len(self.model.leased()):
            self.commit([self._taking(Take(route, 4)) for route in ROUTES], fails=False)
        names = list(self.model.known)
        leased = [one.entry.queue_id for one in self.model.leased()]
        steps = []
        for one in wanted:
            match one:
                case Mail():
                    steps.append(self._putting(one))
                case Direct():
                    steps.append(self._recording(one))
                case Take():
                    steps.append(self._taking(one))
                case End() if leased:
                    steps.append(self._ending(leased.pop(one.which % len(leased)), one))
                case GiveBack() if free := [name for name in leased if name not in self.unsettled]:
                    name = free[one.which % len(free)]
                    leased.remove(name)
                    steps.append(self._giving_back(name))
                case Wish() if names and not fails:
                    steps.append(self._acting(one, [names[n % len(names)] for n in one.which]))
        if steps:
            self.commit(steps, fails=fails)

    @rule(ends=st.lists(ENDS, min_size=2, max_size=5), fails=SELDOM)
    def end_together(self, ends: list[End], fails: bool) -> None:
        self.together([*ends], fails)

    def _entry(self, mail: Mail) -> tuple[Entry, bool]:
        """And whether a rule holds it."""
        name = self.new_id()
        head = f"From: jan@example.nl\r\nSubject: {mail.subject}\r\n\r\n".encode()
        line = f"GEHEIM {name}\r\n" if "code" in mail.subject else f"Factuur {name}\r\n"
        entry = an_entry(content=MemoryContent(head + line.encode() * mail.lines, len(head)), name=name)
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
        return entry, decision.held_by != ""

    def _putting(self, mail: Mail) -> Step:
        entry, held = self._entry(mail)
        leased = mail.fresh and not held

        def change(model: Model, lease: object) -> None:
            one = model.known[entry.queue_id]
            if leased:
                one.attempts = 1
            if lease is not None:
                self.acknowledged.add(entry.queue_id)
                if leased:
                    assert isinstance(lease, Lease)
                    one.lease, one.counted = lease, True

        putting = self.house.store.put(entry, leased=leased, held=held)
        return Step(putting, lambda model: model.put(entry, held=held), change)

    def _recording(self, direct: Direct) -> Step:
        entry, held = self._entry(direct.mail)
        if held:
            return self._putting(direct.mail)
        settlement = self._judged(tried(entry), direct.outcomes, may_expire=True).settlement

        def first(model: Model) -> None:
            one = model.put(entry)
            one.attempts = 1
            model.settle(settlement)
            model.tell(settlement)

        def change(model: Model, said: object) -> None:
            if said is not None:
                self.acknowledged.add(entry.queue_id)

        return Step(self.house.store.record(settlement), first, change)

    def _taking(self, take: Take) -> Step:
        def change(model: Model, leases: object) -> None:
            for lease in leases or ():  # type: ignore[attr-defined]
                model.take(lease, counted=True)

        def lost() -> None:
            self.taken = True

        taking = self.house.store.lease(take.route, limit=take.limit, now=self.house.now)
        return Step(taking, change=change, lost=lost)

    def _ending(self, name: str, end: End) -> Step:
        settled = self.unsettled.pop(name, None)
        if settled is None:
            one = self.model.known[name]
            assert one.lease is not None
            settled = self._judged(one.lease, end.outcomes, end.may_expire) if one.counted else self._ended(one.lease)
        return self._settling(settled)

    def _settling(self, settled: Settled) -> Step:
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
        recipients = len(entry.submission.envelope.recipients)
        gone = len([result for result in settlement.results if result.state not in OPEN]) == recipients

        def first(model: Model) -> None:
            model.tell(settlement)
            if gone:
                model.settle(settlement)

        def change(model: Model, _: object) -> None:
            if not gone:
                model.settle(settlement)

        def lost() -> None:
            self.unsettled[entry.queue_id] = settled

        def stands(model: Model) -> None:
            model.end(settlement)
            model.tell(settlement)

        return Step(self.house.store.settle(settlement), first, change, lost, stands)

    def _giving_back(self, name: str) -> Step:
        lease = self.model.known[name].lease
        assert lease is not None

        def change(model: Model, _: object = None) -> None:
            model.given_back(name, lease)

        def stands(model: Model) -> None:
            if model.known[name].wish.startswith("cancel"):  # it has left the queue, its attempt not counted
                change(model)

        return Step(self.house.store.give_back([lease]), change=change, stands=stands)

    def _acting(self, wish: Wish, names: list[str]) -> Step:
        def change(model: Model, acted: object) -> None:
            assert isinstance(acted, Sequence)
            for name, answer in zip(names, acted, strict=True):
                one = model.known[name]
                if one.place() is Place.FINISHED:
                    assert answer.did is Did.UNKNOWN
                elif one.lease:
                    assert answer.did is one.wishes(wish.verb, wish.route)
                else:
                    assert answer.did is model.act(one, wish.verb, wish.route)

        to = wish.route if wish.verb is Verb.REROUTE else None
        return Step(self.house.store.act(wish.verb, names, now=self.house.now, route=to), change=change)

    @rule(codes=SELDOM, loses=st.booleans(), fails=SELDOM)
    def sweep(self, codes: bool, loses: bool, fails: bool) -> None:
        """What is over ends, what was given up of all routes in one commit; `loses`: nobody knows what was leased."""
        over: list[Lease] = []
        for route in ROUTES:
            sweeping = self.house.store.lease_expired(route, limit=9, now=self.house.now, session_codes_only=codes)
            try:
                leases = self.perhaps(sweeping, fails=loses)
            except StoreUnavailable:
                assert loses
                self.freed = True
                self.maybe.append(self.model.copy())
                continue
            assert isinstance(leases, list)
            for lease in leases:
                self.model.take(lease, counted=False)
            over += leases
        if over:
            self.commit([self._settling(self._ended(lease)) for lease in over], fails=fails)

    @rule(minutes=st.integers(0, 4), which=st.integers(0, len(POLICIES) - 1), wake=st.booleans())
    def meanwhile(self, minutes: int, which: int, wake: bool) -> None:
        """Time passes, and an administrator reloads."""
        self.house.now += minutes * MINUTE
        self.policy = POLICIES[which]
        if wake:
            self.perhaps(self.house.store.make_due(now=self.house.now))

    @rule(mended=st.booleans())
    def crash(self, mended: bool) -> None:
        """The process dies, with whatever it had in hand; maybe between a commit that succeeds after others had
        failed and what workers then record."""
        if mended and self.unsettled:
            self.run(self.house.store.check())
            if self.freed:
                self.model.free_as(self.seen())
            assert self.house.store.ledger == self.model.ledger()
            self.maybe.clear()
            self.taken = self.freed = False
            for steps in self.doubted:
                other = self.model.copy()
                for step in steps:
                    step.stands(other)
                self.maybe.append(other)
        self.run(self.house.crash())
        seen = self.seen()
        models = [self.model, *self.maybe]
        for model in models:
            model.begin_anew()
            if self.taken:
                model.count_as(seen)
            if self.freed:
                model.free_as(seen)
        there = [model for model in models if model.seen() == seen]
        assert there, [set(model.seen().items()) ^ set(seen.items()) for model in models]
        self.model, self.taken, self.freed = there[-1], False, False
        self.maybe.clear()
        self.doubted.clear()
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
    def nothing_is_left_of_a_session_code_that_has_ended(self) -> None:
        if self.maybe:
            return
        self.ahead += WIPE_AFTER
        self.check()  # and the log is emptied
        found = {name.decode() for _, octets in contents(self.house.folder) for name in SECRET.findall(octets)}
        assert found <= {name for name, one in self.model.known.items() if one.place() is not Place.FINISHED}

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


def test_the_books_balance_and_everybody_comes_to_one_end_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, rounds: Callable[[int, int], int]
) -> None:
    monkeypatch.setattr(relay.queue.store_loop, "WIPE_AFTER", WIPE_AFTER)
    disk = FailingDisk()
    unshrunk = set(Phase) - {Phase.shrink}  # to make a failing run short takes longer than a test may
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=rounds(8, 40), stateful_step_count=40, deadline=None, phases=unshrunk, derandomize=True
            ),
        )
    finally:
        disk.unregister()
