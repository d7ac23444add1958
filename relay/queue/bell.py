"""A bell: who puts or releases mail rings it, who looks for mail awaits it.

Edge-triggered, and no ring is lost: a listener remembers how many rings it has heard, looks for
work, and waits for one it has not heard. Any number may listen.
"""

from __future__ import annotations

import asyncio


class Bell:
    """Rung and awaited on one event loop.

    heard = bell.rings
    while True:
        ...  # look for work
        heard = await bell.wait(heard)
    """

    def __init__(self) -> None:
        self.rings = 0
        self._waiting: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        self.rings += 1
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for listener in waiting:
                if not listener.done():
                    listener.set_result(None)

    async def wait(self, heard: int) -> int:
        """Return the number of rings once it differs from `heard`; at once if it already does."""
        while self.rings == heard:
            listener: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(listener)
            try:
                await listener
            except asyncio.CancelledError:
                if listener in self._waiting:
                    self._waiting.remove(listener)
                raise
        return self.rings
