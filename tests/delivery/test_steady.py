"""Whether the wall clock can be believed."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.steady import BACK, DIGESTED_AFTER, JUMP, Steady, WentBack


class Clocks:
    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.monotonic = 50.0

    def go_on(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def steady(self) -> Steady:
        return Steady(lambda: self.wall, lambda: self.monotonic)


def test_after_a_jump_forward_the_clock_is_not_believed_for_a_while() -> None:
    clocks = Clocks()
    steady = clocks.steady()
    assert steady()
    clocks.wall += timedelta(hours=30).total_seconds()
    assert not steady()
    clocks.go_on(DIGESTED_AFTER - 1)
    assert not steady()
    clocks.go_on(1)
    assert steady()


def test_a_jump_is_seen_however_long_nobody_looked() -> None:
    clocks = Clocks()
    steady = clocks.steady()
    clocks.go_on(86_400 * 30)
    clocks.wall += JUMP + 1
    assert not steady()


def test_a_small_correction_and_a_step_back_change_nothing() -> None:
    clocks = Clocks()
    steady = clocks.steady()
    clocks.wall += JUMP / 2
    assert steady()
    clocks.wall -= 5 * JUMP
    assert steady()


def test_a_clock_that_goes_back_is_noticed_once_however_long_nobody_looked() -> None:
    clocks = Clocks()
    went_back = WentBack(lambda: clocks.wall, lambda: clocks.monotonic)
    clocks.go_on(86_400)
    assert not went_back()
    clocks.wall -= timedelta(days=30).total_seconds()
    clocks.go_on(7_200)
    assert went_back()
    assert not went_back()
    clocks.wall -= BACK / 2  # a small correction
    assert not went_back()
    clocks.wall += timedelta(days=30).total_seconds()
    assert not went_back()


@given(st.lists(st.floats(0, 1e7), max_size=20))
def test_time_that_only_passes_is_always_believed(passing: list[float]) -> None:
    clocks = Clocks()
    steady = clocks.steady()
    for seconds in passing:
        clocks.go_on(seconds)
        assert steady()
