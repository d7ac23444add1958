"""The workers of the house: one for each route, and for each route that is gone while mail waits under it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from relay.delivery.worker import House as Shared
from relay.delivery.worker import Worker
from relay.policy.decide import Accept, Policy
from relay.queue.model import Lease


class Workers:
    """`shared` is what all of them work with; `runners` says how many messages of a route go at once."""

    def __init__(self, shared: Shared, runners: Callable[[str], int]) -> None:
        self.shared = shared
        self._runners = runners
        self._by_route: dict[str, Worker] = {}

    def sync(self, group: asyncio.TaskGroup, waiting: Iterable[str] = ()) -> None:
        """A worker for each route of the policy, and for each that mail is `waiting` under.

        A route that is taken away keeps its worker: mail that waits there, or was just decided to, is moved on.
        """
        wanted = dict.fromkeys((*self._by_route, *waiting), 1)
        wanted |= {name: self._runners(name) for name in self.shared.policy().routes}
        for name, runners in wanted.items():
            before = self._by_route.get(name)
            if before is None or before.runners != runners:
                worker = self._by_route[name] = Worker(name, runners, self.shared)
                group.create_task(self._run(worker))
                if before is not None:
                    before.stop()

    async def _run(self, worker: Worker) -> None:
        await worker.run()
        self.ring(worker.route)  # what it gave back is its successor's

    def of(self, route: str) -> Worker | None:
        return self._by_route.get(route)

    def room(self, route: str, size: int) -> bool:
        """Whether a fresh entry of `size` octets may be handed over at once."""
        worker = self._by_route.get(route)
        return worker is not None and worker.room(size)

    def offer(self, lease: Lease, decision: Accept, policy: Policy) -> None:
        """Hand over a lease that was just born."""
        self._by_route[decision.route.name].offer(lease, decision, policy)

    def ring(self, route: str) -> None:
        """Mail waits in the store under `route`."""
        self._by_route[route].make_due()

    def ring_all(self) -> None:
        """Something changed for all of them: an upstream came back, an operator acted."""
        for worker in self._by_route.values():
            worker.make_due()

    def stop(self) -> None:
        for worker in self._by_route.values():
            worker.stop()
