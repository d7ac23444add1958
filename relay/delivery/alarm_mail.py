"""Alarms by mail, without the queue: an attempt of its own, by an upstream that works.

An alarm about an upstream goes by another one, with another account; only where that upstream still takes mail (its
certificate ends soon, it asks for less) it is the last that is asked. What nobody takes now is tried again at a later
look, so no alarm arrives when its cause is long gone. The queue is not needed: an alarm about it leaves as well.
"""

from __future__ import annotations

from dataclasses import replace

from relay.delivery.alarm_way import Alarm, NotSent
from relay.delivery.attempt import attempt, decision_for
from relay.delivery.call import NOT_ASKED
from relay.delivery.hedge import Stragglers
from relay.delivery.own import own_entry
from relay.delivery.worker import House
from relay.mail import notice
from relay.mail.outcome import Deferred, Delivered, Outcome
from relay.policy.alarms import AlarmMail
from relay.policy.decide import DEFAULT
from relay.queue.model import Lease, Pending


class ByMail:
    """`house` is what workers share."""

    name = "mail"

    def __init__(self, terms: AlarmMail, house: House) -> None:
        self._terms = terms
        self._house = house

    async def send(self, alarm: Alarm) -> str:
        terms = self._terms
        ways = terms.apart(alarm.about)
        if not alarm.blocked:
            ways += tuple([name for name in terms.ways if name not in ways])
        if not ways:
            raise NotSent("there is no other upstream than what it is about")
        refused = []
        for name in ways:
            outcomes = await self._outcomes(alarm, name)
            readers = [str(one) for one, outcome in zip(terms.readers, outcomes, strict=True) if _got(outcome)]
            if readers:
                return f"{', '.join(readers)} by {name}"
            refused.append(f"{name}: {_reason(outcomes[0])}")
        raise NotSent("; ".join(refused))

    def parts(self) -> tuple[ByMail, ...]:
        return tuple([ByMail(replace(self._terms, ways=(name,)), self._house) for name in self._terms.ways])

    async def _outcomes(self, alarm: Alarm, upstream: str) -> tuple[Outcome, ...]:
        """What became of each reader's copy by that upstream."""
        house, readers = self._house, self._terms.readers
        policy, now, queue_id = house.policy(), house.now(), house.new_queue_id()
        author, route = policy.bounces_from, replace(policy.routes[DEFAULT], upstreams=(upstream,))
        content = notice.build(
            alarm.subject,
            alarm.letter,
            queue_id=queue_id,
            hostname=policy.hostname,
            author=author,
            readers=readers,
            now=now,
        )
        entry = own_entry(content, readers, author=author, queue_id=queue_id, route=route, because="alarm", now=now)
        recipients = entry.submission.envelope.recipients
        lease = Lease(replace(entry, attempts=1), tuple([Pending(n, one) for n, one in enumerate(recipients)]))
        attempted = await attempt(
            lease,
            replace(decision_for(lease, policy), route=route),
            policy,
            house.upstreams,
            observer=house.observer,
            verdicts=house.verdicts,
            stragglers=Stragglers(),
            change_way=house.store.change_way,
            now=house.now,
        )
        return (NOT_ASKED,) * len(readers) if attempted is None else attempted.outcomes


def _got(outcome: Outcome) -> bool:
    """Whether the reader has it, or may have it: twice would be too often."""
    return isinstance(outcome, Delivered) or (isinstance(outcome, Deferred) and outcome.in_doubt)


def _reason(outcome: Outcome) -> str:
    if outcome.reply is None:
        return outcome.text
    return f"{outcome.reply.code} {outcome.reply.status} {outcome.reply.text}".rstrip(" .")
