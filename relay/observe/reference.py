"""The page `docs/events.md`, made from the code.

`python -m relay.observe.reference > docs/events.md` writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from relay.events import Event
from relay.observe.table import FIELDS, ROWS, Row

_HEAD = f"""\
# Events

What happens becomes an event (`relay/events.py`). An event is one line in the log and moves the metrics
named beside it. This page is made by `python -m relay.observe.reference > docs/events.md`.

A line is `time level event field=value …`. The fields come in the order
`{" ".join(FIELDS)}`;
those that have no value are left out. With `format: json` a line is an object with the same fields.
Values are at most 1 KiB; what is not printable is written as an escape (`\\n`, `\\x1b`, `\\u2028`). A reverse-path
`<>` is the null reverse-path. `delay` is in seconds since the message was accepted, `size` in octets. When
stderr is the journal, a line begins with its priority (`<6>`), and a text line has no time, because the journal
has it.

Levels: `info` is the life of mail, `warning` is to be looked at soon, `error` now; `debug` is for the search
for a fault. Subject, body, password and token are in no line.

| event | log line | level | fields | metrics |
|---|---|---|---|---|
"""


def events_page() -> str:
    """The text of `docs/events.md`."""
    return _HEAD + "".join(_row(kind, row) for kind, row in ROWS.items())


def _row(kind: type[Event], row: Row) -> str:
    fields = _code(name for name, _ in row.fields)
    cells = (
        kind.__name__,
        f"`{row.word}`",
        _level(row),
        fields,
        _code(row.feeds),
    )
    return f"| {' | '.join(cells)} |\n"


def _level(row: Row) -> str:
    if row.raised is None:
        return row.level.word
    return f"{row.level.word}; {row.raised.level.word}: {row.raised.when}"


def _code(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.stdout.write(events_page())
