"""The page `docs/reliability.md`, made from what the torture suite saw last (`results`).

`python -m tests.torture.page > docs/reliability.md` writes it; `make torture` does so at its end.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import groupby

from tests.torture.results import Result, kept

_HEAD = """\
# What the relay promises, and how that was attacked

Mail that was answered with 250 is kept, whatever becomes of the process, the disk, the machine or the provider. Each
row below is a test that attacks this, with what it saw when it was last run. `make test` runs a short form of every
one; the long forms take an hour or so and need root for some (small disks, read-only disks, faults at a system call):

    make torture                                    # all, one at a time; writes this page
    make torture ARGS=tests/torture/test_kill.py    # some

This page is made by `make torture` from `tests/torture/results.json`. What an upstream can do wrong has a page of its
own, [faults](faults.md); how fast all this is stands in [benchmarks](benchmarks.md).

What is not promised: that nothing arrives twice. Where the answer to the end of a message is lost, nobody can know
whether it was taken, and it is sent again, with the same Message-ID (`in_doubt: hold` leaves that to a person). A relay
that dies sends again what it had not recorded as delivered: at most two messages of each connection. And a disk that
says it has written what it has not, no program can see through.
"""


def page(results: Iterable[Result]) -> str:
    """The page as it has to be."""
    lines = [_HEAD]
    ordered = sorted(results, key=lambda one: one.test)
    for file, group in groupby(ordered, key=lambda one: one.test.partition("::")[0]):
        lines += [f"## `{file}`", "", "| promise | test | seen | last run |", "|---|---|---|---|"]
        lines += [_row(one) for one in group]
        lines.append("")
    return "\n".join(lines)


def _row(one: Result) -> str:
    test = one.test.partition("::")[2]
    form = "long" if one.long else "short"
    cells = (one.promise, f"`{test}`", one.seen, f"{one.outcome}, {one.day} ({form} form, {one.seconds:g} s)")
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(page(kept().values()))
