"""A place among the connections of an upstream, lent to a command that looks there meanwhile (`relay doctor`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relay.delivery.upstream import Upstream

PATIENCE = 5.0  # seconds until a place is free


@asynccontextmanager
async def lent(upstream: Upstream) -> AsyncIterator[bool]:
    """For the block one connection fewer carries mail, and somebody else may open one; False: all were busy.

    What lies idle is closed first: it counts at the other end.
    """
    places, borrower = upstream.places, object()
    deadline = asyncio.get_running_loop().time() + PATIENCE
    there = places.take_now(session_code=False) or await places.wait_for_one(borrower, 0, deadline, session_code=False)
    if not there:
        yield False
        return
    try:
        await places.make_room(borrower)
        yield True
    finally:
        places.leave()
