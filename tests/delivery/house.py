"""Workers on a real store, with ways out of the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

from relay.config.preset import table
from relay.delivery.hedge import Stragglers
from relay.delivery.upstream import Upstream, UpstreamLimits
from relay.delivery.verdicts import Verdicts
from relay.delivery.worker import House, Worker
from relay.errors import StoreUnavailable
from relay.mail.address import Address
from relay.policy.decide import SESSION_CODES, Policy, decide
from relay.policy.decide import Accept as Accepted
from relay.policy.match import Match
from relay.policy.pattern import pattern
from relay.policy.retry import Schedule
from relay.queue.model import Entry, Lease
from relay.queue.sqlite.start import SqliteStore
from tests.delivery.ways import Watch, Way
from tests.kit import configured, virtual_time
from tests.kit.alone import alone
from tests.kit.store import usual
from tests.queue.mail import NOON, an_entry

HOURLY = Schedule((timedelta(hours=1),), timedelta(days=5))
CODES = Schedule((timedelta(seconds=2),), timedelta(minutes=10))


def policy(**routes: tuple[str, ...]) -> Policy:
    """Routes with their upstreams; session codes are known by their subject, and `session_codes` is their route."""
    named = {name.replace("_", "-"): ways for name, ways in (routes or {"default": ("own",)}).items()}
    made = {
        name: configured.route(name, ways, CODES, priority=0)
        if name == SESSION_CODES
        else configured.route(name, ways, HOURLY)
        for name, ways in named.items()
    }
    codes = configured.session_codes(Match(subject=(pattern("*code*"),))) if SESSION_CODES in made else None
    return configured.policy(routes=made, session_codes=codes, bounces_from=Address.of("postmaster@relay.example.nl"))


class Store(SqliteStore):
    """The real one, which can be told to be out of order."""

    broken = False
    gate: asyncio.Event | None = None  # a commit of what is fresh waits for it
    at_the_gate = 0
    stir: Callable[[], None] = staticmethod(lambda: None)

    async def put(self, entry, **how):  # type: ignore[no-untyped-def]
        await self._arrive()
        return await super().put(entry, **how)

    async def change_way(self, lease, places, way):  # type: ignore[no-untyped-def]
        self._trouble()
        return await super().change_way(lease, places, way)

    async def record(self, settlement):  # type: ignore[no-untyped-def]
        await self._arrive()
        return await super().record(settlement)

    async def _arrive(self) -> None:
        self.at_the_gate += 1
        self.stir()
        if self.gate is not None:
            await self.gate.wait()
        self._trouble()

    def _trouble(self) -> None:
        if self.broken:
            raise StoreUnavailable("io", "the disk is out of order")

    async def settle(self, settlement):  # type: ignore[no-untyped-def]
        self._trouble()
        return await super().settle(settlement)

    async def lease(self, route, *, limit, now):  # type: ignore[no-untyped-def]
        self._trouble()
        return await super().lease(route, limit=limit, now=now)

    async def next_due(self, route):  # type: ignore[no-untyped-def]
        self._trouble()
        return await super().next_due(route)

    async def give_back(self, leases):  # type: ignore[no-untyped-def]
        self._trouble()
        return await super().give_back(leases)

    async def lease_expired(self, route, *, limit, now, session_codes_only=False):  # type: ignore[no-untyped-def]
        self._trouble()
        return await super().lease_expired(route, limit=limit, now=now, session_codes_only=session_codes_only)


class DeliveryHouse:
    def __init__(self, store: Store, watch: Watch, policy: Policy) -> None:
        self.store = store
        self.watch = watch
        store.stir = watch.stir
        self.policy = policy
        self.now = NOON
        self.steady = True
        self.stopping = False
        self.ways: dict[str, Way] = {}
        self.changes: list[tuple[tuple[int, ...], str]] = []
        self.unkept = False
        self.committing: asyncio.Event | None = None
        self.upstreams: dict[str, Upstream] = {}
        self.workers: dict[str, Worker] = {}
        self.stragglers = Stragglers()
        self._running: list[asyncio.Task[None]] = []
        self._ids = count()
        self.verdicts = Verdicts(store, observer=watch, now=self._clock)
        self.shared = House(
            store=store,
            policy=lambda: self.policy,
            upstreams=self.upstreams,
            verdicts=self.verdicts,
            observer=watch,
            now=self._clock,
            steady=lambda: self.steady,
            new_queue_id=lambda: f"BOUNCE{next(self._ids)}",
            ring=lambda route: self.workers[route].make_due(),
            stopping=lambda: self.stopping,
        )

    @classmethod
    async def build(cls, folder: Path, policy: Policy, connections: int = 1) -> DeliveryHouse:
        watch = Watch()
        house = cls.__new__(cls)
        house.now = NOON  # a store asks for it as it opens
        store = await Store.open(folder / "queue.db", observer=watch, **usual(now=lambda: house.now))
        house.__init__(store, watch, policy)  # type: ignore[misc]
        for name in dict.fromkeys(name for route in policy.routes.values() for name in route.upstreams):
            house.build_way(name, connections)
        return house

    async def change_way(self, _: Lease, places: Sequence[int], way: str) -> None:
        """For an attempt at a lease that the store knows nothing of: it is noted, or fails (`unkept`), and takes as
        long as the test says (`committing`)."""
        if self.unkept:
            raise StoreUnavailable("io", "the disk is out of order")
        self.changes.append((tuple(places), way))
        if self.committing is not None:
            await self.committing.wait()

    def _clock(self) -> datetime:
        return self.now

    def build_way(self, name: str, connections: int = 1, most: int = 100) -> Way:
        way = self.ways[name] = Way(name, self.watch)
        limits = UpstreamLimits(connections, most)
        self.upstreams[name] = alone(way, limits, refusals=table(None), observer=self.watch, changed=self.changed)
        return way

    def changed(self) -> None:
        for worker in self.workers.values():
            worker.make_due()
        self.watch.stir()

    def start(self, route: str = "default", runners: int = 1) -> Worker:
        """A worker; it takes the place of one that the route has already."""
        before = self.workers.get(route)
        worker = self.workers[route] = Worker(route, runners, self.shared)
        self._running.append(asyncio.create_task(self._run(worker)))
        if before is not None:
            before.stop()
        return worker

    async def _run(self, worker: Worker) -> None:
        await worker.run()
        self.workers[worker.route].make_due()

    async def put(self, name: str, *to: str, **more: object) -> None:
        await self.store.put(replace_ids(an_entry(*to, name=name, **more), self.now), leased=False)  # type: ignore[arg-type]
        for worker in self.workers.values():
            worker.make_due()

    async def accept(self, entry: Entry) -> bool:
        """As the door does; True when it was handed over in memory."""
        decision = decide(entry.submission, self.policy)
        assert isinstance(decision, Accepted)
        worker = self.workers[decision.route.name]
        fresh = worker.room(entry.content.size)
        ways = decision.route.upstreams[:1] * len(entry.submission.envelope.recipients) if entry.session_code else ()
        lease: Lease = await self.store.put(entry, leased=fresh, ways=ways)
        if fresh:
            worker.offer(lease, decision, self.policy)
        else:
            worker.make_due()
        return fresh

    async def stop(self) -> None:
        for worker in self.workers.values():
            worker.stop()
        for upstream in self.upstreams.values():
            upstream.end(0.0)
        async with asyncio.timeout(60):
            await asyncio.gather(*self._running, self.stragglers.over())
        self._running.clear()

    async def demolish(self) -> None:
        self.store.broken = False
        await self.stop()
        for upstream in self.upstreams.values():
            await upstream.close()
        await self.store.close()


class HouseInVirtualTime(DeliveryHouse):
    """Its clock is that of the loop."""

    @property
    def now(self) -> datetime:  # type: ignore[override]
        return virtual_time.now()

    @now.setter
    def now(self, _: object) -> None:
        pass


def replace_ids(entry: Entry, now: datetime) -> Entry:
    """Received now."""
    return replace(entry, submission=replace(entry.submission, received_at=now))
