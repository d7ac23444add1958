"""One upstream, shared by the workers: one transaction after another, as soon as it may take one.

Whether it is well is `health`'s to say; what its account may send `pace`, over how many connections `places`, and
both may be shared with other upstreams (`account`). Connections that have no work lie in its `pool`, and one of them
is kept ready for session codes where they come this way first (`warm`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from relay.aside import aside
from relay.delivery.account import Account
from relay.delivery.health import NEVER, Health, broken_off
from relay.delivery.long_lines import LongLines
from relay.delivery.pace import Claim
from relay.delivery.pool import Pool
from relay.delivery.recipients import Most, MostRecipients, divided, one_too_many
from relay.delivery.warm import Warm
from relay.events import MessageReencoded, Observer
from relay.mail.outcome import BEFORE_A_TRANSACTION, Deferred, Delivered, Failed, Outcome, Refusal, Stage, Trouble
from relay.policy.refusal import Table
from relay.policy.retry import Schedule
from relay.queue.bell import Bell
from relay.transport.port import Connection, Delivery, DeliveryRequest, Transport
from relay.values import frozen

SHORTEST_SILENCE = 5.0  # seconds; what is closed sooner was not closed for its silence
MANY = 50  # recipients whose replies are not read while others wait
GOES_ON = 120.0  # seconds that an attempt under way waits for the pace of its account


@frozen
class UpstreamLimits:
    max_connections: int
    max_recipients: int


class Upstream:
    """`transport` makes connections; `refusals` tells what its replies speak of; `changed` is called whenever
    attempts may go on that could not before, or no longer can. `recipients` knows how many it takes in one transaction.
    `long_lines`: what is known about it and them; None: they always go as they are."""

    def __init__(
        self,
        transport: Transport,
        limits: UpstreamLimits,
        *,
        refusals: Table,
        account: Account,
        recipients: MostRecipients,
        observer: Observer,
        changed: Callable[[], None],
        long_lines: LongLines | None,
    ) -> None:
        self.transport = transport
        self._limits = limits
        self._recipients = recipients
        self.refusals = refusals
        self.pace, self.places = account.pace, account.places
        self._observer = observer
        self._changed = changed
        self._long_lines = long_lines
        self._loop = asyncio.get_running_loop()
        self.health = Health(transport.name, account, fell=self._fell, rose=self._rose, observer=observer)
        # Connections
        self.bell = Bell()  # rung when one comes or goes, and when the upstream falls or comes back
        self.pool = Pool(self.places, stirred=self.bell.ring, lost=self._lost)
        self.silence = NEVER  # the shortest after which the other end is known to have closed an idle connection
        self._busy = 0
        self._warm: asyncio.Task[None] | None = None
        # The end
        self._closed = False
        self._connecting: set[asyncio.Timeout] = set()
        # By transaction, since one connection may do for all (capture): it, and the queue ID of what it carries.
        self._active: dict[object, tuple[Connection, str]] = {}
        self._last_call: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        return self.transport.name

    @property
    def limits(self) -> UpstreamLimits:
        """Its own, within what its account has, where others may be stricter, also since a reload; and no more
        recipients than it was found to take."""
        most, learnt = self.pace.most_recipients, self.learnt
        if learnt is not None:
            most = min(most, learnt.recipients)
        return self._limits if most >= self._limits.max_recipients else replace(self._limits, max_recipients=most)

    @property
    def learnt(self) -> Most | None:
        """How many recipients it takes in one transaction, where it refused more."""
        return self._recipients.of(self.name)

    async def learn(self, room: int) -> None:
        """It takes that many recipients in one transaction."""
        await self._recipients.learn(self.name, room)

    # Whether mail may go to it

    @property
    def up(self) -> bool:
        """True unless set aside."""
        return self.health.up

    @property
    def opens_in(self) -> float:
        """Seconds until it is no longer left alone; 0 now; infinite while a probe is under way."""
        return self.health.opens_in

    def ready_in(self, *, session_code: bool = False) -> float:
        """Seconds until an attempt may be made, the pace of its account included."""
        paced = self.pace.ready_in(session_code=session_code) if self.pace.limits else 0.0
        return paced if self.health.at_ease else max(self.opens_in, self.health.rests_for, paced)

    @property
    def takes_later(self) -> bool:
        """True when it is well and only the pace holds mail back: it waits, and goes no other way."""
        return self.up and not self._closed and self.ready_in() > 0

    def try_now(self) -> None:
        """After a reload: whatever set it aside may be mended, so the pause ends."""
        self.health.try_now()

    def remember(self) -> None:
        """After a start: an account whose quota was used up is still held."""
        self.health.remember()

    def _fell(self, trouble: Deferred) -> None:
        if trouble.refusal is not Refusal.QUOTA and not broken_off(trouble):
            self.pool.drop_all()
        self._rose()

    def _rose(self) -> None:
        self.bell.ring()
        self._changed()

    def admits(self, *, insist: bool = False, session_code: bool = False, goes_on: bool = False) -> bool:
        """Whether an attempt may be made now, and there is room for a transaction.

        `insist` (a session code, which cannot wait) goes past the pause, but never past one for a
        refused AUTH: repeated tries would lock the account. Room it waits for, and so does who `goes_on`.
        """
        if self._closed:
            return False
        if insist or goes_on:
            return self.health.admits(insist=insist)
        if self.health.at_ease and not self.pace.limits:
            return True
        return self.ready_in(session_code=session_code) == 0

    # Transactions

    async def deliver(
        self,
        request: DeliveryRequest,
        *,
        priority: int,
        schedule: Schedule,
        insist: bool = False,
        goes_on: bool = False,
    ) -> Delivery | None:
        """One transaction on a connection of the pool, or a new one; None: it is set aside, or its account may send
        no more for now. Then nothing was tried.

        Waits for a free connection, session codes first and then by `priority` (lower first), at most as long as the
        request's patience. Who insists, and who goes on with an attempt in which much was said already, waits for the
        account's pace as well.
        """
        if not self.admits(insist=insist, session_code=request.session_code, goes_on=goes_on):
            return None
        deadline = None if request.patience is None else self._loop.time() + request.patience
        claim = self.pace.claim(len(request.recipients), session_code=request.session_code)
        if claim is None and (insist or goes_on):
            claim = await self._wait_for_pace(request, deadline)
            if claim is None and insist and not self._closed:
                return _no_place(request, "the account may send no more for now")
        if claim is None:
            return None
        code, health, places = request.session_code, self.health, self.places
        try:
            if self._closed or not health.begin(request, insist=insist):
                return None
            epoch = health.epoch
            if not (
                places.take_now(session_code=code)
                or await places.wait_for_one(self, priority, deadline, session_code=code)
            ):
                return None if self._closed else _no_place(request, "no connection was free in time")
            self._busy += 1
            try:
                if epoch != health.epoch:
                    if self._closed or not health.begin(request, insist=insist, rested=True):
                        return None
                    epoch = health.epoch
                delivery = await self._in_lines(request, claim, deadline)
            finally:
                self._busy -= 1
                places.leave()
                if len(self._active) + len(self.pool.idle) > places.allowed:
                    self.pool.let_go()
                self.bell.ring()
            if not self._closed:
                health.judge(request, epoch, delivery.sick, schedule, session_code=code)
            elif delivery.sick is not None and delivery.sick.stage in BEFORE_A_TRANSACTION:
                return None
            return delivery
        finally:
            claim.drop()
            health.end(request)

    async def _wait_for_pace(self, request: DeliveryRequest, deadline: float | None) -> Claim | None:
        """A claim ahead of everybody else's, once it may be used; None when that takes too long."""
        if deadline is None:
            deadline = self._loop.time() + GOES_ON
        claim = self.pace.claim_ahead(len(request.recipients))
        try:
            while not self._closed:
                pause = self.pace.due_in(session_code=request.session_code)
                if pause == 0:
                    return claim
                if self._loop.time() + pause > deadline:
                    break
                await self._sleep(pause)
        except BaseException:
            claim.drop()
            raise
        claim.drop()
        return None

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds) as limit:
                self._connecting.add(limit)  # so that `end` may cut it short
                try:
                    await self._loop.create_future()
                finally:
                    self._connecting.discard(limit)
        except TimeoutError:
            pass

    def keep_warm(self, warm: bool) -> None:
        """Whether a connection lies ready for session codes from now on."""
        self.pool.warm = warm
        if warm and self._warm is None:
            self._warm = self._loop.create_task(Warm(self).run())
        elif not warm and self._warm is not None:
            self._warm.cancel()
            self._warm = None

    def confirms(self, refusal: Failed) -> bool:
        """Whether a refusal is of a kind that comes and goes here, so that one alone is not believed."""
        return self.refusals.tell(refusal.stage, refusal.reply).confirm

    async def _read(self, said: Delivery, *, split: bool = True) -> Delivery:
        """The delivery with the classes of its refusals: what speaks of the account speaks of the upstream."""
        for outcome in said.outcomes:
            if type(outcome) is not Delivered:
                break
        else:
            return said
        judge = partial(self.refusals.judge, split=split)
        if len(said.outcomes) > MANY:
            outcomes = await aside(lambda: tuple(map(judge, said.outcomes)))
        else:
            outcomes = tuple(map(judge, said.outcomes))
        sick = said.sick if said.sick is None else judge(said.sick)
        if sick is None:
            sick = next((one for one in outcomes if isinstance(one, Deferred) and one.upstream_sick), None)
        assert sick is None or isinstance(sick, Deferred)
        delivery = replace(said, outcomes=outcomes, sick=sick)
        if not any(map(one_too_many, outcomes)):
            return delivery
        return divided(delivery) or await self._read(said, split=False)

    async def _in_lines(self, request: DeliveryRequest, claim: Claim, deadline: float | None) -> Delivery:
        """The transaction, read; where a line was too long, at once a second one without long lines."""
        long_lines = self._long_lines
        if long_lines is not None and await long_lines.encode():
            request, long_lines = replace(request, encode_long_lines=True), None
        said = await self._transaction(request, claim, deadline)
        first = await self._read(said)
        if first is said or long_lines is None or said.sick is not None or self._closed:
            return first
        again = [place for place, outcome in enumerate(first.outcomes) if _refused_for_a_line(outcome)]
        if not again:
            return first
        recipients = tuple([request.recipients[place] for place in again])
        request = replace(request, recipients=recipients, encode_long_lines=True)
        second = await self._read(await self._once_more(request, deadline))
        if any(isinstance(outcome, Delivered) for outcome in second.outcomes):
            await long_lines.learn()
        outcomes = list(first.outcomes)
        for place, outcome in zip(again, second.outcomes, strict=True):
            outcomes[place] = outcome
        return replace(second, outcomes=tuple(outcomes), sick=second.sick or first.sick, room=second.room or first.room)

    async def _once_more(self, request: DeliveryRequest, deadline: float | None) -> Delivery:
        """A second transaction, which counts as well."""
        claim = await self._wait_for_pace(request, deadline)
        if claim is None:
            return _no_place(request, "the account may send no more for now")
        try:
            return await self._transaction(request, claim, deadline)
        finally:
            claim.drop()

    def past_dot(self, queue_id: str) -> bool:
        """True while the final dot of that message may be out and its answer is not in: nobody can call it back."""
        return any(connection.past_dot for connection, carried in self._active.values() if carried == queue_id)

    async def _transaction(self, request: DeliveryRequest, claim: Claim, deadline: float | None) -> Delivery:
        idle = self.pool.take(session_code=request.session_code)
        if idle is not None:
            delivery = await self._transact(idle, request, claim, deadline)
            if type(delivery.outcomes[0]) is Delivered or self._closed or not self._is_to_be_replaced(delivery):
                return delivery
            # It timed out over there while it lay idle, or has done its share; that is no failure of the upstream.
            idle.abort()
        connection = await self._connect(deadline)
        if isinstance(connection, Deferred):
            return Delivery((connection,) * len(request.recipients), connection)
        return await self._transact(connection, request, claim, deadline)

    def _is_to_be_replaced(self, delivery: Delivery) -> bool:
        """True for a connection that was stale, and for one that is used up: where even the first recipient was one too
        many, they are counted over the connection."""
        if delivery.sick is not None and _connection_was_stale(delivery.sick):
            return True
        outcomes = map(self.refusals.judge, delivery.outcomes)
        too_many = all(one_too_many(outcome) and outcome.stage is Stage.RCPT for outcome in outcomes)
        return too_many and not delivery.taken

    async def _connect(self, deadline: float | None) -> Connection | Deferred:
        try:
            async with asyncio.timeout_at(deadline) as limit:
                self._connecting.add(limit)  # so that `end` may cut it short: nothing has been sent yet
                try:
                    await self.places.make_room(self.pool)
                    return await self.transport.connect()
                finally:
                    self._connecting.discard(limit)
        except TimeoutError:
            return Deferred(Stage.CONNECT, Trouble.TIMEOUT, "no connection in time", upstream_sick=True)

    async def _transact(
        self, connection: Connection, request: DeliveryRequest, claim: Claim, deadline: float | None
    ) -> Delivery:
        transaction = object()
        self._active[transaction] = (connection, request.queue_id)
        try:
            await claim.use()
            if deadline is not None:
                request = replace(request, patience=max(0.0, deadline - self._loop.time()))
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
            self.pool.put(connection)
        else:
            connection.abort()
        return delivery

    # Connections

    @property
    def connections(self) -> tuple[int, int]:
        """Idle and busy ones."""
        return len(self.pool.idle), self._busy + self.pool.closing

    def _lost(self, silence: float) -> None:
        """The other end closed an idle connection: some do so before long, and it is as well to know when."""
        if silence > SHORTEST_SILENCE:
            self.silence = min(self.silence, silence)

    async def open_one(self, schedule: Schedule, *, doubted: bool) -> bool | None:
        """Open a connection that lies ready; False when that failed, None where there is no place for it.

        It counts as the connect of an attempt does, but for a failure that is `doubted`. Never waits for a place.
        """
        token = object()
        if self._closed or self.health.rests_for > 0:
            return None
        if not self.places.take_now(session_code=True):
            return None
        self._busy += 1
        try:
            if not self.health.begin(token):
                return None
            epoch = self.health.epoch
            connection = await self._connect(None)
            if not isinstance(connection, Deferred):
                if self._closed:
                    connection.abort()
                else:
                    self.pool.put(connection)
                self.health.connected(token)
                return True
            if not self._closed:
                judged = self.refusals.judge(connection)
                assert isinstance(judged, Deferred)
                if not (doubted and self.up) or judged.stage is Stage.AUTH:
                    self.health.judge(token, epoch, judged, schedule)
            return False
        finally:
            self._busy -= 1
            self.places.leave()
            self.health.end(token)

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
        self.places.refuse(self)
        self.bell.ring()

    @property
    def closed(self) -> bool:
        return self._closed

    async def close(self) -> None:
        """Close idle connections; busy ones end with their transaction."""
        self._refuse()
        if self._warm is not None:
            self._warm.cancel()
            await asyncio.wait((self._warm,))
        if self._last_call is not None and not self._active:
            self._last_call.cancel()
        await self.pool.close()


def _no_place(request: DeliveryRequest, why: str) -> Delivery:
    return Delivery((Deferred(Stage.CONNECT, Trouble.TIMEOUT, why),) * len(request.recipients))


def _connection_was_stale(sick: Deferred) -> bool:
    """True when nothing of the message went out: the connection had been closed, or was closed with 421.

    What an endpoint may have got goes again at once all the same: with the same key it is the same message.
    """
    if sick.stage not in (Stage.MAIL, Stage.HTTP):
        return False
    if sick.stage is Stage.MAIL and sick.in_doubt:  # the message had left with its envelope
        return False
    return sick.trouble is Trouble.DROPPED or (sick.reply is not None and sick.reply.code == 421)


def _refused_for_a_line(outcome: Outcome) -> bool:
    return not isinstance(outcome, Delivered) and outcome.refusal is Refusal.LINE_TOO_LONG
