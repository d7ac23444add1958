"""When to try again: a retry list such as "1m, 5m*2, 15m, 1h*3, 4h", and a lifetime.

The last interval repeats until the lifetime ends (RFC 5321, section 4.5.4.1).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from relay.values import frozen

IN_DOUBT_LONGEST = timedelta(minutes=15)
SET_ASIDE_LONGEST = timedelta(minutes=5)
ASKED_LONGEST = timedelta(minutes=15)


@frozen
class Schedule:
    """`intervals` is not empty; `intervals[n]` follows the attempt n + 1."""

    intervals: tuple[timedelta, ...]
    lifetime: timedelta

    def interval(self, attempt: int) -> timedelta:
        """The pause after attempt number `attempt` (1 is the first)."""
        return self.intervals[min(max(attempt, 1), len(self.intervals)) - 1]

    def next_attempt(self, now: datetime, attempt: int, jitter: float, *, in_doubt: bool = False) -> datetime:
        """When to try again after attempt number `attempt`; `jitter` is chance between 0 and 1, for ± 10 %.

        After an attempt that left delivery in doubt, twice the interval, at most 15 minutes
        (or the interval itself, where that is longer).
        """
        pause = self.interval(attempt)
        if in_doubt:
            pause = max(pause, min(pause * 2, IN_DOUBT_LONGEST))
        return now + pause * (0.9 + 0.2 * jitter)

    def set_aside(self, failures: int, jitter: float, asked: float | None = None) -> timedelta:
        """How long an upstream is left alone after `failures` failures in a row; at most 5 minutes.

        Where it asked for more, so long as that (`asked`, in seconds), at most 15 minutes.
        """
        pause = min(self.interval(failures), SET_ASIDE_LONGEST) * (0.9 + 0.2 * jitter)
        return pause if asked is None else max(pause, min(timedelta(seconds=asked), ASKED_LONGEST))
