"""Whether the wall clock can be believed: after a jump forward by more than an hour, expiry waits; after one back,
what waits for a time that is far away again is tried at once."""

from __future__ import annotations

import time
from collections.abc import Callable

JUMP = 3600.0
DIGESTED_AFTER = 900.0
BACK = 60.0


class Steady:
    """Call it often; True unless the wall clock leapt past the monotonic one within the last 15 minutes."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()
        self._until = float("-inf")

    def __call__(self) -> bool:
        now = self._monotonic()
        offset = self._wall() - now
        if offset - self._offset > JUMP:
            self._until = now + DIGESTED_AFTER
        self._offset = offset
        return now >= self._until


class WentBack:
    """Call it often; True once for each time that the wall clock went back by more than a minute."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def __call__(self) -> bool:
        before, self._offset = self._offset, self._wall() - self._monotonic()
        return before - self._offset > BACK
