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
from collections.abc import Callable
from dataclasses import dataclass, replace

from relay.delivery.long_lines import LongLines
from relay.events import MessageReencoded, Observer, UpstreamRestored, UpstreamSetAside
from relay.mail.outcome import BEFORE_A_TRANSACTION, Deferred, Delivered, Failed, Outcome, Refusal, Stage, Trouble
from relay.policy.refusal import OF_THE_ACCOUNT, Table
from relay.policy.retry import Schedule
from relay.transport.port import Connection, Delivery, DeliveryRequest, Transport

IDLE = 30.0  # seconds a connection is kept without work
NEVER = float("inf")
_BY_CODE = Table()
_MAY_QUOTE = (Stage.DATA, Stage.BODY, Stage.DOT)  # what is said there may quote the message, and that may be a code


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    max_connections: int = 3
    max_recipients: int = 100


class Upstream:
    """`transport` makes connections; `refusals` tells what its replies speak of; `changed` is called whenever
    attempts may go on that could not before, or no longer can. `long_lines`: what is known about it and them; None:
    they always go as they are."""

    def __init__(
        self,
        transport: Transport,
        limits: UpstreamLimits,
        *,
        refusals: Table = _BY_CODE,
        observer: Observer,
        changed: Callable[[], None],
        long_lines: LongLines | None = None,
    ) -> None:
        self.transport = transport
        self.limits = limits
        self.refusals = refusals
        self._observer = observer
        self._changed = changed
        self._long_lines = long_lines
        self._loop = asyncio.get_running_loop()
        # Set aside
        self._failures = 0
        self._aside_until: float | None = None
        self._aside_for_auth = False
        self._epoch = 0  # attempts of an earlier one began before it was set aside
        self._probe: DeliveryRequest | None = None
        # The pool
        self._idle: list[tuple[float, Connection]] = []
        self._busy = 0
        self._waiting: list[tuple[int, int, asyncio.Future[bool]]] = []
        self._turn = 0
        self._reaper: asyncio.TimerHandle | None = None
        self._goodbyes: set[asyncio.Task[None]] = set()
        # The end
        self._closed = False
        self._connecting: set[asyncio.Timeout] = set()
        # By transaction, since one connection may do for all (capture): it, and the queue ID of what it carries.
        self._active: dict[object, tuple[Connection, str]] = {}
        self._last_call: asyncio.TimerHandle | None = None

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
        return NEVER if self._probe is not None else max(0.0, self._aside_until - self._loop.time())

    def try_now(self) -> None:
        """After a reload: whatever set it aside may be mended, so the pause ends.

        What is under way began before that: a failure of it says nothing.
        """
        if self._aside_until is not None:
            self._epoch += 1
            self._probe = None
            self._aside_until = self._loop.time()
            self._aside_for_auth = False
            self._changed()

    def admits(self, *, insist: bool = False) -> bool:
        """Whether an attempt may be made now.

        `insist` (a session code, which cannot wait) goes past the pause, but never past one for a
        refused AUTH: repeated tries would lock the account.
        """
        if self._closed:
            return False
        return self.opens_in == 0 or (insist and not self._aside_for_auth)

    def _admit(self, request: DeliveryRequest, *, insist: bool) -> bool:
        """As `admits`; the first attempt after a pause is the probe."""
        if self._probe is request:
            return not self._closed
        if not self.admits(insist=insist):
            return False
        if self._aside_until is not None and self.opens_in == 0:
            self._probe = request
        return True

    def _judge(self, request: DeliveryRequest, epoch: int, sick: Deferred | None, schedule: Schedule) -> None:
        """Take in how an attempt went."""
        probe = self._probe is request
        if sick is not None and _speaks_of_upstream(sick):
            # Begun before it was set aside, or insisted upon meanwhile: no news.
            if epoch == self._epoch and (probe or self._aside_until is None):
                self._set_aside(sick, schedule)
        elif self._aside_until is None:
            self._failures = 0
        # A line that broke in a transaction proves nothing, but that a probe came so far.
        elif probe or (sick is None and (epoch == self._epoch or not self._aside_for_auth)):
            self._restore()

    def _restore(self) -> None:
        self._failures = 0
        self._aside_until, self._aside_for_auth, self._probe = None, False, None
        self._observer.observe(UpstreamRestored(self.name))
        self._changed()

    def _set_aside(self, trouble: Deferred, schedule: Schedule) -> None:
        self._epoch += 1
        self._failures += 1
        self._probe = None
        pause = schedule.set_aside(self._failures, random.random())  # noqa: S311  # jitter, no secret
        self._aside_until = self._loop.time() + pause.total_seconds()
        self._aside_for_auth = trouble.stage is Stage.AUTH
        self._drop_idle()
        reply = trouble.reply
        text = reply.text if reply else trouble.text
        quotes = reply is not None and trouble.stage in _MAY_QUOTE
        self._observer.observe(
            UpstreamSetAside(
                upstream=self.name,
                stage=trouble.stage,
                trouble=trouble.trouble,
                code=reply.code if reply else 0,
                status=reply.status if reply else "",
                text="" if quotes else text,
                seconds=pause.total_seconds(),
            )
        )
        self._changed()

    # Transactions

    async def deliver(
        self, request: DeliveryRequest, *, priority: int, schedule: Schedule, insist: bool = False
    ) -> Delivery | None:
        """One transaction on a connection of the pool, or a new one; None: it is set aside, nothing was tried.

        Waits for a free connection by `priority` (lower first), at most as long as the request's patience.
        """
        if not self._admit(request, insist=insist):
            return None
        try:
            epoch = self._epoch
            deadline = None if request.patience is None else self._loop.time() + request.patience
            if self._busy < self.limits.max_connections:
                self._busy += 1
            elif not await self._place(priority, deadline):
                return None if self._closed else _no_place(request)
            try:
                if epoch != self._epoch:
                    if not self._admit(request, insist=insist):
                        return None
                    epoch = self._epoch
                delivery = self._read(await self._in_lines(request, deadline))
            finally:
                self._leave()
            if self._closed and delivery.sick is not None and delivery.sick.stage in BEFORE_A_TRANSACTION:
                return None
            self._judge(request, epoch, delivery.sick, schedule)
            return delivery
        finally:
            if self._probe is request:  # it ended without a verdict: the next attempt is the probe
                self._probe = None
                self._changed()

    def confirms(self, refusal: Failed) -> bool:
        """Whether a refusal is of a kind that comes and goes here, so that one alone is not believed."""
        return self.refusals.tell(refusal.stage, refusal.reply).confirm

    def _read(self, delivery: Delivery) -> Delivery:
        """The delivery with the classes of its refusals: what speaks of the account speaks of the upstream."""
        if all(type(outcome) is Delivered for outcome in delivery.outcomes):
            return delivery
        outcomes = tuple(map(self.refusals.judge, delivery.outcomes))
        sick = delivery.sick if delivery.sick is None else self.refusals.judge(delivery.sick)
        if sick is None:
            sick = next((one for one in outcomes if isinstance(one, Deferred) and one.upstream_sick), None)
        assert sick is None or isinstance(sick, Deferred)
        return replace(delivery, outcomes=outcomes, sick=sick)

    async def _in_lines(self, request: DeliveryRequest, deadline: float | None) -> Delivery:
        """The transaction; where a line was too long, at once a second one without long lines."""
        long_lines = self._long_lines
        if long_lines is None:
            return await self._transaction(request, deadline)
        if await long_lines.encode():
            return await self._transaction(replace(request, encode_long_lines=True), deadline)
        first = await self._transaction(request, deadline)
        again = [place for place, outcome in enumerate(first.outcomes) if self._refused_for_a_line(outcome)]
        if not again or first.sick is not None or self._closed:
            return first
        recipients = tuple([request.recipients[place] for place in again])
        second = await self._transaction(replace(request, recipients=recipients, encode_long_lines=True), deadline)
        if any(isinstance(outcome, Delivered) for outcome in second.outcomes):
            await long_lines.learn()
        outcomes = list(first.outcomes)
        for place, outcome in zip(again, second.outcomes, strict=True):
            outcomes[place] = outcome
        return replace(second, outcomes=tuple(outcomes))

    def _refused_for_a_line(self, outcome: Outcome) -> bool:
        if isinstance(outcome, Delivered) or outcome.reply is None:
            return False
        return self.refusals.tell(outcome.stage, outcome.reply).refusal is Refusal.LINE_TOO_LONG

    def past_dot(self, queue_id: str) -> bool:
        """True while the final dot of that message may be out and its answer is not in: nobody can call it back."""
        return any(connection.past_dot for connection, carried in self._active.values() if carried == queue_id)

    async def _transaction(self, request: DeliveryRequest, deadline: float | None) -> Delivery:
        idle = self._take_idle()
        if idle is not None:
            delivery = await self._transact(idle, request, deadline)
            if self._closed or not _connection_was_stale(delivery):
                return delivery
            # It timed out over there while it lay idle; that is no failure of the upstream.
        connection = await self._connect(deadline)
        if isinstance(connection, Deferred):
            return Delivery((connection,) * len(request.recipients), connection)
        return await self._transact(connection, request, deadline)

    async def _connect(self, deadline: float | None) -> Connection | Deferred:
        try:
            async with asyncio.timeout_at(deadline) as limit:
                self._connecting.add(limit)  # so that `end` may cut it short: nothing has been sent yet
                try:
                    return await self.transport.connect()
                finally:
                    self._connecting.discard(limit)
        except TimeoutError:
            return Deferred(Stage.CONNECT, Trouble.TIMEOUT, "no connection in time", upstream_sick=True)

    async def _transact(self, connection: Connection, request: DeliveryRequest, deadline: float | None) -> Delivery:
        if deadline is not None:
            request = replace(request, patience=max(0.0, deadline - self._loop.time()))
        transaction = object()
        self._active[transaction] = (connection, request.queue_id)
        try:
            if self._closed:
                connection.abort()
            delivery = await connection.deliver(request)
        except BaseException:
            connection.abort()
            raise
        finally:
            del self._active[transaction]
        done = delivery.reencoding
        if done is not None:
            self._observer.observe(
                MessageReencoded(request.queue_id, self.name, done.why, done.parts, done.signatures_removed)
            )
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

    async def _place(self, priority: int, deadline: float | None) -> bool:
        """Wait for a place among the connections; False when there was none in time, or there will be none."""
        future: asyncio.Future[bool] = self._loop.create_future()
        self._turn += 1
        heapq.heappush(self._waiting, (priority, self._turn, future))
        timer = None if deadline is None else self._loop.call_at(deadline, _answer, future, False)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.result():
                self._leave()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _leave(self) -> None:
        while self._waiting:
            if _answer(heapq.heappop(self._waiting)[2], True):
                return  # the place is handed on, not given up
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
            self._busy += 1  # the upstream counts it until it is closed
            task = self._loop.create_task(self._say_goodbye(connection))
            self._goodbyes.add(task)
            task.add_done_callback(self._goodbyes.discard)
        if self._idle:
            self._reaper = self._loop.call_later(IDLE / 2, self._reap)

    async def _say_goodbye(self, connection: Connection) -> None:
        try:
            await connection.close()
        finally:
            self._leave()

    # The end

    def end(self, grace: float) -> None:
        """The relay stops: what has not sent its final dot is broken off, the rest gets `grace` seconds."""
        self._refuse()
        for limit in self._connecting:
            if not limit.expired():
                limit.reschedule(self._loop.time())
        for connection, _ in list(self._active.values()):
            if not connection.past_dot:
                connection.abort()
        self._last_call = self._loop.call_later(grace, self._break_off)

    def _break_off(self) -> None:
        for connection, _ in list(self._active.values()):
            connection.abort()

    def _refuse(self) -> None:
        """Nothing new begins; who waits for a place is sent away."""
        self._closed = True
        for _, _, future in self._waiting:
            _answer(future, False)
        self._waiting.clear()

    async def close(self) -> None:
        """Close idle connections; busy ones end with their transaction."""
        self._refuse()
        if self._reaper is not None:
            self._reaper.cancel()
        if self._last_call is not None and not self._active:
            self._last_call.cancel()
        idle, self._idle = self._idle, []
        await asyncio.gather(*self._goodbyes, *(connection.close() for _, connection in idle))


def _answer(future: asyncio.Future[bool], place: bool) -> bool:
    if future.done():
        return False
    future.set_result(place)
    return True


def _no_place(request: DeliveryRequest) -> Delivery:
    outcome = Deferred(Stage.CONNECT, Trouble.TIMEOUT, "no connection was free in time")
    return Delivery((outcome,) * len(request.recipients))


def _speaks_of_upstream(trouble: Deferred) -> bool:
    return (
        trouble.stage in BEFORE_A_TRANSACTION
        or trouble.refusal in OF_THE_ACCOUNT
        or (trouble.reply is not None and trouble.reply.code == 421)
    )


def _connection_was_stale(delivery: Delivery) -> bool:
    """True when nothing of the message went out: the connection had been closed, or was closed with 421."""
    sick = delivery.sick
    if sick is None or sick.stage is not Stage.MAIL:
        return False
    return sick.trouble is Trouble.DROPPED or (sick.reply is not None and sick.reply.code == 421)
