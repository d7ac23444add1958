"""The arithmetic of pace: in no window more than allowed, and not much less."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.policy import pacing
from relay.policy.pacing import DAY, Limit, Uses
from relay.policy.rate import Rate

HURRY = st.sampled_from([0.0, 0.001, 0.02, 0.4, 1.0, 3.0, 17.0, 59.9, 60.0, 61.1])


@given(
    count=st.integers(1, 12),
    seconds=st.sampled_from([1.0, 60.0]),
    steps=st.lists(st.tuples(HURRY, st.integers(1, 4)), max_size=80),
)
def test_in_no_window_more_leaves_than_allowed_whenever_it_is_asked(
    count: int, seconds: float, steps: list[tuple[float, int]]
) -> None:
    limit = Limit(count, seconds)
    now, uses, left = 1000.0, (), list[float]()
    for pause, wanted in steps:
        now += pause
        for _ in range(min(wanted, pacing.free(limit, uses, now, session_code=True))):
            uses = pacing.noted(limit, uses, now, 1)
            left.append(now)
    for first in left:
        assert sum(first <= at < first + seconds for at in left) <= count


@given(st.integers(2, 40), st.sampled_from([1.0, 60.0, 3600.0]))
def test_whoever_sends_all_the_time_gets_nearly_all_that_is_allowed(count: int, seconds: float) -> None:
    limit, now, sent = Limit(count, seconds), 0.0, 0
    uses: Uses = ()
    while now < 20 * seconds:
        pause = pacing.opens_in(limit, uses, now, 1, session_code=True)
        if pause == 0:
            uses = pacing.noted(limit, uses, now, 1)
            sent += 1
        now += pause
    assert sent >= 19 * count
    assert len(uses) <= pacing.GRAINS + 2


@given(st.lists(HURRY, min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_what_is_said_to_be_free_later_is_free_then_and_not_before(pauses: list[float], most: int, wanted: int) -> None:
    limit = Limit(most, 60.0)
    wanted = min(wanted, most)
    now = 0.0
    uses: Uses = ()
    for pause in pauses:
        now += pause
        if pacing.free(limit, uses, now, session_code=True) > 0:
            uses = pacing.noted(limit, uses, now, 1)
    opens = pacing.opens_in(limit, uses, now, wanted, session_code=True)
    assert pacing.free(limit, uses, now + opens + 1e-6, session_code=True) >= wanted
    if opens > 0.01:
        assert pacing.free(limit, uses, now + opens - 0.01, session_code=True) < wanted


@given(st.lists(HURRY, max_size=40), HURRY, st.floats(0, 1e6))
def test_what_was_written_down_never_counts_for_less_after_a_restart(
    pauses: list[float], elapsed: float, other_clock: float
) -> None:
    limit = Limit(30, 60.0)
    now = 0.0
    uses: Uses = ()
    for pause in pauses:
        now += pause
        uses = pacing.noted(limit, uses, now, 1)
    again = pacing.dated(pacing.aged(uses, now), other_clock, elapsed)
    assert pacing.used(limit, again, other_clock) >= pacing.used(limit, uses, now + elapsed)


@pytest.mark.parametrize(
    ("rate", "kept"), [("1", 0), ("2", 1), ("4", 1), ("5", 1), ("10", 2), ("30", 6)], ids=lambda text: text
)
def test_a_fifth_is_kept_for_session_codes_and_at_least_one(rate: str, kept: int) -> None:
    (limit,) = pacing.limits((Rate(int(rate), 60.0),), None, codes=True)
    assert (limit.most(session_code=True), limit.most(session_code=False)) == (int(rate), int(rate) - kept)
    (limit,) = pacing.limits((Rate(int(rate), 60.0),), None, codes=False)
    assert limit.kept == 0


def test_of_several_rates_the_strictest_of_each_length_counts() -> None:
    rates = (Rate(30, 60.0), Rate(20, 60.0), Rate(500, 3600.0))
    assert pacing.limits(rates, 10_000, codes=False) == (
        Limit(20, 60.0),
        Limit(500, 3600.0),
        Limit(10_000, DAY, of_recipients=True),
    )


def test_a_quota_clears_when_the_oldest_leaves_the_window_if_what_left_here_explains_it() -> None:
    limit = Limit(100, DAY, of_recipients=True)
    uses = pacing.noted(limit, (), 0.0, 60)
    clears = pacing.clears_in([(limit, uses)], 3600.0)
    assert clears is not None
    assert DAY - 3600 <= clears <= DAY - 3600 + 2 * limit.grain
    assert pacing.clears_in([(limit, pacing.noted(limit, (), 0.0, 10))], 3600.0) is None  # somebody else's
    assert pacing.clears_in([(Limit(30, 60.0), ((3600.0, 30),))], 3600.0) is None  # no quota is so short
