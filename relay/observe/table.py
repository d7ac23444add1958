"""One row for each event: its line in the log, what it counts, and whether it is remembered.

The log's words are English, and all of them stand here. Levels: info is the life of mail, warning is to be looked at
soon, error now (or it is a bug), debug is what only a search for a fault wants to see. Nothing here holds a subject, a
body or a password, because no event does. Values are raw here; `observe.log_lines` makes them harmless.

What is counted is a contract with dashboards and alerts: names, labels and their values. All label values come from
closed sets (`observe.counting`); a queue ID or an address is never a label. A new counter is a `Metric`, and a `Count`
in the row of each event that moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import IntEnum
from operator import attrgetter
from typing import Any, TypeVar

from relay import events
from relay.mail.outcome import Refusal, Stage, Trouble
from relay.mail.quirk import Quirk
from relay.observe.counting import OTHER, Count, CountEach, Latest, Metric, Moves, Observe
from relay.values import frozen

FIELDS = (
    "queue_id",
    "listener",
    "client",
    "user",
    "reverse_path",
    "recipient",
    "route",
    "upstream",
    "rule",
    "size",
    "attempt",
    "stage",
    "code",
    "status",
    "text",
    "delay",
    "because",
)
"""The fields behind time, level and event word, in the order of every line."""

_RECIPIENTS_SHOWN = 300  # more could not be seen in a value of 1 KiB anyway


class Level(IntEnum):
    """The levels, with the numbers of journald and syslog: lower is louder."""

    ERROR = 3
    WARNING = 4
    INFO = 6
    DEBUG = 7

    @classmethod
    def of(cls, name: str) -> Level:
        """The level that the configuration calls "debug", "info", "warning" or "error"."""
        return cls[name.upper()]

    @property
    def word(self) -> str:
        return _WORDS[self]


_WORDS = {level: level.name.lower() for level in Level}

E = TypeVar("E", bound=events.Event)


@frozen
class Raised:
    """A louder level for some events of a class; `when` says in words which."""

    level: Level
    when: str
    applies: Callable[[Any], bool]


@frozen
class Row:
    """One class of events. A field whose value is None or "" is left out of the line."""

    word: str
    level: Level
    fields: tuple[tuple[str, Callable[[Any], object]], ...]
    raised: Raised | None
    moves: tuple[Moves, ...]

    def level_of(self, event: events.Event) -> Level:
        return self.raised.level if self.raised and self.raised.applies(event) else self.level

    @property
    def loudest(self) -> Level:
        return min(self.level, self.raised.level) if self.raised else self.level

    @property
    def feeds(self) -> tuple[str, ...]:
        """The metrics that it moves, by name."""
        return tuple(moves.metric.name for moves in self.moves)

    @property
    def remembered(self) -> bool:
        """Whether it can be among the last errors and warnings that `relay status` shows."""
        return self.loudest <= Level.WARNING


def _reverse_path(event: Any) -> str:
    return event.reverse_path or "<>"


def _recipients(event: Any) -> str:
    return ",".join(event.recipients[:_RECIPIENTS_SHOWN])


def _because(event: Any) -> str:
    return ",".join(event.because)


def _code(event: Any) -> int | None:
    return event.code or None  # 0: no reply was given


_SPECIAL: Mapping[str, tuple[str, Callable[[Any], object]]] = {
    "reverse_path": ("reverse_path", _reverse_path),
    "recipients": ("recipient", _recipients),
    "because": ("because", _because),
    "code": ("code", _code),
}

ROWS: dict[type[events.Event], Row] = {}


def _row(
    kind: type[E],
    word: str,
    level: Level,
    taken: str = "",
    *moves: Moves,
    raised: tuple[Level, str, Callable[[E], bool]] | None = None,
    **made: Callable[[E], object],
) -> None:
    """The row of `kind`: `taken` names attributes to show as they are, `made` the other fields."""
    fields: dict[str, Callable[[Any], object]] = dict(made)
    for name in taken.split():
        field, getter = _SPECIAL.get(name) or (name, attrgetter(name))
        fields[field] = getter
    in_order = tuple((field, fields.pop(field)) for field in FIELDS if field in fields)
    assert not fields, f"{kind.__name__}: no such log field: {sorted(fields)}"
    ROWS[kind] = Row(word, level, in_order, Raised(*raised) if raised else None, moves)


def _joined(parts: Iterable[str]) -> str:
    return "; ".join(part for part in parts if part)


def _deferred(event: events.RecipientDeferred) -> str:
    later = event.next_attempt_at.astimezone().isoformat(timespec="seconds") if event.next_attempt_at else ""
    doubt = "in doubt, may be delivered twice" if event.in_doubt else ""
    return _joined((doubt, event.text, f"next attempt at {later}" if later else ""))


def _outcome(event: Any, outcome: str) -> tuple[Any, str]:
    """At no upstream where none was asked: it was an operator, or a lifetime."""
    return event.upstream or None, "in_doubt" if event.in_doubt else outcome


def _certificate_end(event: events.UpstreamConnected) -> float | None:
    return None if event.certificate_expires is None else event.certificate_expires.timestamp()


def _failed(event: events.RecipientFailed) -> str:
    return _joined(("in doubt, may have been delivered" if event.in_doubt else "", event.text))


def _minute(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M}"


def _sender(event: events.SenderDecided) -> str:
    removed = event.signatures_removed
    return _joined((event.result, f"{removed} DKIM-Signature removed" if removed else ""))


def _reencoded(event: events.MessageReencoded) -> str:
    removed = event.signatures_removed
    what = f"{event.parts} parts" if event.parts else "header"
    return _joined((event.why, what, f"{removed} DKIM-Signature removed" if removed else ""))


def _duplicates(event: events.DuplicatesRemoved) -> str:
    removed = event.signatures_removed
    return _joined((", ".join(event.fields), f"{removed} DKIM-Signature removed" if removed else ""))


def _held(event: events.EntryHeld) -> str:
    if event.in_doubt:
        return f"{event.recipients} recipients, in doubt: it may have been delivered"
    return f"{event.recipients} recipients, by {'a sender rule' if event.rule else 'an operator'}"


def _exception(event: events.ExceptionCaught) -> str:
    # The end of a traceback says where it happened; the whole would not fit into one value.
    return _joined((f"{event.component}: {event.text}", event.traceback.rstrip()[-600:]))


# What is counted. Label values: a closed set, or the names of one kind in the configuration.

_OF_CONNECTIONS = ("accepted", "denied_limit", "denied_address", "tls_error", "not_smtp")
_OF_MESSAGES = (
    *("accepted", "rejected_policy", "rejected_size", "rejected_syntax", "store_failed", "limited", "aborted"),
)
_OF_COMPONENTS = ("session", "accept", "attempt", "observer", "web", "daemon", "queue", OTHER)
_OF_NOTIFICATIONS = ("failure", "delay", "relayed", "alarm", "suppressed")
_OK_OR_ERROR = ("ok", "error")
_COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2)
_ACCEPT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 10)
_ATTEMPT_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 600)
_DELAY_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 14400, 86400)

_CONNECTIONS = Metric(
    "relay_smtpd_connections_total", "Connections of clients.", listener="listeners", result=_OF_CONNECTIONS
)
_MESSAGES = Metric(
    "relay_smtpd_messages_total", "Content transactions of clients.", listener="listeners", result=_OF_MESSAGES
)
_AUTH = Metric(
    "relay_smtpd_auth_total",
    "AUTH at the door.",
    mechanism=("plain", "login", "cram-md5", OTHER),
    result=("ok", "bad", "error"),
)
_QUIRKS = Metric(
    "relay_client_quirks_total",
    "Deviations of clients that were tolerated.",
    listener="listeners",
    quirk=tuple(Quirk),
)
_REWRITES = Metric(
    "relay_rewrites_total", "What sender rules did.", rule="rules", result=("rewritten", "unchanged", "repaired")
)
_ROUTED = Metric("relay_messages_routed_total", "Messages by the route decided at the door.", route="routes")
_OUTCOMES = Metric(
    "relay_outcomes_total",
    "Outcomes, per recipient and attempt.",
    upstream="upstreams",
    outcome=("delivered", "deferred", "failed", "in_doubt"),
)
_FAILURES = Metric(
    "relay_attempt_failures_total",
    "Where and how attempts went wrong.",
    upstream="upstreams",
    stage=tuple(Stage),
    class_=tuple(Trouble),
)
_REFUSALS = Metric(
    "relay_refusals_total",
    "What upstreams refused, by what they spoke of.",
    upstream="upstreams",
    class_=tuple(Refusal),
)
_HEDGES = Metric(
    "relay_hedges_total",
    "Session codes for which another way was begun beside this slow one.",
    upstream="upstreams",
)
_EXPIRED = Metric("relay_expired_total", "Recipients whose lifetime ran out.", route="routes")
_NOTIFICATIONS = Metric("relay_notifications_total", "Messages of our own, by kind.", kind=_OF_NOTIFICATIONS)
_LOOPS = Metric("relay_loops_detected_total", "Messages that came round again.")
_STORE_ERRORS = Metric(
    "relay_queue_errors_total", "Errors of the store.", reason=("full", "io", "busy", "corrupt", "moved", OTHER)
)
_RELOADS = Metric("relay_config_reloads_total", "Reloads of the configuration.", result=_OK_OR_ERROR)
_EXCEPTIONS = Metric("relay_unhandled_exceptions_total", "Bugs caught.", component=_OF_COMPONENTS)
_TOKENS = Metric("relay_oauth_refresh_total", "OAuth2 tokens asked for.", upstream="oauth2", result=_OK_OR_ERROR)

_SIZE = Metric("relay_smtpd_message_size_bytes", "Sizes of accepted messages.", [1024 * 4**n for n in range(9)])
_ACCEPT = Metric("relay_smtpd_accept_seconds", "From the final dot to the reply.", _ACCEPT_SECONDS)
_COMMIT = Metric("relay_queue_commit_seconds", "Duration of group commits.", _COMMIT_SECONDS)
_BATCH = Metric("relay_queue_commit_batch_size", "Operations in a group commit.", [2**n for n in range(9)])
_ATTEMPT = Metric("relay_attempt_seconds", "Duration of attempts.", _ATTEMPT_SECONDS, upstream="upstreams")
_DELAY = Metric(
    "relay_delivery_delay_seconds", "From acceptance to delivery, per recipient.", _DELAY_SECONDS, route="routes"
)

_RELOADED = Metric("relay_config_last_reload_success_timestamp_seconds", "When the configuration in use was loaded.")
_CERTIFICATE = Metric(
    "relay_upstream_certificate_expiry_timestamp_seconds",
    "When the upstream's certificate ends, as last seen.",
    upstream="upstreams",
)


# The rows

_row(
    events.ConnectionAccepted,
    "connected",
    Level.DEBUG,
    "listener client",
    Count(_CONNECTIONS, lambda e: (e.listener, "accepted")),
)
_row(
    events.ConnectionDenied,
    "denied",
    Level.WARNING,
    "listener client",
    Count(_CONNECTIONS, attrgetter("listener", "reason")),
    text=lambda e: _joined((e.reason, e.text)),
)
_row(
    events.SessionEnded,
    "disconnected",
    Level.DEBUG,
    "listener client",
    text=lambda e: f"{e.why}{f' ({e.limit})' if e.limit else ''}; {e.messages} messages",
    raised=(Level.WARNING, "too many errors, or a limit", lambda e: e.why in ("errors", "limit")),
)
_row(
    events.AuthenticationJudged,
    "authenticated",
    Level.DEBUG,
    "listener client user",
    Count(_AUTH, lambda e: (e.mechanism.lower(), e.result)),
    text=lambda e: f"{e.mechanism} {e.result}",
    raised=(Level.WARNING, "not ok", lambda e: e.result != "ok"),
)
_row(
    events.ClientDescribed,
    "client",
    Level.DEBUG,
    "listener client",
    text=lambda e: _joined((f"helo {e.helo}" if e.helo else "", e.software)),
)
_row(events.ClientLeft, "client_left", Level.INFO, "listener client text")
_row(
    events.QuirksTolerated,
    "tolerated",
    Level.DEBUG,
    "listener client",
    CountEach(_QUIRKS, lambda e: [(e.listener, quirk) for quirk in e.quirks]),
    text=lambda e: ",".join(e.quirks),
)
_row(
    events.MessageQueued,
    "queued",
    Level.INFO,
    "queue_id listener client user reverse_path recipients route rule size because",
    Count(_MESSAGES, lambda e: (e.listener, "accepted")),
    Count(_ROUTED, lambda e: (e.route,)),
    Observe(_SIZE, attrgetter("size")),
    Observe(_ACCEPT, attrgetter("seconds")),
)
_row(
    events.MessageRefused,
    "rejected",
    Level.WARNING,
    "listener client user reverse_path recipients code status because",
    Count(_MESSAGES, attrgetter("listener", "result")),
    text=lambda e: _joined((e.result, e.text)),
    raised=(Level.ERROR, "store_failed", lambda e: e.result == "store_failed"),
)
_row(
    events.CommandRefused,
    "command_rejected",
    Level.WARNING,
    "listener client code status",
    text=lambda e: _joined((e.verb, e.text)),
)
_row(events.LoopDetected, "loop", Level.ERROR, "listener client reverse_path", Count(_LOOPS, lambda _: ()))

_row(
    events.SenderDecided,
    "sender",
    Level.DEBUG,
    "queue_id rule attempt",
    Count(_REWRITES, attrgetter("rule", "result")),
    text=_sender,
    raised=(Level.INFO, "a signature was removed", lambda e: e.signatures_removed > 0),
)
_row(events.DuplicatesRemoved, "duplicates_removed", Level.INFO, "queue_id upstream", text=_duplicates)
_row(events.MessageReencoded, "reencoded", Level.INFO, "queue_id upstream", text=_reencoded)
_row(
    events.UpstreamRefused,
    "refused",
    Level.DEBUG,
    "queue_id route upstream stage code status",
    Count(_REFUSALS, attrgetter("upstream", "refusal")),
    text=lambda e: e.refusal,
)
_row(
    events.SenderJudged,
    "sender_refused",
    Level.INFO,
    "upstream reverse_path code status",
    text=lambda e: f"refuses From {e.author or '(none)'}; leaves as its rule says until {_minute(e.until)}",
)
_row(
    events.SenderForgotten,
    "sender_forgotten",
    Level.INFO,
    "upstream reverse_path",
    text=lambda e: _joined((f"From {e.author or '(none)'}", "was taken unchanged" if e.why == "taken" else e.why)),
)
_row(
    events.SenderPinned,
    "sender_pinned",
    Level.INFO,
    "upstream reverse_path",
    text=lambda e: f"From {e.author or '(none)'} leaves as its rule says from now on",
)
_row(
    events.AttemptEnded,
    "attempt",
    Level.DEBUG,
    "queue_id route upstream stage",
    Observe(_ATTEMPT, attrgetter("seconds"), attrgetter("upstream")),
    Count(_FAILURES, attrgetter("upstream", "stage", "trouble")),
    text=lambda e: f"{e.trouble or 'done'} in {e.seconds:.3f} s",
)
_row(
    events.HedgeBegun,
    "hedged",
    Level.INFO,
    "queue_id route upstream",
    Count(_HEDGES, lambda e: (e.upstream,)),
    text=lambda e: f"not ready for the message after {e.seconds:g} s; {e.beside} is tried beside it",
)
_row(
    events.RecipientDelivered,
    "delivered",
    Level.INFO,
    "queue_id recipient route upstream rule attempt code status text delay",
    Count(_OUTCOMES, lambda e: (e.upstream, "delivered")),
    Observe(_DELAY, attrgetter("delay"), attrgetter("route")),
)
_row(
    events.RecipientDeferred,
    "deferred",
    Level.INFO,
    "queue_id recipient route upstream attempt stage code status",
    Count(_OUTCOMES, lambda e: _outcome(e, "deferred")),
    text=_deferred,
    raised=(Level.WARNING, "in doubt", lambda e: e.in_doubt),
)
_row(
    events.RecipientFailed,
    "failed",
    Level.WARNING,
    "queue_id recipient route upstream attempt stage code status delay",
    Count(_OUTCOMES, lambda e: _outcome(e, "failed")),
    text=_failed,
)
_row(
    events.RecipientExpired,
    "expired",
    Level.WARNING,
    "queue_id recipient route attempt text delay",
    Count(_EXPIRED, lambda e: (e.route,)),
    raised=(Level.ERROR, "a session code", lambda e: e.session_code),
)
_row(events.RecipientCancelled, "cancelled", Level.INFO, "queue_id recipient route attempt delay")
_row(
    events.EntryHeld,
    "held",
    Level.INFO,
    "queue_id rule",
    text=_held,
    raised=(Level.WARNING, "in doubt", lambda e: e.in_doubt),
)
_row(events.EntryChanged, "changed", Level.INFO, "queue_id route", text=lambda e: f"{e.verb}, by an operator")
_row(
    events.NotificationQueued,
    "notified",
    Level.INFO,
    "queue_id",
    Count(_NOTIFICATIONS, lambda e: ("failure" if e.kind == "summary" else e.kind,)),
    recipient=lambda e: e.reader,
    text=lambda e: f"{e.kind} of {e.about}" if e.about else e.kind,
)
_row(
    events.NotificationCollected,
    "collected",
    Level.INFO,
    queue_id=lambda e: e.about,
    recipient=lambda e: e.reader,
    text=lambda e: f"{e.kind}, for a summary",
)
_row(
    events.NotificationSuppressed,
    "not_notified",
    Level.INFO,
    "",
    Count(_NOTIFICATIONS, lambda _: ("suppressed",)),
    queue_id=lambda e: e.about,
    text=lambda e: e.why,
    raised=(Level.ERROR, "a bounce failed", lambda e: e.why.startswith("a bounce")),
)

_row(
    events.UpstreamConnected,
    "upstream_connected",
    Level.DEBUG,
    "upstream",
    Latest(_CERTIFICATE, lambda e: (e.upstream,), _certificate_end),
    text=lambda e: f"certificate valid until {e.certificate_expires:%Y-%m-%d}" if e.certificate_expires else "",
)
_row(
    events.UpstreamSetAside,
    "upstream_set_aside",
    Level.WARNING,
    "upstream stage code status",
    text=lambda e: _joined((e.trouble, e.text, f"next try in {e.seconds:.{int(e.seconds < 1)}f} s")),
    raised=(
        Level.ERROR,
        "AUTH refused",
        lambda e: e.stage is Stage.AUTH and e.trouble is Trouble.PERMANENT,
    ),
)
_row(
    events.UpstreamThrottled,
    "upstream_throttled",
    Level.INFO,
    "upstream stage code status",
    text=lambda e: _joined((e.text, f"mail waits {e.seconds:.0f} s, then over {e.connections} at most")),
)
_row(
    events.RecipientsLimited,
    "recipients_limited",
    Level.INFO,
    "upstream",
    text=lambda e: f"takes {e.recipients} recipients at once: for a day there are no more in one transaction",
)
_row(events.UpstreamRestored, "upstream_restored", Level.INFO, "upstream")
_row(
    events.MessageBlamed,
    "message_blamed",
    Level.INFO,
    "queue_id upstream stage code",
    text=lambda _: "other mail went through after that: it is this message's own trouble, and it waits by its schedule",
)
_row(
    events.ChunkingGivenUp,
    "chunking_given_up",
    Level.WARNING,
    "upstream",
    text=lambda e: f"{e.why}; messages go by DATA until relay reload (or write chunking: false)",
)

_row(
    events.TokenFetched,
    "token_fetched",
    Level.INFO,
    "upstream",
    Count(_TOKENS, lambda e: (e.upstream, "ok")),
    text=lambda e: f"valid until {e.expires_at.astimezone().isoformat(timespec='seconds')}",
)
_row(
    events.TokenRefused,
    "token_refused",
    Level.WARNING,
    "upstream text",
    Count(_TOKENS, lambda e: (e.upstream, "error")),
    raised=(Level.ERROR, "for good", lambda e: e.permanent),
)

_row(
    events.BatchCommitted,
    "committed",
    Level.DEBUG,
    "",
    Observe(_COMMIT, attrgetter("seconds")),
    Observe(_BATCH, attrgetter("operations")),
    text=lambda e: f"{e.operations} operations in {e.seconds * 1000:.1f} ms",
)
_row(
    events.StoreFailed,
    "store_failed",
    Level.ERROR,
    "",
    Count(_STORE_ERRORS, lambda e: (e.reason,)),
    text=lambda e: _joined((e.reason, e.text)),
)
_row(events.StoreRecovered, "store_recovered", Level.INFO)
_row(events.EntrySetAside, "entry_set_aside", Level.ERROR, "queue_id text")
_row(
    events.EntriesFound,
    "found",
    Level.INFO,
    text=lambda e: f"{e.entries} messages, {e.recipients} recipients, {e.leases} leases taken back",
)

_row(
    events.AlarmRaised,
    "alarm",
    Level.WARNING,
    text=lambda e: _joined((e.cause, e.text)),
    raised=(Level.ERROR, "mail suffers now", lambda e: e.severity == "error"),
)
_row(events.AlarmCleared, "alarm_cleared", Level.INFO, text=lambda e: e.cause)
_row(
    events.AlarmSent,
    "alarm_sent",
    Level.INFO,
    "",
    CountEach(_NOTIFICATIONS, lambda e: [("alarm",)] if e.way == "mail" else []),
    text=lambda e: f"{e.cause}, by {e.way}: {e.reader}",
)
_row(events.AlarmNotSent, "alarm_not_sent", Level.WARNING, text=lambda e: f"{e.cause}, by {e.way}: {e.text}")

_row(
    events.RelayStarted,
    "started",
    Level.INFO,
    text=lambda e: f"version {e.version}",
    listener=lambda e: ",".join(e.listeners),
)
_row(events.RelayStopping, "stopping", Level.INFO)
_row(events.RelayStopped, "stopped", Level.INFO)
_row(
    events.ConfigReloaded,
    "reloaded",
    Level.INFO,
    "",
    Count(_RELOADS, lambda _: ("ok",)),
    Latest(_RELOADED, lambda _: ()),
    text=lambda e: f"needs a restart: {', '.join(e.needs_restart)}" if e.needs_restart else "",
    raised=(Level.WARNING, "something waits for a restart", lambda e: bool(e.needs_restart)),
)
_row(
    events.ReloadRefused,
    "reload_refused",
    Level.ERROR,
    "",
    Count(_RELOADS, lambda _: ("error",)),
    text=lambda e: "; ".join(e.problems),
)
_row(events.Warned, "warning", Level.WARNING, "text")
_row(
    events.ExceptionCaught, "exception", Level.ERROR, "", Count(_EXCEPTIONS, lambda e: (e.component,)), text=_exception
)

METRICS = tuple(dict.fromkeys(moves.metric for row in ROWS.values() for moves in row.moves))
"""All that events count, each once."""
