"""EIO from the disk, wherever the relay writes: what was acknowledged arrives, and what was not, does not."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any

import pytest

from tests.kit.house import Site
from tests.scenarios.desk import reachable, relay
from tests.torture.faults import Faults
from tests.torture.machine import LARGE, SMALL, Machine

HEAVY = 240_000  # octets, in the database: a few dozen fill the log, so that it is copied to the database
PLACES = (
    ("sync", "*/queue.db-wal", SMALL),
    ("write", "*/queue.db-wal", SMALL),
    ("sync", "*/queue.db.spool/*", LARGE),
    ("write", "*/queue.db.spool/*", LARGE),
    ("open", "*/queue.db.spool/*.part", LARGE),
    ("rename", "*/queue.db.spool/*", LARGE),
    ("sync", "*/queue.db.spool", LARGE),
)


async def health_and_metric_tell(machine: Machine, before: float) -> float:
    assert await machine.page("/healthz") == (503, "the store cannot commit\n")
    now = await machine.metric('relay_queue_errors_total{reason="io"}')
    assert now > before
    return now


async def all_is_well_again(machine: Machine, faults: Faults, octets: int) -> None:
    faults.end()
    assert await machine.healthy()
    assert (await machine.offer(octets)).startswith("250 ")


async def status_tells(site: Site) -> None:
    await reachable(site)
    shown = await relay(site, "status")
    assert shown.code == 1
    assert "ERROR    The queue cannot be written, and new mail is refused for now: " in shown.out, shown.out


@pytest.mark.promise(
    "A disk that fails to write or to sync, anywhere, is answered with 451; health, metrics and status say so; when it "
    "works again the relay goes on by itself. What was acknowledged arrives, what was refused is not sent."
)
@pytest.mark.asyncio
async def test_a_disk_that_fails_is_answered_with_451_and_is_over_when_it_works_again(
    site: Site, faults: Faults, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    errors = 0.0
    async with site.upstream() as own, Machine.running(site, own, environment=faults.environment) as machine:
        for _ in range(size(1, 30)):
            for call, path, octets in PLACES:
                rule = faults.rule(call, path, errno.EIO)
                replies = await machine.offer_at_once(size(2, 8), octets)
                assert {reply[:9] for reply in replies} == {"451 4.3.0"}, (call, path)
                assert rule.hits
                errors = await health_and_metric_tell(machine, errors)
                await all_is_well_again(machine, faults, octets)
        rule = faults.rule(*PLACES[-1][:2], errno.EIO)
        await machine.offer(LARGE)
        await status_tells(site)
        faults.end()
        assert await machine.healthy()
        await machine.everything_acknowledged_arrives()
        assert machine.arrived.keys() == machine.ledger.acknowledged
    ledger = machine.ledger
    figures(
        f"{len(PLACES)} places; {len(ledger.acknowledged)} acknowledged, all arrived; "
        f"{ledger.refusals.total()} refused, none sent"
    )


@pytest.mark.promise(
    "When the log cannot be copied into the database because the disk fails there, the relay says so, refuses mail "
    "until it can, and loses none."
)
@pytest.mark.asyncio
async def test_a_database_that_cannot_be_written_is_told_although_the_log_still_can(
    site: Site, faults: Faults, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    errors = 0.0
    async with site.upstream() as own, Machine.running(site, own, environment=faults.environment) as machine:
        for _ in range(size(1, 10)):
            for call in ("write", "sync"):
                rule = faults.rule(call, "*/queue.db", errno.EIO)
                async with asyncio.timeout(60):
                    while not rule.hits:
                        await machine.offer_at_once(8, HEAVY)
                assert (await machine.offer()).startswith("451 4.3.0")
                errors = await health_and_metric_tell(machine, errors)
                await all_is_well_again(machine, faults, SMALL)
        await machine.everything_acknowledged_arrives()
        assert machine.arrived.keys() == machine.ledger.acknowledged
    figures(f"{len(machine.ledger.acknowledged)} acknowledged, all arrived")
