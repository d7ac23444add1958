"""One attempt for one lease: decide with the current policy, render, try the upstreams in order.

The result is one outcome for each pending recipient; nothing is stored here. A session code tries the ways
that are not set aside first, and then the others all the same, and does not wait long for any (`hedge`); one that
a way left in doubt goes by no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import field, replace
from datetime import datetime
from functools import partial

from relay.aside import aside
from relay.delivery import hedge
from relay.delivery.call import NOT_ASKED, Call, rendered
from relay.delivery.hedge import Answers, ChangeWay, Claims, Stragglers, Way, hedged
from relay.delivery.recipients import one_too_many
from relay.delivery.upstream import Upstream
from relay.delivery.verdicts import Verdicts
from relay.events import HedgeBegun, Observer
from relay.mail.outcome import Deferred, Failed, Outcome, Stage, Trouble
from relay.policy.decide import DEFAULT, Accept, Policy, judge, takes_long
from relay.policy.match import View
from relay.policy.rewriting import Rendered
from relay.queue.model import Kind, Lease, Pending
from relay.transport.port import Gate
from relay.values import frozen

_IN_CONTENT = (Stage.BODY, Stage.DOT)


@frozen
class Attempted:
    """`outcomes` answer to `lease.pending`, one each; `upstream` names the last one that was asked.

    `asked` names the upstream of each outcome where there was more than one, and is empty otherwise. `left`: the
    message as somebody took it.
    """

    outcomes: tuple[Outcome, ...]
    upstream: str
    asked: tuple[str, ...] = ()
    left: Rendered | None = field(default=None, compare=False)  # it follows from the decision

    def asked_for(self, place: int) -> str:
        """The upstream that gave the outcome at `place`, "" where none was asked."""
        return self.asked[place] if self.asked else self.upstream


async def decided(lease: Lease, policy: Policy) -> Accept:
    """`decision_for`, on a thread where that takes long."""
    view = View(lease.entry.submission)
    if takes_long(view, policy):
        return await aside(decision_for, lease, policy, view)
    return decision_for(lease, policy, view)


def decision_for(lease: Lease, policy: Policy, view: View | None = None) -> Accept:
    """What the current policy says about an entry. What was accepted is never rejected later.

    A route that an operator chose stays, as long as there is one of that name. What we write ourselves is no session
    code, whatever its subject says: an alarm about stuck codes does not go the way on which they are stuck.
    """
    entry = lease.entry
    decision = judge(view or View(entry.submission), policy, ours=entry.kind is Kind.BOUNCE)
    if isinstance(decision, Accept):
        chosen = policy.routes.get(entry.route) if entry.rerouted else None
        if chosen is None or chosen is decision.route:
            return decision
        return replace(decision, route=chosen, lifetime=chosen.schedule.lifetime)
    route = policy.routes.get(entry.route) or policy.routes[DEFAULT]
    return Accept(route, None, False, decision.because, route.schedule.lifetime)


def held_by(lease: Lease, decision: Accept) -> str | None:
    """The rule that holds an entry for a person; not again once one released it, and never a notification of ours."""
    entry = lease.entry
    if not decision.held_by or entry.released or entry.kind is Kind.BOUNCE:
        return None
    return decision.held_by


async def attempt(
    lease: Lease,
    decision: Accept,
    policy: Policy,
    upstreams: Mapping[str, Upstream],
    *,
    observer: Observer,
    verdicts: Verdicts,
    stragglers: Stragglers,
    change_way: ChangeWay,
    now: Callable[[], datetime],
) -> Attempted | None:
    """Try the upstreams of the decision's route in order; None when all are set aside and nothing was tried.

    `stragglers` keeps what still goes on without the message. A session code is not sent once its lifetime is over, nor
    by another way than its own before `change_way` is done.
    """
    session_code = lease.entry.session_code
    call = Call(lease, decision, policy, observer, verdicts, await rendered(lease, decision, policy))
    hedging = None
    if session_code:
        hedging = _Hedging(call, lease, decision, observer, stragglers, Claims(lease, change_way), now)
    outcomes: dict[int, Outcome] = {}
    asked: dict[int, str] = {}
    tried: set[tuple[str, int]] = set()
    remaining: Sequence[Pending] = lease.pending
    for name, insist in _ways(decision.route.upstreams, session_code):
        upstream = upstreams.get(name)  # a reload may have taken it away while another was asked
        if upstream is None:
            continue
        answered: list[tuple[str, Answers | None]] = []
        those = [one for one in _those_for(name, remaining, session_code) if (name, one.index) not in tried]
        for part in _parts(those, upstream, outcomes):
            if hedging is None:
                answered = [(name, await call.transaction(upstream, part, insist=insist))]
            else:
                beside = _beside(name, part, decision.route.upstreams, upstreams, tried)
                answered = await hedging.ask(upstream, part, insist=insist, beside=beside)
            for way, answers in answered:
                for pending, answer in zip(part, answers or (), strict=answers is not None):
                    tried.add((way, pending.index))
                    before = outcomes.get(pending.index)
                    # What cannot be carried here may still go as was said before.
                    if _may_go_on(before, session_code) and (before is None or not _cannot_carry(answer)):
                        outcomes[pending.index] = answer
                        asked[pending.index] = way
            if (name, None) in answered:
                break  # set aside, perhaps meanwhile: whoever is left was not tried here
        remaining = [pending for pending in remaining if _may_go_on(outcomes.get(pending.index), session_code)]
        if remaining and hedging is None and upstream.takes_later:
            # Its pace alone holds back what it can carry: that waits for it.
            remaining = [pending for pending in remaining if _cannot_carry(outcomes.get(pending.index))]
        if not remaining or (hedging is not None and hedging.too_late()):
            break
    if not asked:
        return None
    if not {way for way, _ in tried}.issuperset(decision.route.upstreams):
        # One that is set aside now may carry what the others cannot: the message waits for it, by its schedule.
        outcomes = {index: _put_off(outcome) for index, outcome in outcomes.items()}
    names = tuple([asked.get(pending.index, "") for pending in lease.pending])
    return Attempted(
        tuple([outcomes.get(pending.index, NOT_ASKED) for pending in lease.pending]),
        names[-1],
        names if len(names) > 1 and len(set(names)) > 1 else (),
        call.left,
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


def _beside(
    name: str,
    part: Sequence[Pending],
    ways: Sequence[str],
    upstreams: Mapping[str, Upstream],
    tried: Set[tuple[str, int]],
) -> Upstream | None:
    """The way that may be begun beside `name`, if there is one: for all of `part`, and asked for nobody in it yet."""
    if any(pending.in_doubt_at for pending in part):
        return None
    for other in ways:
        upstream = upstreams.get(other)
        if upstream is None or other == name or len(part) > upstream.limits.max_recipients:
            continue
        if not any((other, pending.index) in tried for pending in part):
            return upstream
    return None


def _parts(pending: list[Pending], upstream: Upstream, outcomes: Mapping[int, Outcome]) -> Iterator[Sequence[Pending]]:
    """So many at a time as `upstream` takes; those of a part that were too many come again, in smaller ones."""
    if len(pending) == 1:
        yield pending
        return
    while pending:
        most = upstream.limits.max_recipients
        part, pending = pending[:most], pending[most:]
        yield part
        pending += [one for one in part if one_too_many(outcomes.get(one.index))]


def _may_go_on(outcome: Outcome | None, session_code: bool) -> bool:
    """True when the next upstream may be asked in the same attempt without the risk of a double delivery."""
    if outcome is None:
        return True
    if not isinstance(outcome, Deferred) or outcome.in_doubt:
        return _cannot_carry(outcome)
    # An endpoint's answer is complete: whoever did not take it then will not have it. Nor will who was one too many.
    if outcome.upstream_sick or outcome.stage is Stage.HTTP or one_too_many(outcome):
        return True
    return session_code and outcome.stage not in _IN_CONTENT


def _put_off(outcome: Outcome) -> Outcome:
    if isinstance(outcome, Failed) and outcome.unasked:
        return Deferred(outcome.stage, Trouble.TRANSIENT, outcome.reply.text)
    return outcome


def _cannot_carry(outcome: Outcome | None) -> bool:
    """True when nothing was sent, because this upstream cannot carry the message (size, encoding); another may."""
    return isinstance(outcome, Failed) and outcome.unasked


class _Hedging:
    """The transactions of a session code, which waits for no slow way (`hedge`)."""

    def __init__(
        self,
        call: Call,
        lease: Lease,
        decision: Accept,
        observer: Observer,
        stragglers: Stragglers,
        claims: Claims,
        now: Callable[[], datetime],
    ) -> None:
        self._call = call
        self._lease = lease
        self._decision = decision
        self._observer = observer
        self._stragglers = stragglers
        self._claims = claims
        self._now = now

    def too_late(self) -> bool:
        return self._now() >= self._lease.entry.expires_at

    async def ask(
        self, upstream: Upstream, part: Sequence[Pending], *, insist: bool, beside: Upstream | None
    ) -> list[tuple[str, Answers | None]]:
        """What `upstream` answers, and what `beside` does where it was needed; None where a way was not tried."""
        return await hedged(
            Way(upstream.name, partial(self._call.transaction, upstream, part, insist=insist)),
            None if beside is None else Way(beside.name, partial(self._hedge, beside, upstream.name, part)),
            may_go_on=partial(_may_go_on, session_code=True),
            too_late=self.too_late,
            claimed=partial(self._claims.claim, part=part),
            stragglers=self._stragglers,
        )

    async def _hedge(self, upstream: Upstream, slow: str, part: Sequence[Pending], gate: Gate) -> Answers | None:
        if upstream.admits(insist=True):
            queue_id, route = self._lease.entry.queue_id, self._decision.route.name
            self._observer.observe(HedgeBegun(queue_id, route, slow, upstream.name, hedge.HEDGE_AFTER))
        return await self._call.transaction(upstream, part, gate, insist=True)
