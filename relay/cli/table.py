"""Tables that fit: as values, lines of styled parts, without a terminal in sight.

For a terminal of some width, columns that may be cut are cut (addresses in the middle), one that may be folded goes
below its row, and the least important ones are left out, as those that are empty; what must stay whole stays whole.
For anything else (a pipe, a file) every row is one line, nothing is cut, and every field but the last is one word, "-"
where there is nothing: made for grep and awk.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len

from relay.values import frozen

Part = tuple[str, str]
"""Text and its style, "" for none. The text is printed as it is: no markup, and it must be harmless."""

Line = tuple[Part, ...]

_GAP = 2
_NARROWEST = 8  # to which columns are cut where there is no room at all
_PADDED = 40  # one very long value does not move all lines of a pipe apart


@frozen
class Column:
    """`least`: the width to which it may be cut, 0: not at all. `rank`: the highest is left out first, 0: never.

    `folds`: it goes below its row where it does not fit, in so many lines at most (0: not at all). `ends`: what is
    cut loses its end, not its middle. `glue` stands for the blanks in a value where each field has to be one word.
    """

    title: str
    least: int = 0
    rank: int = 0
    right: bool = False
    folds: int = 0
    ends: bool = False
    glue: str = ""

    def cut(self, words: str, width: int) -> str:
        """`words` in at most `width` cells."""
        if cell_len(words) <= width:
            return words
        tail = 0 if self.ends else (width - 1) // 2
        return f"{_begin(words, width - 1 - tail)}…{_begin(words[::-1], tail)[::-1]}"


def text(line: Line) -> str:
    """The line without styles."""
    return "".join(part for part, _ in line)


def line(words: str, style: str = "") -> Line:
    return ((words, style),)


def _begin(words: str, width: int) -> str:
    if words.isascii():
        return words[:width]
    taken = 0
    for end, letter in enumerate(words):
        taken += cell_len(letter)
        if taken > width:
            return words[:end]
    return words


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[Part]], *, width: int | None, indent: int = 0
) -> Iterator[Line]:
    """The title line and the rows, for a terminal of `width`, or for a pipe (None)."""
    cells = [list(row) for row in rows]
    titles = [(column.title, "bold") for column in columns]
    if width is None:
        cells = [_words(columns, row) for row in cells]
        titles = [(title.replace(" ", "-"), "") for title, _ in titles]
    natural = [
        max(cell_len(column.title), *(cell_len(row[n][0]) for row in cells), 0) for n, column in enumerate(columns)
    ]
    if width is None:
        plan = _Plan({n: min(wide, _PADDED) for n, wide in enumerate(natural)}, (), whole=True)
    else:
        spoken = [n for n in range(len(columns)) if not cells or any(row[n][0] for row in cells)]
        plan = _plan(columns, natural, spoken, width - indent)
    yield _line(titles, columns, plan, indent)
    for row in cells:
        yield _line(row, columns, plan, indent)
        for n in plan.folded:
            words, style = row[n]
            beneath = indent + 2
            room = max((width or 0) - beneath, 20)
            for part in textwrap.wrap(words, room, max_lines=columns[n].folds, placeholder="…", break_on_hyphens=False):
                yield ((" " * beneath, ""), (part, style or "dim"))


@frozen
class _Plan:
    """Which columns stand side by side, how wide, and which fold. `whole`: nothing is cut."""

    widths: dict[int, int]
    folded: tuple[int, ...]
    whole: bool = False


def _plan(columns: Sequence[Column], natural: Sequence[int], shown: list[int], width: int) -> _Plan:
    least = [
        min(wide, max(c.least, len(c.title))) if c.least else wide for c, wide in zip(columns, natural, strict=True)
    ]

    def needed() -> int:
        return sum(least[n] for n in shown) + _GAP * (len(shown) - 1)

    folded: list[int] = []
    if needed() > width:
        folded = [n for n in shown if columns[n].folds]
        shown = [n for n in shown if not columns[n].folds]
    for n in sorted(shown, key=lambda n: columns[n].rank, reverse=True):
        if needed() <= width or not columns[n].rank:
            break
        shown.remove(n)
    while needed() > width and (soft := [n for n in shown if columns[n].least and least[n] > _NARROWEST]):
        least[max(soft, key=lambda n: least[n])] -= 1  # tighter than they should be, but no line too long
    spare = width - needed()
    widths = {n: least[n] for n in shown}
    # What is left goes evenly to those that would like more.
    hungry = [n for n in shown if natural[n] > widths[n]]
    while spare > 0 and hungry:
        share = max(spare // len(hungry), 1)
        for n in hungry:
            more = min(share, natural[n] - widths[n], spare)
            widths[n] += more
            spare -= more
        hungry = [n for n in hungry if natural[n] > widths[n]]
    return _Plan(widths, tuple(folded))


def _words(columns: Sequence[Column], row: Sequence[Part]) -> list[Part]:
    """The row with every field but the last as one word."""
    last = len(columns) - 1
    return [
        ((words if n == last else words.replace(" ", columns[n].glue)) or "-", style)
        for n, (words, style) in enumerate(row)
    ]


def _line(row: Sequence[Part], columns: Sequence[Column], plan: _Plan, indent: int) -> Line:
    parts: list[Part] = [(" " * indent, "")] if indent else []
    blank = 0
    for n, width in plan.widths.items():
        words, style = row[n]
        if not plan.whole:
            words = columns[n].cut(words, width)
        room = max(width - cell_len(words), 0)
        before = blank + (room if columns[n].right else 0)
        if words:
            if before:
                parts.append((" " * before, ""))
            parts.append((words, style))
            blank = _GAP + (0 if columns[n].right else room)
        else:
            blank += width + _GAP
    return tuple(parts)
