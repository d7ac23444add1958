"""Whether a message carries a session code: it does when any entry matches with all of its conditions."""

from __future__ import annotations

from relay.policy.match import View, matches
from relay.policy.rules import Match
from relay.values import frozen


@frozen
class SessionCodes:
    """How session codes are known and what becomes of them.

    Their way out is the route `session-codes`, whose upstreams are in the order to be tried,
    and whose lifetime is already the shorter one.
    """

    match: tuple[Match, ...]
    bounce_on_expiry: bool


def is_session_code(session_codes: SessionCodes, view: View) -> str | None:
    """The name of the first entry that matches, such as "session_codes.match[0]", or None."""
    for index, match in enumerate(session_codes.match):
        if matches(match, view):
            return f"session_codes.match[{index}]"
    return None
