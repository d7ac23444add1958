"""kill -9 under load: whatever was acknowledged arrives after the restart, and hardly anything twice.

RELAY_KILL_ROUNDS sets the number of rounds (5).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
from collections import Counter
from itertools import pairwise

import pytest

from tests.kit.house import JAN, PIET, Client, Site, free_port, mail
from tests.kit.process import Process
from tests.kit.upstream import Received, ScriptedUpstream

ROUNDS = int(os.environ.get("RELAY_KILL_ROUNDS", "5"))
CLIENTS = 4
CONNECTIONS = 3
SECONDS_TO_RECOVER = 10.0


class Ledger:
    """What the clients know: the numbers they were told 250 about."""

    def __init__(self) -> None:
        self.acknowledged = set[int]()
        self._next = 0
        self._changed = asyncio.Event()

    def number(self) -> int:
        self._next += 1
        return self._next

    def acknowledge(self, number: int) -> None:
        self.acknowledged.add(number)
        self._changed.set()

    async def until(self, count: int) -> None:
        while len(self.acknowledged) < count:
            self._changed.clear()
            await self._changed.wait()


def body(number: int) -> bytes:
    """Every tenth message is so large that it lies in a spool file."""
    size = 400_000 if number % 10 == 0 else 2_000
    return (b"%08d\r\n" % number) * (size // 10)


def number_of(received: Received) -> int:
    return int(received.content.partition(b"Subject: ")[2].partition(b"\r\n")[0])


async def send_until_the_end(port: int, ledger: Ledger) -> None:
    """One client: mail after mail, until the relay is gone."""
    try:
        async with Client.to(port) as client:
            while True:
                number = ledger.number()
                await client.begin(JAN, [PIET])
                client.write(mail(str(number), body=body(number)) + b".\r\n")
                if not (await client.reply()).startswith("250 "):
                    return
                ledger.acknowledge(number)
    except (OSError, AssertionError):
        return


async def everything_acknowledged_arrives(own: ScriptedUpstream, ledger: Ledger) -> None:
    async with asyncio.timeout(SECONDS_TO_RECOVER):
        await own.until(lambda: ledger.acknowledged <= {number_of(received) for received in own.messages})


def twice_only_what_was_in_flight(own: ScriptedUpstream, kills: list[int]) -> None:
    """A copy is allowed where the kill fell between the upstream's taking a message and our knowing it.

    `kills` holds how many messages had arrived at each kill. There is at most one such message for each connection, and
    it was among the last that had arrived.
    """
    places: dict[int, list[int]] = {}
    for place, received in enumerate(own.messages):
        places.setdefault(number_of(received), []).append(place)
    in_flight = Counter[int]()
    for copies in places.values():
        for first, second in pairwise(copies):
            kill = next(kill for kill in kills if first < kill)
            assert kill <= second
            assert kill - first <= 3 * CONNECTIONS
            in_flight[kill] += 1
    assert all(count <= CONNECTIONS for count in in_flight.values()), in_flight


@pytest.mark.asyncio
@pytest.mark.timeout(60 + 10 * ROUNDS)
async def test_kill_9_under_load_loses_nothing_that_was_acknowledged(site: Site) -> None:
    port = free_port()
    ledger = Ledger()
    chance = random.Random()
    async with site.upstream() as own:
        site.configure(
            upstreams={"own": site.way_to(own, max_connections=CONNECTIONS)},
            listeners=[{"name": "legacy", "listen": f"127.0.0.1:{port}"}],
            log={"format": "json"},
        )
        kills = list[int]()
        for _ in range(ROUNDS):
            async with Process.serving(site) as relay:
                clients = [asyncio.create_task(send_until_the_end(port, ledger)) for _ in range(CLIENTS)]
                async with asyncio.timeout(30):
                    await ledger.until(len(ledger.acknowledged) + chance.randint(1, 150))
                relay.signal(signal.SIGKILL)
                assert await relay.ended() == -signal.SIGKILL
                await asyncio.gather(*clients)
                await own.until(lambda: own.open == 0)
            kills.append(len(own.messages))
        async with Process.serving(site) as relay:
            await everything_acknowledged_arrives(own, ledger)
            found = int((await relay.line("found"))["text"].split()[0])
            if found:  # what was kept, but not acknowledged any more, is among them
                await relay.line("delivered", found)
            relay.signal(signal.SIGTERM)
            assert await relay.ended() == 0
            assert relay.all("exception") == []
        twice_only_what_was_in_flight(own, kills)

    for received in own.messages:
        assert received.content.endswith(b"\r\n\r\n" + body(number_of(received)))
    with sqlite3.connect(site.queue_path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM entry").fetchone() == (0,)
    database.close()
    assert [path for path in (site.folder / "queue.db.spool").rglob("*") if path.is_file()] == []


@pytest.mark.asyncio
async def test_kill_9_while_the_upstream_is_down_keeps_the_whole_queue(site: Site) -> None:
    port = free_port()
    ledger = Ledger()
    async with site.upstream() as own:
        await own.go_down()
        site.configure(
            upstreams={"own": site.way_to(own)},
            listeners=[{"name": "legacy", "listen": f"127.0.0.1:{port}"}],
            log={"format": "json"},
        )
        async with Process.serving(site) as relay:
            clients = [asyncio.create_task(send_until_the_end(port, ledger)) for _ in range(CLIENTS)]
            async with asyncio.timeout(30):
                await ledger.until(200)
            relay.signal(signal.SIGKILL)
            await relay.ended()
            await asyncio.gather(*clients)
        await own.come_back()
        async with Process.serving(site) as relay:
            await everything_acknowledged_arrives(own, ledger)
            found = await relay.line("found")
            assert found["text"].startswith(tuple(str(len(ledger.acknowledged) + more) for more in range(CLIENTS + 1)))
    assert max(Counter(number_of(received) for received in own.messages).values()) == 1
