"""When mail is tried again: what the schedule of a route says, and what doubt adds to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from relay.policy.retry import IN_DOUBT_LONGEST, Schedule

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
INTERVALS = st.lists(
    st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=1)), min_size=1, max_size=6
).map(tuple)


@given(INTERVALS, st.integers(0, 20), st.floats(0, 1))
@example((timedelta(hours=1),), 1, 0.5)
def test_after_doubt_nobody_waits_for_less_than_the_schedule_says(
    intervals: tuple[timedelta, ...], attempt: int, jitter: float
) -> None:
    schedule = Schedule(intervals, timedelta(days=5))
    without, doubted = (
        schedule.next_attempt(NOON, attempt, jitter, in_doubt=in_doubt) - NOON for in_doubt in (False, True)
    )
    assert doubted >= without
    assert doubted <= max(without, min(2 * without, 1.1 * IN_DOUBT_LONGEST)) + timedelta(microseconds=2)


@given(INTERVALS, st.integers(1, 20), st.floats(0, 1))
def test_the_nth_interval_follows_the_nth_attempt_and_the_last_one_repeats(
    intervals: tuple[timedelta, ...], attempt: int, jitter: float
) -> None:
    interval = intervals[attempt - 1] if attempt <= len(intervals) else intervals[-1]
    pause = Schedule(intervals, timedelta(days=5)).next_attempt(NOON, attempt, jitter) - NOON
    assert 0.9 * interval - timedelta(microseconds=1) <= pause <= 1.1 * interval + timedelta(microseconds=1)
