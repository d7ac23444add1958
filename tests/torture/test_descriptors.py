"""File descriptors run out: the listener lives, nothing spins, nothing is lost, and all is well when they come back."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit.house import Site
from tests.torture.machine import LARGE, Machine

pytestmark = pytest.mark.asyncio

SPARE = 12  # descriptors that are left for connections


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _abort(writer: asyncio.StreamWriter) -> None:
    # The writer is kept up to here: from Python 3.11.5 on it closes the connection when nobody has it any more.
    writer.transport.abort()


@asynccontextmanager
async def connections(port: int, count: int) -> AsyncIterator[None]:
    """So many clients that say nothing."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(_abort, writer)
        yield


@pytest.mark.promise(
    "When the process has no file descriptor left, new clients wait or are sent away, no mail is lost, the relay does "
    "not spin; when connections go, it takes mail again, by itself."
)
async def test_the_listener_outlives_a_lack_of_file_descriptors(
    site: Site, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    async with site.upstream() as own, Machine.running(site, own) as machine:
        pid = machine.relay.pid
        assert await machine.healthy()
        for octets in (LARGE, 2_000):
            assert (await machine.offer(octets)).startswith("250 ")
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        for _ in range(size(2, 50)):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid) + SPARE, hard))
            async with connections(machine.port, 4 * SPARE):
                async with asyncio.timeout(60):
                    while descriptors(pid) < resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] - 1:
                        await asyncio.sleep(0.02)
                begun, used = asyncio.get_running_loop().time(), processor_seconds(pid)
                offers = [asyncio.create_task(machine.offer(octets)) for octets in (LARGE, 2_000) * 5]
                await asyncio.sleep(2)  # what is measured is that little happens
                elapsed = asyncio.get_running_loop().time() - begun
                share = (processor_seconds(pid) - used) / elapsed
                assert share < 0.5, f"{share:.0%} of a processor"
            await asyncio.gather(*offers)
            await machine.accepts_again(LARGE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
            await machine.accepts_again()
            assert await machine.healthy()
        await machine.everything_acknowledged_arrives()
        assert machine.arrived.keys() == machine.ledger.acknowledged
        assert machine.relay.all("exception") == []
    ledger = machine.ledger
    figures(
        f"{len(ledger.acknowledged)} acknowledged, all arrived; refused or cut off: {dict(ledger.refusals)}; "
        f"{share:.0%} of a processor meanwhile"
    )
