"""Rows of the queue that nobody can make sense of: they are set aside, so that the others flow, and can be shown.

What an entry says may be wrong in its own columns (`rows.Unreadable`), and then it is found when it is leased. Here
is what would stop everybody else: numbers beyond all measure, and texts that are no UTF-8.
"""

from __future__ import annotations

from typing import Any

from relay.queue.disk import Work
from relay.queue.ledger import SetAside
from relay.queue.operations.lease import set_aside


def set_aside_damaged(work: Work, *, leased: bool) -> list[SetAside]:
    """Take all of them out of the way. `leased` ones as well: nobody has them in hand."""
    aside = []
    for key, queue_id, attempts in list(work.execute("damaged_rows", (leased,))):
        aside.append(set_aside(work, key, queue_id, attempts, "its row is damaged"))
        work.execute("make_readable", (key,))
        work.execute("make_recipients_readable", (key,))
    return aside


def is_text(*octets: Any) -> bool:
    """For SQL: whether they are UTF-8."""
    try:
        for one in octets:
            bytes(one).decode()
    except UnicodeDecodeError:
        return False
    return True


def plain(*octets: Any) -> str | None:
    """For SQL: as text, whatever they are."""
    (one,) = octets
    return None if one is None else bytes(one).decode(errors="replace")
