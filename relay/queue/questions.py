"""Questions to the store: each is one short read transaction, on the reading thread.

What is shown of an entry never fails for a column that makes no sense: who looks may be looking for that.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from json.encoder import encode_basestring

from relay.mail.address import Address
from relay.mail.header import Header
from relay.queue.disk import Work
from relay.queue.listing import Addressee, LeftAs, Listed, Place, Shown, Standing, Tried, Wanted
from relay.queue.model import Kind, Memory, Reader, Recorded, Told
from relay.queue.rows import (
    DUE,
    HELD,
    LEASED,
    SET_ASIDE,
    SLEEPING,
    TO_BOUNCE,
    EntryRow,
    HistoryRow,
    address_of,
    address_text,
    microseconds,
    moment,
    names,
    names_in,
    reader_text,
)

_FIRST_SLICES = (1000, 8000)
SLICE = 50_000  # messages of the queue or of the history that one transaction looks at
HEADERS_AT_ONCE = 500  # messages of the queue whose headers one transaction reads
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


def first(read: Work, route: str) -> tuple[bool, int] | None:
    """Whether the first waiting entry of `route` is due, and when."""
    for due, name in ((True, "first_due"), (False, "first_sleeping")):
        for (at,) in read.execute(name, (route,)):
            return due, at
    return None


def sleeping(read: Work) -> list[tuple[str, int]]:
    """The routes under which mail sleeps, and until when the last of it does."""
    names = list(read.execute("routes_sleeping"))
    return [(route, next(read.execute("last_sleeping", (route,)))[0]) for (route,) in names]


def any_over(read: Work, route: str, now: int, *, session_codes_only: bool) -> bool:
    """Whether an entry of `route` is to be bounced, or past its lifetime."""
    expired = "any_expired_code" if session_codes_only else "any_expired"
    asked = ((expired, (route, now)), ("any_to_bounce", (route,)), ("any_held_code", (route, now)))
    return any(_any(read, name, bindings) for name, bindings in asked)


def routes(read: Work) -> list[str]:
    """The routes that mail waits under which nobody has leased."""
    found = [*read.execute("routes_due"), *read.execute("routes_sleeping")]
    for place in (HELD, SET_ASIDE, TO_BOUNCE):
        found += read.execute("routes_apart", (place,))
    return list(dict.fromkeys([route for (route,) in found]))


def standing(read: Work) -> list[Standing]:
    """What nobody has leased; a pair of route and place may come twice."""
    found: list[Standing] = []

    def note(route: str, place: Place, messages: int, oldest: int | None, in_doubt: int = 0) -> None:
        if messages:
            at = _moment(next(read.execute("received_at", (oldest,)))[0]) or moment(0)
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
        at = _moment(received_at) or moment(0)
        found.append(Standing(route, Place.DEFERRED if tried else Place.PENDING, 1, at))
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
"""What a slice of the queue or the history has, and where the next one begins, if there may be one."""


def slices(*, headers: bool = False) -> Iterator[int]:
    """How many messages to look at: few at first, since what is asked for is mostly near. `headers` are read."""
    if not headers:
        yield from _FIRST_SLICES
    while True:
        yield HEADERS_AT_ONCE if headers else SLICE


def listed(read: Work, wanted: Wanted, *, after: int, among: int, limit: int) -> Found:
    """Of a slice of the queue, oldest first."""
    end = _end_of_slice(read, "slice_upwards", after, among)
    if end is None or wanted.place is Place.FINISHED:
        return [], None
    return _found(read, "list_entries", wanted, (after, end), limit), end


def latest(read: Work, wanted: Wanted, *, before: int, among: int, limit: int) -> Found:
    """Of a slice of the queue, newest first."""
    since = _since(wanted)
    end = _end_of_slice(read, "slice_downwards", before, among)
    if end is None or wanted.place is Place.FINISHED:
        return [], None
    found = _found(read, "latest_entries", wanted, (before, end), among if wanted.subject else limit)
    if wanted.subject:
        named = named_by_header(read, found, Recorded.SUBJECT)
        found = [one for one, with_subject in zip(found, named, strict=True) if _about(with_subject, wanted)][:limit]
    return found, end if since is None or _any(read, "any_entry_since", (before, end, since)) else None


def _end_of_slice(read: Work, name: str, begin: int, among: int) -> int | None:
    end: int | None = next(read.execute(name, (begin, among - 1)))[0]
    return end


def _found(read: Work, name: str, wanted: Wanted, ends: tuple[int, int], limit: int) -> list[Listed]:
    places, tried = (_ANY_PLACE, None) if wanted.place is None else _PLACES[wanted.place]
    asked = (wanted.route or None, _since(wanted), _like(wanted.from_), _like(wanted.to))
    found = read.execute(name, (ends[0], places, tried, *asked, limit, ends[1]))
    return _entries(read, [EntryRow._make(row) for row in found])


def _any(read: Work, name: str, bindings: Sequence[object]) -> bool:
    return next(read.execute(name, bindings), None) is not None


def ends_of_history(read: Work) -> tuple[int, int]:
    """The keys of the first and the last message; 0 and 0 when there is none."""
    least, last = next(read.execute("history_ends"))
    return least, last


def finished(read: Work, wanted: Wanted, *, above: int, up_to: int, limit: int) -> Found:
    """Of the history, newest first, with `above` < key <= `up_to`."""
    since, to = _since(wanted), _like(wanted.to)
    sieve = None if to is None else _sieve(wanted.to)
    about = _subject_sieve(wanted.subject) if wanted.subject else None
    asked = (wanted.route or None, since, _like(wanted.from_), to, sieve)
    rows = read.execute("find_history", (above, up_to, *asked, up_to - above if about else limit, about))
    found = list(islice((one for one in map(_finished, map(HistoryRow._make, rows)) if _about(one, wanted)), limit))
    goes_on = since is None or _any(read, "any_finished_since", (above, up_to, since))
    return found, above if goes_on else None


def named(read: Work, prefix: str) -> list[str]:
    """At most two queue IDs that begin with `prefix`; one that is `prefix` comes alone."""
    bounds = (prefix, prefix + "\U0010ffff")
    found = {one for name in ("names_in_queue", "names_in_history") for (one,) in read.execute(name, bounds)}
    return [prefix] if prefix in found else sorted(found)[:2]


def shown(read: Work, queue_id: str, recorded: Recorded) -> Shown | None:
    for row in map(EntryRow._make, read.execute("entry_named", (queue_id,))):
        (entry,) = _entries(read, [row])
        head = b"" if entry.place is Place.DAMAGED else _head(read, row.id)
        header = Header.parse(head)
        if entry.session_code:
            head = header.delete(_SAYS_THE_SUBJECT).to_bytes()
        entry = _named(entry, header, recorded)
        because = _names(row.because)
        return Shown(entry, because, row.helo, row.protocol, row.tls, row.envid, head, _tries(read, entry))
    for past in map(HistoryRow._make, read.execute("history_named", (queue_id,))):
        entry = _finished(past)
        return Shown(entry, _names(past.because), "", "", None, None, b"", _tries(read, entry))
    return None


def named_by_header(read: Work, entries: Sequence[Listed], recorded: Recorded) -> list[Listed]:
    """Those of them that are in the queue with what their header says, as `recorded`."""
    without = (Place.FINISHED, Place.DAMAGED)
    return [
        one if one.place in without else _named(one, Header.parse(_head(read, one.key)), recorded) for one in entries
    ]


def _named(entry: Listed, header: Header, recorded: Recorded) -> Listed:
    message_id, subject = names_in(header, session_code=entry.session_code, recorded=recorded)
    return replace(entry, message_id=_message_id(message_id), subject=subject)


def recalled(read: Work, topic: str, key: str) -> datetime | None:
    for (at,) in read.execute("recall", (topic, key)):
        return moment(at)
    return None


def memories(read: Work, topic: str) -> list[Memory]:
    return [Memory(key, moment(at), value) for key, at, value in read.execute("memories", (topic,))]


def readers(read: Work, since: int) -> list[Reader]:
    sent: dict[str, list[datetime]] = {}
    for reader, at in read.execute("told_since", (since,)):
        sent.setdefault(reader, []).append(moment(at))
    waiting: dict[str, int] = dict(read.execute("told_waiting"))
    everybody = dict.fromkeys((*sent, *waiting))
    return [Reader(address_of(one), tuple(sent.get(one, ())), waiting.get(one, 0)) for one in everybody]


def collected(read: Work, reader: Address, limit: int) -> list[Told]:
    found: list[Told] = []
    octets = 0
    for queue_id, at, line in read.execute("collected", (reader_text(reader), limit)):
        octets += len(line)
        if found and octets > SUMMARY_OCTETS:
            break  # a message may have a thousand recipients
        found.append(Told(reader, queue_id, moment(at), line))
    return found


def first_since(read: Work, at: int) -> int | None:
    """The key of the first message of the history that was accepted at that moment or later."""
    low, high = ends_of_history(read)
    high += 1
    # Keys follow the time of acceptance, which is before the end: what was accepted later cannot have ended before.
    while low < high:
        middle = (low + high) // 2
        key, received_at = next(read.execute("first_of_history", (middle,)), (high, at))
        low, high = (low, middle) if received_at >= at else (key + 1, high)
    return None if next(read.execute("first_of_history", (low,)), None) is None else low


def ended_before(read: Work, above: int, limit: int, *, at: int, below: int) -> list[int]:
    """Keys of the history, `above` < key < `below`."""
    return [key for (key,) in read.execute("ended_before", (above, below, at, limit))]


def with_subject(read: Work, above: int, limit: int) -> list[int]:
    """Keys of the history, `above` < key, of messages whose subject it has."""
    return [key for (key,) in read.execute("with_subject", (above, limit))]


# Rows


def _head(read: Work, key: int) -> bytes:
    return b"".join([bytes(head) for (head,) in read.execute("select_head", (key,))])


def _entries(read: Work, rows: Sequence[EntryRow]) -> list[Listed]:
    recipients: dict[int, list[Addressee]] = {row.id: [] for row in rows}
    leased = {row.id for row in rows if row.place == LEASED}
    for key, address, state, reply, upstream, ended_at in read.execute("select_addressees", (read.keys(recipients),)):
        now = "active" if key in leased and state == "pending" else state
        recipients[key].append(Addressee(address, now, reply, upstream, _moment(ended_at)))
    return [_entry(row, recipients[row.id]) for row in rows]


def _entry(row: EntryRow, recipients: Collection[Addressee]) -> Listed:
    where = Place.DEFERRED if row.attempts > 0 else Place.PENDING
    where = {LEASED: Place.ACTIVE, HELD: Place.HELD, SET_ASIDE: Place.DAMAGED}.get(row.place, where)
    return Listed(
        key=row.id,
        queue_id=row.queue_id,
        place=where,
        kind=_kind(row.kind),
        route=row.route,
        size=row.size,
        attempts=row.attempts,
        received_at=_moment(row.received_at) or moment(0),
        next_attempt_at=_moment(row.next_attempt_at) if row.place in (DUE, SLEEPING) else None,
        expires_at=_moment(row.expires_at),
        ended_at=None,
        listener=row.listener,
        client=row.client,
        user=row.user,
        reverse_path=address_text(row.reverse_path or ""),
        recipients=tuple(recipients),
        session_code=bool(row.session_code),
        wish=row.wish.partition(":")[0],
        damage=row.set_aside or "",
        left_as=_left_as(row.left_as),
    )


def _finished(row: HistoryRow) -> Listed:
    return Listed(
        key=row.key,
        queue_id=row.queue_id,
        place=Place.FINISHED,
        kind=_kind(row.kind),
        route=row.route,
        size=row.size,
        attempts=row.attempts,
        received_at=_moment(row.received_at) or moment(0),
        next_attempt_at=None,
        expires_at=None,
        ended_at=_moment(row.ended_at),
        listener=row.listener,
        client=row.client,
        user=row.user,
        reverse_path=address_text(row.reverse_path or ""),
        recipients=tuple(
            [
                Addressee(address, state, reply, upstream, _moment(at))
                for address, state, reply, upstream, at in json.loads(row.recipients)
            ]
        ),
        session_code=bool(row.session_code),
        left_as=_left_as(row.left_as),
        message_id=_message_id(row.message_id),
        subject=row.subject,
    )


def _left_as(kept: str | None) -> LeftAs | None:
    try:
        author, reverse_path, result = json.loads(kept or "null")
        return LeftAs(author, address_text(reverse_path or ""), result)
    except (ValueError, TypeError, AttributeError):
        return None


def _message_id(field: str | None) -> str | None:
    """The value of the field that a row has."""
    return None if field is None else " ".join(field.partition(":")[2].split())


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


def _subject_sieve(words: str) -> str:
    """Whatever has `words` in it passes, and little else: LIKE knows the case of ASCII only."""
    letters = unicodedata.normalize("NFC", words)
    return f"%{''.join([_WILD.get(one, one) if one.isascii() and one not in '*?' else '%' for one in letters])}%"


def _about(entry: Listed, wanted: Wanted) -> bool:
    return not wanted.subject or _folded(wanted.subject) in _folded(entry.subject or "")


def _folded(words: str) -> str:
    return unicodedata.normalize("NFKC", words).casefold()


def _sieve(glob: str) -> str:
    """For the JSON of recipients: whatever has an address like `glob` passes, and little else."""
    quoted = encode_basestring(glob)[1:-1]  # neither * nor ? is changed by that
    inside = "".join(["%" if character == "?" else _WILD.get(character, character) for character in quoted])
    return f'%["{inside}",%'


_WILD = {"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"}
