"""Alarms: told at the edges, mailed once a day for each cause, over restarts too, and not lost to a sick store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from email import message_from_bytes, policy
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio

from relay.delivery import alarm
from relay.delivery.alarm import Alarms
from relay.errors import StoreUnavailable
from relay.events import AlarmCleared, AlarmRaised, Event, NotificationQueued
from relay.mail.address import Address
from relay.observe.needs_a_person import Finding
from relay.observe.situation import Severity
from relay.policy.decide import Policy
from relay.queue.model import Entry, Kind
from relay.queue.sqlite.start import SqliteStore
from tests.delivery import house
from tests.delivery.ways import Watch
from tests.kit.store import usual
from tests.queue.mail import NOON

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ADMIN = Address.of("admin@example.nl")
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


class Store(SqliteStore):
    """The real one, which can be told to be out of order, for one operation or for all."""

    broken: frozenset[str] = frozenset()

    async def put(self, entry, **how):  # type: ignore[no-untyped-def]
        self._trouble("put")
        return await super().put(entry, **how)

    async def recall(self, topic, key):  # type: ignore[no-untyped-def]
        self._trouble("recall")
        return await super().recall(topic, key)

    async def remember(self, topic, key, moment):  # type: ignore[no-untyped-def]
        self._trouble("remember")
        await super().remember(topic, key, moment)

    def _trouble(self, operation: str) -> None:
        if operation in self.broken:
            raise StoreUnavailable("io", "the disk is out of order")


class AlarmHouse:
    """Alarms on a real store; `findings` is what needs a person."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.findings: Sequence[Finding] | None = ()
        self.policy: Policy = replace(house.policy(), bounces_also=(ADMIN,))
        self.language = "en"
        self.now = NOON
        self.watch = Watch()
        self.rung: list[str] = []
        self._ids = count()

    async def open(self) -> AlarmHouse:
        self.store = await Store.open(self._folder / "queue.db", observer=self.watch, **usual(now=lambda: self.now))
        self.alarms = Alarms(
            findings=self._findings,
            store=self.store,
            policy=lambda: self.policy,
            language=lambda: self.language,
            observer=self.watch,
            now=lambda: self.now,
            new_queue_id=lambda: f"ALARM{next(self._ids)}",
            ring=self.rung.append,
        )
        return self

    async def restart(self) -> None:
        await self.store.close()
        await self.open()

    async def _findings(self) -> Sequence[Finding]:
        if self.findings is None:
            raise StoreUnavailable("io", "the disk is out of order")
        return self.findings

    async def look(self, *findings: Finding, after: timedelta = timedelta()) -> list[Event]:
        """What is told when these are found."""
        self.now += after
        self.findings = findings
        before = len(self.watch.events)
        await self.alarms.look()
        told = (AlarmRaised, AlarmCleared, NotificationQueued)
        return [event for event in self.watch.events[before:] if isinstance(event, told)]

    async def mails(self) -> list[Entry]:
        """The alarm mails that wait."""
        leases = await self.store.lease("default", limit=100, now=datetime.max.replace(tzinfo=NOON.tzinfo))
        entries = [lease.entry for lease in leases]
        await self.store.give_back(leases)
        return entries


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
    assert [type(event) for event in told] == [AlarmRaised, NotificationQueued]


@pytest.mark.asyncio
async def test_a_certificate_that_is_not_accepted_is_told_at_once_and_mailed_after_an_hour(site: AlarmHouse) -> None:
    assert [type(event) for event in await site.look(BAD_CERTIFICATE)] == [AlarmRaised]
    assert [type(event) for event in await site.look(BAD_CERTIFICATE, after=HOUR)] == [NotificationQueued]


@pytest.mark.asyncio
async def test_the_mail_says_in_dutch_and_in_english_what_is_wrong_since_when_and_what_to_do(site: AlarmHouse) -> None:
    site.policy = replace(site.policy, bounces_also=(ADMIN, Address.of("chef@example.nl")))
    _, queued = await site.look(LOCKED_OUT)
    assert queued == NotificationQueued("ALARM0", "", "alarm", "admin@example.nl, chef@example.nl")
    assert site.rung == ["default"]
    (entry,) = await site.mails()
    envelope = entry.submission.envelope
    assert (entry.queue_id, entry.kind, entry.route, entry.session_code) == ("ALARM0", Kind.BOUNCE, "default", False)
    assert envelope.reverse_path is None
    assert [str(one.address) for one in envelope.recipients] == ["admin@example.nl", "chef@example.nl"]
    assert {one.notify for one in envelope.recipients} == {frozenset({"never"})}
    assert entry.expires_at == NOON + site.policy.routes["default"].schedule.lifetime
    data = entry.content.read(0, entry.content.size)
    assert data.startswith(entry.content.head)
    assert entry.content.head.endswith(b"\r\n\r\n")
    message = message_from_bytes(data, policy=policy.default)
    assert message["From"] == "Mail relay <postmaster@relay.example.nl>"
    assert message["Subject"] == "[relay relay.example.nl] Aanmelding geweigerd door own / Login refused by own"
    assert message["Auto-Submitted"] == "auto-generated"
    text = message.get_content()
    dutch, english = text.split("----")
    assert "Upstream own weigerde de aanmelding: 535 5.7.8 authentication failed." in dutch
    assert "geef `relay reload`" in dutch
    assert "The upstream own refused the login: 535 5.7.8 authentication failed." in english
    assert "run `relay reload`" in english
    since = f"{NOON.astimezone():%d-%m-%Y %H:%M:%S %z}"
    assert text.count(since) == 2
    assert text.count("`relay status`") == 2


@pytest.mark.asyncio
async def test_a_cause_that_lasts_is_mailed_once_a_day(site: AlarmHouse) -> None:
    for _ in range(50):
        await site.look(LOCKED_OUT, after=HOUR)
    assert len(await site.mails()) == 3


@pytest.mark.asyncio
async def test_a_cause_that_comes_and_goes_is_mailed_once_a_day(site: AlarmHouse) -> None:
    for _ in range(25):
        await site.look(LOCKED_OUT, after=timedelta(minutes=30))
        await site.look(after=timedelta(minutes=27))
    assert len(await site.mails()) == 1


@pytest.mark.asyncio
async def test_a_restart_mails_nothing_twice(site: AlarmHouse) -> None:
    await site.look(LOCKED_OUT)
    await site.restart()
    assert [type(event) for event in await site.look(LOCKED_OUT, after=HOUR)] == [AlarmRaised]
    await site.look(LOCKED_OUT, after=23 * HOUR)
    assert len(await site.mails()) == 2


@pytest.mark.asyncio
async def test_each_cause_has_a_mail_of_its_own(site: AlarmHouse) -> None:
    await site.look(LOCKED_OUT, replace(LOCKED_OUT, cause="auth-refused:vendor"))
    assert len(await site.mails()) == 2


@pytest.mark.asyncio
async def test_a_warning_is_mailed_once_a_week_and_at_once_when_it_becomes_an_error(site: AlarmHouse) -> None:
    for _ in range(5):
        await site.look(FILLING, after=DAY)
    assert len(await site.mails()) == 1
    await site.look(FULL)
    assert len(await site.mails()) == 2
    await site.look(FILLING, after=6 * DAY)
    assert len(await site.mails()) == 2
    await site.look(FILLING, after=DAY)
    assert len(await site.mails()) == 3


@pytest.mark.asyncio
async def test_what_is_not_worth_a_mail_is_told_in_the_log_alone(site: AlarmHouse) -> None:
    assert causes(await site.look(HELD)) == ["entries-held"]
    assert await site.mails() == []


@pytest.mark.asyncio
async def test_without_readers_there_is_no_mail_until_a_reload_names_one(site: AlarmHouse) -> None:
    site.policy = replace(site.policy, bounces_also=())
    assert causes(await site.look(LOCKED_OUT)) == ["auth-refused:own"]
    assert await site.mails() == []
    site.policy = replace(site.policy, bounces_also=(ADMIN,))
    await site.look(LOCKED_OUT, after=timedelta(minutes=1))
    assert len(await site.mails()) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("operation", ["put", "recall"])
async def test_a_store_that_fails_puts_the_mail_off_to_the_next_look(site: AlarmHouse, operation: str) -> None:
    site.store.broken = frozenset({operation})
    assert causes(await site.look(LOCKED_OUT)) == ["auth-refused:own"]
    assert site.rung == []
    site.store.broken = frozenset()
    (told,) = await site.look(LOCKED_OUT, after=timedelta(seconds=30))
    assert isinstance(told, NotificationQueued)
    assert len(await site.mails()) == 1


@pytest.mark.asyncio
async def test_a_store_that_fails_after_the_mail_does_not_make_a_second_one(site: AlarmHouse) -> None:
    site.store.broken = frozenset({"remember"})
    await site.look(LOCKED_OUT)
    await site.look(LOCKED_OUT, after=HOUR)
    site.store.broken = frozenset()
    await site.look(after=HOUR)
    await site.restart()
    await site.look(LOCKED_OUT)
    assert len(await site.mails()) == 1


@pytest.mark.asyncio
async def test_a_look_that_the_store_refuses_changes_nothing(site: AlarmHouse) -> None:
    await site.look(LOCKED_OUT)
    before = len(site.watch.events)
    site.findings = None
    await site.alarms.look()
    assert len(site.watch.events) == before


@pytest.mark.asyncio
async def test_a_moment_that_a_wrong_clock_remembered_does_not_silence_the_alarm(site: AlarmHouse) -> None:
    await site.store.remember(alarm.TOPIC, "auth-refused:own", NOON + 1000 * DAY)
    await site.look(LOCKED_OUT)
    assert len(await site.mails()) == 1


@pytest.mark.asyncio
async def test_it_looks_at_once_and_ends_when_it_is_told_to(site: AlarmHouse) -> None:
    site.findings = (HELD,)
    stop = asyncio.Event()
    running = asyncio.create_task(site.alarms.run(stop))
    await site.watch.until(lambda: site.watch.of(AlarmRaised))
    stop.set()
    async with asyncio.timeout(60):
        await running
