"""Two upstreams that are not Microsoft's: a hosting panel, and one that is old.

`HostingPanel`: 100 messages an hour for an account, then 550 in words of its own at the dot; 10 recipients a
transaction, then 550 to each RCPT more; no SMTPUTF8. `OldServer`: does not know EHLO, and takes 7 bit only, in lines of
998 octets; whatever else comes is refused.

`limited` counts messages that were refused for the hour, `too_many` recipients that were one too many, `strange` what
an old server could not have read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from tests.kit.upstream import Received, ScriptedUpstream, Session

AN_HOUR = 100
RECIPIENTS = 10


class HostingPanel(ScriptedUpstream):
    """See the top of the module."""

    def __init__(self, **terms: Any) -> None:
        super().__init__(
            keywords=("PIPELINING", "8BITMIME", "SIZE 52428800"), content_allowed=self._judge_pace, **terms
        )
        self._taken: deque[float] = deque()
        self.limited = 0
        self.too_many = 0

    async def _on_rcpt(self, session: Session, argument: str) -> None:
        if len(session.recipients) >= RECIPIENTS:
            self.too_many += 1
            await self._send(session, b"550 messages to more than 10 recipients are not permitted\r\n")
            return
        await super()._on_rcpt(session, argument)

    def _judge_pace(self, _: Received) -> str | None:
        now = asyncio.get_running_loop().time()
        while self._taken and now - self._taken[0] >= 3600:
            self._taken.popleft()
        if len(self._taken) >= AN_HOUR:
            self.limited += 1
            return f"550 this account used up what it may send ({AN_HOUR}/{AN_HOUR} per hour), message dropped"
        self._taken.append(now)
        return None


class OldServer(ScriptedUpstream):
    """See the top of the module."""

    def __init__(self, **terms: Any) -> None:
        super().__init__(keywords=(), content_allowed=self._judge_octets, **terms)
        self.strange = 0

    async def _on_ehlo(self, session: Session, _: str) -> None:
        await self._send(session, b"500 Command unrecognized\r\n")

    async def _on_mail(self, session: Session, argument: str) -> None:
        if not argument.isascii() or " " in argument.partition(":")[2].strip():
            self.strange += 1
            await self._send(session, b"501 Syntax error in parameters\r\n")
            return
        await super()._on_mail(session, argument)

    async def _on_rcpt(self, session: Session, argument: str) -> None:
        if not argument.isascii():
            self.strange += 1
            await self._send(session, b"501 Syntax error in parameters\r\n")
            return
        await super()._on_rcpt(session, argument)

    def _judge_octets(self, received: Received) -> str | None:
        lines = received.content.split(b"\r\n")
        if received.content.isascii() and max(map(len, lines)) <= 998:
            return None
        self.strange += 1
        return "554 Transaction failed"
