"""Verdicts: an upstream refuses a sender as it is, and takes it as its rule makes it.

A verdict belongs to the pair of upstream and original sender, and the original sender is the pair of reverse-path
and author, since some upstreams look at one, some at the other, and some at both. It lasts as long as the rule
says (`remember`), or for good where a person pinned it; once it is over the sender is tried unchanged again.
"""

from __future__ import annotations

import json
from datetime import datetime

from relay.mail.address import lower
from relay.mail.author import parse, plain
from relay.mail.header import value
from relay.policy.match import MOST_FIELDS, View
from relay.values import frozen

TOPIC = "sender"  # of the store's memory


@frozen
class Sender:
    """`reverse_path` "<>" is the null one; `author` is the first, "" where From has no usable address."""

    reverse_path: str
    author: str

    @classmethod
    def of(cls, view: View) -> Sender:
        """The original sender, with domains in lower case."""
        path = view.submission.envelope.reverse_path
        return cls("<>" if path is None else str(path), view.from_[0] if view.from_ else "")

    def __str__(self) -> str:
        return self.author or self.reverse_path


_OTHERS = frozenset({b"sender", b"resent-sender", b"resent-from"})  # name somebody an upstream may mean as well


def names_nobody_else(view: View) -> bool:
    """Whether a refusal of this message's sender can be about its author alone.

    From names one mailbox that every reader finds, and no Sender, Resent-Sender or Resent-From names another.
    Where there are more than `MOST_FIELDS` of these, nobody looks.
    """
    if len(view.from_) != 1 or not view.is_plain:
        return False
    others = [field for field in view.header.fields if field[0] in _OTHERS]
    return len(others) <= MOST_FIELDS and all(
        plain([other]) == 1 and _is(parse(value(other))[0].address, view.from_[0]) for other in others
    )


def _is(address: str | None, author: str) -> bool:
    """Case does not count: no upstream minds it."""
    return lower(address or "") == lower(author)


@frozen
class Verdict:
    """`sender` is refused at `upstream`, since `since`. `until` None: a person pinned it.

    `code` and `status` are those of the refusal, 0 and "" where nobody was asked (pinned).
    """

    upstream: str
    sender: Sender
    since: datetime
    until: datetime | None
    code: int = 0
    status: str = ""

    def holds(self, now: datetime) -> bool:
        return self.until is None or now < self.until


# As the store remembers it: by a key, with a moment and a text.


def key_of(upstream: str, sender: Sender) -> str:
    return json.dumps([upstream, sender.reverse_path, sender.author], ensure_ascii=False)


def value_of(verdict: Verdict) -> str:
    """What is kept besides the moment, which is `until`, or `since` where it is pinned."""
    kept = {"since": verdict.since.isoformat(), "code": verdict.code, "status": verdict.status}
    return json.dumps({**kept, "pinned": verdict.until is None})


def verdict_of(key: str, moment: datetime, value: str) -> Verdict | None:
    """The verdict that was kept; None for what cannot be read."""
    try:
        upstream, reverse_path, author = json.loads(key)
        kept = json.loads(value)
        return Verdict(
            upstream=upstream,
            sender=Sender(reverse_path, author),
            since=datetime.fromisoformat(kept["since"]),
            until=None if kept["pinned"] else moment,
            code=kept["code"],
            status=kept["status"],
        )
    except (ValueError, TypeError, KeyError):
        return None
