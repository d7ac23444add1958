"""A connection that lies ready for session codes: past TLS and AUTH, before anybody needs it.

It is opened at the start, and again when it was taken or lost. Against servers that close what is silent it says NOOP
from time to time, more often where they are known to be less patient; and since some count NOOPs, it is replaced after
fifty. A failure to open it is like any failed connect, but the first is doubted: no mail suffers from it yet.
Where the login was refused nothing is tried until mail does, or a person changed something.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from relay.policy.retry import Schedule

if TYPE_CHECKING:
    from relay.delivery.pool import Idle
    from relay.delivery.upstream import Upstream

SILENCE = 50.0  # seconds between two NOOPs
SHARE = 0.7  # of the silence after which the other end is known to have closed a connection
NOOPS = 50
COMES_BACK = 0.5  # seconds that one which is in use gets to come back before another is opened
NO_PLACE = 5.0  # seconds until it is looked again for a place, where others of the account have them all
PAUSES = Schedule(
    (timedelta(seconds=5), timedelta(seconds=15), timedelta(minutes=1), timedelta(minutes=5)), timedelta.max
)


class Warm:
    """Keeps one idle connection of `upstream`, while it runs."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._loop = asyncio.get_running_loop()
        self._failures = 0
        self._not_before = float("-inf")

    async def run(self) -> None:
        """Until the upstream is closed."""
        bell = self._upstream.bell
        while not self._upstream.closed:
            heard = bell.rings
            pause = await self._look()
            try:
                async with asyncio.timeout(pause):
                    await bell.wait(heard)
            except TimeoutError:
                pass

    async def _look(self) -> float | None:
        """Do what is to be done; seconds until something may be to be done again, None: when something happens."""
        upstream = self._upstream
        if not upstream.up and (upstream.health.refuses_login or not upstream.health.mends_by_connecting):
            return None
        idle = upstream.pool.idle
        if upstream.up and idle:
            self._failures = 0
            self._not_before = self._loop.time() + COMES_BACK
            return await self._refresh(idle[-1])
        now = self._loop.time()
        pause = max(self._not_before - now, upstream.opens_in)
        if pause > 0:
            return pause
        opened = await upstream.open_one(PAUSES, doubted=self._failures == 0)
        if opened is None:
            self._not_before = self._loop.time() + NO_PLACE
        elif opened:
            self._failures = 0
        else:
            self._failures += 1
            self._not_before = self._loop.time() + PAUSES.interval(self._failures).total_seconds()
        return 0.0

    async def _refresh(self, one: Idle) -> float | None:
        upstream = self._upstream
        after = min(SILENCE, SHARE * upstream.silence)
        left = one.touched + after - self._loop.time()
        if left > 0:
            return left
        if one.refreshed >= NOOPS:
            await upstream.open_one(PAUSES, doubted=True)
            if one in upstream.pool.idle:
                upstream.pool.say_goodbye(one)
        else:
            await upstream.pool.refresh(one)
        return 0.0
