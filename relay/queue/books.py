"""The books of the store: ledger, leases and stored octets, as the event loop knows them.

Changed on the event loop only, right after a commit, in the callback that also answers the
callers. So at the moment the next batch is handed over, the books say what the disk says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relay.events import EntrySetAside, Observer
from relay.queue.model import Entry, Lease, Ledger, Settlement, State


@dataclass(frozen=True, slots=True)
class SetAside:
    """An entry that could not be read. It waits for a person: its recipients count as held."""

    queue_id: str
    text: str
    tried: bool
    recipients: int


class Books:
    def __init__(self, observer: Observer) -> None:
        self.ledger = Ledger()
        self.octets = 0
        self.leases: dict[int, Lease] = {}
        self._observer = observer
        self._uncounted: set[int] = set()
        self._ending: set[int] = set()

    def open(self, ledger: Ledger, octets: int, aside: Sequence[SetAside]) -> None:
        """What lay in the queue, counted before `aside` was set aside."""
        self.ledger = ledger
        self.octets = octets
        self.set_aside(aside)

    def key(self, lease: Lease) -> int:
        """The key of a lease that has not ended; ValueError for any other."""
        key = lease.key
        if not isinstance(key, int) or key not in self.leases or key in self._ending:
            raise ValueError(f"the lease of {lease.entry.queue_id} has ended")
        return key

    def ending(self, key: int) -> None:
        """An operation that ends this lease is under way: no second one may begin."""
        self._ending.add(key)

    def still_leased(self, key: int) -> None:
        """The operation failed."""
        self._ending.discard(key)

    def counted(self, key: int) -> bool:
        """Whether an attempt was counted for this lease."""
        return key not in self._uncounted

    def put(self, entry: Entry, lease: Lease | None, attempts: int) -> None:
        """`lease` None: the entry waits."""
        ledger, recipients = self.ledger, len(entry.submission.envelope.recipients)
        ledger.accepted += recipients
        self.octets += entry.content.size
        if lease is not None:
            assert isinstance(lease.key, int)
            ledger.active += recipients
            self.leases[lease.key] = lease
        else:
            self._waits(recipients, attempts)

    def leased(self, leases: Sequence[Lease], *, counted: bool) -> None:
        ledger = self.ledger
        for lease in leases:
            assert isinstance(lease.key, int)
            recipients = len(lease.pending)
            self._waits(-recipients, lease.entry.attempts - counted)
            ledger.active += recipients
            self.leases[lease.key] = lease
            if not counted:
                self._uncounted.add(lease.key)

    def given_back(self, key: int) -> None:
        counted = self.counted(key)
        lease = self._end(key)
        self._waits(len(lease.pending), lease.entry.attempts - counted)

    def settled(self, key: int, settlement: Settlement, *, gone: bool) -> None:
        """`gone`: the entry has left the queue."""
        ledger = self.ledger
        lease = self._end(key)
        for result in settlement.results:
            match result.state:
                case State.DELIVERED:
                    ledger.delivered += 1
                case State.PENDING:
                    self._waits(1, lease.entry.attempts)
                case State.FAILED:
                    ledger.failed += 1
                case State.EXPIRED:
                    ledger.expired += 1
                case State.CANCELLED:
                    ledger.cancelled += 1
                case State.HELD:
                    ledger.held += 1
        if gone:
            self.octets -= lease.entry.content.size

    def set_aside(self, entries: Sequence[SetAside]) -> None:
        for entry in entries:
            self._waits(-entry.recipients, int(entry.tried))
            self.ledger.held += entry.recipients
            self._observer.observe(EntrySetAside(entry.queue_id, entry.text))

    def _end(self, key: int) -> Lease:
        lease = self.leases.pop(key)
        self._ending.discard(key)
        self._uncounted.discard(key)
        self.ledger.active -= len(lease.pending)
        return lease

    def _waits(self, recipients: int, attempts: int) -> None:
        if attempts > 0:
            self.ledger.deferred += recipients
        else:
            self.ledger.pending += recipients
