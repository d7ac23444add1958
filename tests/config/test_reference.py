"""The page of all configuration keys is held against the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_origin

from relay.config import reference
from relay.config.fields import Kind

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"


def test_the_page_is_that_of_the_model() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == reference.page(), "write it anew: python -m relay.config.reference > docs/configuration.md"


def test_every_key_stands_on_the_page_with_its_sentence_below_its_section() -> None:
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S))
    for part in reference.parts():
        for name, field in part.model.model_fields.items():
            assert field.description
            row = next(
                line for line in sections[part.title].splitlines() if line.startswith(f"| `{field.alias or name}`")
            )
            assert row.endswith(f" {field.description.replace('|', chr(92) + '|')} |")


def test_every_link_on_the_page_leads_to_one_heading() -> None:
    text = PAGE.read_text(encoding="utf-8")
    headings = [
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^## (.+)$", text, re.M)
    ]
    assert len(headings) == len(set(headings))
    links = re.findall(r"\]\(#([^)]+)\)", text)
    assert len(links) > 10
    assert set(links) <= set(headings)


def kinds(hint: object) -> set[str]:
    here = {extra.word for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Kind)}
    return here.union(*(kinds(each) for each in get_args(hint))) if get_origin(hint) or here else here


def test_every_kind_of_value_is_explained() -> None:
    used = {word for part in reference.parts() for _, hint in reference._hints(part.model) for word in kinds(hint)}
    plain = {word.removesuffix(", or a list").removesuffix(" or IP address") for word in used if "`" not in word}
    assert plain - {"number"} == set(reference.KINDS)


def test_every_row_has_four_cells() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
