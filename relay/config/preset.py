"""Presets: what is known about a provider, as data. The files lie in `presets/`, one for each.

A preset fills in keys of an upstream that the configuration leaves out, and says how the provider's refusals
are to be read (`policy.refusal`). Read when they are asked for: a relay that uses none pays for none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from relay.config.document import read
from relay.config.problems import did_you_mean, quoted
from relay.config.values import BadValue
from relay.mail.outcome import Refusal, Stage
from relay.policy.refusal import Line, Table

NO_HOST = "parameter-missing.invalid"
_FOLDER = "presets"
_FOR_ALL = "_generic"  # no preset: what replies mean at providers that nobody described


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RefusalLine(_Part):
    """A line of the provider's table, as it is written; `policy.refusal.Line` says what the keys mean."""

    class_: Literal[tuple(Refusal)] = Field(alias="class")  # type: ignore[valid-type]
    codes: tuple[int, ...] | None = None
    statuses: tuple[str, ...] | None = None
    texts: tuple[str, ...] | None = None
    stages: tuple[Literal[tuple(Stage)], ...] | None = None  # type: ignore[valid-type]
    confirm: bool = False
    waits: bool = False

    def line(self) -> Line:
        return Line(
            refusal=Refusal(self.class_),
            codes=None if self.codes is None else tuple(map(str, self.codes)),
            statuses=self.statuses,
            texts=None if self.texts is None else tuple([text.lower() for text in self.texts]),
            stages=None if self.stages is None else frozenset(map(Stage, self.stages)),
            confirm=self.confirm,
            waits=self.waits,
        )


class Preset(_Part):
    """A provider. `upstream` has the keys of an upstream that it fills in.

    `sender` says whom it lets send: the account, verified addresses, those of the account's domain, or anybody; or
    that it rewrites the author by itself. `mechanisms` of AUTH are all it takes, none named: not known. `no_plain`:
    what it answers to AUTH PLAIN. `spf`: the term that the SPF record of a domain must have, "" where that is not
    known; `own_reverse_path`: it puts one of its own into mail, so that SPF speaks of its domain, not of yours.
    `parameters` are keys of the upstream that it needs, each with what to write there; `host` names them in braces.
    `login`: "address" where a username without a domain is none. `also`: names that people have for it. `also_at`:
    other ports that it has, each with its tls.
    `checked`: the day when somebody last compared it with `sources`; `unconfirmed` names what the provider itself
    does not say.
    """

    title: str
    sources: tuple[str, ...]
    checked: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    unconfirmed: tuple[str, ...] = ()
    sender: Literal["account", "verified", "domain", "any", "rewritten"]
    notes: tuple[str, ...] = ()
    mechanisms: tuple[Literal["plain", "login", "cram-md5", "xoauth2"], ...] = ()
    no_plain: str = ""
    spf: str = Field("", pattern=r"^(include:\S+)?$")
    own_reverse_path: bool = False
    login: Literal["address", "any"] = "any"
    also: tuple[str, ...] = ()
    also_at: tuple[tuple[int, Literal["starttls", "implicit"]], ...] = ()
    parameters: dict[Literal["domain", "region"], str] = {}
    upstream: dict[str, Any]
    refusals: tuple[RefusalLine, ...] = ()


class _GenericLine(RefusalLine):
    """A line of the table for all. `says` names words, "a or b" where one of the two is enough."""

    says: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()

    def line(self) -> Line:
        return replace(
            super().line(), says=tuple([tuple(names.split(" or ")) for names in self.says]), unless=self.unless
        )


class _Generic(_Part):
    """`words` are what a text says with any of these regular expressions."""

    words: dict[str, tuple[str, ...]]
    refusals: tuple[_GenericLine, ...]


@cache
def names() -> tuple[str, ...]:
    """The presets there are."""
    found = [file.name.removesuffix(".yaml") for file in (files("relay.config") / _FOLDER).iterdir()]
    return tuple(sorted(name for name in found if not name.startswith("_")))


@cache
def preset(name: str) -> Preset:
    """The preset `name`. Raises BadValue where there is none."""
    if name not in names():
        raise BadValue(f"no preset named {quoted(name)}", _meant(name))
    return Preset.model_validate(_file(name))


def _meant(name: str) -> str:
    called = {other: known for known in names() for other in (known, *preset(known).also)}
    close = did_you_mean(name.replace(" ", ""), called).removeprefix('did you mean "').removesuffix('"?')
    if close in called:
        return f'did you mean "{called[close]}"?'
    return "`relay presets` lists them; for any other provider write host"


@cache
def table(name: str | None) -> Table:
    """How the refusals of an upstream with this preset (or none) are to be read."""
    if name is None:
        generic = _Generic.model_validate(_file(_FOR_ALL))
        return _table(generic.refusals, {word: "|".join(patterns) for word, patterns in generic.words.items()})
    return _table(preset(name).refusals, {}).before(table(None))


def filled_in(upstream: object) -> object:
    """An upstream as it is written, with what its preset says of the keys that it leaves out.

    What is no upstream, or names no preset that there is, comes back as it is: validation says what is wrong.
    """
    name = upstream.get("preset") if isinstance(upstream, dict) else None
    if not isinstance(upstream, dict) or name not in names():
        return upstream
    chosen = preset(str(name))
    known = chosen.upstream
    if "oauth2" in upstream:  # then a token is how to log in, whatever is usual there
        known = {key: value for key, value in known.items() if key != "auth"}
    filled = {**known, **upstream}
    if chosen.parameters and "host" not in upstream:
        filled["host"] = _host(chosen, upstream)
    return filled


def _host(chosen: Preset, upstream: dict[str, Any]) -> str:
    """The host with its parameters; one that cannot be where one is missing, which `checks` tells."""
    host: str = chosen.upstream["host"]
    for name in chosen.parameters:
        value = upstream.get(name)
        if not isinstance(value, str) or not value:
            return NO_HOST
        host = host.replace("{" + name + "}", value)
        host = host.replace("{" + name + "-with-hyphens}", value.lower().replace(".", "-"))
    return host


def _file(name: str) -> object:
    file = f"{name}.yaml"
    return read((files("relay.config") / _FOLDER / file).read_text("utf-8"), file).value


def _table(lines: Sequence[RefusalLine], words: Mapping[str, str]) -> Table:
    return Table(tuple([line.line() for line in lines]), words)
