"""Who answers for the relay is told in time: alarm mails that arrive, delay warnings, copies of failures, held mail."""

from __future__ import annotations

import email
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.policy import default

import pytest

from relay.delivery import worker
from relay.events import (
    AlarmCleared,
    AlarmRaised,
    EntryHeld,
    NotificationQueued,
    RecipientDeferred,
    RecipientDelivered,
    RecipientExpired,
    RecipientFailed,
    UpstreamSetAside,
)
from tests.kit.certificates import authority
from tests.kit.house import ACCOUNT, JAN, PASSWORD, PIET, Client, RunningHouse, Site, mail
from tests.kit.upstream import Received, ScriptedUpstream
from tests.scenarios.clock import Clock
from tests.scenarios.desk import reachable, relay

ADMIN = "beheer@example.nl"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(worker, "SWEEP", 0.02)
    return Clock.of(monkeypatch)


def configure(site: Site, own: ScriptedUpstream, backup: ScriptedUpstream, **parts: object) -> None:
    """Mail goes by `own`, and where that does not work by `backup`; ADMIN answers for the relay."""
    site.configure(
        **{
            "upstreams": {"own": site.way_to(own), "backup": {"host": backup.host, "port": backup.port, "tls": "none"}},
            "routes": {"default": {"upstreams": ["own", "backup"], "retry": "1d"}},
            "bounces": {"also": ADMIN},
        }
        | parts
    )


def alarms_in(upstream: ScriptedUpstream) -> list[Received]:
    return [one for one in upstream.messages if one.recipients == (ADMIN,)]


def parsed(received: Received) -> Message:
    return email.message_from_bytes(received.content, policy=default)


def mailed(house: RunningHouse) -> int:
    return len(house.seen.all(NotificationQueued, reader=ADMIN))


async def arrived(house: RunningHouse, number: int = 1) -> None:
    """Wait for the delivery of the alarm mail of that number."""
    told = await house.event(NotificationQueued, number, reader=ADMIN)
    await house.event(RecipientDelivered, queue_id=told.queue_id)


@pytest.mark.asyncio
async def test_a_refused_login_is_mailed_by_the_other_way_in_both_languages_without_a_secret(
    site: Site, clock: Clock
) -> None:
    site.set_password("verkeerd")
    async with site.upstream() as own, ScriptedUpstream() as backup:
        configure(site, own, backup)
        async with site.house() as house:
            await house.send(JAN, [PIET])
            raised = await house.event(AlarmRaised)
            await arrived(house)
    assert (raised.cause, raised.severity) == ("auth-refused:own", "error")
    (received,) = alarms_in(backup)
    assert received.reverse_path == ""
    told = parsed(received)
    assert told["Subject"] == ("[relay relay.example.nl] Aanmelding geweigerd door own / Login refused by own")
    assert (told["To"], told["Auto-Submitted"]) == (ADMIN, "auto-generated")
    assert ACCOUNT in told["From"]
    text = told.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert "Upstream own weigerde de aanmelding: 535 5.7.8 wrong name or password." in text
    assert "The upstream own refused the login: 535 5.7.8 wrong name or password." in text
    assert "`relay reload`" in text
    assert not any(secret in text for secret in ("verkeerd", PASSWORD, JAN, PIET))


@pytest.mark.asyncio
async def test_one_cause_is_mailed_once_a_day_after_a_restart_as_well(site: Site, clock: Clock) -> None:
    site.set_password("verkeerd")
    async with site.upstream() as own, ScriptedUpstream() as backup:
        configure(site, own, backup)
        async with site.house() as house:
            await house.send(JAN, [PIET])
            await arrived(house)
            clock.ahead = 23 * HOUR
            await clock.looked()
            assert mailed(house) == 1
        async with site.house() as house:  # the store remembers
            await house.send(JAN, [PIET])
            await house.event(AlarmRaised, cause="auth-refused:own")
            await clock.looked()
            assert mailed(house) == 0
            clock.ahead = 25 * HOUR
            await arrived(house)
            await clock.looked()
            assert mailed(house) == 1
    assert len(alarms_in(backup)) == 2


@pytest.mark.asyncio
async def test_an_upstream_that_is_aside_is_an_alarm_after_an_hour_and_none_once_it_is_back(
    site: Site, clock: Clock
) -> None:
    async with site.upstream() as own, ScriptedUpstream() as backup:
        configure(site, own, backup)
        await own.go_down()
        async with site.house() as house:
            await house.send(JAN, [PIET])
            await house.event(UpstreamSetAside)
            clock.ahead = timedelta(minutes=58)
            await clock.looked()
            assert house.seen.all(AlarmRaised) == []
            assert mailed(house) == 0
            clock.ahead = timedelta(minutes=61)
            raised = await house.event(AlarmRaised)
            await arrived(house)
            await own.come_back()
            await house.relay.reload()
            await house.send(JAN, [PIET])
            await house.event(AlarmCleared, cause="upstream-aside:own")
    assert raised.cause == "upstream-aside:own"
    (received,) = alarms_in(backup)
    assert "Upstream own werkt niet / Upstream own does not work" in parsed(received)["Subject"]


@pytest.mark.asyncio
async def test_an_alarm_that_cannot_leave_now_waits_and_arrives_when_the_upstream_is_back(
    site: Site, clock: Clock
) -> None:
    async with site.upstream() as own:
        site.configure(
            upstreams={"own": site.way_to(own)}, routes={"default": {"retry": "1d"}}, bounces={"also": ADMIN}
        )
        await own.go_down()
        async with site.house() as house:
            await house.send(JAN, [PIET])
            await house.event(UpstreamSetAside)
            clock.ahead = 2 * HOUR
            await house.event(NotificationQueued, reader=ADMIN)
            await own.come_back()
            await house.relay.reload()
            await arrived(house)
    assert len(alarms_in(own)) == 1


@pytest.mark.asyncio
async def test_a_certificate_of_a_listener_that_ends_soon_and_a_full_disk_are_mailed(site: Site, clock: Clock) -> None:
    pem = site.folder / "door.pem"
    leaf = authority().issue_cert("localhost", not_after=datetime.now(UTC) + 5 * DAY)
    leaf.private_key_and_cert_chain_pem.write_to_path(str(pem))
    pem.chmod(0o600)
    door = {"name": "legacy", "listen": "127.0.0.1:0", "tls": "starttls", "certificate": str(pem), "key": str(pem)}
    async with site.upstream() as own, ScriptedUpstream() as backup:
        queue = {"store": f"sqlite:{site.queue_path}", "min_free": "1000000GiB"}
        configure(site, own, backup, listeners=[door], queue=queue)
        async with site.house() as house, Client.to(house.port()) as client:
            # New mail is refused, but what is wrong gets out.
            assert (await client.say(f"MAIL FROM:<{JAN}>")).startswith("452 4.3.1 ")
            await arrived(house, 1)
            await arrived(house, 2)
            await clock.looked()
            assert mailed(house) == 2
    subjects = sorted(parsed(one)["Subject"].rpartition(" / ")[2] for one in alarms_in(own))
    assert subjects == ["Certificate of legacy ends soon", "Disk full: new mail is refused"]


@pytest.mark.asyncio
async def test_session_codes_that_expired_are_mailed_without_the_code(site: Site, clock: Clock) -> None:
    codes = {
        "enabled": True,
        "via_own_smtp": True,
        "own": "code-way",
        "fallback": False,
        "on_expire": "drop",
        "match": [{"subject": "*sessiecode*"}],
    }
    async with site.upstream() as own, ScriptedUpstream() as backup, site.upstream() as down:
        ways = {"own": site.way_to(own), "code-way": site.way_to(down)}
        configure(site, own, backup, upstreams=ways, routes={"default": {"upstreams": ["own"]}}, session_codes=codes)
        await down.go_down()
        async with site.house() as house:
            await house.send(JAN, [PIET], mail("Uw sessiecode 482913"))
            await house.event(RecipientDeferred)
            clock.ahead = timedelta(minutes=11)
            await house.event(RecipientExpired)
            await arrived(house)
    (received,) = alarms_in(own)
    assert parsed(received)["Subject"].endswith("Sessiecodes verlopen / Session codes expired")
    assert b"482913" not in received.content


@pytest.mark.asyncio
async def test_without_a_reader_nothing_is_mailed_and_the_alarm_is_raised_all_the_same(
    site: Site, clock: Clock
) -> None:
    site.set_password("verkeerd")
    async with site.upstream() as own, ScriptedUpstream() as backup:
        configure(site, own, backup, bounces={})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            await house.event(AlarmRaised, cause="auth-refused:own")
            await house.event(RecipientDelivered, queue_id=queue_id)
            await clock.looked()
            assert house.seen.all(NotificationQueued) == []
    assert len(backup.messages) == 1


@pytest.mark.asyncio
async def test_a_sender_is_told_once_that_the_mail_waits_and_then_that_it_was_given_up(
    site: Site, clock: Clock
) -> None:
    async with site.upstream() as own, ScriptedUpstream() as backup:
        own.script("rcpt", lambda _: "450 4.2.0 later" if PIET in own.commands[-1] else None, times=None)
        routes = {"default": {"upstreams": ["own"], "retry": "1h", "lifetime": "2d"}}
        configure(site, own, backup, routes=routes, bounces={"delay_warning": "4h", "also": ADMIN})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            for number, ahead in enumerate((0, 2, 5, 8), 1):
                clock.ahead = ahead * HOUR
                await house.relay.reload()
                await house.event(RecipientDeferred, number, queue_id=queue_id)
            warning = await house.event(NotificationQueued, about=queue_id)
            await house.event(RecipientDelivered, queue_id=warning.queue_id)
            clock.ahead = 49 * HOUR
            await house.relay.reload()
            await house.event(RecipientExpired, queue_id=queue_id)
            await house.event(NotificationQueued, 3, about=queue_id)
            await house.empty()
            told = [(one.kind, one.reader) for one in house.seen.all(NotificationQueued, about=queue_id)]
    assert told == [("delay", JAN), ("failure", JAN), ("failure", ADMIN)]
    first = next(one for one in own.messages if one.recipients == (JAN,))
    assert b"Action: delayed" in first.content
    assert b"Bijgaand" not in first.content


@pytest.mark.asyncio
async def test_who_answers_for_the_relay_gets_a_copy_of_each_failure_without_the_body(site: Site) -> None:
    async with site.upstream() as own, ScriptedUpstream() as backup:
        own.script("rcpt", lambda _: "550 5.1.1 no such user" if PIET in own.commands[-1] else None, times=None)
        configure(site, own, backup)
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET], mail(body=b"Vertrouwelijk: 40 000 euro.\r\n"))
            await house.event(NotificationQueued, 2, about=queue_id)
            await house.empty()
            null = await house.send("", [PIET], mail(body=b"Vertrouwelijk: 40 000 euro.\r\n"))
            await house.event(NotificationQueued, about=null)
            await house.empty()
            assert house.seen.all(NotificationQueued, about=null, reader=JAN) == []
    copies = alarms_in(own)
    assert len(copies) == 2
    for copy in copies:
        report = parsed(copy)
        assert (copy.reverse_path, report["Auto-Submitted"]) == ("", "auto-replied")
        assert b"Factuur 2024-117" in copy.content
        assert b"Vertrouwelijk" not in copy.content
        assert b"5.1.1" in copy.content


@pytest.mark.asyncio
@pytest.mark.parametrize("running", [True, False], ids=["by the running relay", "while none runs"])
async def test_held_mail_that_is_released_is_delivered_once_as_the_rules_say_now(
    site: Site, clock: Clock, running: bool
) -> None:
    hold = {"name": "look", "match": {"from": JAN}, "hold": True}
    rewrite = {"name": "fallback", "address": "administratie@example.nl"}
    async with site.upstream() as own, ScriptedUpstream() as backup:
        configure(site, own, backup, senders=[hold, rewrite])
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            await house.event(EntryHeld, queue_id=queue_id, rule="look")
            await reachable(site)
            site.configuration["senders"] = [rewrite]
            site.write()
            if running:
                assert (await relay(site, "reload")).code == 0
                assert (await relay(site, "queue", "list", "--state", "held")).out.count(queue_id) == 1
                released = await relay(site, "queue", "release", queue_id)
                await house.event(RecipientDelivered, queue_id=queue_id)
        if not running:
            released = await relay(site, "queue", "release", queue_id)
            async with site.house() as house:
                await house.event(RecipientDelivered, queue_id=queue_id)
        found = await relay(site, "queue", "find", "--to", PIET)
    assert (released.code, released.out) == (0, f"{queue_id}: released\n")
    (received,) = own.messages
    assert parsed(received)["From"] == "Jan <administratie@example.nl>"
    assert received.reverse_path == "administratie@example.nl"
    assert "delivered" in found.out


@pytest.mark.asyncio
async def test_a_failure_that_nobody_may_be_told_of_is_an_error_in_status_and_not_lost(site: Site) -> None:
    async with site.upstream() as own:
        own.script("rcpt", "550 5.1.1 no such user", times=None)
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            bounce = await house.event(NotificationQueued, about=queue_id)
            await house.event(RecipientFailed, queue_id=bounce.queue_id)
            await house.empty()
            await reachable(site)
            answer = await relay(site, "status")
            found = await relay(site, "queue", "find")
    assert bounce.queue_id in answer.out
    assert [line.split()[0] for line in found.lines[1:]] == [bounce.queue_id, queue_id]
    assert all("failed" in line for line in found.lines[1:])
