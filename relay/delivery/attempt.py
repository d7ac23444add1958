"""One attempt for one lease: decide with the current policy, render, try the upstreams in order.

The result is one outcome for each pending recipient; nothing is stored here. A session code tries the ways
that are not set aside first, and then the others all the same; one that a way left in doubt goes by no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from relay.delivery.call import NOT_ASKED, Call
from relay.delivery.upstream import Upstream
from relay.delivery.verdicts import Verdicts
from relay.events import Observer
from relay.mail.outcome import Deferred, Failed, Outcome, Stage
from relay.policy.decide import DEFAULT, Accept, Policy, decide
from relay.queue.model import Kind, Lease, Pending

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
    verdicts: Verdicts,
) -> Attempted | None:
    """Try the upstreams of the decision's route in order; None when all are set aside and nothing was tried."""
    session_code = lease.entry.session_code
    call = Call(lease, decision, policy, observer, verdicts)
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
        if not session_code and upstream.takes_later:
            break  # the pace alone holds it back: it waits for this way
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
