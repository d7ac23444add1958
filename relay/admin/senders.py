"""What an operator does about senders that upstreams refuse, over any store.

Whoever runs a relay beside it tells it afterwards (`House.senders_changed`): it has them in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from relay.admin.errors import NoSuchEntry, Refused
from relay.config.problems import did_you_mean, quoted
from relay.config.values import BadValue, address
from relay.policy.verdict import TOPIC, Sender, Verdict, key_of, value_of, verdict_of
from relay.queue.store import QueueStore


async def list_(store: QueueStore, *, now: datetime) -> Sequence[Verdict]:
    """The verdicts that hold, by upstream and author."""
    memories = await store.memories(TOPIC)
    verdicts = [verdict_of(memory.key, memory.moment, memory.value) for memory in memories]
    there = [verdict for verdict in verdicts if verdict is not None and verdict.holds(now)]
    return sorted(there, key=lambda one: (one.upstream, one.sender.author, one.sender.reverse_path))


async def forget(
    store: QueueStore, senders: Sequence[str], *, now: datetime, upstream: str | None = None
) -> Sequence[Verdict]:
    """Forget the verdicts about `senders`, or about all where none is named; those that there were.

    A sender is an author or a reverse-path, in any case. Raises NoSuchEntry where one of them has no verdict: then
    nothing is forgotten.
    """
    verdicts = [one for one in await list_(store, now=now) if upstream in (None, one.upstream)]
    chosen = {sender: [one for one in verdicts if _is(one.sender, sender)] for sender in senders}
    for sender, found in chosen.items():
        if not found:
            where = f"at {upstream}" if upstream else "at any upstream"
            raise NoSuchEntry(f"{quoted(sender)} is not known to be refused {where}")
    forgotten = list(dict.fromkeys(one for found in chosen.values() for one in found)) if senders else verdicts
    for verdict in forgotten:
        await store.forget_memory(TOPIC, key_of(verdict.upstream, verdict.sender))
    return forgotten


async def pin(
    store: QueueStore,
    upstream: str,
    author: str,
    *,
    reverse_path: str | None = None,
    upstreams: Iterable[str],
    now: datetime,
) -> Verdict:
    """Have `author` taken as refused at `upstream`, for good. Its reverse-path is the same address unless given,
    "<>" is the null one. Raises Refused."""
    names = list(upstreams)
    if upstream not in names:
        raise Refused(f"there is no upstream {quoted(upstream)} ({did_you_mean(upstream, names)})")
    who = Sender("<>" if reverse_path == "<>" else _address(reverse_path or author), _address(author))
    verdict = Verdict(upstream, who, now, None)
    await store.remember(TOPIC, key_of(upstream, who), now, value_of(verdict))
    return verdict


def _address(text: str) -> str:
    try:
        return str(address(text))
    except BadValue as error:
        raise Refused(f"{quoted(text)}: {error}") from None


def _is(sender: Sender, asked: str) -> bool:
    return asked.lower() in (sender.author.lower(), sender.reverse_path.lower())
