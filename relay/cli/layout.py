"""Labelled lines: what stands behind a label goes on below itself where the terminal is too narrow."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from relay.cli.table import Line


def labelled(before: str, words: str, width: int | None, *, label: str = "", style: str = "") -> Iterator[Line]:
    """`words`, in `style`, stand behind `before`, in `label`: in lines of at most `width` cells; in one for a pipe."""
    parts = [words] if width is None else textwrap.wrap(words, max(width - len(before), 30), break_on_hyphens=False)
    for part in parts or [""]:
        yield (before, label), (part, style)
        before = " " * len(before)
