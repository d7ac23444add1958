"""Questions to the store: each is one short read transaction, on the reading thread.

What is shown of an entry never fails for a column that makes no sense: who looks may be looking for that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from json.encoder import encode_basestring

from relay.mail.address import Address
from relay.mail.header import Header
from relay.queue.listing import Addressee, Listed, Place, Shown, Standing, Tried, Wanted
from relay.queue.model import Kind, Reader, Told
from relay.queue.rows import (
    DUE,
    HELD,
    LEASED,
    SET_ASIDE,
    SLEEPING,
    TO_BOUNCE,
    Row,
    address_of,
    address_text,
    microseconds,
    moment,
    names,
    reader_text,
)
from relay.queue.work import Work

SLICE = 50_000  # messages of the queue or of the history that one transaction looks at
SUMMARY_OCTETS = 512 * 1024  # of the lines of one summary
_ANY_PLACE = -1
_WAITING = (DUE, SLEEPING, TO_BOUNCE)
_PLACES: dict[Place, tuple[int, bool | None]] = {
    Place.PENDING: (sum(1 << place for place in _WAITING), False),
    Place.DEFERRED: (sum(1 << place for place in _WAITING), True),
    Place.ACTIVE: (1 << LEASED, None),
    Place.HELD: (1 << HELD, None),
    Place.DAMAGED: (1 << SET_ASIDE, None),
}
_SAYS_THE_SUBJECT = frozenset({b"subject", b"thread-topic"})


def first(route: str) -> Callable[[Work], tuple[bool, int] | None]:
    """Whether the first waiting entry of `route` is due, and when."""

    def look(read: Work) -> tuple[bool, int] | None:
        for due, name in ((True, "first_due"), (False, "first_sleeping")):
            for (at,) in read.execute(name, (route,)):
                return due, at
        return None

    return look


def last_sleeping(read: Work) -> int | None:
    last: int | None = next(read.execute("last_sleeping"))[0]
    return last


def any_over(route: str, now: int, *, session_codes_only: bool) -> Callable[[Work], bool]:
    """Whether an entry of `route` is to be bounced, or past its lifetime."""

    def look(read: Work) -> bool:
        expired = "any_expired_code" if session_codes_only else "any_expired"
        asked = ((expired, (route, now)), ("any_to_bounce", (route,)), ("any_held_code", (route, now)))
        return any(next(read.execute(name, bindings), None) is not None for name, bindings in asked)

    return look


def routes(read: Work) -> list[str]:
    """The routes that mail waits under which nobody has leased."""
    found: dict[str, None] = {}
    indexes = (("next_route_due", ()), ("next_route_sleeping", ()))
    for name, bindings in (*indexes, *(("next_route_apart", (place,)) for place in (HELD, SET_ASIDE, TO_BOUNCE))):
        row = next(read.execute(name, (*bindings, "")), None)
        while row is not None:
            found[row[0]] = None
            row = next(read.execute(name, (*bindings, row[0])), None)
    return list(found)


def standing(read: Work) -> list[Standing]:
    """What nobody has leased; a pair of route and place may come twice."""
    found: list[Standing] = []

    def note(route: str, place: Place, messages: int, oldest: int | None, in_doubt: int = 0) -> None:
        if messages:
            at = moment(next(read.execute("received_at", (oldest,)))[0])
            found.append(Standing(route, place, messages, at, in_doubt))

    for name in ("standing_due", "standing_sleeping"):
        for route, messages, tried, oldest, oldest_tried in list(read.execute(name)):
            note(route, Place.PENDING, messages - tried, oldest)
            note(route, Place.DEFERRED, tried, oldest_tried)
    in_doubt: dict[str, int] = dict(read.execute("standing_in_doubt"))
    for place, route, messages, oldest in list(read.execute("standing_apart")):
        if place == HELD:
            note(route, Place.HELD, messages, oldest, in_doubt.get(route, 0))
        else:
            note(route, Place.DAMAGED, messages, oldest)
    for route, tried, received_at in read.execute("standing_to_bounce"):
        found.append(Standing(route, Place.DEFERRED if tried else Place.PENDING, 1, moment(received_at)))
    return found


def gathered(found: Iterable[Standing]) -> list[Standing]:
    """One for each pair of route and place."""
    pairs: dict[tuple[str, Place], Standing] = {}
    for one in found:
        pair = (one.route, one.place)
        other = pairs.get(pair)
        pairs[pair] = one if other is None else _together(one, other)
    return [pairs[pair] for pair in sorted(pairs)]


def _together(one: Standing, other: Standing) -> Standing:
    in_doubt = one.in_doubt + other.in_doubt
    return Standing(one.route, one.place, one.messages + other.messages, min(one.oldest, other.oldest), in_doubt)


# Lists


Found = tuple[list[Listed], int | None]
"""What a slice of the queue has, and where the next one begins, if there may be one."""


def listed(wanted: Wanted, *, after: int, limit: int) -> Callable[[Work], Found]:
    """Of a slice of the queue, oldest first."""
    return _queue("list_entries", "slice_upwards", wanted, after, limit)


def latest(wanted: Wanted, *, before: int, limit: int) -> Callable[[Work], Found]:
    """Of a slice of the queue, newest first."""
    return _queue("latest_entries", "slice_downwards", wanted, before, limit)


def _queue(name: str, slice_: str, wanted: Wanted, begin: int, limit: int) -> Callable[[Work], Found]:
    def look(read: Work) -> Found:
        end: int | None = next(read.execute(slice_, (begin, SLICE)))[0]
        if end is None or wanted.place is Place.FINISHED:
            return [], None
        places, tried = (_ANY_PLACE, None) if wanted.place is None else _PLACES[wanted.place]
        asked = (wanted.route or None, _since(wanted), _like(wanted.from_), _like(wanted.to))
        return _entries(read, list(read.execute(name, (begin, places, tried, *asked, limit, end)))), end

    return look


def ends_of_history(read: Work) -> tuple[int, int]:
    """The keys of the first and the last message; 0 and 0 when there is none."""
    least, last = next(read.execute("history_ends"))
    return least, last


def finished(wanted: Wanted, *, above: int, up_to: int, limit: int) -> Callable[[Work], list[Listed]]:
    """Of the history, newest first, with `above` < key <= `up_to`."""
    to = _like(wanted.to)
    sieve = None if to is None else _sieve(wanted.to)
    asked = (wanted.route or None, _since(wanted), _like(wanted.from_), to, sieve)
    return lambda read: [_finished(row) for row in read.execute("find_history", (above, up_to, *asked, limit))]


def named(prefix: str) -> Callable[[Work], list[str]]:
    """At most two queue IDs that begin with `prefix`; one that is `prefix` comes alone."""

    def look(read: Work) -> list[str]:
        bounds = (prefix, prefix + "\U0010ffff")
        found = {row[0] for name in ("names_in_queue", "names_in_history") for row in read.execute(name, bounds)}
        return [prefix] if prefix in found else sorted(found)[:2]

    return look


def shown(queue_id: str) -> Callable[[Work], Shown | None]:
    def look(read: Work) -> Shown | None:
        for row in read.execute("entry_named", (queue_id,)):
            (entry,) = _entries(read, [row])
            head = b"" if entry.place is Place.DAMAGED else b"".join([bytes(head) for (head,) in _head(read, row[0])])
            if entry.session_code:
                head = Header.parse(head).delete(_SAYS_THE_SUBJECT).to_bytes()
            return Shown(entry, _names(row[23]), row[15], row[16], row[17], row[22], head, _tries(read, entry))
        for row in read.execute("history_named", (queue_id,)):
            entry = _finished(row)
            return Shown(entry, _names(row[13]), "", "", None, None, b"", _tries(read, entry))
        return None

    return look


def recalled(topic: str, key: str) -> Callable[[Work], int | None]:
    def look(read: Work) -> int | None:
        for (at,) in read.execute("recall", (topic, key)):
            return int(at)
        return None

    return look


def memories(topic: str) -> Callable[[Work], list[tuple[str, int, str]]]:
    def look(read: Work) -> list[tuple[str, int, str]]:
        return [(str(key), int(at), str(value)) for key, at, value in read.execute("memories", (topic,))]

    return look


def readers(since: int) -> Callable[[Work], list[Reader]]:
    def look(read: Work) -> list[Reader]:
        sent: dict[str, list[datetime]] = {}
        for reader, at in read.execute("told_since", (since,)):
            sent.setdefault(reader, []).append(moment(at))
        waiting: dict[str, int] = dict(read.execute("told_waiting"))
        everybody = dict.fromkeys((*sent, *waiting))
        return [Reader(address_of(one), tuple(sent.get(one, ())), waiting.get(one, 0)) for one in everybody]

    return look


def collected(reader: Address, limit: int) -> Callable[[Work], list[Told]]:
    def look(read: Work) -> list[Told]:
        found: list[Told] = []
        octets = 0
        for queue_id, at, line in read.execute("collected", (reader_text(reader), limit)):
            octets += len(line)
            if found and octets > SUMMARY_OCTETS:
                break  # a message may have a thousand recipients
            found.append(Told(reader, queue_id, moment(at), line))
        return found

    return look


def first_since(at: int) -> Callable[[Work], int | None]:
    """The key of the first message of the history that was accepted at that moment or later."""

    def look(read: Work) -> int | None:
        for (key,) in read.execute("history_since", (at,)):
            return int(key)
        return None

    return look


def ended_before(at: int, *, above: int, below: int, limit: int) -> Callable[[Work], list[int]]:
    """Keys of the history, `above` < key < `below`."""
    return lambda read: [key for (key,) in read.execute("ended_before", (above, below, at, limit))]


# Rows


def _head(read: Work, key: int) -> Iterable[Row]:
    return read.execute("select_head", (key,))


def _entries(read: Work, rows: Sequence[Row]) -> list[Listed]:
    recipients: dict[int, list[Addressee]] = {row[0]: [] for row in rows}
    leased = {row[0] for row in rows if row[2] == LEASED}
    for address, state, reply, upstream, ended_at, key in read.execute("select_addressees", (read.keys(recipients),)):
        now = "active" if key in leased and state == "pending" else state
        recipients[key].append(Addressee(address, now, reply, upstream, _moment(ended_at)))
    return [_entry(row, recipients[row[0]]) for row in rows]


def _entry(row: Row, recipients: Collection[Addressee]) -> Listed:
    place, tried = row[2], row[7] > 0
    where = Place.DEFERRED if tried else Place.PENDING
    where = {LEASED: Place.ACTIVE, HELD: Place.HELD, SET_ASIDE: Place.DAMAGED}.get(place, where)
    return Listed(
        key=row[0],
        queue_id=row[1],
        place=where,
        kind=_kind(row[9]),
        route=row[3],
        size=row[10],
        attempts=row[7],
        received_at=_moment(row[11]) or moment(0),
        next_attempt_at=_moment(row[5]) if place in (DUE, SLEEPING) else None,
        expires_at=_moment(row[6]),
        ended_at=None,
        listener=row[13],
        client=row[14],
        user=row[18],
        reverse_path=address_text(row[19] or ""),
        recipients=tuple(recipients),
        session_code=bool(row[8]),
        wish=row[25].partition(":")[0],
        damage=row[24] or "",
    )


def _finished(row: Row) -> Listed:
    return Listed(
        key=row[0],
        queue_id=row[1],
        place=Place.FINISHED,
        kind=_kind(row[12]),
        route=row[7],
        size=row[9],
        attempts=row[10],
        received_at=_moment(row[2]) or moment(0),
        next_attempt_at=None,
        expires_at=None,
        ended_at=_moment(row[3]),
        listener=row[4],
        client=row[5],
        user=row[6],
        reverse_path=address_text(row[8] or ""),
        recipients=tuple(
            [
                Addressee(address, state, reply, upstream, _moment(at))
                for address, state, reply, upstream, at in json.loads(row[14])
            ]
        ),
        session_code=bool(row[11]),
    )


def _tries(read: Work, entry: Listed) -> tuple[Tried, ...]:
    return tuple(
        [
            Tried(attempt, moment(at), entry.recipients[n].address, upstream, reply)
            for attempt, at, n, upstream, reply in read.execute("select_attempts", (entry.key,))
            if n < len(entry.recipients)
        ]
    )


def _moment(at: int | None) -> datetime | None:
    try:
        return None if at is None else moment(at)
    except OverflowError:
        return None


def _kind(text: str) -> Kind:
    return Kind.BOUNCE if text == Kind.BOUNCE.value else Kind.MAIL


def _names(text: str) -> tuple[str, ...]:
    try:
        return names(text)
    except ValueError:
        return ()


# Patterns


def _since(wanted: Wanted) -> int | None:
    return None if wanted.since is None else microseconds(wanted.since)


def _like(glob: str) -> str | None:
    r"""For LIKE … ESCAPE '\', which folds case as domains do; "<>" stays. None: any."""
    return "".join([_WILD.get(character, character) for character in glob]) or None


def _sieve(glob: str) -> str:
    """For the JSON of recipients: whatever has an address like `glob` passes, and little else."""
    quoted = encode_basestring(glob)[1:-1]  # neither * nor ? is changed by that
    inside = "".join(["%" if character == "?" else _WILD.get(character, character) for character in quoted])
    return f'%["{inside}",%'


_WILD = {"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"}
