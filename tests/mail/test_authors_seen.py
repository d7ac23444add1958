"""From fields as software writes them (`authors/`): the person and the address that somebody who reads them finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from relay.mail.author import Author, authors_of, parse

TABLES = Path(__file__).parent / "authors"


def rows(*names: str) -> list[Any]:
    found = [row for name in names for row in yaml.safe_load((TABLES / f"{name}.yaml").read_text())]
    return [pytest.param(row["from"].encode(), row["is"], id=row["from"]) for row in found]


@pytest.mark.parametrize(("value", "people"), rows("seen", "later"))
def test_person_and_address_are_found_where_a_reader_finds_them(value: bytes, people: list[list[str | None]]) -> None:
    assert list(map(list, authors_of([value]))) == people


@pytest.mark.parametrize(("value", "people"), rows("others"))
def test_what_names_several_or_nobody_is_not_taken_for_one_person(value: bytes, people: list[list[str | None]]) -> None:
    assert list(map(list, authors_of([value]))) == people


def test_the_tables_are_long_enough_to_show_kinds() -> None:
    assert len(rows("seen", "later")) >= 35
    assert len(rows("others")) >= 10


@pytest.mark.parametrize(
    ("value", "mailboxes"),
    [
        (b"root, jan@example.nl", [("root", None), ("", "jan@example.nl")]),
        (b"root; piet, jan@example.nl (Jan)", [("root", None), ("piet", None), ("Jan", "jan@example.nl")]),
        (b"Bakker, Jan jan@example.nl", [("Bakker, Jan", "jan@example.nl")]),
        (b"Beheer <root>", [("root", None)]),
        (b"root (Beheer, admin@example.nl)", [("root", None)]),
        (b"Bakker, Jan <jan@example.nl>", [("Bakker, Jan", "jan@example.nl")]),
        (b"jan@example.nl, root", [("", "jan@example.nl"), ("root", None)]),
    ],
)
def test_on_a_machine_words_without_brackets_may_be_its_own_mailboxes(
    value: bytes, mailboxes: list[tuple[str, str | None]]
) -> None:
    assert parse(value, local=True) == tuple(Author(*one) for one in mailboxes)
