"""docs/reliability.md tells what the suite saw, of every test of the suite."""

from __future__ import annotations

import re
from pathlib import Path

from tests.torture.page import page
from tests.torture.results import kept

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "reliability.md"


def test_the_page_about_reliability_is_what_the_suite_saw() -> None:
    assert PAGE.read_text() == page(kept().values())


def test_every_attack_has_its_result_on_the_page() -> None:
    """Functions, whatever their parameters are."""
    attacks = set[str]()
    for file in sorted(HERE.glob("test_*.py")):
        for function in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.M):
            attacks.add(f"tests/torture/{file.name}::{function}")
    attacks -= {attack for attack in attacks if attack.startswith("tests/torture/test_page.py")}
    assert {test.partition("[")[0] for test in kept()} == attacks


def test_every_result_on_the_page_is_a_good_one() -> None:
    assert {one.test: one.outcome for one in kept().values() if one.outcome != "passed"} == {}
