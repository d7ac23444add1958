"""What an operator does about senders that upstreams refuse: functions for the table of `requests`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from relay.admin import documents
from relay.admin.documents import Document
from relay.admin.errors import NoSuchEntry, Refused
from relay.admin.house import House
from relay.config.problems import did_you_mean, quoted
from relay.config.values import BadValue, address
from relay.policy.verdict import TOPIC, Sender, Verdict, key_of, value_of, verdict_of
from relay.queue.model import Memory


async def list_(house: House) -> bytes:
    """The verdicts that hold, by upstream and author."""
    return await documents.made(partial(documents.senders, await _known(house)))


async def forget(house: House, *, senders: Sequence[str], upstream: str | None) -> bytes:
    """Forget the verdicts about `senders`, or about all where none is named; those that there were.

    A sender is an author or a reverse-path, in any case. Raises NoSuchEntry where one of them has no verdict: then
    nothing is forgotten.
    """
    verdicts = [one for one in await _known(house) if upstream in (None, one.upstream)]
    chosen = {sender: [one for one in verdicts if _is(one.sender, sender)] for sender in senders}
    for sender, found in chosen.items():
        if not found:
            where = f"at {upstream}" if upstream else "at any upstream"
            raise NoSuchEntry(f"{quoted(sender)} is not known to be refused {where}")
    forgotten = list(dict.fromkeys(one for found in chosen.values() for one in found)) if senders else verdicts
    for verdict in forgotten:
        await house.store.forget_memory(TOPIC, key_of(verdict.upstream, verdict.sender))
    await house.senders_changed()
    return await documents.made(partial(documents.senders, forgotten))


async def pin(house: House, *, upstream: str, author: str, reverse_path: str | None) -> Document:
    """Have `author` taken as refused at `upstream`, for good. Its reverse-path is the same address unless given,
    "<>" is the null one. Raises Refused."""
    names = list(house.upstreams)
    if upstream not in names:
        raise Refused(f"there is no upstream {quoted(upstream)} ({did_you_mean(upstream, names)})")
    who = Sender("<>" if reverse_path == "<>" else _address(reverse_path or author), _address(author))
    verdict = Verdict(upstream, who, datetime.now(UTC), None)
    await house.store.remember(TOPIC, key_of(upstream, who), verdict.since, value_of(verdict))
    await house.senders_changed()
    return documents.senders([verdict])


async def _known(house: House) -> list[Verdict]:
    return await asyncio.to_thread(_those_that_hold, await house.store.memories(TOPIC))


def _those_that_hold(memories: Sequence[Memory]) -> list[Verdict]:
    verdicts = [verdict_of(memory.key, memory.moment, memory.value) for memory in memories]
    there = [verdict for verdict in verdicts if verdict is not None and verdict.holds(datetime.now(UTC))]
    return sorted(there, key=lambda one: (one.upstream, one.sender.author, one.sender.reverse_path))


def _address(text: str) -> str:
    try:
        return str(address(text))
    except BadValue as error:
        raise Refused(f"{quoted(text)}: {error}") from None


def _is(sender: Sender, asked: str) -> bool:
    return asked.lower() in (sender.author.lower(), sender.reverse_path.lower())
