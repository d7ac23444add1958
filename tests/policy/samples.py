"""Submissions and policies to ask about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from relay.mail.address import Address
from relay.mail.envelope import Envelope, Recipient
from relay.mail.header import split
from relay.mail.submission import Peer, Submission
from relay.policy.decide import Policy
from relay.policy.pattern import pattern
from relay.policy.retry import Schedule
from relay.policy.rules import Match, Pattern, Rewrite, SenderRule
from tests.kit import configured

PC = Peer("127.0.0.1", "pc", "ESMTP")
ADMINISTRATIE = Address.of("administratie@example.nl")
DEFAULT = configured.route("default", ("own",), Schedule((timedelta(minutes=1),), timedelta(days=5)))
SLOW = configured.route("slow", ("other", "own"), Schedule((timedelta(hours=1),), timedelta(days=1)), priority=2)
SESSION_CODES = configured.route(
    "session-codes", ("vendor", "own"), Schedule((timedelta(seconds=2),), timedelta(minutes=10)), priority=0
)


def patterns(*sources: str) -> tuple[Pattern, ...]:
    return tuple(pattern(source) for source in sources)


def submission(
    content: bytes,
    *,
    reverse_path: str | None = "jan@example.nl",
    to: tuple[str, ...] = ("klant@example.com",),
    smtputf8: bool = False,
    peer: Peer = PC,
    listener: str = "legacy",
) -> Submission:
    path = None if reverse_path is None else Address.of(reverse_path)
    recipients = tuple(Recipient(Address.of(text)) for text in to)
    return Submission(
        queue_id="7QK3ABCDEFGH",
        envelope=Envelope(path, recipients, smtputf8=smtputf8),
        head=content[: split(content)],
        size=len(content),
        peer=peer,
        listener=listener,
        received_at=datetime(2026, 11, 23, 21, 8, 5, tzinfo=UTC),
    )


def policy(*rules: SenderRule, session_codes: tuple[Match, ...] | None = None) -> Policy:
    routes = {"default": DEFAULT, "slow": SLOW}
    if session_codes is not None:
        routes["session-codes"] = SESSION_CODES
    return configured.policy(
        senders=rules,
        routes=routes,
        session_codes=None if session_codes is None else configured.session_codes(*session_codes),
        bounces_from=ADMINISTRATIE,
    )


def rewriting(
    display_name: str | None = None,
    *,
    address: Address = ADMINISTRATIE,
    reply_to: str | Address = "original",
    envelope: str | Address = "address",
) -> Policy:
    """A policy with one rule that always speaks."""
    rule = configured.rule("fallback", Match(), Rewrite(address, display_name, reply_to, envelope))
    return policy(rule)
