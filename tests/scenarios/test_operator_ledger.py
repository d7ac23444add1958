"""The books in /metrics balance in every scrape while mail flows and an administrator acts on it."""

from __future__ import annotations

import asyncio
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.delivery import worker
from relay.events import RecipientDelivered
from tests.kit.house import JAN, PATIENCE, Client, RunningHouse, Site, free_port, mail
from tests.kit.upstream import ScriptedUpstream
from tests.scenarios.desk import reachable, relay

ENDS = ("delivered", "failed", "expired", "cancelled")
WORDS = {
    "hold": [],
    "retry": [],
    "release": ["--to", "2-*"],
    "cancel": ["--to", "0-*"],
    "bounce": ["--to", "1-*"],
    "reroute": ["--route", "second"],
}
ROUNDS = 25


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends without an attempt is looked for all the time."""
    monkeypatch.setattr(worker, "SWEEP", 0.02)


def figures(exposition: str, name: str, label: str) -> dict[str, float]:
    """The values of a metric by a label."""
    families = text_string_to_metric_families(exposition)
    return {
        sample.labels[label]: sample.value for family in families for sample in family.samples if sample.name == name
    }


def out_of_balance(exposition: str) -> float:
    """What came in less what ended less what is there: 0."""
    events = figures(exposition, "relay_recipients_total", "event")
    states = figures(exposition, "relay_queue_recipients", "state")
    assert set(events) == {"found", "accepted", *ENDS}
    assert set(states) == {"pending", "deferred", "active", "held"}
    assert all(value >= 0 for value in (*events.values(), *states.values()))
    return events["found"] + events["accepted"] - sum(events[end] for end in ENDS) - sum(states.values())


def series(exposition: str) -> set[str]:
    return {line.rpartition(" ")[0] for line in exposition.splitlines() if not line.startswith("#")}


class Scrapes:
    """Looks at /metrics all the time until `end`."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"
        self.seen: list[str] = []
        self._over = asyncio.Event()

    async def page(self) -> str:
        def get() -> str:
            with urllib.request.urlopen(self._url, timeout=PATIENCE) as answer:
                text: str = answer.read().decode()
                return text

        return await asyncio.to_thread(get)

    async def run(self) -> None:
        while not self._over.is_set():
            self.seen.append(await self.page())

    def end(self) -> None:
        self._over.set()


async def traffic(house: RunningHouse, number: int) -> None:
    """Mail of one sender: some goes at once, some is greylisted, some refused, some to two at once."""
    async with Client.to(house.port()) as client:
        for turn in range(ROUNDS):
            at = f"{number}-{turn}"
            recipients = [f"{at}@{('ok', 'later', 'no')[turn % 3]}.example", f"{at}@ok.example"][: 1 + turn % 2]
            await client.send(JAN, recipients, mail(f"Factuur {at}"))


def judge(own: ScriptedUpstream) -> str | None:
    word = own.commands[-1]
    return "450 4.2.0 later" if "@later." in word else "550 5.1.1 nobody" if "@no." in word else None


async def administrate(site: Site) -> None:
    """Every verb, on all that waits or on the mail of one sender."""
    for verb, words in WORDS.items():
        answer = await relay(site, "queue", verb, *words, "--all", "--yes")
        assert answer.code in (0, 1), answer  # 1: what is held already cannot be retried


@pytest.mark.asyncio
async def test_the_books_balance_in_every_scrape_while_mail_flows_and_a_person_acts(site: Site) -> None:
    port = free_port()
    async with site.upstream() as own:
        own.script("rcpt", lambda _: judge(own), times=None)
        site.configure(
            upstreams={"own": site.way_to(own)},
            routes={"default": {"retry": "1s"}, "second": {"retry": "1s", "upstreams": ["own"]}},
            admin={"listen": f"127.0.0.1:{port}", "socket": str(site.control_path)},
        )
        async with site.house() as house:
            await reachable(site)
            scrapes = Scrapes(port)
            first = await scrapes.page()
            looking = asyncio.create_task(scrapes.run())
            acting = asyncio.create_task(administrate(site))
            await asyncio.gather(*(traffic(house, number) for number in range(4)))
            await acting
            own.unscript("rcpt")
            await relay(site, "queue", "release", "--all", "--yes")
            await relay(site, "queue", "retry", "--all", "--yes")
            await house.seen.until(lambda: house.ledger.held == 0)
            await house.empty()
            scrapes.end()
            await looking
            last = await scrapes.page()
            assert house.seen.all(RecipientDelivered)
    assert len(scrapes.seen) > 10
    assert [out_of_balance(page) for page in (first, *scrapes.seen, last)] == [0.0] * (len(scrapes.seen) + 2)
    ended = figures(last, "relay_recipients_total", "event")
    assert all(ended[end] > 0 for end in ("accepted", "delivered", "failed", "cancelled"))
    assert sum(figures(last, "relay_queue_recipients", "state").values()) == 0
    # No address makes a series of its own; the end of a certificate is known once it was seen.
    assert series(last) - series(first) == {'relay_upstream_certificate_expiry_timestamp_seconds{upstream="own"}'}
