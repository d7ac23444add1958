"""The envelope that a header gives, for those who hand over a message and nothing else: files, `sendmail -t`.

Recipients are those of To, Cc and Bcc, or of Resent-To, Resent-Cc and Resent-Bcc where there are any; the
reverse-path is Return-Path, else Sender, else the first author; of a message that was sent on, first Resent-Sender
or Resent-From. Encoded words are never decoded into addresses. A recipient without a usable address is an error: to
leave it out would be to lose mail for somebody without a word. Only what says that recipients are hidden names nobody.
"""

from __future__ import annotations

import re
from collections.abc import Container

from relay.mail import author, path
from relay.mail.address import Address
from relay.mail.header import Header, value
from relay.mail.reply import sanitise
from relay.values import frozen

MOST = 10_000  # recipients of one message

_PLAIN = (b"to", b"cc", b"bcc")
_RESENT = (b"resent-to", b"resent-cc", b"resent-bcc")
_WHO_SENT = (b"return-path", b"sender", b"from")
_WHO_RESENT = (b"resent-sender", b"resent-from")
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}\Z")
_NOBODY = ("recipient", "ontvanger", "geadresseerde")  # as in "undisclosed-recipients"


class BadAddressees(ValueError):
    """No envelope can be made of the header; the text says why."""


@frozen
class LocalNames:
    """What a name without a domain is: it is at `domain`; where `known` is given, only one of those (in lower case)."""

    domain: str
    known: Container[str] | None = None

    def has(self, name: str) -> bool:
        return self.known is None or name.lower() in self.known


def recipients(header: Header, names: LocalNames | None = None) -> tuple[Address, ...]:
    """Whom the header names, each once, in order; without `names`, a name without a domain is no address.

    Raises BadAddressees; that nobody is named is no error here.
    """
    found: dict[Address, None] = {}
    for name in _RESENT if _is_resent(header) else _PLAIN:
        for field in header.all(name):
            mailboxes = author.parse(value(field), local=names is not None)
            for one in mailboxes:
                address = usable(one, names)
                if address is not None:
                    found[address] = None
                elif one.address is not None or not _names_nobody(one.name):
                    text = sanitise(one.address or one.name, 100)
                    raise BadAddressees(f"{name.decode().title()}: no usable address: {text}")
            if len(mailboxes) >= author.LIMIT or len(found) > MOST:
                raise BadAddressees(f"more than {MOST} recipients")
    return tuple(found)


def reverse_path(header: Header, names: LocalNames | None = None) -> Address | None:
    """Who hears if it cannot be delivered; None (the null reverse-path) where `Return-Path: <>` or nobody is named."""
    for name in (*_WHO_RESENT, *_WHO_SENT) if _is_resent(header) else _WHO_SENT:
        field = header.first(name)
        written = value(field) if field is not None else b""
        if name == b"return-path" and written == b"<>":
            return None
        for one in author.parse(written, local=names is not None):
            address = usable(one, names)
            if address is not None:
                return address
    return None


def usable(mailbox: author.Author, names: LocalNames | None = None) -> Address | None:
    """The address of a mailbox as MAIL and RCPT would take it, or None."""
    written, name = mailbox.address, mailbox.name
    if (
        written is None
        and names is not None
        and _LOCAL_PART.match(name)
        and not _names_nobody(name)
        and names.has(name)
    ):
        written = f"{name}@{names.domain}"
    if written is None:
        return None
    try:
        address = path.parse(b"TO:<" + written.encode() + b">").address
    except path.PathError:
        return None
    return address if address is not None and address.domain else None


def one(written: bytes, names: LocalNames | None = None) -> Address | None:
    """The usable address of what names one mailbox; None where it names none or several."""
    mailboxes = author.parse(written, local=names is not None)
    return usable(mailboxes[0], names) if len(mailboxes) == 1 else None


def _names_nobody(name: str) -> bool:
    """Whether `name` says that recipients are hidden."""
    lower = name.lower()
    return "@" not in lower and any(word in lower for word in _NOBODY)


def _is_resent(header: Header) -> bool:
    return any(name in _RESENT for name, _ in header.fields)
