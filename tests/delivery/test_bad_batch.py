"""Forty messages that an upstream cannot bear, among ordinary mail: how long the others wait for them.

The real store, worker, upstream, attempts and settlements, in virtual time. `pytest -s` shows the figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from relay.config.preset import table
from relay.delivery.upstream import UpstreamLimits
from relay.events import (
    MessageBlamed,
    RecipientDeferred,
    RecipientDelivered,
    UpstreamRestored,
    UpstreamSetAside,
)
from relay.mail.outcome import Deferred, Outcome, Stage, Trouble
from relay.mail.reply import Reply
from relay.policy.decide import SESSION_CODES
from relay.policy.retry import Schedule
from relay.transport.port import Delivery, DeliveryRequest
from tests.delivery.house import HouseInVirtualTime, policy
from tests.delivery.test_codes_of_an_hour import a_code
from tests.delivery.ways import TAKEN, all_of
from tests.kit import virtual_time
from tests.kit.alone import alone
from tests.kit.ledger import balanced
from tests.kit.machine import MEMORY

BAD, GOOD = 40, 200
HOURS = 3
RETRY = Schedule(tuple(timedelta(minutes=pause) for pause in (1, 5, 5, 15, 60)), timedelta(days=5))
CONNECT, TRANSACTION = 0.5, 0.2  # seconds

_GOODBYE = Reply(421, "4.7.0", "closing")
_STAGES = (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.BODY, Stage.DOT)
ENDS = [Deferred(stage, Trouble.TRANSIENT, "closing", _GOODBYE, upstream_sick=True) for stage in _STAGES] + [
    Deferred(stage, Trouble.DROPPED, "the connection broke", in_doubt=stage is Stage.DOT, upstream_sick=True)
    for stage in _STAGES
]
# Words of a 421 that speak of the account where another code says them, at Gmail and in the table for all.
WORDS = {
    "Gmail asks for less": ("gmail", Reply(421, "4.7.0", "Try again later, closing connection.")),
    "Gmail speaks of its quota": ("gmail", Reply(421, "4.4.5", "Server busy, try again later.")),
    "too many connections": (None, Reply(421, "4.7.0", "too many connections")),
    "a quota": (None, Reply(421, "4.7.0", "daily sending quota exceeded")),
}


class Picky:
    """A transport (`port.Transport`) to an upstream that breaks off messages whose name begins with BAD."""

    size_limit: int | None = None
    name = "own"

    def __init__(self, ends: Sequence[Deferred]) -> None:
        self.ends = ends
        self.tried = 0

    async def connect(self) -> _Line:
        await asyncio.sleep(CONNECT)
        return _Line(self)

    def reload(self) -> None:
        pass

    def says(self, request: DeliveryRequest) -> Outcome:
        if not request.queue_id.startswith("BAD"):
            return TAKEN
        self.tried += 1
        return self.ends[self.tried % len(self.ends)]


class _Line:
    past_dot = False

    def __init__(self, to: Picky) -> None:
        self._to = to
        self.usable = True

    async def deliver(self, request: DeliveryRequest) -> Delivery:
        await asyncio.sleep(TRANSACTION)
        delivery = all_of(request, self._to.says(request))
        self.usable = delivery.sick is None
        return delivery

    async def refresh(self) -> bool:
        return self.usable

    def when_lost(self, tell: Callable[[], None]) -> None:
        """It is lost in a transaction only."""

    async def close(self) -> None:
        self.usable = False

    def abort(self) -> None:
        self.usable = False


class House(HouseInVirtualTime):
    picky: Picky
    preset: str | None

    def build_way(self, name: str, connections: int = 1, most: int = 100) -> Any:
        limits = UpstreamLimits(connections, most)
        self.upstreams[name] = alone(
            self.picky, limits, refusals=table(self.preset), observer=self.watch, changed=self.changed
        )

    def delays(self, start: str) -> list[float]:
        """Seconds from acceptance to delivery, of messages whose name begins so."""
        events = [event for event in self.watch.events if isinstance(event, RecipientDelivered)]
        return [event.delay for event in events if event.queue_id.startswith(start)]


@dataclass(frozen=True)
class Order:
    """When what is put: bad ones from `bad_at` on with `bad_every` seconds between, likewise good ones."""

    bad_at: float = 0.0
    bad_every: float = 0.0
    good_at: float = 0.0
    good_every: float = 1.0


ORDERS = {
    "a batch ahead of all others": Order(good_at=0.1),
    "a batch amid others": Order(bad_at=20.3),
    "one after each fifth": Order(bad_every=5.0),
    "all at once, mixed": Order(good_every=0.0),
}


async def the_hours(
    folder: Path,
    order: Order,
    connections: int,
    codes: int = 0,
    *,
    ends: Sequence[Deferred] = ENDS,
    preset: str | None = None,
) -> House:
    House.picky, House.preset = Picky(ends), preset
    rules = policy(default=("own",), session_codes=("own",))
    routes = dict(rules.routes)
    routes["default"] = replace(routes["default"], schedule=RETRY)
    house = await House.build(folder, replace(rules, routes=routes), connections)
    assert isinstance(house, House)
    house.start("default", runners=connections)
    house.start(SESSION_CODES, runners=2 * connections)
    plan = [(order.bad_at + n * order.bad_every, f"BAD{n}") for n in range(BAD)]
    plan += [(order.good_at + n * order.good_every, f"GOOD{n}") for n in range(GOOD)]
    plan += [(7.0 * n + 0.5, f"CODE{n}") for n in range(codes)]
    plan += [(1800.0 * n, f"GOOD-LATER{n}") for n in range(1, 2 * HOURS)]
    loop = asyncio.get_running_loop()
    for moment, name in sorted(plan, key=lambda one: (one[0], int("".join(filter(str.isdigit, one[1]))))):
        await asyncio.sleep(max(0.0, moment - loop.time()))
        if name.startswith("CODE"):
            await house.accept(a_code(int(name[4:]), house.now))
        else:
            await house.put(name, expires_at=house.now + RETRY.lifetime)
    await asyncio.sleep(60)
    await house.demolish()
    return house


@pytest.mark.parametrize(("connections", "codes"), [(1, 40), (3, 0), pytest.param(1, 0, marks=pytest.mark.repetition)])
@pytest.mark.parametrize("order", ORDERS.values(), ids=list(ORDERS))
def test_forty_messages_that_an_upstream_cannot_bear_delay_others_by_seconds(
    order: Order, connections: int, codes: int
) -> None:
    with TemporaryDirectory(dir=MEMORY, prefix="batch") as folder:
        house = virtual_time.run(the_hours(Path(folder), order, connections, codes))
    good = house.delays("GOOD")
    asides = [event for event in house.watch.events if isinstance(event, UpstreamSetAside)]
    tries = [event for event in house.watch.events if isinstance(event, RecipientDeferred)]
    print(
        f"\nothers waited {max(good):.0f} s at most, codes {max(house.delays('CODE'), default=0):.1f} s;"
        f" set aside {len(asides)} times for {sum(event.seconds for event in asides):.0f} s in all;"
        f" {len(tries)} tries of the {BAD}"
    )
    assert len(good) == GOOD + 2 * HOURS - 1
    # Where all come at once, 200 take a connection 40 seconds by themselves, and the forty are due again meanwhile.
    alone = (GOOD * TRANSACTION + BAD * (TRANSACTION + CONNECT)) / connections if order.good_every == 0 else 0
    assert max(good) < 60 + alone
    assert len(house.delays("CODE")) == codes
    assert max(house.delays("CODE"), default=0) < 3
    # Once others went through, what comes back by its schedule holds up nobody.
    assert max(house.delays("GOOD-LATER")) < 2
    assert len(asides) <= BAD
    assert len(house.watch.of(UpstreamRestored)) <= len(asides)
    assert {event.queue_id for event in house.watch.of(MessageBlamed)} == {f"BAD{n}" for n in range(BAD)}  # type: ignore[attr-defined]
    # Each sets itself back, longer each time.
    for n in range(BAD):
        waits = [event for event in tries if event.queue_id == f"BAD{n}"]
        assert 5 <= len(waits) <= 8
    ledger = house.store.ledger
    assert balanced(ledger)
    assert ledger.deferred == BAD


@pytest.mark.parametrize("stage", [Stage.MAIL, pytest.param(Stage.DOT, marks=pytest.mark.repetition)])
@pytest.mark.parametrize("words", WORDS.values(), ids=list(WORDS))
def test_words_about_the_account_in_a_421_delay_others_no_longer(words: tuple[str | None, Reply], stage: Stage) -> None:
    preset, reply = words
    ends = [Deferred(stage, Trouble.TRANSIENT, reply.text, reply, upstream_sick=True)]
    with TemporaryDirectory(dir=MEMORY, prefix="batch") as folder:
        order = ORDERS["a batch ahead of all others"]
        house = virtual_time.run(the_hours(Path(folder), order, 3, ends=ends, preset=preset))
    assert len(house.delays("GOOD")) == GOOD + 2 * HOURS - 1
    assert max(house.delays("GOOD")) < 60
    assert max(house.delays("GOOD-LATER")) < 2
