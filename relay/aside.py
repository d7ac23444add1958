"""Work that would keep everybody waiting is done aside, on threads that do nothing else.

    decision = judge(view, policy) if not takes_long(view, policy) else await aside(judge, view, policy)

Whoever hands in mail that is made to be hard waits for it, and for others who did the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = ThreadPoolExecutor(2, "aside")


async def aside(work: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
    """What `work` returns; it touches nothing that the loop may touch meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, lambda: work(*arguments, **more))
