"""What is counted: the counters and histograms, and which events feed them.

Names, labels and their values are a contract with dashboards and alerts. All label values come from
closed sets (see `observe.counting`); a queue ID or an address is never a label.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay import events
from relay.mail.outcome import Refusal, Stage, Trouble
from relay.mail.quirk import Quirk
from relay.observe.counting import OTHER, Counter, Histograms

MOST_RULES = 64
"""Rules with series of their own; the rest count as "other"."""

REPLY_VERBS = (
    *("HELO", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "AUTH", "STARTTLS"),
    OTHER,
)
REPLY_CLASSES = (2, 3, 4, 5)

_CONNECTIONS = ("accepted", "denied_limit", "denied_address", "tls_error", "not_smtp")
_MESSAGES = (
    "accepted", "rejected_policy", "rejected_size", "rejected_syntax", "store_failed", "limited", "aborted",
)  # fmt: skip
_MECHANISMS = ("plain", "login", "cram-md5", OTHER)
_STORE_ERRORS = ("full", "io", "busy", "corrupt", "moved", OTHER)
_COMPONENTS = ("session", "accept", "attempt", "observer", "web", "daemon", "queue", OTHER)
_OUTCOMES = ("delivered", "deferred", "failed", "in_doubt")

_SIZES = tuple(1024 * 4**n for n in range(9))
_ACCEPT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 10)
_COMMIT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_ATTEMPT = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 600)
_DELAY = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 14400, 86400)
_LAG = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names of the configuration that become label values."""

    listeners: Sequence[str] = ()
    upstreams: Sequence[str] = ()
    routes: Sequence[str] = ()
    rules: Sequence[str] = ()
    oauth2: Sequence[str] = ()
    """The upstreams that log in with a token."""


class Tally:
    """An observer that counts.

    `replies` is counted by whoever replies at the door: (verb, first digit) → how many. Its keys are
    all pairs of `REPLY_VERBS` and `REPLY_CLASSES` and no others; it stays the same object.
    """

    def __init__(self, names: Names, *, now: Callable[[], float] = time.time) -> None:
        self.replies = {(verb, digit): 0 for verb in REPLY_VERBS for digit in REPLY_CLASSES}
        self._now = now
        self._reloaded_at = now()
        self._certificates: dict[str, float] = {}
        self._connections = Counter(
            "relay_smtpd_connections_total", "Connections of clients.", listener=(), result=_CONNECTIONS
        )
        self._messages = Counter(
            "relay_smtpd_messages_total", "Content transactions of clients.", listener=(), result=_MESSAGES
        )
        self._auth = Counter(
            "relay_smtpd_auth_total", "AUTH at the door.", mechanism=_MECHANISMS, result=("ok", "bad", "error")
        )
        self._quirks = Counter(
            "relay_client_quirks_total",
            "Deviations of clients that were tolerated.",
            listener=(),
            quirk=tuple(Quirk),
        )
        self._rewrites = Counter(
            "relay_rewrites_total", "What sender rules did.", rule=(), result=("rewritten", "unchanged", "repaired")
        )
        self._routed = Counter("relay_messages_routed_total", "Messages by the route decided at the door.", route=())
        self._outcomes = Counter(
            "relay_outcomes_total", "Outcomes, per recipient and attempt.", upstream=(), outcome=_OUTCOMES
        )
        self._failures = Counter(
            "relay_attempt_failures_total",
            "Where and how attempts went wrong.",
            upstream=(),
            stage=tuple(Stage),
            **{"class": tuple(Trouble)},
        )
        self._refusals = Counter(
            "relay_refusals_total",
            "What upstreams refused, by what they spoke of.",
            upstream=(),
            **{"class": tuple(Refusal)},
        )
        self._hedges = Counter(
            "relay_hedges_total", "Session codes for which another way was begun beside this slow one.", upstream=()
        )
        self._expired = Counter("relay_expired_total", "Recipients whose lifetime ran out.", route=())
        self._notifications = Counter(
            "relay_notifications_total",
            "Messages of our own, by kind.",
            kind=("failure", "delay", "relayed", "alarm", "suppressed"),
        )
        self._tokens = Counter(
            "relay_oauth_refresh_total", "OAuth2 tokens asked for.", upstream=(), result=("ok", "error")
        )
        self._loops = Counter("relay_loops_detected_total", "Messages that came round again.")
        self._store_errors = Counter("relay_queue_errors_total", "Errors of the store.", reason=_STORE_ERRORS)
        self._reloads = Counter("relay_config_reloads_total", "Reloads of the configuration.", result=("ok", "error"))
        self._exceptions = Counter("relay_unhandled_exceptions_total", "Bugs caught.", component=_COMPONENTS)

        self._sizes = Histograms("relay_smtpd_message_size_bytes", "Sizes of accepted messages.", _SIZES)
        self._accept = Histograms("relay_smtpd_accept_seconds", "From the final dot to the reply.", _ACCEPT)
        self._commits = Histograms("relay_queue_commit_seconds", "Duration of group commits.", _COMMIT)
        self._batches = Histograms("relay_queue_commit_batch_size", "Operations in a group commit.", _BATCH)
        self._attempts = Histograms("relay_attempt_seconds", "Duration of attempts.", _ATTEMPT, "upstream", ())
        self._delays = Histograms(
            "relay_delivery_delay_seconds", "From acceptance to delivery, per recipient.", _DELAY, "route", ()
        )
        self._lag = Histograms("relay_event_loop_lag_seconds", "How late a timer of 100 ms is.", _LAG)

        self.counters = (
            self._connections, self._messages, self._auth, self._quirks, self._rewrites, self._routed,
            self._outcomes, self._failures, self._refusals, self._hedges, self._expired, self._notifications,
            self._loops, self._store_errors, self._reloads, self._exceptions, self._tokens,
        )  # fmt: skip
        self.histograms = (
            self._sizes, self._accept, self._commits, self._batches, self._attempts, self._delays, self._lag,
        )  # fmt: skip
        self.takes: dict[type[events.Event], Callable[[Any], None]] = {
            events.ConnectionAccepted: self._connection_accepted,
            events.ConnectionDenied: self._connection_denied,
            events.AuthenticationJudged: self._authentication_judged,
            events.QuirksTolerated: self._quirks_tolerated,
            events.MessageQueued: self._message_queued,
            events.MessageRefused: self._message_refused,
            events.LoopDetected: self._loop_detected,
            events.SenderDecided: self._sender_decided,
            events.AttemptEnded: self._attempt_ended,
            events.UpstreamRefused: self._upstream_refused,
            events.HedgeBegun: self._hedge_begun,
            events.RecipientDelivered: self._recipient_delivered,
            events.RecipientDeferred: self._recipient_deferred,
            events.RecipientFailed: self._recipient_failed,
            events.RecipientExpired: self._recipient_expired,
            events.NotificationQueued: self._notification_queued,
            events.NotificationSuppressed: self._notification_suppressed,
            events.AlarmSent: self._alarm_sent,
            events.UpstreamConnected: self._upstream_connected,
            events.TokenFetched: self._token_fetched,
            events.TokenRefused: self._token_refused,
            events.BatchCommitted: self._batch_committed,
            events.StoreFailed: self._store_failed,
            events.ConfigReloaded: self._config_reloaded,
            events.ReloadRefused: self._reload_refused,
            events.ExceptionCaught: self._exception_caught,
        }
        self.names = names
        self.configure(names)

    def configure(self, names: Names) -> None:
        """Use other names, after a reload; what is counted under names that stay goes on."""
        self.names = names
        for listener in (self._connections, self._messages, self._quirks):
            listener.configure(listener=names.listeners)
        for upstream in (self._outcomes, self._failures, self._refusals, self._hedges):
            upstream.configure(upstream=names.upstreams)
        self._tokens.configure(upstream=names.oauth2)
        for route in (self._routed, self._expired):
            route.configure(route=names.routes)
        self._rewrites.configure(rule=(*names.rules[:MOST_RULES], OTHER))
        self._attempts.configure(names.upstreams)
        self._delays.configure(names.routes)
        self._certificates = {name: at for name, at in self._certificates.items() if name in names.upstreams}

    def observe(self, event: events.Event) -> None:
        count = self.takes.get(type(event))
        if count is not None:
            count(event)

    def observe_lag(self, seconds: float) -> None:
        """The event loop was `seconds` late (see `observe.lag`)."""
        self._lag.observe(seconds)

    # The door

    def _connection_accepted(self, event: events.ConnectionAccepted) -> None:
        self._connections.add(event.listener, "accepted")

    def _connection_denied(self, event: events.ConnectionDenied) -> None:
        self._connections.add(event.listener, event.reason)

    def _authentication_judged(self, event: events.AuthenticationJudged) -> None:
        self._auth.add(event.mechanism.lower(), event.result)

    def _quirks_tolerated(self, event: events.QuirksTolerated) -> None:
        for quirk in event.quirks:
            self._quirks.add(event.listener, quirk)

    def _message_queued(self, event: events.MessageQueued) -> None:
        self._messages.add(event.listener, "accepted")
        self._routed.add(event.route)
        self._sizes.observe(event.size)
        self._accept.observe(event.seconds)

    def _message_refused(self, event: events.MessageRefused) -> None:
        self._messages.add(event.listener, event.result)

    def _loop_detected(self, _: events.LoopDetected) -> None:
        self._loops.add()

    # Delivery

    def _sender_decided(self, event: events.SenderDecided) -> None:
        self._rewrites.add(event.rule, event.result)

    def _attempt_ended(self, event: events.AttemptEnded) -> None:
        self._attempts.observe(event.seconds, event.upstream)
        if event.stage is not None and event.trouble is not None:
            self._failures.add(event.upstream, event.stage, event.trouble)

    def _upstream_refused(self, event: events.UpstreamRefused) -> None:
        self._refusals.add(event.upstream, event.refusal)

    def _hedge_begun(self, event: events.HedgeBegun) -> None:
        self._hedges.add(event.upstream)

    def _recipient_delivered(self, event: events.RecipientDelivered) -> None:
        self._outcomes.add(event.upstream, "delivered")
        self._delays.observe(event.delay, event.route)

    def _recipient_deferred(self, event: events.RecipientDeferred) -> None:
        if event.upstream:  # else none was asked
            self._outcomes.add(event.upstream, "in_doubt" if event.in_doubt else "deferred")

    def _recipient_failed(self, event: events.RecipientFailed) -> None:
        if event.upstream:  # else it was an operator, or a session code's lifetime
            self._outcomes.add(event.upstream, "in_doubt" if event.in_doubt else "failed")

    def _recipient_expired(self, event: events.RecipientExpired) -> None:
        self._expired.add(event.route)

    def _notification_queued(self, event: events.NotificationQueued) -> None:
        self._notifications.add("failure" if event.kind == "summary" else event.kind)

    def _alarm_sent(self, event: events.AlarmSent) -> None:
        if event.way == "mail":
            self._notifications.add("alarm")

    def _notification_suppressed(self, _: events.NotificationSuppressed) -> None:
        self._notifications.add("suppressed")

    def _upstream_connected(self, event: events.UpstreamConnected) -> None:
        if event.certificate_expires is not None and event.upstream in self.names.upstreams:
            self._certificates[event.upstream] = event.certificate_expires.timestamp()

    def _token_fetched(self, event: events.TokenFetched) -> None:
        self._tokens.add(event.upstream, "ok")

    def _token_refused(self, event: events.TokenRefused) -> None:
        self._tokens.add(event.upstream, "error")

    # The store and the house

    def _batch_committed(self, event: events.BatchCommitted) -> None:
        self._commits.observe(event.seconds)
        self._batches.observe(event.operations)

    def _store_failed(self, event: events.StoreFailed) -> None:
        self._store_errors.add(event.reason)

    def _config_reloaded(self, _: events.ConfigReloaded) -> None:
        self._reloads.add("ok")
        self._reloaded_at = self._now()

    def _reload_refused(self, _: events.ReloadRefused) -> None:
        self._reloads.add("error")

    def _exception_caught(self, event: events.ExceptionCaught) -> None:
        self._exceptions.add(event.component)


FEEDS: Mapping[type[events.Event], tuple[str, ...]] = {
    events.ConnectionAccepted: ("relay_smtpd_connections_total",),
    events.ConnectionDenied: ("relay_smtpd_connections_total",),
    events.AuthenticationJudged: ("relay_smtpd_auth_total",),
    events.QuirksTolerated: ("relay_client_quirks_total",),
    events.MessageQueued: (
        "relay_smtpd_messages_total",
        "relay_messages_routed_total",
        "relay_smtpd_message_size_bytes",
        "relay_smtpd_accept_seconds",
    ),
    events.MessageRefused: ("relay_smtpd_messages_total",),
    events.LoopDetected: ("relay_loops_detected_total",),
    events.SenderDecided: ("relay_rewrites_total",),
    events.AttemptEnded: ("relay_attempt_seconds", "relay_attempt_failures_total"),
    events.UpstreamRefused: ("relay_refusals_total",),
    events.HedgeBegun: ("relay_hedges_total",),
    events.RecipientDelivered: ("relay_outcomes_total", "relay_delivery_delay_seconds"),
    events.RecipientDeferred: ("relay_outcomes_total",),
    events.RecipientFailed: ("relay_outcomes_total",),
    events.RecipientExpired: ("relay_expired_total",),
    events.NotificationQueued: ("relay_notifications_total",),
    events.NotificationSuppressed: ("relay_notifications_total",),
    events.AlarmSent: ("relay_notifications_total",),
    events.UpstreamConnected: ("relay_upstream_certificate_expiry_timestamp_seconds",),
    events.TokenFetched: ("relay_oauth_refresh_total",),
    events.TokenRefused: ("relay_oauth_refresh_total",),
    events.BatchCommitted: ("relay_queue_commit_seconds", "relay_queue_commit_batch_size"),
    events.StoreFailed: ("relay_queue_errors_total",),
    events.ConfigReloaded: ("relay_config_reloads_total", "relay_config_last_reload_success_timestamp_seconds"),
    events.ReloadRefused: ("relay_config_reloads_total",),
    events.ExceptionCaught: ("relay_unhandled_exceptions_total",),
}
"""Which metrics an event feeds, for `docs/events.md`; a test holds it against what really moves."""
