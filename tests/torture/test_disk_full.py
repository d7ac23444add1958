"""A full disk: nothing half-kept, everything acknowledged arrives, and on again by itself when there is room."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.kit.house import JAN, PATIENCE, PIET, Client, Site, mail
from tests.torture.machine import LARGE, SMALL, Machine
from tests.torture.volumes import MIB, ballast, needs_root, no_inodes, tmpfs

pytestmark = [needs_root, pytest.mark.asyncio]

CODES = {
    "session_codes": {
        "enabled": True,
        "via_own_smtp": True,
        "own": "own",
        "fallback": False,
        "match": [{"subject": "*sessiecode*"}],
    }
}


def files_of(site: Site) -> list[str]:
    """What lies in the spool."""
    return os.listdir(f"{site.queue_path}.spool")


async def spool_is_empty(site: Site) -> None:
    """Wait until the removals under way are done."""
    async with asyncio.timeout(60):
        while files_of(site):
            await asyncio.sleep(0.02)


@pytest.mark.promise(
    "Below min_free new mail hears 452 before the disk is full; when there is room again the relay goes on by itself."
)
async def test_mail_is_refused_before_the_disk_is_full(site: Site, figures: Callable[[str], None]) -> None:
    with tmpfs(site.folder / "disk", size=16 * MIB) as disk:
        site.queue_path = disk / "queue.db"
        async with site.upstream() as own, Machine.running(site, own, min_free="4MiB") as machine:
            assert (await machine.offer(LARGE)).startswith("250 ")
            await machine.everything_acknowledged_arrives()
            with ballast(disk, leave=3 * MIB):
                async with asyncio.timeout(60):  # the room is looked at once a second
                    while (await machine.offer()).startswith("250 "):
                        await asyncio.sleep(0.05)
                assert {reply[:9] for reply in await machine.offer_at_once(4)} == {"452 4.3.1"}
                assert await machine.healthy()  # what is in the queue can go
            await machine.accepts_again()
            await machine.everything_acknowledged_arrives()
            assert machine.arrived.keys() == machine.ledger.acknowledged
    figures(f"{machine.ledger.refusals.total()} heard 452; {len(machine.ledger.acknowledged)} arrived")


@pytest.mark.parametrize("lacking", ["room", "inodes"])
@pytest.mark.promise(
    "When the disk of the queue is full to the last octet, or no file can be made on it, mail hears 452, nothing of it "
    "stays, and everything acknowledged arrives; when there is room again the relay goes on by itself."
)
async def test_a_disk_that_is_full_keeps_nothing_and_loses_nothing(
    site: Site, size: Callable[..., Any], figures: Callable[[str], None], lacking: str
) -> None:
    def trouble() -> AbstractContextManager[None]:
        return ballast(disk) if lacking == "room" else no_inodes(disk)

    with tmpfs(site.folder / "disk", size=32 * MIB, inodes=size(100, 1000)) as disk:
        site.queue_path = disk / "queue.db"
        async with site.upstream() as own, Machine.running(site, own) as machine:
            own.script("rcpt", "450 4.2.0 later", times=None)  # so that mail is in the queue when the disk is full
            for _ in range(size(2, 30)):
                await machine.offer_at_once(4)
                await machine.offer(LARGE)
                with trouble():
                    replies = await machine.offer_many(size(20, 60), SMALL if lacking == "inodes" else 20_000)
                    large = await machine.offer_at_once(3, LARGE)
                    if lacking == "room":
                        assert replies[-1].startswith("452 4.3.1")
                        # What a batch that failed has left of the log may still hold a small one, and all is well.
                        async with asyncio.timeout(PATIENCE):
                            while (await machine.offer(20_000)).startswith("250 ") or await machine.healthy():
                                pass
                    assert {reply[:9] for reply in large} == {"452 4.3.1"}
                await machine.accepts_again(LARGE)
                await machine.accepts_again()
                assert await machine.healthy()
                own.unscript("rcpt")
                await machine.everything_acknowledged_arrives()
                own.script("rcpt", "450 4.2.0 later", times=None)
            assert machine.arrived.keys() == machine.ledger.acknowledged
            await spool_is_empty(site)
    ledger = machine.ledger
    assert {reply[:3] for reply in ledger.refusals} == {"452"}, ledger.refusals
    figures(f"{len(ledger.acknowledged)} acknowledged, all arrived; {ledger.refusals.total()} heard 452")


@pytest.mark.promise(
    "A disk that fills while mail comes from all sides: what heard 250 is delivered, what heard 452 is not."
)
async def test_a_disk_that_fills_and_empties_under_load_keeps_the_promise(
    site: Site, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    """Session codes are among it: after each the log is emptied, which needs room as well."""
    with tmpfs(site.folder / "disk", size=40 * MIB) as disk:
        site.queue_path = disk / "queue.db"
        async with site.upstream() as own, Machine.running(site, own, parts=CODES) as machine:
            over = False

            async def codes() -> None:
                while not over:
                    with contextlib.suppress(OSError, AssertionError):  # refused, or sent away for many refusals
                        async with Client.to(machine.port) as client:
                            while not over:
                                await client.send(JAN, [PIET], mail("0 uw sessiecode"))

            async def others(octets: int) -> None:
                while not over:
                    if not (await machine.offer(octets)).startswith("250 "):
                        await asyncio.sleep(0.01)  # as a patient client

            async with asyncio.TaskGroup() as group:
                for octets in (SMALL, 100_000, LARGE):
                    group.create_task(others(octets))
                group.create_task(codes())
                for _ in range(size(4, 60)):
                    refused = machine.ledger.refusals.total()
                    with ballast(disk):
                        async with asyncio.timeout(60):
                            while machine.ledger.refusals.total() < refused + 10:
                                await asyncio.sleep(0.02)
                    await machine.accepts_again(LARGE)
                over = True
            await machine.everything_acknowledged_arrives()
            arrived = machine.arrived
            del arrived[0]
            assert arrived.keys() == machine.ledger.acknowledged
    ledger = machine.ledger
    figures(f"{len(ledger.acknowledged)} acknowledged, all arrived; {dict(ledger.refusals)} refused, none sent")
