"""From a section of the configuration to the settings of whoever follows it: what has the same name is copied."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from relay.config.secrets import Secret
from relay.config.section import Section

T = TypeVar("T")


def of(section: Section, kind: type[T], **more: object) -> T:
    """The settings of `kind`, a dataclass: each field from `more`, else from the key of its name, as plain as it gets.

    Durations become seconds, paths text, and secrets what reveals them.
    """
    names = [field.name for field in fields(kind) if field.name not in more]  # type: ignore[arg-type]
    return kind(**{name: _plain(getattr(section, name)) for name in names if hasattr(section, name)}, **more)


def _plain(value: object) -> object:
    match value:
        case timedelta():
            return value.total_seconds()
        case Path():
            return str(value)
        case Secret():
            return value.reveal
        case _:
            return value
