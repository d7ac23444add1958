"""Who is refused where: the verdicts of all upstreams, in memory and in the store.

While nobody knows how an upstream takes a sender, one attempt for that pair finds it out and the others wait
for what it finds (`question`): a batch of a hundred invoices does not hear a hundred refusals. They do not wait long:
mail of other senders needs the connections that they have. Once a sender was taken unchanged, nobody waits any more.
A store that fails costs no more than asking again after a restart.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from weakref import WeakValueDictionary

from relay.aside import aside
from relay.errors import StoreUnavailable
from relay.events import Observer, SenderForgotten, SenderJudged, SenderPinned
from relay.mail.reply import Reply
from relay.policy.verdict import TOPIC, Sender, Verdict, key_of, value_of, verdict_of
from relay.queue.model import Memory
from relay.queue.store import QueueStore

MOST = 10_000  # pairs that are known to be taken, and to be refused; beyond, the oldest is asked anew
# Seconds from its beginning for which others wait for an answer. Most come sooner; an upstream that is silent about
# one sender may be so for ten minutes, and whoever waits keeps a connection from all others.
PATIENCE = 10.0

_Pair = tuple[str, Sender]


@dataclass(slots=True, weakref_slot=True)
class _Asking:
    """Somebody asks, and others wait for that until `until`, on the clock of the loop."""

    until: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Verdicts:
    """`load` reads what the store remembers; before that, nothing is known."""

    def __init__(self, store: QueueStore, *, observer: Observer, now: Callable[[], datetime]) -> None:
        self._store = store
        self._observer = observer
        self._now = now
        self._verdicts: dict[_Pair, Verdict] = {}
        self._taken: dict[_Pair, None] = {}
        self._asking: WeakValueDictionary[_Pair, _Asking] = WeakValueDictionary()  # while somebody does

    async def load(self) -> None:
        """Read what the store remembers; what is over is forgotten. Raises StoreUnavailable."""
        now = self._now()
        verdicts: dict[_Pair, Verdict] = {}
        over: list[str] = []
        for memory, verdict in await aside(_read, await self._store.memories(TOPIC)):
            if verdict is None or not verdict.holds(now):
                over.append(memory.key)
            else:
                verdicts[verdict.upstream, verdict.sender] = verdict
        await asyncio.gather(*[self._store.forget_memory(TOPIC, key) for key in over])  # in one commit
        self._verdicts = verdicts
        self._taken.clear()

    async def reload(self) -> None:
        """A person changed what the store remembers: read it anew, and tell. Raises StoreUnavailable."""
        before = self._verdicts
        await self.load()
        for (upstream, sender), verdict in self._verdicts.items():
            known = before.get((upstream, sender))
            if verdict.until is None and (known is None or known.until is not None):
                self._observer.observe(SenderPinned(upstream, sender.reverse_path, sender.author))
        for upstream, sender in before.keys() - self._verdicts.keys():
            self._observer.observe(SenderForgotten(upstream, sender.reverse_path, sender.author, "operator"))

    def counts(self) -> Mapping[str, int]:
        """Verdicts that hold, by upstream."""
        now = self._now()
        return Counter(upstream for (upstream, _), verdict in self._verdicts.items() if verdict.holds(now))

    def refuses(self, upstream: str, sender: Sender) -> bool:
        """Whether `upstream` is known to refuse `sender`."""
        verdict = self._verdicts.get((upstream, sender))
        return verdict is not None and verdict.holds(self._now())

    @asynccontextmanager
    async def question(self, upstream: str, sender: Sender, *, waits: bool) -> AsyncIterator[bool]:
        """The time of an attempt with `sender` at `upstream`: where nobody knows the answer, one at a time.

        False: it is still another's time, and this attempt is for later. `waits` False: it cannot wait for others
        (a session code).
        """
        pair = (upstream, sender)
        if not waits or self._is_known(pair):
            yield True
            return
        asking = self._asking.get(pair)
        if asking is None:
            asking = self._asking[pair] = _Asking()
        if not await _acquired(asking):
            yield self._is_known(pair)
            return
        if self._is_known(pair):  # the one before found it out
            asking.lock.release()
            yield True
            return
        asking.until = _patience_ends()
        try:
            yield True
        finally:
            asking.lock.release()

    async def taken(self, upstream: str, sender: Sender) -> None:
        """`upstream` took `sender` unchanged; a verdict that is over is forgotten with that."""
        pair = (upstream, sender)
        if pair in self._taken:
            return
        if len(self._taken) >= MOST:
            del self._taken[next(iter(self._taken))]
        self._taken[pair] = None
        if pair in self._verdicts and not self.refuses(upstream, sender):
            await self._forget(pair, "taken")

    async def refused(self, upstream: str, sender: Sender, reply: Reply, *, remember: timedelta) -> None:
        """`upstream` refused `sender` with `reply`; what its rule makes of it goes from now on."""
        now = self._now()
        pair = (upstream, sender)
        self._taken.pop(pair, None)
        before = self._verdicts.get(pair)
        if before is not None and before.until is None:
            return  # a person's word stays
        since = now if before is None else before.since
        verdict = Verdict(upstream, sender, since, now + remember, reply.code, reply.status)
        self._verdicts.pop(pair, None)  # the latest is the last
        self._verdicts[pair] = verdict
        path, author = sender.reverse_path, sender.author
        self._observer.observe(SenderJudged(upstream, path, author, reply.code, reply.status, now + remember))
        with suppress(StoreUnavailable):  # it has told everybody
            await self._store.remember(TOPIC, key_of(upstream, sender), now + remember, value_of(verdict))
        if len(self._verdicts) > MOST:
            # A person's word stays; whoever writes under ten thousand names loses what is known of them.
            oldest = next((one for one, known in self._verdicts.items() if known.until is not None), None)
            if oldest is not None:
                await self._forget(oldest, "too many")

    async def withdraw(self, upstream: str, sender: Sender) -> None:
        """What the rule makes of `sender` is refused as well: the verdict says nothing. A person's word stays."""
        verdict = self._verdicts.get((upstream, sender))
        if verdict is not None and verdict.until is not None:
            await self._forget((upstream, sender), "in vain")

    async def _forget(self, pair: _Pair, why: str) -> None:
        del self._verdicts[pair]
        upstream, sender = pair
        self._observer.observe(SenderForgotten(upstream, sender.reverse_path, sender.author, why))
        with suppress(StoreUnavailable):
            await self._store.forget_memory(TOPIC, key_of(upstream, sender))

    def _is_known(self, pair: _Pair) -> bool:
        return pair in self._taken or self.refuses(*pair)


def _read(memories: Sequence[Memory]) -> list[tuple[Memory, Verdict | None]]:
    return [(memory, verdict_of(memory.key, memory.moment, memory.value)) for memory in memories]


async def _acquired(asking: _Asking) -> bool:
    """Whether it is one's turn before those who wait have waited long enough."""
    try:
        async with asyncio.timeout_at(asking.until if asking.lock.locked() else _patience_ends()):
            await asking.lock.acquire()
    except TimeoutError:
        return False
    return True


def _patience_ends() -> float:
    return asyncio.get_running_loop().time() + PATIENCE
