"""Aliases: names without a domain, or at the relay's own, that stand for others (`aliases`), as cron's `root` does.

One step is taken: what an alias leads to is not looked up again. Who was written first stays in ORCPT (RFC 3461,
section 4.2), so a report names whom the application wrote to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from relay.mail.address import Address
from relay.mail.envelope import Envelope, Recipient
from relay.values import frozen


@frozen
class Aliases:
    """`targets` are those of each name, which is written in lower case; `hostname` is the domain of the names."""

    hostname: str
    targets: Mapping[str, tuple[Address, ...]]

    def of(self, recipient: Recipient) -> Iterator[Recipient]:
        """Those who get it in the place of `recipient`; nobody where that is no alias."""
        address = recipient.address
        if address.domain in ("", self.hostname):
            orcpt = recipient.orcpt or f"rfc822;{_xtext(address.local)}@{self.hostname}"
            for target in self.targets.get(address.local.lower(), ()):
                yield replace(recipient, address=target, orcpt=orcpt)

    def applied(self, envelope: Envelope) -> Envelope:
        """The envelope with those whom the aliases in it stand for, each address once."""
        found: dict[Address, Recipient] = {}
        for recipient in envelope.recipients:
            for one in tuple(self.of(recipient)) or (recipient,):
                found.setdefault(one.address, one)
        smtputf8 = envelope.smtputf8 or not all(address.is_ascii for address in found)
        return replace(envelope, recipients=tuple(found.values()), smtputf8=smtputf8)


def _xtext(text: str) -> str:
    """A local part as RFC 3461, section 4, has it within a parameter; aliases are of ASCII."""
    return "".join([f"+{ord(one):02X}" if one in "+=" else one for one in text])
