"""What pydantic found, in the words of who wrote the file; and the file without its mistakes.

The values of the file appear only where they help and are no secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from relay.config.document import Oddity
from relay.config.fields import Kind
from relay.config.logins import OAuth2
from relay.config.model import Config, Listener, RouteSection
from relay.config.problems import Finding, Path, did_you_mean, is_secret
from relay.config.section import Section, by_tag
from relay.config.upstreams import Upstream
from relay.config.values import BadValue
from relay.values import frozen

_TYPES: dict[str | int, dict[str | int, type[Section]]] = {"upstreams": by_tag(Upstream), "listeners": by_tag(Listener)}
_OAUTH2 = by_tag(OAuth2)
_PROBLEMS = {
    "missing": "missing",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "int_type": "must be a whole number",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_too_long": "too long",
}
_HINTS = {
    "missing": "this key is required",
    "bool_type": "write one of these words, without quotes",
    "tuple_type": 'write [a, b], or lines that begin with "- "',
    "int_type": "write it plainly, as in 25",
}
_GIVE = "leave the key out, or give it a value"
_NOTHING = f"nothing stands here: {_GIVE}"
_NO_BLANK = re.compile(r"\w+[:=]\S")
_UPSTREAM = {"host": "sample.invalid"}


@frozen
class Explained:
    """One finding.

    `spoils`: the key whose value is not known because of it, if any. `lacks`: something is not there. `sample`: what
    may stand there instead, where something must.
    """

    finding: Finding
    spoils: Path | None
    lacks: bool = False
    sample: object = None


def explain(error: ValidationError, written: object, texts: Mapping[Path, str]) -> list[Explained]:
    """All that is wrong, at most once for each key. `texts` has the scalars as they stand in the file."""
    found: dict[Path, Explained] = {}
    for detail in error.errors(include_input=False, include_url=False):
        path = _path(detail["loc"], written, missing=detail["type"] == "missing")
        if detail["type"] == "default_factory_not_called":
            continue  # a default that depends on a bad value
        if detail["type"] == "too_short" and _at(written, path):
            continue  # pydantic counts the good items only
        if detail["type"] == "union_tag_invalid":
            path = (*path, "provider" if path[-1:] == ("oauth2",) else "type")
        found.setdefault(path, _explained(detail, path, _at(written, path), texts.get(path)))
    return list(found.values())


def forgotten(written: object, texts: Mapping[Path, str], commented: Iterable[Path]) -> Iterator[Explained]:
    """Keys behind which nothing stands: whoever wrote the key had something in mind, and null is written as null."""
    for path, text in texts.items():
        if not text and _at(written, path) is None:
            hint = "quote it, if what begins with # is the value" if path in commented else _GIVE
            yield Explained(Finding(path, "nothing stands here", hint), path)


def without_mistakes(written: object, mistakes: Iterable[Explained]) -> object:
    """The file as far as it is good: bad values are left out, required ones replaced by samples."""
    for mistake in mistakes:
        path = mistake.finding.path
        sample = _UPSTREAM if len(path) == 2 and path[0] == "upstreams" else mistake.sample
        written = _changed(written, path, sample)
    return written


def _path(loc: tuple[int | str, ...], written: object, *, missing: bool) -> Path:
    """`loc` without what pydantic adds to it: the tag of a union, the index into a single value, "[key]"."""
    path: list[str | int] = []
    for index, part in enumerate(loc):
        if (index == 2 and loc[0] in _TYPES) or (index == 4 and loc[3] == "oauth2"):
            continue
        below = _at(written, (part,))
        if below is None and not (isinstance(written, dict) and part in written):
            if missing and index == len(loc) - 1:
                path.append(part)
            continue
        path.append(part)
        written = below
    return tuple(path)


def _at(written: object, path: Path) -> object:
    for part in path:
        if isinstance(written, dict):
            written = written.get(part)
        elif isinstance(written, tuple) and isinstance(part, int) and part < len(written):
            written = written[part]
        else:
            return None
    return written


def _explained(detail: Any, path: Path, value: object, text: str | None) -> Explained:
    kind, context = detail["type"], detail.get("ctx", {})
    problem, hint = _PROBLEMS.get(kind, "not a valid value"), _HINTS.get(kind, "")
    shown = None if is_secret(path) or text is None or len(text) > 40 else text
    match kind:
        case "extra_forbidden":
            return _unknown(detail["loc"], path)
        case "value_error":
            error = context["error"]
            problem, hint = (error.problem, error.hint) if isinstance(error, BadValue) else (str(error), "")
        case "string_type":
            problem, hint = "must be text", _not_text(value, shown)
        case "model_type" | "model_attributes_type" | "dict_type":
            problem, hint = "must be a mapping", "write keys below it, indented"
            if text is not None and _NO_BLANK.match(text):
                hint = "write a blank behind the colon, as in host: smtp.example.nl"
        case "literal_error" | "union_tag_invalid":
            words = context.get("expected_tags") or context["expected"]
            names = words.replace("'", "").replace(" or ", ", ").split(", ")
            problem = f"must be {_or(names)}"
            close = did_you_mean(value, names) if isinstance(value, str) and shown is not None else ""
            hint = close if close.startswith("did") else ""
            if isinstance(value, bool) and shown != str(value).lower():
                hint = f"YAML reads {shown} as {str(value).lower()}"
        case "greater_than_equal":
            problem = f"must be at least {context['ge']}"
        case "less_than_equal":
            problem = f"must be at most {context['le']}"
        case _ if value is None and kind in ("bool_type", "tuple_type", "int_type"):
            hint = _NOTHING
    # A list with a bad item is not known, nor is anything of what has a bad type.
    spoils = path[:-1] if path and (isinstance(path[-1], int) or kind == "union_tag_invalid") else path
    loc, lacks = detail["loc"], kind in ("missing", "too_short")
    sample = _sample(loc) if kind == "missing" or loc == ("upstreams",) else None
    return Explained(Finding(path, problem, hint), spoils, lacks, sample)


def _not_text(value: object, shown: str | None) -> str:
    match value:
        case None if not shown:
            return _NOTHING
        case dict() | tuple():
            return "not a list or a mapping"
        case None:
            reads_as = "nothing"
        case bool():
            reads_as = str(value).lower() if shown else "true or false"
        case Oddity():
            reads_as = value.reads_as
        case _:
            reads_as = "a number"
    return f"quote it: YAML reads {shown or 'it'} as {reads_as}"


def _unknown(loc: tuple[int | str, ...], path: Path) -> Explained:
    known = list(_known_keys(loc))
    hint = did_you_mean(str(path[-1]), known)
    meant = hint.removeprefix('did you mean "').removesuffix('"?')
    return Explained(Finding(path, "unknown key", hint), (*path[:-1], meant) if meant in known else None)


def _known_keys(loc: tuple[int | str, ...]) -> Iterator[str]:
    """The keys that may stand where `loc` ends."""
    for name, field in _section(loc).model_fields.items():
        yield field.alias or name


def _sample(loc: tuple[int | str, ...]) -> object:
    """What may stand at a key that must be there, by its kind."""
    field = _section(loc).model_fields[str(loc[-1])]
    if loc == ("upstreams",):
        return {"sample": _UPSTREAM}
    if any(_sections(field.annotation)):
        return {}  # what it lacks in its turn is seen in the next round
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)[0]
    return next((kind.sample for kind in field.metadata if isinstance(kind, Kind)), "sample")


def _section(loc: tuple[int | str, ...]) -> type[Section]:
    """The section that the last part of `loc` is a key of."""
    model, rest = _model(loc)
    for part in rest:
        if isinstance(part, str) and part in model.model_fields:  # else it is the tag of a union
            model = next(_sections(model.model_fields[part].annotation))
    return model


def _model(loc: tuple[int | str, ...]) -> tuple[type[Section], tuple[int | str, ...]]:
    """The model that the last parts of `loc`, its very last excepted, are keys of."""
    if len(loc) > 5 and loc[3] == "oauth2":
        return _OAUTH2[loc[4]], loc[5:-1]
    if loc[0] in _TYPES and len(loc) > 3:
        return _TYPES[loc[0]][loc[2]], loc[3:-1]
    return (RouteSection, loc[2:-1]) if loc[0] == "routes" else (Config, loc[:-1])


def _sections(annotation: object) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def _changed(written: object, path: Path, value: object) -> object:
    """A copy with `value` at `path`, or without that key; a list with a bad item is left out whole."""
    head, rest = path[0] if path else None, path[1:]
    if isinstance(written, dict) and isinstance(head, str):
        new = _changed(written.get(head), rest, value) if rest else value
        return {**{key: old for key, old in written.items() if key != head}, **({} if new is None else {head: new})}
    if isinstance(written, tuple) and isinstance(head, int) and rest and head < len(written):
        new = _changed(written[head], rest, value)
        return None if new is None else (*written[:head], new, *written[head + 1 :])
    return None


def _or(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
