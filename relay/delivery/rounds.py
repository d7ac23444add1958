"""What is looked at again and again, beside the mail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress


async def rounds(look: Callable[[], Awaitable[None]], stop: asyncio.Event, every: float) -> None:
    """Look at once, and then with `every` seconds between two looks, until `stop`."""
    while not stop.is_set():
        await look()
        with suppress(TimeoutError):
            async with asyncio.timeout(every):
                await stop.wait()
