"""The SQLite store keeps the promises of the seam."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from relay.events import BatchCommitted
from relay.queue.model import Ledger
from tests.queue.conformance import StorePromises, laws
from tests.queue.house import SqliteHouse
from tests.queue.mail import an_entry, ended
from tests.queue.operators import OperatorPromises


async def _build() -> SqliteHouse:
    house = SqliteHouse()
    await house.open()
    return house


class TestSqlitePromises(StorePromises):
    """With the fixture `house` of this folder."""


class TestSqlitePromisesToOperators(OperatorPromises):
    """With the same."""


TestSqliteLaws = laws(_build).TestCase


def test_the_store_works_on_uvloop_as_well(tmp_path: Path) -> None:
    async def walk() -> Ledger:
        house = SqliteHouse(tmp_path / "house")
        store = await house.open()
        leases = await asyncio.gather(*(store.put(an_entry(), leased=True) for _ in range(40)))
        await asyncio.gather(*(store.settle(ended(lease)) for lease in leases))
        await house.demolish()
        return store.ledger

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(walk()) == Ledger(accepted=40, delivered=40)


def test_a_route_whose_name_has_a_nul_is_seen_as_well(tmp_path: Path) -> None:
    async def look() -> list[str]:
        house = SqliteHouse(tmp_path / "house")
        store = await house.open()
        for route in ("a", "a\0", "ab"):
            await store.put(an_entry(route=route), leased=False)
        found = await store.routes()
        await house.demolish()
        return sorted(found)

    assert asyncio.run(look()) == ["a", "a\0", "ab"]


def test_looking_for_what_expired_in_an_empty_queue_costs_no_commit(tmp_path: Path) -> None:
    async def look() -> list[object]:
        house = SqliteHouse(tmp_path / "house")
        store = await house.open()
        found = await store.lease_expired("default", limit=10, now=datetime.now(UTC))
        await house.demolish()
        assert found == []
        return [event for event in house.noted.events if isinstance(event, BatchCommitted)]

    assert asyncio.run(look()) == []
