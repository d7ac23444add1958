"""SIGKILL at the n-th system call that writes, syncs or names something, for every n of a short run.

strace is attached to the relay before it does anything, and kills it as it enters that call. It counts the calls of
each thread for itself: the thread that is first at its n-th dies, and the relay with it.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from tests.kit.house import PATIENCE, Site
from tests.torture.nursery import Nursery, Relay
from tests.torture.traffic import Books, faults, send, twice, waiting

CALLS = ("pwrite64", "fdatasync", "fsync", "write", "ftruncate", "renameat", "unlink", "unlinkat", "mkdir")
# For the short form: a spread.
SOME = (("pwrite64", 25), ("fdatasync", 9), ("fsync", 2), ("write", 20), ("renameat", 1))
CONNECTIONS = 2

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is needed to kill at a system call")


@dataclass(slots=True)
class Seen:
    kills: int = 0
    survived: int = 0
    acknowledged: int = 0
    twice: int = 0


@asynccontextmanager
async def traced(relay: Relay, call: str, number: int) -> AsyncIterator[None]:
    """The relay, which waits, goes on with strace behind it."""
    process = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-p", str(await relay.born()), "-o", "/dev/null"),
        *("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            said = await process.stderr.readline()
        if b"not permitted" in said:
            pytest.skip("strace may not be attached to a process here")
        assert b"attached" in said, said
        relay.signal(signal.SIGUSR1)
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def life(site: Site, nursery: Nursery, call: str, number: int, seen: Seen) -> bool:
    """A short run that ends at that call; the next relay finishes it. False when it never came to the call."""
    books, door = Books(site.folder), site.folder / "door"
    async with site.upstream(tls="none", users=None) as own:
        own.content_allowed = books.arrive
        site.configure(
            upstreams={"own": site.way_to(own, max_connections=CONNECTIONS)},
            listeners=[{"name": "legacy", "listen": f"unix:{door}"}],
            log={"format": "json"},
        )
        relay = nursery.birth(site, waits=True, hasty=True)
        async with traced(relay, call, number):
            if await relay.started():
                numbers = iter(range(5, 11))  # the last one is large
                await asyncio.gather(*(send(door, books, numbers) for _ in range(2)))
                relay.signal(signal.SIGTERM)
            code = await relay.ended()
        assert code in (0, -signal.SIGKILL)
        await own.until(lambda: own.open == 0)
        acknowledged = len(books.acknowledged)
        kill = len(books.arrivals), {line["queue_id"] for line in relay.all("delivered")}
        relay = nursery.birth(site)
        assert await relay.started(), relay.lines
        await relay.until(lambda: waiting(site.queue_path), set())
        await relay.stop()
    books.close()
    assert books.acknowledged.keys() <= books.arrived()
    assert all(arrival.whole for arrival in books.arrivals)
    copies = twice(books.arrivals, [kill]).total()
    assert copies <= CONNECTIONS
    assert faults(site.queue_path) == []
    seen.kills += code != 0
    seen.survived += code == 0
    seen.acknowledged += acknowledged
    seen.twice += copies
    return code != 0


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.promise("Whichever call to the system is the last of a relay, what was acknowledged arrives.")
async def test_what_was_acknowledged_survives_sigkill_at_any_system_call(
    quick_site: Site, nursery: Nursery, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    seen, last = Seen(), dict.fromkeys(CALLS, 0)
    for call, number in size(SOME, [(call, 0) for call in CALLS]):
        for n in [number] if number else count(1):
            folder = quick_site.folder / f"{call}-{n}"
            folder.mkdir()
            try:
                died = await life(Site(folder, quick_site.certificates), nursery, call, n, seen)
            except AssertionError as error:
                raise AssertionError(f"killed at {call} {n}: {error}") from error
            shutil.rmtree(folder)
            if not died:
                break
            last[call] = n
    assert seen.kills >= len(size(SOME, CALLS))
    figures(
        f"{seen.kills} kills ({', '.join(f'{call} 1–{n}' for call, n in last.items() if n)}); "
        f"{seen.acknowledged} messages acknowledged, all arrived; {seen.twice} came twice"
    )
