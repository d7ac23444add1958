"""Taking entries on lease: what is due, and what has come to its end while it waited."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import cast

from relay.queue.ledger import Books, Change, SetAside
from relay.queue.model import Lease
from relay.queue.rows import CLIENT, TO_BOUNCE, Row, Unreadable, entry_of, pending_of
from relay.queue.spool import Spool
from relay.queue.work import Operation, Work

WAKE_AT_ONCE = 500  # more than is leased at once, so that all that slept is awake before long; and no commit waits

Turns = dict[tuple[str, int], str]
"""By route and priority, whose entry was leased last: the next is the turn of the client after it."""


class Take(Operation[list[Lease]]):
    """Lease due entries of a route: by priority, then clients in turn, then by age.

    `damaged`: what had to be set aside before it could be carried out at all.
    """

    __slots__ = ("_aside", "_leases", "_limit", "_now", "_route", "_spool", "_turns", "damaged")

    counted = 1  # attempts

    def __init__(self, route: str, limit: int, now: int, spool: Spool, turns: Turns) -> None:
        super().__init__()
        self._turns = turns
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

    def _select(self, work: Work, limit: int) -> Sequence[Row]:
        work.execute("wake", (self._route, self._now, max(limit, WAKE_AT_ONCE)))
        rows: list[Row] = []
        above = -1
        while len(rows) < limit:
            priority = next(work.execute("next_priority", (self._route, above)), None)
            if priority is None:
                break
            above = priority[0]
            rows += self._in_turn(work, above, limit - len(rows))
        return rows

    def _in_turn(self, work: Work, priority: int, limit: int) -> list[Row]:
        """Due entries of one priority. However many wait, as much work as there are rows in the answer."""
        among = (self._route, priority)
        clients = self._clients(work, priority, limit)
        share = -(-limit // len(clients))  # rounded up
        while True:
            shares = [list(work.execute("select_due", (*among, client, share))) for client in clients]
            rows = [row for turn in zip_longest(*shares) for row in turn if row is not None]
            if len(rows) >= limit or not any(len(part) == share for part in shares):
                break
            share *= 2  # some had fewer than their share: the others get what is left over
        self._turns[among] = rows[:limit][-1][CLIENT]
        return rows[:limit]

    def _clients(self, work: Work, priority: int, limit: int) -> list[str]:
        """The clients that have due entries of that priority, at most `limit`, from the one whose turn it is on."""
        among = (self._route, priority)
        last = self._turns.get(among, "")
        clients: list[str] = []
        found = next(work.execute("next_client", (*among, last)), None)
        while found is not None and len(clients) < limit:
            clients.append(found[0])
            found = next(work.execute("next_client", (*among, found[0])), None)
        found = next(work.execute("first_client", among), None)
        while found is not None and found[0] <= last and len(clients) < limit:
            clients.append(found[0])
            found = next(work.execute("next_client", (*among, found[0])), None)
        return clients

    def _read(self, work: Work, rows: Sequence[Row]) -> list[Lease]:
        """The leases for `rows`, in their order, without those that must be set aside."""
        keys = [row[0] for row in rows]
        recipients: dict[int, list[Row]] = {key: [] for key in keys}
        for recipient in work.execute("select_recipients", (work.keys(keys),)):
            recipients[recipient[-1]].append(recipient)
        contents = {content[-1]: content[:2] for content in work.execute("select_contents", (work.keys(keys),))}
        leases: list[Lease] = []
        for row in rows:
            key, attempts = row[0], row[7]
            try:
                entry = entry_of(row, recipients[key], contents.get(key), attempts + self.counted, self._spool)
                leases.append(Lease(entry, pending_of(entry, recipients[key]), key, row[2] == TO_BOUNCE))
            except Unreadable as error:
                self._aside.append(set_aside(work, row[:8], str(error)))
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
        super().__init__(route, limit, now, spool, {})
        self._session_codes_only = session_codes_only
        self._released: list[Change] = []

    def run(self, work: Work) -> None:
        self._released = []
        super().run(work)
        self.uncounted = [cast("int", lease.key) for lease in self._leases]

    def _select(self, work: Work, limit: int) -> Sequence[Row]:
        rows = list(work.execute("select_to_bounce", (self._route, limit)))
        over = (self._route, self._now)
        expired = "select_expired_codes" if self._session_codes_only else "select_expired"
        rows += work.execute(expired, (*over, limit - len(rows)))
        rows += work.execute("select_held_codes", (*over, limit - len(rows)))
        for row in rows:
            if row[8] and (held := work.changed("release_recipients", (row[0],))):
                self._released.append(Change(row[0], waiting=held, held=-held, tried=row[7] > 0))
        return rows

    def apply(self, books: Books) -> list[Lease]:
        for change in self._released:
            books.changed(change)
        return super().apply(books)


def set_aside(work: Work, row: Row, text: str) -> SetAside:
    """Take an entry that cannot be read out of the way; `row` are its first columns, up to the attempts."""
    key, queue_id, attempts = row[0], row[1], row[7]
    waiting = next(work.execute("count_waiting", (key,)))[0]
    work.execute("set_aside", (text, key))
    return SetAside(queue_id, text, attempts > 0, waiting)
