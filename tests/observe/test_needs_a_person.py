"""What needs a person: each cause comes, stays as long as it should, goes, and says what is wrong and what to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from relay import events
from relay.config.preset import table
from relay.events import RecipientFailed
from relay.mail.outcome import Stage
from relay.mail.outcome import Trouble as Failure
from relay.mail.reply import Reply
from relay.observe.recent import Recent
from relay.observe.situation import Severity, Situation, Trouble
from tests.observe.samples import DELIVERED, FAILED

START = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
MIB = 2**20
GOOD = Situation(
    disk_free=5000 * MIB,
    min_free=200 * MIB,
    certificates={"listener:legacy": START + 90 * DAY, "upstream:own": START + 20 * DAY},
    held=0,
    damaged=0,
    oldest={"default": START},
    up={"own": True, "vendor": True},
    routes={"default": ("own",), "session-codes": ("vendor", "own")},
)
DOWN = replace(GOOD, up={"own": False, "vendor": True})
LOCKED_OUT = events.UpstreamSetAside(
    "own", Stage.AUTH, Failure.PERMANENT, 535, "5.7.3", "Authentication unsuccessful", 60.0
)
UNREACHABLE = events.UpstreamSetAside(
    "own", Stage.CONNECT, Failure.TIMEOUT, 0, "", "no connection to smtp.example.nl port 25 within 15 s", 60.0
)
REFUSED_CONNECTION = events.UpstreamSetAside(
    "own", Stage.CONNECT, Failure.TRANSIENT, 0, "", "no connection to smtp.example.nl port 25: Connection refused", 60.0
)
EXPIRED_CERTIFICATE = events.UpstreamSetAside(
    "own", Stage.TLS, Failure.TRANSIENT, 0, "", "the upstream's certificate has expired", 60.0
)
EXPIRED_CODE = events.RecipientExpired("Q", "klant@example.com", "session-codes", 9, "", 600.0, True)


class Watch:
    """A `Recent` whose clock the test moves."""

    def __init__(self, language: str = "en") -> None:
        self.now = START
        self.recent = Recent(language=language, now=lambda: self.now.timestamp())

    def tell(self, *told: events.Event, after: timedelta = timedelta()) -> Watch:
        self.now += after
        for event in told:
            self.recent.observe(event)
        return self

    def troubles(self, situation: Situation = GOOD, *, after: timedelta = timedelta()) -> tuple[Trouble, ...]:
        self.now += after
        # Mail flows, unless a test says otherwise.
        if situation.oldest == GOOD.oldest:
            situation = replace(situation, oldest={"default": self.now})
        return self.recent.troubles(situation, self.now)

    def causes(self, situation: Situation = GOOD, *, after: timedelta = timedelta()) -> list[str]:
        return [trouble.cause for trouble in self.troubles(situation, after=after)]


def test_what_lies_in_a_pickup_folder_is_an_error_until_it_is_removed_and_so_is_a_folder_that_fails() -> None:
    watch = Watch()
    (trouble,) = watch.troubles(replace(GOOD, lying={"files": 3, "other": 0}))
    assert (trouble.cause, trouble.severity, trouble.since) == ("pickup-refused:files", Severity.ERROR, START)
    assert trouble.text == "Files in the folder of the listener files that could not be sent to anybody: 3."
    (trouble,) = watch.troubles(replace(GOOD, lying={"files": 4}), after=HOUR)
    assert trouble.since == START
    assert watch.causes() == []
    problem = "files: /srv/pickup: Permission denied (the folder must belong to the relay)"
    (trouble,) = watch.troubles(replace(GOOD, folders={"files": problem}))
    assert (trouble.cause, trouble.severity) == ("pickup-failed:files", Severity.ERROR)
    assert problem in trouble.text
    assert watch.causes() == []


def test_when_all_is_well_nobody_is_needed() -> None:
    assert Watch().tell(DELIVERED, FAILED).troubles() == ()


def test_a_refused_login_is_an_error_at_once_with_what_was_said_and_the_remedy_of_the_provider() -> None:
    (trouble,) = Watch().tell(LOCKED_OUT).troubles(DOWN)
    assert (trouble.cause, trouble.severity, trouble.since) == ("auth-refused:own", Severity.ERROR, START)
    assert trouble.text == "The upstream own refused the login: 535 5.7.3 Authentication unsuccessful."
    assert "Authenticated SMTP" in trouble.remedy
    assert "upstreams.own" in trouble.remedy
    assert "`relay reload`" in trouble.remedy


def test_it_is_told_in_dutch_where_dutch_is_spoken() -> None:
    watch = Watch("nl").tell(UNREACHABLE)
    (trouble,) = watch.troubles(DOWN)
    assert trouble.text.startswith("Upstream own wordt nu niet gebruikt: no connection to smtp.example.nl port 25")
    assert trouble.remedy.startswith("Meestal blokkeert een firewall")
    watch.recent.configure(language="en")
    assert watch.troubles(DOWN)[0].remedy.startswith("Usually a firewall")


def test_an_outage_of_a_provider_that_took_mail_needs_nobody_for_an_hour_and_says_when_it_is_tried_again() -> None:
    watch = Watch().tell(DELIVERED).tell(REFUSED_CONNECTION, after=timedelta(minutes=5))
    (trouble,) = watch.troubles(DOWN)
    assert (trouble.cause, trouble.severity, trouble.needs_a_person) == ("upstream-aside:own", Severity.WARNING, False)
    last, at = START.astimezone(), (watch.now + timedelta(seconds=60)).astimezone()
    assert trouble.remedy == (
        f"Nothing to do: own took mail until {last:%H:%M}, and what waits is sent automatically. "
        f"Ask the provider if it lasts. It is tried again at {at:%H:%M:%S}."
    )
    tried = replace(DOWN, trying=frozenset({"own"}))
    assert watch.troubles(tried)[0].remedy.endswith(" It is being tried now.")
    assert watch.troubles(DOWN, after=timedelta(minutes=2))[0].remedy.endswith(" It is tried again with the next mail.")
    (late,) = watch.troubles(DOWN, after=HOUR)
    assert (late.severity, late.needs_a_person) == (Severity.ERROR, True)
    assert late.remedy.startswith("own took mail until ")


def test_a_refused_sender_is_shown_for_an_hour_or_until_a_reload_and_says_so() -> None:
    watch = Watch().tell(refused := refusal(Stage.MAIL, 553, "", "sender rejected"))
    (trouble,) = watch.troubles()
    assert f"shown until {(START + HOUR).astimezone():%H:%M}, or until the next reload." in trouble.text
    assert watch.tell(events.ConfigReloaded()).causes() == []
    assert watch.tell(refused).causes() == ["sender-refused:own"]
    assert watch.causes(after=HOUR) == []


def test_an_outage_is_told_in_dutch() -> None:
    watch = Watch("nl").tell(DELIVERED).tell(REFUSED_CONNECTION)
    (trouble,) = watch.troubles(DOWN)
    assert trouble.remedy.startswith("U hoeft niets te doen: own nam tot ")
    assert trouble.remedy.endswith(
        f" Om {(START + timedelta(seconds=60)).astimezone():%H:%M:%S} wordt opnieuw geprobeerd."
    )


@pytest.mark.parametrize(
    ("aside", "remedy"),
    [
        ((Stage.DNS, Failure.TRANSIENT, 0, "", "the name smtp.example.nl cannot be found"), "network connection"),
        ((Stage.BANNER, Failure.TRANSIENT, 421, "4.3.2", "Service not available"), "Nothing to do"),
        ((Stage.BANNER, Failure.TIMEOUT, 0, "", "no answer within 60 s"), "Nothing to do"),
        ((Stage.STARTTLS, Failure.TRANSIENT, 0, "", "the upstream offers no STARTTLS"), "firewall"),
        ((Stage.AUTH, Failure.PERMANENT, 535, "5.7.8", "authentication failed"), "Check username and password"),
    ],
)
def test_what_an_administrator_can_cure_is_said_although_the_provider_took_mail_before(
    aside: tuple[Stage, Failure, int, str, str], remedy: str
) -> None:
    watch = Watch().tell(DELIVERED).tell(events.UpstreamSetAside("own", *aside, 60.0))
    assert remedy in watch.troubles(DOWN)[0].remedy


def test_an_upstream_that_a_reload_moved_elsewhere_has_taken_nothing_there_yet() -> None:
    watch = Watch().tell(DELIVERED)
    watch.recent.configure(language="en", moved=["own"])
    (trouble,) = watch.tell(REFUSED_CONNECTION).troubles(DOWN)
    assert (trouble.severity, trouble.needs_a_person) == (Severity.ERROR, True)
    assert trouble.remedy.startswith("Nothing answers there: check host and port of upstreams.own")


def test_an_upstream_that_stays_away_keeps_its_first_moment_and_tells_the_last_reason() -> None:
    watch = Watch().tell(UNREACHABLE).tell(EXPIRED_CERTIFICATE, after=HOUR)
    (trouble,) = watch.troubles(DOWN)
    assert (trouble.cause, trouble.since) == ("certificate-bad:own", START)
    assert "has expired" in trouble.text


def test_an_upstream_that_came_back_is_no_trouble_and_begins_anew() -> None:
    watch = Watch().tell(UNREACHABLE).tell(events.UpstreamRestored("own"), after=HOUR)
    assert watch.causes() == []
    watch.tell(UNREACHABLE, after=HOUR)
    assert watch.troubles(DOWN)[0].since == START + 2 * HOUR


def test_an_upstream_that_a_reload_made_anew_is_no_trouble_though_nobody_said_so() -> None:
    watch = Watch().tell(UNREACHABLE)
    assert watch.causes(GOOD) == []
    watch.tell(DELIVERED, after=HOUR).tell(UNREACHABLE, after=HOUR)
    assert watch.troubles(DOWN)[0].since == START + 2 * HOUR


def test_an_upstream_that_is_gone_is_no_trouble() -> None:
    gone = replace(GOOD, up={"vendor": True}, routes={"default": ("vendor",)})
    gone = replace(gone, certificates={"upstream:own": START})
    assert Watch().tell(LOCKED_OUT, replace(FAILED, stage=Stage.MAIL)).causes(gone) == []


def test_an_upstream_set_aside_is_a_warning_where_another_takes_over_everywhere() -> None:
    instead = replace(DOWN, routes={"default": ("own", "vendor"), "session-codes": ("vendor", "own")})
    assert Watch().tell(UNREACHABLE).troubles(instead)[0].severity is Severity.WARNING
    both = replace(instead, up={"own": False, "vendor": False})
    assert Watch().tell(UNREACHABLE).troubles(both)[0].severity is Severity.ERROR
    assert Watch().tell(UNREACHABLE).troubles(DOWN)[0].severity is Severity.ERROR


def test_a_421_to_a_session_code_is_told_without_what_it_quotes() -> None:
    quoting = events.UpstreamSetAside("own", Stage.DOT, Failure.TRANSIENT, 421, "4.3.2", "bye: code 112233", 60.0)
    (trouble,) = Watch().tell(quoting).troubles(DOWN)
    assert trouble.text == "The upstream own is not used for now: 421 4.3.2."


def test_a_store_that_fails_is_an_error_until_it_recovers() -> None:
    watch = Watch().tell(events.StoreFailed("busy", "queue.db: database is locked"))
    watch.tell(events.StoreFailed("busy", "queue.db: database is locked"), after=MINUTE)
    (trouble,) = watch.troubles()
    assert (trouble.cause, trouble.severity, trouble.since) == ("store-failed", Severity.ERROR, START)
    assert "queue.db: database is locked" in trouble.text
    assert "Another program" in trouble.remedy
    assert watch.tell(events.StoreRecovered()).causes() == []


@pytest.mark.parametrize("reason", ["full", "io", "busy", "corrupt", "other"])
def test_every_reason_of_the_store_has_a_remedy(reason: str) -> None:
    assert Watch().tell(events.StoreFailed(reason, "")).troubles()[0].remedy


def test_a_disk_that_fills_up_is_a_warning_and_then_an_error_of_the_same_cause() -> None:
    watch = Watch()
    assert watch.causes(replace(GOOD, disk_free=400 * MIB)) == []
    (early,) = watch.troubles(replace(GOOD, disk_free=399 * MIB))
    assert (early.cause, early.severity, early.since) == ("disk-low", Severity.WARNING, START)
    (late,) = watch.troubles(replace(GOOD, disk_free=199 * MIB), after=HOUR)
    assert (late.cause, late.severity, late.since) == ("disk-low", Severity.ERROR, START)
    assert "199 MiB" in late.text
    assert "new mail is refused" in late.text
    assert watch.causes(after=HOUR) == []
    assert watch.troubles(replace(GOOD, disk_free=0), after=HOUR)[0].since == START + 3 * HOUR
    assert Watch().causes(replace(GOOD, disk_free=None)) == []


@pytest.mark.parametrize(
    ("whose", "days", "severity"),
    [
        ("listener:legacy", 31, None),
        ("listener:legacy", 29, Severity.WARNING),
        ("listener:legacy", 6, Severity.ERROR),
        ("listener:legacy", -1, Severity.ERROR),
        ("upstream:own", 15, None),
        ("upstream:own", 13, Severity.WARNING),
        ("upstream:own", 6, Severity.ERROR),
    ],
)
def test_a_certificate_near_its_end_is_told_in_time(whose: str, days: int, severity: Severity | None) -> None:
    found = Watch().troubles(replace(GOOD, certificates={whose: START + days * DAY}))
    assert [trouble.severity for trouble in found] == ([severity] if severity else [])
    assert [trouble.cause for trouble in found] == ([f"certificate-ends:{whose}"] if severity else [])
    if days < 0:
        assert "ended on 2026-11-22" in found[0].text


def test_session_codes_that_expired_are_told_for_an_hour() -> None:
    watch = Watch().tell(EXPIRED_CODE).tell(EXPIRED_CODE, after=30 * MINUTE)
    watch.tell(replace(EXPIRED_CODE, session_code=False))
    (trouble,) = watch.troubles()
    assert (trouble.cause, trouble.since) == ("session-codes-expired", START)
    assert trouble.text.endswith(": 2.")
    assert watch.troubles(after=45 * MINUTE)[0].text.endswith(": 1.")
    assert watch.causes(after=15 * MINUTE) == []


def test_a_session_code_that_waits_for_a_minute_is_stuck() -> None:
    waiting = replace(GOOD, oldest={"session-codes": START})
    assert Watch().causes(waiting, after=MINUTE) == []
    (trouble,) = Watch().troubles(waiting, after=2 * MINUTE)
    assert (trouble.cause, trouble.severity) == ("session-codes-waiting", Severity.ERROR)
    assert "2 minutes" in trouble.text


def test_a_bad_reload_is_told_until_a_good_one() -> None:
    refused = events.ReloadRefused(("config.yaml:14: routes: no such upstream", "config.yaml:15: log: unknown key"))
    watch = Watch().tell(refused)
    (trouble,) = watch.troubles()
    assert (trouble.cause, trouble.severity) == ("reload-refused", Severity.WARNING)
    assert trouble.text.endswith("config.yaml:14: routes: no such upstream (and 1 more).")
    assert watch.tell(events.ConfigReloaded()).causes() == []


def test_damaged_and_held_entries_are_told_while_there_are_any() -> None:
    watch = Watch()
    damaged, held = watch.troubles(replace(GOOD, damaged=1, held=3))
    assert (damaged.cause, damaged.severity) == ("entries-damaged", Severity.ERROR)
    assert (held.cause, held.severity) == ("entries-held", Severity.WARNING)
    assert held.text.endswith(": 3.")
    assert watch.troubles(replace(GOOD, held=5), after=HOUR)[0].since == START
    assert watch.causes() == []


def test_held_mail_that_may_have_been_delivered_is_told_by_itself_with_what_to_do_about_it() -> None:
    doubtful, held = Watch("nl").troubles(replace(GOOD, in_doubt=2, held=1))
    assert (doubtful.cause, doubtful.severity) == ("entries-in-doubt", Severity.WARNING)
    assert "misschien bezorgd" in doubtful.text
    assert doubtful.text.endswith(": 2.")
    assert all(f"relay queue {verb} ID" in doubtful.remedy for verb in ("release", "cancel", "bounce"))
    assert (held.cause, held.text[-3:]) == ("entries-held", " 1.")


def test_old_mail_is_told_unless_its_upstream_is_the_trouble_already() -> None:
    old = replace(GOOD, oldest={"default": START, "session-codes": START + 3 * HOUR, "gone": START})
    watch = Watch().tell(UNREACHABLE)
    assert watch.causes(old, after=3 * HOUR) == ["queue-old:default", "queue-old:gone"]
    assert watch.troubles(old)[0].since == START + HOUR
    assert watch.causes(replace(old, up=DOWN.up)) == ["upstream-aside:own", "queue-old:gone"]
    assert Watch().causes(old, after=59 * MINUTE) == []


def refusal(stage: Stage, code: int, status: str, text: str) -> RecipientFailed:
    """As an upstream without a preset says it."""
    told = table(None).tell(stage, Reply(code, status, text))
    return replace(FAILED, stage=stage, code=code, status=status, text=text, refusal=told.refusal)


@pytest.mark.parametrize(
    ("stage", "code", "status", "text"),
    [
        (Stage.MAIL, 550, "5.7.60", "SMTP; Client does not have permissions to send as this sender"),
        (Stage.MAIL, 553, "", "sender rejected"),
        (Stage.DOT, 554, "5.2.252", "SendAsDenied; a@example.nl not allowed to send as b@example.nl"),
        (Stage.RCPT, 550, "5.7.1", "Submission not allowed: header from does not match MAIL FROM"),
    ],
)
def test_a_refused_sender_is_told_for_an_hour(stage: Stage, code: int, status: str, text: str) -> None:
    refused = refusal(stage, code, status, text)
    watch = Watch().tell(refused).tell(refused, after=30 * MINUTE)
    (trouble,) = watch.troubles(after=30 * MINUTE)
    assert (trouble.cause, trouble.severity, trouble.since) == ("sender-refused:own", Severity.ERROR, START)
    assert text in trouble.text
    assert "senders" in trouble.remedy
    assert watch.causes(after=30 * MINUTE) == []
    watch.tell(refused)
    assert watch.troubles()[0].since == watch.now


@pytest.mark.parametrize(
    ("stage", "code", "status", "text"),
    [
        (Stage.RCPT, 550, "5.1.1", "No such user"),
        (Stage.RCPT, 550, "5.7.1", "Relaying denied"),
        (Stage.MAIL, 552, "5.3.4", "the message has 9 octets, the upstream takes at most 8"),
        (Stage.MAIL, 552, "", "Message size exceeds fixed limit"),
        (Stage.MAIL, 550, "5.6.7", "an address needs SMTPUTF8, which the upstream does not offer"),
        (Stage.MAIL, 554, "5.6.3", "the message may not be converted: it is signed"),
        (Stage.DOT, 554, "5.6.0", "content refused"),
    ],
)
def test_what_is_refused_for_another_reason_does_not_blame_the_sender(
    stage: Stage, code: int, status: str, text: str
) -> None:
    assert Watch().tell(refusal(stage, code, status, text)).causes() == []


def test_a_bug_that_was_caught_is_told_for_a_day_without_its_words() -> None:
    watch = Watch().tell(events.ExceptionCaught("attempt", "ValueError", "Traceback …: 112233"))
    (trouble,) = watch.troubles(after=23 * HOUR)
    assert (trouble.cause, trouble.severity) == ("exceptions", Severity.WARNING)
    assert "attempt" in trouble.text
    assert "112233" not in trouble.text + trouble.remedy
    assert watch.causes(after=HOUR) == []


def test_errors_come_before_warnings_and_what_began_first_comes_first() -> None:
    watch = Watch().tell(events.ReloadRefused(("config.yaml: unreadable",)))
    watch.tell(EXPIRED_CODE, after=MINUTE).tell(LOCKED_OUT, after=MINUTE)
    assert watch.causes(DOWN) == ["session-codes-expired", "auth-refused:own", "reload-refused"]


def test_nothing_that_was_said_can_make_a_second_line() -> None:
    forged = events.ReloadRefused(("config.yaml:1: 'x\x1b[2J\r\nall is well'",))
    (trouble,) = Watch().tell(forged).troubles()
    assert trouble.text.isprintable()


@pytest.mark.parametrize(
    ("left", "step", "severity"),
    [
        (31 * DAY, None, None),
        (30 * DAY, 30, Severity.WARNING),
        (8 * DAY, 30, Severity.WARNING),
        (7 * DAY, 7, Severity.WARNING),
        (DAY, 1, Severity.ERROR),
        (-DAY, 1, Severity.ERROR),
    ],
)
@pytest.mark.parametrize(("what", "kind"), [("secret", "secret"), ("certificate", "login-certificate")])
def test_what_the_relay_logs_in_with_is_told_in_steps_before_it_ends(
    what: str, kind: str, left: timedelta, step: int | None, severity: Severity | None
) -> None:
    found = Watch().troubles(replace(GOOD, credentials={f"{what}:own": START + left}))
    if step is None:
        assert found == ()
        return
    (trouble,) = found
    assert (trouble.cause, trouble.severity) == (f"{kind}-ends:own:{step}", severity)
    assert trouble.since == START + left - step * DAY
    assert f"{START + left:%Y-%m-%d}" in trouble.text
    assert "upstreams.own" in trouble.remedy


NO_TOKEN = events.TokenRefused("own", False, "no token from login.example: Connection refused")


def test_a_token_that_is_not_to_be_had_is_told_when_it_lasts_and_until_there_is_one() -> None:
    watch = Watch().tell(NO_TOKEN)
    assert watch.causes() == []
    watch.tell(NO_TOKEN, after=9 * MINUTE)
    assert watch.causes() == []
    (trouble,) = watch.tell(NO_TOKEN, after=MINUTE).troubles()
    assert (trouble.cause, trouble.severity, trouble.since) == ("token-refused:own", Severity.WARNING, START)
    assert "Connection refused" in trouble.text
    assert "port 443" in trouble.remedy
    assert watch.causes(DOWN) == []  # set aside says more
    assert watch.tell(events.TokenFetched("own", START)).causes() == []


def test_a_token_that_is_refused_for_good_is_told_at_once() -> None:
    refused = events.TokenRefused("own", True, "no token from login.example: invalid_client: AADSTS7000222: expired.")
    (trouble,) = Watch("nl").tell(refused).troubles()
    assert trouble.text.startswith("Upstream own werkt nog, maar er is geen nieuw token voor te krijgen")
    assert "Het clientgeheim is verlopen" in trouble.remedy
