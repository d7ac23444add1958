"""Sender rules and their conditions: the first rule that matches speaks.

All conditions of a match must hold; within one condition any pattern will do.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from relay.mail.address import Address
from relay.policy.client import Network
from relay.values import frozen


class Pattern(Protocol):
    """A glob or an RE2 expression, as written in the configuration (`source`)."""

    @property
    def source(self) -> str: ...

    def matches(self, value: str) -> bool: ...


@frozen
class Match:
    """The conditions of a sender rule or of a session-code entry; None: not asked.

    `header` pairs a lower-case field name with patterns. `client` may name networks.
    `all_authors`: `from_` has to hold for every author, in a From that can be read in one way only; else for any.
    `session_code` is for sender rules only, `max_size` (octets) and `recipients` (at most) for
    session-code entries only.
    """

    from_: tuple[Pattern, ...] | None = None
    envelope_from: tuple[Pattern, ...] | None = None
    to: tuple[Pattern, ...] | None = None
    subject: tuple[Pattern, ...] | None = None
    header: tuple[tuple[str, tuple[Pattern, ...]], ...] = ()
    client: tuple[Network, ...] | None = None
    listener: tuple[Pattern, ...] | None = None
    user: tuple[Pattern, ...] | None = None
    session_code: bool | None = None
    max_size: int | None = None
    recipients: int | None = None
    all_authors: bool = False


@frozen
class Rewrite:
    """What a sender rule does: the author becomes `address`.

    `display_name` is a template with {name} {address} {local} {domain}, or None for "{name}".
    `reply_to`: "original", "keep" or an address. `envelope`: "address", "keep" or an address.
    """

    address: Address
    display_name: str | None
    reply_to: str | Address
    envelope: str | Address


@frozen
class SenderRule:
    """`rewrite` None: the sender stays. `route` is the way out for this sender, or None.

    `hold`: what matches waits in the queue until a person releases it. Then it leaves as this rule says, or where this
    rule says nothing of the sender (neither `rewrite` nor `keep`), as the next rule that matches.
    `when_refused`: it rewrites only where an upstream refused the original sender, which is remembered for `remember`.
    """

    name: str
    match: Match
    rewrite: Rewrite | None
    route: str | None
    keep: bool
    hold: bool
    when_refused: bool
    remember: timedelta

    @property
    def is_gate(self) -> bool:
        """Whether it only holds, so that the rules below it decide about the sender."""
        return self.hold and not self.keep and self.rewrite is None

    @property
    def repairs(self) -> bool:
        """Whether it has another sender for what an upstream refuses."""
        return self.when_refused and self.rewrite is not None
