"""The form of log lines: order, escaping, and that nothing from a message becomes a line or a field."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import events
from relay.observe.log_lines import LONGEST, Lines
from relay.observe.table import FIELDS, ROWS, Level
from tests.observe.samples import DEFERRED, DELIVERED, FAILED, QUEUED, SAMPLES

AT = 1_795_417_200_123_400_000


@pytest.fixture
def amsterdam(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Amsterdam")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def nanoseconds(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp()) * 1_000_000_000


def text(event: events.Event, *, at: int = AT, journal: bool = False) -> str:
    return Lines("text", journal=journal).line(at, event, Level.DEBUG)


def document(event: events.Event) -> dict[str, object]:
    line = Lines("json", journal=False).line(AT, event, Level.DEBUG)
    assert line.endswith("}\n")
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


@pytest.mark.usefixtures("amsterdam")
def test_a_delivery_is_one_line_with_local_time_and_the_fields_in_order() -> None:
    at = nanoseconds("2026-11-23T08:00:00+01:00") + 123_999_999
    assert text(DELIVERED, at=at) == (
        "2026-11-23T08:00:00.123+01:00 info delivered queue_id=3V7QK2M9XTAB recipient=klant@example.com route=default"
        ' upstream=own rule=fallback attempt=1 code=250 status=2.0.0 text="OK queued" delay=0.153\n'
    )


@pytest.mark.usefixtures("amsterdam")
def test_the_offset_follows_the_clock_change() -> None:
    lines = Lines("text", journal=False)
    summer = nanoseconds("2026-10-25T02:59:59+02:00")
    winter = summer + 1_000_000_000
    assert lines.line(summer, QUEUED, Level.INFO).startswith("2026-10-25T02:59:59.000+02:00 info queued")
    assert lines.line(winter, QUEUED, Level.INFO).startswith("2026-10-25T02:00:00.000+01:00 info queued")


def test_the_journal_gets_a_priority_and_no_time() -> None:
    assert text(DELIVERED, journal=True).startswith("<6>info delivered queue_id=")
    assert text(FAILED, journal=True).startswith("<4>warning failed queue_id=")
    assert text(events.StoreFailed("io", "EIO"), journal=True) == '<3>error store_failed text="io; EIO"\n'


def test_a_journal_line_in_json_is_whole_without_the_journal() -> None:
    line = Lines("json", journal=True).line(AT, DELIVERED, Level.INFO)
    assert line.startswith("<6>{")
    assert json.loads(line[3:])["time"]


def test_the_null_reverse_path_is_shown_and_absent_values_are_not() -> None:
    line = text(dataclasses.replace(QUEUED, reverse_path="", rule=None, because=()))
    assert " reverse_path=<> " in line
    assert "rule=" not in line
    assert "because=" not in line
    assert "user=" not in line


def test_a_deferral_without_a_reply_has_no_code_and_tells_that_it_is_in_doubt() -> None:
    line = text(DEFERRED)
    assert " warning deferred " in line
    assert "code=" not in line
    assert " stage=dot " in line
    assert 'text="in doubt, may be delivered twice; connection lost; next attempt at 2026-11-23T' in line


def test_json_has_numbers_where_the_event_has_them() -> None:
    found = document(DELIVERED)
    assert found["code"] == 250
    assert found["delay"] == 0.153
    assert found["attempt"] == 1
    assert list(found)[:3] == ["time", "level", "event"]


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_every_event_has_a_line_with_fields_of_the_contract_in_their_order(event: events.Event) -> None:
    found = list(document(event))
    assert found[:3] == ["time", "level", "event"]
    assert [field for field in FIELDS if field in found] == found[3:]
    assert text(event).count("\n") == 1


def test_every_event_there_is_has_a_wording_and_a_sample() -> None:
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)}
    kinds.discard(events.Event)
    assert set(ROWS) == kinds
    assert {type(sample) for sample in SAMPLES} == kinds


def test_each_line_word_belongs_to_one_event() -> None:
    words = [row.word for row in ROWS.values()]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    "event",
    [sample for sample in SAMPLES if hasattr(sample, "queue_id") or hasattr(sample, "about")],
    ids=lambda event: type(event).__name__,
)
def test_whoever_looks_for_a_queue_id_finds_every_line_about_the_message(event: events.Event) -> None:
    assert "3V7QK2M9XTAB" in text(event)
    assert getattr(event, "queue_id", "3V7QK2M9XTAB") in text(event)


def test_an_alarm_is_as_loud_as_its_trouble() -> None:
    assert text(events.AlarmRaised("disk-low", "error", "Full.")).endswith(' error alarm text="disk-low; Full."\n')
    assert " warning alarm " in text(events.AlarmRaised("entries-held", "warning", "Two wait."))


def test_an_alarm_mail_is_about_no_message() -> None:
    line = text(events.NotificationQueued("3V7QK2M9XTAC", "", "alarm", "admin@example.nl"))
    assert line.endswith(" info notified queue_id=3V7QK2M9XTAC recipient=admin@example.nl text=alarm\n")


def test_below_the_threshold_there_is_no_line() -> None:
    lines = Lines("text", journal=False)
    assert lines.line(AT, DELIVERED, Level.WARNING) == ""
    assert lines.line(AT, FAILED, Level.WARNING)
    assert lines.line(AT, dataclasses.replace(DEFERRED, in_doubt=False), Level.WARNING) == ""
    assert lines.line(AT, DEFERRED, Level.WARNING)


def test_a_bounce_that_failed_is_an_error_and_wanted_silence_is_not() -> None:
    assert " error not_notified " in text(events.NotificationSuppressed("3V7QK2M9XTAB", "a bounce never bounces"))
    assert " info not_notified " in text(events.NotificationSuppressed("3V7QK2M9XTAB", "notify=never"))


def test_a_forged_line_in_a_value_stays_in_the_value() -> None:
    forged = 'x"\r\n2026-11-23T08:00:00.000+01:00 error failed queue_id=FORGED\x1b[2J\u2028\x9b\udcff\\'
    line = text(dataclasses.replace(FAILED, text=forged))
    assert line.count("\n") == 1
    assert line.rstrip("\n").isprintable()
    assert r'text="x\"\r\n2026-11-23T08:00:00.000+01:00 error failed queue_id=FORGED\x1b[2J\u2028\x9b\udcff\\"' in line
    assert [word for word in shlex.split(line) if word.startswith("queue_id=")] == ["queue_id=3V7QK2M9XTAB"]


@given(value=st.text(st.characters(), max_size=3000), user=st.text(st.characters(), min_size=1, max_size=20))
def test_whatever_a_value_holds_the_line_reads_back_as_the_same_fields(value: str, user: str) -> None:
    event = dataclasses.replace(QUEUED, reverse_path=value, user=user)
    line = text(event)
    assert line[:-1].isprintable()
    line.encode()
    names = re.findall(r'(?: |^)(\w+)=(?:"(?:[^"\\]|\\.)*"|[^ "]+)(?= |$)', line[:-1])
    assert names == [
        "queue_id",
        "listener",
        "client",
        "user",
        "reverse_path",
        "recipient",
        "route",
        "rule",
        "size",
        "because",
    ]
    found = document(event)
    assert str(found["reverse_path"]).isprintable()
    json.dumps(found, ensure_ascii=False).encode()


@pytest.mark.parametrize("piece", ["a", "é", "€", "😀", "\udc80"])
@pytest.mark.parametrize("offset", range(4))
def test_a_value_is_at_most_1_kib_and_ends_in_an_ellipsis_when_cut(piece: str, offset: int) -> None:
    value = document(dataclasses.replace(FAILED, text="x" * offset + piece * 2000))["text"]
    assert isinstance(value, str)
    assert value.endswith("…")
    kept = value.replace("\\udc80", "\udc80").encode("utf-8", "surrogatepass")
    assert LONGEST - 4 <= len(kept) <= LONGEST


def test_a_thousand_recipients_do_not_make_a_long_line() -> None:
    recipients = tuple(f"klant{number}@example.com" for number in range(1000))
    assert len(text(dataclasses.replace(QUEUED, recipients=recipients))) < 2000
