"""Session codes: the chosen way first, the other within seconds, never both; too late means loudly expired."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from relay.delivery import call, hedge
from relay.events import (
    AttemptEnded,
    Event,
    HedgeBegun,
    MessageQueued,
    NotificationQueued,
    RecipientDeferred,
    RecipientDelivered,
    RecipientExpired,
    RecipientFailed,
    UpstreamConnected,
    UpstreamSetAside,
)
from tests.kit.house import JAN, PATIENCE, PIET, RunningHouse, Site, mail
from tests.kit.upstream import CLOSE, DROP, KEYWORDS, SILENCE, Act, ScriptedUpstream, Session, then_drop

CODE = "913-557"
SUBJECT = f"Uw inlogcode {CODE}"
CODE_MAIL = mail(SUBJECT, body=f"De code is {CODE}. Deel hem met niemand.\r\n".encode())


def configure(site: Site, own: ScriptedUpstream, vendor: ScriptedUpstream, **codes: object) -> None:
    site.configure(
        upstreams={"own": site.way_to(own), "vendor": site.way_to(vendor)},
        routes={"default": {"retry": "1s"}, "session-codes": {"retry": "1s"}},
        session_codes={"enabled": True, **codes},
        log={"level": "debug"},
    )


async def delivered(house: RunningHouse) -> RecipientDelivered:
    queue_id = await house.send(JAN, [PIET], CODE_MAIL)
    return await house.event(RecipientDelivered, queue_id=queue_id)


@pytest.mark.asyncio
@pytest.mark.parametrize(("via_own_smtp", "expected"), [(False, "vendor"), (True, "own")])
async def test_a_code_takes_the_chosen_way_and_other_mail_its_own(
    site: Site, via_own_smtp: bool, expected: str
) -> None:
    async with site.upstream() as own, site.upstream() as vendor:
        configure(site, own, vendor, via_own_smtp=via_own_smtp)
        async with site.house() as house:
            event = await delivered(house)
            assert (event.upstream, event.route, event.session_code) == (expected, "session-codes", True)
            ordinary = await house.send(JAN, [PIET])
            assert (await house.event(RecipientDelivered, queue_id=ordinary)).upstream == "own"


@pytest.mark.asyncio
@pytest.mark.parametrize(("via_own_smtp", "chosen", "other"), [(False, "vendor", "own"), (True, "own", "vendor")])
async def test_a_code_takes_the_other_way_in_the_same_attempt_when_the_chosen_is_down(
    site: Site, via_own_smtp: bool, chosen: str, other: str
) -> None:
    async with site.upstream() as own, site.upstream() as vendor:
        await {"own": own, "vendor": vendor}[chosen].go_down()
        configure(site, own, vendor, via_own_smtp=via_own_smtp)
        async with site.house() as house:
            event = await delivered(house)
            assert (event.upstream, event.attempt) == (other, 1)


@pytest.mark.asyncio
@pytest.mark.parametrize("stage", ["banner", "ehlo", "starttls", "tls", "auth", "mail", "rcpt", "data"])
async def test_a_code_waits_only_seconds_for_a_silent_way_and_then_takes_the_other(
    site: Site, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "PATIENCE_WITH_SESSION_CODES", 1.0)
    async with site.upstream() as own, site.upstream() as vendor:
        vendor.script(stage, SILENCE, times=None)
        configure(site, own, vendor)
        async with site.house() as house:
            event = await delivered(house)
            assert (event.upstream, event.attempt) == ("own", 1)
    assert vendor.messages == []
    assert vendor.open == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("stage", ["banner", "ehlo", "starttls", "tls", "auth", "mail", "rcpt", "data"])
async def test_a_code_leaves_by_the_other_way_while_the_chosen_is_slow_and_by_that_alone(
    site: Site, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hedge, "HEDGE_AFTER", 0.2)
    monkeypatch.setattr(call, "PATIENCE_WITH_SESSION_CODES", 20.0)
    async with site.upstream() as own, site.upstream() as vendor:
        vendor.script(stage, SILENCE, times=None)
        configure(site, own, vendor)
        async with site.house() as house:
            event = await delivered(house)
            assert (event.upstream, event.attempt) == ("own", 1)
            assert [event.beside for event in house.seen.all(HedgeBegun)] == ["own"]
    assert (len(own.messages), vendor.messages) == (1, [])


@pytest.mark.asyncio
@pytest.mark.parametrize("keywords", [KEYWORDS, KEYWORDS[1:]], ids=["pipelined", "one by one"])
async def test_a_way_that_would_take_the_code_after_the_other_has_sent_it_gets_no_octet(
    site: Site, keywords: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hedge, "HEDGE_AFTER", 0.2)
    monkeypatch.setattr(call, "PATIENCE_WITH_SESSION_CODES", 20.0)
    async with site.upstream() as own, site.upstream(keywords=keywords) as vendor:
        answers = list[asyncio.Task[None]]()
        sent = asyncio.Event()

        def at_last(session: Session) -> Act:
            async def answer() -> None:
                await sent.wait()
                session.writer.write(b"250 2.1.5 ok\r\n354 go ahead\r\n"[: None if keywords == KEYWORDS else 14])

            answers.append(asyncio.create_task(answer()))
            return SILENCE

        vendor.script("rcpt", at_last)
        configure(site, own, vendor)
        async with site.house() as house:
            assert (await delivered(house)).upstream == "own"
            sent.set()
            if keywords == KEYWORDS:
                # There is no other way back from a 354. (Another connection is opened, to lie ready, at once.)
                await vendor.until(lambda: vendor.open < vendor.connections)
        await asyncio.gather(*answers)
    assert (len(own.messages), vendor.messages, vendor.rest) == (1, [], b"")


@pytest.mark.asyncio
@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
async def test_a_transient_reply_before_the_body_sends_a_code_the_other_way(site: Site, stage: str) -> None:
    async with site.upstream() as own, site.upstream() as vendor:
        vendor.script(stage, "451 4.3.0 not now")
        configure(site, own, vendor)
        async with site.house() as house:
            assert (await delivered(house)).upstream == "own"
    assert vendor.messages == []


@pytest.mark.asyncio
async def test_without_fallback_a_code_waits_for_the_chosen_way(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as vendor:
        await vendor.go_down()
        configure(site, own, vendor, fallback=False)
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET], CODE_MAIL)
            await house.event(RecipientDeferred, queue_id=queue_id)
            await vendor.come_back()
            assert (await house.event(RecipientDelivered, queue_id=queue_id)).upstream == "vendor"
    assert own.messages == []


@pytest.mark.asyncio
async def test_a_refused_code_is_told_to_its_sender_and_goes_no_other_way(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as vendor:
        vendor.script("rcpt", "550 5.1.1 no such user")
        configure(site, own, vendor)
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET], CODE_MAIL)
            failed = await house.event(RecipientFailed, queue_id=queue_id)
            assert (failed.code, failed.status, failed.text) == (550, "5.1.1", "")
            notification = await house.event(NotificationQueued, about=queue_id)
            await house.event(RecipientDelivered, queue_id=notification.queue_id)
    assert vendor.messages == []
    (bounce,) = own.messages
    assert bounce.recipients == (JAN,)
    assert CODE.encode() not in bounce.content
    assert b"inlogcode" not in bounce.content


@pytest.mark.asyncio
async def test_a_code_in_doubt_is_tried_once_more_by_the_same_way(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as vendor:
        vendor.script("dot", DROP)
        configure(site, own, vendor)
        async with site.house() as house:
            event = await delivered(house)
            assert (event.upstream, event.attempt) == ("vendor", 2)
    assert own.messages == []


@pytest.mark.asyncio
async def test_a_code_twice_in_doubt_ends_without_a_bounce_and_without_the_other_way(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as vendor:
        vendor.script("dot", DROP, CLOSE)
        configure(site, own, vendor)
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET], CODE_MAIL)
            failed = await house.event(RecipientFailed, queue_id=queue_id)
            assert failed.in_doubt
            assert house.seen.all(NotificationQueued) == []
            assert house.ledger.failed == 1
    assert own.messages == []


@pytest.mark.asyncio
async def test_a_code_in_doubt_by_one_way_never_goes_by_the_other_even_when_the_first_is_gone(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as vendor:
        vendor.script("dot", DROP)
        # The connection that lies ready; then the one that is to take its place, and the next attempt's.
        vendor.script("banner", lambda _: None, then_drop("421 4.3.2 down"), then_drop("421 4.3.2 down"))
        configure(site, own, vendor, lifetime="8s")
        async with site.house() as house:
            await house.event(UpstreamConnected, upstream="vendor")
            queue_id = await house.send(JAN, [PIET], CODE_MAIL)
            await house.event(UpstreamSetAside, upstream="vendor")
            event = await house.event(RecipientDelivered, queue_id=queue_id)
            assert event.upstream == "vendor"
    assert own.messages == []


@pytest.mark.asyncio
async def test_a_code_in_doubt_by_the_other_way_is_not_given_to_the_chosen_one(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as vendor:
        await vendor.go_down()
        own.script("dot", DROP)
        configure(site, own, vendor)
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET], CODE_MAIL)
            await house.event(RecipientDeferred, queue_id=queue_id, in_doubt=True)
            await vendor.come_back()
            assert (await house.event(RecipientDelivered, queue_id=queue_id)).upstream == "own"
    assert vendor.messages == []


@pytest.mark.asyncio
async def test_a_code_that_is_too_late_expires_and_its_sender_is_told(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as vendor:
        for upstream in (own, vendor):
            upstream.script("data", "451 4.3.0 not now", times=None)
        configure(site, own, vendor, lifetime="1s")
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET], CODE_MAIL)
            expired = await house.event(RecipientExpired, queue_id=queue_id)
            assert expired.delay >= 1
            own.unscript("data")
            notification = await house.event(NotificationQueued, about=queue_id)
            await house.event(RecipientDelivered, queue_id=notification.queue_id)
    assert (await own.message()).recipients == (JAN,)
    assert vendor.messages == []


@pytest.mark.asyncio
async def test_a_code_that_is_too_late_leaves_quietly_where_that_is_wanted(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as vendor:
        for upstream in (own, vendor):
            upstream.script("data", "451 4.3.0 not now", times=None)
        configure(site, own, vendor, lifetime="1s", on_expire="drop")
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET], CODE_MAIL)
            await house.event(RecipientExpired, queue_id=queue_id)
            await house.empty()
            assert house.seen.all(NotificationQueued) == []


@pytest.mark.asyncio
async def test_a_fresh_code_is_tried_although_both_ways_are_set_aside(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as vendor:
        await own.go_down()
        await vendor.go_down()
        configure(site, own, vendor)
        site.configuration["routes"]["session-codes"]["retry"] = "1h"
        site.write()
        async with site.house() as house:
            await house.send(JAN, [PIET], CODE_MAIL)
            await house.event(UpstreamSetAside, upstream="own")
            await vendor.come_back()
            assert (await delivered(house)).upstream == "vendor"


@pytest.mark.asyncio
async def test_a_code_passes_a_queue_of_other_mail(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as vendor:
        configure(site, own, vendor, via_own_smtp=True)
        site.configuration["upstreams"]["own"]["max_connections"] = 1
        site.write()
        go_on = asyncio.Event()
        own.script("dot", lambda session: go_on_later(session), times=1)

        answers = list[asyncio.Task[None]]()

        def go_on_later(session: object) -> object:
            async def answer() -> None:
                await go_on.wait()
                session.writer.write(b"250 2.0.0 ok\r\n221 bye\r\n")  # type: ignore[attr-defined]

            answers.append(asyncio.create_task(answer()))
            return SILENCE

        async with site.house() as house:
            ordinary = await house.send_many([str(number) for number in range(20)])
            code = await house.send(JAN, [PIET], CODE_MAIL)
            await house.event(MessageQueued, queue_id=code)
            go_on.set()
            await house.event(RecipientDelivered, 21)
            order = [event.queue_id for event in house.seen.all(RecipientDelivered)]
        await asyncio.gather(*answers)
    assert order.index(code) <= 2
    assert set(order) == {code, *ordinary}


@pytest.mark.asyncio
async def test_subject_and_code_are_in_no_event_and_in_no_file_once_it_is_settled(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as vendor:
        vendor.script("rcpt", f"451 4.7.1 {SUBJECT} looks odd", times=None)
        own.script("dot", f"451 4.7.1 greylisted: {SUBJECT}", f"250 2.0.0 queued: {SUBJECT}")
        configure(site, own, vendor)
        async with site.house() as house:
            event = await delivered(house)
            assert (event.attempt, event.code, event.text) == (2, 250, "")
            await wiped(site.folder)
            view = await house.relay.store.view()
            exposition, _ = house.relay.metrics.exposition("", (view.messages, view.oldest, view.bytes))
            assert secret_in(exposition) is False
        await asyncio.to_thread(nothing_secret_in, site.folder)
    assert [event for event in house.seen.events if secret_in(repr(event).encode())] == []
    assert house.seen.all(AttemptEnded)
    assert len(own.messages) == 1


def secret_in(text: bytes) -> bool:
    return CODE.encode() in text or b"inlogcode" in text


def files_with_the_secret(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret_in(path.read_bytes())]


def nothing_secret_in(folder: Path) -> None:
    assert files_with_the_secret(folder) == []


async def wiped(folder: Path) -> None:
    """Wait until no file holds the secret, while the relay runs."""
    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(files_with_the_secret, folder):
            await asyncio.sleep(0.05)


def test_events_have_no_room_for_content() -> None:
    fields = {name for kind in Event.__subclasses__() for name in kind.__annotations__}
    assert not fields & {"subject", "body", "content", "message", "head", "header", "password"}
