"""One attempt for one lease: decide with the current policy, render, try the upstreams in order.

The result is one outcome for each pending recipient; nothing is stored here. A session code tries the ways
that are not set aside first, and then the others all the same; one that a way left in doubt goes by no other.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from relay.delivery.upstream import Upstream
from relay.events import AttemptEnded, ExceptionCaught, Observer, SenderDecided
from relay.mail.address import Address
from relay.mail.outcome import Deferred, Delivered, Failed, Outcome, Stage, Trouble
from relay.policy.decide import DEFAULT, Accept, Policy, decide
from relay.policy.rewriting import render
from relay.queue.model import Kind, Lease, Pending
from relay.transport.port import Delivery, DeliveryRequest

PATIENCE_WITH_SESSION_CODES = 5.0  # seconds for everything before the body, on each way
NOT_ASKED = Deferred(Stage.CONNECT, Trouble.TRANSIENT, "every way is set aside", upstream_sick=True)
_IN_CONTENT = (Stage.BODY, Stage.DOT)


@dataclass(frozen=True, slots=True)
class Attempted:
    """`outcomes` answer to `lease.pending`, one each; `upstream` names the last one that was asked.

    `asked` names the upstream of each outcome where there was more than one, and is empty otherwise.
    """

    outcomes: tuple[Outcome, ...]
    upstream: str
    asked: tuple[str, ...] = ()

    def asked_for(self, place: int) -> str:
        """The upstream that gave the outcome at `place`, "" where none was asked."""
        return self.asked[place] if self.asked else self.upstream


def decision_for(lease: Lease, policy: Policy) -> Accept:
    """What the current policy says about an entry. What was accepted is never rejected later.

    A route that an operator chose stays, as long as there is one of that name. What we write ourselves is no session
    code, whatever its subject says: an alarm about stuck codes does not go the way on which they are stuck.
    """
    entry = lease.entry
    if entry.kind is Kind.BOUNCE and policy.session_codes is not None:
        policy = replace(policy, session_codes=None)
    decision = decide(entry.submission, policy)
    if isinstance(decision, Accept):
        chosen = policy.routes.get(entry.route) if entry.rerouted else None
        if chosen is None or chosen is decision.route:
            return decision
        return replace(decision, route=chosen, lifetime=chosen.schedule.lifetime)
    route = policy.routes.get(entry.route) or policy.routes[DEFAULT]
    return Accept(route, None, False, decision.because, route.schedule.lifetime)


def held_by(lease: Lease, decision: Accept) -> str | None:
    """The rule that holds an entry for a person; not again once one released it, and never a notification of ours."""
    rule, entry = decision.rule, lease.entry
    if rule is None or not rule.hold or entry.released or entry.kind is Kind.BOUNCE:
        return None
    return rule.name


async def attempt(
    lease: Lease,
    decision: Accept,
    policy: Policy,
    upstreams: Mapping[str, Upstream],
    observer: Observer,
) -> Attempted | None:
    """Try the upstreams of the decision's route in order; None when all are set aside and nothing was tried."""
    session_code = lease.entry.session_code
    call = _Call(lease, decision, policy, observer)
    outcomes: dict[int, Outcome] = {}
    asked: dict[int, str] = {}
    tried: set[str] = set()
    remaining: Sequence[Pending] = lease.pending
    for name, insist in _ways(decision.route.upstreams, session_code):
        upstream = upstreams.get(name)  # a reload may have taken it away while another was asked
        if upstream is None or name in tried:
            continue
        for part in _parts(_those_for(name, remaining, session_code), upstream.limits.max_recipients):
            answers = await call.transaction(upstream, part, insist=insist)
            if answers is None:
                break  # set aside, perhaps meanwhile: whoever is left was not tried here
            tried.add(name)
            for pending, answer in zip(part, answers, strict=True):
                if pending.index not in outcomes or not _cannot_carry(
                    answer
                ):  # else it may still go as was said before
                    outcomes[pending.index] = answer
                    asked[pending.index] = name
        remaining = [pending for pending in remaining if _may_go_on(outcomes.get(pending.index), session_code)]
        if not remaining:
            break
    if not asked:
        return None
    if not tried.issuperset(decision.route.upstreams):  # one that is set aside now may carry what others cannot
        outcomes = {index: outcome for index, outcome in outcomes.items() if not _cannot_carry(outcome)}
    names = tuple([asked.get(pending.index, "") for pending in lease.pending])
    return Attempted(
        tuple([outcomes.get(pending.index, NOT_ASKED) for pending in lease.pending]),
        names[-1],
        names if len(names) > 1 and len(set(names)) > 1 else (),
    )


def _ways(upstreams: Sequence[str], session_code: bool) -> Iterator[tuple[str, bool]]:
    """The upstreams in order; for a session code once more, to insist where they are set aside."""
    for insist in (False, True) if session_code else (False,):
        for name in upstreams:
            yield name, insist


def _those_for(upstream: str, pending: Sequence[Pending], session_code: bool) -> Sequence[Pending]:
    """The same code twice by one way does no harm; by two ways it is told to one more."""
    if not session_code:
        return pending
    return [one for one in pending if one.in_doubt_at in ("", upstream)]


def _parts(pending: Sequence[Pending], most: int) -> Iterator[Sequence[Pending]]:
    for start in range(0, len(pending), most):
        yield pending[start : start + most]


def _may_go_on(outcome: Outcome | None, session_code: bool) -> bool:
    """True when the next upstream may be asked in the same attempt without the risk of a double delivery."""
    if outcome is None:
        return True
    if not isinstance(outcome, Deferred) or outcome.in_doubt:
        return _cannot_carry(outcome)
    return outcome.upstream_sick or (session_code and outcome.stage not in _IN_CONTENT)


def _cannot_carry(outcome: Outcome) -> bool:
    """True when nothing was sent, because this upstream cannot carry the message (size, encoding); another may."""
    return isinstance(outcome, Failed) and outcome.unasked


class _Call:
    """What the transactions of an attempt have in common: the message as it leaves, and who is told."""

    __slots__ = ("_decision", "_lease", "_observer", "_policy", "_rendered", "_told")

    def __init__(self, lease: Lease, decision: Accept, policy: Policy, observer: Observer) -> None:
        self._lease = lease
        self._decision = decision
        self._policy = policy
        self._observer = observer
        self._rendered = render(lease.entry.submission, decision, policy)
        self._told = False

    async def transaction(
        self, upstream: Upstream, part: Sequence[Pending], *, insist: bool
    ) -> tuple[Outcome, ...] | None:
        """The outcomes of one transaction; None when it was not tried."""
        try:
            delivery = await self._send(upstream, part, self._rendered.reverse_path, insist=insist)
            if delivery is None:
                return None
            if self._lease.entry.kind is Kind.BOUNCE and _null_path_refused(delivery):
                # Some upstreams refuse `<>` (RFC 5321, section 4.5.5 notwithstanding); the reader matters more.
                delivery = await self._send(upstream, part, self._policy.bounces_from, insist=insist)
                if delivery is None:
                    return (NOT_ASKED,) * len(part)
        except Exception as error:  # noqa: BLE001  # bulkhead: what other recipients got must be recorded
            self._observer.observe(caught(error, self._lease))
            # Content that cannot be read never reaches its final dot; nobody knows how far another bug came.
            local = isinstance(error, OSError)
            stage = Stage.BODY if local else Stage.DOT
            outcome = Deferred(stage, Trouble.TRANSIENT, "local error while sending the message", in_doubt=not local)
            return (outcome,) * len(part)
        return delivery.outcomes

    async def _send(
        self, upstream: Upstream, part: Sequence[Pending], reverse_path: Address | None, *, insist: bool
    ) -> Delivery | None:
        entry = self._lease.entry
        route = self._decision.route
        rendered = self._rendered
        envelope = entry.submission.envelope
        request = DeliveryRequest(
            queue_id=entry.queue_id,
            reverse_path=reverse_path,
            recipients=tuple([pending.recipient for pending in part]),
            head=rendered.head,
            content=entry.content,
            body_offset=rendered.body_offset,
            smtputf8=rendered.smtputf8,
            ret=envelope.ret,
            envid=envelope.envid,
            patience=PATIENCE_WITH_SESSION_CODES if entry.session_code else None,
        )
        if not upstream.admits(insist=insist):
            return None
        self._tell_of_the_sender()
        started = time.perf_counter()
        delivery = await upstream.deliver(request, priority=route.priority, schedule=route.schedule, insist=insist)
        if delivery is None:
            return None
        stage, trouble = _what_went_wrong(delivery.outcomes)
        seconds = time.perf_counter() - started
        self._observer.observe(AttemptEnded(entry.queue_id, route.name, upstream.name, seconds, stage, trouble))
        return delivery

    def _tell_of_the_sender(self) -> None:
        rule, rendered = self._decision.rule, self._rendered
        if rule is None or self._told:
            return
        self._told = True
        entry = self._lease.entry
        result = rendered.result or "unchanged"
        self._observer.observe(
            SenderDecided(entry.queue_id, rule.name, result, entry.attempts, rendered.signatures_removed)
        )


def caught(error: Exception, lease: Lease) -> ExceptionCaught:
    """The event about a bug met with `lease`; what the error says may quote, so it is left out for session codes."""
    if lease.entry.session_code:
        text = "".join(traceback.format_tb(error.__traceback__))
    else:
        text = "".join(traceback.format_exception(error))
    return ExceptionCaught("attempt", f"{type(error).__name__} at {lease.entry.queue_id}", text)


def _what_went_wrong(outcomes: Sequence[Outcome]) -> tuple[Stage | None, Trouble | None]:
    for outcome in outcomes:
        if isinstance(outcome, Delivered):
            continue
        return outcome.stage, Trouble.PERMANENT if isinstance(outcome, Failed) else outcome.trouble
    return None, None


def _null_path_refused(delivery: Delivery) -> bool:
    return all(isinstance(outcome, Failed) and outcome.stage is Stage.MAIL for outcome in delivery.outcomes)
