"""What is known about an upstream and lines of more than 998 octets: configured, or learnt and remembered.

What was learnt survives a restart and a reload, and is forgotten after 30 days: upstreams change.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from relay.errors import StoreUnavailable
from relay.queue.store import QueueStore

REMEMBERED = timedelta(days=30)
_TOPIC = "long-lines"


class LongLines:
    """Of one upstream. `always`: the configuration says `encode`."""

    def __init__(self, upstream: str, store: QueueStore, now: Callable[[], datetime], *, always: bool) -> None:
        self._upstream = upstream
        self._store = store
        self._now = now
        self._always = always
        self._recalled = False
        self._since: datetime | None = None

    async def encode(self) -> bool:
        """True when they are not to go as they are. Asks the store once."""
        if self._always:
            return True
        if not self._recalled:
            try:
                self._since = await self._store.recall(_TOPIC, self._upstream)
            except StoreUnavailable:
                return False  # and asked again
            self._recalled = True
        return self._since is not None and self._now() - self._since < REMEMBERED

    async def learn(self) -> None:
        """The upstream refused a message for its lines, and took it without them."""
        self._since, self._recalled = self._now(), True
        try:
            await self._store.remember(_TOPIC, self._upstream, self._since)
        except StoreUnavailable:
            pass  # until the end of this process it is known
