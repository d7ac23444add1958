"""Messages of queue and history as lines: `relay queue list`, `find` and `show`.

Made from the documents of the desk (`admin.documents`: ENTRY and SHOWN).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from relay.cli.human import age, counted, moment, octets, of_json, stamp
from relay.cli.language import say
from relay.cli.layout import labelled
from relay.cli.table import Column, Line, Part, line, table
from relay.observe.log_lines import harmless

_STYLES = {
    "deferred": "yellow",
    "active": "cyan",
    "held": "magenta",
    "damaged": "bold red",
    "delivered": "green",
    "failed": "red",
    "expired": "red",
    "cancelled": "dim",
}

_Object = dict[str, Any]

_ID = Column("ID")
_STATE = Column("STATE", glue="")
_KIND = Column("KIND")
_SIZE = Column("SIZE", rank=2, right=True)
_ROUTE = Column("ROUTE", rank=4)
_TRIES = Column("TRIES", rank=3, right=True)
_FROM = Column("FROM", least=16, glue="\\x20")
_TO = Column("TO", least=16, glue="\\x20")
_REPLY = Column("LAST REPLY", least=40, folds=1, ends=True)

_LISTED = (
    _ID,
    _STATE,
    _KIND,
    Column("AGE", right=True),
    _SIZE,
    _ROUTE,
    _TRIES,
    Column("NEXT", right=True, rank=1),
    _FROM,
    _TO,
    _REPLY,
)
_FOUND = (
    _ID,
    Column("RECEIVED"),
    _STATE,
    _KIND,
    _SIZE,
    _ROUTE,
    _TRIES,
    replace(_FROM, rank=1),  # where subjects are kept, they are what is looked for
    _TO,
    Column("SUBJECT", least=16, glue="\\x20", ends=True),
    _REPLY,
)


def listed(entries: Iterable[_Object], now: datetime, width: int | None) -> Iterator[Line]:
    """What waits, a line each."""
    return table(_LISTED, [_waiting(entry, now, width) for entry in entries], width=width)


def found(entries: Iterable[_Object], now: datetime, width: int | None) -> Iterator[Line]:
    """What waits and what has ended, a line each."""
    return table(_FOUND, [_searched(entry, now, width) for entry in entries], width=width)


def _waiting(entry: _Object, now: datetime, width: int | None) -> Sequence[Part]:
    received = of_json(entry["received_at"])
    return [
        (entry["queue_id"], "bold"),
        _state(entry),
        _kind(entry),
        (age((now - received).total_seconds()), ""),
        *_middle(entry),
        (_next(entry, now), ""),
        *_people(entry, width),
        (_reply(entry), "dim"),
    ]


def _searched(entry: _Object, now: datetime, width: int | None) -> Sequence[Part]:
    return [
        (entry["queue_id"], "bold"),
        (stamp(of_json(entry["received_at"]), width, now), ""),
        _state(entry),
        _kind(entry),
        *_middle(entry),
        *_people(entry, width),
        (harmless(entry["subject"] or ""), ""),
        (_reply(entry), "dim"),
    ]


def _state(entry: _Object) -> Part:
    """Its place, with the wish that waits for the end of its attempt; of a finished message, how it ended."""
    place: str = entry["place"]
    if place != "finished":
        wish = f", {entry['wish']}" if entry["wish"] else ""
        return place + wish, _STYLES.get(place, "")
    ends = dict.fromkeys([str(recipient["state"]) for recipient in entry["recipients"]])
    worst = max(ends, key=lambda end: end != "delivered", default="")
    return "+".join(ends) or place, _STYLES.get(worst, "")


def _kind(entry: _Object) -> Part:
    """Nothing for ordinary mail."""
    if entry["session_code"]:
        return "code", "bold"
    return ("" if entry["kind"] == "mail" else entry["kind"]), ""


def _middle(entry: _Object) -> Sequence[Part]:
    return (octets(entry["size"]), ""), (harmless(entry["route"]), ""), (str(entry["attempts"]), "")


def _next(entry: _Object, now: datetime) -> str:
    if entry["next_attempt_at"] is None:
        return ""
    left = (of_json(entry["next_attempt_at"]) - now).total_seconds()
    return age(left) if left >= 1 else say("queue.now")


def _people(entry: _Object, width: int | None) -> Sequence[Part]:
    to = [harmless(recipient["address"]) for recipient in entry["recipients"]]
    if width is None:
        recipients = ",".join(to)
    else:
        recipients = (to[0] if to else "") + (f" +{len(to) - 1}" if len(to) > 1 else "")
    return (_path(entry["reverse_path"]), ""), (recipients, "")


def _path(reverse_path: str) -> str:
    return harmless(reverse_path) or "<>"


def _reply(entry: _Object) -> str:
    """What was said last to a recipient that is not delivered, if there is one."""
    if entry["damage"]:
        return harmless(entry["damage"])
    said = [recipient for recipient in entry["recipients"] if recipient["reply"]]
    said.sort(key=lambda recipient: bool(recipient["state"] == "delivered"))
    return harmless(said[0]["reply"]) if said else ""


# One message


_RECIPIENTS = (
    Column("RECIPIENT", least=20, glue="\\x20"),
    Column("STATE"),
    Column("ENDED"),
    Column("UPSTREAM", rank=1),
    Column("LAST REPLY", folds=20),
)
_TRIED = (
    Column("TRIED"),
    Column("TRY", right=True),
    Column("RECIPIENT", least=16, rank=1, glue="\\x20"),
    Column("UPSTREAM", rank=2),
    Column("REPLY", folds=20),
)


def shown(message: _Object, now: datetime, width: int | None, remedies: Iterable[str] = ()) -> Iterator[Line]:
    """All about one message: envelope, recipients, what to do, attempts, and the header without the body."""
    entry = message["listed"]
    title: list[Part] = [(entry["queue_id"], "bold"), ("  ", ""), _state(entry)]
    if entry["session_code"]:
        title += [("  ", ""), (say("queue.session-code"), "bold")]
    if entry["kind"] != "mail":
        title += [("  ", ""), (entry["kind"], "")]
    yield tuple(title)
    yield from _facts(message, now, width)
    yield ()
    yield from table(_RECIPIENTS, [_recipient(each, now, width) for each in entry["recipients"]], width=width)
    for number, remedy in enumerate(remedies):
        if number == 0:
            yield ()
        yield from _fact("to-do" if number == 0 else "and", remedy, width)
    if message["tries"]:
        yield ()
        yield from table(_TRIED, [_try(each, now, width) for each in message["tries"]], width=width)
    if message["head"]:
        yield ()
        yield line(say("queue.label-header"), "bold")
        for words in message["head"].rstrip("\n").split("\n"):
            yield line(f"  {harmless(words)}")


def _facts(message: _Object, now: datetime, width: int | None) -> Iterator[Line]:
    entry = message["listed"]
    received = of_json(entry["received_at"])
    yield from _fact("received", _ago(received, now), width)
    by = [f"{entry['client']} ({message['helo']})" if message["helo"] else entry["client"]]
    by += [f"listener {entry['listener']}"] if entry["listener"] else []
    by += [message["protocol"]] if message["protocol"] else []
    by += [message["tls"]] if message["tls"] else []
    by += [f"user {entry['user']}"] if entry["user"] else []
    yield from _fact("client", ", ".join(by), width)
    yield from _fact("reverse-path", _path(entry["reverse_path"]), width)
    yield from _fact("left-as", _left_as(entry["left_as"]), width)
    yield from _fact("subject", entry["subject"] or "", width)
    yield from _fact("message-id", entry["message_id"] or "", width)
    yield from _fact("size", octets(entry["size"]), width)
    yield from _fact("route", entry["route"], width)
    yield from _fact("because", ", ".join(message["because"]), width)
    yield from _fact("envid", message["envid"] or "", width)
    yield from _fact("attempts", _attempts(entry, now), width)
    if entry["ended_at"]:
        yield from _fact("ended", moment(of_json(entry["ended_at"]), now), width)
    elif entry["expires_at"]:
        yield from _fact("expires", moment(of_json(entry["expires_at"]), now), width)
    if entry["wish"]:
        yield from _fact("then", say("queue.wish", verb=entry["wish"]), width)
    yield from _fact("damage", entry["damage"], width)


def _left_as(left: _Object | None) -> str:
    if left is None:
        return ""
    author, path = left["author"], left["reverse_path"] or "<>"
    sender = author if author == path else say("queue.left-with", author=author or "-", path=path)
    changed = left["result"] in ("repaired", "rewritten")
    return say(f"queue.left-{left['result']}", sender=sender) if changed else sender


def _attempts(entry: _Object, now: datetime) -> str:
    if entry["next_attempt_at"] is None:
        return str(entry["attempts"])
    due = of_json(entry["next_attempt_at"])
    left = (due - now).total_seconds()
    key = "queue.next" if left >= 1 else "queue.next-now"
    return say(key, count=entry["attempts"], age=age(left), moment=moment(due, now))


def _ago(at: datetime, now: datetime) -> str:
    return say("queue.ago", moment=moment(at, now), age=age((now - at).total_seconds()))


def _recipient(recipient: _Object, now: datetime, width: int | None) -> Sequence[Part]:
    ended = stamp(of_json(recipient["ended_at"]), width, now) if recipient["ended_at"] else ""
    return [
        (harmless(recipient["address"]), ""),
        (recipient["state"], _STYLES.get(recipient["state"], "")),
        (ended, ""),
        (harmless(recipient["upstream"]), ""),
        (harmless(recipient["reply"]), ""),
    ]


def _try(tried: _Object, now: datetime, width: int | None) -> Sequence[Part]:
    return [
        (stamp(of_json(tried["at"]), width, now), ""),
        (str(tried["attempt"]), ""),
        (harmless(tried["address"]), ""),
        (harmless(tried["upstream"]), ""),
        (harmless(tried["reply"]), ""),
    ]


def _fact(name: str, words: str, width: int | None) -> Iterator[Line]:
    """A labelled line, or none where there is nothing to say."""
    if words:
        yield from labelled(f"  {say(f'queue.label-{name}'):14}", harmless(words), width, label="dim")


# What was done


def acted(verb: str, result: _Object) -> str:
    """What became of one entry, in a sentence."""
    did, why = result["did"], harmless(result["why"])
    told = say(f"queue.done-{verb}") if did == "done" else say(f"queue.{did}", verb=verb)
    return f"{harmless(result['queue_id'])}: {why or told}"


def summary(document: _Object) -> str:
    """What became of all of them, in a sentence."""
    counts = document["counts"]
    words = ("done", "after-attempt", "nothing", "impossible", "unknown")
    told = [say(f"queue.count-{did}", count=counts[did]) for did in words if counts.get(did)]
    return f"{document['verb']}: {counted(document['of'], 'queue.entry')}" + (f", {', '.join(told)}" if told else "")
