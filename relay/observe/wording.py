"""How events become log lines: the one place that words them.

One line for each event, from one table: the word that names it, its level, and its fields. Levels:
info is the life of mail, warning is to be looked at soon, error now (or it is a bug), debug is what
only a search for a fault wants to see. Nothing here holds a subject, a body or a password, because no
event does. Values are raw here; `observe.log_lines` makes them harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from operator import attrgetter
from typing import Any, TypeVar

from relay import events
from relay.mail.outcome import Stage, Trouble
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
class Wording:
    """The line of one class of events. A field whose value is None or "" is left out of the line."""

    word: str
    level: Level
    fields: tuple[tuple[str, Callable[[Any], object]], ...]
    raised: Raised | None = None

    def level_of(self, event: events.Event) -> Level:
        return self.raised.level if self.raised and self.raised.applies(event) else self.level

    @property
    def loudest(self) -> Level:
        return min(self.level, self.raised.level) if self.raised else self.level


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

WORDINGS: dict[type[events.Event], Wording] = {}


def _line(
    kind: type[E],
    word: str,
    level: Level,
    taken: str = "",
    *,
    raised: tuple[Level, str, Callable[[E], bool]] | None = None,
    **made: Callable[[E], object],
) -> None:
    """Word the events of `kind`: `taken` names attributes to show as they are, `made` the other fields."""
    fields: dict[str, Callable[[Any], object]] = dict(made)
    for name in taken.split():
        field, getter = _SPECIAL.get(name) or (name, attrgetter(name))
        fields[field] = getter
    in_order = tuple((field, fields.pop(field)) for field in FIELDS if field in fields)
    assert not fields, f"{kind.__name__}: no such log field: {sorted(fields)}"
    WORDINGS[kind] = Wording(word, level, in_order, Raised(*raised) if raised else None)


def _joined(parts: Iterable[str]) -> str:
    return "; ".join(part for part in parts if part)


def _deferred(event: events.RecipientDeferred) -> str:
    later = event.next_attempt_at.astimezone().isoformat(timespec="seconds") if event.next_attempt_at else ""
    doubt = "in doubt, may be delivered twice" if event.in_doubt else ""
    return _joined((doubt, event.text, f"next attempt at {later}" if later else ""))


def _failed(event: events.RecipientFailed) -> str:
    return _joined(("in doubt, may have been delivered" if event.in_doubt else "", event.text))


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


_line(events.ConnectionAccepted, "connected", Level.DEBUG, "listener client")
_line(
    events.ConnectionDenied,
    "denied",
    Level.WARNING,
    "listener client",
    text=lambda e: _joined((e.reason, e.text)),
)
_line(
    events.SessionEnded,
    "disconnected",
    Level.DEBUG,
    "listener client",
    text=lambda e: f"{e.why}{f' ({e.limit})' if e.limit else ''}; {e.messages} messages",
    raised=(Level.WARNING, "too many errors, or a limit", lambda e: e.why in ("errors", "limit")),
)
_line(
    events.AuthenticationJudged,
    "authenticated",
    Level.DEBUG,
    "listener client user",
    text=lambda e: f"{e.mechanism} {e.result}",
    raised=(Level.WARNING, "not ok", lambda e: e.result != "ok"),
)
_line(
    events.ClientDescribed,
    "client",
    Level.DEBUG,
    "listener client",
    text=lambda e: _joined((f"helo {e.helo}" if e.helo else "", e.software)),
)
_line(events.QuirksTolerated, "tolerated", Level.DEBUG, "listener client", text=lambda e: ",".join(e.quirks))
_line(
    events.MessageQueued,
    "queued",
    Level.INFO,
    "queue_id listener client user reverse_path recipients route rule size because",
)
_line(
    events.MessageRefused,
    "rejected",
    Level.WARNING,
    "listener client user reverse_path recipients code status because",
    text=lambda e: _joined((e.result, e.text)),
    raised=(Level.ERROR, "store_failed", lambda e: e.result == "store_failed"),
)
_line(
    events.CommandRefused,
    "command_rejected",
    Level.WARNING,
    "listener client code status",
    text=lambda e: _joined((e.verb, e.text)),
)
_line(events.LoopDetected, "loop", Level.ERROR, "listener client reverse_path")

_line(
    events.SenderDecided,
    "sender",
    Level.DEBUG,
    "queue_id rule attempt",
    text=_sender,
    raised=(Level.INFO, "a signature was removed", lambda e: e.signatures_removed > 0),
)
_line(events.DuplicatesRemoved, "duplicates_removed", Level.INFO, "queue_id upstream", text=_duplicates)
_line(events.MessageReencoded, "reencoded", Level.INFO, "queue_id upstream", text=_reencoded)
_line(
    events.UpstreamRefused,
    "refused",
    Level.DEBUG,
    "queue_id route upstream stage code status",
    text=lambda e: e.refusal,
)
_line(
    events.SenderJudged,
    "sender_refused",
    Level.INFO,
    "upstream reverse_path code status",
    text=lambda e: f"From {e.author or '(none)'} goes as its rule says until {e.until.astimezone():%Y-%m-%d %H:%M}",
)
_line(
    events.SenderForgotten,
    "sender_forgotten",
    Level.INFO,
    "upstream reverse_path",
    text=lambda e: _joined((f"From {e.author or '(none)'}", "was taken unchanged" if e.why == "taken" else e.why)),
)
_line(
    events.SenderPinned,
    "sender_pinned",
    Level.INFO,
    "upstream reverse_path",
    text=lambda e: f"From {e.author or '(none)'} goes as its rule says from now on",
)
_line(
    events.AttemptEnded,
    "attempt",
    Level.DEBUG,
    "queue_id route upstream stage",
    text=lambda e: f"{e.trouble or 'done'} in {e.seconds:.3f} s",
)
_line(
    events.HedgeBegun,
    "hedged",
    Level.INFO,
    "queue_id route upstream",
    text=lambda e: f"not ready for the message after {e.seconds:g} s; {e.beside} is tried beside it",
)
_line(
    events.RecipientDelivered,
    "delivered",
    Level.INFO,
    "queue_id recipient route upstream rule attempt code status text delay",
)
_line(
    events.RecipientDeferred,
    "deferred",
    Level.INFO,
    "queue_id recipient route upstream attempt stage code status",
    text=_deferred,
    raised=(Level.WARNING, "in doubt", lambda e: e.in_doubt),
)
_line(
    events.RecipientFailed,
    "failed",
    Level.WARNING,
    "queue_id recipient route upstream attempt stage code status delay",
    text=_failed,
)
_line(
    events.RecipientExpired,
    "expired",
    Level.WARNING,
    "queue_id recipient route attempt text delay",
    raised=(Level.ERROR, "a session code", lambda e: e.session_code),
)
_line(events.RecipientCancelled, "cancelled", Level.INFO, "queue_id recipient route attempt delay")
_line(
    events.EntryHeld,
    "held",
    Level.INFO,
    "queue_id rule",
    text=_held,
    raised=(Level.WARNING, "in doubt", lambda e: e.in_doubt),
)
_line(
    events.EntryChanged,
    "changed",
    Level.INFO,
    "queue_id route",
    text=lambda e: f"{e.verb}, by an operator",
)
_line(
    events.NotificationQueued,
    "notified",
    Level.INFO,
    "queue_id",
    recipient=lambda e: e.reader,
    text=lambda e: f"{e.kind} of {e.about}" if e.about else e.kind,
)
_line(
    events.NotificationCollected,
    "collected",
    Level.INFO,
    queue_id=lambda e: e.about,
    recipient=lambda e: e.reader,
    text=lambda e: f"{e.kind}, for a summary",
)
_line(
    events.NotificationSuppressed,
    "not_notified",
    Level.INFO,
    queue_id=lambda e: e.about,
    text=lambda e: e.why,
    raised=(Level.ERROR, "a bounce failed", lambda e: e.why.startswith("a bounce")),
)

_line(
    events.UpstreamConnected,
    "upstream_connected",
    Level.DEBUG,
    "upstream",
    text=lambda e: f"certificate valid until {e.certificate_expires:%Y-%m-%d}" if e.certificate_expires else "",
)
_line(
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
_line(
    events.UpstreamThrottled,
    "upstream_throttled",
    Level.INFO,
    "upstream stage code status",
    text=lambda e: _joined((e.text, f"mail waits {e.seconds:.0f} s, then over {e.connections} at most")),
)
_line(
    events.RecipientsLimited,
    "recipients_limited",
    Level.INFO,
    "upstream",
    text=lambda e: f"takes {e.recipients} recipients at once: for a day there are no more in one transaction",
)
_line(events.UpstreamRestored, "upstream_restored", Level.INFO, "upstream")
_line(
    events.MessageBlamed,
    "message_blamed",
    Level.INFO,
    "queue_id upstream stage code",
    text=lambda _: "other mail went through after that: it is this message's own trouble, and it waits by its schedule",
)
_line(
    events.ChunkingGivenUp,
    "chunking_given_up",
    Level.WARNING,
    "upstream",
    text=lambda e: f"{e.why}; messages go by DATA until relay reload (or write chunking: false)",
)

_line(
    events.TokenFetched,
    "token_fetched",
    Level.INFO,
    "upstream",
    text=lambda e: f"valid until {e.expires_at.astimezone().isoformat(timespec='seconds')}",
)
_line(
    events.TokenRefused,
    "token_refused",
    Level.WARNING,
    "upstream text",
    raised=(Level.ERROR, "for good", lambda e: e.permanent),
)

_line(
    events.BatchCommitted,
    "committed",
    Level.DEBUG,
    text=lambda e: f"{e.operations} operations in {e.seconds * 1000:.1f} ms",
)
_line(events.StoreFailed, "store_failed", Level.ERROR, text=lambda e: _joined((e.reason, e.text)))
_line(events.StoreRecovered, "store_recovered", Level.INFO)
_line(events.EntrySetAside, "entry_set_aside", Level.ERROR, "queue_id text")
_line(
    events.EntriesFound,
    "found",
    Level.INFO,
    text=lambda e: f"{e.entries} messages, {e.recipients} recipients, {e.leases} leases taken back",
)

_line(
    events.AlarmRaised,
    "alarm",
    Level.WARNING,
    text=lambda e: _joined((e.cause, e.text)),
    raised=(Level.ERROR, "mail suffers now", lambda e: e.severity == "error"),
)
_line(events.AlarmCleared, "alarm_cleared", Level.INFO, text=lambda e: e.cause)

_line(
    events.RelayStarted,
    "started",
    Level.INFO,
    text=lambda e: f"version {e.version}",
    listener=lambda e: ",".join(e.listeners),
)
_line(events.RelayStopping, "stopping", Level.INFO)
_line(events.RelayStopped, "stopped", Level.INFO)
_line(
    events.ConfigReloaded,
    "reloaded",
    Level.INFO,
    text=lambda e: f"needs a restart: {', '.join(e.needs_restart)}" if e.needs_restart else "",
    raised=(Level.WARNING, "something waits for a restart", lambda e: bool(e.needs_restart)),
)
_line(events.ReloadRefused, "reload_refused", Level.ERROR, text=lambda e: "; ".join(e.problems))
_line(events.Warned, "warning", Level.WARNING, "text")
_line(events.ExceptionCaught, "exception", Level.ERROR, text=_exception)
