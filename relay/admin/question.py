"""What an operator asks for as text, and back: query parameters, and the `all` of an order."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from relay.admin.errors import Refused
from relay.config.problems import did_you_mean, quoted
from relay.queue.listing import Place, Verb, Wanted

PARAMETERS = ("state", "route", "to", "from", "since")

_LONGEST = 320  # characters of a pattern: longer than any address


def wanted_of(fields: Mapping[str, object]) -> Wanted:
    """Which entries `fields` ask for; a missing or empty one: any. Raises Refused."""
    for name in fields:
        if name not in PARAMETERS:
            raise Refused(f"there is no condition {quoted(name)} ({did_you_mean(name, PARAMETERS)})")
    state, route, to, from_, since = (_text(fields, name) for name in PARAMETERS)
    return Wanted(
        place=_place(state) if state else None,
        route=route,
        to=to,
        from_=from_,
        since=_moment(since) if since else None,
    )


def fields_of(wanted: Wanted) -> dict[str, str]:
    """`wanted` as `wanted_of` reads it."""
    since = wanted.since.isoformat() if wanted.since is not None else ""
    values = (wanted.place or "", wanted.route, wanted.to, wanted.from_, since)
    return {name: str(value) for name, value in zip(PARAMETERS, values, strict=True) if value}


def checked(wanted: Wanted) -> Wanted:
    """`wanted`, if it can be asked for. Raises Refused."""
    return wanted_of(fields_of(wanted))


def verb_of(word: object) -> Verb:
    """Raises Refused."""
    if isinstance(word, str) and word in tuple(Verb):
        return Verb(word)
    raise Refused(f"there is no verb {_shown(word)} ({_meant(word, tuple(Verb))})")


def number_of(fields: Mapping[str, str], name: str, default: int) -> int:
    """Raises Refused."""
    text = fields.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refused(f"{name} must be a number")
    return int(text)


def _text(fields: Mapping[str, object], name: str) -> str:
    text = fields.get(name, "")
    if not isinstance(text, str):
        raise Refused(f"{name} must be text")
    if len(text) > _LONGEST:
        raise Refused(f"{name} is too long: at most {_LONGEST} characters")
    if not text.isprintable():
        raise Refused(f"{name} has characters that cannot be printed")
    return text


def _place(word: str) -> Place:
    if word not in tuple(Place):
        raise Refused(f"there is no state {quoted(word)} ({_meant(word, tuple(Place))})")
    return Place(word)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() is None:
        raise Refused("since must be a time with its offset, as 2026-03-02T12:00:00+01:00")
    return moment


def _shown(word: object) -> str:
    return quoted(word) if isinstance(word, str) else "that is no word"


def _meant(word: object, known: tuple[str, ...]) -> str:
    return did_you_mean(word if isinstance(word, str) else "", [str(one) for one in known])
