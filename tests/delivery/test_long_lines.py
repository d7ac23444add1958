"""An upstream that refuses a long line gets the message without, at once, and that is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from relay.config.preset import table
from relay.delivery.long_lines import LongLines
from relay.delivery.upstream import Upstream
from relay.events import MessageReencoded
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.envelope import Recipient
from relay.mail.outcome import Deferred, Failed, Outcome, Stage, Trouble
from relay.mail.reply import Reply
from relay.transport.port import Delivery, DeliveryRequest, Reencoding
from tests.delivery.house import HOURLY, Store
from tests.delivery.ways import IN_DOUBT, REFUSED, TAKEN, Watch, Way
from tests.kit import configured
from tests.queue.mail import NOON

TOO_LONG = Failed(Stage.DOT, Reply(500, "5.2.3", "line too long"))
NOT_ALLOWED = Failed(Stage.DOT, Reply(550, "5.7.1", "spam"))
DONE = Reencoding("long lines", 1, 0)


class Road:
    """An upstream, the store that remembers for it, and a clock."""

    def __init__(self, store: Store, watch: Watch) -> None:
        self.store = store
        self.watch = watch
        self.now = NOON
        self.way = Way("own", watch)
        self.way.says = self.refuses_long_lines
        self.restart()

    def restart(self, *, always: bool = False) -> None:
        long_lines = LongLines("own", self.store, self._clock, always=always)
        self.upstream = Upstream(
            self.way,
            configured.upstream_limits(),
            refusals=table(None),
            observer=self.watch,
            changed=lambda: None,
            long_lines=long_lines,
        )

    def _clock(self) -> datetime:
        return self.now

    def refuses_long_lines(self, request: DeliveryRequest) -> Outcome | Delivery:
        return Delivery((TAKEN,) * len(request.recipients), None, DONE) if request.encode_long_lines else TOO_LONG

    async def send(self, *to: str) -> tuple[Outcome, ...]:
        recipients = tuple(Recipient(Address.of(one)) for one in to or ("piet@example.com",))
        content = MemoryContent(b"\r\nhoi\r\n", 2)
        request = DeliveryRequest("M", None, recipients, b"\r\n", content, 2)
        async with asyncio.timeout(60):
            delivery = await self.upstream.deliver(request, priority=1, schedule=HOURLY)
        assert delivery is not None
        return delivery.outcomes

    def tries(self) -> list[bool]:
        """Whether each transaction since the last look was without long lines."""
        tries = [request.encode_long_lines for request in self.way.requests]
        self.way.requests.clear()
        return tries


@pytest_asyncio.fixture
async def road(tmp_path: Path) -> AsyncIterator[Road]:
    watch = Watch()
    store = await Store.open(tmp_path / "queue.db", observer=watch, min_free=0)
    road = Road(store, watch)
    yield road
    await road.upstream.close()
    store.broken = False
    await store.close()


@pytest.mark.asyncio
async def test_what_was_refused_for_a_line_goes_again_at_once_and_the_next_goes_right_the_first_time(
    road: Road,
) -> None:
    assert await road.send() == (TAKEN,)
    assert road.tries() == [False, True]
    assert await road.send() == (TAKEN,)
    assert road.tries() == [True]
    assert road.watch.of(MessageReencoded) == [MessageReencoded("M", "own", "long lines", 1, 0)] * 2


@pytest.mark.asyncio
async def test_it_is_remembered_over_a_restart_and_forgotten_after_30_days(road: Road) -> None:
    await road.send()
    road.restart()
    road.now += timedelta(days=29)
    road.tries()
    await road.send()
    assert road.tries() == [True]
    road.now += timedelta(days=2)
    await road.send()
    assert road.tries() == [False, True]


@pytest.mark.asyncio
async def test_only_those_who_were_refused_for_it_get_it_again(road: Road) -> None:
    first = Delivery((REFUSED, TOO_LONG, TOO_LONG))
    road.way.says = lambda request: road.refuses_long_lines(request) if request.encode_long_lines else first
    assert await road.send("a@example.com", "b@example.com", "c@example.com") == (REFUSED, TAKEN, TAKEN)
    again = road.way.requests[1]
    assert [str(recipient.address) for recipient in again.recipients] == ["b@example.com", "c@example.com"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "outcome",
    [
        NOT_ALLOWED,
        IN_DOUBT,
        Failed(Stage.RCPT, TOO_LONG.reply),
        Deferred(Stage.BODY, Trouble.DROPPED, "line too long"),
        Deferred(Stage.DOT, Trouble.TRANSIENT, "x", Reply(421, "", "line too long"), upstream_sick=True),
    ],
)
async def test_no_other_refusal_and_nothing_in_doubt_is_tried_again(road: Road, outcome: Outcome) -> None:
    road.way.says = lambda _: outcome
    assert await road.send() == (outcome,)
    assert road.tries() == [False]


@pytest.mark.asyncio
async def test_what_is_refused_without_long_lines_too_is_refused_and_teaches_nothing(road: Road) -> None:
    road.way.says = lambda request: NOT_ALLOWED if request.encode_long_lines else TOO_LONG
    assert await road.send() == (NOT_ALLOWED,)
    await road.send()
    assert road.tries() == [False, True, False, True]


@pytest.mark.asyncio
async def test_where_the_configuration_says_so_it_is_done_from_the_start(road: Road) -> None:
    road.restart(always=True)
    assert await road.send() == (TAKEN,)
    assert road.tries() == [True]


@pytest.mark.asyncio
async def test_a_store_that_is_out_of_order_stops_no_mail(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    async def out_of_order(*_: object) -> None:
        road.store.broken = True
        road.store._trouble()

    monkeypatch.setattr(road.store, "recall", out_of_order)
    monkeypatch.setattr(road.store, "remember", out_of_order)
    assert await road.send() == (TAKEN,)
    assert await road.send() == (TAKEN,)
    assert road.tries() == [False, True, True]
