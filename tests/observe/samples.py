"""One example of each event, as it would happen to one message of an accountant."""

from __future__ import annotations

from datetime import UTC, datetime

from relay import events
from relay.mail.outcome import Refusal, Stage, Trouble
from relay.mail.quirk import Quirk

CLIENT = "127.0.0.1"
LATER = datetime(2026, 11, 23, 7, 5, tzinfo=UTC)

QUEUED = events.MessageQueued(
    queue_id="3V7QK2M9XTAB",
    listener="legacy",
    client=CLIENT,
    user=None,
    reverse_path="jan@example.nl",
    recipients=("klant@example.com", "kopie@example.com"),
    route="default",
    rule="fallback",
    size=4096,
    seconds=0.0021,
    session_code=False,
    because=("fallback",),
)
ENDED = events.AttemptEnded("3V7QK2M9XTAB", "default", "own", 0.12)
DELIVERED = events.RecipientDelivered(
    "3V7QK2M9XTAB", "klant@example.com", "default", "own", "fallback", 1, 250, "2.0.0", "OK queued", 0.153, False
)
DEFERRED = events.RecipientDeferred(
    "3V7QK2M9XTAB",
    "klant@example.com",
    "default",
    "own",
    1,
    Stage.DOT,
    Trouble.DROPPED,
    0,
    "",
    "connection lost",
    True,
    LATER,
    False,
)
FAILED = events.RecipientFailed(
    "3V7QK2M9XTAB",
    "klant@example.com",
    "default",
    "own",
    2,
    Stage.RCPT,
    550,
    "5.1.1",
    "No such user",
    60.0,
    False,
    False,
)
COMMITTED = events.BatchCommitted(20, 0.0012)

SAMPLES: tuple[events.Event, ...] = (
    events.ConnectionAccepted("legacy", CLIENT),
    events.ConnectionDenied("legacy", "192.0.2.9", "denied_address", "not in allow"),
    events.SessionEnded("legacy", CLIENT, "quit", 3),
    events.AuthenticationJudged("legacy", CLIENT, "imuis", "PLAIN", "bad"),
    events.ClientDescribed("legacy", CLIENT, "werkplek-7", "iMUIS 12"),
    events.ClientLeft("legacy", CLIENT, "it greeted and left without handing in mail"),
    events.QuirksTolerated("legacy", CLIENT, (Quirk.BARE_LF, Quirk.NO_DATE)),
    QUEUED,
    events.MessageRefused(
        "legacy",
        CLIENT,
        None,
        "",
        ("klant@example.com",),
        "rejected_size",
        552,
        "5.3.4",
        "too large",
    ),
    events.CommandRefused("legacy", CLIENT, "RCPT", 501, "5.1.3", "that is no address"),
    events.LoopDetected("legacy", CLIENT, "jan@example.nl"),
    events.SenderDecided("3V7QK2M9XTAB", "fallback", "rewritten", 1, 1),
    events.DuplicatesRemoved("3V7QK2M9XTAB", "own", ("subject", "date"), 1),
    events.UpstreamRefused("3V7QK2M9XTAB", "default", "own", Stage.MAIL, Refusal.SENDER, 550, "5.7.60"),
    events.SenderJudged("own", "jan@example.nl", "jan@example.nl", 550, "5.7.60", LATER),
    events.SenderForgotten("own", "<>", "", "operator"),
    events.SenderPinned("own", "jan@example.nl", "jan@example.nl"),
    events.MessageReencoded("3V7QK2M9XTAB", "own", "no 8BITMIME", 2, 1),
    events.AttemptEnded("3V7QK2M9XTAB", "default", "own", 15.0, Stage.CONNECT, Trouble.TIMEOUT),
    events.HedgeBegun("3V7QK2M9XTAB", "session-codes", "vendor", "own", 1.5),
    DELIVERED,
    DEFERRED,
    FAILED,
    events.RecipientExpired("3V7QK2M9XTAB", "klant@example.com", "session-codes", 9, "450 try later", 600.0, True),
    events.RecipientCancelled("3V7QK2M9XTAB", "klant@example.com", "default", 2, 60.0, False),
    events.EntryHeld("3V7QK2M9XTAB", "concepten", 2),
    events.EntryChanged("3V7QK2M9XTAB", "reroute", "default"),
    events.NotificationQueued("3V7QK2M9XTAC", "3V7QK2M9XTAB", "failure", "jan@example.nl"),
    events.NotificationCollected("3V7QK2M9XTAB", "failure", "jan@example.nl"),
    events.NotificationSuppressed("3V7QK2M9XTAB", "null reverse-path"),
    events.UpstreamConnected("own", LATER),
    events.UpstreamThrottled("own", Stage.MAIL, 432, "4.3.2", "Concurrent connections limit exceeded", 2.0, 2),
    events.UpstreamSetAside("own", Stage.AUTH, Trouble.PERMANENT, 535, "5.7.3", "no", 60.0),
    events.UpstreamRestored("own"),
    events.MessageBlamed("3V7QK2M9XTAB", "own", Stage.DOT, 421),
    events.ChunkingGivenUp("own", "it answered BDAT with 502"),
    events.RecipientsLimited("own", 10),
    events.TokenFetched("own", LATER),
    events.TokenRefused(
        "own", True, "no token from login.microsoftonline.com: invalid_client: AADSTS7000222: expired."
    ),
    COMMITTED,
    events.StoreFailed("full", "no space left"),
    events.StoreRecovered(),
    events.EntrySetAside("3V7QK2M9XTAB", "the row cannot be read"),
    events.EntriesFound(3, 4, 1),
    events.AlarmRaised("auth-refused:own", "error", "The upstream own refused the login: 535 5.7.3 no."),
    events.AlarmCleared("auth-refused:own"),
    events.AlarmSent("auth-refused:own", "mail", "admin@example.nl by vendor"),
    events.AlarmNotSent("auth-refused:own", "webhook", "it answered 403: invalid_token"),
    events.RelayStarted("0.1.0", ("legacy",)),
    events.RelayStopping(),
    events.RelayStopped(),
    events.ConfigReloaded(("queue.store",)),
    events.ReloadRefused(("config.yaml:14: routes: no such upstream", "config.yaml:15: log: unknown key")),
    events.Warned("tls_verify is false"),
    events.ExceptionCaught("session", "ValueError: no", 'Traceback:\n  File "x.py", line 1\nValueError: no\n'),
)


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []

    def observe(self, event: events.Event) -> None:
        self.events.append(event)
