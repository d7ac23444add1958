"""The worker of a route: takes due entries, as many as it has room for, and sees each to its settlement.

A fresh entry comes from the door in memory, already leased (`offer`); everything else is leased from
the store, by priority and age. While older mail waits in the store, or every upstream is set aside, or the
pace of its account allows no more, the door is told that there is no room, so that fresh mail queues up behind it.
Over the pace mail waits in the store, where its order is kept: no more is leased than may leave.

One feeder fills a short queue, runners empty it; a runner settles one message before it takes the next, and `places`
bounds how many of all routes are not settled yet, since a crash repeats them. No runner is cancelled to stop it: a task
that dies between the store's answer and its own next step takes leases with it. A sweeper ends what outlived its
lifetime while it waited, and what an operator has returned to its sender.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import field
from datetime import datetime, timedelta
from functools import partial

from relay.aside import aside
from relay.delivery.attempt import Attempted, attempt, decided, held_by
from relay.delivery.call import NOT_ASKED, caught
from relay.delivery.health import NEVER
from relay.delivery.hedge import Stragglers
from relay.delivery.notify import NOBODY, Audience, most_notices
from relay.delivery.settle import Settled, bounce, expire, hold, settle
from relay.delivery.upstream import Upstream
from relay.delivery.verdicts import Verdicts
from relay.delivery.window import Window
from relay.errors import StoreUnavailable
from relay.events import Observer, Warned
from relay.mail.outcome import Deferred, Delivered, Failed, Outcome, Stage, Trouble
from relay.policy.decide import DEFAULT, LARGE_HEAD, SESSION_CODES, Accept, Policy
from relay.queue.bell import Bell
from relay.queue.model import Lease, Pending, Result, Settlement, State
from relay.queue.store import QueueStore
from relay.values import frozen

FRESH_BYTES = 8 * 1024 * 1024  # content of fresh entries that wait in memory for a runner
FRESH_ENTRIES = 1000
STORE_PAUSE = 1.0  # seconds before the store is asked again after it failed
LAST_TRIES = 10  # how often it is asked again once the relay stops
SWEEP = 5.0  # seconds between looks for entries whose lifetime ended
EXPIRED_AT_ONCE = 100
MANY = 50  # recipients of whom a report is not written while others wait
LONGEST_PAUSE = 60.0  # seconds; the wall clock, which says what is due, may leap

_LOCAL_ERROR = Deferred(Stage.MAIL, Trouble.TRANSIENT, "local error while preparing the message")

_Work = tuple[Lease, Accept | None, Policy | None]


@frozen
class House:
    """What all workers share. `policy` gives the current one; `steady` is False while a clock jump is digested.

    `ring` tells the worker of a route that mail waits in the store; `stopping`: the relay is about to end.
    `window` knows who was told how much of late.
    """

    store: QueueStore
    policy: Callable[[], Policy]
    upstreams: Mapping[str, Upstream]
    verdicts: Verdicts
    observer: Observer
    now: Callable[[], datetime]
    steady: Callable[[], bool]
    new_queue_id: Callable[[], str]
    ring: Callable[[str], None]
    stopping: Callable[[], bool] = lambda: False
    window: Window = field(default_factory=Window)


class Worker:
    """One route. `run` until `stop`; `offer` and `room` are the door's side."""

    def __init__(self, route: str, runners: int, house: House) -> None:
        self.route = route
        self.runners = runners
        # Session codes cannot wait for an upstream's pause: their own schedule is all that holds them back.
        self._urgent = route == SESSION_CODES
        self.bell = Bell()
        self.places = asyncio.Semaphore(runners)  # for attempts at entries that are not kept yet (`direct`)
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._ready: deque[_Work] = deque()
        self._fresh_bytes = 0
        self._idle: deque[asyncio.Future[None]] = deque()
        self._backlog = True  # until the store says otherwise
        self._due_at: datetime | None = None
        self._attempted = False
        self.stragglers = Stragglers()
        self._stopping = False
        self._stopped: asyncio.Future[None] = self._loop.create_future()

    # The door's side

    def room(self, size: int) -> bool:
        """True when a fresh entry of `size` octets may be handed over at once."""
        return (
            not self._stopping
            and not self._backlog
            and len(self._ready) < FRESH_ENTRIES
            and self._fresh_bytes + size <= FRESH_BYTES
            and (self._urgent or self._may_leave() > len(self._ready))
        )

    def offer(self, lease: Lease, decision: Accept, policy: Policy) -> None:
        """Take a lease that was just born; its decision is still good while `policy` is the current one."""
        self._fresh_bytes += lease.entry.content.size
        self._enqueue(lease, decision, policy)

    # The operator's side

    def opens_at(self) -> datetime | None:
        """Until when upstreams hold back what waits here; None: they do not, or one of them is being tried now."""
        pause = 0.0 if self._urgent else self._ready_in(self._ways() or ())
        return self._house.now() + timedelta(seconds=pause) if 0 < pause < NEVER else None

    # Running

    async def run(self) -> None:
        """Serve the route until `stop` and the end of what was under way."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed())
            group.create_task(self._sweep())
            for _ in range(self.runners):
                group.create_task(self._run())
        while self._ready:
            await self._give_back(self._empty())
        await self.stragglers.over()

    def stop(self) -> None:
        """Take nothing new; runners end after the message they have in hand."""
        self._stopping = True
        if not self._stopped.done():
            self._stopped.set_result(None)
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

    def _ways(self) -> list[Upstream] | None:
        """The upstreams of the route; None when it is gone, and its mail is to be moved."""
        route = self._house.policy().routes.get(self.route)
        if route is None:
            return None
        upstreams = self._house.upstreams
        return [upstreams[name] for name in route.upstreams if name in upstreams]

    def _ready_in(self, ways: Sequence[Upstream]) -> float:
        """Seconds until one of them may be asked."""
        return min([upstream.ready_in() for upstream in _asked(ways)], default=NEVER)

    def _some_way_is_up(self) -> bool:
        return any(upstream.up for upstream in self._ways() or ())

    def _may_leave(self) -> int:
        """How many more the pace of the way that mail goes now allows; 0 when all are set aside."""
        house = self._house
        route = house.policy().routes.get(self.route)
        for name in route.upstreams if route is not None else ():
            way = house.upstreams.get(name)
            if way is not None and way.health.up:
                return way.pace.room() if way.admits() else 0
        return 0

    def _enqueue(self, lease: Lease, decision: Accept | None, policy: Policy | None) -> None:
        self._ready.append((lease, decision, policy))
        while self._idle:
            waiting = self._idle.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

    async def _take(self) -> _Work | None:
        while not self._ready:
            if self._stopping:
                return None
            waiting = self._loop.create_future()
            self._idle.append(waiting)
            await waiting
        if self._stopping:
            return None
        work = self._ready.popleft()
        if work[1] is not None:
            self._fresh_bytes -= work[0].entry.content.size
        if self._backlog and len(self._ready) < self.runners:
            self.bell.ring()
        return work

    def _empty(self) -> list[Lease]:
        leases = [lease for lease, _, _ in self._ready]
        self._ready.clear()
        self._fresh_bytes = 0
        return leases

    # Feeding

    async def _feed(self) -> None:
        heard = self.bell.rings
        while not self._stopping:
            try:
                pause = await self._fill()
            except StoreUnavailable:  # the store has told everybody
                self._backlog = True  # nobody knows what is due
                await asyncio.wait((self._stopped,), timeout=STORE_PAUSE)
                continue
            try:
                async with asyncio.timeout(pause):
                    heard = await self.bell.wait(heard)
            except TimeoutError:
                pass

    async def _fill(self) -> float | None:
        """Lease what is due, if there is room; the seconds until it is worth looking again (None: when rung)."""
        house = self._house
        # More is leased before the last of it is taken, so that no runner waits for a commit.
        limit, few = 2 * self.runners, self.runners
        ways = self._ways()
        if ways is not None and not self._urgent:
            ready_in = self._ready_in(ways)
            if ready_in > 0:
                return None if ready_in == NEVER else ready_in
            room = self._may_leave()
            if room > 0:
                limit = min(limit, room - len(self._ready))
            else:
                limit = few = 1  # it is the probe: of all ways, or of one before that which mail goes now
        now = house.now()
        if self._due_at is not None and self._due_at <= now:
            self._backlog = True
        if self._backlog and len(self._ready) < few and limit > 0:
            leases = await house.store.lease(self.route, limit=limit, now=now)
            for lease in leases:
                self._enqueue(lease, None, None)
            self._backlog = len(leases) == limit
            if not self._backlog:
                self._due_at = None
                later = await house.store.next_due(self.route)
                if later is not None and (self._due_at is None or later < self._due_at):
                    self._due_at = later
        if self._backlog or self._due_at is None:
            return None
        return min(max(0.01, (self._due_at - house.now()).total_seconds()), LONGEST_PAUSE)

    # Ends without an attempt

    async def _sweep(self) -> None:
        """End what outlived its lifetime while it waited (ordinary mail only after an attempt since the start), and
        what is to be returned."""
        house = self._house
        while not self._stopping:
            await asyncio.wait((self._stopped,), timeout=SWEEP)
            try:
                while not self._stopping:
                    leases = await house.store.lease_expired(
                        self.route,
                        limit=EXPIRED_AT_ONCE,
                        now=house.now(),
                        session_codes_only=not self._mail_may_expire(),
                    )
                    await asyncio.gather(*map(self._end, leases))
                    if not leases:
                        break
            except StoreUnavailable:
                continue

    def _mail_may_expire(self) -> bool:
        """Not while it is about to be tried: what is due has its last attempt first."""
        about_to_be_tried = self._backlog and self._some_way_is_up()
        return self._house.steady() and self._attempted and not about_to_be_tried

    async def _end(self, lease: Lease) -> None:
        house = self._house
        policy = house.policy()
        end = bounce if lease.bounced else expire
        try:
            decision = await decided(lease, policy)
            settled = await self._written(
                lease,
                partial(
                    end,
                    lease,
                    route=decision.route,
                    policy=policy,
                    now=house.now(),
                    new_queue_ids=self._new_queue_ids(policy),
                    audience=self._audience(decision),
                ),
            )
        except Exception as error:  # noqa: BLE001  # bulkhead: one message must not stop the others
            settled = self._for_a_person(lease, error)
        await self._commit(settled)

    # One message

    async def _run(self) -> None:
        while (work := await self._take()) is not None:
            await self._deliver(*work)

    async def _deliver(self, lease: Lease, decision: Accept | None, decided_by: Policy | None) -> None:
        house = self._house
        policy = house.policy()
        entry = lease.entry
        if entry.session_code and house.now() >= entry.expires_at:
            await self._end(lease)  # better loudly expired than dead on arrival
            return
        try:
            if decision is None or decided_by is not policy:
                decision = await decided(lease, policy)
            rule = held_by(lease, decision)
            if rule is not None:
                await self._commit(hold(lease, route=decision.route, rule=rule))
                return
            if decision.route.name != self.route:
                await self._move(lease, decision)
                return
            attempted = await attempt(
                lease,
                decision,
                policy,
                house.upstreams,
                observer=house.observer,
                verdicts=house.verdicts,
                stragglers=self.stragglers,
                change_way=house.store.change_way,
                now=house.now,
            )
        except Exception as error:  # noqa: BLE001  # bulkhead: one message must not stop the others
            house.observer.observe(caught(error, lease))
            route = policy.routes.get(self.route) or policy.routes[DEFAULT]
            decision = Accept(route, None, entry.session_code, (), route.schedule.lifetime)
            attempted = Attempted((_LOCAL_ERROR,) * len(lease.pending), "")
        if attempted is None:
            if self._stopping or not (self._urgent or entry.session_code):
                # So will fare whatever else was leased: it waits in the store, by age, for the probe.
                await self._give_back([lease, *self._empty()])
                return
            attempted = Attempted((NOT_ASKED,) * len(lease.pending), "")
        await self._record(lease, attempted, decision, policy)

    async def judged(self, lease: Lease, attempted: Attempted, decision: Accept, policy: Policy) -> Settled:
        """What an attempt has changed, to be recorded; `told` follows the commit."""
        house = self._house
        self._attempted = True
        quiet = _nothing_to_tell(lease, attempted)
        settling = partial(
            settle,
            lease,
            attempted.outcomes,
            route=decision.route,
            policy=policy,
            upstream=attempted.upstream,
            asked=attempted.asked,
            left=attempted.left,
            opens_at=None if quiet else self.opens_at(),
            now=house.now(),
            jitter=random.random(),  # noqa: S311  # jitter, no secret
            new_queue_ids=() if quiet else self._new_queue_ids(policy),
            rule=decision.rule.name if decision.rule else None,
            may_expire=house.steady(),
            audience=NOBODY if quiet else self._audience(decision),
        )
        try:
            return settling() if quiet else await self._written(lease, settling)
        except Exception as error:  # noqa: BLE001  # bulkhead: what was delivered must be recorded
            return self._for_a_person(lease, error, attempted)

    async def _written(self, lease: Lease, settling: Callable[[], Settled]) -> Settled:
        """What `settling` returns; on a thread where it may write reports that take long."""
        if len(lease.pending) > MANY or len(lease.entry.content.head) > LARGE_HEAD:
            return await aside(settling)
        return settling()

    def _audience(self, decision: Accept) -> Audience:
        """Who reads notifications, and who has enough."""
        rewrite = decision.rule.rewrite if decision.rule is not None else None
        address = None if rewrite is None else rewrite.address
        return Audience(address, self._house.window.full(self._house.now()))

    def _for_a_person(self, lease: Lease, error: Exception, attempted: Attempted | None = None) -> Settled:
        """The settlement when a bug kept us from judging: whoever did not get the message is held."""
        self._house.observer.observe(caught(error, lease))
        if attempted is None:
            return Settled(Settlement(lease, tuple([_held(pending, None, "") for pending in lease.pending])), ())
        results = tuple(
            [
                _held(pending, attempted.outcomes[place], attempted.asked_for(place))
                for place, pending in enumerate(lease.pending)
            ]
        )
        return Settled(Settlement(lease, results, at=self._house.now(), left=attempted.left), ())

    def _new_queue_ids(self, policy: Policy) -> list[str]:
        return [self._house.new_queue_id() for _ in range(most_notices(policy))]

    # For an attempt that is made before its entry is kept (`direct`)

    async def recorded(self, settled: Settled) -> bool:
        """Record it, however often the store must be asked; False when it did not come back before the end."""
        return await self._insist(lambda: self._house.store.record(settled.settlement))

    async def finish(self, lease: Lease, attempted: Attempted | None, decision: Accept, policy: Policy) -> None:
        """See it to its settlement: the entry has been kept meanwhile, as leased."""
        if attempted is None:
            await self._give_back([lease])
            self._house.ring(self.route)  # my successor's, after a reload
        else:
            await self._record(lease, attempted, decision, policy)

    # The store

    async def _move(self, lease: Lease, decision: Accept) -> None:
        """The current policy sends it another way: it waits there, due at once."""
        waiting = tuple(
            [Result(p.index, State.PENDING, p.last_reply, p.in_doubt, p.in_doubt_at) for p in lease.pending]
        )
        await self._settle(Settlement(lease, waiting, self._house.now(), decision.route.name))
        self._house.ring(decision.route.name)

    async def _give_back(self, leases: list[Lease]) -> None:
        await self._insist(lambda: self._house.store.give_back(leases))
        self.make_due()

    async def _record(self, lease: Lease, attempted: Attempted, decision: Accept, policy: Policy) -> None:
        """Judge an attempt, and settle it."""
        upstream = self._house.upstreams.get(attempted.upstream)
        with nullcontext() if upstream is None else upstream.places.recording():
            await self._commit(await self.judged(lease, attempted, decision, policy))

    async def _commit(self, settled: Settled) -> None:
        window, told = self._house.window, settled.settlement.told
        if told:
            # Messages at once: whoever settles next has to know. Lines once the store has them, where a summary looks.
            window.note([one for one in told if not one.line])
        if await self._settle(settled.settlement):
            if told:
                window.note([one for one in told if one.line])
            self.told(settled)

    def told(self, settled: Settled) -> None:
        """It is committed: whoever watches is told, and whoever has something to do now is rung."""
        settlement = settled.settlement
        for event in settled.events:
            self._house.observer.observe(event)
        if settlement.next_attempt_at is not None:
            if settlement.route == self.route and not self._stopping:
                self.wait_until(settlement.next_attempt_at)
            else:  # another's, or my successor's
                self._house.ring(settlement.route or self.route)
        for entry in settlement.notifications:
            self._house.ring(entry.route)

    async def _settle(self, settlement: Settlement) -> bool:
        """Record it; False when that was not possible before the relay had to stop."""
        try:
            for route in await self._house.store.settle(settlement):
                self._house.ring(route)
            return True
        except StoreUnavailable:
            pass
        if await self._insist(lambda: self._house.store.settle(settlement), failed=True):
            return True
        queue_id = settlement.lease.entry.queue_id
        text = f"{queue_id}: what became of it could not be recorded: it is tried again, and may arrive twice"
        self._house.observer.observe(Warned(text))
        return False

    async def _insist(self, operation: Callable[[], Awaitable[Sequence[str]]], *, failed: bool = False) -> bool:
        """What an upstream did has happened: it is recorded however often the store must be asked. `failed`: it was
        asked once.

        The routes that it gives back are rung: an operator's wish made mail due there.

        False when the relay stops and the store does not come back in time; whoever opens it next takes
        the leases back.
        """
        tries = 0
        while True:
            if failed:
                if self._house.stopping():
                    tries += 1
                    if tries > LAST_TRIES:
                        return False
                await asyncio.sleep(STORE_PAUSE)
            try:
                for route in await operation():
                    self._house.ring(route)
                return True
            except StoreUnavailable:
                failed = True


def _asked(ways: Sequence[Upstream]) -> Iterator[Upstream]:
    """Those that mail is offered to: the first that is up, and whoever is set aside before it."""
    for way in ways:
        yield way
        if way.up:
            return


def _nothing_to_tell(lease: Lease, attempted: Attempted) -> bool:
    """True when no notification can come of it: everybody got the message, and nobody asked to hear so."""
    for outcome, pending in zip(attempted.outcomes, lease.pending, strict=True):
        if type(outcome) is not Delivered or pending.recipient.notify:
            return False
    return True


def _held(pending: Pending, outcome: Outcome | None, upstream: str) -> Result:
    """Delivered is delivered, and a refusal is told to whoever looks at what is held."""
    state = State.DELIVERED if isinstance(outcome, Delivered) else State.HELD
    code = f"{outcome.reply.code} {outcome.reply.status}".rstrip() if isinstance(outcome, Delivered | Failed) else None
    return Result(pending.index, state, code or pending.last_reply, pending.in_doubt, pending.in_doubt_at, upstream)
