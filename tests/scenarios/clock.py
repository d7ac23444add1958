"""The wall clock of a relay, for a test to turn, and the looks for alarms, which follow each other at once.

clock = Clock.of(monkeypatch)
clock.ahead = timedelta(days=14)
await clock.looked()
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from relay import wiring
from relay.delivery import alarm
from relay.delivery.alarm import Alarms
from tests.kit.house import PATIENCE


class Clock:
    """`ahead` is how far it is turned."""

    def __init__(self) -> None:
        self.ahead = timedelta()
        self._looks = 0
        self._changed = asyncio.Event()

    @classmethod
    def of(cls, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """The clock of every relay in this test."""
        clock, look = cls(), Alarms.look

        async def counted(alarms: Alarms) -> None:
            await look(alarms)
            clock._looks += 1
            clock._changed.set()

        monkeypatch.setattr(wiring, "now", clock.now)
        monkeypatch.setattr(Alarms, "look", counted)
        monkeypatch.setattr(alarm, "EVERY", 0.02)
        return clock

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def looked(self) -> None:
        """Wait until a look for alarms has begun and ended from here on."""
        enough = self._looks + 2
        async with asyncio.timeout(PATIENCE):
            while self._looks < enough:
                self._changed.clear()
                await self._changed.wait()
