"""How much each reader of reports was sent within the last hour: at most twenty messages.

What goes beyond that is collected; once something is, all that follows is, so that nobody reads of things out of order.
It is the memory of what the store keeps (`QueueStore.readers`), changed the moment a message is written, and once
a line is kept. On the event loop only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta

from relay.mail.address import Address
from relay.queue.model import Reader, Told

HOUR = timedelta(hours=1)
MOST_MESSAGES = 20  # to one reader within an hour
MOST_LINES = 500  # of one summary


class Window:
    """`readers` are those of the hour before."""

    def __init__(self, readers: Sequence[Reader] = ()) -> None:
        self._sent: dict[Address, deque[datetime]] = {}
        self._collected: dict[Address, int] = {}
        self._crowded: set[Address] = set()  # the only ones who may have enough
        self._pruned_at: datetime | None = None
        for reader in readers:
            for at in reader.sent:
                self._note_sent(reader.address, at)
            if reader.collected:
                self._note_collected(reader.address, reader.collected)

    def full(self, now: datetime) -> frozenset[Address]:
        """Who gets no further message now."""
        if not self._crowded:
            return frozenset()
        return frozenset([one for one in self._crowded if one in self._collected or not self._has_room(one, now)])

    def note(self, told: Sequence[Told]) -> None:
        """These reports were written or collected."""
        for one in told:
            if one.line:
                self._note_collected(one.reader, 1)
            else:
                self._note_sent(one.reader, one.at)

    def collected(self, reader: Address) -> int:
        """How many lines wait for a summary."""
        return self._collected.get(reader, 0)

    def due(self, now: datetime) -> list[Address]:
        """Who is to have a summary."""
        return [reader for reader in self._collected if self.is_due(reader, now)]

    def is_due(self, reader: Address, now: datetime) -> bool:
        """True when something is collected, and there is room for a message or so much of it that none fits more."""
        lines = self.collected(reader)
        return lines >= MOST_LINES or (lines > 0 and self._has_room(reader, now))

    def summarised(self, reader: Address, lines: int, now: datetime) -> None:
        """A summary of so many went to the reader."""
        self.correct(reader, lines)
        self._note_sent(reader, now)

    def correct(self, reader: Address, lines: int) -> None:
        """So many wait no more, or never did: the store, which knows, has none of them."""
        left = self.collected(reader) - lines
        if left > 0:
            self._collected[reader] = left
            return
        self._collected.pop(reader, None)
        if reader not in self._sent:
            self._crowded.discard(reader)

    def prune(self, now: datetime) -> bool:
        """Once an hour: forget whoever was not written to within it. True when the store may forget something, too."""
        first = self._pruned_at is None
        if self._pruned_at is not None and _within_the_hour(self._pruned_at, now):
            return False
        self._pruned_at = now
        any_sent = bool(self._sent)
        gone = [reader for reader, sent in self._sent.items() if abs(now - sent[-1]) > HOUR]
        for reader in gone:
            del self._sent[reader]
            if reader not in self._collected:
                self._crowded.discard(reader)
        return first or any_sent

    def _note_sent(self, reader: Address, at: datetime) -> None:
        sent = self._sent.setdefault(reader, deque(maxlen=MOST_MESSAGES))
        sent.append(at)
        if len(sent) == MOST_MESSAGES:
            self._crowded.add(reader)

    def _note_collected(self, reader: Address, lines: int) -> None:
        self._collected[reader] = self._collected.get(reader, 0) + lines
        self._crowded.add(reader)

    def _has_room(self, reader: Address, now: datetime) -> bool:
        sent = self._sent.get(reader)
        return sent is None or len(sent) < MOST_MESSAGES or not _within_the_hour(sent[0], now)


def _within_the_hour(at: datetime, now: datetime) -> bool:
    # A moment far ahead comes from a clock that was wrong, and must keep nobody waiting.
    return abs(now - at) < HOUR
