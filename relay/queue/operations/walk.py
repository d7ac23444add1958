"""What the walk of a message asks of a store: each operation knows its rows, and what it changes in the books.

How an operation is carried out is told in `disk`; taking entries on lease in `lease`, what operators do in `operator`.
"""

from __future__ import annotations

from collections.abc import Sequence

from relay.events import EntryChanged
from relay.queue.content import FileContent
from relay.queue.disk import Bulk, Operation, Work
from relay.queue.ledger import Books, Change
from relay.queue.model import Entry, Kind, Lease, Pending, Recorded, Result, Settlement, State, Told
from relay.queue.operations.operator import apply_wishes, end
from relay.queue.rows import (
    DUE,
    HELD,
    LEASED,
    SLEEPING,
    content_row,
    entry_row,
    history_row,
    left_as,
    microseconds,
    recipient_rows,
    told_row,
)
from relay.queue.spool import Spool

_WAITS = (State.PENDING, State.HELD)


class _New:
    """An entry to be put, as rows."""

    __slots__ = ("attempts", "content", "entry", "key", "recipients", "row", "spool_file", "ways")

    def __init__(
        self, key: int, entry: Entry, place: int, attempts: int, spool: Spool, ways: Sequence[str] = ()
    ) -> None:
        recipients = entry.submission.envelope.recipients
        self.key = key
        self.entry = entry
        self.attempts = attempts
        self.spool_file = spool.name(entry.content) if isinstance(entry.content, FileContent) else None
        self.row = entry_row(key, entry, place, attempts, self.spool_file)
        self.content = content_row(key, entry)
        self.ways = ways or ("",) * len(recipients)
        self.recipients = recipient_rows(key, recipients, self.ways)

    def gather(self, bulk: Bulk) -> None:
        bulk.entries.append(self.row)
        bulk.contents.append(self.content)
        bulk.recipients += self.recipients


class Put(Operation[Lease]):
    __slots__ = ("_held", "_leased", "_new", "promises")

    def __init__(
        self, key: int, entry: Entry, spool: Spool, *, leased: bool, held: bool, ways: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self._leased = leased
        self._held = held
        place = LEASED if leased else HELD if held else DUE
        self._new = _New(key, entry, place, entry.attempts + leased, spool, ways)
        self.promises = entry.kind is Kind.MAIL  # an alarm about the queue has to leave
        self.born = (key,)
        self.refused_file = self._new.spool_file

    def gather(self, bulk: Bulk) -> None:
        self._new.gather(bulk)

    def run(self, work: Work) -> None:
        if self._held:
            work.execute("hold_recipients", (self._new.key,))

    def undo(self, books: Books) -> None:  # noqa: ARG002
        self.leaves_traces = self._new.entry.session_code

    def apply(self, books: Books) -> Lease:
        new = self._new
        entry = new.entry
        kept = Entry(
            entry.submission,
            entry.content,
            entry.route,
            entry.priority,
            entry.session_code,
            entry.because,
            entry.expires_at,
            entry.kind,
            new.attempts,
            entry.released,
            entry.warned,
            entry.rerouted,
        )
        those = zip(entry.submission.envelope.recipients, new.ways, strict=True)
        pending = tuple([Pending(n, recipient, way=way) for n, (recipient, way) in enumerate(those)])
        lease = Lease(kept, pending, new.key)
        books.put(kept, lease if self._leased else None, new.attempts, held=self._held)
        return lease

    def orphaned(self, result: Lease) -> Sequence[Lease]:
        return (result,) if self._leased else ()


class ChangeWay(Operation[None]):
    """The recipients of a session code that are at these `places` may be sent it by `way`, and by no other."""

    __slots__ = ("_key", "_places", "_way")

    def __init__(self, key: int, places: Sequence[int], way: str) -> None:
        super().__init__()
        self._key = key
        self._places = places
        self._way = way

    def run(self, work: Work) -> None:
        work.execute("change_way", (self._way, self._key, work.keys(self._places)))

    def apply(self, books: Books) -> None: ...


class Settle(Operation[Sequence[str]]):
    """`ended_at`: of the recipients that come to their end. `history`: what is finished is recorded.

    `withheld`: the notifications of the same settlement, where it was made before and nobody knows its fate.
    The result has the routes of what became due by a wish.
    """

    patient = True
    __slots__ = (
        "_changes", "_ended_at", "_history", "_key", "_new", "_next_attempt_at", "_recorded", "_remaining", "_results",
        "gone", "settlement", "withheld",
    )  # fmt: skip

    def __init__(
        self,
        key: int,
        settlement: Settlement,
        born: Sequence[int],
        spool: Spool,
        *,
        ended_at: int,
        next_attempt_at: int,
        history: Recorded,
    ) -> None:
        super().__init__()
        entry = settlement.lease.entry
        self._key = key
        self.settlement = settlement
        self._ended_at = ended_at
        self._next_attempt_at = next_attempt_at
        self._history = history
        self.withheld: Sequence[int] = ()
        self._remaining = [result.state for result in settlement.results if result.state in _WAITS]
        # Recipients beyond the lease are final or held: only the database knows.
        everybody = len(settlement.results) == len(entry.submission.envelope.recipients)
        self.gone = everybody and not self._remaining
        self._results = () if self.gone else settlement.results
        self._recorded = history_row(key, settlement, ended_at, history) if self.gone and history else None
        self._changes: list[Change] = []
        if isinstance(entry.content, FileContent):
            self.ended_files = (spool.name(entry.content),)
        self._begin(born, spool)

    def _begin(self, born: Sequence[int], spool: Spool) -> None:
        """Make the rows of the entries that come with it."""
        self._new = [
            _New(key, notification, DUE, notification.attempts, spool)
            for key, notification in zip(born, self.settlement.notifications, strict=True)
        ]

    def gather(self, bulk: Bulk) -> None:
        bulk.withheld += self.withheld
        for new in self._new:
            new.gather(bulk)
        if not self._results:
            bulk.ended.append(self._key)
            bulk.overwrite |= self.settlement.lease.entry.session_code
            if self._recorded is not None:
                bulk.history.append(self._recorded)
            else:
                bulk.unrecorded.append(self._key)

    def run(self, work: Work) -> None:
        for told in self.settlement.told:
            work.execute("tell", told_row(told))
        if not self._results:
            return
        self._changes = []
        key, settlement = self._key, self.settlement
        lease = settlement.lease
        for result in self._results:
            work.execute("settle_recipient", (*_said(result, self._ended_at), key, result.index))
        if settlement.left is not None:
            work.execute("some_left", (left_as(settlement.left), key))
        if settlement.at is not None:
            tried, at = lease.entry.attempts, microseconds(settlement.at)
            unfinished = [result for result in self._results if result.state in _WAITS]
            rows = [(key, tried, result.index, at, result.upstream, result.reply) for result in unfinished]
            work.insert("insert_attempt", rows)
        there = next(work.execute("rest_of", (key,)), None)
        self.gone = there is None or not (self._remaining or there[1])
        if there is None:
            # A first commit, of unknown fate, reached the disk, and an operator's wish took the rest out.
            waiting, held = (self._remaining.count(state) for state in _WAITS)
            tried = lease.entry.attempts > 0
            self._changes = [Change(key, waiting=-waiting, held=-held, cancelled=waiting + held, tried=tried)]
        elif self.gone:
            end(work, key, self._ended_at, session_code=lease.entry.session_code, history=self._history)
        else:
            place = SLEEPING if State.PENDING in self._remaining else HELD
            wish = "" if lease.bounced and there[0] == "bounce" else there[0]
            route = settlement.route or lease.entry.route
            work.execute("move_entry", (place, self._next_attempt_at, route, settlement.warned, wish, key))
            if wish:
                self._changes = apply_wishes(work, [key], self._ended_at, history=self._history)

    def apply(self, books: Books) -> Sequence[str]:
        for new in self._new:
            books.put(new.entry, None, new.attempts)
        books.settled(self._key, self.settlement, gone=self.gone)
        gone = self.gone
        for change in self._changes:
            books.changed(change)
            gone |= change.gone
        if not gone:
            self.ended_files = ()
        self.leaves_traces = gone and self.settlement.lease.entry.session_code
        if not self._changes:
            return ()
        route = self.settlement.route or self.settlement.lease.entry.route
        return [due for change in self._changes for due in _due_by_wish(change, route)]

    def undo(self, books: Books) -> None:
        books.still_leased(self._key)

    def doubt(self, books: Books) -> None:
        books.withhold(self._key, [new.key for new in self._new])


class Record(Settle):
    """An entry, and the settlement of an attempt that was made before it was kept. Its content is written where
    somebody still waits.

    After a commit of unknown fate all of it goes, notifications and what was told as well (`born`): either the
    client hears that it is to send again, and is the one who has the message; or everybody got it and nobody is to
    be told, and what a crash can take is a line of the history.
    """

    patient = False  # the client has no answer before
    promises = True
    __slots__ = ("_entry",)

    def _begin(self, born: Sequence[int], spool: Spool) -> None:
        super()._begin(born, spool)
        entry = self.settlement.lease.entry
        self._entry = _New(self._key, entry, LEASED, entry.attempts, spool)
        self.born = (self._key, *born)
        if self._results:
            self.refused_file = self._entry.spool_file

    def gather(self, bulk: Bulk) -> None:
        if self._results:
            self._entry.gather(bulk)
        super().gather(bulk)

    def apply(self, books: Books) -> Sequence[str]:
        lease = self.settlement.lease
        books.put(lease.entry, lease, lease.entry.attempts)
        due = super().apply(books)
        self.leaves_traces = self.leaves_traces and bool(self._results)
        return due

    def doubt(self, books: Books) -> None: ...

    def undo(self, books: Books) -> None:
        super().undo(books)
        self.leaves_traces = bool(self._results) and self.settlement.lease.entry.session_code


def _due_by_wish(change: Change, route: str) -> list[str]:
    """The routes to look at because of an operator's wish about an entry of `route`."""
    return [event.route or route for event in change.events if isinstance(event, EntryChanged)]


def _said(result: Result, ended_at: int) -> tuple[object, ...]:
    ended = None if result.state in _WAITS else ended_at
    return result.state, result.reply, result.in_doubt, result.in_doubt_at, result.upstream, ended


class GiveBack(Operation[Sequence[str]]):
    """`counted` and `uncounted` are leases by key: with an attempt that is not to count, and without.

    The result is as of `Settle`.
    """

    __slots__ = ("_bounced", "_changes", "_counted", "_history", "_now", "_uncounted")

    def __init__(self, counted: dict[int, Lease], uncounted: dict[int, Lease], *, now: int, history: Recorded) -> None:
        super().__init__()
        self._counted = counted
        self._uncounted = uncounted
        self._bounced = [key for key, lease in uncounted.items() if lease.bounced]
        self._now = now
        self._history = history
        self._changes: list[Change] = []

    def run(self, work: Work) -> None:
        for attempts, leases in ((1, self._counted), (0, self._uncounted)):
            if leases:
                work.execute("give_back", (attempts, work.keys(leases)))
        if self._bounced:
            work.execute("give_back_to_bounce", (work.keys(self._bounced),))
        leases = self._counted | self._uncounted
        self._changes = apply_wishes(work, leases, self._now, history=self._history)
        there = {key for (key,) in work.execute("present", (work.keys(leases),))}
        ended = {change.key for change in self._changes}
        for key, lease in leases.items():
            if key not in there and key not in ended:
                # A first commit, of unknown fate, reached the disk, and an operator's wish took it out.
                left, tried = len(lease.pending), lease.entry.attempts > (key in self._counted)
                self._changes.append(
                    Change(key, waiting=-left, cancelled=left, tried=tried, gone=True, octets=lease.entry.content.size)
                )

    def apply(self, books: Books) -> Sequence[str]:
        for key in (*self._counted, *self._uncounted):
            books.given_back(key)
        for change in self._changes:
            books.changed(change)
        self.ended_files = [change.spool_file for change in self._changes if change.spool_file and change.gone]
        self.leaves_traces = any(change.gone and change.session_code for change in self._changes)
        leases = self._counted | self._uncounted
        return [due for change in self._changes for due in _due_by_wish(change, leases[change.key].entry.route)]

    def undo(self, books: Books) -> None:
        for key in (*self._counted, *self._uncounted):
            books.still_leased(key)


class Summarise(Operation[None]):
    """An entry of our own takes the place of reports. After a commit of unknown fate they wait again (`Mend`)."""

    __slots__ = ("_new", "_told")

    def __init__(self, key: int, entry: Entry, told: Sequence[Told], spool: Spool) -> None:
        super().__init__()
        self._new = _New(key, entry, DUE, entry.attempts, spool)
        self._told = [told_row(one) for one in told]
        self.born = (key,)

    def gather(self, bulk: Bulk) -> None:
        self._new.gather(bulk)

    def run(self, work: Work) -> None:
        new = self._new
        for reader, queue_id, at, _ in self._told:
            work.execute("summarised", (new.key, reader, queue_id, at))
        submission = new.entry.submission
        work.execute("tell", (self._told[0][0], submission.queue_id, microseconds(submission.received_at), None))

    def apply(self, books: Books) -> None:
        books.put(self._new.entry, None, self._new.attempts)


class MakeDue(Operation[int]):
    """One slice: at most `limit` entries of `route` that sleep until `until` or less. The result says how many woke."""

    __slots__ = ("_limit", "_now", "_route", "_until", "_woken")

    def __init__(self, route: str, now: int, until: int, limit: int) -> None:
        super().__init__()
        self._route = route
        self._now = now
        self._until = until
        self._limit = limit
        self._woken = 0

    def run(self, work: Work) -> None:
        self._woken = work.changed("make_due", (self._now, self._route, self._until, self._limit))

    def apply(self, books: Books) -> int:  # noqa: ARG002
        return self._woken


class Forget(Operation[None]):
    """One slice of the history goes."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Sequence[int]) -> None:
        super().__init__()
        self._keys = keys

    def run(self, work: Work) -> None:
        work.execute("delete_history", (work.keys(self._keys),))
        work.execute("delete_attempts", (work.keys(self._keys),))

    def apply(self, books: Books) -> None: ...


class ForgetSubjects(Forget):
    """One slice of the history stays, without the subjects."""

    __slots__ = ()

    def run(self, work: Work) -> None:
        work.execute("forget_subjects", (work.keys(self._keys),))


class Write(Operation[None]):
    """One statement, of which nobody keeps books."""

    __slots__ = ("_bindings", "_statement")

    def __init__(self, statement: str, *bindings: object) -> None:
        super().__init__()
        self._statement = statement
        self._bindings = bindings

    def run(self, work: Work) -> None:
        work.execute(self._statement, self._bindings)

    def apply(self, books: Books) -> None: ...


class Wipe(Operation[bool]):
    """Have the database empty the log in which it leaves what was deleted; the result says whether it did (`done`)."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        super().__init__()
        self.done = False

    def apply(self, books: Books) -> bool:  # noqa: ARG002
        return self.done
