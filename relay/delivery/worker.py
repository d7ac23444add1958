"""The worker of a route: takes due entries, as many as it has room for, and sees each to its settlement.

A fresh entry comes from the door in memory, already leased (`offer`); everything else is leased from
the store, by priority and age. While older mail waits in the store, or every upstream is set aside,
the door is told that there is no room, so that fresh mail queues up behind it.

One feeder fills a short queue, runners empty it; a runner settles one message before it takes the next,
so that a crash can repeat at most one message for each connection.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from relay.delivery.attempt import Attempted, attempt, decision_for
from relay.delivery.settle import Settled, expire, settle
from relay.delivery.upstream import Upstream
from relay.errors import StoreUnavailable
from relay.events import ExceptionCaught, Observer
from relay.mail.outcome import Deferred, Stage, Trouble
from relay.policy.decide import SESSION_CODES, Accept, Policy
from relay.queue.bell import Bell
from relay.queue.model import Lease, Result, Settlement, State
from relay.queue.store import QueueStore

FRESH_BYTES = 16 * 1024 * 1024  # content of fresh entries that wait in memory for a runner
FRESH_ENTRIES = 2000
STORE_PAUSE = 1.0  # seconds before a settlement is tried again after the store failed
SWEEP = 5.0  # seconds between looks for entries whose lifetime ended
EXPIRED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class House:
    """What all workers share. `policy` gives the current one; `steady` is False while a clock jump is digested."""

    store: QueueStore
    policy: Callable[[], Policy]
    upstreams: Mapping[str, Upstream]
    observer: Observer
    now: Callable[[], datetime]
    steady: Callable[[], bool]
    new_queue_id: Callable[[], str]
    ring: Callable[[str], None]


class Worker:
    """One route. `run` until `stop`; `offer` and `room` are the door's side."""

    def __init__(self, route: str, runners: int, house: House) -> None:
        self.route = route
        self.runners = runners
        # Session codes cannot wait for an upstream's pause: their own schedule is all that holds them back.
        self._urgent = route == SESSION_CODES
        self.bell = Bell()
        self._house = house
        self._ready: deque[tuple[Lease, Accept | None, Policy | None]] = deque()
        self._fresh_bytes = 0
        self._idle: deque[asyncio.Future[None]] = deque()
        self._under_way = 0
        self._backlog = True  # until the store says otherwise
        self._due_at: datetime | None = None
        self._attempted = False
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    # The door's side

    def room(self, size: int) -> bool:
        """True when a fresh entry of `size` octets may be handed over at once."""
        return (
            not self._stopping
            and not self._backlog
            and len(self._ready) < FRESH_ENTRIES
            and self._fresh_bytes + size <= FRESH_BYTES
            and (self._urgent or any(upstream.up for upstream in self._ways()))
        )

    def offer(self, lease: Lease, decision: Accept, policy: Policy) -> None:
        """Take a lease that was just born; its decision is still good while `policy` is the current one."""
        self._fresh_bytes += lease.entry.content.size
        self._enqueue(lease, decision, policy)

    # Running

    async def run(self) -> None:
        """Serve the route until `stop` and the end of what was under way."""
        async with asyncio.TaskGroup() as group:
            self._tasks = [group.create_task(self._feed()), group.create_task(self._sweep())]
            for _ in range(self.runners):
                group.create_task(self._run())
        await self._give_back([lease for lease, _, _ in self._ready])

    def stop(self) -> None:
        """Take nothing new; runners end after the message they have in hand."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        for waiting in self._idle:
            if not waiting.done():
                waiting.set_result(None)
        self.bell.ring()

    def make_due(self) -> None:
        """Something changed (a reload, an upstream's return): look into the store again."""
        self._backlog = True
        self.bell.ring()

    def wait_until(self, due_at: datetime) -> None:
        """An entry of this route waits until then."""
        if self._due_at is None or due_at < self._due_at:
            self._due_at = due_at
            self.bell.ring()

    def _ways(self) -> list[Upstream]:
        route = self._house.policy().routes.get(self.route)
        names = route.upstreams if route else ()
        return [self._house.upstreams[name] for name in names]

    def _enqueue(self, lease: Lease, decision: Accept | None, policy: Policy | None) -> None:
        self._ready.append((lease, decision, policy))
        while self._idle:
            waiting = self._idle.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

    async def _take(self) -> tuple[Lease, Accept | None, Policy | None] | None:
        while not self._ready:
            if self._stopping:
                return None
            waiting = asyncio.get_running_loop().create_future()
            self._idle.append(waiting)
            await waiting
        if self._stopping:
            return None
        lease, decision, policy = self._ready.popleft()
        if decision is not None:
            self._fresh_bytes -= lease.entry.content.size
        if self._backlog and not self._ready:
            self.bell.ring()
        return lease, decision, policy

    # Feeding

    async def _feed(self) -> None:
        heard = self.bell.rings
        while True:
            try:
                pause = await self._fill()
            except StoreUnavailable:
                pause = STORE_PAUSE  # the store has told everybody
            try:
                async with asyncio.timeout(pause):
                    heard = await self.bell.wait(heard)
            except TimeoutError:
                pass

    async def _fill(self) -> float | None:
        """Lease what is due, if there is room; the seconds until it is worth looking again (None: when rung)."""
        house = self._house
        ways = self._ways()
        opens_in = min((upstream.opens_in for upstream in ways), default=0.0)
        if opens_in > 0 and not self._urgent:
            return None if opens_in == float("inf") else opens_in
        now = house.now()
        due = self._backlog or (self._due_at is not None and self._due_at <= now)
        if due and not self._ready:
            probing = bool(ways) and not (self._urgent or any(upstream.up for upstream in ways))
            if probing and self._under_way:
                return None
            limit = 1 if probing else 2 * self.runners
            leases = await house.store.lease(self.route, limit=limit, now=now)
            self._backlog = len(leases) == limit
            for lease in leases:
                self._enqueue(lease, None, None)
            if not self._backlog:
                self._due_at = None
                later = await house.store.next_due(self.route)
                if later is not None:
                    self._due_at = later if self._due_at is None else min(self._due_at, later)
        if self._backlog or self._due_at is None:
            return None
        return max(0.01, (self._due_at - house.now()).total_seconds())

    async def _sweep(self) -> None:
        """Expire what outlived its lifetime while it waited; ordinary mail only after an attempt since the start."""
        house = self._house
        while True:
            await asyncio.sleep(SWEEP)
            try:
                while leases := await house.store.lease_expired(
                    self.route,
                    limit=EXPIRED_AT_ONCE,
                    now=house.now(),
                    session_codes_only=not (self._attempted and house.steady()),
                ):
                    for lease in leases:
                        await self._expire(lease)
            except StoreUnavailable:
                continue

    async def _expire(self, lease: Lease) -> None:
        policy = self._house.policy()
        decision = decision_for(lease, policy)
        settled = expire(
            lease,
            route=decision.route,
            policy=policy,
            now=self._house.now(),
            new_queue_id=self._house.new_queue_id(),
        )
        await self._commit(settled)

    # One message

    async def _run(self) -> None:
        while (work := await self._take()) is not None:
            lease, decision, decided_by = work
            self._under_way += 1
            try:
                await self._deliver(lease, decision, decided_by)
            finally:
                self._under_way -= 1
                if self._backlog:
                    self.bell.ring()

    async def _deliver(self, lease: Lease, decision: Accept | None, decided_by: Policy | None) -> None:
        house = self._house
        policy = house.policy()
        try:
            if decision is None or decided_by is not policy:
                decision = decision_for(lease, policy)
            if decision.route.name != self.route:
                await self._move(lease, decision)
                return
            attempted = await attempt(lease, decision, policy, house.upstreams, house.observer)
            if attempted is None:
                if not lease.entry.session_code:
                    await self._give_back([lease])
                    return
                outcome = Deferred(Stage.AUTH, Trouble.TRANSIENT, "every way is set aside")
                attempted = Attempted((outcome,) * len(lease.pending), "")
        except Exception as error:  # noqa: BLE001  # bulkhead: one message must not stop the others
            text = "".join(traceback.format_exception(error))
            house.observer.observe(ExceptionCaught("attempt", type(error).__name__, text))
            decision = decision or Accept(
                policy.routes["default"], None, False, (), policy.routes["default"].schedule.lifetime
            )
            outcome = Deferred(Stage.MAIL, Trouble.TRANSIENT, "local error while preparing the message")
            attempted = Attempted((outcome,) * len(lease.pending), "")
        self._attempted = True
        settled = settle(
            lease,
            attempted.outcomes,
            route=decision.route,
            policy=policy,
            upstream=attempted.upstream,
            asked=attempted.asked,
            now=house.now(),
            jitter=random.random(),  # noqa: S311  # jitter, no secret
            new_queue_id=house.new_queue_id(),
            rule=decision.rule.name if decision.rule else None,
            may_expire=house.steady(),
        )
        await self._commit(settled)

    async def _move(self, lease: Lease, decision: Accept) -> None:
        """The current policy sends it another way: it waits there, due at once."""
        waiting = tuple(
            [Result(p.index, State.PENDING, p.last_reply, p.in_doubt, p.in_doubt_at) for p in lease.pending]
        )
        await self._settle(Settlement(lease, waiting, self._house.now(), decision.route.name))
        self._house.ring(decision.route.name)

    async def _give_back(self, leases: list[Lease]) -> None:
        self._backlog = True
        if leases:
            await self._insist(lambda: self._house.store.give_back(leases))

    async def _commit(self, settled: Settled) -> None:
        settlement = settled.settlement
        await self._settle(settlement)
        for event in settled.events:
            self._house.observer.observe(event)
        if settlement.next_attempt_at is not None:
            self.wait_until(settlement.next_attempt_at)
        for entry in settlement.notifications:
            self._house.ring(entry.route)

    async def _settle(self, settlement: Settlement) -> None:
        await self._insist(lambda: self._house.store.settle(settlement))

    async def _insist(self, operation: Callable[[], object]) -> None:
        """What an upstream did has happened: it is recorded however often the store must be asked."""
        while True:
            try:
                await operation()  # type: ignore[misc]
                return
            except StoreUnavailable:
                await asyncio.sleep(STORE_PAUSE)
