"""How much runs (`tests/kit/extent.py`), and what holds for every run."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.kit import extent
from tests.kit.extent import T

extent.prepare()


def pytest_configure(config: pytest.Config) -> None:
    # Who runs in the background of a shell ignores Ctrl-C, and so would the commands that tests stop by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "steps: counts what a message costs, on locked versions")
    config.addinivalue_line("markers", "repetition: another one of a kind; `make test` does without")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if extent.EXTENT == "all":
        return
    if extent.KINDS_ONLY:
        left = [item for item in items if item.get_closest_marker("repetition")]
    else:
        left = [item for item in items if not extent.has_more(item)]
    config.hook.pytest_deselected(items=left)
    gone = set(left)
    items[:] = [item for item in items if item not in gone]


@pytest.fixture
def rounds() -> Callable[[T, T], T]:
    """`rounds(5, 100)`: the first for `make test`, the second where everything runs."""
    return lambda few, many: few if extent.KINDS_ONLY else many
