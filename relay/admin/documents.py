r"""Values as JSON documents: the answers of the admin socket, and what `--json` prints.

Every document is an object with `"version": 1` and what stands here; within a version, keys are only added.
A dataclass is an object with the names of its fields; a time is ISO 8601 in UTC (2026-03-02T12:00:00+00:00);
None is null; characters that cannot be printed come as `\x1b`, so that no text of a stranger commands a terminal.

status      {"version", "status": SNAPSHOT}
clients     {"version", "clients": [CLIENT, …]}
senders     {"version", "senders": [{reverse_path ("<>" is null), author, upstream, since, until, code, status}, …]}
            those that are known to be refused, or that were just forgotten or pinned (`until` null)
queue list  {"version", "entries": [ENTRY, …], "next": 4711 | null}
            oldest first; `next` is the `after` of the page that follows
queue find  {"version", "entries": [ENTRY, …], "more": true | false, "whole": true | false}
            newest first; `whole` false: the search for a subject ended before it had looked at everything
queue show  {"version", "message": SHOWN}
a verb      {"version", "verb": "retry", "route": "…" | null, "of": 2, "counts": COUNTS, "results": [RESULT, …]}
            `of` entries were acted on; results in the order of the IDs
… --all     progress: {"version", "progress": {"of": 500, "counts": COUNTS}}, one for each page of 500;
            then one as of a verb, whose `results` are at most the first 100 that are not "done"
backup      {"version", "backup": {"file", "entries", "octets", "left_out"}}
reload      {"version", "needs_restart": [KEY, …]}, or {"version", "problems": [SENTENCE, …]} when the file is bad and
            nothing was changed
test --alarm  {"version", "ways": [{"way", "sent": true | false, "text"}]}, who got it, or why nobody did
lend        progress: {"version", "progress": {"lent": true | false}}, one at once, then one each second while the place
            among the connections of the upstream is there; then {"version", "lent": false}
an error    {"version", "error": "One sentence", "problem": WORD}
            WORD: bad-input, no-such-entry, ambiguous-id, no-such-route, not-possible, store-unavailable,
            no-such-page, bug

SNAPSHOT: admin.snapshot.Snapshot. CLIENT: observe.clients.ClientSeen, with `quirks` as {"bare-lf": 3, …}.
COUNTS: {"done": 1, "after-attempt": 0, "nothing": 0, "impossible": 1, "unknown": 0}, every word of listing.Did.
RESULT: {"queue_id", "did", "why"}, `why` a sentence or "".
ENTRY: key, queue_id, place (pending deferred active held damaged finished), kind (mail bounce), route, size, attempts,
received_at, next_attempt_at (not before an upstream may be asked), expires_at, ended_at, listener, client, user,
reverse_path ("" is `<>`), recipients
[{address, state, reply, upstream, ended_at}], session_code, wish, damage, left_as (null while nobody took it)
{author, reverse_path, result ("rewritten" "repaired" "unchanged" null)}, message_id, subject (null where the history
does not keep it, and always of a session code).
SHOWN: listed (an ENTRY), because, helo, protocol, tls, envid, head (text, with \n between its lines; "" when it is
not known any more), tries [{attempt, at, address, upstream, reply}].

Nothing of a message's content but its header is ever in one of them; of a session code, not the fields that
repeat its subject either.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from relay.admin.errors import problem_of
from relay.admin.queue import Report
from relay.admin.snapshot import Snapshot
from relay.errors import RelayError
from relay.mail.dsn import quiet
from relay.observe.clients import ClientSeen
from relay.policy.verdict import Verdict
from relay.queue.listing import Listed, Saved, Shown

Document = dict[str, Any]

VERSION = 1

_JSON = json.JSONEncoder()
_AT_ONCE = 200  # recipients that are made JSON before mail has its turn again


def document(**parts: Any) -> Document:
    """A document of `parts`, which are as JSON has them (`plain`)."""
    return {"version": VERSION, **parts}


def status(snapshot: Snapshot) -> Document:
    return document(status=plain(snapshot))


def clients(seen: Sequence[ClientSeen]) -> Document:
    return document(clients=plain(seen))


def senders(verdicts: Sequence[Verdict]) -> Document:
    return document(senders=[{**plain(one.sender), **_without_sender(one)} for one in verdicts])


async def made(make: Callable[[], Document]) -> bytes:
    """The document that `make` returns, as JSON. It may be long: a thread makes it in pieces, and mail goes on."""
    return await asyncio.to_thread(lambda: "".join(_JSON.iterencode(make())).encode())


async def listing(entries: Iterable[Listed], **rest: object) -> bytes:
    """The document "queue list" or "queue find" as JSON. A long one is made in pieces: mail goes on meanwhile."""
    pieces: list[str] = []
    recipients = 0
    for listed in entries:
        pieces.append(json.dumps(entry(listed)))
        recipients += len(listed.recipients) + 1
        if recipients >= _AT_ONCE:
            recipients = 0
            await asyncio.sleep(0)
    return f'{{"version": {VERSION}, "entries": [{", ".join(pieces)}], {json.dumps(rest)[1:]}'.encode()


def entry(listed: Listed) -> Document:
    """One of `entries`; not a document of its own."""
    return _fields(listed)


def message(shown: Shown) -> Document:
    head = quiet(shown.head) if shown.listed.session_code else shown.head
    return document(message=_fields(replace(shown, head=b"")) | {"head": _header_text(head)})


def progress(report: Report) -> Document:
    return document(progress={"of": report.of, "counts": plain(report.counts)})


def report(done: Report) -> Document:
    order = done.order
    return document(
        verb=order.verb.value,
        route=None if order.route is None else printable(order.route),
        of=done.of,
        counts=plain(done.counts),
        results=plain(done.results),
    )


def backup(file: Path, saved: Saved) -> Document:
    return document(backup={"file": printable(str(file)), **_fields(saved)})


def error(wrong: RelayError) -> Document:
    """The sentence of `wrong`, which is meant for the operator, and the word for it."""
    return refusal(problem_of(wrong), str(wrong))


def refusal(problem: str, sentence: str) -> Document:
    return document(error=printable(sentence), problem=problem)


def plain(value: object) -> Any:
    """`value` as JSON has it."""
    match value:
        case float():
            return value if math.isfinite(value) else None  # JSON has no Infinity
        case None | bool() | int():
            return value
        case Enum():
            return plain(value.value)
        case str():
            return printable(value)
        case bytes():
            return printable(_decoded(value))
        case datetime():
            return value.astimezone(UTC).isoformat()
        case Mapping():
            return {str(plain(key)): plain(one) for key, one in value.items()}
        case tuple() | list():
            return [plain(one) for one in value]
        case _ if is_dataclass(value):
            return _fields(value)
    raise TypeError(f"{type(value).__name__} has no place in a document")


def printable(text: str) -> str:
    r"""`text` with every character that cannot be printed as `\x1b`, `\u202e`: nobody's terminal obeys it."""
    if text.isprintable():
        return text
    return "".join([one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text])


def _fields(value: Any) -> Document:
    kind: Any = type(value)
    return {name: plain(getattr(value, name)) for name in _names(kind)}


def _without_sender(verdict: Verdict) -> Document:
    told = _fields(verdict)
    del told["sender"]
    return told


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _header_text(head: bytes) -> str:
    lines = _decoded(head).replace("\r\n", "\n").split("\n")
    return "\n".join([printable(line.replace("\t", " ")) for line in lines]).rstrip("\n")


def _decoded(octets: bytes) -> str:
    """UTF-8 where it is that, else Latin-1, which never fails."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")
