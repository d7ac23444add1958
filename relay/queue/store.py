"""The seam of the queue: what any store promises (the conformance suite tests it).

- `put` and `settle` return when what they did would survive a power cut; an error means nothing of it is kept.
- One recipient, one fate: a settlement is one transaction.
- A crash is an ordinary event: leases of a dead process are taken back when the store is opened.
- A row that cannot be read is set aside and reported, and blocks nobody.
- Cancelling a caller never cancels a commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from relay.mail.address import Address
from relay.queue.listing import Acted, Listed, Saved, Searched, Shown, Standing, Verb, Wanted
from relay.queue.model import Entry, Lease, Ledger, Memory, QueueView, Reader, Recorded, Settlement, Told
from relay.queue.spool import Spool


class QueueStore(Protocol):
    """All methods may raise StoreUnavailable; they are called on the event loop."""

    @property
    def ledger(self) -> Ledger:
        """Counts of recipients, changed on the event loop right after each commit."""
        ...

    @property
    def octets(self) -> int:
        """Octets of content in the queue, as current as `ledger`."""
        ...

    @property
    def spool(self) -> Spool:
        """Where large content goes before its entry is put."""
        ...

    @property
    def low_on_space(self) -> bool:
        """Less is left for the queue than is to stay free; looked up at most once a second."""
        ...

    def disk_free(self) -> int:
        """Octets that are left for the queue."""
        ...

    def keep_free(self, octets: int) -> None:
        """From now on so much is to stay free."""
        ...

    def keep_history(self, history: Recorded) -> None:
        """From now on this is recorded of finished messages. How long it stays is up to `forget`."""
        ...

    async def put(self, entry: Entry, *, leased: bool, held: bool = False, ways: Sequence[str] = ()) -> Lease:
        """Keep `entry`. With `leased`, it is born leased (its first attempt counted); with `held`, it waits for a
        person; else it is due at once. `ways`: of a session code, `Pending.way` of each recipient.

        The lease is meaningful only with `leased`.
        """
        ...

    async def lease(self, route: str, *, limit: int, now: datetime) -> list[Lease]:
        """At most `limit` due entries of `route`, by priority, and of one priority the oldest of each client in turn;
        their attempt is counted."""
        ...

    async def change_way(self, lease: Lease, places: Sequence[int], way: str) -> None:
        """From now on `way` is `Pending.way` of the recipients at these places of the envelope.

        What a dead process had leased, its attempt counted, is in doubt there. After StoreUnavailable nobody knows
        which way is kept.
        """
        ...

    async def settle(self, settlement: Settlement) -> Sequence[str]:
        """Record what became of a lease, and end it. Finished entries leave the queue with their content.

        What is returned are the routes under which mail became due because an operator had wished it meanwhile.
        After StoreUnavailable the lease goes on, to be settled again; if the process dies before, the ends and the
        notifications of the settlement are all there, once, or none is.
        """
        ...

    async def record(self, settlement: Settlement) -> Sequence[str]:
        """Keep an entry together with what became of its first attempt, which was made before it was kept: `put` and
        `settle` in one transaction, which returns as `settle` does (no route: nobody knew of it before).

        The lease is the caller's own, for all recipients, with the attempt counted. Of an entry whose recipients have
        all come to an end only the history is written, never its content.
        """
        ...

    async def give_back(self, leases: Sequence[Lease]) -> Sequence[str]:
        """End leases that were not tried: due at once, the attempt not counted. Returns routes as `settle` does."""
        ...

    async def lease_expired(
        self, route: str, *, limit: int, now: datetime, session_codes_only: bool = False
    ) -> list[Lease]:
        """At most `limit` entries of `route` past `expires_at`, or to be bounced, that nobody has leased.

        No attempt is counted. `session_codes_only` leaves out other mail past its lifetime, not what is to be
        bounced. Session codes end when held as well, other held mail waits for its person.
        """
        ...

    async def make_due(
        self, *, now: datetime, route: str | None = None, woken: Callable[[], None] = lambda: None
    ) -> None:
        """Waiting entries (of `route`, or all) become due: after a start, a reload, or an upstream's return.

        A slice at a time; `woken` is called after each in which something woke.
        """
        ...

    async def next_due(self, route: str) -> datetime | None:
        """When the next waiting entry of `route` is due, or None when nothing waits."""
        ...

    async def routes(self) -> Sequence[str]:
        """The routes that mail waits under which nobody has leased; cheap however much that is."""
        ...

    async def view(self) -> QueueView:
        """Read beside the writer; cheap enough for every scrape with 100 000 entries waiting."""
        ...

    async def standing(self) -> Sequence[Standing]:
        """All of the queue by route and place, as cheap as `view`: one for each pair that has messages."""
        ...

    async def list(self, wanted: Wanted, *, after: int = 0, limit: int = 100) -> Sequence[Listed]:
        """Entries in the queue, oldest first, with a `key` above `after`; never content."""
        ...

    async def find(self, wanted: Wanted, *, limit: int = 100) -> Sequence[Listed]:
        """Messages in the queue and in the history, newest first."""
        ...

    async def search(self, wanted: Wanted, *, limit: int, patience: float) -> Searched:
        """The same, for as many seconds at most."""
        ...

    async def named(self, entries: Sequence[Listed]) -> Sequence[Listed]:
        """The same, with the Message-ID of those in the queue, and their subject where the history keeps it."""
        ...

    async def match(self, prefix: str) -> Sequence[str]:
        """The queue IDs that begin with `prefix`, in queue and history: at most two, so that a caller knows enough.

        An ID that is exactly `prefix` comes alone.
        """
        ...

    async def show(self, queue_id: str) -> Shown | None:
        """All about one message, in the queue or in the history."""
        ...

    async def act(
        self, verb: Verb, queue_ids: Sequence[str], *, now: datetime, route: str | None = None
    ) -> Sequence[Acted]:
        """Do it to each, in one transaction; one answer for each, in the same order.

        On an active entry the wish is kept (over a restart as well) and done after its attempt, unless that
        ends it; `bounced` leases come of BOUNCE (`lease_expired`). `route` is for REROUTE: that it exists is the
        caller's care. Emits EntryHeld, EntryChanged and RecipientCancelled, also when a wish is done later.
        After StoreUnavailable it may have been done all the same: look before acting again.
        """
        ...

    async def recall(self, topic: str, key: str) -> datetime | None:
        """The moment that `remember` kept for `key`, or None."""
        ...

    async def remember(self, topic: str, key: str, moment: datetime, value: str = "") -> None:
        """Keep a moment, and what there is to know besides, over restarts: when an alarm was told last, for one."""
        ...

    async def memories(self, topic: str) -> Sequence[Memory]:
        """All that is remembered under `topic`, by key."""
        ...

    async def forget_memory(self, topic: str, key: str) -> None:
        """`key` is not known under `topic` any more, if it was."""
        ...

    async def readers(self, *, since: datetime) -> Sequence[Reader]:
        """Whoever was written to since then, or has reports that wait for a summary."""
        ...

    async def collected(self, reader: Address, *, limit: int) -> Sequence[Told]:
        """At most `limit` reports to `reader` that wait for a summary, in the order of their messages."""
        ...

    async def summarise(self, entry: Entry, told: Sequence[Told]) -> None:
        """Keep `entry`, the summary of `told` (for one reader), due at once. They wait no more; it counts as sent."""
        ...

    async def forget_told(self, *, before: datetime) -> None:
        """Remove what was told before then, but for what still waits for a summary."""
        ...

    async def forget(self, *, before: datetime) -> int:
        """Remove what ended before that moment from the history, a slice at a time, and all subjects where none is
        recorded; how many messages were removed."""
        ...

    async def backup(self, path: Path) -> Saved:
        """A copy of the queue at one moment, while mail flows: `path`, and `path`.spool beside it where there is
        large content. Session codes are left out. Raises RelayError when `path` exists or cannot be written.
        """
        ...

    async def check(self) -> None:
        """Prove that a commit is possible (health, recovery after an error)."""
        ...

    async def close(self) -> None:
        """Finish what was begun and let go of files and threads. Idempotent."""
        ...
