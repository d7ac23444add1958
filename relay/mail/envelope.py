"""The envelope of one transaction: reverse-path and recipients (RFC 5321, section 2.3.1).

DSN parameters (RFC 3461) are kept as the client gave them, so that they can be passed on
or honoured by our own notifications.
"""

from __future__ import annotations

from collections.abc import Iterable

from relay.mail.address import Address
from relay.values import frozen

NOTIFY = ("never", "success", "failure", "delay")


def wishes(text: str) -> frozenset[str] | None:
    """What a NOTIFY asks for, in upper or lower case (RFC 3461, section 4.1); None where it is no such list."""
    asked = frozenset(text.lower().split(","))
    return asked if asked.issubset(NOTIFY) and (asked == {"never"} or "never" not in asked) else None


@frozen
class Recipient:
    """One RCPT TO: the unit of fate.

    `notify` is None (not asked) or a set of words of `NOTIFY`; `orcpt` is the raw xtext value
    "rfc822;jan@example.nl" or None.
    """

    address: Address
    notify: frozenset[str] | None = None
    orcpt: str | None = None


@frozen
class Envelope:
    """`reverse_path` None is the null reverse-path `<>`. `ret` is None, "full" or "hdrs"; `envid` raw xtext."""

    reverse_path: Address | None
    recipients: tuple[Recipient, ...]
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None

    @classmethod
    def of(cls, reverse_path: Address | None, recipients: Iterable[Address]) -> Envelope:
        """The envelope for those who say nothing of DSN; SMTPUTF8 where an address needs it."""
        to = tuple([Recipient(address) for address in recipients])
        smtputf8 = not all(one.address.is_ascii for one in to) or not (reverse_path is None or reverse_path.is_ascii)
        return cls(reverse_path, to, smtputf8)
