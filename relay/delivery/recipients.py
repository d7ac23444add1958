"""How many recipients an upstream takes in one transaction, as its refusals show.

A limit is met at the recipient that is one too many, with a reply or with a goodbye (421), or at DATA and after the
content, where it costs all of them. Whoever met one goes again at once, in smaller transactions (`attempt`). The
number is remembered for a day, over restarts. A store that fails costs no more than finding it out again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeGuard

from relay.errors import StoreUnavailable
from relay.events import Observer, RecipientsLimited
from relay.mail.outcome import Deferred, Delivered, Outcome, Refusal, Stage, Trouble
from relay.queue.store import QueueStore
from relay.transport.port import Delivery
from relay.values import frozen

REMEMBERED = timedelta(days=1)
_TOPIC = "recipients"
_NUMBER = re.compile(r"(?<![\d.#])\d{1,4}(?!\.?\d)")  # no part of a status
_BEFORE_CONTENT = (Stage.RCPT, Stage.DATA)


@frozen
class Most:
    """At most so many recipients in one transaction, as was found out; believed until then."""

    recipients: int
    until: datetime


class MostRecipients:
    """Of all upstreams, by their names. `load` reads what the store remembers."""

    def __init__(self, store: QueueStore, *, observer: Observer, now: Callable[[], datetime]) -> None:
        self._store = store
        self._observer = observer
        self._now = now
        self._learnt: dict[str, Most] = {}

    async def load(self) -> None:
        """Read what the store remembers; what is over is forgotten. Raises StoreUnavailable."""
        for memory in await self._store.memories(_TOPIC):
            # What ends later than that was written by a clock that was wrong.
            if memory.value.isdecimal() and self._now() < memory.moment <= self._now() + REMEMBERED:
                self._learnt[memory.key] = Most(int(memory.value), memory.moment)
            else:
                await self._store.forget_memory(_TOPIC, memory.key)

    def of(self, upstream: str) -> Most | None:
        """What is known of `upstream`; None: nothing, or it is too long ago."""
        most = self._learnt.get(upstream)
        return most if most is not None and self._now() < most.until else None

    async def learn(self, upstream: str, recipients: int) -> None:
        """`upstream` takes that many in one transaction, and refused more."""
        most = self._learnt[upstream] = Most(recipients, self._now() + REMEMBERED)
        self._observer.observe(RecipientsLimited(upstream, recipients))
        with suppress(StoreUnavailable):  # it has told everybody
            await self._store.remember(_TOPIC, upstream, most.until, str(recipients))


def one_too_many(outcome: Outcome | None) -> TypeGuard[Deferred]:
    """Whether a recipient was refused because there were too many."""
    return isinstance(outcome, Deferred) and outcome.refusal is Refusal.TOO_MANY


def divided(delivery: Delivery) -> Delivery | None:
    """A delivery in which somebody was one too many, with its `room`; nothing of it speaks of the upstream.

    None where it shows no limit of a transaction: none was taken before, or one behind was.
    """
    outcomes = delivery.outcomes
    first = next(place for place, outcome in enumerate(outcomes) if one_too_many(outcome))
    at_rcpt = _stage(outcomes[first]) is Stage.RCPT
    room = _taken(delivery, first) if at_rcpt else _fewer(outcomes)
    if not room:
        return None
    sick = delivery.sick
    if at_rcpt:
        outcomes = tuple(map(_goes_again, outcomes))
        if sick is not None and sick.stage in _BEFORE_CONTENT:
            sick = None
    elif sick is not None and sick.refusal is Refusal.TOO_MANY:
        sick = None
    return replace(delivery, outcomes=outcomes, sick=sick, room=room)


def _taken(delivery: Delivery, first: int) -> int:
    """How many were taken; 0 where one of them stands behind the first that was too many."""
    if delivery.sick is not None:
        return delivery.taken
    taken = [place for place, outcome in enumerate(delivery.outcomes) if _stage(outcome) is not Stage.RCPT]
    return len(taken) if not taken or taken[-1] < first else 0


def _fewer(outcomes: tuple[Outcome, ...]) -> int:
    """How many to try, where all were refused: as many as the reply names, else half of them."""
    refused = [outcome for outcome in outcomes if one_too_many(outcome)]
    said = refused[0].reply
    named = [int(number) for number in _NUMBER.findall(said.text if said is not None else "")]
    return max([number for number in named if number < len(refused)], default=len(refused) // 2)


def _goes_again(outcome: Outcome) -> Outcome:
    """Those that had been taken and were lost with the others go again as well: DATA was refused, or the line broke."""
    if isinstance(outcome, Delivered) or outcome.stage not in _BEFORE_CONTENT or one_too_many(outcome):
        return outcome
    reply = outcome.reply
    if outcome.stage is Stage.RCPT and reply is not None and reply.code != 421:
        return outcome  # its own refusal
    text = outcome.text if isinstance(outcome, Deferred) else outcome.reply.text
    return Deferred(outcome.stage, Trouble.TRANSIENT, text, reply, refusal=Refusal.TOO_MANY)


def _stage(outcome: Outcome) -> Stage | None:
    """How far it came; None: to the end."""
    return None if isinstance(outcome, Delivered) else outcome.stage
