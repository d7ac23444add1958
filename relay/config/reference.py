"""The page `docs/configuration.md`, made from the model: every key with its type, its default and its sentence.

`python -m relay.config.reference > docs/configuration.md` writes it.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from relay.config import preset
from relay.config.fields import Kind
from relay.config.model import Config
from relay.config.section import Section
from relay.values import frozen

# What each kind of value looks like; the words are those of `fields.Kind`.
KINDS = {
    "address": "a bare address, `jan@example.nl`",
    "date": "`2027-11-30`",
    "duration": "`90s`, `5m`, `1h30m`, `5d`; a unit is always needed",
    "header fields": 'a mapping of names and texts, `{X-Customer: "12"}`',
    "host name": "in ASCII, `relay.example.nl`; where it says so, an IP address will do as well",
    "https URL": "`https://login.example.com/token`",
    "JSON template": "a mapping of whatever JSON has, nested as it needs to be, with placeholders in its texts; a text"
    " that is one placeholder alone is `null` where the message has no such thing",
    "key pin": "the SHA-256 of a public key in base64; [vendor-endpoint.md](vendor-endpoint.md) has the command",
    "name": "letters, digits, `.`, `_` and `-`, at most 64",
    "network": "an address or a network: `192.168.1.20`, `192.168.1.0/24`, `::1`",
    "path": "the path of a file or a folder; a relative one counts from the folder of the configuration file",
    "pattern": "a glob (`*`, `?`) for the whole value in any case, or `/…/`: an RE2 expression, searched, in this case"
    " unless it begins with `(?i)`. At most 2 000 characters of a value are looked at, 100 fields of one name in a"
    " header, and 100 authors and 16 KiB of From; a larger From has no usable author. There can be 1 000 rules and"
    " 4 000 patterns (networks count), and as many in `session_codes.match`",
    "place to listen": "`127.0.0.1:25`, `[::1]:25`, `unix:/run/relay/smtp.sock`, or `systemd:NAME` (all sockets of that"
    " name)",
    "preset": "the name of a provider that is known: " + ", ".join(f"`{name}`" for name in preset.names()),
    "rate": "`30/min`: at most 30 within any minute; also `s`, `h` and `d`",
    "retry list": "pauses between attempts, `1m, 5m*2, 15m`: `5m*2` is twice, and the last one repeats",
    "secret": "`{credential: NAME}` (of systemd), `{file: PATH}` or `{env: NAME}`",
    "size": "`50MiB` is 50 · 2^20 octets, `10MB` is 10 · 10^6; a unit is always needed",
    "template": "a display name with `{name}`, `{address}`, `{local}` and `{domain}` in it",
}

_HEAD = """\
# Configuration

Every key of the configuration file, `/etc/relay/config.yaml` unless `-c` or `$RELAY_CONFIG` names another. Only
`upstreams` is required. Unknown keys, wrong types and impossible combinations are errors; `relay check` tells all of
them at once, each with its line and what to do. After a change: `relay check && systemctl reload relay`. All keys
apply at a reload but `queue.store` and those of `admin`, which wait for a restart.

[config.example.yaml](../config.example.yaml) shows all keys in one file. This page is made by
`python -m relay.config.reference > docs/configuration.md`.

In what follows `[]` is each item of a list, and NAME a name that you choose. Where the default is "see right", the
sentence beside it says what it is; `null` is "nothing".

## Values

"""


@frozen
class Part:
    """One section of the file. `path` as people write it; `kind`: its `type` (or what `tag` says), where there are
    several; `within`: the same of the section it stands in, as it is written."""

    path: str
    model: type[Section]
    kind: str = ""
    tag: str = "type"
    within: str = ""

    @property
    def title(self) -> str:
        if not self.path:
            return "Top level"
        kind = f"{self.tag}: {self.kind}" if self.kind else self.within
        return f"`{self.path}` with `{kind}`" if kind else f"`{self.path}`"

    @property
    def link(self) -> str:
        """A link to the heading, whose anchor is made as GitHub makes it."""
        anchor = re.sub(r"[^\w -]", "", self.title.lower()).replace(" ", "-")
        return f"[{f'{self.tag}: {self.kind}' if self.kind else 'below'}](#{anchor})"


def page() -> str:
    """The text of `docs/configuration.md`."""
    values = "".join(f"- **{word}**: {sentence}\n" for word, sentence in KINDS.items())
    once = {part.title: part for part in parts()}  # a section may stand in several kinds of another
    return _HEAD + values + "".join(map(_written, once.values()))


def parts(part: Part | None = None) -> Iterator[Part]:
    """All sections, each before those within it."""
    part = part or Part("", Config)
    yield part
    for name, hint in _hints(part.model):
        for below in _below(part, name, hint):
            yield from parts(below)


def _written(part: Part) -> str:
    about = inspect.cleandoc(part.model.__doc__ or "")
    rows = "".join(_row(part, name, hint) for name, hint in _hints(part.model))
    return f"\n## {part.title}\n\n{about}\n\n| key | value | default | |\n|---|---|---|---|\n{rows}"


def _row(part: Part, name: str, hint: Any) -> str:
    field = part.model.model_fields[name]
    below = list(_below(part, name, hint))
    value = ", ".join(each.link for each in below) or _value(hint)
    cells = (f"`{field.alias or name}`", value, _default(field, nested=bool(below)), field.description or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _hints(model: type[Section]) -> Iterator[tuple[str, Any]]:
    """The keys of a section in its order, with their types as they are written in the model."""
    hints = get_type_hints(model, include_extras=True)
    for name in model.model_fields:
        yield name, hints[name]


def _below(part: Part, name: str, hint: Any) -> Iterator[Part]:
    """The sections that stand at a key: several where a list or a mapping has items of several types."""
    path = f"{part.path}.{part.model.model_fields[name].alias or name}".lstrip(".")
    origin = get_origin(hint)
    if origin is tuple:
        path, hint = f"{path}[]", get_args(hint)[0]
    elif origin is dict:
        path, hint = f"{path}.NAME", get_args(hint)[1]
    models = list(_models(hint))
    for model in models:
        tag = "type" if "type" in model.model_fields else "provider"
        kind = get_args(model.model_fields[tag].annotation)[0] if len(models) > 1 else ""
        yield Part(path, model, kind, tag, f"{part.tag}: {part.kind}" if part.kind else part.within)


def _models(hint: Any) -> Iterator[type[Section]]:
    if isinstance(hint, type) and issubclass(hint, Section):
        yield hint
    elif get_origin(hint) in (Annotated, Union, UnionType):
        for each in get_args(hint):
            yield from _models(each)


def _value(hint: Any) -> str:
    """What may stand there, in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return next((extra.word for extra in arguments[1:] if isinstance(extra, Kind)), "") or _value(arguments[0])
    if origin in (Union, UnionType):
        return _value(arguments[0])
    if origin is Literal:
        words = [f"`{word}`" for word in arguments]
        return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
    if origin is tuple:
        return f"list: {_value(arguments[0])}"
    if origin is dict:
        return f"mapping: {_value(arguments[1])}"
    return {bool: "`true` or `false`", int: "number"}.get(hint, "text")


def _default(field: FieldInfo, *, nested: bool) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "as below" if nested else "see right"
    if isinstance(field.default, str):
        return f"`{field.default}`"
    return f"`{json.dumps(field.default, ensure_ascii=False)}`"


if __name__ == "__main__":
    sys.stdout.write(page())
