"""One upstream, shared by the workers: whether it is set aside, and whether mail may go to it now.

An upstream that fails before a transaction (connect to AUTH), or says 421, is set aside: for a growing
pause nobody tries it, then one connection probes, then all come back. What goes wrong later in a
transaction says more about the message than about the upstream, and defers only the message; else one
message could keep an upstream from all others.

One that says its quota is used up is set aside until the quota comes back. One that only asks for less is not set
aside: mail waits for it a moment, over fewer connections where they were too many. So it does where the pace of the
account (`account`, which several upstreams may share) allows no more for now.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from relay.delivery.account import Account
from relay.delivery.long_lines import LongLines
from relay.delivery.pace import Claim
from relay.delivery.pool import Pool
from relay.delivery.warm import Warm
from relay.events import MessageReencoded, Observer, UpstreamRestored, UpstreamSetAside, UpstreamThrottled
from relay.mail.outcome import BEFORE_A_TRANSACTION, Deferred, Delivered, Failed, Outcome, Refusal, Stage, Trouble
from relay.mail.reply import Reply
from relay.policy.refusal import OF_THE_ACCOUNT, Table, speaks_of_connections
from relay.policy.retry import Schedule
from relay.queue.bell import Bell
from relay.transport.port import Connection, Delivery, DeliveryRequest, Transport

NEVER = float("inf")
THROTTLED_FIRST, THROTTLED_LONGEST = 2.0, 60.0  # seconds of pause after an upstream asked for less
SHORTEST_SILENCE = 5.0  # seconds; what is closed sooner was not closed for its silence
GOES_ON = 120.0  # seconds that an attempt under way waits for the pace of its account
AUTH_LONGEST = 300.0  # seconds between two tries at an upstream that refuses the login
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
        account: Account | None = None,
        observer: Observer,
        changed: Callable[[], None],
        long_lines: LongLines | None = None,
    ) -> None:
        self.transport = transport
        self.limits = limits
        self.refusals = refusals
        account = account or Account.alone(limits.max_connections)
        self.pace, self.places = account.pace, account.places
        self._observer = observer
        self._changed = changed
        self._long_lines = long_lines
        self._loop = asyncio.get_running_loop()
        # Set aside
        self._failures = 0
        self._aside_until: float | None = None
        self._aside_for: Deferred | None = None
        self._epoch = 0  # attempts of an earlier one began before it was set aside, or asked for less
        self._probe: object = None
        self._throttled_until = 0.0
        self._throttled = 0  # times in a row
        # Connections
        self.bell = Bell()  # rung when one comes or goes, and when the upstream falls or comes back
        self.pool = Pool(self.places, stirred=self.bell.ring, lost=self._lost)
        self.silence = NEVER  # the shortest after which the other end is known to have closed an idle connection
        self._busy = 0
        self._warm: asyncio.Task[None] | None = None
        # The end
        self._closed = False
        self._connecting: set[asyncio.Timeout] = set()
        self._active: dict[Connection, str] = {}  # and the queue ID of what it carries
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
        """Seconds until it is no longer left alone; 0 now; infinite while a probe is under way."""
        if self._aside_until is None:
            return 0.0
        return NEVER if self._probe is not None else max(0.0, self._aside_until - self._loop.time())

    def ready_in(self, *, session_code: bool = False) -> float:
        """Seconds until an attempt may be made, the pace of its account included."""
        throttled = self._throttled_until - self._loop.time()
        return max(self.opens_in, throttled, self.pace.ready_in(session_code=session_code))

    @property
    def takes_later(self) -> bool:
        """True when it is well and only the pace holds mail back: it waits, and goes no other way."""
        return self.up and not self._closed and self.ready_in() > 0

    @property
    def refuses_login(self) -> bool:
        """True while it is set aside because it refused the login: each try counts over there."""
        return self._aside_for is not None and self._aside_for.stage is Stage.AUTH

    @property
    def _is_of_the_account(self) -> bool:
        aside = self._aside_for
        return aside is not None and (aside.stage is Stage.AUTH or aside.refusal is Refusal.QUOTA)

    @property
    def mends_by_connecting(self) -> bool:
        """True when it is set aside for something that a connection alone can prove to be over."""
        aside = self._aside_for
        return self._aside_until is not None and (aside is None or aside.stage in BEFORE_A_TRANSACTION)

    def try_now(self) -> None:
        """After a reload: whatever set it aside may be mended, so the pause ends.

        What is under way began before that: a failure of it says nothing.
        """
        self._throttled_until = 0.0
        self.pace.release()
        if self._aside_until is not None:
            self._epoch += 1
            self._probe = None
            self._aside_until = self._loop.time()
            self._aside_for = None
            self._changed()
        self.bell.ring()

    def admits(self, *, insist: bool = False, session_code: bool = False, goes_on: bool = False) -> bool:
        """Whether an attempt may be made now, and there is room for a transaction.

        `insist` (a session code, which cannot wait) goes past the pause, but never past one for a
        refused AUTH: repeated tries would lock the account. Room it waits for, and so does who `goes_on`.
        """
        if self._closed:
            return False
        if insist or goes_on:
            return self.opens_in == 0 or (insist and not self.refuses_login)
        return self.ready_in(session_code=session_code) == 0

    def _admit(self, request: object, *, insist: bool) -> bool:
        """Whether it is left alone; the first attempt after a pause is the probe."""
        if self._probe is request:
            return not self._closed
        if self._closed or not (self.opens_in == 0 or (insist and not self.refuses_login)):
            return False
        if self._aside_until is not None and self.opens_in == 0:
            self._probe = request
        return True

    def _judge(self, request: object, epoch: int, sick: Deferred | None, schedule: Schedule) -> None:
        """Take in how an attempt went."""
        probe = self._probe is request
        news = epoch == self._epoch
        if sick is not None and _asks_for_less(sick) and not (probe and sick.stage in BEFORE_A_TRANSACTION):
            if probe:
                self._restore()
            # As below: begun before the last time, or insisted upon meanwhile, it is no news.
            if news and self.up and self._loop.time() >= self._throttled_until:
                self._slow_down(sick)
        elif sick is not None and _speaks_of_upstream(sick):
            # Begun before it was set aside, or insisted upon meanwhile: no news.
            if news and (probe or self._aside_until is None):
                self._set_aside(sick, schedule)
        elif self._aside_until is None:
            self._failures = 0
            if news and sick is None:
                self._throttled = 0
        # A line that broke in a transaction proves nothing, but that a probe came so far. What began before a login
        # was refused, or a quota was used up, does not prove the contrary.
        elif probe or (sick is None and (news or not self._is_of_the_account)):
            self._restore()

    def _restore(self) -> None:
        self._failures = 0
        self._aside_until, self._aside_for, self._probe = None, None, None
        self.pace.release()
        self._observer.observe(UpstreamRestored(self.name))
        self.bell.ring()
        self._changed()

    def _slow_down(self, trouble: Deferred) -> None:
        """It asks for less: a short pause, and one connection less where they were too many."""
        reply = trouble.reply
        assert reply is not None
        self._epoch += 1
        pause = min(THROTTLED_FIRST * 2**self._throttled, THROTTLED_LONGEST)
        pause *= 0.9 + 0.2 * random.random()  # noqa: S311  # jitter, no secret
        self._throttled = min(self._throttled + 1, 10)
        self._throttled_until = self._loop.time() + pause
        if speaks_of_connections(trouble.stage, reply):
            self.places.lower()
        self._observer.observe(
            UpstreamThrottled(
                upstream=self.name,
                stage=trouble.stage,
                code=reply.code,
                status=reply.status,
                text=_harmless(trouble),
                seconds=pause,
                connections=self.places.allowed,
            )
        )

    def _set_aside(self, trouble: Deferred, schedule: Schedule) -> None:
        self._epoch += 1
        self._failures += 1
        self._probe = None
        reply = trouble.reply
        code, status = (reply.code, reply.status) if reply else (0, "")
        pause = schedule.set_aside(self._failures, random.random()).total_seconds()  # noqa: S311  # jitter, no secret
        if trouble.refusal is Refusal.QUOTA:
            pause = self.pace.hold(trouble.stage, code, status)
        elif trouble.stage is Stage.AUTH:
            # A schedule for session codes would try a wrong password twice a minute, and lock the account.
            pause = max(pause, min(pause * 2 ** min(self._failures - 1, 10), AUTH_LONGEST))
        self._leave_alone(pause, trouble)

    def _leave_alone(self, pause: float, trouble: Deferred) -> None:
        self._aside_until = self._loop.time() + pause
        self._aside_for = trouble
        if trouble.refusal is not Refusal.QUOTA:
            self.pool.drop_all()
        reply = trouble.reply
        self._observer.observe(
            UpstreamSetAside(
                upstream=self.name,
                stage=trouble.stage,
                trouble=trouble.trouble,
                code=reply.code if reply else 0,
                status=reply.status if reply else "",
                text=_harmless(trouble),
                seconds=pause,
                refusal=trouble.refusal,
            )
        )
        self.bell.ring()
        self._changed()

    def remember(self) -> None:
        """After a start: an account whose quota was used up is still held."""
        held = self.pace.held
        if held is not None and self.up:
            self._failures = 1
            said = Reply(held.code, held.status, "")
            trouble = Deferred(held.stage, Trouble.PERMANENT, "", said, upstream_sick=True, refusal=Refusal.QUOTA)
            self._leave_alone(self.pace.held_for, trouble)

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
        try:
            return await self._deliver(request, claim, deadline, priority, schedule, insist)
        finally:
            claim.drop()
            if self._probe is request:  # it ended without a verdict: the next attempt is the probe
                self._probe = None
                self._changed()

    async def _deliver(
        self,
        request: DeliveryRequest,
        claim: Claim,
        deadline: float | None,
        priority: int,
        schedule: Schedule,
        insist: bool,
    ) -> Delivery | None:
        if not self._admit(request, insist=insist):
            return None
        epoch = self._epoch
        code = request.session_code
        if not await self.places.take(self, priority, deadline, session_code=code):
            return None if self._closed else _no_place(request, "no connection was free in time")
        self._busy += 1
        try:
            if epoch != self._epoch:
                if not self._admit(request, insist=insist):
                    return None
                if self._probe is not request and not insist and self._throttled_until > self._loop.time():
                    return None
                epoch = self._epoch
            delivery = self._read(await self._in_lines(request, claim, deadline))
        finally:
            self._busy -= 1
            self.places.leave()
            self.bell.ring()
        if self._closed and delivery.sick is not None and delivery.sick.stage in BEFORE_A_TRANSACTION:
            return None
        self._judge(request, epoch, delivery.sick, schedule)
        return delivery

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

    async def _in_lines(self, request: DeliveryRequest, claim: Claim, deadline: float | None) -> Delivery:
        """The transaction; where a line was too long, at once a second one without long lines."""
        long_lines = self._long_lines
        if long_lines is None:
            return await self._transaction(request, claim, deadline)
        if await long_lines.encode():
            return await self._transaction(replace(request, encode_long_lines=True), claim, deadline)
        first = await self._transaction(request, claim, deadline)
        again = [place for place, outcome in enumerate(first.outcomes) if self._refused_for_a_line(outcome)]
        if not again or first.sick is not None or self._closed:
            return first
        recipients = tuple([request.recipients[place] for place in again])
        second = await self._once_more(replace(request, recipients=recipients, encode_long_lines=True), deadline)
        if any(isinstance(outcome, Delivered) for outcome in second.outcomes):
            await long_lines.learn()
        outcomes = list(first.outcomes)
        for place, outcome in zip(again, second.outcomes, strict=True):
            outcomes[place] = outcome
        return replace(second, outcomes=tuple(outcomes))

    async def _once_more(self, request: DeliveryRequest, deadline: float | None) -> Delivery:
        """A second transaction, which counts as well."""
        claim = await self._wait_for_pace(request, deadline)
        if claim is None:
            return _no_place(request, "the account may send no more for now")
        try:
            return await self._transaction(request, claim, deadline)
        finally:
            claim.drop()

    def _refused_for_a_line(self, outcome: Outcome) -> bool:
        if isinstance(outcome, Delivered) or outcome.reply is None:
            return False
        return self.refusals.tell(outcome.stage, outcome.reply).refusal is Refusal.LINE_TOO_LONG

    def past_dot(self, queue_id: str) -> bool:
        """True while the final dot of that message may be out and its answer is not in: nobody can call it back."""
        return any(connection.past_dot for connection, carried in self._active.items() if carried == queue_id)

    async def _transaction(self, request: DeliveryRequest, claim: Claim, deadline: float | None) -> Delivery:
        idle = self.pool.take(session_code=request.session_code)
        if idle is not None:
            delivery = await self._transact(idle, request, claim, deadline)
            if self._closed or not _connection_was_stale(delivery):
                return delivery
            # It timed out over there while it lay idle; that is no failure of the upstream.
        connection = await self._connect(deadline)
        if isinstance(connection, Deferred):
            return Delivery((connection,) * len(request.recipients), connection)
        return await self._transact(connection, request, claim, deadline)

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
        self._active[connection] = request.queue_id
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
            del self._active[connection]
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
        if self._closed or self._throttled_until > self._loop.time():
            return None
        if not self.places.take_now(session_code=True):
            return None
        self._busy += 1
        try:
            if not self._admit(token, insist=False):
                return None
            epoch = self._epoch
            connection = await self._connect(None)
            if not isinstance(connection, Deferred):
                if self._closed:
                    connection.abort()
                else:
                    self.pool.put(connection)
                if self._probe is token and self.mends_by_connecting:
                    self._restore()
                return True
            if not self._closed:
                judged = self.refusals.judge(connection)
                assert isinstance(judged, Deferred)
                if not doubted or self._probe is token or judged.stage is Stage.AUTH:
                    self._judge(token, epoch, judged, schedule)
            return False
        finally:
            self._busy -= 1
            self.places.leave()
            if self._probe is token:
                self._probe = None
                self._changed()

    # The end

    def end(self, grace: float) -> None:
        """The relay stops: what has not sent its final dot is broken off, the rest gets `grace` seconds."""
        self._refuse()
        for limit in self._connecting:
            if not limit.expired():
                limit.reschedule(self._loop.time())
        for connection in list(self._active):
            if not connection.past_dot:
                connection.abort()
        self._last_call = self._loop.call_later(grace, self._break_off)

    def _break_off(self) -> None:
        for connection in list(self._active):
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


def _harmless(trouble: Deferred) -> str:
    """What was said, unless it may quote the message."""
    if trouble.reply is None:
        return trouble.text
    return "" if trouble.stage in _MAY_QUOTE else trouble.reply.text


def _asks_for_less(trouble: Deferred) -> bool:
    """At AUTH it is the login that is refused, and each try counts."""
    return trouble.refusal is Refusal.THROTTLED and trouble.reply is not None and trouble.stage is not Stage.AUTH


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
