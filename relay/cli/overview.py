"""The screen of `relay status`, as lines: what is wrong first, then the house from front to back.

Made from the document of the running relay (`admin.snapshot.Snapshot`, field by field).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from relay.cli.human import age, counted, moment, octets, of_json, stamp
from relay.cli.language import say
from relay.cli.layout import labelled
from relay.cli.table import Column, Line, Part, table
from relay.observe.log_lines import harmless

_ERRORS_SHOWN = 5
_STYLES = {"error": "bold red", "warning": "yellow"}
_RECIPIENTS = ("found", "accepted", "delivered", "failed", "expired", "cancelled")
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
        (say("status.label-codes"), _codes(now["codes"])),
        (say("status.label-recipients"), _recipients(now["recipients"])),
        (say("status.label-disk"), _disk(now)),
        (say("status.label-running"), _running(now, at)),
    ):
        yield from labelled(f"{name:16}", words, width, label="bold")
    if now["errors"]:
        yield ()
        latest = sorted(now["errors"], key=lambda noted: of_json(noted["at"]), reverse=True)[:_ERRORS_SHOWN]
        yield from table(_ERRORS, [_error(each, at, width) for each in latest], width=width)


def _verdict(now: _Object) -> Line:
    severities = [trouble["severity"] for trouble in now["troubles"]]
    errors, warnings = severities.count("error"), severities.count("warning")
    name = say("status.name", version=now["version"], hostname=harmless(now["hostname"]))
    parts: list[Part] = [(f"{name}: ", "bold")]
    told = [counted(number, key) for number, key in ((errors, "status.error"), (warnings, "status.warning")) if number]
    if told:
        parts.append((", ".join(told), _STYLES["error" if errors else "warning"]))
    else:
        parts.append((say("status.well"), "bold green"))
    if not now["ready"]:
        parts.append((f" ({say('status.not-ready')})", "yellow"))
    return tuple(parts)


def _trouble(trouble: _Object, at: datetime, width: int | None) -> Iterator[Line]:
    severity = trouble["severity"]
    since = of_json(trouble["since"])
    long = age((at - since).total_seconds())
    told = say("status.since", text=harmless(trouble["text"]), moment=moment(since, at), age=long)
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
    Column("PACE", rank=5, glue="_"),
    Column("LAST ANSWER", folds=4),
)


def _upstream(now: _Object, at: datetime) -> list[Part]:
    held = now.get("held_until")
    if now["up"]:
        state = ("up", "green")
    elif held is not None:
        state = (say("status.quota", moment=moment(of_json(held), at)), "bold red")
    else:
        key = (
            "status.down-trying" if now["tried_now"] else "status.down" if now["opens_in"] >= 1 else "status.down-next"
        )
        state = (say(key, age=age(now["opens_in"])), "bold red")
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
    key = "status.pace-recipients" if pace["of_recipients"] else "status.pace"
    return say(key, used=pace["used"], most=pace["most"], unit=unit)


def _at_most(now: _Object, at: datetime) -> list[str]:
    """How many recipients it takes at once, where it refused more."""
    until = now.get("max_recipients_until")
    if not until:
        return []
    return [say("status.at-most", count=now["max_recipients"], moment=moment(of_json(until), at))]


def _answer(answer: _Object | None, at: datetime) -> str:
    if answer is None:
        return say("status.no-answer")
    ago = say("status.ago", age=age((at - of_json(answer["at"])).total_seconds()))
    if answer["ok"]:
        return f"ok, {ago}"
    reply = " ".join([str(part) for part in (answer["code"] or "", answer["status"], answer["text"]) if part])
    return f"{ago}: {harmless(answer['stage'])}: {harmless(reply) or say('status.no-reply')}"


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
        (harmless(say("status.then").join(now["upstreams"])), ""),
    ]


def _codes(codes: _Object) -> str:
    if not codes["enabled"]:
        return say("status.codes-off")
    ends = ", ".join([f"{codes[end]} {end}" for end in ("delivered", "failed", "expired")])
    return say("status.codes", ends=ends, waiting=codes["waiting"])


def _recipients(recipients: dict[str, int]) -> str:
    return say("status.recipients", **{word: recipients.get(word, 0) for word in _RECIPIENTS})


def _disk(now: _Object) -> str:
    free = "status.free-unknown" if now["disk_free"] is None else "status.free"
    disk = say(
        "status.disk",
        size=octets(now["queue_bytes"]),
        free=say(free, size=octets(now["disk_free"] or 0)),
        least=octets(now["min_free"]),
    )
    return disk + (f"; {counted(now['damaged'], 'status.damaged')}" if now["damaged"] else "")


def _running(now: _Object, at: datetime) -> str:
    started, reloaded = of_json(now["started_at"]), of_json(now["reloaded_at"])
    return say(
        "status.running",
        pid=now["pid"],
        started=moment(started, at),
        age=age((at - started).total_seconds()),
        config=harmless(now["config"]),
        read=moment(reloaded, at),
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
