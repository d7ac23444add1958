"""docs/reliability.md tells what the suite saw, of every test of the suite."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.torture.page import page
from tests.torture.results import kept

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "reliability.md"


def test_the_page_about_reliability_is_what_the_suite_saw() -> None:
    assert PAGE.read_text() == page(kept().values())


def test_every_attack_has_its_result_on_the_page() -> None:
    """Functions, whatever their parameters are."""
    attacks = {f"tests/torture/{file.name}::{name}" for file in HERE.glob("test_*.py") for name in attacks_in(file)}
    assert {test.partition("[")[0] for test in kept()} == attacks


def attacks_in(file: Path) -> list[str]:
    """The tests that name a promise."""
    found = [one for one in ast.parse(file.read_text()).body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [
        one.name
        for one in found
        if any(ast.unparse(mark).startswith("pytest.mark.promise(") for mark in one.decorator_list)
    ]


def test_every_result_on_the_page_is_a_good_one() -> None:
    assert {one.test: one.outcome for one in kept().values() if one.outcome != "passed"} == {}
