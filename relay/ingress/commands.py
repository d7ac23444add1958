"""The commands of a session that do not wait (RFC 5321, section 4.1.1): each takes its argument and gives the reply.

DATA and BDAT open a reader; BDAT, STARTTLS and AUTH are with what they need (`bdat`, `secure`).
"""

from __future__ import annotations

from collections.abc import Awaitable

from relay.ingress import greeting, replies
from relay.ingress.secure import Secured
from relay.mail.quirk import Quirk
from relay.mail.reply import sanitise


class Commands(Secured):
    """The part of a session that knows the verbs."""

    def smtp_HELO(self, argument: bytes) -> bytes | Awaitable[bytes]:
        self._greet(argument, esmtp=False)
        return self._reset(b"250 %b\r\n" % self._hostname)

    def smtp_EHLO(self, argument: bytes) -> bytes | Awaitable[bytes]:
        self._greet(argument, esmtp=True)
        starttls = self._settings.tls == "starttls" and self._tls is None
        return self._reset(
            greeting.capabilities(self._settings, size=self._largest(), starttls=starttls, auth=self._auth_offered)
        )

    def _greet(self, argument: bytes, *, esmtp: bool) -> None:
        """Remember who it is; some have no name to give."""
        if not argument:
            self._transaction.quirks.add(Quirk.EMPTY_HELO)
        if not self.session.extended_smtp and self._sent_ahead:
            self._transaction.quirks.add(Quirk.EARLY_PIPELINING)
        self.session.host_name = sanitise(argument[:255].decode("ascii", "replace")).replace("\ufffd", "?")
        self.session.extended_smtp = esmtp
        self._peer = None

    @property
    def _hostname(self) -> bytes:
        return self._settings.hostname.encode("ascii", "replace")

    def smtp_MAIL(self, argument: bytes) -> bytes:
        settings = self._settings
        limits = settings.limits
        if limits.messages is not None and self._messages >= limits.messages:
            self._ended, self._limit = "limit", "limits.messages"
            return replies.TOO_MANY_MESSAGES
        if not self._door.space():
            return self._refuse_content("store_failed", replies.STORE_FULL)
        reply = self._transaction.mail(argument, largest=self._largest)
        if reply is not replies.SENDER_OK:
            return reply
        if not self.session.extended_smtp:
            self._notice_haste()
        rate = limits.client_rate
        if rate is not None and not self._door.client_rates.take(self._client, rate, self.loop.time()):
            self._ended, self._limit = "limit", "limits.client_rate"
            return self._refuse_content("limited", replies.over_rate(rate.count, rate.seconds))
        return reply

    def _notice_haste(self) -> None:
        """A transaction begins without EHLO."""
        noticed = self._transaction.quirks
        if self.session.host_name is None:
            noticed.add(Quirk.NO_HELO)
        if self._sent_ahead:
            noticed.add(Quirk.EARLY_PIPELINING)

    @property
    def _sent_ahead(self) -> bool:
        """More came than this command, and a line end too many behind it."""
        return bool(self._buffer.strip(b"\r\n"))

    def smtp_RCPT(self, argument: bytes) -> bytes:
        if self._chunks is not None:
            return replies.CHUNKS_BEGAN
        return self._transaction.rcpt(argument, most=self._settings.limits.recipients)

    def smtp_DATA(self, argument: bytes) -> bytes:
        transaction = self._transaction
        if argument:
            return replies.BAD_SYNTAX
        if not transaction.open:
            return replies.NO_MAIL
        if not transaction.recipients:
            return replies.NO_RECIPIENT
        if self._chunks is not None:
            return replies.CHUNKS_BEGAN
        self._expect_content()
        return replies.START_DATA

    def smtp_RSET(self, _argument: bytes) -> bytes | Awaitable[bytes]:
        return self._reset(replies.OK)

    def smtp_NOOP(self, _argument: bytes) -> bytes:
        return replies.OK

    def smtp_HELP(self, _argument: bytes) -> bytes:
        return replies.HELP

    def smtp_VRFY(self, argument: bytes) -> bytes:
        return replies.CANNOT_VERIFY if argument else replies.BAD_SYNTAX

    def smtp_EXPN(self, _argument: bytes) -> bytes:
        return replies.NOT_IMPLEMENTED

    def smtp_QUIT(self, _argument: bytes) -> bytes:
        self._ended = "quit"
        return replies.BYE
