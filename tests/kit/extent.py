"""How much of the suite runs. RELAY_TESTS=kinds (`make test`) has one of each kind; without it everything runs.

What is there again and again says so, and `make test` has less of it:

    @examples(300)                                        of Hypothesis, instead of `@settings(max_examples=300)`
    @pytest.mark.parametrize("case", kinds(CASES, key))   the first of each kind; the others are repetitions
    @pytest.mark.repetition                               another one of a kind that is seen elsewhere
    def test_…(rounds): … rounds(5, 100)                  the first number for `make test`, else the second

RELAY_TESTS=rest is what is more in everything than in `make test`: repetitions, and what has rounds or examples.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

T = TypeVar("T")

EXTENT = os.environ.get("RELAY_TESTS", "all")
assert EXTENT in ("all", "kinds", "rest"), f"RELAY_TESTS={EXTENT}"
KINDS_ONLY = EXTENT == "kinds"
SHARE = 5  # of so many examples `make test` tries one


def examples(count: int, **more: Any) -> settings:
    """`settings` with so many examples. (How long one takes says nothing on a busy machine: none has a deadline.)"""
    return settings(max_examples=max(count // SHARE, 5) if KINDS_ONLY else count, **more)


def kinds(cases: Iterable[T], key: Callable[[T], Hashable], name: Callable[[T], str] = str) -> list[Any]:
    """The cases as parameters; all but the first of each kind are repetitions."""
    seen: set[Hashable] = set()
    made = []
    for case in cases:
        kind = key(case)
        made.append(pytest.param(case, id=name(case), marks=[pytest.mark.repetition] if kind in seen else []))
        seen.add(kind)
    return made


def has_more(item: pytest.Item) -> bool:
    """Whether everything has more of this test than `make test` has."""
    test = getattr(item, "obj", None)
    return (
        item.get_closest_marker("repetition") is not None
        or "rounds" in getattr(item, "fixturenames", ())
        or getattr(test, "is_hypothesis_test", False)
    )


def prepare() -> None:
    """What holds for every example of Hypothesis."""
    settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("house")
    settings.register_profile("house", examples(100))
    settings.load_profile("house")
