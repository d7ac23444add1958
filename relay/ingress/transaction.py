"""One mail transaction: what MAIL and RCPT said (RFC 5321, section 3.3; RFC 3461; RFC 6531). No I/O.

Unknown parameters, and those of extensions we do not offer, are ignored: an application that always
sends them must not be turned away for it. What was tolerated is told as quirks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from relay.ingress import replies
from relay.ingress.limits import Memory
from relay.mail import path
from relay.mail.address import Address
from relay.mail.aliases import Aliases
from relay.mail.envelope import Envelope, Recipient, wishes
from relay.mail.quirk import Quirk
from relay.mail.reply import Reply

_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2}){1,500}")  # RFC 3461, section 4
_BAD_RCPT = Reply(501, "5.5.4", "Syntax: RCPT TO:<address>")
_RECIPIENT = 200  # octets that a recipient takes beside those of its argument, which count twice
_REMEMBERED = 256  # octets; a longer argument is rare, and remembering many would cost memory


class Transaction:
    """Open from MAIL on. `mail` and `rcpt` give the reply; a negative one changes nothing.

    A recipient that is one of `aliases` gives way to those it stands for. Another address without a domain gets
    `complete` for one, unless that is "". `auth`: AUTH is offered, and its parameter no quirk. `memory` counts what
    recipients take until the `reset`. `quirks` takes what was tolerated, over any number of transactions.
    """

    __slots__ = (
        "_aliases",
        "_auth",
        "_complete",
        "_envid",
        "_held",
        "_memory",
        "_ret",
        "_reverse_path",
        "_smtputf8",
        "begun",
        "open",
        "quirks",
        "recipients",
        "size",
        "smtputf8_asked",
    )

    def __init__(
        self,
        *,
        complete: str = "",
        aliases: Aliases | None = None,
        auth: bool = False,
        memory: Memory | None = None,
    ) -> None:
        self._aliases = aliases
        self._memory = memory or Memory()
        self._held = 0
        self._complete = complete
        self._auth = auth
        self.recipients: list[Recipient] = []
        self.quirks = set[Quirk]()
        self.begun = False  # once at least
        self.reset()

    def reset(self) -> None:
        self.open = False
        self._memory.envelopes -= self._held
        self._held = 0
        self.recipients = []
        self.size = 0  # as the client announced it; 0: not at all
        self.smtputf8_asked = False
        self._reverse_path: Address | None = None
        self._smtputf8 = False
        self._ret: str | None = None
        self._envid: str | None = None

    def mail(self, argument: bytes, *, largest: Callable[[], int]) -> bytes:
        """MAIL: a transaction begins. SIZE beyond `largest()` is refused here (RFC 1870, section 6.1)."""
        if self.open:
            return replies.NESTED_MAIL
        try:
            sender = path.parse(argument)
        except path.PathError as error:
            return _about_sender(error.reply).to_bytes()
        if argument[:1].lower() != b"f":
            return replies.BAD_SYNTAX
        self.reset()
        quirks = sender.quirks
        if sender.parameters:
            refusal, strange = self._take_parameters(sender.parameters, largest)
            if refusal is not None:
                return refusal
            quirks |= strange
        address = sender.address
        if address is not None:
            if self._complete and not address.domain:
                address = Address(address.local, self._complete)
                quirks |= {Quirk.NO_DOMAIN}
            if not address.is_ascii:
                self._beyond_ascii()
        if quirks:
            self.quirks |= quirks
        self._reverse_path = address
        self.open = self.begun = True
        return replies.SENDER_OK

    def _take_parameters(
        self, parameters: tuple[tuple[str, bytes | None], ...], largest: Callable[[], int]
    ) -> tuple[bytes | None, set[Quirk]]:
        """A refusal or None, and the quirks."""
        quirks = set[Quirk]()
        for key, value in parameters:
            if key == "SIZE" and value is not None:
                if not value.isdigit() or len(value) > 20:
                    return replies.BAD_SYNTAX, quirks
                self.size = int(value)
                if self.size > largest():
                    return replies.TOO_LARGE, quirks
            elif key == "SMTPUTF8":
                self._smtputf8 = self.smtputf8_asked = True
            elif key == "RET" and value is not None and value.lower() in (b"full", b"hdrs"):
                self._ret = value.decode().lower()
            elif key == "ENVID":
                self._envid = _xtext(value)
            elif key == "BODY" and value is not None and value.upper() in (b"7BIT", b"8BITMIME", b"BINARYMIME"):
                if value.upper() == b"BINARYMIME":
                    quirks.add(Quirk.BINARYMIME)
            elif key != "AUTH" or not self._auth:
                quirks.add(Quirk.UNKNOWN_PARAMETER)
        return None, quirks

    def rcpt(self, argument: bytes, *, most: int) -> bytes:
        """RCPT: one recipient more, at most `most`."""
        if not self.open:
            return replies.NO_MAIL
        if len(self.recipients) >= most or not self._memory.has_room(self._held):
            return replies.TOO_MANY_RECIPIENTS
        try:
            found = _remembered(argument) if len(argument) <= _REMEMBERED else _recipient(argument)
        except path.PathError as error:
            return error.reply.to_bytes()
        if found is None:
            return replies.NO_NULL_RECIPIENT
        recipient, quirks = found
        if self._aliases is not None and (instead := tuple(self._aliases.of(recipient))):
            return self._lead_to(instead, quirks, most)
        address = recipient.address
        if not address.domain and address.local.lower() != "postmaster":
            if not self._complete:
                return replies.NO_DOMAIN
            recipient = replace(recipient, address=Address(address.local, self._complete))
            quirks |= {Quirk.NO_DOMAIN}
        if not address.is_ascii:
            self._beyond_ascii()
        if quirks:
            self.quirks |= quirks
        self.recipients.append(recipient)
        octets = _RECIPIENT + 2 * len(argument)
        self._held += octets
        self._memory.envelopes += octets
        return replies.RECIPIENT_OK

    def _lead_to(self, instead: Sequence[Recipient], quirks: frozenset[Quirk], most: int) -> bytes:
        """An alias: all of those it stands for, who are not here yet."""
        here = {recipient.address for recipient in self.recipients}
        new = [recipient for recipient in instead if recipient.address not in here]
        if len(self.recipients) + len(new) > most:
            return replies.TOO_MANY_RECIPIENTS
        self.quirks |= quirks
        self.recipients += new
        self._smtputf8 |= not all(recipient.address.is_ascii for recipient in new)
        octets = sum(_RECIPIENT + 2 * len(str(recipient.address)) for recipient in new)
        self._held += octets
        self._memory.envelopes += octets
        return replies.RECIPIENT_OK

    def _beyond_ascii(self) -> None:
        """An address that only SMTPUTF8 can carry, whether it was asked for or not."""
        self._smtputf8 = True
        if not self.smtputf8_asked:
            self.quirks.add(Quirk.EIGHT_BIT_PATH)

    @property
    def reverse_path(self) -> str:
        """For events: "" is the null reverse-path."""
        return str(self._reverse_path) if self._reverse_path else ""

    def envelope(self) -> Envelope:
        return Envelope(self._reverse_path, tuple(self.recipients), self._smtputf8, self._ret, self._envid)


def _about_sender(reply: Reply) -> Reply:
    """The grammar speaks of recipients; a bad reverse-path has a status of its own (RFC 3463, section 3.2)."""
    return replace(reply, status="5.1.7") if reply.status == "5.1.3" else reply


def _recipient(argument: bytes) -> tuple[Recipient, frozenset[Quirk]] | None:
    """The recipient and what was tolerated; None for the null path."""
    found = path.parse(argument)
    if argument[:1] not in b"tT":
        raise path.PathError(_BAD_RCPT)
    if found.address is None:
        return None
    quirks = found.quirks
    notify: frozenset[str] | None = None
    orcpt: str | None = None
    for key, value in found.parameters:
        if key == "NOTIFY" and value:
            notify = wishes(value.decode("ascii", "replace")) or notify
        elif key == "ORCPT":
            orcpt = _xtext(value)
        else:
            quirks |= {Quirk.UNKNOWN_PARAMETER}
    return Recipient(found.address, notify, orcpt), quirks


_remembered = lru_cache(maxsize=4096)(_recipient)


def _xtext(value: bytes | None) -> str | None:
    """`value` where it can be passed on as it is, else None."""
    return value.decode("ascii") if value and _XTEXT.fullmatch(value) else None
