"""The parameters of requests: what may be given, and the sentence where it cannot be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from relay.admin.errors import Refused
from relay.config.problems import did_you_mean, quoted
from relay.queue.listing import Place, Verb, Wanted
from relay.values import frozen

_LONGEST = 320  # characters of a pattern: longer than any address

Values = Mapping[str, Any]


@frozen
class Parameter:
    """`read` makes a value of a name and of what was given under it, or raises Refused.

    `missing` is read where nothing was given.
    """

    read: Callable[[str, object], Any]
    missing: object = None


def values(parameters: Mapping[str, Parameter], given: Mapping[str, object]) -> Values:
    """The value of each of `parameters`. Raises Refused, also of a name that is none of them."""
    for name in given:
        if name not in parameters:
            raise _unknown(name, parameters)
    return {name: parameter.read(name, given.get(name, parameter.missing)) for name, parameter in parameters.items()}


def _unknown(name: str, parameters: Mapping[str, Parameter]) -> Refused:
    if CONDITIONS.keys() <= parameters.keys():
        return Refused(f"there is no condition {quoted(name)} ({did_you_mean(name, CONDITIONS)})")
    return Refused(f"there is no {json.dumps(name)} here: only {', '.join(parameters)}")


def optional(parameter: Parameter) -> Parameter:
    """`parameter`, or None."""
    return Parameter(lambda name, given: None if given is None else parameter.read(name, given))


def text(shape: str = "text") -> Parameter:
    return _that(lambda given: isinstance(given, str), shape)


def texts(shape: str = "a list of texts", missing: object = None) -> Parameter:
    return _that(lambda given: isinstance(given, list) and all(isinstance(one, str) for one in given), shape, missing)


def number(missing: int) -> Parameter:
    digits = _that(lambda given: re.fullmatch("[0-9]{1,18}", str(given)) is not None, "a number", missing)
    return replace(digits, read=lambda name, given: int(digits.read(name, given)))


def _that(fits: Callable[[object], bool], shape: str, missing: object = None) -> Parameter:
    """What `fits`, as it is."""

    def read(name: str, given: Any) -> Any:
        if not fits(given):
            raise Refused(f"{name} must be {shape}")
        return given

    return Parameter(read, missing)


def _word_of(kind: type[Place | Verb], noun: str, given: Any) -> Any:
    try:
        return kind(given)
    except ValueError:
        shown, word = (quoted(given), given) if isinstance(given, str) else ("that is no word", "")
        known = did_you_mean(word, [one.value for one in kind])
        raise Refused(f"there is no {noun} {shown} ({known})") from None


# Which entries


def wanted(asked: Values) -> Wanted:
    """What the values of CONDITIONS ask for."""
    state, route, to, from_, since = (asked[name] for name in CONDITIONS)
    return Wanted(place=state, route=route, to=to, from_=from_, since=since)


def _conditions(name: str, given: object) -> Wanted:
    if not isinstance(given, dict):
        raise Refused(f"{name} must be an object of conditions; {{}} is every entry")
    return wanted(values(CONDITIONS, given))


def _pattern(name: str, given: object) -> str:
    if not isinstance(given, str):
        raise Refused(f"{name} must be text")
    if len(given) > _LONGEST:
        raise Refused(f"{name} is too long: at most {_LONGEST} characters")
    if not given.isprintable():
        raise Refused(f"{name} has characters that cannot be printed")
    return given


def _place(name: str, given: object) -> Any:
    word = _pattern(name, given)
    return _word_of(Place, name, word) if word else None


def _moment(name: str, given: object) -> datetime | None:
    written = _pattern(name, given)
    if not written:
        return None
    try:
        moment = datetime.fromisoformat(written)
        if moment.utcoffset() is not None:
            return moment
    except ValueError:
        pass
    raise Refused(f"{name} must be a time with its offset, as 2026-03-02T12:00:00+01:00")


VERB = Parameter(partial(_word_of, Verb))
CONDITIONS: Mapping[str, Parameter] = {
    "state": Parameter(_place, ""),
    "route": Parameter(_pattern, ""),
    "to": Parameter(_pattern, ""),
    "from": Parameter(_pattern, ""),
    "since": Parameter(_moment, ""),
}
"""A missing or an empty one: any."""
WANTED = Parameter(_conditions)
"""An object of CONDITIONS; its value is a Wanted."""
