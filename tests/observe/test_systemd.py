"""What systemd says in the environment."""

from __future__ import annotations

import os

import pytest

from relay.observe import systemd


@pytest.mark.parametrize("usec", ["", "0", "-1", "1e999", "NaN", "²", "٣", "9" * 20, "9" * 5000])
def test_a_watchdog_that_names_no_period_does_not_watch(monkeypatch: pytest.MonkeyPatch, usec: str) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    assert systemd.watchdog_period() is None


def test_a_watchdog_gets_a_sign_of_life_twice_in_its_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert systemd.watchdog_period() == 30
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert systemd.watchdog_period() is None
