"""From what events told, and from the situation, to what needs a person, worst first. Only `Known.noticed` changes.

The causes, and how long each lasts:

    upstream-aside:NAME          while it is set aside; a warning where each of its routes has another way that is up,
                                 and for an hour where it took mail before: until then nobody is needed
    auth-refused:NAME            the same, because it refused the login
    certificate-bad:NAME         the same, because its certificate is not accepted
    quota:NAME                   the same, because it said that its quota is used up
    throttled:NAME               ten minutes after it began to ask for less, until it has not for five
    store-failed                 until a commit succeeds again
    disk-low                     below twice `min_free`; an error below `min_free`, where mail is refused
    certificate-ends:WHAT:NAME   a listener's: 30 days before; an upstream's: 14 days; an error from 7 days on
    secret-ends:NAME:DAYS        30, 7 and 1 days before an OAuth2 client secret ends; an error from 1 day on
    login-certificate-ends:NAME:DAYS   the same, for a client certificate of ours
    token-refused:NAME           while no OAuth2 token is to be had, and the upstream is not set aside already
    pickup-refused:NAME          while something lies in its folder that could not be taken; a person removes it
    pickup-failed:NAME           while files cannot be taken from its folder
    session-codes-expired        an hour from the last that expired
    session-codes-waiting        while one is older than a minute
    reload-refused               until the next good reload
    entries-damaged              while there are any
    entries-in-doubt             while any is held that may have been delivered
    entries-held                 while any other is held
    queue-old:ROUTE              while mail is older than an hour, and none of its upstreams is a trouble already
    sender-refused:UPSTREAM      an hour from the last refusal, and until the next good reload at most
    exceptions                   a day from the last bug that was caught
    alarm-failed:WAY             a command or webhook that could not send an alarm: until it can, a day at most

Nothing here holds a subject, a body or a text about a session code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from relay.events import RecipientFailed, TokenRefused, UpstreamSetAside, UpstreamThrottled
from relay.mail.dsn_text import duration
from relay.mail.outcome import BEFORE_A_TRANSACTION, Refusal, Stage
from relay.mail.outcome import Trouble as Failure
from relay.mail.reply import sanitise
from relay.observe.provider_texts import certificate_remedy, connection_remedy, sender_remedy
from relay.observe.situation import Severity, Situation, Trouble
from relay.policy.decide import SESSION_CODES
from relay.texts.language import Texts
from relay.values import frozen

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LESS_IS_LONG, LESS_IS_OVER = timedelta(minutes=10), timedelta(minutes=5)
CODE_STUCK = timedelta(minutes=1)
CERTIFICATE_ENDS = {"listener": timedelta(days=30), "upstream": timedelta(days=14)}  # providers renew late
CERTIFICATE_URGENT = timedelta(days=7)
CREDENTIAL_STEPS = (1, 7, 30)  # days
TOKEN_LATE = timedelta(minutes=10)  # most that fails once works the next time
_OF_THIS_MACHINE = frozenset({"dns", "no-network"})
_OUTAGES = _OF_THIS_MACHINE | {"connection-refused", "connection-timeout", "port-and-tls", "upstream", "login-later"}
"""Remedies for what comes and goes by itself at an upstream that took mail."""
_STORE_REMEDIES = ("full", "busy", "corrupt", "moved")
_MIB, _GIB = 2**20, 2**30
_SAID = 300  # characters of what an upstream or a configuration check said

_Value = str | int | timedelta | datetime


@frozen
class Finding:
    """A trouble before it is put into words: `kind` names the sentence, `remedy` the advice, and `again` the sentence
    behind that: when an upstream is tried again.

    `about` names the upstreams that it is about; `blocked`: nothing leaves by them now. `way` is the way of alarms that
    it is about.
    """

    cause: str
    severity: Severity
    since: datetime
    kind: str
    remedy: str
    values: Mapping[str, _Value] = field(default_factory=dict)
    again: str = ""
    needs_a_person: bool = True
    about: tuple[str, ...] = ()
    blocked: bool = False
    way: str = ""

    def told(self, texts: Texts) -> Trouble:
        """It as a sentence, and what to do."""
        values = self._shown(texts)
        text, remedy = texts(f"trouble.{self.kind}", **values), texts(f"remedy.{self.remedy}", **values)
        if self.again:
            remedy += " " + texts(f"again.{self.again}", **values)
        return Trouble(self.cause, self.severity, self.since, text, remedy, self.needs_a_person)

    def title(self, texts: Texts) -> str:
        """It in a few words."""
        return texts(f"title.{self.kind}", **self._shown(texts))

    def _shown(self, texts: Texts) -> dict[str, str]:
        return {name: _in_words(value, texts) for name, value in self.values.items()}


@dataclass(slots=True)
class Aside:
    """An upstream through which nothing goes since `since`, and why; it is tried again at `until`."""

    since: datetime
    why: UpstreamSetAside
    until: datetime


@dataclass(slots=True)
class Throttled:
    """An upstream that asks for less: since when, when last, and how."""

    since: datetime
    last: datetime
    why: UpstreamThrottled


@dataclass(slots=True)
class Refused:
    """A refused sender: since when, when last, and how."""

    since: datetime
    last: datetime
    why: RecipientFailed


@dataclass(slots=True)
class Known:
    """What events reported and what is not over since; `recent` keeps it.

    `delivered_at`: when an upstream last took mail, in Unix time. `noticed`: when a cause was first found. `unsent`, by
    way of alarms: when it failed last, and why.
    """

    aside: dict[str, Aside] = field(default_factory=dict)
    throttled: dict[str, Throttled] = field(default_factory=dict)
    store: tuple[datetime, str, str] | None = None
    reload: tuple[datetime, str] | None = None
    expired_codes: deque[datetime] = field(default_factory=lambda: deque(maxlen=1000))
    refused: dict[str, Refused] = field(default_factory=dict)
    bugs: deque[tuple[datetime, str]] = field(default_factory=lambda: deque(maxlen=1000))
    tokens: dict[str, tuple[datetime, TokenRefused]] = field(default_factory=dict)
    delivered_at: dict[str, float] = field(default_factory=dict)
    noticed: dict[str, datetime] = field(default_factory=dict)
    unsent: dict[str, tuple[datetime, str]] = field(default_factory=dict)


def is_about_sender(event: RecipientFailed) -> bool:
    """Whether an upstream refused the sender, not the recipient or the content."""
    return event.refusal is Refusal.SENDER


def harmless_text(event: UpstreamSetAside | UpstreamThrottled) -> str:
    """What the upstream said, unless it was in a transaction: there it may quote a session code. Of an endpoint's
    answers there are only our own words."""
    return event.text if event.stage in BEFORE_A_TRANSACTION or event.stage is Stage.HTTP else ""


def find(known: Known, situation: Situation, now: datetime) -> tuple[Finding, ...]:
    """What needs a person now, errors first, then what began first."""
    found = [
        *_upstreams(known, situation, now),
        *_throttled(known, situation, now),
        *_store(known),
        *_disk(situation, known, now),
        *_certificates(situation, now),
        *_credentials(situation, now),
        *_tokens(known, situation, now),
        *_session_codes(known, situation, now),
        *_house(known, situation, now),
        *_folders(known, situation, now),
        *_queue(situation, now),
        *_senders(known, situation, now),
        *_alarms(known, now),
    ]
    there = {finding.cause for finding in found}
    for cause in known.noticed.keys() - there:
        del known.noticed[cause]
    return tuple(sorted(found, key=lambda finding: (finding.severity is not Severity.ERROR, finding.since)))


def _upstreams(known: Known, situation: Situation, now: datetime) -> Iterator[Finding]:
    for name, aside in known.aside.items():
        if situation.up.get(name, True):
            continue  # a reload took it away, or made it anew
        why = aside.why
        remedy = connection_remedy(why.stage, why.trouble, why.code, why.status, why.text)
        severity = Severity.ERROR
        values: dict[str, _Value] = {"name": name, "said": _reply(why.code, why.status, harmless_text(why))}
        if why.refusal is Refusal.QUOTA:
            kind = remedy = "quota"
            values["until"] = _clock(aside.until, aside.since)
            if _others_are_up(name, situation):
                severity = Severity.WARNING
        elif why.stage is Stage.AUTH and why.trouble is Failure.PERMANENT:
            kind = "auth-refused"
        elif why.stage is Stage.TLS and certificate_remedy(why.text):
            kind = "certificate-bad"
        else:
            kind = "upstream-aside"
            if _others_are_up(name, situation):
                severity = Severity.WARNING
        cause = f"{kind}:{name}"
        finding = Finding(cause, severity, aside.since, kind, remedy, values, about=(name,), blocked=True)
        if kind == "upstream-aside" and name in known.delivered_at and remedy in _OUTAGES:
            last = datetime.fromtimestamp(known.delivered_at[name], UTC)
            finding = _outage(finding, last, aside.until, trying=name in situation.trying, now=now)
        yield finding


def _outage(finding: Finding, last: datetime, until: datetime, *, trying: bool, now: datetime) -> Finding:
    """It took mail until `last`: the configuration is right, and most outages are over before long."""
    fresh = now - finding.since < HOUR
    waiting = "outage" if fresh else "outage-long"
    return replace(
        finding,
        severity=Severity.WARNING if fresh else finding.severity,
        remedy="outage-here" if finding.remedy in _OF_THIS_MACHINE else waiting,
        values={**finding.values, "last": _clock(last, now), "at": f"{until.astimezone():%H:%M:%S}"},
        again="now" if trying else "at" if until > now else "next",
        needs_a_person=not fresh,
    )


def _throttled(known: Known, situation: Situation, now: datetime) -> Iterator[Finding]:
    for name, throttled in known.throttled.items():
        if name in situation.up and now - throttled.last < LESS_IS_OVER and now - throttled.since >= LESS_IS_LONG:
            why = throttled.why
            values: dict[str, _Value] = {"name": name, "said": _reply(why.code, why.status, harmless_text(why))}
            cause = f"throttled:{name}"
            yield Finding(cause, Severity.WARNING, throttled.since, "throttled", "throttled", values, about=(name,))


def _others_are_up(name: str, situation: Situation) -> bool:
    routes = [ways for ways in situation.routes.values() if name in ways]
    return all(any(situation.up.get(other, False) for other in ways) for ways in routes)


def _store(known: Known) -> Iterator[Finding]:
    if known.store is not None:
        since, reason, text = known.store
        remedy = f"store-{reason}" if reason in _STORE_REMEDIES else "store"
        kind, said = "store-failed", text or reason
        if reason == "moved":
            kind, said = "store-moved", text.partition(": ")[0]  # what is to be done says the remedy
        yield Finding("store-failed", Severity.ERROR, since, kind, remedy, {"said": _said(said)})


def _disk(situation: Situation, known: Known, now: datetime) -> Iterator[Finding]:
    free, least = situation.disk_free, situation.min_free
    if free is not None and free < 2 * least:
        kind, severity = ("disk-full", Severity.ERROR) if free < least else ("disk-low", Severity.WARNING)
        values: dict[str, _Value] = {"free": _size(free), "least": _size(least)}
        yield Finding("disk-low", severity, known.noticed.setdefault("disk-low", now), kind, "disk", values)


def _certificates(situation: Situation, now: datetime) -> Iterator[Finding]:
    for what_and_name, end in situation.certificates.items():
        what, _, name = what_and_name.partition(":")
        early = CERTIFICATE_ENDS[what]
        if what == "upstream" and name not in situation.up:
            continue  # a reload took it away
        if end - now <= early:
            severity = Severity.ERROR if end - now <= CERTIFICATE_URGENT else Severity.WARNING
            kind = "certificate-ended" if end <= now else "certificate-ends"
            values: dict[str, _Value] = {"what": what, "name": name, "day": end}
            cause = f"certificate-ends:{what_and_name}"
            about = (name,) if what == "upstream" else ()
            yield Finding(cause, severity, end - early, kind, f"{what}-certificate", values, about=about)


def _credentials(situation: Situation, now: datetime) -> Iterator[Finding]:
    """What the relay logs in with: each step is a cause of its own, so that each is told once."""
    for what_and_name, end in situation.credentials.items():
        what, _, name = what_and_name.partition(":")
        step = next((days for days in CREDENTIAL_STEPS if end - now <= days * DAY), None)
        if step is None:
            continue
        severity = Severity.ERROR if step == CREDENTIAL_STEPS[0] else Severity.WARNING
        kind = "secret" if what == "secret" else "login-certificate"
        told = f"{kind}-ended" if end <= now else f"{kind}-ends"
        values: dict[str, _Value] = {"name": name, "day": end}
        cause = f"{kind}-ends:{name}:{step}"
        yield Finding(cause, severity, end - step * DAY, told, f"{kind}-end", values, about=(name,))


def _tokens(known: Known, situation: Situation, now: datetime) -> Iterator[Finding]:
    for name, (since, why) in known.tokens.items():
        if not situation.up.get(name, False):
            continue  # set aside, which says more; or a reload took it away
        if why.permanent or now - since >= TOKEN_LATE:
            remedy = connection_remedy(Stage.AUTH, Failure.TRANSIENT, 0, "", why.text)
            values: dict[str, _Value] = {"name": name, "said": _said(why.text)}
            cause = f"token-refused:{name}"
            yield Finding(cause, Severity.WARNING, since, "token-refused", remedy, values, about=(name,))


def _session_codes(known: Known, situation: Situation, now: datetime) -> Iterator[Finding]:
    ways = situation.routes.get(SESSION_CODES, ())
    expired = [at for at in known.expired_codes if now - at < HOUR]
    if expired:
        cause, values = "session-codes-expired", {"count": len(expired)}
        yield Finding(cause, Severity.ERROR, expired[0], cause, "codes-expired", values, about=ways)
    oldest = situation.oldest.get(SESSION_CODES)
    if oldest is not None and now - oldest > CODE_STUCK:
        cause = "session-codes-waiting"
        yield Finding(cause, Severity.ERROR, oldest, cause, "codes-waiting", {"age": now - oldest}, about=ways)


def _house(known: Known, situation: Situation, now: datetime) -> Iterator[Finding]:
    if known.reload is not None:
        since, said = known.reload
        cause = "reload-refused"
        yield Finding(cause, Severity.WARNING, since, cause, "reload", {"said": _said(said)})
    for cause, count, severity, remedy in (
        ("entries-damaged", situation.damaged, Severity.ERROR, "damaged"),
        ("entries-in-doubt", situation.in_doubt, Severity.WARNING, "in-doubt"),
        ("entries-held", situation.held, Severity.WARNING, "held"),
    ):
        if count:
            yield Finding(cause, severity, known.noticed.setdefault(cause, now), cause, remedy, {"count": count})
    bugs = [(at, where) for at, where in known.bugs if now - at < DAY]
    if bugs:
        values: dict[str, _Value] = {"count": len(bugs), "where": bugs[-1][1]}
        yield Finding("exceptions", Severity.WARNING, bugs[0][0], "exceptions", "report", values)


def _folders(known: Known, situation: Situation, now: datetime) -> Iterator[Finding]:
    found: list[tuple[str, str, dict[str, _Value]]] = [
        ("pickup-refused", name, {"name": name, "count": count}) for name, count in situation.lying.items() if count
    ]
    for name, problem in situation.folders.items():
        found.append(("pickup-failed", name, {"name": name, "said": _said(problem)}))
    for kind, name, values in found:
        cause = f"{kind}:{name}"
        yield Finding(cause, Severity.ERROR, known.noticed.setdefault(cause, now), kind, kind, values)


def _queue(situation: Situation, now: datetime) -> Iterator[Finding]:
    for name, oldest in situation.oldest.items():
        ways = situation.routes.get(name, ())
        told_already = any(not situation.up.get(way, True) for way in ways)
        if name != SESSION_CODES and now - oldest > HOUR and not told_already:
            values: dict[str, _Value] = {"name": name, "age": now - oldest}
            cause = f"queue-old:{name}"
            yield Finding(cause, Severity.WARNING, oldest + HOUR, "queue-old", "old", values, about=ways)


def _senders(known: Known, situation: Situation, now: datetime) -> Iterator[Finding]:
    for name, refused in known.refused.items():
        if now - refused.last < HOUR and name in situation.up:
            why = refused.why
            remedy = sender_remedy(why.code, why.status, why.text)
            until = _clock(refused.last + HOUR, now)
            values = {"name": name, "said": _reply(why.code, why.status, why.text), "until": until}
            cause = f"sender-refused:{name}"
            yield Finding(cause, Severity.ERROR, refused.since, "sender-refused", remedy, values, about=(name,))


def _alarms(known: Known, now: datetime) -> Iterator[Finding]:
    for way, (at, said) in known.unsent.items():
        if now - at < DAY:
            values: dict[str, _Value] = {"name": way, "said": _said(said)}
            cause = f"alarm-failed:{way}"
            since = known.noticed.setdefault(cause, at)
            yield Finding(cause, Severity.WARNING, since, "alarm-failed", "alarm-failed", values, way=way)


# Words


def _reply(code: int, status: str, text: str) -> str:
    return _said(" ".join(part for part in (str(code or ""), status, text) if part))


def _size(octets: int) -> str:
    return f"{octets / _GIB:.0f} GiB" if octets >= 10 * _GIB else f"{octets // _MIB} MiB"


def _clock(at: datetime, since: datetime) -> str:
    """When, on the clock of this machine; with the day where it is another one."""
    at, since = at.astimezone(), since.astimezone()
    return f"{at:%H:%M}" if at.date() == since.date() else f"{at:%d-%m %H:%M}"


def _said(text: str) -> str:
    """What somebody said, as it may stand before the full stop of a sentence."""
    return sanitise(text, _SAID).rstrip(" .") or "?"


def _in_words(value: _Value, texts: Texts) -> str:
    match value:
        case timedelta():
            return duration(value, texts)
        case datetime():
            return f"{value:%Y-%m-%d}"
        case _:
            return str(value)
