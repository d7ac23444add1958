"""The seam of the queue: what any store promises (the conformance suite tests it).

- `put` and `settle` return when what they did would survive a power cut; an error means nothing of it is kept.
- One recipient, one fate: a settlement is one transaction.
- A crash is an ordinary event: leases of a dead process are taken back when the store is opened.
- A row that cannot be read is set aside and reported, and blocks nobody.
- Cancelling a caller never cancels a commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from relay.queue.model import Entry, Lease, Ledger, QueueView, Settlement


class QueueStore(Protocol):
    """All methods may raise StoreUnavailable; they are called on the event loop."""

    @property
    def ledger(self) -> Ledger:
        """Counts of recipients, changed on the event loop right after each commit."""
        ...

    async def put(self, entry: Entry, *, leased: bool) -> Lease:
        """Keep `entry`. With `leased`, it is born leased (its first attempt counted), else due at once.

        The lease is meaningful only with `leased`.
        """
        ...

    async def lease(self, route: str, *, limit: int, now: datetime) -> list[Lease]:
        """At most `limit` due entries of `route`, by priority and then age; their attempt is counted."""
        ...

    async def settle(self, settlement: Settlement) -> None:
        """Record what became of a lease, and end it. Finished entries leave the queue with their content."""
        ...

    async def give_back(self, leases: Sequence[Lease]) -> None:
        """End leases that were not tried: due at once, the attempt not counted."""
        ...

    async def lease_expired(
        self, route: str, *, limit: int, now: datetime, session_codes_only: bool = False
    ) -> list[Lease]:
        """At most `limit` entries of `route` past `expires_at` that nobody has leased; no attempt is counted."""
        ...

    async def make_due(self, *, now: datetime, route: str | None = None) -> None:
        """Waiting entries (of `route`, or all) become due: after a start, a reload, or an upstream's return."""
        ...

    async def next_due(self, route: str) -> datetime | None:
        """When the next waiting entry of `route` is due, or None when nothing waits."""
        ...

    async def view(self) -> QueueView:
        """Read beside the writer; cheap enough for every scrape with 100 000 entries waiting."""
        ...

    async def check(self) -> None:
        """Prove that a commit is possible (health, recovery after an error)."""
        ...

    async def close(self) -> None:
        """Finish what was begun and let go of files and threads. Idempotent."""
        ...
