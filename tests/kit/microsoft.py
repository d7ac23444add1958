"""An upstream that behaves as Microsoft 365 does for client submission, from what is known of it.

- AUTH: LOGIN, and no PLAIN.
- Three connections; on a fourth, MAIL is answered with 432 4.3.2.
- 30 messages within a minute; the answer to one more waits until the minute has room: slow, not refused.
- A reverse-path that the account may not use: 550 5.7.60 to MAIL. An author it may not use: 554 5.2.252 after the dot.
- SendAsDenied comes and goes: senders in `moody` are refused once after the dot, though they are allowed.

`refusals` counts what was refused, by sender; `throttled` how often 432 was said, `delayed` how often an answer waited.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from tests.kit.upstream import Received, ScriptedUpstream, Session

KEYWORDS = (
    "SIZE 157286400",
    "PIPELINING",
    "DSN",
    "ENHANCEDSTATUSCODES",
    "8BITMIME",
    "BINARYMIME",
    "CHUNKING",
    "SMTPUTF8",
)
CONNECTIONS = 3
A_MINUTE = 30
_FROM = re.compile(rb"(?im)^from:.*?([^\s<>]+@[^\s<>]+)")


class Microsoft365(ScriptedUpstream):
    """`envelopes` may stand in MAIL, `authors` in From; the account itself always may."""

    def __init__(
        self,
        account: str,
        password: str,
        *,
        envelopes: Iterable[str] = (),
        authors: Iterable[str] = (),
        moody: Iterable[str] = (),
        **terms: Any,
    ) -> None:
        super().__init__(
            keywords=KEYWORDS,
            users={account: password},
            mechanisms=("LOGIN",),
            sender_allowed=self._judge_envelope,
            content_allowed=self._judge_author,
            **terms,
        )
        self._account = account
        self._envelopes = {account, "", *envelopes}
        self._authors = {account, *authors}
        self._moody = set(moody)
        self._taken: deque[float] = deque()
        self.refusals: Counter[str] = Counter()
        self.throttled = 0
        self.delayed = 0
        self.most_open = 0

    def _judge_envelope(self, path: str) -> str | None:
        if path in self._envelopes:
            return None
        self.refusals[path] += 1
        return "550 5.7.60 SMTP; Client does not have permissions to send as this sender"

    def _judge_author(self, received: Received) -> str | None:
        found = _FROM.search(received.content.partition(b"\r\n\r\n")[0])
        author = found[1].decode() if found else ""
        if author in self._authors and author not in self._moody:
            return None
        self._moody.discard(author)
        self.refusals[author] += 1
        return (
            f"554 5.2.252 SendAsDenied; {self._account} not allowed to send as {author}; "
            "STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied"
        )

    async def _on_mail(self, session: Session, argument: str) -> None:
        self.most_open = max(self.most_open, self.open)
        if self.open > CONNECTIONS:
            self.throttled += 1
            await self._send(
                session, b"432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending\r\n"
            )
            return
        await super()._on_mail(session, argument)

    async def _on_data(self, session: Session, argument: str) -> None:
        if session.recipients:
            await self._pace()
        await super()._on_data(session, argument)

    async def _pace(self) -> None:
        """Wait until fewer than 30 were begun within the last minute."""
        clock = asyncio.get_running_loop().time
        while True:
            while self._taken and clock() - self._taken[0] >= 60.0:
                self._taken.popleft()
            if len(self._taken) < A_MINUTE:
                self._taken.append(clock())
                return
            self.delayed += 1
            await asyncio.sleep(60.001 - (clock() - self._taken[0]))  # not less than the clock can tell
