"""A ring is heard by everybody who listens, and none is lost."""

from __future__ import annotations

import asyncio

import pytest

from relay.queue.bell import Bell


@pytest.mark.asyncio
async def test_a_ring_between_looking_and_waiting_is_not_lost() -> None:
    bell = Bell()
    heard = bell.rings
    bell.ring()
    async with asyncio.timeout(60):
        assert await bell.wait(heard) == 1


@pytest.mark.asyncio
async def test_everybody_who_waits_hears_it_once() -> None:
    bell = Bell()
    listeners = [asyncio.ensure_future(bell.wait(0)) for _ in range(3)]
    await asyncio.sleep(0)
    listeners[0].cancel()
    bell.ring()
    bell.ring()
    async with asyncio.timeout(60):
        assert await asyncio.gather(*listeners[1:]) == [2, 2]
    again = asyncio.ensure_future(bell.wait(2))
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()
    with pytest.raises(asyncio.CancelledError):
        await again
    bell.ring()
    assert bell.rings == 3
