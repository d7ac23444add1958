"""A transaction of SQLite under way, as operations and questions use it (`disk.Work`)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import Any

import apsw

from relay.queue.disk import Mend
from relay.queue.ledger import Count
from relay.queue.rows import EntryRow, Row
from relay.queue.sqlite.statements import INSERTS, LARGEST, STATEMENTS

WAKE_AT_ONCE = 500  # more than is leased at once, so that all that slept is awake before long; and no commit waits
_NO_KEYS = array("q", (-1,))  # an empty array cannot be bound

Turns = dict[tuple[str, int], str]
"""By route and priority, whose entry was leased last: the next is the turn of the client after it."""


class Transaction:
    def __init__(self, connection: apsw.Connection, turns: Turns | None = None) -> None:
        self._connection = connection
        self._turns = {} if turns is None else turns

    def execute(self, name: str, bindings: Sequence[Any] = ()) -> Iterator[Row]:
        return self._connection.execute(STATEMENTS[name], bindings)

    def changed(self, name: str, bindings: Sequence[Any] = ()) -> int:
        self._connection.execute(STATEMENTS[name], bindings)
        return self._connection.changes()

    def insert(self, name: str, rows: Sequence[Row]) -> None:
        statements = INSERTS[name]
        done, left = 0, len(rows)
        while left:
            size = min(left, LARGEST)
            values = tuple(chain.from_iterable(rows[done : done + size]))
            self._connection.execute(statements[size], values)
            done += size
            left -= size

    def keys(self, keys: Iterable[int]) -> object:
        return apsw.carray(array("q", keys) or _NO_KEYS)

    def end(self, keys: Sequence[int], *, overwrite: bool) -> None:
        if overwrite:
            self._connection.execute("PRAGMA secure_delete = ON")
        try:
            self._connection.execute(STATEMENTS["delete_entries"], (self.keys(keys),))
        finally:
            if overwrite:
                self._connection.execute("PRAGMA secure_delete = OFF")

    def due(self, route: str, now: int, limit: int) -> list[EntryRow]:
        self.execute("wake", (route, now, max(limit, WAKE_AT_ONCE)))
        rows: list[EntryRow] = []
        above = -1
        while len(rows) < limit:
            priority = next(self.execute("next_priority", (route, above)), None)
            if priority is None:
                break
            above = priority[0]
            rows += self._in_turn(route, above, limit - len(rows))
        return rows

    def _in_turn(self, route: str, priority: int, limit: int) -> list[EntryRow]:
        """Due entries of one priority. However many wait, as much work as there are rows in the answer."""
        among = (route, priority)
        clients = self._clients(among, limit)
        share = -(-limit // len(clients))  # rounded up
        while True:
            shares = [
                [EntryRow._make(row) for row in self.execute("select_due", (*among, client, share))]
                for client in clients
            ]
            rows = [row for turn in zip_longest(*shares) for row in turn if row is not None]
            if len(rows) >= limit or not any(len(part) == share for part in shares):
                break
            share *= 2  # some had fewer than their share: the others get what is left over
        self._turns[among] = rows[:limit][-1].client
        return rows[:limit]

    def _clients(self, among: tuple[str, int], limit: int) -> list[str]:
        """The clients that have due entries of that priority, at most `limit`, from the one whose turn it is on."""
        last = self._turns.get(among, "")
        clients: list[str] = []
        found = next(self.execute("next_client", (*among, last)), None)
        while found is not None and len(clients) < limit:
            clients.append(found[0])
            found = next(self.execute("next_client", (*among, found[0])), None)
        found = next(self.execute("first_client", among), None)
        while found is not None and found[0] <= last and len(clients) < limit:
            clients.append(found[0])
            found = next(self.execute("next_client", (*among, found[0])), None)
        return clients

    def mend(self, mend: Mend) -> Count:
        """The disk says what the books say, and then is counted."""
        if mend.undone:
            self.execute("untell", (self.keys(mend.undone),))
            self.end(mend.undone, overwrite=True)
            self.execute("delete_attempts", (self.keys(mend.undone),))
            self.execute("delete_history", (self.keys(mend.undone),))
            self.execute("not_summarised", (self.keys(mend.undone),))
        self.execute("withhold", (self.keys(mend.withheld),))
        leased = self.keys([*mend.leased, *mend.withheld])
        self.execute("lose_leases", (self.keys(mend.uncounted), leased))
        for key, lease in mend.leased.items():
            self.execute("keep_lease", (lease.entry.attempts, lease.entry.route, mend.wishes.get(key, ""), key))
            self.execute("keep_recipients", (self.keys([one.index for one in lease.pending]), key))
        return Count(self.recipients(leased=False), next(self.execute("octets_not_leased"))[0])

    def recipients(self, *, leased: bool) -> dict[str, int]:
        """Those that wait, by their state in the ledger; with `leased` those of leased entries as well."""
        counts = next(self.execute("found_recipients", (leased,)))
        return dict(zip(("pending", "deferred", "held"), counts, strict=True))
