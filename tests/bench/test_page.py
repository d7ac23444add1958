"""The page about the benchmarks says what was measured, and no more."""

from __future__ import annotations

from bench.page import PATH, render
from bench.results import Measurement, Results, read


def results(*measurements: Measurement, lacking: tuple[str, ...] = ()) -> Results:
    return Results("2026-01-02", "make bench", {"Kernel": "Linux 6"}, lacking, measurements)


def rates(peer: str, *rates: float) -> list[Measurement]:
    return [Measurement("plain", "small20", peer, number, {"rate": rate}) for number, rate in enumerate(rates)]


def test_ratios_are_formed_within_a_repetition() -> None:
    page = render(results(*rates("postfix", 100, 200, 400), *rates("relay", 600, 1600, 2000)))
    assert "| messages a second, 20 sessions, × Postfix | ≥ 5 × | ≥ 8 × | 6.00 (5.00–8.00) × | met |" in page


def test_an_aim_that_was_missed_is_said_to_be() -> None:
    page = render(results(*rates("postfix", 100), *rates("relay", 450)))
    assert "| 4.50 × | **not met** |" in page


def test_what_was_not_measured_is_said_and_has_no_table() -> None:
    page = render(results(*rates("relay", 450), lacking=("Postfix is not installed.",)))
    assert "- Not done: Postfix is not installed." in page
    assert "| – | not measured |" in page
    assert "With TLS and AUTH" not in page


def test_a_run_that_failed_is_told_with_its_reason() -> None:
    page = render(results(Measurement("plain", "lat", "relay", 0, trouble="a message did not arrive")))
    assert "- No figures: plain, lat, relay: a message did not arrive" in page


def test_the_page_is_what_the_kept_results_say() -> None:
    """Where it is not: python -m bench.page."""
    assert PATH.read_text() == render(read())
