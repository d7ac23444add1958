"""The decision about a submission: accept it for a route, with a sender rule, or reject it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from relay.mail.address import Address
from relay.mail.reply import Reply
from relay.policy.retry import Schedule
from relay.policy.rules import Match, SenderRule

PRIORITIES = {"high": 0, "normal": 1, "low": 2}


@dataclass(frozen=True, slots=True)
class Route:
    """A name that leads to upstreams (in order) and a schedule. A lower `priority` goes first."""

    name: str
    upstreams: tuple[str, ...]
    schedule: Schedule
    priority: int = PRIORITIES["normal"]


@dataclass(frozen=True, slots=True)
class SessionCodes:
    """How session codes are known and what becomes of them.

    Their way out is the route `session-codes`, whose upstreams are in the order to be tried,
    and whose lifetime is already the shorter one.
    """

    match: tuple[Match, ...]
    bounce_on_expiry: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """All that decisions depend on. A reload makes a new one; `is` tells whether it changed.

    `routes` holds "default" always and "session-codes" where `session_codes` is not None.
    `bounces_from` is the author of our own notifications.
    """

    hostname: str
    senders: tuple[SenderRule, ...]
    routes: Mapping[str, Route]
    session_codes: SessionCodes | None
    bounces_from: Address


@dataclass(frozen=True, slots=True)
class Accept:
    """`rule` is the sender rule that spoke, or None. `because` names what led here."""

    route: Route
    rule: SenderRule | None
    session_code: bool
    because: tuple[str, ...]
    lifetime: timedelta


@dataclass(frozen=True, slots=True)
class Reject:
    reply: Reply
    because: tuple[str, ...]


Decision = Accept | Reject
