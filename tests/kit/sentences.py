"""The sentences of both languages, as they stand in their files."""

from __future__ import annotations

import string
import tomllib
from pathlib import Path

from relay.texts import language

Tables = dict[str, dict[str, str]]


def _read(name: str) -> Tables:
    return tomllib.loads(Path(language.__file__).with_name(f"{name}.toml").read_text("utf-8"))


EN, NL = _read("en"), _read("nl")


def braces(sentence: str) -> set[str]:
    """The names of the values in a sentence."""
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}
