"""Tables fit their terminal, and are lines of words for everything else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from relay.cli.human import age, octets, since
from relay.cli.table import Column, Part, table, text
from relay.errors import RelayError

COLUMNS = (
    Column("ID"),
    Column("SIZE", right=True, rank=2),
    Column("ROUTE", rank=1),
    Column("FROM", least=10, glue="\\x20"),
    Column("REPLY", least=20, folds=2, ends=True),
)
NOW = datetime(2026, 11, 24, 7, 0, tzinfo=UTC)


def a_row(
    *, name: str = "7QK3", size: str = "1.2 MiB", route: str = "default", path: str = "jan@x.nl", reply: str = ""
) -> list[Part]:
    return [(name, ""), (size, ""), (route, ""), (path, ""), (reply, "")]


def drawn(rows: list[list[Part]], width: int | None) -> list[str]:
    return [text(line) for line in table(COLUMNS, rows, width=width)]


LONG = a_row(
    path="jan.van.der.berg@accountantskantoor.example", reply="451 4.7.1 Greylisted, try again in five minutes"
)


def test_where_there_is_room_everything_is_shown() -> None:
    title, row = drawn([LONG], 160)
    assert title.split() == ["ID", "SIZE", "ROUTE", "FROM", "REPLY"]
    assert row.endswith("jan.van.der.berg@accountantskantoor.example  451 4.7.1 Greylisted, try again in five minutes")


def test_addresses_are_cut_in_the_middle_and_ids_never() -> None:
    row = drawn([LONG], 45)[1]
    assert row.startswith("7QK3  ")
    assert "jan.van.de…or.example" in row


def test_two_addresses_look_alike_only_where_nothing_else_can_give_way() -> None:
    rows = [a_row(path=f"boekhouding@klant-{number}.debiteuren.example") for number in (170, 171)]
    for width in range(46, 100):
        title, one, other = drawn(rows, width)
        assert one != other, width
        assert max(map(cell_len, (title, one, other))) <= width
    assert "SIZE" in drawn(rows, 70)[0]
    assert drawn(rows, 46)[0].split() == ["ID", "FROM"]
    assert "SIZE" in drawn(rows[:1], 50)[0]


def test_what_folds_goes_below_its_row_before_anything_is_left_out() -> None:
    title, row, below = drawn([LONG], 51)
    assert title.split() == ["ID", "SIZE", "ROUTE", "FROM"]
    assert "default" in row
    assert below == "  451 4.7.1 Greylisted, try again in five minutes"


def test_the_least_important_columns_are_left_out_first() -> None:
    assert drawn([LONG], 33)[0].split() == ["ID", "ROUTE", "FROM"]
    assert drawn([LONG], 20)[0].split() == ["ID", "FROM"]


def test_a_column_without_anything_in_it_is_left_out_on_a_terminal_only() -> None:
    assert drawn([a_row(route="")], 80)[0].split() == ["ID", "SIZE", "FROM"]
    assert drawn([a_row(route="")], None)[0].split() == ["ID", "SIZE", "ROUTE", "FROM", "REPLY"]


def test_in_a_pipe_every_row_is_one_line_of_whole_values_and_single_words() -> None:
    odd = a_row(path='"jan jansen"@x.nl', route="", reply="550 no such user")
    title, first, second = drawn([LONG, odd], None)
    assert title.split() == ["ID", "SIZE", "ROUTE", "FROM", "REPLY"]
    assert first.split(maxsplit=4)[3] == "jan.van.der.berg@accountantskantoor.example"
    assert second.split(maxsplit=4) == ["7QK3", "1.2MiB", "-", '"jan\\x20jansen"@x.nl', "550 no such user"]
    assert "\t" not in first + second


def test_one_very_long_value_does_not_move_the_other_lines_of_a_pipe_apart() -> None:
    _, _, ordinary = drawn([a_row(path="x" * 5_000), a_row()], None)
    assert len(ordinary) < 100


def test_a_value_is_never_markup() -> None:
    assert "[bold]x[/bold]" in drawn([a_row(path="[bold]x[/bold]")], 80)[1]


@given(
    st.lists(st.tuples(*[st.text(st.characters(categories=("L", "N", "P")), max_size=60)] * 2), max_size=4),
    st.integers(40, 200),
)
def test_no_line_is_wider_than_the_terminal(values: list[tuple[str, str]], width: int) -> None:
    rows = [a_row(path=path, reply=reply) for path, reply in values]
    beside = [line for line in drawn(rows, width) if not line.startswith("  ")]
    assert all(cell_len(line) <= width for line in beside)


@given(st.text(st.characters(categories=("L", "N", "P"))), st.integers(3, 40))
def test_what_is_cut_fits_and_keeps_both_ends(words: str, width: int) -> None:
    short = Column("").cut(words, width)
    assert cell_len(short) <= width
    if short != words:
        head, _, tail = short.partition("…")
        assert words.startswith(head)
        assert words.endswith(tail)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-5, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (3_599, "59m"),
        (3_600, "1h"),
        (11_520, "3h 12m"),
        (86_400, "1d"),
        (200_000, "2d 7h"),
    ],
)
def test_ages_are_two_units_at_most(seconds: float, told: str) -> None:
    assert age(seconds) == told


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_258_291, "1.2 MiB"),
        (2**20 - 1, "1.0 MiB"),
        (2**50, "1024 TiB"),
    ],
)
def test_sizes_are_short(number: int, told: str) -> None:
    assert octets(number) == told


def test_since_takes_a_duration_a_date_or_a_time() -> None:
    assert since("90m", NOW) == NOW - timedelta(minutes=90)
    assert since("2d", NOW) == NOW - timedelta(days=2)
    assert since("2026-11-01T08:00+01:00", NOW) == datetime(2026, 11, 1, 7, 0, tzinfo=UTC)
    assert since("2026-11-01", NOW) == datetime(2026, 11, 1).astimezone()
    assert since("2026-11-01 08:00", NOW) == datetime(2026, 11, 1, 8).astimezone()


@pytest.mark.parametrize("text", ["gisteren", "5", "", "2026-13-01", "9999999d", "2027-01-01", "\x1b[31m"])
def test_since_refuses_what_is_no_time_or_has_not_come(text: str) -> None:
    with pytest.raises(RelayError, match="--since: ") as refused:
        since(text, NOW)
    assert "\x1b" not in str(refused.value)
