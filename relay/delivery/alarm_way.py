"""What an alarm is, and what a way to send it promises."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from relay.observe.situation import Severity
from relay.values import frozen


@frozen
class Alarm:
    """What is sent. `title` and `text` are in the language of the configuration, `subject` and `letter` in both.

    `about` names the upstreams that it is about; `blocked`: nothing leaves by them now.
    """

    cause: str
    severity: Severity
    since: datetime
    hostname: str
    title: str
    text: str
    subject: str
    letter: str
    about: tuple[str, ...] = ()
    blocked: bool = False


class NotSent(Exception):
    """Nobody got the alarm by this way; the text is one sentence without its full stop."""


class AlarmWay(Protocol):
    """One way: "mail", "command" or "webhook"."""

    @property
    def name(self) -> str: ...

    async def send(self, alarm: Alarm) -> str:
        """Who or what got it, for the log. Raises NotSent."""
        ...

    def parts(self) -> Sequence[AlarmWay]:
        """What it is made of, where an alarm takes the first that works: all of them are to be tried in a test."""
        ...
