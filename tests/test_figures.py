"""What others say that a lifetime, a moment or a number is."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime

import pytest

from relay import figures
from relay.transport.answer import asked_pause

NO_FIGURE = [
    *map(json.loads, ("1e999", "-1e999", "NaN", "true", "false", "null", "[3600]", "{}")),
    "",
    "soon",
    "1e3",
    "-5",
]
NO_FIGURE += ["NaN", "inf", "٣٦٠٠", "3_600", " 3600", "9" * 5000]
LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "value", [*NO_FIGURE, 0, -1, -0.0, 0.0, "0", "0.0", -(2**63), -(10**400)], ids=lambda value: str(value)[:20]
)
def test_what_is_no_finite_number_above_0_is_no_lifetime(value: object) -> None:
    assert figures.lifetime(value) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *((1, 1), (3600, 3600), ("3600", 3600), (3599.9, 3599), ("3599.9", 3599), (0.001, 1), (5e-324, 1)),
        *(
            (86_400, 86_400),
            (86_401, 86_400),
            (2**53 - 1, 86_400),
            (10**18, 86_400),
            (2**63, 86_400),
            (10**400, 86_400),
            (1e299, 86_400),
        ),
    ],
)
def test_a_lifetime_has_whole_seconds_and_a_day_at_most(value: object, seconds: int) -> None:
    assert (figures.lifetime(value), type(figures.lifetime(value))) == (seconds, int)


@pytest.mark.parametrize(
    "value", [*NO_FIGURE, -1, LATEST + 1, 1e18, 2**63, 10**400, -(10**400)], ids=lambda value: str(value)[:20]
)
def test_what_no_calendar_has_is_no_moment(value: object) -> None:
    assert figures.moment(value) is None


@pytest.mark.parametrize("value", [0, 1_700_000_000.5, LATEST])
def test_a_moment_is_a_date_in_every_zone_and_a_day_later(value: float) -> None:
    assert figures.moment(value) == value
    datetime.fromtimestamp(value + figures.DAY).astimezone()


def test_whatever_stands_in_a_date_is_a_moment_or_none() -> None:
    words = ["Mon,", "6", "99999999999", "-1", "Nov", "1994", "0001", "9999", "08:49:37", "99:99", "GMT", "-0000"]
    words += [
        "+9999",
        "-9999",
        "+99999999999999",
        "1e999",
        "nan",
        "٣",
        "::",
        ":",
        "-",
        ",",
        "(c)",
        "1" * 5000,
        "\0",
        "ÿ",
    ]
    chance, now = random.Random(15), datetime(2026, 12, 1, tzinfo=UTC)
    for _ in range(20_000):
        text = " ".join(chance.choices(words, k=chance.randrange(9)))
        found = figures.date(text)
        assert found is None or figures.moment(found.timestamp()) is not None, text
        pause = asked_pause(text, text[::-1], now)
        assert pause is None or 0 <= pause <= figures.DAY, text
    assert figures.date("Sun, 06 Nov 1994 08:49:37 GMT") == datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
    assert figures.date("Sun, 06 Nov 1994 08:49:37 -0000") == datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)


@pytest.mark.parametrize("text", ["NaN", "-5", "1e999", "+5", "Sun, 06 Nov 99999999999 08:49:37 GMT"])
def test_a_pause_that_is_none_is_not_kept(text: str) -> None:
    assert asked_pause(text, "", datetime.now(UTC)) is None


@pytest.mark.parametrize("text", ["99999", "9" * 5000, "Fri, 31 Dec 9998 23:59:59 GMT"])
def test_a_pause_is_a_day_at_most(text: str) -> None:
    assert asked_pause(text, "", datetime.now(UTC)) == figures.DAY


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "", "{", b"\xff\xfe\xfd"])
def test_what_is_no_json_or_too_deep_says_nothing(text: str | bytes) -> None:
    assert figures.json_of(text) is None


@pytest.mark.parametrize("end", ["", None, "Bad time value", "Jan  1 00:00:00 0000 GMT", "Jan 1 00:00:00 99999 GMT", 5])
def test_a_certificate_that_names_no_end_has_none(end: object) -> None:
    assert figures.certificate_end(end) is None
    assert figures.certificate_end("Dec 31 23:59:59 9998 GMT") == datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "-1", "+1", "1e3", "²", "٣", "101", "9" * 21, "9" * 5000])
def test_what_is_not_written_in_digits_or_too_large_is_no_number(text: str) -> None:
    assert figures.count(text, 100) is None
    assert figures.count("100", 100) == 100
