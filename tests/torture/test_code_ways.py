"""A session code goes by one way, the vendor's endpoint or the own server, and never by both: also after SIGKILL."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from tests.kit.endpoint import Asked, Endpoint
from tests.kit.house import PIET, Site
from tests.kit.upstream import Received, ScriptedUpstream
from tests.torture.conftest import LONG
from tests.torture.nursery import Nursery
from tests.torture.points import WAYS
from tests.torture.traffic import CLIENTS, Books, endless, faults, send, waiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

SOME = ("the other way is ready", "the change of way is written and not committed", "the other way wants the content")
BEFORE_THE_ANSWER = "the other way has the code, dot and all, and has not answered"
"""Here it is the upstream that kills."""


class Ways:
    """A vendor whose `mood` says whether it wants a code now, and the own server; what each of them took, by number."""

    def __init__(self, site: Site, own: ScriptedUpstream) -> None:
        self.vendor = Endpoint(site.certificates.good)
        self.own = own
        self.books = Books(site.folder)
        self.taken: dict[str, Counter[int]] = {"vendor": Counter(), "own": Counter()}
        self.mood: Callable[[], bool] = lambda: True
        self.content_there: Callable[[], None] = lambda: None
        self.vendor.always(self._judge)
        own.content_allowed = self._arrives
        self.door = site.folder / "door"
        site.configure(
            upstreams={
                "own": site.way_to(own),
                "vendor": {
                    "type": "https",
                    "url": self.vendor.url,
                    "format": "mime",
                    "auth": "none",
                    "tls_ca": site.certificates.ca_path,
                },
            },
            listeners=[{"name": "legacy", "listen": f"unix:{self.door}"}],
            routes={"default": {"retry": "1s"}, "session-codes": {"retry": "1s"}},
            session_codes={"enabled": True, "match": [{"subject": "Factuur *"}]},
            log={"format": "json"},
        )

    @classmethod
    @asynccontextmanager
    async def of(cls, site: Site) -> AsyncIterator[Ways]:
        async with site.upstream(tls="none", users=None) as own:
            ways = cls(site, own)
            async with ways.vendor:
                yield ways
            ways.books.close()

    async def _judge(self, _: web.Request) -> web.StreamResponse:
        if not self.mood():
            return web.Response(status=503)
        asked: Asked = self.vendor.requests[-1]
        self._note("vendor", Received("noreply@example.nl", (PIET,), asked.body))
        return web.Response(status=202)

    def _arrives(self, received: Received) -> str | None:
        self._note("own", received)
        self.content_there()
        return None

    def _note(self, way: str, received: Received) -> None:
        self.books.arrive(received)
        self.taken[way][self.books.arrivals[-1].number] += 1

    @property
    def by_both(self) -> set[int]:
        return self.taken["vendor"].keys() & self.taken["own"].keys()


@pytest.mark.promise("Wherever a relay dies while a session code changes its way, the code arrives, by one way only.")
@pytest.mark.parametrize("point", [*(WAYS if LONG else SOME), BEFORE_THE_ANSWER])
async def test_a_code_goes_by_one_way_after_sigkill_when(
    point: str, quick_site: Site, nursery: Nursery, figures: Callable[[str], None]
) -> None:
    async with Ways.of(quick_site) as ways:
        ways.mood = lambda: False
        relay = nursery.birth(quick_site, point="" if point == BEFORE_THE_ANSWER else point)
        if point == BEFORE_THE_ANSWER:
            ways.content_there = lambda: relay.signal(signal.SIGKILL)
        assert await relay.started(), relay.lines
        await send(ways.door, ways.books, [1])
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
    async with Ways.of(quick_site) as ways:
        ways.own.script("rcpt", lambda _: "450 4.2.0 later" if chance.random() < 0.2 else None, times=None)
        ways.mood = lambda: chance.random() < 0.5
        for _ in range(rounds):
            relay = nursery.birth(quick_site)
            assert await relay.started(), relay.lines
            clients = [asyncio.create_task(send(ways.door, ways.books, endless(ways.books))) for _ in range(CLIENTS)]
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
