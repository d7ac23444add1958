"""The SQL of the SQLite store, by name: what every database has (`statements.sql`), and SQLite's own (`own.sql`)."""

from __future__ import annotations

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n?", re.MULTILINE)
LARGEST = 64  # rows of one statement; each size is prepared once and stays in the statement cache
CACHED = 6 * LARGEST


def read(name: str) -> str:
    """The text of a file of SQL."""
    return (files("relay.queue.sqlite") / name).read_text("utf-8")


def named(name: str) -> dict[str, str]:
    """The statements of a file of SQL."""
    parts = _NAME.split(read(name))
    bare = [_COMMENT.sub("", text).strip().rstrip(";") for text in parts[2::2]]
    return dict(zip(parts[1::2], bare, strict=True))


STATEMENTS = named("statements.sql") | named("own.sql")


def _many(name: str) -> dict[int, str]:
    """One statement that inserts 1, 2, 3 … rows: one step of SQLite, and the GIL is let go of and taken once.

    Each time it is taken the event loop has to give it up first, which costs a commit more than the disk does.
    """
    start, row = STATEMENTS[name].split(" VALUES ")
    return {size: f"{start} VALUES {','.join([row] * size)}" for size in range(1, LARGEST + 1)}


INSERTS = {
    name: _many(name)
    for name in ("insert_entry", "insert_content", "insert_recipient", "insert_history", "insert_attempt")
}
