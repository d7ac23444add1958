"""What becomes of a message when an upstream does wrong: the stage it had come to × what the upstream does. Data.

The grid is the one place where a cell is decided: `test_table` shows each against a real socket, `page` makes
`docs/faults.md` of it. A cell is what becomes of the recipient, and the trouble that is recorded with the stage:

    ok     delivered
    later  deferred: the schedule of the route says when it is tried again
    aside  deferred, and the upstream is set aside
    fails  failed: the sender gets a bounce
    doubt  deferred in doubt: the upstream may have taken it

A dash and a number: the cell cannot be, for that reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from relay.mail.outcome import Stage, Trouble

REASONS = {
    "-1": "Nothing has been said yet: an upstream that lets us in and then says or does this does it at the banner.",
}

_GRID = """
                   connect    banner     ehlo       starttls   tls        auth
drop               aside:temp aside:drop aside:drop aside:drop aside:drop aside:drop
close              -1         aside:drop aside:drop aside:drop aside:drop aside:drop
421                -1         aside:temp aside:temp aside:temp aside:temp aside:temp
4xx                -1         aside:temp aside:temp aside:temp aside:temp aside:temp
5xx                -1         aside:perm aside:perm aside:perm aside:temp aside:perm
5xx, 8-bit text    -1         aside:perm aside:perm aside:perm aside:temp aside:perm
other 2xx          -1         ok         ok         ok         aside:temp ok
3xx                -1         aside:temp aside:temp aside:temp aside:temp aside:temp
several lines      -1         ok         ok         ok         aside:temp ok
8-bit text         -1         ok         ok         ok         aside:temp ok
NUL                -1         aside:temp aside:temp aside:temp aside:temp aside:temp
mixed codes        -1         aside:temp aside:temp aside:temp aside:temp aside:temp
oversized          -1         aside:temp aside:temp aside:temp aside:temp aside:temp
garbage            -1         aside:temp aside:temp aside:temp aside:temp aside:temp
half a line        -1         aside:drop aside:drop aside:drop aside:temp aside:drop
silence            aside:time aside:time aside:time aside:time aside:time aside:time

                   mail       rcpt       data       body       dot
drop               later:drop later:drop later:drop later:drop doubt:drop
close              later:drop later:drop later:drop later:drop doubt:drop
421                later:temp later:temp later:temp later:temp later:temp
4xx                later:temp later:temp later:temp later:temp later:temp
5xx                fails:perm fails:perm fails:perm fails:perm fails:perm
5xx, 8-bit text    fails:perm fails:perm fails:perm fails:perm fails:perm
other 2xx          ok         ok         later:temp later:temp ok
3xx                later:temp later:temp ok         later:temp doubt:temp
several lines      ok         ok         ok         later:temp ok
8-bit text         ok         ok         ok         later:temp ok
NUL                later:temp later:temp later:temp later:temp doubt:temp
mixed codes        later:temp later:temp later:temp later:temp doubt:temp
oversized          later:temp later:temp later:temp later:temp doubt:temp
garbage            later:temp later:temp later:temp later:temp doubt:temp
half a line        later:drop later:drop later:drop later:drop doubt:drop
silence            later:time later:time later:time later:time doubt:time
"""

# The message left in one write with its envelope (CHUNKING): whatever reply is missing, it may have been taken.
_GRID_AT_ONCE = """
                   mail       rcpt       dot
drop               doubt:drop doubt:drop doubt:drop
close              doubt:drop doubt:drop doubt:drop
421                later:temp later:temp later:temp
4xx                later:temp later:temp later:temp
5xx                fails:perm fails:perm fails:perm
5xx, 8-bit text    fails:perm fails:perm fails:perm
502                fails:perm fails:perm later:temp
other 2xx          ok         ok         ok
3xx                doubt:temp doubt:temp doubt:temp
several lines      ok         ok         ok
8-bit text         ok         ok         ok
NUL                doubt:temp doubt:temp doubt:temp
mixed codes        doubt:temp doubt:temp doubt:temp
oversized          doubt:temp doubt:temp doubt:temp
garbage            doubt:temp doubt:temp doubt:temp
half a line        doubt:drop doubt:drop doubt:drop
silence            doubt:time doubt:time doubt:time
"""


class End(StrEnum):
    """What becomes of the recipient, in the words of the page."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    SET_ASIDE = "deferred, set aside"
    FAILED = "failed: bounce"
    IN_DOUBT = "in doubt"


_ENDS = {"ok": End.DELIVERED, "later": End.DEFERRED, "aside": End.SET_ASIDE, "fails": End.FAILED, "doubt": End.IN_DOUBT}
_TROUBLES = {
    "temp": Trouble.TRANSIENT,
    "perm": Trouble.PERMANENT,
    "time": Trouble.TIMEOUT,
    "drop": Trouble.DROPPED,
}


@dataclass(frozen=True, slots=True)
class Cell:
    """`end` None: it cannot be, and `impossible` is the key of the reason. `trouble` None: none is recorded."""

    end: End | None
    trouble: Trouble | None = None
    impossible: str = ""

    @property
    def aside(self) -> bool:
        return self.end is End.SET_ASIDE

    @property
    def in_doubt(self) -> bool:
        return self.end is End.IN_DOUBT


def _cell(word: str) -> Cell:
    if word in REASONS:
        return Cell(None, impossible=word)
    end, _, trouble = word.partition(":")
    return Cell(_ENDS[end], _TROUBLES[trouble] if trouble else None)


def _read(grid: str) -> dict[tuple[Stage, str], Cell]:
    table = {}
    for part in grid.strip("\n").split("\n\n"):
        head, *rows = part.splitlines()
        stages = [Stage(word) for word in head.split()]
        for row in rows:
            words = row[19:].split()
            for stage, word in zip(stages, words, strict=True):
                table[stage, row[:19].strip()] = _cell(word)
    return table


TABLE = _read(_GRID)
"""Every cell, by stage and fault."""

TABLE_AT_ONCE = _read(_GRID_AT_ONCE)
"""The same where the message leaves in one write with its envelope."""

STAGES = tuple(dict.fromkeys(stage for stage, _ in TABLE))
FAULTS = tuple(dict.fromkeys(fault for _, fault in TABLE))
