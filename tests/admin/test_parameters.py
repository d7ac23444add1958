"""What an operator asks for is read from text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from relay.admin.errors import Refused
from relay.admin.parameters import VERB, WANTED, Parameter, number, values
from relay.queue.listing import Place, Verb, Wanted

TEXTS = {
    "state": "held",
    "route": "default",
    "to": "*@example.com",
    "from": "<>",
    "since": "2026-03-02T12:00:00+01:00",
}
EVERYTHING = Wanted(
    place=Place.HELD,
    route="default",
    to="*@example.com",
    from_="<>",
    since=datetime(2026, 3, 2, 12, 0, tzinfo=timezone(timedelta(hours=1))),
)


def wanted_of(given: Mapping[str, object]) -> Wanted:
    wanted = read(WANTED, "all", given)
    assert isinstance(wanted, Wanted)
    return wanted


def read(parameter: Parameter, name: str, *given: object) -> Any:
    return values({name: parameter}, dict.fromkeys([name] if given else [], *given))[name]


@pytest.mark.parametrize(
    ("texts", "wanted"), [({}, Wanted()), (TEXTS, EVERYTHING), ({"state": "finished"}, Wanted(place=Place.FINISHED))]
)
def test_every_condition_is_read(texts: dict[str, str], wanted: Wanted) -> None:
    assert wanted_of(texts) == wanted


def test_an_empty_condition_is_no_condition() -> None:
    assert wanted_of({"state": "", "to": "", "since": ""}) == Wanted()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"stat": "held"}, 'there is no condition "stat" (did you mean "state"?)'),
        ({"state": "hold"}, 'there is no state "hold" (did you mean "held"?)'),
        ({"since": "yesterday"}, "since must be a time with its offset, as 2026-03-02T12:00:00+01:00"),
        ({"since": "2026-03-02T12:00:00"}, "since must be a time with its offset, as 2026-03-02T12:00:00+01:00"),
        ({"to": "a" * 321}, "to is too long: at most 320 characters"),
        ({"to": "a\x00b"}, "to has characters that cannot be printed"),
        ({"from": "\udcff@example.nl"}, "from has characters that cannot be printed"),
        ({"route": 7}, "route must be text"),
    ],
)
def test_what_cannot_be_asked_for_gets_one_sentence(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(Refused) as refused:
        wanted_of(fields)
    assert str(refused.value) == sentence


def test_a_verb_is_a_word_that_there_is() -> None:
    assert read(VERB, "verb", "bounce") is Verb.BOUNCE
    with pytest.raises(Refused, match=r'no verb "retri" \(did you mean "retry"\?\)'):
        read(VERB, "verb", "retri")
    for nonsense in (None, 7, ["retry"]):
        with pytest.raises(Refused, match="known: bounce, cancel, hold, release, reroute, retry"):
            read(VERB, "verb", nonsense)


@pytest.mark.parametrize("text", ["-1", "1.5", "", "٣", "9" * 19, "1e3"])
def test_a_number_is_digits(text: str) -> None:
    assert read(number(100), "limit", "7") == 7
    assert read(number(100), "limit") == 100
    with pytest.raises(Refused, match="limit must be a number"):
        read(number(100), "limit", text)


def test_a_moment_may_be_written_in_any_offset() -> None:
    assert wanted_of({"since": "2026-03-02T13:00:00+01:00"}).since == datetime(2026, 3, 2, 12, tzinfo=UTC)
