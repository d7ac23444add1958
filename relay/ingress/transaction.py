"""One mail transaction: what MAIL and RCPT said (RFC 5321, section 3.3; RFC 3461; RFC 6531). No I/O.

Unknown parameters, and those of extensions we do not offer, are ignored: an application that always
sends them must not be turned away for it.
"""

from __future__ import annotations

import re
from functools import lru_cache

from relay.ingress import replies
from relay.mail import path
from relay.mail.address import Address
from relay.mail.envelope import Envelope, Recipient
from relay.mail.reply import Reply

_NOTIFY = frozenset({"never", "success", "failure", "delay"})
_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2}){1,500}")  # RFC 3461, section 4
_BAD_RCPT = Reply(501, "5.5.4", "Syntax: RCPT TO:<address>")
_REMEMBERED = 256  # octets; a longer argument is rare, and remembering many would cost memory


class Transaction:
    """Open from MAIL on. `mail` and `rcpt` give the reply; a negative one changes nothing."""

    __slots__ = ("_envid", "_ret", "_reverse_path", "_smtputf8", "open", "recipients")

    def __init__(self) -> None:
        self.recipients: list[Recipient] = []
        self.reset()

    def reset(self) -> None:
        self.open = False
        self.recipients = []
        self._reverse_path: Address | None = None
        self._smtputf8 = False
        self._ret: str | None = None
        self._envid: str | None = None

    def mail(self, argument: bytes, *, largest: int) -> bytes:
        """MAIL: a transaction begins. SIZE beyond `largest` is refused here (RFC 1870, section 6.1)."""
        if self.open:
            return replies.NESTED_MAIL
        try:
            sender = path.parse(argument)
        except path.PathError as error:
            return error.reply.to_bytes()
        if argument[:1] not in b"fF":
            return replies.BAD_SYNTAX
        self.reset()
        for key, value in sender.parameters:
            if key == "SIZE" and value is not None:
                if not value.isdigit() or len(value) > 20:
                    return replies.BAD_SYNTAX
                if int(value) > largest:
                    return replies.TOO_LARGE
            elif key == "SMTPUTF8":
                self._smtputf8 = True
            elif key == "RET" and value is not None and value.lower() in (b"full", b"hdrs"):
                self._ret = value.decode().lower()
            elif key == "ENVID":
                self._envid = _xtext(value)
        self._reverse_path = sender.address
        if sender.address is not None and not sender.address.is_ascii:
            self._smtputf8 = True
        self.open = True
        return replies.SENDER_OK

    def rcpt(self, argument: bytes, *, most: int) -> bytes:
        """RCPT: one recipient more, at most `most`."""
        if not self.open:
            return replies.NO_MAIL
        if len(self.recipients) >= most:
            return replies.TOO_MANY_RECIPIENTS
        try:
            recipient = _remembered(argument) if len(argument) <= _REMEMBERED else _recipient(argument)
        except path.PathError as error:
            return error.reply.to_bytes()
        if recipient is None:
            return replies.NO_NULL_RECIPIENT
        address = recipient.address
        if not address.domain and address.local.lower() != "postmaster":
            return replies.NO_DOMAIN
        if not address.is_ascii:
            self._smtputf8 = True
        self.recipients.append(recipient)
        return replies.RECIPIENT_OK

    @property
    def reverse_path(self) -> str:
        """For events: "" is the null reverse-path."""
        return str(self._reverse_path) if self._reverse_path else ""

    def envelope(self) -> Envelope:
        return Envelope(self._reverse_path, tuple(self.recipients), self._smtputf8, self._ret, self._envid)


def _recipient(argument: bytes) -> Recipient | None:
    found = path.parse(argument)
    if argument[:1] not in b"tT":
        raise path.PathError(_BAD_RCPT)
    if found.address is None:
        return None
    notify: frozenset[str] | None = None
    orcpt: str | None = None
    for key, value in found.parameters:
        if key == "NOTIFY" and value:
            asked = frozenset(value.decode("ascii", "replace").lower().split(","))
            if asked <= _NOTIFY and (asked == {"never"} or "never" not in asked):
                notify = asked
        elif key == "ORCPT":
            orcpt = _xtext(value)
    return Recipient(found.address, notify, orcpt)


_remembered = lru_cache(maxsize=4096)(_recipient)


def _xtext(value: bytes | None) -> str | None:
    """`value` where it can be passed on as it is, else None."""
    return value.decode("ascii") if value and _XTEXT.fullmatch(value) else None
