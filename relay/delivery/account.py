"""The accounts at the providers: what all upstreams with one login at one server share.

However many upstreams lead to an account, in however many routes, it has one pace and one set of connections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial

from relay.delivery.pace import Pace
from relay.delivery.places import Places
from relay.policy.pacing import Limit
from relay.queue.store import QueueStore
from relay.values import frozen

TOPIC = "pace"


@frozen
class Terms:
    """What an account may do: the strictest of what its upstreams say. `codes`: session codes go this way as well."""

    connections: int
    limits: tuple[Limit, ...] = ()
    codes: bool = False


@frozen
class Account:
    pace: Pace
    places: Places

    def configure(self, terms: Terms) -> None:
        self.pace.configure(terms.limits)
        self.places.configure(terms.connections, codes=terms.codes)


class Accounts:
    """By their names. `changed` is called when who was sent away may come again."""

    def __init__(self, store: QueueStore, *, now: Callable[[], datetime], changed: Callable[[], None]) -> None:
        self._store = store
        self._now = now
        self._changed = changed
        self._by_name: dict[str, Account] = {}

    def __getitem__(self, name: str) -> Account:
        return self._by_name[name]

    async def load(self, terms: Mapping[str, Terms]) -> None:
        """The accounts at the start, with what was written down of them. Raises StoreUnavailable."""
        self.configure(terms)
        for memory in await self._store.memories(TOPIC):
            account = self._by_name.get(memory.key)
            if account is not None:
                account.pace.restore(memory.moment, memory.value)

    def add(self, terms: Mapping[str, Terms]) -> None:
        """Those that are new; the others stay as they are."""
        for name, one in terms.items():
            if name not in self._by_name:
                write = partial(self._store.remember, TOPIC, name)
                pace = Pace(now=self._now, write=write, freed=self._changed)
                account = self._by_name[name] = Account(pace, Places(one.connections))
                account.configure(one)

    def configure(self, terms: Mapping[str, Terms]) -> None:
        """From now on these. One that is gone is kept: what it counted is true when it comes back."""
        self.add(terms)
        for name, one in terms.items():
            self._by_name[name].configure(one)

    async def close(self) -> None:
        for account in self._by_name.values():
            account.places.close()
            await account.pace.close()
