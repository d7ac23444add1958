"""The books of the store: ledger, leases and stored octets, as the event loop knows them.

Changed on the event loop only, right after a commit, in the callback that also answers the
callers. So at the moment the next batch is handed over, the books say what the disk says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relay.events import EntrySetAside, Event, Observer
from relay.queue.model import Entry, Lease, Ledger, Settlement, State
from relay.values import frozen


@frozen
class SetAside:
    """An entry that could not be read. It waits for a person: its recipients count as held."""

    queue_id: str
    text: str
    tried: bool
    recipients: int


@frozen
class Change:
    """What became of one entry that nobody has leased: how many recipients more (or less) are where.

    `waiting` ones are pending, or deferred where it was `tried`. `gone`: it has left the queue, with its octets
    and `spool_file`.
    """

    key: int
    events: tuple[Event, ...] = ()
    waiting: int = 0
    held: int = 0
    cancelled: int = 0
    tried: bool = False
    gone: bool = False
    octets: int = 0
    spool_file: str | None = None
    session_code: bool = False


@frozen
class Count:
    """What the disk says of all that nobody has leased: recipients by their state in the ledger, and octets."""

    recipients: Mapping[str, int]
    octets: int


@frozen
class Found:
    """What lay in the queue when it was opened: counted before `aside` was set aside and `changes` were made.

    `leases` are those of a dead process, taken back; `changes` is what operators had wished of them.
    """

    entries: int
    octets: int
    last_key: int
    leases: int
    ledger: Ledger
    aside: Sequence[SetAside]
    changes: Sequence[Change]


class Books:
    """`wishes`: what operators want of entries that are leased, as the disk keeps it.

    `withheld`: by lease, the notifications that a settlement of unknown fate may have put on the disk. Where they
    are there, the end that they tell of is there as well, so they stay; but nobody takes them before the lease
    is settled again, which makes them anew. After a crash they are what remains, and go out.
    """

    def __init__(self, observer: Observer) -> None:
        self.ledger = Ledger()
        self.octets = 0
        self.leases: dict[int, Lease] = {}
        self.wishes: dict[int, str] = {}
        self.withheld: dict[int, tuple[int, ...]] = {}
        self._observer = observer
        self._uncounted: set[int] = set()
        self._ending: set[int] = set()

    def open(self, found: Found) -> None:
        self.ledger = found.ledger
        self.octets = found.octets
        self.set_aside(found.aside)
        for change in found.changes:
            self.changed(change)

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

    def withhold(self, key: int, notifications: Sequence[int]) -> None:
        """A settlement of this lease, with `notifications`, is of unknown fate."""
        if notifications:
            self.withheld[key] = (*self.withheld.get(key, ()), *notifications)

    def counted(self, key: int) -> bool:
        """Whether an attempt was counted for this lease."""
        return key not in self._uncounted

    def put(self, entry: Entry, lease: Lease | None, attempts: int, *, held: bool = False) -> None:
        """`lease` None: the entry waits."""
        ledger, recipients = self.ledger, len(entry.submission.envelope.recipients)
        ledger.accepted += recipients
        self.octets += entry.content.size
        if lease is not None:
            assert isinstance(lease.key, int)
            ledger.active += recipients
            self.leases[lease.key] = lease
        elif held:
            ledger.held += recipients
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
            if lease.bounced:
                self.wishes[lease.key] = "bounce"

    def given_back(self, key: int) -> None:
        counted = self.counted(key)
        lease = self._end(key)
        self._waits(len(lease.pending), lease.entry.attempts - counted)

    def settled(self, key: int, settlement: Settlement, *, gone: bool) -> None:
        """`gone`: the entry has left the queue."""
        ledger = self.ledger
        lease = self._end(key)
        self.withheld.pop(key, None)
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

    def changed(self, change: Change) -> None:
        self._waits(change.waiting, int(change.tried))
        self.ledger.held += change.held
        self.ledger.cancelled += change.cancelled
        if change.gone:
            self.octets -= change.octets
        for event in change.events:
            self._observer.observe(event)

    def set_aside(self, entries: Sequence[SetAside]) -> None:
        for entry in entries:
            self._waits(-entry.recipients, int(entry.tried))
            self.ledger.held += entry.recipients
            self._observer.observe(EntrySetAside(entry.queue_id, entry.text))

    def count_anew(self, count: Count) -> None:
        """After a commit of unknown fate the disk is right.

        What is not there any more was cancelled by an operator: nothing else ends an entry that nobody has leased.
        """
        ledger = self.ledger
        leases = self.leases.values()
        ledger.pending, ledger.deferred, ledger.held = (
            count.recipients.get(state, 0) for state in ("pending", "deferred", "held")
        )
        ledger.active = sum([len(lease.pending) for lease in leases])
        still = ledger.pending + ledger.deferred + ledger.held + ledger.active
        ended = ledger.delivered + ledger.failed + ledger.expired
        ledger.cancelled = ledger.found + ledger.accepted - ended - still
        self.octets = count.octets + sum([lease.entry.content.size for lease in leases])

    def _end(self, key: int) -> Lease:
        lease = self.leases.pop(key)
        self._ending.discard(key)
        self._uncounted.discard(key)
        self.wishes.pop(key, None)
        self.ledger.active -= len(lease.pending)
        return lease

    def _waits(self, recipients: int, attempts: int) -> None:
        if attempts > 0:
            self.ledger.deferred += recipients
        else:
            self.ledger.pending += recipients
