"""The lag of the event loop is what a timer of 100 ms takes beyond 100 ms."""

from __future__ import annotations

import asyncio
import time

import pytest

from relay.observe import lag


@pytest.mark.asyncio
async def test_a_loop_that_is_held_up_shows_it() -> None:
    measured: asyncio.Queue[float] = asyncio.Queue()
    task = asyncio.create_task(lag.measure(measured.put_nowait))
    async with asyncio.timeout(60):
        await measured.get()
        await asyncio.sleep(0)  # the next period has begun
        time.sleep(lag.PERIOD + 0.15)  # a call that blocks is what it is there to find
        assert await measured.get() >= 0.15
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
