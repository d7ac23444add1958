"""Who answers for the relay is told in time: alarm mails that arrive, delay warnings, copies of failures, held mail."""

from __future__ import annotations

import email
import os
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.policy import default

import pytest

from relay.delivery import worker
from relay.events import (
    AlarmCleared,
    AlarmNotSent,
    AlarmRaised,
    AlarmSent,
    EntryHeld,
    NotificationQueued,
    RecipientDeferred,
    RecipientDelivered,
    RecipientExpired,
    RecipientFailed,
    RelayStarted,
    StoreFailed,
    StoreRecovered,
    UpstreamSetAside,
)
from tests.kit.certificates import authority
from tests.kit.endpoint import Endpoint, answer
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
    return len(house.seen.all(AlarmSent, way="mail"))


async def arrived(house: RunningHouse, number: int = 1) -> None:
    """Wait for the delivery of the alarm mail of that number."""
    await house.event(AlarmSent, number, way="mail")


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
async def test_an_alarm_never_leaves_by_what_it_is_about_and_the_log_says_that_there_is_no_other_way(
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
            failed = await house.event(AlarmNotSent, cause="upstream-aside:own", way="mail")
            await own.come_back()
            await house.relay.reload()
            await house.event(AlarmCleared, cause="upstream-aside:own")
            await clock.looked()
    assert failed.text == "there is no other upstream than what it is about"
    assert alarms_in(own) == []


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
            await house.event(AlarmSent, cause="session-codes-expired")
    subjects = [parsed(received)["Subject"].partition("] ")[2] for received in alarms_in(own)]
    assert subjects[-1] == "Sessiecodes verlopen / Session codes expired"
    assert set(subjects[:-1]) <= {"Sessiecodes blijven hangen / Session codes are stuck"}
    assert not any(b"482913" in received.content for received in alarms_in(own))


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
            assert house.seen.all(AlarmSent) == []
    assert len(backup.messages) == 1


@pytest.mark.asyncio
async def test_while_the_only_provider_refuses_the_login_alarms_leave_by_mail_by_a_command_and_by_a_webhook(
    site: Site, clock: Clock
) -> None:
    site.set_password("verkeerd")
    got = site.folder / "got"
    script = f'{{ echo "$RELAY_CAUSE $RELAY_SEVERITY"; cat; }} > {got}.part && mv {got}.part {got}'
    async with (
        site.upstream() as own,
        ScriptedUpstream() as small,
        Endpoint(site.certificates.good) as service,
    ):
        webhook = {"url": service.url, "format": "slack", "tls_ca": site.certificates.ca_path}
        alarms = {"to": ADMIN, "upstream": "small", "command": ["/bin/sh", "-c", script], "webhook": webhook}
        other = {"host": small.host, "port": small.port, "tls": "none"}
        ways = {"own": site.way_to(own), "small": other}
        site.configure(upstreams=ways, routes={"default": {"upstreams": ["own"], "retry": "1d"}}, alarms=alarms)
        async with site.house() as house:
            await house.send(JAN, [PIET])
            for way in ("mail", "command", "webhook"):
                await house.event(AlarmSent, way=way, cause="auth-refused:own")
            await clock.looked()
            assert len(house.seen.all(AlarmSent)) == 3
    (letter,) = alarms_in(small)
    assert "Login refused by own" in parsed(letter)["Subject"]
    first, _, text = got.read_text().partition("\n")
    assert first == "auth-refused:own error"
    assert text.startswith("[relay relay.example.nl] Login refused by own\n\nThe mail relay on relay.example.nl needs")
    (request,) = service.requests
    assert request.json["text"].startswith("*[relay relay.example.nl] Login refused by own*\n")
    assert own.messages == []
    assert not any(secret in f"{text}{request.body!r}" for secret in ("verkeerd", PASSWORD, JAN, PIET))


@pytest.mark.asyncio
async def test_an_alarm_that_the_queue_cannot_be_written_does_not_wait_for_the_queue(site: Site, clock: Clock) -> None:
    async with site.upstream() as own, ScriptedUpstream() as backup:
        configure(site, own, backup)
        async with site.house() as house:
            await house.event(RelayStarted)
            os.rename(site.queue_path, site.folder / "elsewhere.db")
            await house.event(StoreFailed, reason="moved")
            await arrived(house)
            os.rename(site.folder / "elsewhere.db", site.queue_path)
            await house.event(StoreRecovered)
    (received,) = alarms_in(own)
    assert parsed(received)["Subject"].endswith("A file of the queue was taken away")


@pytest.mark.asyncio
async def test_a_way_of_alarms_that_fails_is_in_log_and_status_and_stops_neither_mail_nor_the_other_ways(
    site: Site, clock: Clock
) -> None:
    site.set_password("verkeerd")
    async with site.upstream() as own, ScriptedUpstream() as backup, Endpoint(site.certificates.good) as service:
        service.always(answer(403, text="invalid_token"))
        webhook = {"url": f"{service.url}/geheim", "tls_ca": site.certificates.ca_path}
        command = ["/bin/sh", "-c", "echo geen verbinding >&2; exit 7"]
        configure(site, own, backup, alarms={"to": ADMIN, "command": command, "webhook": webhook})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            await house.event(RecipientDelivered, queue_id=queue_id, upstream="backup")
            said = {one.way: one.text for one in [await house.event(AlarmNotSent, n) for n in (1, 2)]}
            await arrived(house)
            await house.event(AlarmRaised, cause="alarm-failed:command")
            await reachable(site)
            status = await relay(site, "status")
    assert said == {"command": "it ended with code 7: geen verbinding", "webhook": "it answered 403: invalid_token"}
    assert status.code == 1
    assert "An alarm could not be sent by alarms.command: it ended with code 7: geen verbinding." in status.out
    assert "`relay test --alarm`" in status.out
    assert "geheim" not in status.out


@pytest.mark.asyncio
async def test_every_way_of_alarms_can_be_tried(site: Site) -> None:
    async with site.upstream() as own, ScriptedUpstream() as backup, Endpoint(site.certificates.good) as service:
        webhook = {"url": service.url, "tls_ca": site.certificates.ca_path}
        alarms = {"to": ADMIN, "command": ["/bin/cat"], "webhook": webhook}
        configure(site, own, backup, alarms=alarms)
        async with site.house():
            await reachable(site)
            good = await relay(site, "test", "--alarm")
            await backup.go_down()
            site.configuration["alarms"]["command"] = ["/bin/false"]
            site.write()
            assert (await relay(site, "reload")).code == 0
            bad = await relay(site, "test", "--alarm")
            assert (await relay(site, "test")).code == 2
        assert (await relay(site, "test", "--alarm")).code == 3
    assert (good.code, good.lines) == (
        0,
        [
            f"mail: sent, {ADMIN} by own",
            f"mail: sent, {ADMIN} by backup",
            "command: sent, /bin/cat",
            "webhook: sent, json",
        ],
    )
    assert bad.code == 1
    assert bad.lines[1].startswith("mail: NOT sent: backup: no connection to")
    assert bad.lines[2] == "command: NOT sent: it ended with code 1"
    assert service.requests[0].json["cause"] == "test"
    assert parsed(alarms_in(own)[0])["Subject"].endswith("Test of the alarms")


@pytest.mark.asyncio
async def test_an_outage_of_a_provider_that_delivered_before_needs_nobody_for_an_hour(site: Site, clock: Clock) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, routes={"default": {"retry": "1d"}})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            await house.event(RecipientDelivered, queue_id=queue_id)
            await own.go_down()
            await house.send(JAN, [PIET])
            await house.event(UpstreamSetAside)
            await reachable(site)
            (await_it,) = (await relay(site, "status", "--json")).document["status"]["troubles"]
            code = (await relay(site, "status")).code
            clock.ahead = timedelta(minutes=61)
            await house.event(AlarmRaised, cause="upstream-aside:own", severity="error")
            later = await relay(site, "status", "--json")
    assert (await_it["cause"], await_it["severity"], await_it["needs_a_person"], code) == (
        "upstream-aside:own",
        "warning",
        False,
        0,
    )
    assert (later.document["status"]["troubles"][0]["severity"], later.code) == ("error", 1)


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
