"""The sentences that people read, in one language.

They stand in `en.toml` and `nl.toml`: `texts("remedy.dns", name="own")` is the sentence `dns` of the table `remedy`,
with the value in its braces. A language is read when its first sentence is asked for, never while the relay starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple


class Texts:
    """All sentences of one language, by table and name."""

    __slots__ = ("_tables",)

    def __init__(self, tables: Mapping[str, Mapping[str, str]]) -> None:
        self._tables = tables

    def __call__(self, key: str, /, **values: object) -> str:
        """The sentence `key`, "TABLE.NAME", with `values` in its braces."""
        table, _, name = key.partition(".")
        return self._tables[table][name].format_map(values)


class Sentence(NamedTuple):
    """A sentence whose language is not chosen yet: its key, and what stands in its braces."""

    key: str
    values: Mapping[str, object]

    def told(self, texts: Texts) -> str:
        return texts(self.key, **self.values)


Languages = Callable[[str], Texts]
"""Gives the sentences of a language, "en" or "nl"; to what is pure it is passed as a value."""

BOTH = ("nl", "en")
"""The languages of what leaves by mail: who reads it is not known."""


def in_both(languages: Languages, key: str, /, **values: object) -> str:
    """The words `key` of both languages, on one line."""
    return " / ".join([languages(each)(key, **values) for each in BOTH])


@cache
def texts_in(language: str) -> Texts:
    """The sentences of a language, read once."""
    return Texts(read(f"{language}.toml"))


def read(name: str) -> dict[str, Any]:
    """What the file `name` beside this one says."""
    import tomllib
    from importlib.resources import files

    return tomllib.loads(files("relay.texts").joinpath(name).read_text("utf-8"))
