"""The page about faults says what the tests show."""

from __future__ import annotations

from pathlib import Path

from tests.faults.page import faults_page

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


def test_the_page_about_faults_is_the_one_the_table_makes() -> None:
    assert PAGE.read_text(encoding="utf-8") == faults_page(), (
        "make it anew: python -m tests.faults.page > docs/faults.md"
    )
