"""Alarms: when something needs a person, an event says so, and the worst is mailed to `bounces.also`.

An alarm is raised when a trouble is found and cleared when it is gone; an upstream set aside is given an hour
first, since most come back by themselves. Mailed is, at most once a day for each cause (a warning: once a week):

    an upstream set aside for an hour, for its certificate or its quota as well; AUTH refused; a certificate near its
    end; a client secret or certificate of ours 30, 7 and 1 days before its end (once each); the disk low; session codes
    expired; mail in the queue that cannot be read; files of a pickup folder that could not be taken, and a folder from
    which none could for an hour

An alarm mail goes as every notification does: by the route "default", with a null reverse-path, and it never
bounces. Where the store cannot keep it, it is tried again at the next look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from relay.delivery.own import own_entry
from relay.delivery.rounds import rounds
from relay.errors import StoreUnavailable
from relay.events import AlarmCleared, AlarmRaised, NotificationQueued, Observer
from relay.mail import notice
from relay.observe.needs_a_person import Finding
from relay.observe.situation import Severity
from relay.policy.decide import DEFAULT, Policy
from relay.queue.model import Entry
from relay.queue.store import QueueStore
from relay.texts.language import BOTH, Texts

EVERY = 30.0  # seconds between two looks
TOPIC = "alarm"
PAUSES = {Severity.ERROR: timedelta(days=1), Severity.WARNING: timedelta(days=7)}  # between two mails about one cause
_AT_ONCE, _HOUR = timedelta(), timedelta(hours=1)
RAISED_AFTER = {"upstream-aside": _HOUR}
MAILED_AFTER = {
    "upstream-aside": _HOUR,
    "certificate-bad": _HOUR,
    "quota": _HOUR,
    "auth-refused": _AT_ONCE,
    "certificate-ends": _AT_ONCE,
    "secret-ends": _AT_ONCE,
    "login-certificate-ends": _AT_ONCE,
    "disk-low": _AT_ONCE,
    "session-codes-expired": _AT_ONCE,
    "entries-damaged": _AT_ONCE,
    "pickup-refused": _AT_ONCE,
    "pickup-failed": _HOUR,
}
"""By the first word of a cause; what is not named is not mailed."""
_ONCE = timedelta(days=25)  # longer than a step of these lasts, shorter than any secret does
_IN_STEPS = frozenset({"secret-ends", "login-certificate-ends"})


class Alarms:
    """`findings` tells what needs a person now (it may raise StoreUnavailable); `language` is that of the log.

    `ring` tells the worker of a route that mail waits in the store.
    """

    def __init__(
        self,
        *,
        findings: Callable[[], Awaitable[Sequence[Finding]]],
        store: QueueStore,
        policy: Callable[[], Policy],
        language: Callable[[], str],
        observer: Observer,
        now: Callable[[], datetime],
        new_queue_id: Callable[[], str],
        ring: Callable[[str], None],
    ) -> None:
        self._findings = findings
        self._store = store
        self._policy = policy
        self._language = language
        self._observer = observer
        self._now = now
        self._new_queue_id = new_queue_id
        self._ring = ring
        self._raised: set[str] = set()
        self._mailed: dict[str, datetime] = {}  # by cause; what the store knows of it, once it was asked or told
        self._unwritten: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Look every 30 seconds until `stop`."""
        await rounds(self.look, stop, EVERY)

    async def look(self) -> None:
        """Raise and clear what changed, and mail what is due."""
        # The store has told everybody what it lacks: at the next look it is asked again.
        with suppress(StoreUnavailable):
            findings = await self._findings()
            self._tell(findings)
            await self._write_down()
            for finding in findings:
                if await self._is_due(finding):
                    await self._mail(finding)

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

    async def _is_due(self, finding: Finding) -> bool:
        now, cause = self._now(), finding.cause
        after = MAILED_AFTER.get(_kind(finding))
        if after is None or now - finding.since < after or not self._policy().bounces_also:
            return False
        last = self._mailed.get(cause)
        if last is None:
            last = await self._store.recall(TOPIC, cause)
            if last is None:
                return True
            self._mailed[cause] = last
        # A moment far ahead comes from a clock that was wrong, and must not silence the alarm.
        in_steps = _kind(finding) in _IN_STEPS and finding.severity is Severity.WARNING
        return abs(now - last) >= (_ONCE if in_steps else PAUSES[finding.severity])

    async def _mail(self, finding: Finding) -> None:
        policy, now = self._policy(), self._now()
        entry = _entry(finding, policy, self._new_queue_id(), now)
        await self._store.put(entry, leased=False)
        self._mailed[finding.cause] = now
        self._unwritten.add(finding.cause)
        readers = ", ".join(map(str, policy.bounces_also))
        self._observer.observe(NotificationQueued(entry.queue_id, "", "alarm", readers))
        self._ring(entry.route)
        await self._write_down()

    async def _write_down(self) -> None:
        """Have the store remember what was mailed; what it does not take now waits here."""
        while self._unwritten:
            cause = next(iter(self._unwritten))
            await self._store.remember(TOPIC, cause, self._mailed[cause])
            self._unwritten.discard(cause)


def _kind(finding: Finding) -> str:
    return finding.cause.partition(":")[0]


def _entry(finding: Finding, policy: Policy, queue_id: str, now: datetime) -> Entry:
    """The alarm mail, as a new entry."""
    readers, author, route = policy.bounces_also, policy.bounces_from, policy.routes[DEFAULT]
    both = [policy.languages(each) for each in BOTH]
    data = notice.build(
        f"[relay {policy.hostname}] {' / '.join([finding.title(texts) for texts in both])}",
        "\n----\n\n".join([_text(finding, policy.hostname, texts) for texts in both]),
        queue_id=queue_id,
        hostname=policy.hostname,
        author=author,
        readers=readers,
        now=now,
    )
    return own_entry(data, readers, author=author, queue_id=queue_id, route=route, because="alarm", now=now)


def _text(finding: Finding, hostname: str, texts: Texts) -> str:
    trouble = finding.told(texts)
    since = f"{finding.since.astimezone():%d-%m-%Y %H:%M:%S %z}"
    return texts("alarm.text", hostname=hostname, since=since, text=trouble.text, remedy=trouble.remedy)
