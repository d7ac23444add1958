"""Whether an upstream is well: set aside, asked to be spared, or up.

An upstream that fails before a transaction (connect to AUTH) is set aside: for a growing pause nobody tries it, then
one connection probes, then all come back.

What breaks off a transaction (a 421, a drop), and what blames the account in one, may be brought about by the message.
So the upstream is believed to be sick only when two messages have met it and none has gone through since. Then it is
set aside as well, after a 421 or a drop for moments at first: there may be a batch of such messages, and the first
other one is to end that. So one that has met it is no probe, and is not counted again: when it is due by its own
schedule it is tried beside, lest forty take turns. Once others have gone through, it is known to be the message.

One that says its quota is used up is set aside until the quota comes back. One that only asks for less is not set
aside: mail waits for it a moment, over fewer connections where they were too many.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from relay.delivery.account import Account
from relay.events import MessageBlamed, Observer, UpstreamRestored, UpstreamSetAside, UpstreamThrottled
from relay.mail.outcome import BEFORE_A_TRANSACTION, Deferred, Refusal, Stage, Trouble
from relay.mail.reply import Reply
from relay.policy.refusal import OF_THE_ACCOUNT, speaks_of_connections
from relay.policy.retry import ASKED_LONGEST, Schedule
from relay.transport.port import DeliveryRequest

NEVER = float("inf")
THROTTLED_FIRST, THROTTLED_LONGEST = 2.0, 60.0  # seconds of pause after an upstream asked for less
AUTH_LONGEST = 300.0  # seconds between two tries at an upstream that refuses the login
# Seconds of pause after a second message was broken off, and how that grows: forty such messages, one behind the other,
# cost half a minute; and an upstream that is sick is asked a hundred times before a pause is five minutes.
BROKEN_OFF_FIRST, BROKEN_OFF_GROWTH = 0.1, 1.08
REMEMBERED = 1000  # messages
_MAY_QUOTE = (
    Stage.DATA,
    Stage.BODY,
    Stage.DOT,
    Stage.HTTP,
)  # what is said there may quote the message, and that may be a code


class Health:
    """`fell` is called when it was set aside, and for what; `rose` when attempts may go on that could not before."""

    def __init__(
        self,
        name: str,
        account: Account,
        *,
        fell: Callable[[Deferred], None],
        rose: Callable[[], None],
        observer: Observer,
    ) -> None:
        self._name = name
        self._account = account
        self._fell = fell
        self._rose = rose
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self.epoch = 0  # attempts of an earlier one began before it was set aside, or asked for less
        self._failures = 0
        self._aside_until: float | None = None
        self._aside_for: Deferred | None = None
        self._probe: object = None
        self._throttled_until = 0.0
        self._throttled = 0  # times in a row
        self._met: dict[str, Deferred] = {}  # what may be the upstream or the message, since one went through
        self._blamed: dict[str, None] = {}  # messages that met it while others went through; the latest is the last

    @property
    def up(self) -> bool:
        """True unless set aside."""
        return self._aside_until is None

    @property
    def at_ease(self) -> bool:
        """True when nothing was wrong of late: it neither is set aside nor wants less."""
        return self._aside_until is None and not self._throttled_until

    @property
    def opens_in(self) -> float:
        """Seconds until it is no longer left alone; 0 now; infinite while a probe is under way."""
        if self._aside_until is None:
            return 0.0
        return NEVER if self.tried_now else max(0.0, self._aside_until - self._loop.time())

    @property
    def tried_now(self) -> bool:
        """True while it is set aside, and a probe is under way."""
        return self._aside_until is not None and self._probe is not None

    @property
    def rests_for(self) -> float:
        """Seconds for which it wants less, though it is up."""
        return max(0.0, self._throttled_until - self._loop.time())

    @property
    def refuses_login(self) -> bool:
        """True while it is set aside because it refused the login: each try counts over there."""
        return self._aside_for is not None and self._aside_for.stage is Stage.AUTH

    @property
    def _is_of_the_account(self) -> bool:
        aside = self._aside_for
        return aside is not None and (aside.stage is Stage.AUTH or aside.refusal is Refusal.QUOTA)

    @property
    def mends_by_connecting(self) -> bool:
        """True when it is set aside for something that a connection alone can prove to be over."""
        aside = self._aside_for
        return self._aside_until is not None and (aside is None or aside.stage in BEFORE_A_TRANSACTION)

    def try_now(self) -> None:
        """After a reload: whatever set it aside may be mended, so the pause ends.

        What is under way began before that: a failure of it says nothing.
        """
        self._throttled_until = 0.0
        self._account.pace.release()
        if self._aside_until is not None:
            self.epoch += 1
            self._probe = None
            self._aside_until = self._loop.time()
            self._aside_for = None
        self._rose()

    def admits(self, *, insist: bool = False) -> bool:
        """Whether it is not left alone now. `insist` goes past a pause, but not past one for a refused login."""
        return self._aside_until is None or self.opens_in == 0 or (insist and not self.refuses_login)

    def begin(self, request: object, *, insist: bool = False, rested: bool = False) -> bool:
        """An attempt begins, unless it is left alone; the first after a pause is the probe. `rested`: nor does it
        begin while the upstream wants less."""
        if self._probe is request:
            return True
        if not self.admits(insist=insist) or (rested and not insist and self.rests_for > 0):
            return False
        if self._aside_until is not None and self.opens_in == 0 and self._may_probe(request):
            self._probe = request
        return True

    def end(self, request: object) -> None:
        """It is over. One that ended without a verdict was no probe: the next is."""
        if self._probe is request:
            self._probe = None
            self._rose()

    def connected(self, request: object) -> None:
        """A connection is there, and nothing else was tried."""
        if self._probe is request and self.mends_by_connecting:
            self._restore()

    def judge(
        self, request: object, epoch: int, sick: Deferred | None, schedule: Schedule, *, session_code: bool = False
    ) -> None:
        """Take in how an attempt went that began in `epoch`. What was said of a `session_code` is not told."""
        probe = self._probe is request
        news = epoch == self.epoch
        if sick is None:
            if self._met or self._blamed:
                self._went_through(request)
        elif self._may_be_the_message(request, sick):
            if probe:
                self._restore()  # it came so far
            return
        if sick is not None and _asks_for_less(sick) and not (probe and sick.stage in BEFORE_A_TRANSACTION):
            if probe:
                self._restore()
            # As below: begun before the last time, or insisted upon meanwhile, it is no news.
            if news and self.up and self._loop.time() >= self._throttled_until:
                self._slow_down(sick, session_code=session_code)
        elif sick is not None and _speaks_of_upstream(sick):
            # Begun before it was set aside, or insisted upon meanwhile: no news.
            if news and (probe or self.opens_in == 0):
                self._set_aside(sick, schedule, session_code=session_code)
        elif self._aside_until is None:
            self._failures = 0
            if news and sick is None:
                self._throttled = 0
        # What went wrong in a transaction proves nothing, but that a probe came so far. What began before a login was
        # refused, or a quota was used up, does not prove the contrary.
        elif probe or (sick is None and (news or not self._is_of_the_account)):
            self._restore()

    def _may_be_the_message(self, request: object, sick: Deferred) -> bool:
        """True when only one message has met it, or one that has met it while others went through."""
        if _asks_for_less(sick):  # a short pause does little harm
            return False
        probe = self._probe is request
        if not broken_off(sick) and (probe or sick.refusal not in OF_THE_ACCOUNT or sick.stage in BEFORE_A_TRANSACTION):
            return False
        name = _name_of(request)
        if name in self._met or name in self._blamed:
            return True
        self._met[name] = sick
        _forget(self._met)
        return len(self._met) < 2

    def _may_probe(self, request: object) -> bool:
        if self._aside_for is None or not broken_off(self._aside_for):
            return True
        name = _name_of(request)
        return name not in self._met and name not in self._blamed

    def _went_through(self, request: object) -> None:
        """Whoever met trouble before did not meet a sick upstream."""
        name = _name_of(request)
        self._met.pop(name, None)
        self._blamed.pop(name, None)
        for queue_id, sick in self._met.items():
            self._blamed[queue_id] = None
            self._observer.observe(
                MessageBlamed(queue_id, self._name, sick.stage, sick.reply.code if sick.reply is not None else 0)
            )
        self._met.clear()
        _forget(self._blamed)

    def _restore(self) -> None:
        self._failures = 0
        self._aside_until, self._aside_for, self._probe = None, None, None
        self._account.pace.release()
        self._observer.observe(UpstreamRestored(self._name))
        self._rose()

    def _slow_down(self, trouble: Deferred, *, session_code: bool) -> None:
        """It asks for less: a short pause, and one connection less where they were too many."""
        reply = trouble.reply
        assert reply is not None
        self.epoch += 1
        pause = min(THROTTLED_FIRST * 2**self._throttled, THROTTLED_LONGEST)
        pause *= 0.9 + 0.2 * random.random()  # noqa: S311  # jitter, no secret
        if trouble.retry_after is not None:
            pause = max(pause, min(trouble.retry_after, ASKED_LONGEST.total_seconds()))
        self._throttled = min(self._throttled + 1, 10)
        self._throttled_until = self._loop.time() + pause
        if speaks_of_connections(trouble.stage, reply):
            self._account.places.lower()
        self._observer.observe(
            UpstreamThrottled(
                upstream=self._name,
                stage=trouble.stage,
                code=reply.code,
                status=reply.status,
                text=_harmless(trouble, session_code=session_code),
                seconds=pause,
                connections=self._account.places.allowed,
            )
        )

    def _set_aside(self, trouble: Deferred, schedule: Schedule, *, session_code: bool) -> None:
        self.epoch += 1
        self._failures += 1
        self._probe = None
        reply = trouble.reply
        code, status = (reply.code, reply.status) if reply else (0, "")
        jitter = random.random()  # noqa: S311  # no secret
        pause = schedule.set_aside(self._failures, jitter, trouble.retry_after).total_seconds()
        if broken_off(trouble):
            pause = min(pause, BROKEN_OFF_FIRST * BROKEN_OFF_GROWTH ** min(self._failures - 1, 200))
            if trouble.refusal is Refusal.THROTTLED and reply and speaks_of_connections(trouble.stage, reply):
                self._account.places.lower()
        elif trouble.refusal is Refusal.QUOTA:
            pause = self._account.pace.hold(trouble.stage, code, status)
        elif trouble.stage is Stage.AUTH:
            # A schedule for session codes would try a wrong password twice a minute, and lock the account.
            pause = max(pause, min(pause * 2 ** min(self._failures - 1, 10), AUTH_LONGEST))
        self._leave_alone(pause, trouble, session_code=session_code)

    def _leave_alone(self, pause: float, trouble: Deferred, *, session_code: bool = False) -> None:
        self._aside_until = self._loop.time() + pause
        self._aside_for = trouble
        reply = trouble.reply
        self._observer.observe(
            UpstreamSetAside(
                upstream=self._name,
                stage=trouble.stage,
                trouble=trouble.trouble,
                code=reply.code if reply else 0,
                status=reply.status if reply else "",
                text=_harmless(trouble, session_code=session_code),
                seconds=pause,
                refusal=trouble.refusal,
            )
        )
        self._fell(trouble)

    def remember(self) -> None:
        """After a start: an account whose quota was used up is still held."""
        held = self._account.pace.held
        if held is not None and self.up:
            self._failures = 1
            said = Reply(held.code, held.status, "")
            trouble = Deferred(held.stage, Trouble.PERMANENT, "", said, upstream_sick=True, refusal=Refusal.QUOTA)
            self._leave_alone(self._account.pace.held_for, trouble)


def _harmless(trouble: Deferred, *, session_code: bool) -> str:
    """What was said, unless it may quote the message; of a session code nothing that was said in its transaction."""
    if trouble.reply is None:
        return trouble.text
    of_a_code = session_code and trouble.stage not in BEFORE_A_TRANSACTION
    return "" if of_a_code or trouble.stage in _MAY_QUOTE else trouble.reply.text


def _asks_for_less(trouble: Deferred) -> bool:
    """At AUTH it is the login that is refused, and each try counts. A 421 breaks a transaction off, whatever its words:
    a message may bring them about."""
    if trouble.refusal is not Refusal.THROTTLED or trouble.reply is None:
        return False
    return trouble.stage is not Stage.AUTH and not broken_off(trouble)


def _speaks_of_upstream(trouble: Deferred) -> bool:
    return (
        trouble.stage in BEFORE_A_TRANSACTION
        or trouble.stage is Stage.HTTP  # an endpoint that calls itself unable, or gives no answer
        or trouble.refusal in OF_THE_ACCOUNT
        or broken_off(trouble)
    )


def broken_off(trouble: Deferred) -> bool:
    """A 421 or a drop within a transaction."""
    if trouble.stage in BEFORE_A_TRANSACTION or trouble.stage is Stage.HTTP:
        return False
    return trouble.trouble is Trouble.DROPPED or (trouble.reply is not None and trouble.reply.code == 421)


def _forget(messages: dict[str, Any]) -> None:
    while len(messages) > REMEMBERED:
        del messages[next(iter(messages))]


def _name_of(request: object) -> str:
    return request.queue_id if isinstance(request, DeliveryRequest) else ""
