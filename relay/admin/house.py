"""What requests are made of: the running house, seen from its operator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from relay.admin.snapshot import Snapshot, WayTried
from relay.observe.clients import ClientSeen
from relay.queue.store import QueueStore


class House(Protocol):
    """What is asked: the running relay (the daemon is one), or what stands for it where none runs."""

    @property
    def running(self) -> bool:
        """Whether mail goes on by itself; else what is wished for is carried out when a relay starts."""
        ...

    @property
    def store(self) -> QueueStore: ...

    @property
    def routes(self) -> Iterable[str]:
        """The names of the routes there are now."""
        ...

    @property
    def upstreams(self) -> Iterable[str]:
        """The names of the upstreams there are now."""
        ...

    def lend(self, upstream: str) -> AbstractAsyncContextManager[bool]:
        """A place among the connections of an upstream, for a block; False: all are busy."""
        ...

    def opens_at(self, route: str) -> datetime | None:
        """Until when the upstreams of a route hold back what waits there; None: they do not, or are being tried now."""
        ...

    async def senders_changed(self) -> None:
        """What the store remembers of senders is not what it was. Raises StoreUnavailable."""
        ...

    async def reload(self) -> tuple[str, ...]:
        """Read the configuration anew and apply it; the keys whose change waits for a restart.

        Raises BadConfig, and changes nothing, when the file is bad.
        """
        ...

    async def snapshot(self) -> Snapshot:
        """The relay as it is now. When the queue cannot be read, there are no routes, and a trouble says so."""
        ...

    async def try_alarms(self) -> Sequence[WayTried]:
        """Send a test by every way that alarms leave by."""
        ...

    def clients(self) -> Sequence[ClientSeen]:
        """Who sent mail since the start, the latest first."""
        ...

    def try_now(self) -> None:
        """As `wake`; and a person wants mail tried, so upstreams that are set aside are asked again at once."""
        ...

    def wake(self) -> None:
        """Entries became due, or changed their route: the workers look into the store."""
        ...
