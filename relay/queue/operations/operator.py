"""What an operator does to entries: now, or once the attempt under way is over.

A wish about an entry that somebody has leased is kept in its row, and done in the transaction that ends the
lease, if anything of the entry is left then; after a crash, when the store is opened. A later wish replaces it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, assert_never

from relay.events import EntryChanged, EntryHeld, Event, RecipientCancelled
from relay.mail.header import Header
from relay.queue.disk import Operation, Work
from relay.queue.ledger import Books, Change
from relay.queue.listing import Acted, Did, Verb
from relay.queue.model import Recorded
from relay.queue.rows import HELD, LEASED, SET_ASIDE, TO_BOUNCE, Row, address_text, names_in

_DAMAGED = "it cannot be read: cancel it, or release it once the cause is gone"


class _Found(NamedTuple):
    """An entry as an act finds it. `held` recipients wait for a person, `open` ones for an attempt."""

    key: int
    queue_id: str
    place: int
    route: str
    attempts: int
    session_code: int
    spool_file: str | None
    size: int
    received_at: int
    wish: str
    held: int
    open: int

    @property
    def waiting(self) -> int:
        """The open recipients, where the ledger does not count them as held."""
        return 0 if self.place in (HELD, SET_ASIDE) else self.open


class _No(Exception):
    """It cannot be, or is so already; the text says why."""

    def __init__(self, did: Did, why: str) -> None:
        super().__init__(why)
        self.did = did


def end(work: Work, key: int, ended_at: int, *, session_code: bool, history: Recorded) -> None:
    """An entry whose recipients have come to their ends leaves the queue, with its content."""
    if history:
        header = Header.parse(b"".join([bytes(head) for (head,) in work.execute("select_head", (key,))]))
        work.execute("record_entry", (key, ended_at, *names_in(header, session_code=session_code, recorded=history)))
    else:
        work.execute("delete_attempts", (work.keys([key]),))
    work.end([key], overwrite=session_code)


def apply_wishes(work: Work, keys: Iterable[int], now: int, *, history: Recorded) -> list[Change]:
    """Do what is wished of entries whose leases have just ended."""
    changes = []
    for row in list(work.execute("found_wishes", (work.keys(keys),))):
        found = _Found._make(row)
        verb, _, route = found.wish.partition(":")
        try:
            changes.append(_Act(work, found, now, history).do(Verb(verb), route))
        except (_No, ValueError):  # it is so already, or a newer relay's wish
            work.execute("wish", ("", found.key))
    return changes


class Act(Operation[Sequence[Acted]]):
    __slots__ = ("_acted", "_changes", "_history", "_now", "_queue_ids", "_route", "_verb", "_wishes")

    def __init__(self, verb: Verb, queue_ids: Sequence[str], now: int, route: str, *, history: Recorded) -> None:
        super().__init__()
        self._verb = verb
        self._queue_ids = queue_ids
        self._now = now
        self._route = route
        self._history = history
        self._acted: list[Acted] = []
        self._changes: list[Change] = []
        self._wishes: dict[int, str] = {}

    def run(self, work: Work) -> None:
        self._acted, self._changes, self._wishes = [], [], {}
        for queue_id in self._queue_ids:
            row = next(work.execute("found_by_name", (queue_id,)), None)
            self._acted.append(Acted(queue_id, Did.UNKNOWN) if row is None else self._act(work, row))

    def _act(self, work: Work, row: Row) -> Acted:
        found = _Found._make(row)
        try:
            if found.place == LEASED:
                wish = _wish(found, self._verb, self._route)
                work.execute("wish", (wish, found.key))
                self._wishes[found.key] = wish
                return Acted(found.queue_id, Did.AFTER_ATTEMPT)
            self._changes.append(_Act(work, found, self._now, self._history).do(self._verb, self._route))
        except _No as no:
            return Acted(found.queue_id, no.did, str(no))
        return Acted(found.queue_id, Did.DONE)

    def apply(self, books: Books) -> Sequence[Acted]:
        books.wishes.update(self._wishes)
        for change in self._changes:
            books.changed(change)
        self.ended_files = [change.spool_file for change in self._changes if change.gone and change.spool_file]
        self.leaves_traces = any(change.gone and change.session_code for change in self._changes)
        return self._acted


def _wish(found: _Found, verb: Verb, route: str) -> str:
    """What is kept for the end of the attempt."""
    if verb is Verb.RETRY:
        raise _No(Did.NOTHING, "it is being tried now")
    if verb is Verb.RELEASE and not found.held and not found.wish:
        raise _No(Did.NOTHING, "it is not held")
    if verb is Verb.REROUTE:
        _may_be_rerouted(found)
        return f"{verb.value}:{route}"
    return verb.value


def _may_be_rerouted(found: _Found) -> None:
    if found.session_code:
        raise _No(Did.IMPOSSIBLE, "a session code goes its own ways")


class _Act:
    """One act on one entry that nobody has leased."""

    __slots__ = ("_found", "_history", "_now", "_work")

    def __init__(self, work: Work, found: _Found, now: int, history: Recorded) -> None:
        self._work = work
        self._found = found
        self._now = now
        self._history = history

    def do(self, verb: Verb, route: str) -> Change:
        match verb:
            case Verb.RETRY:
                return self._retry()
            case Verb.HOLD:
                return self._hold()
            case Verb.RELEASE:
                return self._release()
            case Verb.CANCEL:
                return self._cancel()
            case Verb.BOUNCE:
                return self._bounce()
            case Verb.REROUTE:
                return self._reroute(route)
            case _:
                assert_never(verb)

    def _retry(self) -> Change:
        found = self._found
        if found.place == HELD:
            raise _No(Did.IMPOSSIBLE, "it is held: release it")
        if found.place == SET_ASIDE and not found.open and found.held:
            self._work.execute("keep_entry", (found.key,))  # as it was held before it was damaged
            return self._changed(Verb.RETRY)
        self._work.execute("wake_entry", (self._now, found.key))
        woken = found.open if found.place == SET_ASIDE else 0
        return self._changed(Verb.RETRY, waiting=woken, held=-woken)

    def _hold(self) -> Change:
        found = self._found
        if found.place == HELD:
            raise _No(Did.NOTHING, "it is held already")
        if found.place == SET_ASIDE:
            raise _No(Did.NOTHING, "it waits for a person already, because it cannot be read")
        self._work.execute("hold_recipients", (found.key,))
        self._work.execute("keep_entry", (found.key,))
        event = EntryHeld(found.queue_id, "", found.open)
        return self._change((event,), waiting=-found.open, held=found.open)

    def _release(self) -> Change:
        found = self._found
        if not found.held and found.place != SET_ASIDE:
            raise _No(Did.NOTHING, "it is not held")
        self._work.execute("release_recipients", (found.key,))
        self._work.execute("release_entry", (self._now, found.key))
        woken = found.held + (found.open if found.place == SET_ASIDE else 0)
        return self._changed(Verb.RELEASE, waiting=woken, held=-woken)

    def _cancel(self) -> Change:
        work, found = self._work, self._found
        delay = (self._now - found.received_at) / 1e6
        events = [
            RecipientCancelled(
                found.queue_id, address_text(address), found.route, found.attempts, delay, bool(found.session_code)
            )
            for (address,) in work.execute("open_recipients", (found.key,))
        ]
        work.execute("cancel_recipients", (self._now, found.key))
        end(work, found.key, self._now, session_code=bool(found.session_code), history=self._history)
        everybody = found.open + found.held
        return self._change(
            tuple(events), waiting=-found.waiting, held=found.waiting - everybody, cancelled=everybody, gone=True
        )

    def _bounce(self) -> Change:
        found = self._found
        if found.place == SET_ASIDE:
            raise _No(Did.IMPOSSIBLE, _DAMAGED)
        if found.place == TO_BOUNCE:
            raise _No(Did.NOTHING, "it is to be bounced already")
        self._work.execute("release_recipients", (found.key,))
        self._work.execute("bounce_entry", (found.key,))
        return self._changed(Verb.BOUNCE, waiting=found.held, held=-found.held)

    def _reroute(self, route: str) -> Change:
        found = self._found
        _may_be_rerouted(found)
        self._work.execute("reroute_entry", (route, found.key))
        if found.place not in (HELD, SET_ASIDE):
            self._work.execute("wake_entry", (self._now, found.key))
        return self._changed(Verb.REROUTE, route=route)

    def _changed(self, verb: Verb, *, waiting: int = 0, held: int = 0, route: str = "") -> Change:
        return self._change((EntryChanged(self._found.queue_id, verb.value, route),), waiting=waiting, held=held)

    def _change(
        self, events: tuple[Event, ...], *, waiting: int, held: int, cancelled: int = 0, gone: bool = False
    ) -> Change:
        found = self._found
        return Change(
            found.key,
            events,
            waiting,
            held,
            cancelled,
            tried=found.attempts > 0,
            gone=gone,
            octets=found.size,
            spool_file=found.spool_file,
            session_code=bool(found.session_code),
        )
