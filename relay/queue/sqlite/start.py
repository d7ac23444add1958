"""What a store finds when it is opened: the leases of a dead process are taken back, rows and files matched."""

from __future__ import annotations

from relay.queue.ledger import Change, SetAside
from relay.queue.model import Ledger
from relay.queue.operations.lease import set_aside
from relay.queue.operations.operator import apply_wishes
from relay.queue.questions import routes
from relay.queue.rows import SET_ASIDE
from relay.queue.spool import Spool
from relay.queue.sqlite.damage import set_aside_damaged
from relay.queue.work import Work
from relay.values import frozen


@frozen
class Found:
    """What lay in the queue."""

    entries: int
    octets: int
    last_key: int
    leases: int
    ledger: Ledger
    aside: list[SetAside]
    changes: list[Change]


def found_recipients(work: Work, *, leased: bool) -> dict[str, int]:
    """Those that wait, by their state in the ledger; `leased`: those of entries that somebody has leased as well."""
    counts = next(work.execute("found_recipients", (leased,)))
    return dict(zip(("pending", "deferred", "held"), counts, strict=True))


def look_around(work: Work, spool: Spool, now: int, *, history: bool, doubtful: bool = False) -> tuple[Found, set[str]]:
    """Take back the leases of a dead process, do what was wished of them, then match rows and spool files.

    What is counted is what lay there before. With it come the files that no row points to. `doubtful`: there are
    texts that are none (UnicodeDecodeError otherwise).
    """
    entries, octets, last_key, leases, damaged = next(work.execute("found_entries"))
    last_key = max(last_key, next(work.execute("last_key_of_history"))[0])
    recipients = found_recipients(work, leased=True)
    changes: list[Change] = []
    aside = set_aside_damaged(work, leased=True) if damaged or doubtful else []
    work.execute("forget_summarised")
    if leases:
        wished = [key for (key,) in work.execute("leased_wishes")]
        work.execute("take_back")
        changes = apply_wishes(work, wished, now, history=history)
    routes(work)  # who starts a relay asks for them
    there = spool.names()
    kept: set[str] = set()
    for *row, name in list(work.execute("spool_files")):
        kept |= {name, spool.name_of(row[1])}  # also where its name was damaged: the content is whole
        if name not in there and row[2] != SET_ASIDE:
            aside.append(set_aside(work, tuple(row), "its spool file is missing"))
    ledger = Ledger(found=sum(recipients.values()), **recipients)
    return Found(entries, octets, last_key, leases, ledger, aside, changes), there - kept
