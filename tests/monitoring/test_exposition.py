"""What a running relay exposes while mail flows: valid, bounded, and in balance at every moment."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.observe.metrics import LEDGER_EVENTS, LEDGER_STATES
from tests.kit.house import Client, RunningHouse, Site, free_port, mail
from tests.kit.upstream import ScriptedUpstream

LISTENERS, UPSTREAMS = 3, 8
SESSIONS = 10

Page = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def get(port: int) -> bytes | None:
    """/metrics, or None while it is not served: that begins a moment after the doors are open."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.URLError:
        return None


async def scrape(port: int) -> bytes:
    async with asyncio.timeout(60):
        while (body := await asyncio.to_thread(get, port)) is None:
            await asyncio.sleep(0.02)
    return body


def series(body: bytes) -> Page:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def ledger(page: Page) -> tuple[dict[str, float], dict[str, float]]:
    """What came and went, and what is in the queue."""
    events = {event: page["relay_recipients_total", (("event", event),)] for event in LEDGER_EVENTS}
    states = {state: page["relay_queue_recipients", (("state", state),)] for state in LEDGER_STATES}
    return events, states


def capricious(chance: random.Random) -> ScriptedUpstream:
    """An upstream without TLS that takes most mail, and is never asked the same thing with the same end."""

    def whim(_: object) -> str | None:
        return chance.choice((None, None, None, None, None, "450 4.2.0 later", "550 5.1.1 no such mailbox"))

    upstream = ScriptedUpstream()
    upstream.script("rcpt", whim, times=None)
    return upstream


@asynccontextmanager
async def large_house(site: Site, **parts: Any) -> AsyncIterator[tuple[RunningHouse, int]]:
    """A house with three listeners and eight upstreams, the first of them capricious; its port for scrapes."""
    port = free_port()
    chance = random.Random(7)
    async with capricious(chance) as first:
        ways = {f"u{number}": {"type": "capture", "directory": str(site.folder / str(number))} for number in range(7)}
        site.configure(
            listeners=[{"name": f"l{number}", "listen": "127.0.0.1:0"} for number in range(LISTENERS)],
            upstreams={"first": site.way_to(first, max_connections=5), **ways},
            routes={
                "default": {"upstreams": ["first"], "retry": "10m"},
                **{f"r{number}": {"upstreams": [f"u{number}"]} for number in range(4)},
            },
            session_codes={"enabled": True, "own": "u0", "vendor": "u1"},
            senders=[
                {"name": "look", "match": {"to": "held-*"}, "hold": True},
                {"name": "to a file", "match": {"from": "b*"}, "keep": True, "route": "r1"},
                {"name": "mailbox", "address": "relay@example.nl"},
            ],
            admin={"listen": f"127.0.0.1:{port}", "socket": str(site.control_path)},
            **parts,
        )
        async with site.house() as house:
            yield house, port


async def pour(house: RunningHouse, chances: Sequence[random.Random], messages: int) -> None:
    """Random mail through all doors, in as many sessions as there are dice."""

    def address(chance: random.Random) -> str:
        local = "".join(chance.choices("abcdefghij", k=8))
        return f"{chance.choice(('', 'held-')) if chance.random() < 0.2 else ''}{local}@{local[:4]}.example"

    async def session(number: int, chance: random.Random) -> None:
        async with Client.to(house.port(f"l{number % LISTENERS}")) as client:
            for _ in range(messages // SESSIONS):
                sender = address(chance)
                subject = chance.choice(("Factuur", f"Uw inlogcode {chance.random()}", address(chance)))
                recipients = [address(chance) for _ in range(chance.randint(1, 3))]
                await client.send(sender, recipients, mail(subject, sender=sender))

    async with asyncio.TaskGroup() as group:
        for number, chance in enumerate(chances):
            group.create_task(session(number, chance))


@pytest.mark.asyncio
async def test_random_mails_leave_the_series_as_they_were_and_the_ledger_balances_in_every_scrape(
    site: Site, rounds: Callable[[int, int], int]
) -> None:
    messages = rounds(200, 1000)
    async with large_house(site) as (house, port):
        before = series(await scrape(port))
        pouring = asyncio.create_task(pour(house, [random.Random(seed) for seed in range(SESSIONS)], messages))
        pages = []
        while not pouring.done():
            pages.append(series(await scrape(port)))
        await pouring
        pages.append(series(await scrape(port)))

    assert len(before) < 1500
    for page in pages:
        assert page.keys() == before.keys()
        events, states = ledger(page)
        came = events["found"] + events["accepted"]
        assert came == sum(events.values()) - came + sum(states.values()), (events, states)
    moments = [tuple(ledger(page)[0].values()) for page in pages]
    assert len(set(moments)) > 3, "no scrape was made while mail flowed"
    events, states = ledger(pages[-1])
    assert events["accepted"] > messages
    assert min(events["delivered"], events["failed"], states["deferred"], states["held"]) > 0
    accepted = sum(
        number
        for (name, labels), number in pages[-1].items()
        if name == "relay_smtpd_messages_total" and ("result", "accepted") in labels
    )
    assert accepted == messages


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.asyncio
async def test_promtool_has_nothing_to_complain_about_in_a_running_relay(site: Site) -> None:
    async with large_house(site) as (house, port):
        for number in range(LISTENERS):
            async with Client.to(house.port(f"l{number}")) as client:
                await client.send("jan@example.nl", ["piet@example.org"], mail())
        body = await scrape(port)
    checked = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, timeout=60)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@pytest.mark.asyncio
async def test_a_queue_that_was_found_at_the_start_stands_in_the_ledger(site: Site) -> None:
    async with large_house(site) as (house, _), Client.to(house.port("l0")) as client:
        await client.send("jan@example.nl", ["held-1@example.org", "held-2@example.org"], mail())
    async with large_house(site) as (_, port):
        events, states = ledger(series(await scrape(port)))
    assert (events["found"], events["accepted"], states["held"]) == (2, 0, 2)
