"""The decision about a submission: accept it for a route, with a sender rule, or reject it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import timedelta

from relay.mail.address import Address
from relay.mail.reply import Reply
from relay.mail.submission import Submission
from relay.policy.match import Matches, View
from relay.policy.retry import Schedule
from relay.policy.rules import SenderRule
from relay.policy.session_code import SessionCodes
from relay.texts.language import Languages
from relay.values import frozen

DEFAULT = "default"  # the route that always exists
SESSION_CODES = "session-codes"  # the route of session codes
RECEIVED_LIMIT = 50  # Received fields that mean a loop (RFC 5321, section 6.3)
DELAY_WARNING = timedelta(hours=4)
PRIORITIES = {"high": 0, "normal": 1, "low": 2}
LARGE_HEAD = 16 * 1024  # octets of a header; what is done with a larger one is done on a thread
LONG = 32_000_000  # instructions of an RE2 set, a nanosecond or so each at worst
_LONGEST_ADDRESS = 512


@frozen
class Route:
    """A name that leads to upstreams (in order) and a schedule. A lower `priority` goes first.

    `hold_in_doubt`: what may have been delivered waits for a person, and is not tried again by itself.
    """

    name: str
    upstreams: tuple[str, ...]
    schedule: Schedule
    priority: int
    hold_in_doubt: bool


@frozen
class Policy:
    """All that decisions depend on. A reload makes a new one; `is` tells whether it changed.

    `routes` holds "default" always and "session-codes" where `session_codes` is not None.
    `bounces_from` is the author of our own notifications, `bounces_also` read them as well. `bounces_to` is who reads
    them: "sender", "address" (of the sender rule that spoke, where it has one) or "both".
    `delay_warning`: how long a message waits before its sender is told so; None: only who asked for it
    (NOTIFY=DELAY) is told, after `DELAY_WARNING`.
    `languages` gives the words of what is sent to people.
    `short_received` and `repair_duplicates` name the listeners whose mail leaves with a Received that does not tell of
    the client, and with each field once that may stand once.
    """

    hostname: str
    senders: tuple[SenderRule, ...]
    routes: Mapping[str, Route]
    session_codes: SessionCodes | None
    bounces_from: Address
    bounces_also: tuple[Address, ...]
    delay_warning: timedelta | None
    bounces_to: str
    short_received: frozenset[str]
    repair_duplicates: frozenset[str]
    languages: Languages
    matches: Matches = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "matches", Matches([rule.match for rule in self.senders]))


@frozen
class Accept:
    """`rule` is the sender rule that applies, or None. `because` names what led here.

    `held_by` names the rule that keeps the message for a person, "" where none does.
    """

    route: Route
    rule: SenderRule | None
    session_code: bool
    because: tuple[str, ...]
    lifetime: timedelta
    held_by: str = ""


@frozen
class Reject:
    reply: Reply
    because: tuple[str, ...]


Decision = Accept | Reject

LOOP = Reject(Reply(554, "5.4.6", f"Routing loop: the message has {RECEIVED_LIMIT} Received fields or more"), ("loop",))


def decide(submission: Submission, policy: Policy) -> Decision:
    """What becomes of `submission`. The same arguments give the same decision, so it can be made again with a later
    configuration."""
    return judge(View(submission), policy)


def judge(view: View, policy: Policy, *, ours: bool = False) -> Decision:
    """`decide`, on a view that the caller keeps. `ours`: we wrote it, so it carries no session code, whatever it says.

    One message, one route: that of session codes if it is one, else that of the first sender rule that matches, else
    "default". Sender rules apply on every way; behind a rule that only holds, the next one that matches does.
    """
    if _is_loop(view):
        return LOOP
    codes = policy.session_codes
    entry = None if codes is None or ours else codes.entry(view)
    view.session_code = entry is not None
    because: tuple[str, ...] = ()
    rule, way, held_by = None, DEFAULT, ""
    place = policy.matches.first(view)
    while place is not None:
        rule = policy.senders[place]
        because = (*because, rule.name)
        way = rule.route or way
        if not rule.hold:
            break
        held_by = held_by or rule.name
        place = policy.matches.first(view, place + 1) if rule.is_gate else None
    if entry is not None:
        way, because = SESSION_CODES, (entry, *because)
    route = policy.routes[way]
    return Accept(route, rule, entry is not None, because, route.schedule.lifetime, held_by)


def takes_long(view: View, policy: Policy) -> bool:
    """Whether `judge` may take longer than others should wait, so that it is to be done on a thread.

    Of an ordinary message that is known by its size.
    """
    submission, codes = view.submission, policy.session_codes
    octets = len(submission.head)
    if octets > LARGE_HEAD:
        return True
    weight = policy.matches.weight + (0 if codes is None else codes.matches.weight)
    if (octets + _LONGEST_ADDRESS * len(submission.envelope.recipients)) * weight <= LONG:
        return False
    return policy.matches.cost(view) + (0 if codes is None else codes.matches.cost(view)) > LONG


def _is_loop(view: View) -> bool:
    # Counting the word is many times cheaper than counting fields, and never less.
    if view.submission.head.lower().count(b"received") < RECEIVED_LIMIT:
        return False
    return view.header.count(b"received") >= RECEIVED_LIMIT
