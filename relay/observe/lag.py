"""How late the event loop is: a timer of 100 ms, and how much longer it took."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PERIOD = 0.1
"""Seconds."""


async def measure(observe_lag: Callable[[float], object]) -> None:
    """Hand the lag of each period, in seconds, to `observe_lag`, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        await asyncio.sleep(PERIOD)
        observe_lag(max(0.0, loop.time() - started - PERIOD))
