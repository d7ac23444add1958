"""The form of log lines: `time level event field=value …`, or a JSON object with the same fields.

Nothing from a message becomes a line or a field: in a value everything that is not printable
(C0, C1, line separators, directional marks, surrogates) is written as an escape, a value that holds a
space, a quote, "=" or a backslash is quoted, and no value is longer than 1 KiB.

To be used by one thread at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime

from relay.events import Event
from relay.observe.table import ROWS, Level, Row

LONGEST = 1024
"""Octets of a value, before escaping."""

_BARE = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII but space, quote, = and backslash
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Lines:
    """Writes events as lines, line end included.

    `journal`: the line goes to journald, which has its own clock and reads the priority `<6>`
    in front; a text line then has no time.
    """

    def __init__(self, form: str, *, journal: bool) -> None:
        self._json = form == "json"
        self._journal = journal
        self._second = -1
        self._date = self._offset = ""

    def line(self, at: int, event: Event, threshold: Level) -> str:
        """The line of `event`, which happened at `at` (Unix time in nanoseconds); "" if it is below `threshold`."""
        row = ROWS[type(event)]
        level = row.level_of(event) if row.raised else row.level
        if level > threshold:
            return ""
        prefix = f"<{level:d}>" if self._journal else ""
        if self._json:
            return prefix + self._object(at, level, event, row)
        before = f"{level.word} {row.word}" if self._journal else f"{self._time(at)} {level.word} {row.word}"
        shown = _shown(event, row)
        return f"{prefix}{before} {shown}\n" if shown else f"{prefix}{before}\n"

    def _object(self, at: int, level: Level, event: Event, row: Row) -> str:
        whole: dict[str, str | int | float] = {"time": self._time(at), "level": level.word, "event": row.word}
        for field, value in _values(event, row):
            if isinstance(value, str):
                whole[field] = harmless(value)
            else:
                whole[field] = round(value, 3) if isinstance(value, float) else value
        return json.dumps(whole, ensure_ascii=False, separators=(",", ":")) + "\n"

    def _time(self, at: int) -> str:
        """`at` as local time with offset and milliseconds."""
        second, rest = divmod(at, 1_000_000_000)
        if second != self._second:
            text = datetime.fromtimestamp(second).astimezone().isoformat()
            self._second, self._date, self._offset = second, text[:19], text[19:]
        return f"{self._date}.{rest // 1_000_000:03d}{self._offset}"


def details(event: Event) -> str:
    """The fields of `event` as its line has them: what follows the event's word."""
    return _shown(event, ROWS[type(event)])


def _values(event: Event, row: Row) -> Iterator[tuple[str, str | int | float]]:
    for field, getter in row.fields:
        value = getter(event)
        if value is not None and value != "":
            yield field, value if isinstance(value, int | float) else cut(str(value))


def _shown(event: Event, row: Row) -> str:
    parts: list[str] = []
    for field, value in _values(event, row):
        if isinstance(value, str):
            parts.append(f"{field}={value if _BARE.fullmatch(value) else quoted(value)}")
        else:
            parts.append(f"{field}={value:.3f}" if isinstance(value, float) else f"{field}={value}")
    return " ".join(parts)


def cut(value: str) -> str:
    """`value`, at most `LONGEST` octets of it."""
    if len(value) <= LONGEST // 4:
        return value
    octets = value.encode("utf-8", "surrogatepass")
    if len(octets) <= LONGEST:
        return value
    # decode(errors="ignore") would drop surrogates as well, so a torn character is taken off by hand.
    end = LONGEST - len("…".encode())
    while octets[end] & 0xC0 == 0x80:
        end -= 1
    return octets[:end].decode("utf-8", "surrogatepass") + "…"


def harmless(value: str) -> str:
    """`value` with everything that is not printable written as an escape."""
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() else _ESCAPES.get(c) or _escape(ord(c)) for c in value)


def quoted(value: str) -> str:
    """`value` as a quoted string of one line, in which quotes and backslashes are escaped."""
    return '"' + harmless(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _escape(point: int) -> str:
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
