"""The transactions of one attempt: the message as it leaves, as which sender, and who is told.

Most messages go once, as their rule says. Where a rule waits for a refusal (`when: refused`), the refusal and what
follows it are one attempt:

    1  the original sender, unless the upstream is known to refuse it; where nobody knows, one attempt at a time asks
    2  the same once more, where the refusal is one that comes and goes at this upstream
    3  the sender that the rule makes of it, for those recipients that were refused

A refusal is a complete 5xx about the sender. Whatever else happens, and above all an answer that was lost, ends
the attempt as it is: nobody gets a message twice. A bounce of ours that is refused for its null reverse-path goes
once more with the address of whoever writes them.
"""

from __future__ import annotations

import errno
import os
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace

from relay.aside import aside
from relay.delivery.hedge import Answers
from relay.delivery.upstream import Upstream
from relay.delivery.verdicts import Verdicts
from relay.events import AttemptEnded, DuplicatesRemoved, ExceptionCaught, Observer, SenderDecided, UpstreamRefused
from relay.mail.outcome import Deferred, Delivered, Failed, Outcome, Refusal, Stage, Trouble
from relay.policy.decide import LARGE_HEAD, Accept, Policy
from relay.policy.match import View
from relay.policy.refusal import speaks_of_form
from relay.policy.rewriting import Rendered, render
from relay.policy.rules import SenderRule
from relay.policy.verdict import Sender, names_nobody_else
from relay.queue.model import Kind, Lease, Pending
from relay.transport.port import CALLED_OFF, DeliveryRequest, Gate
from relay.values import frozen

PATIENCE_WITH_SESSION_CODES = 5.0  # seconds for everything before the body, on each way
MOST_AT_ONCE = 10  # recipients of a message that leaves in one write with its envelope
_SEND_AS = frozenset({"5.7.60", "5.2.252"})  # who logged in may not send as this sender: no recipient is meant
NOT_ASKED = Deferred(Stage.CONNECT, Trouble.TRANSIENT, "no way takes it for now", upstream_sick=True)
NOT_YET = Deferred(Stage.MAIL, Trouble.TRANSIENT, "whether its sender is taken is being found out with another message")


@frozen
class _Way:
    """A way out, and how it is taken."""

    upstream: Upstream
    insist: bool
    gate: Gate | None


class Call:
    """What the transactions of an attempt have in common."""

    __slots__ = ("_decision", "_lease", "_observer", "_policy", "_rendered", "_repaired", "_told", "_verdicts", "left")

    def __init__(
        self,
        lease: Lease,
        decision: Accept,
        policy: Policy,
        observer: Observer,
        verdicts: Verdicts,
        as_it_leaves: Rendered,
    ) -> None:
        self._lease = lease
        self._decision = decision
        self._policy = policy
        self._observer = observer
        self._verdicts = verdicts
        self._rendered = as_it_leaves
        self._repaired: Rendered | None = None
        self._told: str | None = None
        self.left: Rendered | None = None  # what somebody took

    async def transaction(
        self, upstream: Upstream, part: Sequence[Pending], gate: Gate | None = None, *, insist: bool
    ) -> Answers | None:
        """The outcomes for `part`; None when nothing was tried. `gate` is asked before any content is sent."""
        way, rule = _Way(upstream, insist, gate), self._decision.rule
        try:
            if self._lease.entry.kind is Kind.BOUNCE:
                return await self._bounce(way, part)
            if rule is None or not rule.repairs:
                return await self._send(way, part, self._rendered)
            return await self._judged(way, part, rule)
        except Exception as error:  # noqa: BLE001  # bulkhead: what other recipients got must be recorded
            return self._broken(error, len(part))

    def _broken(self, error: Exception, recipients: int) -> Answers:
        """What becomes of those to whom we could not send for a fault of our own, or of the machine."""
        if isinstance(error, OSError):  # content that cannot be read never reaches its final dot
            text = f"the content could not be read: {os.strerror(error.errno or errno.EIO)}"
            return (Deferred(Stage.BODY, Trouble.TRANSIENT, text),) * recipients
        self._observer.observe(caught(error, self._lease))
        # Nobody knows how far a bug came.
        return (
            Deferred(Stage.DOT, Trouble.TRANSIENT, "local error while sending the message", in_doubt=True),
        ) * recipients

    async def _judged(self, way: _Way, part: Sequence[Pending], rule: SenderRule) -> Answers | None:
        """As the original sender, or as the repaired one, by what is known of this upstream."""
        entry = self._lease.entry
        view = View(entry.submission)
        sender = Sender.of(view)
        async with self._verdicts.question(way.upstream.name, sender, waits=not entry.session_code) as its_turn:
            if not its_turn:
                return (NOT_YET,) * len(part)
            if self._verdicts.refuses(way.upstream.name, sender):
                return await self._send(way, part, await self._as_repaired())
            return await self._ask(way, part, rule, view, sender)

    async def _ask(
        self, way: _Way, part: Sequence[Pending], rule: SenderRule, view: View, sender: Sender
    ) -> Answers | None:
        """Steps 1 to 3."""
        outcomes = await self._send(way, part, self._rendered)
        if outcomes is None:
            return None
        refusals = _sender_refused(outcomes)
        if any(way.upstream.confirms(refusal) for refusal in refusals.values()):
            outcomes = await self._again(way, part, outcomes, self._rendered)
            refusals = _sender_refused(outcomes)
        if not refusals:
            if any(isinstance(outcome, Delivered) for outcome in outcomes):
                await self._verdicts.taken(way.upstream.name, sender)
            return outcomes
        try:
            repaired = await self._as_repaired()
        except Exception as error:  # noqa: BLE001  # bulkhead: what was said so far stands
            self._observer.observe(caught(error, self._lease))
            return outcomes
        if repaired.result != "repaired":  # the rule would change nothing
            return outcomes
        refusal = next(iter(refusals.values()))
        lasting = (
            _is_of_the_sender_alone(refusal, sender) and names_nobody_else(view) and not speaks_of_form(refusal.reply)
        )
        if lasting:  # before the next try, which may have to wait
            await self._verdicts.refused(way.upstream.name, sender, refusal.reply, remember=rule.remember)
        outcomes = await self._again(way, part, outcomes, repaired)
        if lasting and _sender_refused(outcomes):  # its address is no better, and there is nothing to remember
            await self._verdicts.withdraw(way.upstream.name, sender)
        return outcomes

    async def _again(self, way: _Way, part: Sequence[Pending], outcomes: Answers, rendered: Rendered) -> Answers:
        """Those of `part` whose sender was refused, once more as `rendered`; the outcomes of all."""
        refused = list(_sender_refused(outcomes))
        again = [part[place] for place in refused]
        answers: Answers | None
        try:
            answers = await self._send(way, again, rendered, goes_on=True)
        except Exception as error:  # noqa: BLE001  # bulkhead: what the others got stands
            answers = self._broken(error, len(again))
        if answers is None:  # set aside meanwhile: the refusal is not the last word
            answers = (NOT_ASKED,) * len(refused)
        merged = list(outcomes)
        for place, answer in zip(refused, answers, strict=True):
            merged[place] = answer
        return tuple(merged)

    async def _bounce(self, way: _Way, part: Sequence[Pending]) -> Answers | None:
        """Some upstreams refuse `<>` (RFC 5321, section 4.5.5 notwithstanding); the reader matters more."""
        rendered = self._rendered
        outcomes = await self._send(way, part, rendered)
        if outcomes is None or rendered.reverse_path is not None or not _null_path_refused(outcomes):
            return outcomes
        rendered = replace(rendered, reverse_path=self._policy.bounces_from)
        return await self._send(way, part, rendered, goes_on=True) or (NOT_ASKED,) * len(part)

    async def _as_repaired(self) -> Rendered:
        if self._repaired is None:
            self._repaired = await rendered(self._lease, self._decision, self._policy, repaired=True)
        return self._repaired

    async def _send(
        self,
        way: _Way,
        part: Sequence[Pending],
        rendered: Rendered,
        *,
        goes_on: bool = False,
    ) -> Answers | None:
        """One transaction. `goes_on`: another came before it."""
        upstream, insist = way.upstream, way.insist
        entry = self._lease.entry
        route = self._decision.route
        envelope = entry.submission.envelope
        if not upstream.admits(insist=insist, session_code=entry.session_code, goes_on=goes_on):
            return None
        request = DeliveryRequest(
            queue_id=entry.submission.queue_id,
            reverse_path=rendered.reverse_path,
            recipients=tuple([pending.recipient for pending in part]),
            head=rendered.head,
            content=entry.content,
            body_offset=rendered.body_offset,
            smtputf8=rendered.smtputf8,
            ret=envelope.ret,
            envid=envelope.envid,
            patience=PATIENCE_WITH_SESSION_CODES if entry.session_code else None,
            gate=way.gate,
            session_code=entry.session_code,
            places=tuple([pending.index for pending in part]),
            at_once=self._bears_doubt(part),
        )
        self._tell_of_the_sender(rendered)
        if rendered.repeated:
            removed = rendered.signatures_removed
            self._observer.observe(DuplicatesRemoved(entry.queue_id, upstream.name, rendered.repeated, removed))
        started = time.perf_counter()
        delivery = await upstream.deliver(
            request, priority=route.priority, schedule=route.schedule, insist=insist, goes_on=goes_on
        )
        if delivery is None:
            return None
        if CALLED_OFF in delivery.outcomes:
            return delivery.outcomes
        stage, trouble = _what_went_wrong(delivery.outcomes)
        seconds = time.perf_counter() - started
        self._observer.observe(AttemptEnded(request.queue_id, route.name, upstream.name, seconds, stage, trouble))
        if stage is None or any(type(outcome) is Delivered for outcome in delivery.outcomes):
            self.left = rendered
        if stage is not None:
            self._tell_of_refusals(upstream.name, delivery.outcomes)
            if delivery.room:
                await upstream.learn(delivery.room)
        return delivery.outcomes

    def _bears_doubt(self, part: Sequence[Pending]) -> bool:
        """Whether it may leave in one write with its envelope. What has been in doubt goes step by step from then on,
        and a message to many has many replies to lose."""
        if self._lease.entry.session_code or self._decision.route.hold_in_doubt or len(part) > MOST_AT_ONCE:
            return False
        return not any(pending.in_doubt for pending in part)

    def _tell_of_the_sender(self, rendered: Rendered) -> None:
        rule = self._decision.rule
        result = rendered.result or "unchanged"
        if rule is None or self._told == result:
            return
        self._told = result
        entry = self._lease.entry
        self._observer.observe(
            SenderDecided(entry.queue_id, rule.name, result, entry.attempts, rendered.signatures_removed)
        )

    def _tell_of_refusals(self, upstream: str, outcomes: Answers) -> None:
        told: set[Refusal] = set()
        entry, route = self._lease.entry, self._decision.route
        for outcome in outcomes:
            if isinstance(outcome, Delivered) or outcome.refusal is None or outcome.reply is None:
                continue
            if outcome.refusal not in told:
                told.add(outcome.refusal)
                code, status = outcome.reply.code, outcome.reply.status
                self._observer.observe(
                    UpstreamRefused(entry.queue_id, route.name, upstream, outcome.stage, outcome.refusal, code, status)
                )


async def rendered(lease: Lease, decision: Accept, policy: Policy, *, repaired: bool = False) -> Rendered:
    """The message of `lease` as it leaves (`render`)."""
    submission = lease.entry.submission
    if len(submission.head) > LARGE_HEAD:
        return await aside(render, submission, decision, policy, repaired=repaired)
    return render(submission, decision, policy, repaired=repaired)


def caught(error: Exception, lease: Lease) -> ExceptionCaught:
    """The event about a bug met with `lease`; what the error says may quote, so it is left out for session codes."""
    if lease.entry.session_code:
        text = "".join(traceback.format_tb(error.__traceback__))
    else:
        text = "".join(traceback.format_exception(error))
    return ExceptionCaught("attempt", f"{type(error).__name__} at {lease.entry.queue_id}", text)


def _sender_refused(outcomes: Sequence[Outcome]) -> dict[int, Failed]:
    """The refusals of the sender, by their place."""
    return {
        place: outcome
        for place, outcome in enumerate(outcomes)
        if isinstance(outcome, Failed) and outcome.refusal is Refusal.SENDER and not outcome.unasked
    }


def _is_of_the_sender_alone(refusal: Failed, sender: Sender) -> bool:
    """False where it may be one recipient that does not want this sender: said at RCPT, without the sender's name, and
    not as what only the login may be refused for."""
    if refusal.stage is not Stage.RCPT or refusal.reply.status in _SEND_AS:
        return True
    names = {sender.author.lower(), sender.reverse_path.lower()} - {""}
    return any(name in refusal.reply.text.lower() for name in names)


def _what_went_wrong(outcomes: Sequence[Outcome]) -> tuple[Stage | None, Trouble | None]:
    for outcome in outcomes:
        if isinstance(outcome, Delivered):
            continue
        return outcome.stage, Trouble.PERMANENT if isinstance(outcome, Failed) else outcome.trouble
    return None, None


def _null_path_refused(outcomes: Sequence[Outcome]) -> bool:
    return all(
        isinstance(outcome, Failed)
        and not outcome.unasked
        and (outcome.stage is Stage.MAIL or outcome.refusal is Refusal.SENDER)
        for outcome in outcomes
    )
