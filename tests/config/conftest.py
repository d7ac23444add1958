"""What is installed on the machine that runs the tests is nobody's business here."""

from __future__ import annotations

import pytest

from relay.config import units


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "FOLDERS", ())
