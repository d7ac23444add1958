"""Decide, keep, then say 250: the moment from which the relay answers for a message.

Where the client waits for the upstream's own verdict (`reply: direct`), that is asked first; see `DirectReply`.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol

from relay.aside import aside
from relay.errors import StoreUnavailable
from relay.events import EntryHeld, LoopDetected, MessageQueued, MessageRefused, Observer
from relay.ingress import replies
from relay.mail.content import Content
from relay.mail.queue_id import queue_id
from relay.mail.reply import Reply
from relay.mail.submission import Submission
from relay.policy.decide import Accept, Policy, Reject, Route, judge, takes_long
from relay.policy.match import View
from relay.policy.rewriting import render
from relay.queue.model import Entry, Lease
from relay.queue.store import QueueStore

_GROWS = 4096  # octets that a header may grow by on the way out, besides what it repeats of itself


class QueueIds:
    """Gives queue IDs; never the same microsecond twice."""

    def __init__(self) -> None:
        self._last = 0

    def next(self, now: datetime) -> str:
        self._last = max(self._last + 1, int(now.timestamp() * 1_000_000))
        return queue_id(self._last, random.getrandbits(10))  # a name, no secret


class DirectReply(Protocol):
    """Tries an entry before it is kept, while the client `waits`. The reply, of 2xx or 5xx; None: do as always.

    `accepted` is called when the relay answers for it, or the upstream does. Raises StoreUnavailable.
    """

    def __call__(
        self,
        entry: Entry,
        decision: Accept,
        policy: Policy,
        *,
        patience: float,
        waits: Callable[[], bool],
        accepted: Callable[[], None],
    ) -> Awaitable[Reply | None]: ...


class Acceptor:
    """One for the house. `room` says whether the worker of a route takes a fresh entry of a size at once.

    `offer` hands it over in memory after the commit; where there is no room, `ring` tells the worker
    that something waits in the store. What a sender rule holds is kept for a person: no worker hears of it.
    `size_limit`: the octets that the largest upstream of a route takes, or None where that is not known.
    """

    def __init__(
        self,
        *,
        store: QueueStore,
        policy: Callable[[], Policy],
        room: Callable[[str, int], bool],
        offer: Callable[[Lease, Accept, Policy], None],
        ring: Callable[[str], None],
        direct: DirectReply,
        observer: Observer,
        size_limit: Callable[[Route], int | None],
    ) -> None:
        self._store = store
        self._policy = policy
        self._room = room
        self._offer = offer
        self._ring = ring
        self._direct = direct
        self._observer = observer
        self._size_limit = size_limit

    async def accept(
        self,
        submission: Submission,
        content: Content,
        elapsed: Callable[[], float],
        *,
        patience: float | None = None,
        waits: Callable[[], bool] = lambda: True,
    ) -> bytes:
        """The reply to the final dot. 250 only after the commit; `elapsed` gives the seconds since the dot.

        With `patience` (seconds) the upstream's verdict is waited for, while the client `waits`.
        """
        policy = self._policy()
        view = View(submission)
        if takes_long(view, policy):
            decision = await aside(judge, view, policy)
        else:
            decision = judge(view, policy)
        if isinstance(decision, Reject):
            return self._reject(submission, decision)
        route = decision.route
        limit = self._size_limit(route)
        if limit is not None and await _leaves_with(view, decision, policy, about=limit) > limit:
            return self._too_large(submission, limit)
        entry = Entry(
            submission=submission,
            content=content,
            route=route.name,
            priority=route.priority,
            session_code=decision.session_code,
            because=decision.because,
            expires_at=submission.received_at + decision.lifetime,
        )
        held = decision.held_by != ""
        try:
            if patience is not None and not held:
                reply = await self._direct(
                    entry,
                    decision,
                    policy,
                    patience=patience,
                    waits=waits,
                    accepted=lambda: self._accepted(entry, decision, elapsed()),
                )
                if reply is not None:
                    return self._said(submission, decision, reply)
            leased = not held and self._room(route.name, content.size)
            first = route.upstreams[:1] if entry.session_code else ()
            ways = first * len(submission.envelope.recipients)
            lease = await self._store.put(entry, leased=leased, held=held, ways=ways)
        except StoreUnavailable as error:
            said = replies.unkept(error)
            self._refused(submission, "store_failed", int(said[:3]), said[4:9].decode(), error.reason)
            return said
        self._accepted(entry, decision, elapsed())
        if held:
            recipients = submission.envelope.recipients
            self._observer.observe(EntryHeld(submission.queue_id, decision.held_by, len(recipients)))
        elif leased:
            self._offer(lease, decision, policy)
        else:
            self._ring(route.name)
        return b"250 2.0.0 OK: queued as %b\r\n" % submission.queue_id.encode()

    def _accepted(self, entry: Entry, decision: Accept, seconds: float) -> None:
        submission, rule = entry.submission, decision.rule
        envelope = submission.envelope
        self._observer.observe(
            MessageQueued(
                queue_id=submission.queue_id,
                listener=submission.listener,
                client=submission.peer.address,
                user=submission.peer.user,
                reverse_path=str(envelope.reverse_path) if envelope.reverse_path else "",
                recipients=tuple([str(recipient.address) for recipient in envelope.recipients]),
                route=entry.route,
                rule=rule.name if rule else None,
                size=entry.content.size,
                seconds=seconds,
                session_code=decision.session_code,
                because=decision.because,
            )
        )

    def _said(self, submission: Submission, decision: Accept, reply: Reply) -> bytes:
        """What the upstream said is what the client hears."""
        if reply.code >= 500:
            self._refused(submission, "rejected_policy", reply.code, reply.status, reply.text, decision.because)
        return reply.to_bytes()

    def _too_large(self, submission: Submission, limit: int) -> bytes:
        reply = Reply(552, "5.3.4", f"Message too large: the provider takes at most {limit} octets")
        self._refused(submission, "rejected_size", reply.code, reply.status, reply.text)
        return reply.to_bytes()

    def _reject(self, submission: Submission, decision: Reject) -> bytes:
        reply = decision.reply
        if reply.status == "5.4.6":
            path = submission.envelope.reverse_path
            self._observer.observe(
                LoopDetected(submission.listener, submission.peer.address, str(path) if path else "")
            )
        self._refused(submission, "rejected_policy", reply.code, reply.status, reply.text, decision.because)
        return reply.to_bytes()

    def _refused(
        self,
        submission: Submission,
        result: str,
        code: int,
        status: str,
        text: str,
        because: tuple[str, ...] = (),
    ) -> None:
        envelope = submission.envelope
        self._observer.observe(
            MessageRefused(
                listener=submission.listener,
                client=submission.peer.address,
                user=submission.peer.user,
                reverse_path=str(envelope.reverse_path) if envelope.reverse_path else "",
                recipients=tuple([str(recipient.address) for recipient in envelope.recipients]),
                result=result,
                code=code,
                status=status,
                text=text,
                because=because,
            )
        )


async def _leaves_with(view: View, decision: Accept, policy: Policy, *, about: int) -> int:
    """The octets of the message as it leaves, without re-encoding; exact only where that matters beside `about`."""
    submission = view.submission
    if submission.size + 4 * len(submission.head) + _GROWS <= about:
        return submission.size
    rendered = await aside(render, submission, decision, policy, view.header)
    return len(rendered.head) + submission.size - rendered.body_offset
