"""The screen of `relay status`, as lines: what is wrong first, then the house from front to back.

Made from the document of the running relay (`admin.snapshot.Snapshot`, field by field).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from relay.cli.human import age, count, moment, octets, of_json, stamp
from relay.cli.layout import labelled
from relay.cli.table import Column, Line, Part, table
from relay.observe.log_lines import harmless

_ERRORS_SHOWN = 5
_STYLES = {"error": "bold red", "warning": "yellow"}
_UNITS = {1: "s", 60: "min", 3600: "h", 86400: "d"}

_Object = dict[str, Any]


def overview(now: _Object, width: int | None) -> Iterator[Line]:
    """The whole screen for a terminal of `width`, or for a pipe (None)."""
    at = of_json(now["at"])
    yield _verdict(now)
    for trouble in now["troubles"]:
        yield from _trouble(trouble, at, width)
    yield ()
    yield from table(_LISTENERS, [_listener(each) for each in now["listeners"]], width=width)
    yield ()
    yield from table(_UPSTREAMS, [_upstream(each, at) for each in now["upstreams"]], width=width)
    yield ()
    yield from table(_ROUTES, [_route(each, at) for each in now["routes"]], width=width)
    yield ()
    for name, words in (
        ("Session codes", _codes(now["codes"])),
        ("Recipients", _recipients(now["recipients"])),
        ("Disk", _disk(now)),
        ("Running", _running(now, at)),
    ):
        yield from labelled(f"{name:16}", words, width, label="bold")
    if now["errors"]:
        yield ()
        latest = sorted(now["errors"], key=lambda noted: of_json(noted["at"]), reverse=True)[:_ERRORS_SHOWN]
        yield from table(_ERRORS, [_error(each, at, width) for each in latest], width=width)


def _verdict(now: _Object) -> Line:
    severities = [trouble["severity"] for trouble in now["troubles"]]
    errors, warnings = severities.count("error"), severities.count("warning")
    name = f"relay {now['version']} on {harmless(now['hostname'])}"
    parts: list[Part] = [(f"{name}: ", "bold")]
    told = [count(number, word) for number, word in ((errors, "error"), (warnings, "warning")) if number]
    if told:
        parts.append((", ".join(told), _STYLES["error" if errors else "warning"]))
    else:
        parts.append(("all is well", "bold green"))
    if not now["ready"]:
        parts.append((" (starting or stopping: it takes no new mail)", "yellow"))
    return tuple(parts)


def _trouble(trouble: _Object, at: datetime, width: int | None) -> Iterator[Line]:
    severity = trouble["severity"]
    since = of_json(trouble["since"])
    told = f"{harmless(trouble['text'])} (since {moment(since, at)}, {age((at - since).total_seconds())})"
    yield from labelled(f"{severity.upper():9}", told, width, label=_STYLES.get(severity, ""))
    yield from labelled(f"{'':9}-> ", harmless(trouble["remedy"]), width, label="cyan", style="cyan")


_LISTENERS = (
    Column("LISTENER"),
    Column("TYPE", rank=2),
    Column("ADDRESSES", least=20, glue=""),
    Column("SESSIONS", right=True),
    Column("ACCEPTED", right=True, rank=1),
)


def _listener(now: _Object) -> list[Part]:
    return [
        (harmless(now["name"]), ""),
        (now["type"], ""),
        (harmless(", ".join(now["addresses"])), ""),
        (str(now["sessions"]), ""),
        (str(now["accepted"]), ""),
    ]


_UPSTREAMS = (
    Column("UPSTREAM"),
    Column("STATE", glue="-"),
    Column("WHERE", least=20, rank=1, glue="\\x20"),
    Column("BUSY", right=True, rank=2),
    Column("IDLE", right=True, rank=3),
    Column("MOST", right=True, rank=4),
    Column("PACE", rank=5, glue="-"),
    Column("LAST ANSWER", folds=4),
)


def _upstream(now: _Object, at: datetime) -> list[Part]:
    held = now.get("held_until")
    if now["up"]:
        state = ("up", "green")
    elif held is not None:
        state = (f"quota, until {moment(of_json(held), at)}", "bold red")
    else:
        state = (f"down, tried in {age(now['opens_in'])}" if now["opens_in"] >= 1 else "down, tried now", "bold red")
    answer = now["answer"]
    return [
        (harmless(now["name"]), ""),
        state,
        (harmless(now["where"]), ""),
        (str(now["busy"]), ""),
        (str(now["idle"]), ""),
        (str(now["most"]), ""),
        (", ".join([_pace(each) for each in now.get("pace", ())] + _at_most(now, at)) or "-", ""),
        (_answer(answer, at), "" if answer is None or answer["ok"] else "red"),
    ]


def _pace(pace: _Object) -> str:
    unit = _UNITS.get(pace["seconds"], f"{pace['seconds']:g} s")
    return f"{pace['used']} of {pace['most']}{' recipients' if pace['of_recipients'] else ''}/{unit}"


def _at_most(now: _Object, at: datetime) -> list[str]:
    """How many recipients it takes at once, where it refused more."""
    until = now.get("max_recipients_until")
    return [f"{now['max_recipients']} recipients at once until {moment(of_json(until), at)}"] if until else []


def _answer(answer: _Object | None, at: datetime) -> str:
    if answer is None:
        return "none yet"
    ago = f"{age((at - of_json(answer['at'])).total_seconds())} ago"
    if answer["ok"]:
        return f"ok, {ago}"
    reply = " ".join([str(part) for part in (answer["code"] or "", answer["status"], answer["text"]) if part])
    return f"{ago}: {harmless(answer['stage'])}: {harmless(reply) or 'no reply'}"


_ROUTES = (
    Column("ROUTE"),
    Column("PENDING", right=True),
    Column("DEFERRED", right=True),
    Column("ACTIVE", right=True),
    Column("HELD", right=True),
    Column("OLDEST", right=True),
    Column("UPSTREAMS", least=10, rank=1),
)


def _route(now: _Object, at: datetime) -> list[Part]:
    oldest = age((at - of_json(now["oldest"])).total_seconds()) if now["oldest"] else ""
    return [
        (harmless(now["name"]), ""),
        (str(now["pending"]), ""),
        (str(now["deferred"]), "yellow" if now["deferred"] else ""),
        (str(now["active"]), ""),
        (str(now["held"]), "yellow" if now["held"] else ""),
        (oldest, ""),
        (harmless(", then ".join(now["upstreams"])), ""),
    ]


def _codes(codes: _Object) -> str:
    if not codes["enabled"]:
        return "not enabled"
    ends = ", ".join([f"{codes[end]} {end}" for end in ("delivered", "failed", "expired")])
    return f"{ends} since the start; {codes['waiting']} waiting"


def _recipients(recipients: dict[str, int]) -> str:
    words = ("found", "accepted", "delivered", "failed", "expired", "cancelled")
    return ", ".join([f"{recipients.get(word, 0)} {word}" for word in words]) + " since the start"


def _disk(now: _Object) -> str:
    free = "free space unknown" if now["disk_free"] is None else f"{octets(now['disk_free'])} free"
    damaged = f"; {count(now['damaged'], 'damaged entry', 'damaged entries')}" if now["damaged"] else ""
    return f"queue {octets(now['queue_bytes'])}, {free}; mail is refused below {octets(now['min_free'])}{damaged}"


def _running(now: _Object, at: datetime) -> str:
    started, reloaded = of_json(now["started_at"]), of_json(now["reloaded_at"])
    up = age((at - started).total_seconds())
    return (
        f"process {now['pid']} since {moment(started, at)} ({up}); "
        f"{harmless(now['config'])} read {moment(reloaded, at)}"
    )


_ERRORS = (
    Column("LAST ERRORS"),
    Column("LEVEL", rank=1),
    Column("EVENT", rank=2),
    Column("TEXT", folds=4),
)


def _error(noted: _Object, at: datetime, width: int | None) -> list[Part]:
    level = noted["level"]
    return [
        (stamp(of_json(noted["at"]), width, at), ""),
        (level, _STYLES.get(level, "")),
        (harmless(noted["event"]), ""),
        (harmless(noted["text"]), ""),
    ]
