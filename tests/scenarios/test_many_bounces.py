"""An upstream refuses everything: twenty reports by themselves, one summary of the rest, over kill -9 and restart."""

from __future__ import annotations

import asyncio
import email
import re
import signal
from datetime import UTC, datetime, timedelta
from email.message import Message
from typing import cast

import pytest

from relay import wiring
from relay.delivery import summaries
from relay.events import NotificationCollected, NotificationQueued, RecipientDelivered, RecipientFailed
from tests.kit.house import JAN, PIET, Client, Site, free_port, mail
from tests.kit.process import Process
from tests.kit.upstream import Received, ScriptedUpstream

ADMIN = "beheer@example.nl"


class Clock:
    """The wall clock of a relay in this process."""

    ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(wiring, "now", made.now)
    monkeypatch.setattr(summaries, "EVERY", 0.02)
    return made


def refuse_piet(upstream: ScriptedUpstream, reply: str = "550 5.1.1 no such user") -> None:
    upstream.script("rcpt", lambda _: reply if PIET in upstream.commands[-1] else None, times=None)


def told(received: Received) -> tuple[str, list[str]]:
    """The words of a report or a summary, and the messages its blocks tell of."""
    words, status, *_ = cast("list[Message]", email.message_from_bytes(received.content).get_payload())
    blocks = cast("list[Message]", status.get_payload())
    text = words.get_payload(decode=True)
    assert isinstance(text, bytes)
    return text.decode(), [str(block["X-Queue-ID"]) for block in blocks if block["X-Queue-ID"]]


@pytest.mark.asyncio
async def test_of_a_hundred_bounces_twenty_come_alone_and_eighty_in_one_summary_over_a_kill_9(
    site: Site, clock: Clock
) -> None:
    port = free_port()
    async with site.upstream() as own:
        refuse_piet(own)
        site.configure(
            upstreams={"own": site.way_to(own)},
            listeners=[{"name": "legacy", "listen": f"127.0.0.1:{port}"}],
            bounces={"also": ADMIN},
            log={"format": "json"},
        )
        ids: list[str] = []

        async def send(count: int) -> None:
            async with Client.to(port) as client:
                for _ in range(count):
                    ids.append(await client.send(JAN, [PIET], mail(f"Factuur {len(ids) + 1}")))

        async with Process.serving(site) as relay:
            await send(60)
            await relay.line("collected", 40, recipient=JAN)
            await relay.line("collected", 40, recipient=ADMIN)
            await own.until(lambda: len(own.messages) == 40)
            await relay.line("delivered", 40)
            relay.signal(signal.SIGKILL)
            await relay.ended()
        async with Process.serving(site) as relay:  # the count of the hour has survived
            await send(40)
            await relay.line("collected", 40, recipient=JAN)
            await relay.line("collected", 40, recipient=ADMIN)
            assert relay.all("notified") == []
            relay.signal(signal.SIGKILL)
            await relay.ended()
        assert len(own.messages) == 40
        clock.ahead = timedelta(minutes=61)
        async with site.house() as house:
            for reader in (JAN, ADMIN):
                queued = await house.event(NotificationQueued, reader=reader)
                assert (queued.kind, queued.about) == ("summary", "")
                await house.event(RecipientDelivered, queue_id=queued.queue_id)
            await house.empty()
        async with site.house() as house:
            assert house.seen.all(NotificationQueued) == []
    for reader in (JAN, ADMIN):
        mine = [one for one in own.messages if one.recipients == (reader,)]
        assert len(mine) == 21
        alone = {queue_id for one in mine[:20] for queue_id in told(one)[1]}
        text, (_, *collected) = told(mine[20])
        assert mine[20].reverse_path == ""
        assert (len(alone), len(collected)) == (20, 80)
        assert alone | set(collected) == set(ids)
        subjects = {int(number) for number in re.findall(r"Onderwerp / Subject: Factuur (\d+)\r", text)}
        assert subjects == {number for number, queue_id in enumerate(ids, 1) if queue_id in set(collected)}
        assert ("Afzender / Sender: jan@example.nl" in text) is (reader == ADMIN)
        assert "550 5.1.1 no such user" in text


@pytest.mark.asyncio
async def test_delays_count_and_are_collected_as_failures_are(site: Site, clock: Clock) -> None:
    async with site.upstream() as own:
        refuse_piet(own, "450 4.2.1 mailbox busy")
        site.configure(
            upstreams={"own": site.way_to(own)},
            routes={"default": {"retry": "1d", "lifetime": "5d"}},
            bounces={"delay_warning": "1h"},
        )
        async with site.house() as house:
            ids = await house.send_many([f"Factuur {number}" for number in range(23)])
            clock.ahead = timedelta(hours=2)
            await house.relay.reload()
            await house.event(NotificationCollected, 3)
            own.unscript("rcpt")
            refuse_piet(own)
            await house.relay.reload()
            await house.event(RecipientFailed, 23)
            await house.event(NotificationCollected, 26)
            clock.ahead = timedelta(hours=3, seconds=1)
            await house.event(NotificationQueued, 21)
            await house.event(RecipientDelivered, 21, recipient=JAN)
            await house.empty()
            kinds = [event.kind for event in house.seen.all(NotificationQueued)]
            collected_kinds = [event.kind for event in house.seen.all(NotificationCollected)]
    assert kinds == ["delay"] * 20 + ["summary"]
    assert collected_kinds == ["delay"] * 3 + ["failure"] * 23
    text, (_, *collected) = told(own.messages[-1])
    assert text.startswith("Berichten die niet of nog niet bezorgd zijn: 26.")
    assert len(collected) == 26
    assert set(collected) == set(ids)


@pytest.mark.asyncio
async def test_a_bounce_is_made_once_when_the_relay_dies_at_that_moment(site: Site) -> None:
    port = free_port()
    async with site.upstream() as own:
        refuse_piet(own)
        site.configure(
            upstreams={"own": site.way_to(own)},
            listeners=[{"name": "legacy", "listen": f"127.0.0.1:{port}"}],
            log={"format": "json"},
        )
        sent: list[str] = []
        for round_ in range(3):
            async with Process.serving(site) as relay, Client.to(port) as client:
                sent += [await client.send(JAN, [PIET], mail(f"{round_}-{number}")) for number in range(3)]
                await relay.line("failed", 1 + round_ % 2)
                relay.signal(signal.SIGKILL)
                await relay.ended()
        async with Process.serving(site) as relay:
            await asyncio.wait_for(
                own.until(lambda: {one for m in own.messages for one in told(m)[1]} >= set(sent)), 30
            )
            relay.signal(signal.SIGTERM)
            await relay.ended()
    message_ids = [email.message_from_bytes(one.content)["Message-ID"] for one in own.messages]
    about = {tuple(told(one)[1]): message_id for one, message_id in zip(own.messages, message_ids, strict=True)}
    assert len(about) == len(sent)  # one report for each message…
    assert set(message_ids) == set(about.values())  # …however often its delivery was repeated
