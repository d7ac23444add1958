"""Summaries: what was collected for a reader goes out as one message, as soon as the hour has room for it again.

The lines lie in the store until the summary does, in one transaction: nothing is lost, and nothing told twice. Where
the store cannot do it now, it is tried again at the next look. A summary goes as every notification does: by the
route "default", with a null reverse-path, and it never bounces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from relay.aside import aside
from relay.delivery.own import own_entry
from relay.delivery.rounds import rounds
from relay.delivery.window import HOUR, MOST_LINES, Window
from relay.errors import StoreUnavailable
from relay.events import NotificationQueued, Observer
from relay.mail import summary
from relay.mail.address import Address
from relay.mail.summary_line import of_text
from relay.policy.decide import DEFAULT, Policy
from relay.queue.store import QueueStore

EVERY = 30.0  # seconds between two looks


class Summaries:
    """`window` knows who is to have one; `ring` tells the worker of a route that mail waits in the store."""

    def __init__(
        self,
        *,
        window: Window,
        store: QueueStore,
        policy: Callable[[], Policy],
        observer: Observer,
        now: Callable[[], datetime],
        new_queue_id: Callable[[], str],
        ring: Callable[[str], None],
    ) -> None:
        self._window = window
        self._store = store
        self._policy = policy
        self._observer = observer
        self._now = now
        self._new_queue_id = new_queue_id
        self._ring = ring

    async def run(self, stop: asyncio.Event) -> None:
        """Look every 30 seconds until `stop`."""
        await rounds(self.look, stop, EVERY)

    async def look(self) -> None:
        """Write what is due, and let the store forget what no longer counts."""
        # The store has told everybody what it lacks: at the next look it is asked again.
        with suppress(StoreUnavailable):
            for reader in self._window.due(self._now()):
                while self._window.is_due(reader, self._now()) and await self._write(reader):
                    pass
            if self._window.prune(self._now()):
                await self._store.forget_told(before=self._now() - HOUR)

    async def _write(self, reader: Address) -> bool:
        """One summary; False when the store has nothing to make it of."""
        counted = self._window.collected(reader)
        told = await self._store.collected(reader, limit=MOST_LINES)
        if not told:
            # Lines are counted once they are kept, so these are gone; what came while the store was asked is not.
            self._window.correct(reader, counted)
            return False
        policy, now, queue_id = self._policy(), self._now(), self._new_queue_id()
        author, route = policy.bounces_from, policy.routes[DEFAULT]
        data = await aside(
            lambda: summary.build(
                [of_text(one.queue_id, one.at, one.line) for one in told],
                queue_id=queue_id,
                hostname=policy.hostname,
                author=author,
                reader=reader,
                now=now,
                languages=policy.languages,
            )
        )
        entry = own_entry(data, (reader,), author=author, queue_id=queue_id, route=route, because="summary", now=now)
        await self._store.summarise(entry, told)
        self._window.summarised(reader, len(told), now)
        self._observer.observe(NotificationQueued(queue_id, "", "summary", str(reader)))
        self._ring(route.name)
        return True
