"""An address: local part and domain (RFC 5321, section 4.1.2, Mailbox).

The domain is folded to lower case, the local part is left as it came (RFC 5321, section 2.4),
quotes included.
"""

from __future__ import annotations

from relay.mail.domain import a_labels
from relay.values import frozen


@frozen
class Address:
    """A mailbox. `domain` is "" for a local part alone, as in `RCPT TO:<postmaster>`."""

    local: str
    domain: str

    @classmethod
    def of(cls, text: str) -> Address:
        """The address written `text`, which this program produced or the configuration checked.

        Nothing is validated; what a client sends goes through `mail.path`.
        """
        local, at, domain = text.rpartition("@")
        return cls(local, domain.lower()) if at else cls(domain, "")

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}" if self.domain else self.local

    @property
    def is_ascii(self) -> bool:
        return self.local.isascii() and self.domain.isascii()

    @property
    def in_ascii(self) -> Address | None:
        """The same mailbox, its domain as A-labels; None when only an SMTPUTF8 transaction can carry it (RFC 6531)."""
        if self.is_ascii:
            return self
        domain = a_labels(self.domain) if self.local.isascii() else None
        return None if domain is None else Address(self.local, domain)


def lower(text: str) -> str:
    """`text` with its letters of ASCII in lower case. All others stay: the Kelvin sign (U+212A) would become a "k", and
    an address another one."""
    return text.lower() if text.isascii() else text.encode().lower().decode()
