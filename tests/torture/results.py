"""What the torture suite saw last: `results.json`, a result for each test, each from its own last kept run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

import relay

PATH = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Result:
    """`test` is pytest's name of it; `long`: the long form ran; `seconds` it took; `seen` is in its own words."""

    test: str
    promise: str
    outcome: str
    long: bool
    seconds: float
    seen: str
    day: str = ""
    version: str = ""


def promise_of(item: pytest.Item) -> str:
    """What the test promises, "" where it says nothing."""
    mark = item.get_closest_marker("promise")
    return str(mark.args[0]) if mark else ""


def kept() -> dict[str, Result]:
    """By the name of the test."""
    if not PATH.exists():
        return {}
    return {one["test"]: Result(**one) for one in json.loads(PATH.read_text())}


def keep(result: Result) -> None:
    """In the place of what that test saw before."""
    dated = Result(
        **{
            **asdict(result),
            "seconds": round(result.seconds, 1),
            "day": datetime.now(UTC).date().isoformat(),
            "version": relay.__version__,
        }
    )
    write({**kept(), dated.test: dated}.values())


def write(results: Iterable[Result]) -> None:
    """All of them, in the order of their names."""
    ordered = sorted(results, key=lambda one: one.test)
    PATH.write_text(json.dumps([asdict(one) for one in ordered], indent=1, ensure_ascii=False) + "\n")
