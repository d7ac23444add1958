"""A session code goes by one way, the vendor's endpoint or the own server, and never by both: also after SIGKILL."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.kit.house import Site
from tests.torture.conftest import LONG
from tests.torture.nursery import Nursery
from tests.torture.points import WAYS
from tests.torture.traffic import CLIENTS, endless, faults, send, waiting
from tests.torture.ways import Ways

pytestmark = pytest.mark.asyncio(loop_scope="session")

SOME = ("the other way is ready", "the change of way is written and not committed", "the other way wants the content")
BEFORE_THE_ANSWER = "the other way has the code, dot and all, and has not answered"
"""Here it is the upstream that kills."""


@asynccontextmanager
async def ways_of(site: Site) -> AsyncIterator[tuple[Ways, Path]]:
    """All mail is a session code; the door that it comes by."""
    door = site.folder / "door"
    async with Ways.of(
        site,
        listeners=[{"name": "legacy", "listen": f"unix:{door}"}],
        session_codes={"enabled": True, "match": [{"subject": "Factuur *"}]},
    ) as ways:
        yield ways, door


@pytest.mark.promise("Wherever a relay dies while a session code changes its way, the code arrives, by one way only.")
@pytest.mark.parametrize("point", [*(WAYS if LONG else SOME), BEFORE_THE_ANSWER])
async def test_a_code_goes_by_one_way_after_sigkill_when(
    point: str, quick_site: Site, nursery: Nursery, figures: Callable[[str], None]
) -> None:
    async with ways_of(quick_site) as (ways, door):
        ways.mood = lambda: False
        relay = nursery.birth(quick_site, point="" if point == BEFORE_THE_ANSWER else point)
        if point == BEFORE_THE_ANSWER:
            ways.content_there = lambda: relay.signal(signal.SIGKILL)
        assert await relay.started(), relay.lines
        await send(door, ways.books, [1])
        assert await relay.ended() == -signal.SIGKILL
        await ways.own.until(lambda: ways.own.open == 0)
        ways.mood, ways.content_there = lambda: True, lambda: None
        relay = nursery.birth(quick_site)
        assert await relay.started(), relay.lines
        await relay.until(partial(waiting, quick_site.queue_path), set())
        await relay.stop()
        taken = {way: taken.total() for way, taken in ways.taken.items() if taken}
        assert len(taken) == 1, taken
        ((way, times),) = taken.items()
    figures(f"by {way}, {times} times" if times > 1 else f"by {way}, once")


@pytest.mark.promise(
    "Session codes of a relay that is killed under load (SIGKILL) all arrive, none of them by both ways."
)
async def test_no_code_goes_by_both_ways_after_sigkill_at_random_moments_under_load(
    quick_site: Site, nursery: Nursery, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    rounds = size(4, 100)
    chance = random.Random()
    async with ways_of(quick_site) as (ways, door):
        ways.own.script("rcpt", lambda _: "450 4.2.0 later" if chance.random() < 0.2 else None, times=None)
        ways.mood = lambda: chance.random() < 0.5
        for _ in range(rounds):
            relay = nursery.birth(quick_site)
            assert await relay.started(), relay.lines
            clients = [asyncio.create_task(send(door, ways.books, endless(ways.books))) for _ in range(CLIENTS)]
            await ways.books.until(partial(ways.books.many, len(ways.books.acknowledged) + chance.randint(1, 40)))
            await relay.kill()
            await asyncio.gather(*clients)
            await ways.own.until(lambda: ways.own.open == 0)
        ways.mood = lambda: True
        ways.own.unscript("rcpt")
        relay = nursery.birth(quick_site)
        assert await relay.started(), relay.lines
        await ways.books.until(lambda: ways.books.acknowledged.keys() <= ways.books.arrived())
        await relay.until(partial(waiting, quick_site.queue_path), set())
        await relay.stop()
        assert ways.by_both == set()
        assert faults(quick_site.queue_path) == []
        by = {way: len(taken) for way, taken in ways.taken.items()}
        twice = sum(times > 1 for taken in ways.taken.values() for times in taken.values())
    figures(
        f"{rounds} kills, {len(ways.books.acknowledged)} acknowledged, all arrived: {by['vendor']} by the vendor, "
        f"{by['own']} by the own server, none by both; {twice} came twice by their way"
    )
