"""SIGKILL at random moments under load."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.kit.house import Site
from tests.kit.upstream import KEYWORDS, ScriptedUpstream
from tests.torture.faults import Faults
from tests.torture.nursery import Nursery
from tests.torture.traffic import CLIENTS, Books, endless, faults, send, twice, waiting

CONNECTIONS = 3


def at_the_door(site: Site, own: ScriptedUpstream, **listener: str) -> Path:
    """The configuration; the socket that leads in."""
    door = site.folder / "door"
    site.configure(
        upstreams={"own": site.way_to(own, max_connections=CONNECTIONS)},
        listeners=[{"name": "legacy", "listen": f"unix:{door}", **listener}],
        log={"format": "json"},
    )
    return door


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.promise("A relay that is killed under load (SIGKILL) loses no message that it had acknowledged.")
@pytest.mark.parametrize("way", ["queued", "direct", "chunked"])
async def test_what_was_acknowledged_survives_sigkill_at_random_moments_under_load(
    way: str, quick_site: Site, nursery: Nursery, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    """As ever, with `reply: direct` (the client waits for the upstream's reply), and to an upstream that offers
    CHUNKING (envelope and message go in one write)."""
    direct = way == "direct"
    keywords = (*KEYWORDS, "CHUNKING") if way == "chunked" else KEYWORDS
    rounds = size(3, 70)
    chance = random.Random()
    books = Books(quick_site.folder)
    kills: list[tuple[int, set[str]]] = []
    async with quick_site.upstream(tls="none", users=None, keywords=keywords) as own:
        own.content_allowed = books.arrive
        door = at_the_door(quick_site, own, **({"reply": "direct", "patience": "1s"} if direct else {}))
        for _ in range(rounds):
            relay = nursery.birth(quick_site)
            assert await relay.started(), relay.lines
            clients = [asyncio.create_task(send(door, books, endless(books))) for _ in range(CLIENTS)]
            enough = len(books.acknowledged) + chance.randint(1, 40)
            await books.until(partial(books.many, enough))
            await relay.kill()
            await asyncio.gather(*clients)
            await own.until(lambda: own.open == 0)
            kills.append((len(books.arrivals), {line["queue_id"] for line in relay.all("delivered")}))
        relay = nursery.birth(quick_site)
        assert await relay.started(), relay.lines
        await books.until(lambda: books.acknowledged.keys() <= books.arrived())
        await relay.until(
            lambda: waiting(quick_site.queue_path), set()
        )  # also what was kept, and not acknowledged any more
        await relay.stop()
    books.close()
    assert any(command.startswith("BDAT") for command in own.commands) == (way == "chunked")
    copies = twice(books.arrivals, kills)
    relayed = sum("relayed as" in one.reply for one in books.acknowledged.values())
    assert relayed > len(books.acknowledged) / 2 if direct else relayed == 0
    assert all(arrival.whole for arrival in books.arrivals)
    assert all(copies[kill] <= CONNECTIONS for kill in copies), copies
    assert faults(quick_site.queue_path) == []
    figures(
        f"{rounds} kills, {len(books.acknowledged)} messages acknowledged, all arrived; "
        f"{copies.total()} came twice (at most {max(copies.values(), default=0)} at one kill over {CONNECTIONS} "
        "connections), none of them settled before the kill; the database is whole, no spool file is left"
    )


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.promise("A relay that is killed while its upstream is down keeps the whole queue, and sends it once.")
async def test_a_relay_killed_while_the_upstream_is_down_keeps_the_whole_queue(
    quick_site: Site, nursery: Nursery, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    wanted = size(60, 2000)
    books = Books(quick_site.folder)
    async with quick_site.upstream(tls="none", users=None) as own:
        own.content_allowed = books.arrive
        await own.go_down()
        door = at_the_door(quick_site, own)
        relay = nursery.birth(quick_site)
        assert await relay.started(), relay.lines
        clients = [asyncio.create_task(send(door, books, endless(books))) for _ in range(CLIENTS)]
        await books.until(partial(books.many, wanted))
        await relay.kill()
        await asyncio.gather(*clients)
        await own.come_back()
        relay = nursery.birth(quick_site)
        assert await relay.started(), relay.lines
        await books.until(lambda: books.acknowledged.keys() <= books.arrived())
        found = await relay.line("found")
        assert found is not None
        waited = int(found["text"].split()[0])
        await relay.until(lambda: waiting(quick_site.queue_path), set())
        await relay.stop()
    books.close()
    assert 0 <= waited - len(books.acknowledged) <= CLIENTS  # kept, and killed before the 250
    assert twice(books.arrivals, []).total() == 0
    assert faults(quick_site.queue_path) == []
    figures(f"{len(books.acknowledged)} acknowledged, {waited} found after the kill, each arrived once")


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.promise(
    "A relay that is killed while its disk is slow repeats at most two messages of each connection, however many "
    "routes lead there."
)
async def test_a_kill_on_a_slow_disk_repeats_two_messages_of_a_connection_at_most(
    site: Site, faults: Faults, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    routes = [f"route-{number}" for number in range(size(6, 30))]
    books = Books(site.folder)
    async with site.upstream(tls="none", users=None) as own, Nursery.open(faults.environment) as nursery:
        own.content_allowed = books.arrive
        site.configure(
            upstreams={"own": site.way_to(own, max_connections=1)},
            listeners=[{"name": name, "listen": f"unix:{site.folder / name}"} for name in routes],
            routes={name: {"retry": "1s"} for name in ("default", *routes)},
            senders=[{"match": {"listener": name}, "keep": True, "route": name} for name in routes],
            log={"format": "json"},
        )
        relay = nursery.birth(site)
        assert await relay.started(), relay.lines
        slow = faults.rule("sync", "*/queue.db*", delay=timedelta(milliseconds=300))
        clients = [asyncio.create_task(send(site.folder / name, books, [books.next()])) for name in routes]
        await books.until(lambda: len(books.arrivals) == len(routes))
        await relay.kill()
        await asyncio.gather(*clients)
        slow.end()
        await own.until(lambda: own.open == 0)
        kill = len(books.arrivals), {line["queue_id"] for line in relay.all("delivered")}
        relay = nursery.birth(site)
        assert await relay.started(), relay.lines
        await books.until(lambda: not books.missing())
        await relay.until(lambda: waiting(site.queue_path), set())
        await relay.stop()
    books.close()
    copies = twice(books.arrivals, [kill]).total()
    assert copies <= 2
    figures(f"{len(routes)} routes, one connection, 0.3 s for a sync: {copies} of {kill[0]} messages came twice")
