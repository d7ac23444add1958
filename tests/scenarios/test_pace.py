"""The whole relay at a provider's pace: over kill -9 and restarts, with session codes past all other mail."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from relay import wiring
from relay.events import (
    MessageQueued,
    NotificationQueued,
    RecipientDelivered,
    UpstreamConnected,
    UpstreamSetAside,
    UpstreamThrottled,
)
from relay.observe import lag
from tests.kit import virtual_time
from tests.kit.house import JAN, PIET, Client, RunningHouse, Site, free_port, mail
from tests.kit.process import Process
from tests.kit.upstream import ScriptedUpstream, Session
from tests.scenarios.desk import reachable, relay

CODE_MAIL = mail("Uw inlogcode 913-557")
AGAIN = pytest.mark.repetition
QUOTA = "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Callable[[Coroutine[Any, Any, None]], None]:
    monkeypatch.setattr(wiring, "now", virtual_time.now)
    monkeypatch.setattr(lag, "PERIOD", 60.0)  # the clock would stop for it ten times a second
    return virtual_time.run


@asynccontextmanager
async def open_house(site: Site) -> AsyncIterator[RunningHouse]:
    async with site.house(patience=7 * 86_400) as house:
        yield house


async def until(condition: Callable[[], bool]) -> None:
    """However many hours that takes."""
    while not condition():
        await asyncio.sleep(1.0)


async def hand_in(house: RunningHouse, count: int) -> None:
    async with Client.to(house.port()) as client:
        for number in range(count):
            await client.send(JAN, [PIET], mail(f"Factuur {number}"))


class Counting(ScriptedUpstream):
    """Notes when each MAIL came."""

    def __init__(self, **terms: Any) -> None:
        super().__init__(**terms)
        self.times: list[float] = []

    async def _on_mail(self, session: Session, argument: str) -> None:
        self.times.append(asyncio.get_running_loop().time())
        await super()._on_mail(session, argument)


@pytest.mark.asyncio
async def test_what_left_before_a_kill_9_counts_after_it(site: Site) -> None:
    port = free_port()
    async with site.upstream() as own:
        site.configure(
            upstreams={"own": site.way_to(own, rate="5/h")},
            listeners=[{"name": "legacy", "listen": f"127.0.0.1:{port}"}],
            log={"format": "json"},
        )
        async with Process.serving(site) as first:
            async with Client.to(port) as client:
                for number in range(8):
                    await client.send(JAN, [PIET], mail(f"Factuur {number}"))
            await own.until(lambda: len(own.messages) == 5)
            first.signal(signal.SIGKILL)
            await first.ended()
        async with Process.serving(site) as again:
            await reachable(site)
            status = (await relay(site, "status", "--json")).document["status"]
            (upstream,) = status["upstreams"]
            assert upstream["pace"] == [{"used": 5, "most": 5, "seconds": 3600.0, "of_recipients": False}]
            assert "5_of_5/h" in (await relay(site, "status")).out
            waiting = sum(status["routes"][0][place] for place in ("pending", "deferred", "active"))
            assert waiting >= 3
            assert len(own.messages) == 5
            site.configuration["upstreams"]["own"]["rate"] = "500/h"
            site.write()
            again.signal(signal.SIGHUP)
            await own.until(lambda: len({received.content for received in own.messages}) == 8)


def test_in_no_minute_more_leaves_than_the_rate_over_restarts(site: Site, live: Callable[..., None]) -> None:
    async def scene() -> None:
        async with Counting() as own:
            site.configure(upstreams={"own": site.way_to(own, rate="10/min")})
            for round_ in range(3):
                async with open_house(site) as house:
                    if round_ == 0:
                        await hand_in(house, 60)
                    until_then = len(own.messages) + (15 if round_ < 2 else 60)
                    await until(lambda until_then=until_then: len(own.messages) >= min(60, until_then))  # type: ignore[misc]
            assert len(own.messages) == 60
            for first in own.times:
                assert sum(first <= at < first + 60.0 for at in own.times) <= 10
            assert own.times[-1] - own.times[0] < 6 * 62

    live(scene())


def test_a_code_goes_at_once_on_the_connection_that_lies_ready_while_five_hundred_mails_wait(
    site: Site, live: Callable[..., None]
) -> None:
    async def scene() -> None:
        async with site.upstream() as own:
            site.configure(
                upstreams={"own": site.way_to(own, rate="30/min")},
                session_codes={"enabled": True, "via_own_smtp": True, "fallback": False},
            )
            async with open_house(site) as house:
                await hand_in(house, 500)
                await until(lambda: len(own.messages) == 24)  # a fifth is kept
                code = await one(house, CODE_MAIL)
                await until(lambda: bool(house.seen.all(RecipientDelivered, queue_id=code)))
                events = house.seen.events
                queued = events.index(house.seen.all(MessageQueued, queue_id=code)[0])
                left = events.index(house.seen.all(RecipientDelivered, queue_id=code)[0])
                assert not any(isinstance(event, UpstreamConnected) for event in events[queued:left])
                assert house.seen.all(RecipientDelivered, queue_id=code)[0].delay < 0.05
                await until(lambda: house.ledger.delivered == 501)

    live(scene())


async def one(house: RunningHouse, content: bytes) -> str:
    async with Client.to(house.port()) as client:
        return await client.send(JAN, [PIET], content)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("dot", QUOTA),
        pytest.param("dot", "554 5.7.1 The domain has gone over its 500 mails a day", marks=AGAIN),
        pytest.param("data", "550 5.7.1 <DATA>: Data command rejected: 100 mails per hour were sent", marks=AGAIN),
        ("rcpt", "550 Hourly limit of jan@example.nl is reached (101/100)"),
        pytest.param("rcpt", "450 Sending limit reached", marks=AGAIN),
    ],
)
def test_a_used_up_quota_holds_all_mail_over_a_restart_bounces_nothing_and_then_all_arrives(
    site: Site, live: Callable[..., None], stage: str, said: str
) -> None:
    async def scene() -> None:
        async with site.upstream() as own:
            own.script(stage, *[lambda _: None] * 3, said)
            own.script(stage, said, times=None)
            site.configure(upstreams={"own": site.way_to(own)}, routes={"default": {"retry": "1m"}})
            async with open_house(site) as house:
                await hand_in(house, 10)
                aside = await house.event(UpstreamSetAside)
                assert (aside.refusal, aside.seconds) == ("quota", 3600)
                await asyncio.sleep(60)
                (trouble,) = (await house.relay.snapshot()).troubles
                assert trouble.cause == "quota:own"
                assert "until" in trouble.text
                (upstream,) = (await house.relay.snapshot()).upstreams
                assert upstream.held_until is not None
            tried = len([command for command in own.commands if command.startswith("MAIL")])
            async with open_house(site) as house:
                assert (await house.event(UpstreamSetAside)).refusal == "quota"
                await asyncio.sleep(1800)
                assert len([command for command in own.commands if command.startswith("MAIL")]) == tried
                own.unscript(stage)
                await until(lambda: not house.ledger.pending + house.ledger.deferred + house.ledger.active)
                assert house.seen.all(NotificationQueued) == []
                assert (await house.relay.snapshot()).troubles == ()
            assert len({received.content.partition(b"Subject: ")[2] for received in own.messages}) == 10

    live(scene())


def test_beyond_the_connections_that_the_provider_allows_mail_goes_over_fewer(
    site: Site, live: Callable[..., None]
) -> None:
    async def scene() -> None:
        async with site.upstream() as own:

            def two_at_most(session: Session) -> object:
                return "432 4.3.2 Concurrent connections limit exceeded" if own.open > 2 else None

            own.script("mail", two_at_most, times=None)
            site.configure(upstreams={"own": site.way_to(own, max_connections=4)}, routes={"default": {"retry": "1h"}})
            async with open_house(site) as house:
                await own.go_down()
                await hand_in(house, 100)
                await own.come_back()
                began = asyncio.get_running_loop().time()
                await house.relay.reload()
                await until(lambda: house.ledger.delivered == 100)
                assert asyncio.get_running_loop().time() - began < 300
                assert len(house.seen.all(UpstreamSetAside)) == 1  # while it was down
                assert 1 <= len(house.seen.all(UpstreamThrottled)) <= 10
            assert len(own.messages) == 100

    live(scene())


def test_a_refused_login_sends_mail_the_next_way_and_back_once_the_password_is_right(
    site: Site, live: Callable[..., None]
) -> None:
    async def scene() -> None:
        async with site.upstream() as own, site.upstream() as spare:
            spare_way = site.way_to(spare)
            spare_way["password"] = {"file": str(site.folder / "other")}
            (site.folder / "other").write_text(site.password_path.read_text())
            (site.folder / "other").chmod(0o600)
            site.set_password("wrong")
            site.configure(
                upstreams={"own": site.way_to(own), "spare": spare_way},
                session_codes={"enabled": True, "via_own_smtp": True, "vendor": "spare"},
                routes={"default": {"upstreams": ["own", "spare"], "retry": "1m"}},
            )
            async with open_house(site) as house:
                await house.event(UpstreamSetAside, upstream="own")  # by the connection that was to lie ready
                await hand_in(house, 5)
                code = await one(house, CODE_MAIL)
                await until(lambda: house.ledger.delivered == 6)
                assert house.seen.all(RecipientDelivered, queue_id=code)[0].upstream == "spare"
                assert len(own.auth_tries) <= 2
                site.set_password((site.folder / "other").read_text())
                await house.relay.reload()
                await hand_in(house, 1)
                await until(lambda: house.ledger.delivered == 7)
                assert house.seen.all(RecipientDelivered)[-1].upstream == "own"

    live(scene())


def test_one_mail_of_a_person_does_not_wait_behind_a_batch_that_has_a_route_of_its_own(
    site: Site, live: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def story() -> None:
        async with site.upstream() as own:
            site.configure(
                upstreams={"own": site.way_to(own, rate="30/min")},
                routes={"default": {}, "batches": {"priority": "low"}},
                senders=[{"name": "batches", "match": {"subject": "Factuur*"}, "keep": True, "route": "batches"}],
            )
            async with open_house(site) as house:
                await hand_in(house, 300)
                async with Client.to(house.port()) as client:
                    letter = await client.send(JAN, [PIET], mail("Een vraag"))
                await until(lambda: bool(house.seen.all(RecipientDelivered, queue_id=letter)))
                assert len(own.messages) <= 60  # of the second minute
                await until(lambda: len(own.messages) == 301)

    live(story())
