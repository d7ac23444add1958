"""The page `docs/events.md`, made from the code.

`python -m relay.observe.reference > docs/events.md` writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from relay.events import Event
from relay.observe.tally import FEEDS
from relay.observe.wording import FIELDS, WORDINGS, Wording

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
    return _HEAD + "".join(_row(kind, wording) for kind, wording in WORDINGS.items())


def _row(kind: type[Event], wording: Wording) -> str:
    fields = _code(name for name, _ in wording.fields)
    cells = (kind.__name__, f"`{wording.word}`", _level(wording), fields, _code(FEEDS.get(kind, ())))
    return f"| {' | '.join(cells)} |\n"


def _level(wording: Wording) -> str:
    if wording.raised is None:
        return wording.level.word
    return f"{wording.level.word}; {wording.raised.level.word}: {wording.raised.when}"


def _code(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.stdout.write(events_page())
