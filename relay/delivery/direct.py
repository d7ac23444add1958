"""Direct reply: the application hears the upstream's own verdict while it waits (`reply: direct`, `patience`).

The attempt is made before the entry is kept. What was said to the application has happened: 250 means delivered or
kept, a 5xx that the upstream refused it. All of it, in one table:

    what happens                           the application hears    and
    no room, or no upstream was asked      what it would elsewhere  the ordinary way: kept, 250, delivered later
    no place for an attempt in time        the same                 its turn never came
    somebody got it                        250, upstream's text     recorded in one commit, with a bounce for whom was
                                                                    refused; the others wait in the queue
    all refused                            the first 5xx            nothing is kept or bounced, and nothing counts as
                                                                    accepted: it was told
    all refused, and the client is gone    (nobody)                 recorded as failed, with a bounce: somebody has to
                                                                    hear it
    deferred, in doubt, some refused       250, ours                recorded in one commit: waits as after any attempt
    patience over, or the relay stops      250, ours                kept as leased; the same attempt goes on
    the same, and the verdict comes        250, ours                that commit decides: whatever the verdict is, it is
    during the commit                                               settled as any other
    the store fails at the verdict         451 or 452               nothing is kept; who got it may get it twice
    the same, and everybody got it         250, upstream's text     the record follows when the store is back
    the store fails when patience is over  451 or 452               the attempt is broken off before its final dot;
                                                                    past it, or with several recipients, its
                                                                    end is awaited
    the same, and then everybody got it    250, upstream's text     the record follows when the store is back

A client that hangs up changes nothing else: most do it unseen, and what nobody could deliver yet is kept as a queued
listener would have kept it. Without a 250 it may come again, and arrive twice; that is better than not at all. The same
holds for a crash: what was not acknowledged is the client's still, and what was is with the upstream, or in the queue.

Attempts take turns: as many of a route are under way as it has connections, in the upstream's own order of priorities.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from relay.delivery.attempt import Attempted, attempt
from relay.delivery.call import caught
from relay.delivery.settle import Settled
from relay.delivery.upstream import Upstream
from relay.delivery.worker import House, Worker
from relay.errors import StoreUnavailable
from relay.events import RecipientDelivered, RecipientFailed, Warned
from relay.mail.outcome import Delivered, Failed
from relay.mail.reply import Reply
from relay.policy.decide import Accept, Policy
from relay.queue.model import Entry, Lease, Pending

LONGEST_TEXT = 400  # of an upstream, in our reply: a line has 512 octets (RFC 5321, section 4.5.3.1.5)

_Spawn = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]


class Direct:
    """One for the house. `worker` gives the worker of a route; `spawn` starts what outlives the session that waits."""

    def __init__(self, house: House, worker: Callable[[str], Worker | None], spawn: _Spawn) -> None:
        self._house = house
        self._worker = worker
        self._spawn = spawn
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._octets = 0

    def stop(self) -> None:
        """The relay is about to stop: everybody's patience is over."""
        if not self._stopped.done():
            self._stopped.set_result(None)

    async def __call__(
        self,
        entry: Entry,
        decision: Accept,
        policy: Policy,
        *,
        patience: float,
        waits: Callable[[], bool],
        accepted: Callable[[], None],
    ) -> Reply | None:
        """250, or the upstream's 5xx; None: nothing came of it, and the entry goes the ordinary way.

        `waits` says whether the client is still there, `accepted` is called once the message is ours or delivered,
        before anything else is told of it. Raises StoreUnavailable when nothing is kept, and nobody may hear 250.
        """
        worker = self._worker(entry.route)
        octets = entry.content.size if entry.content.in_memory else 0
        if self._stopped.done() or worker is None or not worker.room(self._octets + octets):
            return None
        self._octets += octets
        try:
            waiting = _Waiting(self._house, worker, self._spawn, entry, decision, policy, waits, accepted)
            return await waiting.reply(patience, self._stopped)
        finally:
            self._octets -= octets


class _Waiting:
    """One message whose client waits, and the attempt at it."""

    def __init__(
        self,
        house: House,
        worker: Worker,
        spawn: _Spawn,
        entry: Entry,
        decision: Accept,
        policy: Policy,
        waits: Callable[[], bool],
        accepted: Callable[[], None],
    ) -> None:
        self._house = house
        self._worker = worker
        self._spawn = spawn
        self._entry = entry
        self._decision = decision
        self._policy = policy
        self._waits = waits
        self._accepted = accepted
        recipients = entry.submission.envelope.recipients
        pending = tuple([Pending(n, recipient) for n, recipient in enumerate(recipients)])
        self._lease = Lease(replace(entry, attempts=entry.attempts + 1), pending)
        self._sent_by = [""] * len(pending)  # by recipient; of a session code
        self._keeping: asyncio.Task[Lease] | None = None  # once patience is over
        self._ways: dict[str, Upstream] | None = None  # those of the attempt, once it has begun
        self._task: asyncio.Task[Attempted | None] = spawn(self._attempt())

    async def _attempt(self) -> Attempted | None:
        house, policy = self._house, self._policy
        async with self._worker.places:
            if house.policy() is not policy:
                return None  # the ordinary way decides anew
            # As they are now: whether the dot is out must be known after a reload as well.
            names = self._decision.route.upstreams
            self._ways = {name: house.upstreams[name] for name in names if name in house.upstreams}
            try:
                return await attempt(
                    self._lease,
                    self._decision,
                    policy,
                    self._ways,
                    observer=house.observer,
                    verdicts=house.verdicts,
                    stragglers=self._worker.stragglers,
                    change_way=self._change_way,
                    now=house.now,
                )
            except Exception as error:  # noqa: BLE001  # bulkhead: one message must not stop the others
                house.observer.observe(caught(error, self._lease))
                return None

    async def _change_way(self, _: Lease, places: Sequence[int], way: str) -> None:
        """Until the entry is kept it is enough to know it: after a crash the message is the client's."""
        if self._keeping is not None:
            await self._house.store.change_way(await asyncio.shield(self._keeping), places, way)
        for place in places:
            self._sent_by[place] = way

    @property
    def _verdict(self) -> Attempted | None:
        return None if self._task.cancelled() else self._task.result()

    async def reply(self, patience: float, stopped: asyncio.Future[None]) -> Reply | None:
        """As `Direct` gives it."""
        task = self._task
        await asyncio.wait((task, stopped), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            verdict = self._verdict
            return None if verdict is None else await self._judged(verdict)
        if self._ways is None:
            task.cancel()  # it waits for its turn, and has done nothing
            return None
        kept = self._house.store.put(self._entry, leased=True, ways=tuple(self._sent_by))
        self._keeping = asyncio.create_task(kept)
        try:
            lease = await self._keeping
        except StoreUnavailable:
            verdict = await self._only_hope(stopped)
            if verdict is None:
                raise
            return await self._judged(verdict)
        self._accepted()
        self._spawn(self._go_on(lease))
        return self._kept()

    async def _judged(self, verdict: Attempted) -> Reply:
        """The verdict came in time."""
        settled = self._worker.judged(self._lease, verdict, self._decision, self._policy)
        if self._waits() and all(isinstance(outcome, Failed) for outcome in verdict.outcomes):
            refusals = [event for event in settled.events if isinstance(event, RecipientFailed)]
            for refusal in refusals:
                self._house.observer.observe(refusal)
            if refusals:
                return _refused(refusals[0])
        try:
            await self._house.store.record(settled.settlement)
        except StoreUnavailable:
            if settled.settlement.notifications or not _all_delivered(verdict):
                raise
            self._spawn(self._record_later(settled))
        else:
            self._tell(settled)
        return self._kept(next((event for event in settled.events if isinstance(event, RecipientDelivered)), None))

    async def _only_hope(self, stopped: asyncio.Future[None]) -> Attempted | None:
        """It cannot be kept. The verdict, if there is one and everybody got it; else the client is to try again."""
        if self._withdraw():
            return None
        await asyncio.wait((self._task, stopped), return_when=asyncio.FIRST_COMPLETED)
        verdict = self._verdict if self._task.done() else None
        return verdict if verdict is not None and _all_delivered(verdict) else None

    def _withdraw(self) -> bool:
        """Break the attempt off; False where somebody may have got the message, or it is over."""
        ways = self._ways or {}
        # Some of several may have it already, while another transaction goes on for the rest.
        several = len(self._lease.pending) > 1
        if several or self._task.done() or any(way.past_dot(self._entry.queue_id) for way in ways.values()):
            return False
        return self._task.cancel()

    async def _go_on(self, lease: Lease) -> None:
        """The attempt goes on, and is settled as any other."""
        await asyncio.wait((self._task,))
        await self._worker.finish(lease, self._verdict, self._decision, self._policy)

    async def _record_later(self, settled: Settled) -> None:
        if await self._worker.recorded(settled):
            self._tell(settled)
        else:
            text = f"{self._entry.queue_id}: it was delivered and acknowledged, but that could not be recorded"
            self._house.observer.observe(Warned(text))

    def _tell(self, settled: Settled) -> None:
        # Not before: what only the client was told, or nobody, is no report that its reader had.
        self._house.window.note(settled.settlement.told)
        self._accepted()
        self._worker.told(settled)

    def _kept(self, taken: RecipientDelivered | None = None) -> Reply:
        """250 with our ID at its end, as on every listener; and with the text of the upstream that took it."""
        queue_id = self._entry.queue_id
        if taken is None:
            return Reply(250, "2.0.0", f"OK: queued as {queue_id}")
        status = taken.status if taken.status.startswith("2") else "2.0.0"
        return Reply(250, status, f"{_printable(taken.text) or 'OK'}: relayed as {queue_id}")


def _refused(event: RecipientFailed) -> Reply:
    status = event.status if event.status.startswith("5") else "5.0.0"
    return Reply(event.code, status, _printable(event.text) or "Refused by the next hop")


def _printable(text: str) -> str:
    """As much of it as a reply to a client has room for, in ASCII (RFC 5321, section 4.2)."""
    return text[:LONGEST_TEXT].encode("ascii", "replace").decode()


def _all_delivered(verdict: Attempted) -> bool:
    return all(isinstance(outcome, Delivered) for outcome in verdict.outcomes)
