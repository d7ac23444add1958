"""Every row of the table in `relay.delivery.direct`, on a real store, with ways out of the test's."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from relay.delivery import worker as module
from relay.delivery.direct import Direct
from relay.delivery.window import MOST_MESSAGES
from relay.errors import StoreUnavailable
from relay.events import (
    AttemptEnded,
    Event,
    MessageQueued,
    NotificationQueued,
    RecipientDeferred,
    RecipientDelivered,
    RecipientFailed,
    Warned,
)
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.outcome import Delivered, Failed, Outcome, Stage
from relay.mail.reply import Reply
from relay.policy.decide import Accept, decide
from relay.queue.listing import Place, Wanted
from relay.queue.model import Entry, Ledger, State, Told
from relay.transport.port import Delivery
from tests.delivery.house import DeliveryHouse, policy
from tests.delivery.ways import DOWN, GREYLISTED, IN_DOUBT, REFUSED, TAKEN, turns
from tests.queue.mail import an_entry, memory

LONG = 60.0
NONE = 0.0
JAN = Address.of("jan@example.nl")
CODE = MemoryContent(b"Subject: code Q913Z\r\n\r\nQ913Z\r\n", 23)
AT_THE_DOT = Failed(Stage.DOT, Reply(554, "5.7.60", "SendAsDenied"))


class Door(DeliveryHouse):
    """A house whose clients wait. `said` are the replies, in the order in which they were given."""

    direct: Direct
    tasks: set[asyncio.Task[object]]

    async def open(self, runners: int = 1) -> None:
        self.tasks = set()
        self.direct = Direct(self.shared, self.workers.get, self._spawn)
        for route in self.policy.routes:
            self.start(route, runners)
        await self.watch.until(lambda: all(worker.room(1) for worker in self.workers.values()))

    def _spawn(self, work):  # type: ignore[no-untyped-def]
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(lambda _: self.watch.stir())
        return task

    async def ask(self, entry: Entry, patience: float = LONG, *, there: bool = True) -> str | None:
        """The reply to a client that waits for `entry`; "" when the store fails, None when it goes the ordinary way."""
        decision = decide(entry.submission, self.policy)
        assert isinstance(decision, Accept)
        entry = replace(entry, route=decision.route.name, session_code=decision.session_code)
        try:
            reply = await self.direct(
                entry,
                decision,
                self.policy,
                patience=patience,
                waits=lambda: there,
                accepted=lambda: self.watch.observe(queued(entry)),
            )
        except StoreUnavailable:
            return ""
        return None if reply is None else str(reply)

    def asking(self, entry: Entry, patience: float = LONG, *, there: bool = True) -> asyncio.Task[str | None]:
        task = asyncio.create_task(self.ask(entry, patience, there=there))
        task.add_done_callback(lambda _: self.watch.stir())
        return task

    async def begun(self, queue_id: str, way: str = "own") -> None:
        """The attempt is in its transaction."""
        lines = self.ways[way]
        await self.watch.until(lambda: any(line.request and line.request.queue_id == queue_id for line in lines.busy))

    def says(self, *outcomes: Outcome | None, way: str = "own") -> None:
        """What the upstream says to each recipient; None: it is silent until told."""
        answer = None if None in outcomes else Delivery(tuple(outcomes))  # type: ignore[arg-type]
        self.ways[way].says = lambda request: outcomes[0] if len(outcomes) == 1 else answer

    async def over(self) -> None:
        """All that was begun is over."""
        await self.watch.until(lambda: all(task.done() for task in self.tasks))

    async def history(self) -> list[tuple[str, list[State]]]:
        found = await self.store.find(Wanted(place=Place.FINISHED))
        return [(one.queue_id, [fate.state for fate in one.recipients]) for one in found]

    async def demolish(self) -> None:
        self.store.gate, self.store.broken = None, False
        await self.stop()
        await self.over()
        await super().demolish()
        assert self.direct._octets == 0
        assert [task.exception() for task in self.tasks if not task.cancelled()] == [None] * sum(
            not task.cancelled() for task in self.tasks
        )


def queued(entry: Entry) -> MessageQueued:
    to = tuple(str(recipient.address) for recipient in entry.submission.envelope.recipients)
    return MessageQueued(entry.queue_id, "legacy", "", None, "", to, entry.route, None, 0, 0.0, entry.session_code, ())


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[Door]:
    house = await Door.build(tmp_path, policy(), connections=2)
    assert isinstance(house, Door)
    yield house
    await house.demolish()


def two(name: str = "7QK3") -> Entry:
    return an_entry("a@x.nl", "b@x.nl", name=name)


def told(house: Door) -> list[type[Event]]:
    """What was told of messages, in order, without the attempts."""
    kinds = (MessageQueued, RecipientDelivered, RecipientDeferred, RecipientFailed, NotificationQueued)
    return [type(event) for event in house.watch.events if isinstance(event, kinds)]


# The verdict in time


@pytest.mark.asyncio
async def test_the_client_of_a_message_that_was_taken_hears_the_upstreams_text_and_our_id(house: Door) -> None:
    await house.open()
    assert await house.ask(an_entry(name="7QK3")) == "250 2.0.0 taken: relayed as 7QK3"
    assert house.store.ledger == Ledger(accepted=1, delivered=1)
    assert await house.history() == [("7QK3", [State.DELIVERED])]
    assert told(house) == [MessageQueued, RecipientDelivered]
    assert house.store.at_the_gate == 1  # one commit, after the delivery


@pytest.mark.asyncio
async def test_one_who_was_refused_by_everybody_hears_the_first_refusal_and_nothing_is_kept(house: Door) -> None:
    await house.open()
    house.says(REFUSED, AT_THE_DOT)
    assert await house.ask(two()) == "550 5.1.1 no such user"
    assert house.store.ledger == Ledger()
    assert await house.history() == []
    assert told(house) == [RecipientFailed, RecipientFailed]
    assert len(house.watch.of(AttemptEnded)) == 1
    assert house.store.at_the_gate == 0


@pytest.mark.asyncio
async def test_who_was_refused_among_others_gets_a_bounce_and_the_client_hears_250(house: Door) -> None:
    await house.open()
    house.says(REFUSED, TAKEN)
    asking = house.asking(two())
    await house.watch.until(lambda: len(house.ways["own"].requests) == 1)
    house.says(TAKEN)  # the bounce
    assert await asking == "250 2.0.0 taken: relayed as 7QK3"
    assert told(house)[:4] == [MessageQueued, RecipientFailed, RecipientDelivered, NotificationQueued]
    assert await house.history() == [("7QK3", [State.FAILED, State.DELIVERED])]
    await house.watch.until(lambda: house.store.ledger == Ledger(accepted=3, failed=1, delivered=2))


@pytest.mark.asyncio
@pytest.mark.parametrize("outcome", [GREYLISTED, IN_DOUBT, DOWN], ids=["later", "in doubt", "down"])
async def test_what_was_deferred_is_kept_as_after_any_attempt_and_the_client_hears_250(
    house: Door, outcome: Outcome
) -> None:
    await house.open()
    if outcome is DOWN:
        house.ways["own"].connects = DOWN
    house.says(outcome)
    assert await house.ask(an_entry(name="7QK3")) == "250 2.0.0 OK: queued as 7QK3"
    assert house.store.ledger == Ledger(accepted=1, deferred=1)
    (listed,) = await house.store.list(Wanted())
    assert (listed.place, listed.attempts) == (Place.DEFERRED, 1)
    (event,) = house.watch.of(RecipientDeferred)
    assert isinstance(event, RecipientDeferred)
    assert event.in_doubt == (outcome is IN_DOUBT)
    assert told(house) == [MessageQueued, RecipientDeferred]


@pytest.mark.asyncio
async def test_who_was_refused_among_the_deferred_hears_it_by_a_bounce(house: Door) -> None:
    await house.open()
    house.says(REFUSED, GREYLISTED)
    asking = house.asking(two())
    await house.watch.until(lambda: len(house.ways["own"].requests) == 1)
    house.says(TAKEN)
    assert await asking == "250 2.0.0 OK: queued as 7QK3"
    await house.watch.until(lambda: house.store.ledger == Ledger(accepted=3, failed=1, deferred=1, delivered=1))


@pytest.mark.asyncio
async def test_a_refusal_that_nobody_hears_is_kept_and_bounced(house: Door) -> None:
    await house.open()
    house.says(REFUSED)
    asking = house.asking(an_entry(name="7QK3"), there=False)
    await house.watch.until(lambda: len(house.ways["own"].requests) == 1)
    house.says(TAKEN)
    await asking
    await house.watch.until(lambda: house.store.ledger == Ledger(accepted=2, failed=1, delivered=1))
    assert await house.history() == [("BOUNCE0", [State.DELIVERED]), ("7QK3", [State.FAILED])]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("outcome", "reply"),
    [
        (Delivered(Reply(250, "", "")), "250 2.0.0 OK: relayed as 7QK3"),
        (Delivered(Reply(250, "2.6.0", "bücher")), "250 2.6.0 b?cher: relayed as 7QK3"),
        (Failed(Stage.MAIL, Reply(550, "", "")), "550 5.0.0 Refused by the next hop"),
        (Failed(Stage.MAIL, Reply(501, "", "naïef")), "501 5.0.0 na?ef"),
        (Failed(Stage.DOT, Reply(554, "5.6.0", "z" * 1000)), "554 5.6.0 " + "z" * 400),
    ],
    ids=["plain", "no ascii", "no text", "no status", "long"],
)
async def test_whatever_the_upstream_says_becomes_one_line_that_any_client_can_read(
    house: Door, outcome: Outcome, reply: str
) -> None:
    await house.open()
    house.says(outcome)
    assert await house.ask(an_entry(name="7QK3")) == reply
    assert len(reply) <= 510


@pytest.mark.asyncio
async def test_of_a_session_code_no_text_of_an_upstream_is_repeated(tmp_path: Path) -> None:
    house = await Door.build(tmp_path, policy(default=("own",), session_codes=("vendor",)))
    assert isinstance(house, Door)
    await house.open()
    house.says(Failed(Stage.DOT, Reply(550, "5.7.1", "Q913Z is no code")), way="vendor")
    assert await house.ask(an_entry(content=CODE, name="7QK3")) == "550 5.7.1 Refused by the next hop"
    house.says(Delivered(Reply(250, "2.0.0", "Q913Z taken")), way="vendor")
    assert await house.ask(an_entry(content=CODE, name="7QK4")) == "250 2.0.0 OK: relayed as 7QK4"
    assert "Q913Z" not in str(house.watch.events)
    await house.demolish()


# Patience


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("outcome", "ledger"),
    [
        (TAKEN, Ledger(accepted=1, delivered=1)),
        (GREYLISTED, Ledger(accepted=1, deferred=1)),
        (REFUSED, Ledger(accepted=2, failed=1, delivered=1)),
    ],
    ids=["taken", "deferred", "refused"],
)
@pytest.mark.parametrize("when", ["after the reply", "during the commit"])
async def test_when_patience_is_over_it_is_kept_and_the_same_attempt_goes_on(
    house: Door, outcome: Outcome, ledger: Ledger, when: str
) -> None:
    await house.open()
    house.says(None)
    house.store.gate = asyncio.Event()
    asking = house.asking(an_entry(name="7QK3"), 0.001)
    await house.watch.until(lambda: house.store.at_the_gate)
    if when == "after the reply":
        house.store.gate.set()
        assert await asking == "250 2.0.0 OK: queued as 7QK3"
        assert house.store.ledger == Ledger(accepted=1, active=1)
    house.says(TAKEN)
    house.ways["own"].line_of("7QK3").tell(outcome)
    await turns()
    house.store.gate.set()
    assert await asking == "250 2.0.0 OK: queued as 7QK3"
    await house.watch.until(lambda: house.store.ledger == ledger)
    assert [request.queue_id for request in house.ways["own"].requests].count("7QK3") == 1
    assert told(house)[0] is MessageQueued


@pytest.mark.asyncio
async def test_a_code_that_is_kept_while_it_is_under_way_is_kept_with_the_way_that_has_it(tmp_path: Path) -> None:
    house = await Door.build(tmp_path, policy(default=("own",), session_codes=("vendor", "own")), connections=2)
    assert isinstance(house, Door)
    await house.open()
    house.says(GREYLISTED, way="vendor")
    house.says(None, way="own")
    house.store.gate = asyncio.Event()
    asking = house.asking(an_entry(content=CODE, name="7QK3"), 0.001)
    await house.begun("7QK3", "own")
    line = house.ways["own"].line_of("7QK3")
    await house.watch.until(lambda: house.store.at_the_gate)
    passing = asyncio.create_task(line.ready())  # while it is being kept
    await turns()
    assert not passing.done()
    house.store.gate.set()
    assert await passing
    assert await asking == "250 2.0.0 OK: queued as 7QK3"
    assert ways_kept(tmp_path) == ["own"]
    line.tell(TAKEN)
    await house.watch.until(lambda: house.store.ledger == Ledger(accepted=1, delivered=1))
    house.store.gate = asyncio.Event()
    asking = house.asking(an_entry(content=CODE, name="7QK4"), 0.1)
    await house.begun("7QK4", "own")
    line = house.ways["own"].line_of("7QK4")
    assert await line.ready()  # before it is kept
    await house.watch.until(lambda: house.store.at_the_gate == 2)
    house.store.gate.set()
    assert await asking == "250 2.0.0 OK: queued as 7QK4"
    assert ways_kept(tmp_path) == ["own"]
    line.tell(TAKEN)
    await house.watch.until(lambda: house.store.ledger == Ledger(accepted=2, delivered=2))
    await house.demolish()


def ways_kept(folder: Path) -> list[str]:
    """Of the recipients of all entries; read from a copy, for whoever closes a database last takes its log away."""
    copy = folder / "copy"
    copy.mkdir(exist_ok=True)
    for name in ("queue.db", "queue.db-wal"):
        shutil.copy(folder / name, copy / name)
    with closing(sqlite3.connect(copy / "queue.db")) as connection:
        return [way for (way,) in connection.execute("SELECT way FROM recipient")]


@pytest.mark.asyncio
async def test_a_verdict_that_comes_at_the_last_moment_is_said_or_kept_but_never_both(house: Door) -> None:
    await house.open()
    house.says(None)
    replies = set()
    for n in range(40):
        name = f"M{n}"
        asking = house.asking(an_entry(name=name), 0.002)
        await house.begun(name)
        line = house.ways["own"].line_of(name)
        asyncio.get_running_loop().call_later(0.001 + n * 0.00005, line.tell, TAKEN)
        reply = await asking
        assert reply in (f"250 2.0.0 taken: relayed as {name}", f"250 2.0.0 OK: queued as {name}")
        replies.add(reply.partition(":")[0])
        await house.over()  # it has given its place back
    await house.watch.until(lambda: house.store.ledger == Ledger(accepted=40, delivered=40))
    assert len(house.ways["own"].requests) == 40
    assert sorted(name for name, _ in await house.history()) == sorted(f"M{n}" for n in range(40))


@pytest.mark.asyncio
async def test_the_end_of_the_relay_is_the_end_of_patience(house: Door) -> None:
    await house.open()
    house.says(None)
    asking = house.asking(an_entry(name="7QK3"))
    await house.begun("7QK3")
    house.direct.stop()
    assert await asking == "250 2.0.0 OK: queued as 7QK3"
    assert await house.ask(an_entry(name="7QK4")) is None
    house.ways["own"].line_of("7QK3").tell(TAKEN)
    await house.watch.until(lambda: house.store.ledger == Ledger(accepted=1, delivered=1))


@pytest.mark.asyncio
async def test_an_attempt_that_the_relay_ends_before_it_is_made_gives_its_lease_back(house: Door) -> None:
    await house.open()
    house.ways["own"].connects = None
    asking = house.asking(an_entry(name="7QK3"))
    await house.watch.until(lambda: house.ways["own"].dials)
    house.direct.stop()
    assert await asking == "250 2.0.0 OK: queued as 7QK3"
    for worker in house.workers.values():
        worker.stop()
    house.upstreams["own"].end(0.0)
    await house.watch.until(lambda: house.store.ledger == Ledger(accepted=1, pending=1))


# No room


@pytest.mark.asyncio
async def test_nobody_overtakes_what_waits_in_the_store(house: Door) -> None:
    house.says(None)
    await house.put("OLD")
    await house.put("OLD2")
    await house.put("OLD3")
    house.direct = Direct(house.shared, house.workers.get, asyncio.create_task)
    house.tasks = set()
    assert await house.ask(an_entry()) is None  # no worker
    house.start()
    await house.begun("OLD")
    assert await house.ask(an_entry()) is None
    house.says(TAKEN)
    house.ways["own"].line_of("OLD").tell(TAKEN)
    await house.watch.until(lambda: house.store.ledger.delivered == 3)
    await house.watch.until(lambda: house.workers["default"].room(1))
    assert await house.ask(an_entry(name="7QK3")) == "250 2.0.0 taken: relayed as 7QK3"


@pytest.mark.asyncio
async def test_an_upstream_set_aside_is_not_waited_for(house: Door) -> None:
    await house.open()
    house.ways["own"].connects = DOWN
    assert await house.ask(an_entry(name="7QK3")) == "250 2.0.0 OK: queued as 7QK3"
    assert await house.ask(an_entry()) is None


@pytest.mark.asyncio
async def test_one_that_is_set_aside_while_a_client_waits_for_its_turn_sends_it_the_ordinary_way(house: Door) -> None:
    await house.open()
    house.ways["own"].connects = None
    asking = [house.asking(an_entry(name=f"M{n}")) for n in range(2)]
    await house.watch.until(lambda: house.ways["own"].dials)
    await turns()
    house.ways["own"].connects = DOWN
    house.ways["own"].dials[0].set_result(DOWN)
    assert await asking[0] == "250 2.0.0 OK: queued as M0"
    assert await asking[1] is None
    assert house.ways["own"].dialled == 1


@pytest.mark.asyncio
async def test_as_many_are_tried_at_once_as_the_route_has_runners_and_the_rest_have_patience(house: Door) -> None:
    await house.open(runners=2)
    house.says(None)
    asking = [house.asking(an_entry(name=f"M{n}")) for n in range(4)]
    await house.begun("M1")
    await turns()
    assert [request.queue_id for request in house.ways["own"].requests] == ["M0", "M1"]
    impatient = house.asking(an_entry(name="LATE"), 0.001)
    assert await impatient is None  # its turn never came
    house.ways["own"].line_of("M0").tell(TAKEN)
    await house.begun("M2")
    house.says(TAKEN)
    for name in ("M1", "M2"):
        house.ways["own"].line_of(name).tell(TAKEN)
    assert [await one for one in asking] == [f"250 2.0.0 taken: relayed as M{n}" for n in range(4)]
    assert [request.queue_id for request in house.ways["own"].requests] == ["M0", "M1", "M2", "M3"]


@pytest.mark.asyncio
async def test_the_worker_has_its_turns_while_clients_wait(house: Door) -> None:
    await house.open(runners=2)
    house.says(None)
    asking = [house.asking(an_entry(name=f"M{n}")) for n in range(6)]
    await house.begun("M1")
    await house.accept(an_entry(name="QUEUED"))
    await turns()
    for name in ("M0", "M1"):
        house.ways["own"].line_of(name).tell(TAKEN)
    await house.begun("QUEUED")
    house.says(TAKEN)
    for line in list(house.ways["own"].busy):
        line.tell(TAKEN)
    await asyncio.gather(*asking)


@pytest.mark.asyncio
async def test_what_clients_wait_for_in_memory_is_bounded(house: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH_BYTES", 3000)
    await house.open()
    house.says(None)
    asking = house.asking(an_entry(name="7QK3", content=memory(b"x" * 2000)))
    await house.begun("7QK3")
    assert await house.ask(an_entry(content=memory(b"x" * 2000))) is None
    house.ways["own"].line_of("7QK3").tell(TAKEN)
    assert await asking == "250 2.0.0 taken: relayed as 7QK3"


@pytest.mark.asyncio
async def test_after_a_reload_the_ordinary_way_decides_anew(house: Door) -> None:
    await house.open()
    house.says(None)
    first = house.asking(an_entry(name="FIRST"))
    second = house.asking(an_entry(name="SECOND"))
    await house.begun("FIRST")
    house.policy = replace(house.policy)
    house.ways["own"].line_of("FIRST").tell(TAKEN)
    assert await first == "250 2.0.0 taken: relayed as FIRST"
    assert await second is None


# A store that fails


@pytest.mark.asyncio
@pytest.mark.parametrize("outcome", [GREYLISTED, IN_DOUBT], ids=["later", "in doubt"])
async def test_what_cannot_be_kept_is_not_acknowledged(house: Door, outcome: Outcome) -> None:
    await house.open()
    house.says(outcome)
    house.store.broken = True
    assert await house.ask(an_entry()) == ""
    house.store.broken = False
    assert house.store.ledger == Ledger()
    assert told(house) == []


@pytest.mark.asyncio
async def test_a_bounce_that_cannot_be_kept_is_not_acknowledged_either(house: Door) -> None:
    await house.open()
    house.says(REFUSED, TAKEN)
    house.store.broken = True
    assert await house.ask(two()) == ""
    assert told(house) == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("broken", "outcomes", "reply"),
    [(False, (REFUSED, REFUSED), "550 5.1.1 no such user"), (True, (REFUSED, TAKEN), "")],
    ids=["told to the client", "told to nobody"],
)
async def test_a_refusal_that_made_no_bounce_counts_as_none(
    house: Door, broken: bool, outcomes: tuple[Outcome, Outcome], reply: str
) -> None:
    await house.open()
    house.says(*outcomes)
    house.store.broken = broken
    for _ in range(MOST_MESSAGES + 5):
        assert await house.ask(an_entry("a@x.nl", "b@x.nl")) == reply
    house.store.broken = False
    assert house.shared.window.full(house.now) == frozenset()
    assert house.shared.window.collected(JAN) == 0


@pytest.mark.asyncio
@pytest.mark.parametrize(("before", "bounces", "lines"), [(MOST_MESSAGES - 1, 1, 0), (MOST_MESSAGES, 0, 1)])
async def test_a_bounce_that_was_kept_counts_and_so_does_the_line_that_takes_its_place(
    house: Door, before: int, bounces: int, lines: int
) -> None:
    await house.open()
    window = house.shared.window
    window.note([Told(JAN, f"{number}", house.now) for number in range(before)])
    house.ways["own"].says = lambda request: TAKEN if len(request.recipients) == 1 else Delivery((REFUSED, TAKEN))
    assert await house.ask(two()) == "250 2.0.0 taken: relayed as 7QK3"
    assert len(house.watch.of(NotificationQueued)) == bounces
    assert window.collected(JAN) == len(await house.store.collected(JAN, limit=99)) == lines
    assert window.full(house.now) == {JAN}


@pytest.mark.asyncio
async def test_what_everybody_got_is_acknowledged_and_recorded_when_the_store_is_back(
    house: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_PAUSE", 0.001)
    await house.open()
    house.store.broken = True
    assert await house.ask(an_entry(name="7QK3")) == "250 2.0.0 taken: relayed as 7QK3"
    assert told(house) == []
    house.store.broken = False
    await house.watch.until(lambda: house.store.ledger == Ledger(accepted=1, delivered=1))
    await house.over()
    assert told(house) == [MessageQueued, RecipientDelivered]


@pytest.mark.asyncio
async def test_what_was_delivered_and_could_not_be_recorded_before_the_end_is_told(
    house: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_PAUSE", 0.001)
    await house.open()
    house.store.broken = house.stopping = True
    assert await house.ask(an_entry(name="7QK3")) == "250 2.0.0 taken: relayed as 7QK3"
    await house.over()
    (warning,) = house.watch.of(Warned)
    assert "7QK3: it was delivered and acknowledged" in str(warning)


@pytest.mark.asyncio
async def test_without_a_store_the_attempt_is_broken_off_when_patience_is_over(house: Door) -> None:
    await house.open()
    house.says(None)
    house.store.broken = True
    asking = house.asking(an_entry(name="7QK3"), 0.001)
    assert await asking == ""
    await house.watch.until(lambda: not house.ways["own"].busy)
    assert house.ways["own"].lines == []  # nothing buffered may arrive later
    assert house.store.ledger == Ledger()
    assert told(house) == []
    house.store.broken = False
    house.says(TAKEN)
    assert await house.ask(an_entry(name="7QK4")) == "250 2.0.0 taken: relayed as 7QK4"  # the place is free again


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("outcome", "reply"),
    [(TAKEN, "250 2.0.0 taken: relayed as 7QK3"), (AT_THE_DOT, ""), (IN_DOUBT, "")],
    ids=["taken", "refused", "in doubt"],
)
async def test_past_the_final_dot_only_the_answer_helps(
    house: Door, outcome: Outcome, reply: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_PAUSE", 0.001)
    await house.open()
    house.says(None)
    asking = house.asking(an_entry(name="7QK3"), 0.001)
    await house.begun("7QK3")
    line = house.ways["own"].line_of("7QK3")
    house.store.broken = line.past_dot = True
    await house.watch.until(lambda: house.store.at_the_gate)
    await turns()
    assert not asking.done()
    line.tell(outcome)
    assert await asking == reply
    house.store.broken = False
    await house.over()
    assert house.store.ledger == (Ledger(accepted=1, delivered=1) if reply else Ledger())


@pytest.mark.asyncio
async def test_past_the_final_dot_the_end_of_the_relay_ends_the_waiting(house: Door) -> None:
    await house.open()
    house.says(None)
    asking = house.asking(an_entry(name="7QK3"), 0.001)
    await house.begun("7QK3")
    line = house.ways["own"].line_of("7QK3")
    house.store.broken = line.past_dot = True
    await house.watch.until(lambda: house.store.at_the_gate)
    house.direct.stop()
    assert await asking == ""
    line.tell(TAKEN)
    await house.over()


@pytest.mark.asyncio
async def test_a_message_in_several_transactions_is_not_broken_off_between_them(tmp_path: Path) -> None:
    house = await Door.build(tmp_path, policy())
    assert isinstance(house, Door)
    house.build_way("own", 1, most=1)
    await house.open()
    house.says(None)
    asking = house.asking(two(), 0.001)
    await house.begun("7QK3")
    house.store.broken = True
    await house.watch.until(lambda: house.store.at_the_gate)
    await turns()
    house.ways["own"].line_of("7QK3").tell(TAKEN)
    await house.watch.until(lambda: len(house.ways["own"].requests) == 2)
    house.ways["own"].line_of("7QK3").tell(TAKEN)
    assert await asking == "250 2.0.0 taken: relayed as 7QK3"
    house.store.broken = False
    await house.demolish()


@pytest.mark.asyncio
async def test_who_got_it_gets_it_once_where_another_way_is_asked_for_the_rest(tmp_path: Path) -> None:
    house = await Door.build(tmp_path, policy(default=("own", "other")))
    assert isinstance(house, Door)
    await house.open()
    house.says(TAKEN, DOWN)
    house.says(None, way="other")
    asking = house.asking(two(), 0.001)
    await house.begun("7QK3", "other")
    house.store.broken = True
    await house.watch.until(lambda: house.store.at_the_gate)
    await turns()
    assert not asking.done()
    house.ways["other"].line_of("7QK3").tell(TAKEN)
    assert await asking == "250 2.0.0 taken: relayed as 7QK3"
    assert [len(way.requests) for way in house.ways.values()] == [1, 1]
    house.store.broken = False
    await house.demolish()


@pytest.mark.asyncio
async def test_a_verdict_that_comes_while_the_store_fails_is_said_where_everybody_got_it(house: Door) -> None:
    await house.open()
    house.says(None)
    house.store.gate = asyncio.Event()
    asking = house.asking(an_entry(name="7QK3"), 0.001)
    await house.watch.until(lambda: house.store.at_the_gate)
    house.ways["own"].line_of("7QK3").tell(TAKEN)
    house.store.broken = True
    await turns()
    gate, house.store.gate = house.store.gate, None
    gate.set()
    assert await asking == "250 2.0.0 taken: relayed as 7QK3"


@pytest.mark.asyncio
async def test_a_bug_sends_it_the_ordinary_way(house: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.open()
    monkeypatch.setattr("relay.delivery.direct.attempt", None)
    assert await house.ask(an_entry()) is None
