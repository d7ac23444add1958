"""What happened of late, in memory: the last errors and warnings, what upstreams said last, a few counts, troubles.

An observer on the way of every message: one look-up for an event that says nothing here, an assignment or two for
the others. Words are made when somebody asks. All of it is bounded: by a number, or by the names of the
configuration.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from relay import events
from relay.observe.fan_out import Taking
from relay.observe.log_lines import details
from relay.observe.needs_a_person import (
    HOUR,
    LESS_IS_OVER,
    Aside,
    Finding,
    Known,
    Refused,
    Throttled,
    find,
    harmless_text,
    is_about_sender,
)
from relay.observe.situation import Answer, Noted, Situation, Trouble
from relay.observe.table import ROWS, Level
from relay.texts.language import texts_in

MOST_NOTED = 50
"""Errors and warnings that are kept: half of the places are for errors, so that warnings do not crowd them out."""

_Ended = events.RecipientDelivered | events.RecipientDeferred | events.RecipientFailed


@dataclass(slots=True)
class CodeCounts:
    """Recipients of session codes since the start, by their end."""

    delivered: int = 0
    failed: int = 0
    expired: int = 0


class Recent(Taking):
    """An observer that remembers. `language` is that of the troubles: en or nl."""

    def __init__(self, *, language: str, now: Callable[[], float] = time.time) -> None:
        self.language = language
        self.session_codes = CodeCounts()
        self._now = now
        self._errors: deque[tuple[float, events.Event]] = deque(maxlen=MOST_NOTED // 2)
        self._warnings: deque[tuple[float, events.Event]] = deque(maxlen=MOST_NOTED // 2)
        self._accepted: dict[str, int] = {}
        self._said: dict[str, tuple[float, events.Event]] = {}
        self._ends: dict[str, datetime] = {}
        self._known = Known()
        self.takes = self._takers()

    def _takers(self) -> dict[type[events.Event], tuple[Callable[[Any], None], ...]]:
        """Who takes events of which class; what the log calls an error or a warning is noted besides."""
        own: dict[type[events.Event], Callable[[Any], None]] = {
            events.ConnectionAccepted: self._connection_accepted,
            events.RecipientDelivered: self._recipient_delivered,
            events.RecipientDeferred: self._upstream_said,
            events.RecipientFailed: self._recipient_failed,
            events.RecipientExpired: self._recipient_expired,
            events.UpstreamConnected: self._upstream_connected,
            events.UpstreamSetAside: self._upstream_set_aside,
            events.UpstreamThrottled: self._upstream_throttled,
            events.UpstreamRestored: self._upstream_restored,
            events.TokenFetched: self._token_fetched,
            events.TokenRefused: self._token_refused,
            events.StoreFailed: self._store_failed,
            events.StoreRecovered: self._store_recovered,
            events.ConfigReloaded: self._config_reloaded,
            events.ReloadRefused: self._reload_refused,
            events.ExceptionCaught: self._exception_caught,
            events.AlarmSent: self._alarm_sent,
            events.AlarmNotSent: self._alarm_not_sent,
        }
        takers = {}
        for kind, row in ROWS.items():
            noting = (self._note,) if row.remembered else ()
            if taken := (*noting, *([own[kind]] if kind in own else ())):
                takers[kind] = taken
        return takers

    def configure(self, *, language: str, moved: Iterable[str] = ()) -> None:
        """After a reload: use another language; `moved` are upstreams that are somewhere else now, or gone."""
        self.language = language
        for name in moved:
            self._known.delivered_at.pop(name, None)

    # What is asked

    def noted(self) -> tuple[Noted, ...]:
        """The last errors and warnings of the log, the latest first."""
        latest = sorted((*self._errors, *self._warnings), key=lambda one: one[0], reverse=True)
        return tuple(
            Noted(_moment(at), ROWS[type(event)].level_of(event).word, ROWS[type(event)].word, details(event))
            for at, event in latest
        )

    def answer(self, upstream: str) -> Answer | None:
        """What `upstream` said last; None when it was not asked since the start."""
        if upstream not in self._said:
            return None
        at, event = self._said[upstream]
        match event:
            case events.RecipientDelivered():
                return Answer(_moment(at), True, "", event.code, event.status, event.text)
            case events.RecipientDeferred() | events.RecipientFailed():
                return Answer(_moment(at), False, event.stage or "", event.code, event.status, event.text)
            case events.UpstreamSetAside():
                return Answer(_moment(at), False, event.stage, event.code, event.status, harmless_text(event))
            case _:
                return Answer(_moment(at), True)

    @property
    def accepted(self) -> Mapping[str, int]:
        """Connections since the start, by listener; who is missing had none."""
        return self._accepted

    @property
    def certificates(self) -> dict[str, datetime]:
        """The ends of the upstreams' certificates as last seen, by "upstream:NAME"."""
        return {f"upstream:{name}": end for name, end in self._ends.items()}

    def findings(self, situation: Situation, now: datetime) -> tuple[Finding, ...]:
        """What needs a person, worst first, not yet in words."""
        return find(self._known, situation, now)

    def troubles(self, situation: Situation, now: datetime) -> tuple[Trouble, ...]:
        """What needs a person, worst first."""
        texts = texts_in(self.language)
        return tuple(finding.told(texts) for finding in self.findings(situation, now))

    # What is told

    def _note(self, event: events.Event) -> None:
        level = ROWS[type(event)].level_of(event)
        if level is Level.ERROR:
            self._errors.append((self._now(), event))
        elif level is Level.WARNING:
            if type(event) is events.Warned:  # about the file, at each reload: once, and as the latest
                kept = [noted for noted in self._warnings if noted[1] != event]
                self._warnings = deque(kept, maxlen=MOST_NOTED // 2)
            self._warnings.append((self._now(), event))

    def _connection_accepted(self, event: events.ConnectionAccepted) -> None:
        self._accepted[event.listener] = self._accepted.get(event.listener, 0) + 1

    def _recipient_delivered(self, event: events.RecipientDelivered) -> None:
        now = self._now()
        self._said[event.upstream] = (now, event)
        self._known.delivered_at[event.upstream] = now
        if event.session_code:
            self.session_codes.delivered += 1

    def _upstream_said(self, event: _Ended | events.UpstreamConnected | events.UpstreamSetAside) -> None:
        if event.upstream:  # a recipient may be deferred without anybody having been asked
            self._said[event.upstream] = (self._now(), event)

    def _recipient_failed(self, event: events.RecipientFailed) -> None:
        self._upstream_said(event)
        if event.session_code:
            self.session_codes.failed += 1
        if is_about_sender(event):
            now = _moment(self._now())
            before = self._known.refused.get(event.upstream)
            lasting = before is not None and now - before.last < HOUR
            since = before.since if before is not None and lasting else now
            self._known.refused[event.upstream] = Refused(since, now, event)

    def _recipient_expired(self, event: events.RecipientExpired) -> None:
        if event.session_code:
            self.session_codes.expired += 1
            self._known.expired_codes.append(_moment(self._now()))

    def _upstream_connected(self, event: events.UpstreamConnected) -> None:
        self._upstream_said(event)
        if event.certificate_expires is not None:
            self._ends[event.upstream] = event.certificate_expires

    def _upstream_set_aside(self, event: events.UpstreamSetAside) -> None:
        self._upstream_said(event)
        now = self._now()
        until = _moment(now + event.seconds)
        before = self._known.aside.get(event.upstream)
        # A reload makes an upstream anew without a word: what counts is whether anything got through since.
        if before is not None and self._known.delivered_at.get(event.upstream, 0.0) <= before.since.timestamp():
            before.why, before.until = event, until
        else:
            self._known.aside[event.upstream] = Aside(_moment(now), event, until)

    def _upstream_throttled(self, event: events.UpstreamThrottled) -> None:
        now = _moment(self._now())
        before = self._known.throttled.get(event.upstream)
        since = before.since if before is not None and now - before.last < LESS_IS_OVER else now
        self._known.throttled[event.upstream] = Throttled(since, now, event)

    def _upstream_restored(self, event: events.UpstreamRestored) -> None:
        self._known.aside.pop(event.upstream, None)

    def _token_fetched(self, event: events.TokenFetched) -> None:
        self._known.tokens.pop(event.upstream, None)

    def _token_refused(self, event: events.TokenRefused) -> None:
        before = self._known.tokens.get(event.upstream)
        self._known.tokens[event.upstream] = (before[0] if before else _moment(self._now()), event)

    def _store_failed(self, event: events.StoreFailed) -> None:
        since = self._known.store[0] if self._known.store is not None else _moment(self._now())
        self._known.store = (since, event.reason, event.text)

    def _store_recovered(self, _: events.StoreRecovered) -> None:
        self._known.store = None

    def _config_reloaded(self, _: events.ConfigReloaded) -> None:
        self._known.reload = None
        self._known.unsent.clear()  # they may be others now
        self._known.refused.clear()  # the rule may be right now; if it is not, the next refusal says so

    def _reload_refused(self, event: events.ReloadRefused) -> None:
        more = f" (and {len(event.problems) - 1} more)" if len(event.problems) > 1 else ""
        self._known.reload = (_moment(self._now()), "".join(event.problems[:1]) + more)

    def _exception_caught(self, event: events.ExceptionCaught) -> None:
        self._known.bugs.append((_moment(self._now()), event.component))

    def _alarm_sent(self, event: events.AlarmSent) -> None:
        self._known.unsent.pop(event.way, None)

    def _alarm_not_sent(self, event: events.AlarmNotSent) -> None:
        if event.way != "mail":  # whose upstreams are troubles of their own
            self._known.unsent[event.way] = (_moment(self._now()), event.text)


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
