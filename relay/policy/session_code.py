"""Whether a message carries a session code: it does when any entry matches with all of its conditions."""

from __future__ import annotations

from dataclasses import field

from relay.policy.match import Matches, View
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
    matches: Matches = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "matches", Matches(self.match))

    def entry(self, view: View) -> str | None:
        """The name of the first entry that matches, such as "session_codes.match[0]", or None."""
        place = self.matches.first(view)
        return None if place is None else f"session_codes.match[{place}]"
