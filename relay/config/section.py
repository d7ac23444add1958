"""What all parts of the configuration have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Tag


class Section(BaseModel):
    """A part of the configuration: frozen and strict."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        defer_build=True,  # only what is used is built, and not while modules are imported
    )


def type_of(value: object) -> str:
    """The type of a listener or an upstream as written; what is no text leads to the model that says so."""
    written = value.get("type", "smtp") if isinstance(value, Mapping) else "smtp"
    return written if isinstance(written, str) else "smtp"


def by_tag(union: Any) -> dict[str | int, type[Section]]:
    """The sections of a tagged union, each by its tag."""
    members = [get_args(member) for member in get_args(get_args(union)[0])]
    return {tag.tag: section for section, tag in members if isinstance(tag, Tag)}
