"""A slow disk: each sync takes two seconds. Sessions wait, and share a commit; nothing else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.kit.house import Site
from tests.torture.faults import Faults
from tests.torture.machine import LARGE, Machine

pytestmark = pytest.mark.asyncio


@pytest.mark.promise(
    "With a disk that takes two seconds for a sync, sessions wait for their 250 and many share a commit; health "
    "answers, the event loop stays free, and nothing is refused or lost."
)
async def test_sessions_wait_for_a_slow_disk_and_share_its_syncs(
    site: Site, faults: Faults, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    sessions = size(60, 400)
    async with site.upstream() as own, Machine.running(site, own, environment=faults.environment) as machine:
        assert await machine.healthy()
        before = await machine.metric("relay_queue_commit_seconds_count")
        slow = faults.rule("sync", "*/queue.db*", delay=timedelta(seconds=2))
        offering = asyncio.gather(machine.offer_at_once(sessions), machine.offer_at_once(2, LARGE))
        looks = 0
        while not offering.done():
            assert await machine.healthy()
            looks += 1
        small, large = await offering
        assert {reply[:4] for reply in small + large} == {"250 "}
        commits = await machine.metric("relay_queue_commit_seconds_count") - before
        assert commits < sessions / 4
        turns, in_time = await machine.metrics(
            *(f'relay_event_loop_lag_seconds_bucket{{le="{le}"}}' for le in ("+Inf", "1.0"))
        )
        assert turns == in_time  # no turn of the loop waited for a sync
        faults.end()
        await machine.everything_acknowledged_arrives()
        assert machine.relay.all("exception") == []
    figures(f"{sessions} sessions in {commits:.0f} commits, {slow.hits} syncs of 2 s; /healthz was well {looks} times")
