"""One attempt for one lease: decide with the current policy, render, try the upstreams in order.

The result is one outcome for each pending recipient; nothing is stored here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relay.delivery.upstream import Upstream
from relay.events import AttemptEnded, Observer, SenderDecided
from relay.mail.address import Address
from relay.mail.outcome import Deferred, Failed, Outcome, Stage
from relay.policy.decide import Accept, Policy, decide
from relay.policy.rewriting import Rendered, render
from relay.queue.model import Kind, Lease, Pending
from relay.transport.port import Delivery, DeliveryRequest

PATIENCE_WITH_SESSION_CODES = 5.0  # seconds for everything before the body, on each way
_BEFORE_BODY = frozenset(set(Stage) - {Stage.BODY, Stage.DOT})


@dataclass(frozen=True, slots=True)
class Attempted:
    """`outcomes` answer to `lease.pending`, one each; `upstream` names the last one that was asked."""

    outcomes: tuple[Outcome, ...]
    upstream: str


def decision_for(lease: Lease, policy: Policy) -> Accept:
    """What the current policy says about an entry. What was accepted is never rejected later."""
    decision = decide(lease.entry.submission, policy)
    if isinstance(decision, Accept):
        return decision
    route = policy.routes.get(lease.entry.route) or policy.routes["default"]
    return Accept(route, None, False, decision.because, route.schedule.lifetime)


async def attempt(
    lease: Lease,
    decision: Accept,
    policy: Policy,
    upstreams: Mapping[str, Upstream],
    observer: Observer,
) -> Attempted | None:
    """Try the upstreams of the decision's route in order; None when all are set aside and nothing was tried."""
    entry = lease.entry
    rendered = render(entry.submission, decision, policy)
    if decision.rule is not None:
        observer.observe(
            SenderDecided(
                entry.queue_id,
                decision.rule.name,
                rendered.result or "unchanged",
                entry.attempts,
                rendered.signatures_removed,
            )
        )
    outcomes: dict[int, Outcome] = {}
    asked = ""
    remaining: Sequence[Pending] = lease.pending
    insist = entry.session_code
    for name in decision.route.upstreams:
        upstream = upstreams[name]
        if not upstream.admit(insist=insist):
            continue
        asked = name
        answers: tuple[Outcome, ...] = ()
        for part in _parts(remaining, upstream.limits.max_recipients):
            if upstream.up or not answers:
                answers = await _transaction(lease, part, rendered, decision, policy, upstream, observer)
            else:  # set aside meanwhile: the rest shares the fate of the last one asked
                answers = (answers[-1],) * len(part)
            outcomes.update(zip([pending.index for pending in part], answers, strict=True))
        remaining = [p for p in remaining if _may_go_elsewhere(outcomes[p.index], session_code=entry.session_code)]
        if not remaining:
            break
    if not asked:
        return None
    return Attempted(tuple([outcomes[pending.index] for pending in lease.pending]), asked)


async def _transaction(
    lease: Lease,
    part: Sequence[Pending],
    rendered: Rendered,
    decision: Accept,
    policy: Policy,
    upstream: Upstream,
    observer: Observer,
) -> tuple[Outcome, ...]:
    entry = lease.entry
    delivery = await _send(lease, part, rendered, decision, upstream, observer, rendered.reverse_path)
    if entry.kind is Kind.BOUNCE and _null_path_refused(delivery):
        # Some upstreams refuse `<>` (RFC 5321, section 4.5.5 notwithstanding); the reader matters more.
        delivery = await _send(lease, part, rendered, decision, upstream, observer, policy.bounces_from)
    return delivery.outcomes


async def _send(
    lease: Lease,
    part: Sequence[Pending],
    rendered: Rendered,
    decision: Accept,
    upstream: Upstream,
    observer: Observer,
    reverse_path: Address | None,
) -> Delivery:
    entry = lease.entry
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
    started = time.perf_counter()
    delivery = await upstream.deliver(request, priority=decision.route.priority, schedule=decision.route.schedule)
    trouble = next((outcome for outcome in delivery.outcomes if isinstance(outcome, Deferred)), None)
    observer.observe(
        AttemptEnded(
            entry.queue_id,
            decision.route.name,
            upstream.name,
            time.perf_counter() - started,
            trouble.stage if trouble else None,
            trouble.trouble if trouble else None,
        )
    )
    return delivery


def _parts(pending: Sequence[Pending], most: int) -> list[Sequence[Pending]]:
    return [pending[start : start + most] for start in range(0, len(pending), most)]


def _may_go_elsewhere(outcome: Outcome, *, session_code: bool) -> bool:
    """True when the next upstream may be asked in the same attempt without the risk of a double delivery."""
    if not isinstance(outcome, Deferred) or outcome.in_doubt:
        return False
    return outcome.upstream_sick or (session_code and outcome.stage in _BEFORE_BODY)


def _null_path_refused(delivery: Delivery) -> bool:
    return all(isinstance(outcome, Failed) and outcome.stage is Stage.MAIL for outcome in delivery.outcomes)
