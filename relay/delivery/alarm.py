"""Alarms: when something needs a person, an event says so, and somebody is informed by every way that is configured.

An alarm is raised when a trouble is found and cleared when it is gone; an upstream set aside is given an hour
first, since most come back by themselves. An error is sent at once and then once a day, a warning once a week, for each
cause and by each way; what often ends by itself is sent once it has lasted (`SENT_AFTER`). A client secret or
certificate of ours is told 30, 7 and 1 days before its end, once each.

The ways do not wait for each other, and no look waits longer than `EVERY` for them. A way that fails is tried again
with growing pauses. The store remembers over restarts what was sent; where it cannot, the alarm is sent all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from traceback import format_exception

from relay.admin.snapshot import WayTried
from relay.delivery.alarm_way import Alarm, AlarmWay, NotSent
from relay.delivery.rounds import rounds
from relay.errors import StoreUnavailable
from relay.events import AlarmCleared, AlarmNotSent, AlarmRaised, AlarmSent, ExceptionCaught, Observer
from relay.observe.needs_a_person import Finding
from relay.observe.situation import Severity
from relay.policy.decide import Policy
from relay.queue.store import QueueStore
from relay.texts.language import BOTH, Texts

EVERY = 30.0  # seconds between two looks
TOPIC = "alarm"
PAUSES = {Severity.ERROR: timedelta(days=1), Severity.WARNING: timedelta(days=7)}  # between two alarms about one cause
AGAIN = timedelta(minutes=1)  # until the next try of a way that failed; doubled each time
MOST_AGAIN = timedelta(hours=1)
_AT_ONCE, _HOUR = timedelta(), timedelta(hours=1)
RAISED_AFTER = {"upstream-aside": _HOUR}
SENT_AFTER = {
    "upstream-aside": _HOUR,
    "certificate-bad": _HOUR,
    "quota": _HOUR,
    "sender-refused": _HOUR,
    "pickup-failed": _HOUR,
    "entries-held": timedelta(days=1),
}
"""By the first word of a cause; what is not named is sent at once."""
FOUND_FOR = {"queue-old": timedelta(minutes=10)}
"""How long it must have been found: behind an outage old mail is there for a moment, and leaves."""
_ONCE = timedelta(days=25)  # longer than a step of these lasts, shorter than any secret does
_IN_STEPS = frozenset({"secret-ends", "login-certificate-ends"})


@dataclass(slots=True)
class _Failing:
    """A way that did not work for a cause: when it is tried again, and what it said last."""

    at: datetime
    pause: timedelta
    text: str


_Key = tuple[str, str]  # a cause, and a way


class Alarms:
    """`findings` gives what needs a person now; `ways` are those of the present configuration, `language` is that of
    the log."""

    def __init__(
        self,
        *,
        findings: Callable[[], Awaitable[Sequence[Finding]]],
        ways: Callable[[], Sequence[AlarmWay]],
        store: QueueStore,
        policy: Callable[[], Policy],
        language: Callable[[], str],
        observer: Observer,
        now: Callable[[], datetime],
    ) -> None:
        self._findings = findings
        self._ways = ways
        self._store = store
        self._policy = policy
        self._language = language
        self._observer = observer
        self._now = now
        self._raised: set[str] = set()
        self._found: dict[str, datetime] = {}  # by cause: since when it is found
        self._sent: dict[_Key, datetime] = {}  # what the store knows of it, once it was asked or told
        self._unwritten: set[_Key] = set()
        self._failing: dict[_Key, _Failing] = {}
        self._at_work: dict[str, asyncio.Task[None]] = {}  # by way

    async def run(self, stop: asyncio.Event) -> None:
        """Look every 30 seconds until `stop`; what is under way then is broken off."""
        try:
            await rounds(self.look, stop, EVERY)
        finally:
            for task in self._at_work.values():
                task.cancel()

    async def look(self) -> None:
        """Raise and clear what changed, and send what is due."""
        findings = await self._findings()
        self._tell(findings)
        with suppress(StoreUnavailable):
            await self._write_down()
        now = self._now()
        self._found = {finding.cause: self._found.get(finding.cause, now) for finding in findings}
        self._failing = {key: failing for key, failing in self._failing.items() if key[0] in self._found}
        for way in self._ways():
            task = self._at_work.get(way.name)
            if task is None or task.done():
                self._at_work[way.name] = asyncio.create_task(self._send_all(findings, way))
        if self._at_work:
            await asyncio.wait(self._at_work.values(), timeout=EVERY)

    async def trial(self) -> list[WayTried]:
        """Send a test by every way, with all of its parts, and report each."""
        finding = Finding("test", Severity.WARNING, self._now(), "test", "test")
        alarm, found = self._alarm(finding), []
        for part in [part for way in self._ways() for part in way.parts()]:
            text, failed = await self._attempt(alarm, part)
            found.append(WayTried(part.name, not failed, text))
        return found

    def _tell(self, findings: Sequence[Finding]) -> None:
        now = self._now()
        there: set[str] = set()
        for finding in findings:
            if now - finding.since >= RAISED_AFTER.get(_kind(finding), _AT_ONCE):
                there.add(finding.cause)
                if finding.cause not in self._raised:
                    told = finding.told(self._policy().languages(self._language()))
                    self._observer.observe(AlarmRaised(finding.cause, finding.severity, f"{told.text} {told.remedy}"))
        for cause in sorted(self._raised - there):
            self._observer.observe(AlarmCleared(cause))
        self._raised = there

    # One way

    async def _send_all(self, findings: Sequence[Finding], way: AlarmWay) -> None:
        """Send what is due by `way`, one after the other."""
        for finding in findings:
            if not await self._is_due(finding, way.name):
                continue
            key = (finding.cause, way.name)
            before = self._failing.get(key)
            text, failed = await self._attempt(self._alarm(finding), way, before)
            if failed:
                pause = AGAIN if before is None else min(2 * before.pause, MOST_AGAIN)
                self._failing[key] = _Failing(self._now() + pause, pause, text)
                continue
            self._failing.pop(key, None)
            self._sent[key] = self._now()
            self._unwritten.add(key)
            with suppress(StoreUnavailable):  # it is written down at a later look
                await self._write_down()

    async def _is_due(self, finding: Finding, way: str) -> bool:
        now, key, kind = self._now(), (finding.cause, way), _kind(finding)
        lasted, found = now - finding.since, now - self._found.get(finding.cause, now)
        if lasted < SENT_AFTER.get(kind, _AT_ONCE) or found < FOUND_FOR.get(kind, _AT_ONCE) or finding.way == way:
            return False
        failing = self._failing.get(key)
        if failing is not None and now < failing.at:
            return False
        last = self._sent.get(key)
        if last is None:
            with suppress(StoreUnavailable):  # better twice than not at all
                last = await self._store.recall(TOPIC, _written(key))
            if last is None:
                return True
            self._sent[key] = last
        # A moment far ahead comes from a clock that was wrong, and must not silence the alarm.
        in_steps = kind in _IN_STEPS and finding.severity is Severity.WARNING
        return abs(now - last) >= (_ONCE if in_steps else PAUSES[finding.severity])

    async def _attempt(self, alarm: Alarm, way: AlarmWay, before: _Failing | None = None) -> tuple[str, bool]:
        """Send it: who got it, or why nobody did, and whether that failed. The same failure is told once."""
        try:
            text = await way.send(alarm)
        except NotSent as error:
            text = str(error)
        except Exception as error:  # noqa: BLE001  # bulkhead: a bug keeps neither other ways nor mail waiting
            self._observer.observe(ExceptionCaught("other", type(error).__name__, "".join(format_exception(error))))
            text = "an error of the relay, which the log has"
        else:
            self._observer.observe(AlarmSent(alarm.cause, way.name, text))
            return text, False
        if before is None or before.text != text:
            self._observer.observe(AlarmNotSent(alarm.cause, way.name, text))
        return text, True

    async def _write_down(self) -> None:
        """Have the store remember what was sent; what it does not take now waits here."""
        while self._unwritten:
            key = next(iter(self._unwritten))
            await self._store.remember(TOPIC, _written(key), self._sent[key])
            self._unwritten.discard(key)

    # Words

    def _alarm(self, finding: Finding) -> Alarm:
        policy = self._policy()
        hostname, both = policy.hostname, [policy.languages(each) for each in BOTH]
        texts = policy.languages(self._language())
        return Alarm(
            cause=finding.cause,
            severity=finding.severity,
            since=finding.since,
            hostname=hostname,
            title=f"[relay {hostname}] {finding.title(texts)}",
            text=_text(finding, hostname, texts),
            subject=f"[relay {hostname}] {' / '.join([finding.title(each) for each in both])}",
            letter="\n----\n\n".join([_text(finding, hostname, each) for each in both]),
            about=finding.about,
            blocked=finding.blocked,
        )


def _text(finding: Finding, hostname: str, texts: Texts) -> str:
    trouble = finding.told(texts)
    since = f"{finding.since.astimezone():%d-%m-%Y %H:%M:%S %z}"
    return texts("alarm.text", hostname=hostname, since=since, text=trouble.text, remedy=trouble.remedy)


def _written(key: _Key) -> str:
    """A cause and a way, as the store has them."""
    cause, way = key
    return f"{way} {cause}"


def _kind(finding: Finding) -> str:
    return finding.cause.partition(":")[0]
