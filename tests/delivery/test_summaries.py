"""Summaries on a real store: written once, in one transaction, and not lost to a sick store or a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio

from relay.delivery import summaries
from relay.delivery.summaries import Summaries
from relay.delivery.window import HOUR, MOST_MESSAGES, Window
from relay.errors import StoreUnavailable
from relay.events import NotificationQueued
from relay.mail.address import Address
from relay.mail.summary_line import Line, to_text
from relay.queue.model import Entry, Kind, Result, Settlement, State, Told
from relay.queue.sqlite.start import SqliteStore
from tests.delivery import house
from tests.delivery.ways import Watch
from tests.kit.ledger import balanced
from tests.kit.store import usual
from tests.queue.mail import NOON, an_entry

JAN, PIET = Address.of("jan@example.nl"), Address.of("piet@example.nl")
FOREVER = datetime.max.replace(tzinfo=NOON.tzinfo)


class Store(SqliteStore):
    """The real one, which can be told to be out of order."""

    broken = False
    meanwhile: Callable[[], None] = staticmethod(lambda: None)  # between its answer and who asked

    async def collected(self, reader, *, limit):  # type: ignore[no-untyped-def]
        told = await super().collected(reader, limit=limit)
        self.meanwhile()
        return told

    async def summarise(self, entry, told):  # type: ignore[no-untyped-def]
        if self.broken:
            raise StoreUnavailable("io", "the disk is out of order")
        await super().summarise(entry, told)


class Desk:
    """Summaries, the window, and the store that remembers what it says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.now = NOON
        self.watch = Watch()
        self.rung: list[str] = []
        self._ids = count()

    async def open(self) -> Desk:
        self.store = await Store.open(self._folder / "queue.db", observer=self.watch, **usual(now=lambda: self.now))
        self.window = Window(await self.store.readers(since=self.now - HOUR))
        self.summaries = Summaries(
            window=self.window,
            store=self.store,
            policy=house.policy,
            observer=self.watch,
            now=lambda: self.now,
            new_queue_id=lambda: f"SUMMARY{next(self._ids)}",
            ring=self.rung.append,
        )
        return self

    async def restart(self) -> None:
        await self.store.close()
        await self.open()

    async def tell(self, messages: int, reader: Address = JAN) -> None:
        """So many messages fail, and the reader is written to or not, as the worker does it."""
        for _ in range(messages):
            entry = an_entry("klant@example.org")
            line = to_text(Line(entry.queue_id, NOON, self.now, (), f"Factuur {entry.queue_id}"))
            full = reader in self.window.full(self.now)
            told = Told(reader, entry.queue_id, self.now, line if full else "")
            lease = await self.store.put(entry, leased=True)
            await self.store.settle(Settlement(lease, (Result(0, State.FAILED),), at=self.now, told=(told,)))
            self.window.note([told])

    async def written(self) -> list[Entry]:
        """The summaries that wait."""
        leases = await self.store.lease("default", limit=100, now=FOREVER)
        entries = [lease.entry for lease in leases]
        await self.store.give_back(leases)
        return entries

    def told(self) -> list[str]:
        return [event.reader for event in self.watch.events if isinstance(event, NotificationQueued)]


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = await Desk(tmp_path).open()
    yield made
    await made.store.close()


def lines_of(entry: Entry) -> int:
    text = entry.content.read(0, entry.content.size)
    return text.count(b"Kenmerk / Reference: ")


@pytest.mark.asyncio
async def test_what_was_collected_goes_out_as_one_message_when_the_hour_has_room(desk: Desk) -> None:
    await desk.tell(MOST_MESSAGES + 7)
    desk.now += timedelta(minutes=59)
    await desk.summaries.look()
    assert await desk.written() == []
    desk.now += timedelta(minutes=1)
    await desk.summaries.look()
    await desk.summaries.look()
    (entry,) = await desk.written()
    assert (entry.kind, entry.route, entry.because) == (Kind.BOUNCE, "default", ("summary",))
    assert entry.submission.envelope.reverse_path is None
    assert [one.address for one in entry.submission.envelope.recipients] == [JAN]
    assert lines_of(entry) == 7
    assert desk.watch.of(NotificationQueued) == [NotificationQueued("SUMMARY0", "", "summary", "jan@example.nl")]
    assert desk.rung == ["default"]
    assert balanced(desk.store.ledger)


@pytest.mark.asyncio
async def test_count_and_lines_survive_a_restart_and_nothing_is_told_twice(desk: Desk) -> None:
    await desk.tell(MOST_MESSAGES + 2)
    await desk.restart()
    await desk.tell(3)
    desk.now += HOUR
    await desk.restart()
    await desk.summaries.look()
    await desk.restart()
    await desk.summaries.look()
    assert [lines_of(entry) for entry in await desk.written()] == [5]


@pytest.mark.asyncio
async def test_each_reader_has_a_summary_and_a_window_of_their_own(desk: Desk) -> None:
    await desk.tell(MOST_MESSAGES + 1)
    await desk.tell(MOST_MESSAGES + 2, PIET)
    desk.now += HOUR
    await desk.summaries.look()
    assert sorted(desk.told()) == ["jan@example.nl", "piet@example.nl"]
    assert sorted(lines_of(entry) for entry in await desk.written()) == [1, 2]


@pytest.mark.asyncio
async def test_a_summary_waits_while_the_store_is_out_of_order(desk: Desk) -> None:
    await desk.tell(MOST_MESSAGES + 3)
    desk.now += HOUR
    desk.store.broken = True
    await desk.summaries.look()
    assert desk.told() == []
    desk.store.broken = False
    await desk.summaries.look()
    assert [lines_of(entry) for entry in await desk.written()] == [3]


@pytest.mark.asyncio
async def test_lines_that_the_store_does_not_have_keep_nobody_waiting(desk: Desk) -> None:
    await desk.tell(MOST_MESSAGES)
    desk.window.note([Told(JAN, "LOST", desk.now, "{}")] * 5)
    desk.now += HOUR
    assert desk.window.full(desk.now) == {JAN}
    await desk.summaries.look()
    assert desk.told() == []
    assert desk.window.full(desk.now) == frozenset()


@pytest.mark.asyncio
async def test_a_line_that_comes_while_the_store_is_asked_is_in_the_next_summary(desk: Desk) -> None:
    lost, kept = (Told(JAN, name, desk.now, "{}") for name in ("LOST", "KEPT"))
    desk.window.note([lost])
    desk.store.meanwhile = lambda: desk.window.note([kept])
    await desk.summaries.look()
    assert desk.window.collected(JAN) == 1


@pytest.mark.asyncio
async def test_so_much_that_it_fills_a_summary_goes_at_once_and_the_rest_with_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.delivery.window.MOST_LINES", 10)
    monkeypatch.setattr(summaries, "MOST_LINES", 10)
    await desk.tell(MOST_MESSAGES + 24)
    await desk.summaries.look()
    assert [lines_of(entry) for entry in await desk.written()] == [10, 10]
    desk.now += HOUR
    await desk.summaries.look()
    assert [lines_of(entry) for entry in await desk.written()] == [10, 10, 4]


@pytest.mark.asyncio
async def test_the_store_forgets_what_no_longer_counts(desk: Desk) -> None:
    await desk.tell(MOST_MESSAGES + 2)
    desk.now += HOUR
    await desk.summaries.look()
    await desk.tell(1)  # somebody is told all the time
    desk.now += HOUR
    await desk.summaries.look()
    desk.now += HOUR
    await desk.summaries.look()
    assert await desk.store.readers(since=NOON - HOUR) == []


@pytest.mark.asyncio
async def test_it_looks_until_it_is_told_to_stop(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "EVERY", 0.01)
    await desk.tell(MOST_MESSAGES + 1)
    stop = asyncio.Event()
    running = asyncio.create_task(desk.summaries.run(stop))
    desk.now += HOUR
    await desk.watch.until(lambda: desk.told())
    stop.set()
    await running
