"""The page about events says what the code does."""

from __future__ import annotations

from pathlib import Path

from relay.observe.reference import events_page

PAGE = Path(__file__).parents[2] / "docs" / "events.md"


def test_the_page_about_events_is_the_one_the_code_makes() -> None:
    assert PAGE.read_text(encoding="utf-8") == events_page(), (
        "make it anew: python -m relay.observe.reference > docs/events.md"
    )
