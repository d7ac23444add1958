"""Hedging: while the way chosen for a session code keeps us waiting, the other one is begun beside it.

Whichever is ready for the message first sends it; the other never does. That is decided by a `Gate`, which every
transaction has to pass before the first octet of content leaves, with nothing in between. So
a code is told to one way only, and a hedge can make it faster, but never double it; and a code whose lifetime
ends while a way is slow is not sent any more. Nor can a hedge make a code fail
that would not fail without it: what the chosen way says comes first, and the other's refusal counts only where
the chosen one leaves it open.

So it is after a crash as well: the store knows which way a code has (`Pending.way`), and the gate opens to another one
once that is committed (`Claims`). What a dead process had in hand goes by that way only.

The way that lost is not torn down at once: it goes on to its end without the message, five seconds at most, so that
a silent upstream is found out and set aside, and the next code does not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from relay.errors import StoreUnavailable
from relay.mail.outcome import Outcome
from relay.queue.model import Lease, Pending
from relay.transport import port
from relay.values import frozen

HEDGE_AFTER = 1.5
"""Seconds that the chosen way has for itself. A far provider needs up to one for DNS, TCP, TLS and AUTH, a lost SYN
costs one; so a way that is well is not hedged, and a code whose way is not is out within three seconds."""

Answers = tuple[Outcome, ...]

ChangeWay = Callable[[Lease, Sequence[int], str], Awaitable[None]]
"""As `QueueStore.change_way`."""


@frozen
class Way:
    """One way out for some recipients: `begin` starts the transaction, whose end is None where it was not tried."""

    name: str
    begin: Callable[[port.Gate], Coroutine[Any, Any, Answers | None]]


class Stragglers:
    """Transactions whose outcome nobody waits for any more. They end by themselves; `over` waits for that."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Answers | None]] = set()

    def keep(self, task: asyncio.Task[Answers | None]) -> None:
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def over(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)


class Claims:
    """Which way each recipient of `lease` is to be sent a session code by, as the store has it."""

    def __init__(self, lease: Lease, change: ChangeWay) -> None:
        self._lease = lease
        self._change = change
        self._ways = {pending.index: pending.way for pending in lease.pending}

    async def claim(self, way: str, part: Sequence[Pending]) -> bool:
        """Whether it is `way` for all of `part`: committed now, where it was another."""
        places = [pending.index for pending in part if self._ways[pending.index] != way]
        if not places:
            return True
        self._ways.update(dict.fromkeys(places, ""))  # after a failure nobody knows
        try:
            await self._change(self._lease, places, way)
        except StoreUnavailable:  # the store has told everybody
            return False
        self._ways.update(dict.fromkeys(places, way))
        return True


class _Gate:
    """Lets one way pass, and no other after it; and none any more once it is too late, or the attempt is cancelled.

    Whoever cancels it may be sure of that at once: the ways are tasks of their own, and hear of it a turn later.
    A way has passed once it is `claimed`.
    """

    def __init__(self, too_late: Callable[[], bool], claimed: Callable[[str], Awaitable[bool]]) -> None:
        self._too_late = too_late
        self._claimed = claimed
        self._attempt = asyncio.current_task()
        self.passed_by: str | None = None
        self.contested = False
        self.turned_away: set[str] = set()

    async def let_pass(self, name: str) -> bool:
        if self.passed_by is None and not self._over() and not self._too_late():
            self.passed_by = name
            if not await self._claimed(name):
                self.passed_by = None  # the other way may have it still
            elif self._too_late():
                self.passed_by = ""
        if self.passed_by != name or self._over():
            self.turned_away.add(name)
            return False
        return True

    def _over(self) -> bool:
        return self._attempt is not None and self._attempt.cancelling() > 0

    def still_matter(self, ways: Mapping[str, asyncio.Task[Answers | None]]) -> list[asyncio.Task[Answers | None]]:
        """Those under way by which it may go yet, or goes."""
        return [way for name, way in ways.items() if not way.done() and self.passed_by in (None, name)]

    def close(self) -> None:
        """Let nobody pass who has not done so."""
        if self.passed_by is None:
            self.passed_by = ""


class _Pass:
    """The gate as one way sees it (`port.Gate`)."""

    def __init__(self, gate: _Gate, name: str) -> None:
        self._gate = gate
        self._name = name

    @property
    def contested(self) -> bool:
        return self._gate.contested

    async def __call__(self) -> bool:
        return await self._gate.let_pass(self._name)


async def hedged(
    first: Way,
    other: Way | None,
    *,
    may_go_on: Callable[[Outcome], bool],
    too_late: Callable[[], bool],
    claimed: Callable[[str], Awaitable[bool]],
    stragglers: Stragglers,
) -> list[tuple[str, Answers | None]]:
    """The ways that came to an end, with their answers, in the order in which these count: what a way says about
    a recipient stands, unless it leaves the recipient to the next (`may_go_on`).

    A way that was called off is not among them: it was not asked. `other` None: there is none to be begun.
    `claimed`: whether the recipients are that way's now (`Claims.claim`).
    """
    gate = _Gate(too_late, claimed)
    chosen = asyncio.create_task(first.begin(_Pass(gate, first.name)))
    tasks = {first.name: chosen}
    try:
        await asyncio.wait((chosen,), timeout=None if other is None else HEDGE_AFTER)
        if other is not None and not chosen.done() and gate.passed_by is None:
            gate.contested = True
            tasks[other.name] = asyncio.create_task(other.begin(_Pass(gate, other.name)))
        while running := gate.still_matter(tasks):
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            if chosen.done() and not all(map(may_go_on, chosen.result() or ())):
                gate.close()  # some have their answer: if the rest goes by the other way, it begins anew
    except BaseException:
        for task in tasks.values():
            task.cancel()
        raise
    finally:
        gate.close()
        for task in tasks.values():
            stragglers.keep(task)
    ended = [(name, task.result()) for name, task in tasks.items() if task.done() and name not in gate.turned_away]
    return sorted(ended, key=lambda answered: answered[0] != gate.passed_by)
