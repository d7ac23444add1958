"""Alarms: told at the edges, sent once a day by each way, over restarts too, and not lost to a sick store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from relay.admin.snapshot import WayTried
from relay.delivery import alarm
from relay.delivery.alarm import Alarms
from relay.delivery.alarm_way import Alarm, AlarmWay, NotSent
from relay.errors import StoreUnavailable
from relay.events import AlarmCleared, AlarmNotSent, AlarmRaised, AlarmSent, Event, ExceptionCaught
from relay.observe.needs_a_person import Finding
from relay.observe.situation import Severity
from relay.queue.sqlite.start import SqliteStore
from tests.delivery import house
from tests.delivery.ways import Watch
from tests.kit.house import PATIENCE
from tests.kit.store import usual
from tests.queue.mail import NOON

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LOCKED_OUT = Finding(
    "auth-refused:own",
    Severity.ERROR,
    NOON,
    "auth-refused",
    "password",
    {"name": "own", "said": "535 5.7.8 authentication failed"},
)
ASIDE = replace(
    LOCKED_OUT,
    cause="upstream-aside:own",
    kind="upstream-aside",
    remedy="connection-timeout",
    values={"name": "own", "said": "no connection to smtp.example.nl port 25 within 15 s"},
)
BAD_CERTIFICATE = replace(LOCKED_OUT, cause="certificate-bad:own", kind="certificate-bad", remedy="certificate-expired")
HELD = Finding("entries-held", Severity.WARNING, NOON, "entries-held", "held", {"count": 2})
FILLING = Finding("disk-low", Severity.WARNING, NOON, "disk-low", "disk", {"free": "300 MiB", "least": "200 MiB"})
FULL = replace(FILLING, severity=Severity.ERROR, kind="disk-full")


REFUSED = replace(
    LOCKED_OUT,
    cause="sender-refused:own",
    kind="sender-refused",
    remedy="password",
    values={**LOCKED_OUT.values, "until": "14:00"},
)
QUOTA = replace(REFUSED, cause="quota:own", kind="quota", remedy="quota")
MAIL, COMMAND = "mail", "command"


class Store(SqliteStore):
    """The real one, which can be told to be out of order, for one operation or for all."""

    broken: frozenset[str] = frozenset()

    async def recall(self, topic, key):  # type: ignore[no-untyped-def]
        self._trouble("recall")
        return await super().recall(topic, key)

    async def remember(self, topic, key, moment):  # type: ignore[no-untyped-def]
        self._trouble("remember")
        await super().remember(topic, key, moment)

    def _trouble(self, operation: str) -> None:
        if operation in self.broken:
            raise StoreUnavailable("io", "the disk is out of order")


class Through:
    """A way that does what the test says: `error` is why it does not work, `gate` what it waits for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.got: list[Alarm] = []
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def send(self, alarm: Alarm) -> str:
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.got.append(alarm)
        return "somebody"

    def parts(self) -> Sequence[AlarmWay]:
        return (self,)


class AlarmHouse:
    """Alarms on a real store; `findings` is what needs a person."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.findings: Sequence[Finding] = ()
        self.mail = Through(MAIL)
        self.ways: list[Through] = [self.mail]
        self.language = "en"
        self.now = NOON
        self.watch = Watch()

    async def open(self) -> AlarmHouse:
        self.store = await Store.open(self._folder / "queue.db", observer=self.watch, **usual(now=lambda: self.now))
        self.alarms = Alarms(
            findings=self._findings,
            ways=lambda: self.ways,
            store=self.store,
            policy=house.policy,
            language=lambda: self.language,
            observer=self.watch,
            now=lambda: self.now,
        )
        return self

    async def restart(self) -> None:
        await self.store.close()
        await self.open()

    async def _findings(self) -> Sequence[Finding]:
        return self.findings

    async def look(self, *findings: Finding, after: timedelta = timedelta()) -> list[Event]:
        """What is told when these are found."""
        self.now += after
        self.findings = findings
        before = len(self.watch.events)
        await self.alarms.look()
        told = (AlarmRaised, AlarmCleared, AlarmSent, AlarmNotSent, ExceptionCaught)
        return [event for event in self.watch.events[before:] if isinstance(event, told)]

    @property
    def sent(self) -> int:
        return len(self.mail.got)


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[AlarmHouse]:
    made = await AlarmHouse(tmp_path).open()
    yield made
    await made.store.close()


def causes(told: Sequence[Event]) -> list[str]:
    return [event.cause for event in told if isinstance(event, (AlarmRaised, AlarmCleared))]


@pytest.mark.asyncio
async def test_an_alarm_is_told_when_it_begins_and_when_it_ends_and_not_in_between(site: AlarmHouse) -> None:
    (raised,) = await site.look(HELD)
    assert isinstance(raised, AlarmRaised)
    assert raised.severity == "warning"
    assert raised.text.startswith("Messages that wait for somebody to release them: 2. `relay queue list --state held`")
    assert await site.look(HELD, after=HOUR) == []
    assert await site.look(after=HOUR) == [AlarmCleared("entries-held")]
    assert await site.look(after=HOUR) == []


@pytest.mark.asyncio
async def test_the_log_speaks_the_language_of_the_configuration(site: AlarmHouse) -> None:
    site.language = "nl"
    (raised,) = await site.look(HELD)
    assert isinstance(raised, AlarmRaised)
    assert raised.text.startswith("Berichten die wachten")


@pytest.mark.asyncio
async def test_an_upstream_has_an_hour_to_come_back_before_anybody_is_alarmed(site: AlarmHouse) -> None:
    assert await site.look(ASIDE) == []
    assert await site.look(ASIDE, after=timedelta(minutes=59)) == []
    assert await site.look(after=timedelta(seconds=30)) == []
    told = await site.look(ASIDE, after=timedelta(seconds=30))
    assert [type(event) for event in told] == [AlarmRaised, AlarmSent]


@pytest.mark.asyncio
@pytest.mark.parametrize("finding", [BAD_CERTIFICATE, QUOTA, REFUSED], ids=lambda finding: finding.kind)
async def test_what_may_end_by_itself_is_told_at_once_and_sent_after_an_hour(
    site: AlarmHouse, finding: Finding
) -> None:
    assert [type(event) for event in await site.look(finding)] == [AlarmRaised]
    assert await site.look(finding, after=HOUR - timedelta(seconds=1)) == []
    assert [type(event) for event in await site.look(finding, after=timedelta(seconds=1))] == [AlarmSent]


@pytest.mark.asyncio
async def test_held_mail_is_sent_after_a_day_and_then_weekly(site: AlarmHouse) -> None:
    assert causes(await site.look(HELD)) == ["entries-held"]
    assert await site.look(HELD, after=DAY - timedelta(seconds=1)) == []
    assert [type(event) for event in await site.look(HELD, after=timedelta(seconds=1))] == [AlarmSent]
    for _ in range(7):
        await site.look(HELD, after=DAY)
    assert site.sent == 2


@pytest.mark.asyncio
@pytest.mark.parametrize("cause", ["store-failed", "reload-refused", "exceptions", "entries-in-doubt"])
async def test_all_other_causes_are_sent_at_once(site: AlarmHouse, cause: str) -> None:
    values = {"said": "no", "count": 1, "where": "session"}
    await site.look(replace(HELD, cause=cause, kind=cause, values=values))
    assert [one.cause for one in site.mail.got] == [cause]


@pytest.mark.asyncio
async def test_old_mail_that_is_about_to_leave_behind_an_outage_alarms_nobody(site: AlarmHouse) -> None:
    values = {"name": "default", "age": 3 * HOUR}
    old = replace(HELD, cause="queue-old:default", since=NOON - 2 * HOUR, kind="queue-old", remedy="old", values=values)
    await site.look(old)
    assert causes(await site.look(after=timedelta(minutes=5))) == ["queue-old:default"]
    await site.look(old, after=timedelta(minutes=5))
    assert site.sent == 0
    await site.look(old, after=timedelta(minutes=10))
    assert site.sent == 1


@pytest.mark.asyncio
async def test_an_alarm_says_what_is_wrong_since_when_and_what_to_do(site: AlarmHouse) -> None:
    _, sent = await site.look(replace(LOCKED_OUT, about=("own",), blocked=True))
    assert sent == AlarmSent("auth-refused:own", "mail", "somebody")
    (got,) = site.mail.got
    assert (got.cause, got.severity, got.since, got.hostname) == (
        "auth-refused:own",
        Severity.ERROR,
        NOON,
        "relay.example.nl",
    )
    assert (got.about, got.blocked) == (("own",), True)
    assert got.title == "[relay relay.example.nl] Login refused by own"
    assert got.subject == "[relay relay.example.nl] Aanmelding geweigerd door own / Login refused by own"
    dutch, english = got.letter.split("----")
    assert "Upstream own weigerde de aanmelding: 535 5.7.8 authentication failed." in dutch
    assert "geef `relay reload`" in dutch
    assert "The upstream own refused the login: 535 5.7.8 authentication failed." in english
    assert "run `relay reload`" in english
    assert english.strip() == got.text.strip()
    since = f"{NOON.astimezone():%d-%m-%Y %H:%M:%S %z}"
    assert got.letter.count(since) == 2
    assert got.letter.count("`relay status`") == 2


@pytest.mark.asyncio
async def test_title_and_text_are_in_the_language_of_the_configuration(site: AlarmHouse) -> None:
    site.language = "nl"
    await site.look(LOCKED_OUT)
    (got,) = site.mail.got
    assert got.title == "[relay relay.example.nl] Aanmelding geweigerd door own"
    assert got.text.startswith("De mailrelay op relay.example.nl vraagt om aandacht.")


@pytest.mark.asyncio
async def test_a_cause_that_lasts_is_sent_once_a_day(site: AlarmHouse) -> None:
    for _ in range(50):
        await site.look(LOCKED_OUT, after=HOUR)
    assert site.sent == 3


@pytest.mark.asyncio
async def test_a_cause_that_comes_and_goes_is_sent_once_a_day(site: AlarmHouse) -> None:
    for _ in range(25):
        await site.look(LOCKED_OUT, after=timedelta(minutes=30))
        await site.look(after=timedelta(minutes=27))
    assert site.sent == 1


@pytest.mark.asyncio
async def test_a_restart_sends_nothing_twice(site: AlarmHouse) -> None:
    await site.look(LOCKED_OUT)
    await site.restart()
    assert [type(event) for event in await site.look(LOCKED_OUT, after=HOUR)] == [AlarmRaised]
    await site.look(LOCKED_OUT, after=23 * HOUR)
    assert site.sent == 2


@pytest.mark.asyncio
async def test_each_cause_has_an_alarm_of_its_own(site: AlarmHouse) -> None:
    await site.look(LOCKED_OUT, replace(LOCKED_OUT, cause="auth-refused:vendor"))
    assert site.sent == 2


@pytest.mark.asyncio
async def test_a_warning_is_sent_once_a_week_and_at_once_when_it_becomes_an_error(site: AlarmHouse) -> None:
    for _ in range(5):
        await site.look(FILLING, after=DAY)
    assert site.sent == 1
    await site.look(FULL)
    assert site.sent == 2
    await site.look(FILLING, after=6 * DAY)
    assert site.sent == 2
    await site.look(FILLING, after=DAY)
    assert site.sent == 3


@pytest.mark.asyncio
async def test_without_a_way_an_alarm_is_told_in_the_log_alone_until_a_reload_gives_one(site: AlarmHouse) -> None:
    site.ways = []
    assert causes(await site.look(LOCKED_OUT)) == ["auth-refused:own"]
    site.ways = [site.mail]
    await site.look(LOCKED_OUT, after=timedelta(minutes=1))
    assert site.sent == 1


@pytest.mark.asyncio
async def test_all_ways_are_used_and_each_is_remembered_by_itself(site: AlarmHouse) -> None:
    command = Through(COMMAND)
    site.ways = [site.mail, command]
    command.error = NotSent("it ended with code 7")
    told = await site.look(LOCKED_OUT)
    assert AlarmNotSent("auth-refused:own", "command", "it ended with code 7") in told
    assert AlarmSent("auth-refused:own", "mail", "somebody") in told
    command.error = None
    await site.restart()
    await site.look(LOCKED_OUT, after=timedelta(minutes=2))
    assert (site.sent, len(command.got)) == (1, 1)


@pytest.mark.asyncio
async def test_a_way_that_fails_is_tried_again_with_growing_pauses_and_told_once(site: AlarmHouse) -> None:
    site.mail.error = NotSent("no upstream takes it")
    told = await site.look(LOCKED_OUT)
    tries = 0
    for _ in range(4 * 60):
        before = site.mail.error = NotSent("no upstream takes it")
        told += await site.look(LOCKED_OUT, after=timedelta(minutes=1))
        tries += before.__traceback__ is not None
    assert tries == 8  # after 1, 3, 7, 15, 31, 63, 123 and 183 minutes
    assert len([one for one in told if isinstance(one, AlarmNotSent)]) == 1
    site.mail.error = None
    await site.look(LOCKED_OUT, after=HOUR)
    assert site.sent == 1


@pytest.mark.asyncio
async def test_a_way_that_takes_long_holds_up_neither_looks_nor_other_ways(
    site: AlarmHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarm, "EVERY", 0.01)
    command = Through(COMMAND)
    site.ways, site.mail.gate = [site.mail, command], asyncio.Event()
    await site.look(LOCKED_OUT)
    await site.look(LOCKED_OUT, FULL, after=HOUR)
    async with asyncio.timeout(PATIENCE):
        while len(command.got) < 2:  # on a busy machine the first is still being written down
            await site.look(LOCKED_OUT, FULL)
    assert ([one.cause for one in command.got], site.sent) == (["auth-refused:own", "disk-low"], 0)
    site.mail.gate.set()
    await site.watch.until(lambda: site.sent == 1)
    async with asyncio.timeout(PATIENCE):
        while len(site.mail.got) < 2:
            await site.look(LOCKED_OUT, FULL)
    assert [one.cause for one in site.mail.got] == ["auth-refused:own", "disk-low"]


@pytest.mark.asyncio
async def test_a_bug_in_a_way_is_told_and_ends_nothing(site: AlarmHouse) -> None:
    site.mail.error = ValueError("no")
    told = await site.look(LOCKED_OUT)
    assert [type(event) for event in told] == [AlarmRaised, ExceptionCaught, AlarmNotSent]
    site.mail.error = None
    await site.look(LOCKED_OUT, after=timedelta(minutes=1))
    assert site.sent == 1


@pytest.mark.asyncio
async def test_an_alarm_about_a_way_goes_by_the_others(site: AlarmHouse) -> None:
    command = Through(COMMAND)
    site.ways = [site.mail, command]
    values = {"name": COMMAND, "said": "no"}
    await site.look(
        replace(
            HELD, cause="alarm-failed:command", kind="alarm-failed", remedy="alarm-failed", values=values, way=COMMAND
        )
    )
    assert (site.sent, command.got) == (1, [])


@pytest.mark.asyncio
@pytest.mark.parametrize("operation", ["recall", "remember"])
async def test_a_store_that_fails_keeps_no_alarm_back_and_makes_no_second_one(site: AlarmHouse, operation: str) -> None:
    site.store.broken = frozenset({operation})
    await site.look(LOCKED_OUT)
    await site.look(LOCKED_OUT, after=HOUR)
    assert site.sent == 1
    site.store.broken = frozenset()
    await site.look(after=HOUR)
    await site.restart()
    await site.look(LOCKED_OUT)
    assert site.sent == 1


@pytest.mark.asyncio
async def test_a_moment_that_a_wrong_clock_remembered_does_not_silence_the_alarm(site: AlarmHouse) -> None:
    await site.store.remember(alarm.TOPIC, "mail auth-refused:own", NOON + 1000 * DAY)
    await site.look(LOCKED_OUT)
    assert site.sent == 1


@pytest.mark.asyncio
async def test_a_test_tries_every_way_and_reports_each(site: AlarmHouse) -> None:
    command = Through(COMMAND)
    command.error = NotSent("it ended with code 7")
    site.ways = [site.mail, command]
    assert await site.alarms.trial() == [
        WayTried("mail", True, "somebody"),
        WayTried("command", False, "it ended with code 7"),
    ]
    assert site.mail.got[0].title == "[relay relay.example.nl] Test of the alarms"


@pytest.mark.asyncio
async def test_it_looks_at_once_and_ends_when_it_is_told_to(site: AlarmHouse) -> None:
    site.findings = (HELD,)
    stop = asyncio.Event()
    running = asyncio.create_task(site.alarms.run(stop))
    await site.watch.until(lambda: site.watch.of(AlarmRaised))
    stop.set()
    async with asyncio.timeout(60):
        await running
