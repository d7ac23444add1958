"""Taking entries on lease: what is due, and what has come to its end while it waited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from relay.queue.disk import Operation, Work
from relay.queue.ledger import Books, Change, SetAside
from relay.queue.model import Lease
from relay.queue.rows import TO_BOUNCE, EntryRow, RecipientRow, Unreadable, entry_of, pending_of
from relay.queue.spool import Spool


class Take(Operation[list[Lease]]):
    """Lease due entries of a route: by priority, then clients in turn, then by age.

    `damaged`: what had to be set aside before it could be carried out at all.
    """

    __slots__ = ("_aside", "_leases", "_limit", "_now", "_route", "_spool", "damaged")

    counted = 1  # attempts

    def __init__(self, route: str, limit: int, now: int, spool: Spool) -> None:
        super().__init__()
        self._route = route
        self._limit = limit
        self._now = now
        self._spool = spool
        self._leases: list[Lease] = []
        self._aside: list[SetAside] = []
        self.damaged: list[SetAside] = []

    def run(self, work: Work) -> None:
        self._leases, self._aside = [], []
        while (missing := self._limit - len(self._leases)) > 0:
            rows = list(self._select(work, missing))
            read = self._read(work, rows) if rows else []
            if read:
                work.execute("lease", (self.counted, work.keys([cast("int", lease.key) for lease in read])))
                self._leases += read
            if len(rows) < missing:
                break

    def _select(self, work: Work, limit: int) -> Sequence[EntryRow]:
        return work.due(self._route, self._now, limit)

    def _read(self, work: Work, rows: Sequence[EntryRow]) -> list[Lease]:
        """The leases for `rows`, in their order, without those that must be set aside."""
        keys = [row.id for row in rows]
        recipients: dict[int, list[RecipientRow]] = {key: [] for key in keys}
        for recipient in map(RecipientRow._make, work.execute("select_recipients", (work.keys(keys),))):
            recipients[recipient.entry].append(recipient)
        found = work.execute("select_contents", (work.keys(keys),))
        contents = {key: (head_length, body) for key, head_length, body in found}
        leases: list[Lease] = []
        for row in rows:
            key, attempts = row.id, row.attempts
            try:
                entry = entry_of(row, recipients[key], contents.get(key), attempts + self.counted, self._spool)
                leases.append(Lease(entry, pending_of(entry, recipients[key]), key, row.place == TO_BOUNCE))
            except Unreadable as error:
                self._aside.append(set_aside(work, key, row.queue_id, attempts, str(error)))
        return leases

    def apply(self, books: Books) -> list[Lease]:
        books.set_aside([*self.damaged, *self._aside])
        books.leased(self._leases, counted=bool(self.counted))
        return self._leases

    def orphaned(self, result: list[Lease]) -> Sequence[Lease]:
        return result


class TakeExpired(Take):
    """Lease entries of a route that are to be bounced, or are past their lifetime; no attempt is counted.

    Of a session code, held recipients end with the others.
    """

    __slots__ = ("_released", "_session_codes_only")

    counted = 0

    def __init__(self, route: str, limit: int, now: int, spool: Spool, *, session_codes_only: bool) -> None:
        super().__init__(route, limit, now, spool)
        self._session_codes_only = session_codes_only
        self._released: list[Change] = []

    def run(self, work: Work) -> None:
        self._released = []
        super().run(work)
        self.uncounted = [cast("int", lease.key) for lease in self._leases]

    def _select(self, work: Work, limit: int) -> Sequence[EntryRow]:
        over = (self._route, self._now)
        asked: list[tuple[str, tuple[str | int, ...]]] = [
            ("select_to_bounce", (self._route,)),
            ("select_expired_codes" if self._session_codes_only else "select_expired", over),
            ("select_held_codes", over),
        ]
        rows: list[EntryRow] = []
        for name, bindings in asked:
            rows += map(EntryRow._make, work.execute(name, (*bindings, limit - len(rows))))
        for row in rows:
            if row.session_code and (held := work.changed("release_recipients", (row.id,))):
                self._released.append(Change(row.id, waiting=held, held=-held, tried=row.attempts > 0))
        return rows

    def apply(self, books: Books) -> list[Lease]:
        for change in self._released:
            books.changed(change)
        return super().apply(books)


def set_aside(work: Work, key: int, queue_id: str, attempts: int, text: str) -> SetAside:
    """Take an entry that cannot be read out of the way."""
    waiting = next(work.execute("count_waiting", (key,)))[0]
    work.execute("set_aside", (text, key))
    return SetAside(queue_id, text, attempts > 0, waiting)
