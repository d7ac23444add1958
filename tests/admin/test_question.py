"""What an operator asks for survives its way as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from relay.admin.errors import Refused
from relay.admin.question import checked, fields_of, number_of, verb_of, wanted_of
from relay.queue.listing import Place, Verb, Wanted

EVERYTHING = Wanted(
    place=Place.HELD,
    route="default",
    to="*@example.com",
    from_="<>",
    since=datetime(2026, 3, 2, 12, 0, tzinfo=timezone(timedelta(hours=1))),
)


@pytest.mark.parametrize("wanted", [Wanted(), EVERYTHING, Wanted(place=Place.FINISHED)])
def test_a_question_comes_back_as_it_was(wanted: Wanted) -> None:
    assert wanted_of(fields_of(wanted)) == wanted
    assert checked(wanted) == wanted


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
    assert verb_of("bounce") is Verb.BOUNCE
    with pytest.raises(Refused, match=r'no verb "retri" \(did you mean "retry"\?\)'):
        verb_of("retri")
    for nonsense in (None, 7, ["retry"]):
        with pytest.raises(Refused, match="known: bounce, cancel, hold, release, reroute, retry"):
            verb_of(nonsense)


@pytest.mark.parametrize("text", ["-1", "1.5", "", "٣", "9" * 19, "1e3"])
def test_a_number_is_digits(text: str) -> None:
    assert number_of({"limit": "7"}, "limit", 100) == 7
    assert number_of({}, "limit", 100) == 100
    with pytest.raises(Refused, match="limit must be a number"):
        number_of({"limit": text}, "limit", 100)


def test_a_moment_may_be_written_in_any_offset() -> None:
    assert wanted_of({"since": "2026-03-02T13:00:00+01:00"}).since == datetime(2026, 3, 2, 12, tzinfo=UTC)
