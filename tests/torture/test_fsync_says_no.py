"""A sync that failed proves nothing when it succeeds the second time (what PostgreSQL learned as "fsyncgate").

The kernel marks a page that it could not write as clean: the file reads as if it were written, and the next sync has
nothing to do. Here the power is cut after such a sync (`disk.cut_power`): what the disk never had is taken out of the
files.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import signal
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from tests.kit.house import Site
from tests.torture.disk import cut_power
from tests.torture.faults import Faults
from tests.torture.machine import SMALL, Ledger, Machine

LOG, DATABASE = "*/queue.db-wal", "*/queue.db"
HEAVY = 240_000


async def die(machine: Machine) -> None:
    machine.relay.signal(signal.SIGKILL)
    assert await machine.relay.ended() == -signal.SIGKILL


def sound(site: Site) -> bool:
    """The database is whole, with what its log holds."""
    with contextlib.closing(sqlite3.connect(site.queue_path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.promise(
    "What was acknowledged after a sync had failed survives a power cut that takes what was not synced."
)
@pytest.mark.asyncio
async def test_nothing_is_acknowledged_on_top_of_a_sync_that_failed(
    site: Site, faults: Faults, figures: Callable[[str], None]
) -> None:
    """The worst case: what the failed commit wrote is found in the log when it is opened anew, and cannot be copied.

    Nobody reads meanwhile, so SQLite has nothing but the log to go by; and the database has no room to grow.
    """
    async with site.upstream() as own:
        own.script("dot", "451 4.3.2 later", times=None)  # so that mail is in the queue
        async with Machine.running(site, own, environment=faults.logged) as machine:
            ledger = machine.ledger
            await machine.offer_many(3)
            unreadable = faults.rule("read", DATABASE + "*", errno.EIO)
            await machine.page("/metrics")  # who reads closes what it has open
            faults.rule("write", DATABASE, errno.ENOSPC)
            failing = faults.rule("sync", LOG, errno.EIO, times=1)
            assert not (await machine.offer()).startswith("250 ")
            assert failing.hits
            unreadable.end()
            await machine.offer_many(5)
            await die(machine)
            faults.end()
        taken = cut_power(faults.log, DATABASE + "*")
        own.unscript("dot")
        async with Machine.running(site, own, ledger=ledger) as machine:
            await machine.everything_acknowledged_arrives()
        assert sound(site)
    assert taken
    figures(f"{taken} octets that were never synced taken away; {len(ledger.acknowledged)} acknowledged, all arrived")


@pytest.mark.promise(
    "Syncs and writes fail at random places, and then the power is cut: everything acknowledged arrives, and the "
    "database is sound."
)
@pytest.mark.asyncio
async def test_what_was_acknowledged_survives_failing_syncs_and_a_power_cut(
    site: Site, faults: Faults, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    chance = random.Random()
    ledger, taken = Ledger(), 0
    async with site.upstream() as own:
        for _ in range(size(2, 100)):
            faults.log.write_text("")
            async with Machine.running(site, own, ledger=ledger, environment=faults.logged) as machine:
                for _ in range(chance.randint(1, 4)):
                    for _ in range(chance.randint(1, 3)):
                        faults.rule(
                            *chance.choice(
                                [("sync", LOG), ("write", LOG), ("sync", DATABASE), ("read", DATABASE + "*")]
                            ),
                            chance.choice([errno.EIO, errno.EIO, errno.ENOSPC]),
                            skip=chance.randint(0, 5),
                            times=chance.randint(1, 3),
                        )
                    octets = chance.choice([SMALL, HEAVY])
                    await asyncio.gather(*(machine.offer_many(chance.randint(1, 6), octets) for _ in range(4)))
                    faults.end()
                await die(machine)
            taken += cut_power(faults.log, DATABASE + "*")
            assert sound(site)
        async with Machine.running(site, own, ledger=ledger) as machine:
            await machine.everything_acknowledged_arrives()
    figures(
        f"{len(ledger.acknowledged)} acknowledged, all arrived; {ledger.refusals.total()} refused; "
        f"{taken} octets that were never synced taken away"
    )
