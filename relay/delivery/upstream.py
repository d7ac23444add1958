"""One upstream, shared by the workers: its connections, and whether it is set aside.

An upstream that fails before a transaction (connect to AUTH), or says 421, is set aside: for a growing
pause nobody tries it, then one connection probes, then all come back. What goes wrong later in a
transaction says more about the message than about the upstream, and defers only the message; else one
message could keep an upstream from all others.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from relay.events import Observer, UpstreamRestored, UpstreamSetAside
from relay.mail.outcome import BEFORE_A_TRANSACTION, Deferred, Stage, Trouble
from relay.policy.retry import Schedule
from relay.transport.port import Connection, Delivery, DeliveryRequest, Transport

IDLE = 30.0  # seconds a connection is kept without work


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    max_connections: int = 3
    max_recipients: int = 100


class Upstream:
    """`transport` makes connections; `admit` must say yes before `deliver` is called."""

    def __init__(
        self,
        transport: Transport,
        limits: UpstreamLimits,
        *,
        observer: Observer,
        changed: Callable[[], None],
    ) -> None:
        self.transport = transport
        self.limits = limits
        self._observer = observer
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._idle: list[tuple[float, Connection]] = []
        self._busy = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._turn = 0
        self._failures = 0
        self._aside_until: float | None = None
        self._aside_for_auth = False
        self._probing = False
        self._reaper: asyncio.TimerHandle | None = None
        self._early: set[asyncio.Task[object]] = set()  # waiting for a connection
        self._active: set[Connection] = set()
        self._closed = False

    @property
    def name(self) -> str:
        return self.transport.name

    # Whether it is set aside

    @property
    def up(self) -> bool:
        """True unless set aside."""
        return self._aside_until is None

    @property
    def opens_in(self) -> float:
        """Seconds until an attempt may be made; 0 now; infinite while a probe is under way."""
        if self._aside_until is None:
            return 0.0
        return float("inf") if self._probing else max(0.0, self._aside_until - self._loop.time())

    def admit(self, *, insist: bool = False) -> bool:
        """True when an attempt may be made now. For an upstream set aside, that attempt is the probe.

        `insist` (a session code, which cannot wait) goes past the pause, but never past one for a
        refused AUTH: repeated tries would lock the account.
        """
        if self._closed:
            return False
        if self._aside_until is None:
            return True
        if insist and not self._aside_for_auth:
            return True
        if self.opens_in > 0:
            return False
        self._probing = True
        return True

    def try_now(self) -> None:
        """After a reload: whatever set it aside may be mended, so the pause ends."""
        if self._aside_until is not None:
            self._aside_until = self._loop.time()
            self._aside_for_auth = False
            self._changed()

    def _judge(self, trouble: Deferred | None, schedule: Schedule) -> None:
        """Take in how an attempt went."""
        if trouble is None:
            self._failures = 0
            if self._aside_until is not None:
                self._aside_until, self._probing, self._aside_for_auth = None, False, False
                self._observer.observe(UpstreamRestored(self.name))
                self._changed()
            return
        if self._aside_until is not None and not self._probing and self._loop.time() < self._aside_until:
            return  # begun before it was set aside: no news
        self._probing = False
        self._failures += 1
        pause = schedule.set_aside(self._failures, random.random())  # noqa: S311  # jitter, no secret
        self._aside_until = self._loop.time() + pause.total_seconds()
        self._aside_for_auth = trouble.stage is Stage.AUTH
        self._drop_idle()
        reply = trouble.reply
        self._observer.observe(
            UpstreamSetAside(
                upstream=self.name,
                stage=trouble.stage,
                trouble=trouble.trouble,
                code=reply.code if reply else 0,
                status=reply.status if reply else "",
                text=reply.text if reply else trouble.text,
                seconds=pause.total_seconds(),
            )
        )
        self._changed()

    # Transactions

    async def deliver(self, request: DeliveryRequest, *, priority: int, schedule: Schedule) -> Delivery:
        """One transaction on a connection of the pool, or a new one. Waits for a free one by priority."""
        if self._busy < self.limits.max_connections:
            self._busy += 1
        else:
            await self._wait_turn(priority)
        try:
            connection = self._take_idle()
            reused = connection is not None
            if connection is None:
                connection = await self._connect(request)
            delivery = await self._transact(connection, request)
            if reused and _connection_was_stale(delivery):
                # It timed out over there while it lay idle; that is no failure of the upstream.
                connection = await self._connect(request)
                delivery = await self._transact(connection, request)
            sick = delivery.sick
            self._judge(sick if sick is not None and _speaks_of_upstream(sick) else None, schedule)
            return delivery
        except _NoConnection as no:
            self._judge(no.trouble, schedule)
            return Delivery((no.trouble,) * len(request.recipients), no.trouble)
        except BaseException:
            self._probing = False
            raise
        finally:
            self._leave()

    @contextmanager
    def _as_early(self) -> Iterator[None]:
        """Nothing has been sent yet, so that `end` may cancel the task."""
        task = asyncio.current_task()
        assert task is not None
        self._early.add(task)
        try:
            yield
        finally:
            self._early.discard(task)

    async def _connect(self, request: DeliveryRequest) -> Connection:
        with self._as_early():
            try:
                async with asyncio.timeout(request.patience):
                    connection = await self.transport.connect()
            except TimeoutError:
                text = f"no connection within {request.patience:g} s"
                raise _NoConnection(Deferred(Stage.CONNECT, Trouble.TIMEOUT, text, upstream_sick=True)) from None
        if isinstance(connection, Deferred):
            raise _NoConnection(connection)
        return connection

    async def _transact(self, connection: Connection, request: DeliveryRequest) -> Delivery:
        self._active.add(connection)
        try:
            delivery = await connection.deliver(request)
        except BaseException:
            connection.abort()
            raise
        finally:
            self._active.discard(connection)
        if connection.usable and not self._closed:
            self._idle.append((self._loop.time(), connection))
            if self._reaper is None:
                self._reaper = self._loop.call_later(IDLE, self._reap)
        else:
            connection.abort()
        return delivery

    # The pool

    @property
    def connections(self) -> tuple[int, int]:
        """Idle and busy ones."""
        return len(self._idle), self._busy

    async def _wait_turn(self, priority: int) -> None:
        future = self._loop.create_future()
        self._turn += 1
        heapq.heappush(self._waiting, (priority, self._turn, future))
        with self._as_early():
            try:
                await future
            except asyncio.CancelledError:
                self._probing = False
                if future.done() and not future.cancelled():
                    self._leave()
                raise

    def _leave(self) -> None:
        while self._waiting and self._busy <= self.limits.max_connections:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)  # the place is handed on, not given up
                return
        self._busy -= 1

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()[1]
            if connection.usable:
                return connection
            connection.abort()
        return None

    def _drop_idle(self) -> None:
        for _, connection in self._idle:
            connection.abort()
        self._idle.clear()

    def _reap(self) -> None:
        """Say goodbye to connections that had no work for a while."""
        self._reaper = None
        oldest = self._loop.time() - IDLE
        late = [connection for since, connection in self._idle if since <= oldest]
        self._idle = [kept for kept in self._idle if kept[0] > oldest]
        for connection in late:
            task = self._loop.create_task(connection.close())
            _goodbyes.add(task)
            task.add_done_callback(_goodbyes.discard)
        if self._idle:
            self._reaper = self._loop.call_later(IDLE / 2, self._reap)

    def end(self, grace: float) -> None:
        """The relay stops: what has not sent its final dot is broken off, the rest gets `grace` seconds."""
        self._closed = True
        for task in list(self._early):
            task.cancel()
        for connection in list(self._active):
            if not connection.past_dot:
                connection.abort()
        self._loop.call_later(grace, self._break_off)

    def _break_off(self) -> None:
        for connection in list(self._active):
            connection.abort()

    async def close(self) -> None:
        """Close idle connections; busy ones end with their transaction."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.close() for _, connection in idle))


_goodbyes: set[asyncio.Task[None]] = set()  # a task needs somebody who knows it


class _NoConnection(Exception):
    def __init__(self, trouble: Deferred) -> None:
        self.trouble = trouble


def _speaks_of_upstream(trouble: Deferred) -> bool:
    return trouble.stage in BEFORE_A_TRANSACTION or (trouble.reply is not None and trouble.reply.code == 421)


def _connection_was_stale(delivery: Delivery) -> bool:
    """True when nothing of the message went out: the connection had been closed, or was closed with 421."""
    sick = delivery.sick
    if sick is None or sick.stage is not Stage.MAIL:
        return False
    return sick.trouble is Trouble.DROPPED or (sick.reply is not None and sick.reply.code == 421)
