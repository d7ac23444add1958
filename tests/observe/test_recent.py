"""What the relay remembers of late: errors and warnings, answers of upstreams, counts; bounded, and nothing secret."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from relay import events
from relay.mail.outcome import Stage, Trouble
from relay.observe.recent import MOST_NOTED, Recent
from relay.observe.situation import Answer, Noted
from tests.observe.samples import CLIENT, COMMITTED, DEFERRED, DELIVERED, ENDED, FAILED, LATER, QUEUED, SAMPLES

START = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
ASIDE = events.UpstreamSetAside("own", Stage.AUTH, Trouble.PERMANENT, 535, "5.7.3", "no", 60.0)


class Clock:
    """Time stands still until a test moves it."""

    def __init__(self) -> None:
        self.moment = START

    def __call__(self) -> float:
        return self.moment.timestamp()


def recent(*told: events.Event) -> Recent:
    made = Recent(language="en", now=Clock())
    for event in told:
        made.observe(event)
    return made


def test_errors_and_warnings_are_noted_as_the_log_words_them_and_the_rest_is_not() -> None:
    made = recent(QUEUED, ENDED, DELIVERED, COMMITTED, replace(DEFERRED, in_doubt=False), FAILED)
    assert made.noted() == (
        Noted(
            START,
            "warning",
            "failed",
            "queue_id=3V7QK2M9XTAB recipient=klant@example.com route=default upstream=own attempt=2 stage=rcpt"
            ' code=550 status=5.1.1 text="No such user" delay=60.000',
        ),
    )


def test_an_event_that_is_loud_only_at_times_is_noted_at_those_times() -> None:
    made = recent(DEFERRED, ASIDE, events.SessionEnded("legacy", CLIENT, "quit", 1))
    assert {noted.event for noted in made.noted()} == {"deferred", "upstream_set_aside"}


def test_the_latest_comes_first() -> None:
    clock = Clock()
    made = Recent(language="en", now=clock)
    for event in (FAILED, ASIDE, FAILED):
        made.observe(event)
        clock.moment += timedelta(seconds=1)
    assert [noted.event for noted in made.noted()] == ["failed", "upstream_set_aside", "failed"]
    assert made.noted()[0].at == START + timedelta(seconds=2)


def test_a_warning_about_the_file_that_each_reload_repeats_stands_there_once() -> None:
    first, second = events.Warned("upstreams.own.password: the password itself"), events.Warned("hostname: no dot")
    made = recent(first, second, FAILED, first, second)
    assert sorted([noted.text for noted in made.noted() if noted.event == "warning"]) == [
        'text="hostname: no dot"',
        'text="upstreams.own.password: the password itself"',
    ]


def test_a_flood_of_warnings_does_not_wash_errors_away() -> None:
    made = recent(ASIDE, *[FAILED] * 1000)
    assert "upstream_set_aside" in [noted.event for noted in made.noted()]
    for _ in range(1000):
        made.observe(ASIDE)
    assert len(made.noted()) == MOST_NOTED


def test_a_forged_line_in_what_is_noted_stays_in_its_value() -> None:
    (noted,) = recent(replace(FAILED, text='no"\r\nerror forged\x1b[2J')).noted()
    assert noted.text.isprintable()
    assert r'text="no\"\r\nerror forged\x1b[2J"' in noted.text


def test_a_session_code_leaves_no_text_behind() -> None:
    quiet = replace(FAILED, text="", session_code=True)
    made = recent(quiet, replace(ASIDE, stage=Stage.DOT, code=421, status="4.3.2", text="bye: Sessiecode 112233"))
    answer = made.answer("own")
    assert answer is not None
    assert (answer.code, answer.text) == (421, "")


def test_the_last_answer_of_an_upstream_is_what_it_said_about_the_last_mail() -> None:
    assert recent(FAILED, DELIVERED).answer("own") == Answer(START, True, "", 250, "2.0.0", "OK queued")
    assert recent(DELIVERED, FAILED).answer("own") == Answer(START, False, "rcpt", 550, "5.1.1", "No such user")
    assert recent(DELIVERED, DEFERRED).answer("own") == Answer(START, False, "dot", 0, "", "connection lost")


def test_the_last_answer_of_an_upstream_is_why_it_was_set_aside_until_it_connects() -> None:
    assert recent(DELIVERED, ASIDE).answer("own") == Answer(START, False, "auth", 535, "5.7.3", "no")
    assert recent(ASIDE, events.UpstreamConnected("own", LATER)).answer("own") == Answer(START, True)


def test_an_upstream_that_nobody_asked_has_no_answer() -> None:
    made = recent(replace(DEFERRED, upstream=""), replace(FAILED, upstream="", stage=None, code=0))
    assert made.answer("own") is None
    assert made.answer("") is None


def test_session_codes_and_connections_are_counted() -> None:
    made = recent(
        events.ConnectionAccepted("legacy", CLIENT),
        events.ConnectionAccepted("legacy", CLIENT),
        DELIVERED,
        replace(DELIVERED, session_code=True),
        replace(FAILED, session_code=True),
        events.RecipientExpired("Q", "klant@example.com", "session-codes", 9, "", 600.0, True),
        events.RecipientExpired("Q", "klant@example.com", "default", 9, "", 600.0, False),
    )
    codes = made.session_codes
    assert (codes.delivered, codes.failed, codes.expired) == (1, 1, 1)
    assert made.accepted == {"legacy": 2}


def test_the_ends_of_the_certificates_of_upstreams_are_known() -> None:
    made = recent(events.UpstreamConnected("own", LATER), events.UpstreamConnected("vendor"))
    assert made.certificates == {"upstream:own": LATER}


def test_every_event_can_be_remembered_and_told() -> None:
    made = recent(*SAMPLES)
    assert all(noted.level in ("error", "warning") and "Traceback" not in noted.event for noted in made.noted())
