"""The month's invoices through a hosting panel, and through a server that is old: all arrive, once, and nobody gets a
bounce. (`test_month_end`: through Microsoft 365.)"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay import wiring
from relay.events import AttemptEnded, NotificationQueued, RecipientDeferred, RecipientFailed
from relay.observe import lag
from tests.kit import virtual_time
from tests.kit.certificates import Certificates
from tests.kit.house import Client, Site
from tests.kit.panel import AN_HOUR, RECIPIENTS, HostingPanel, OldServer
from tests.kit.upstream import CLOSE, ScriptedUpstream

INVOICES = 300
SENDER = "facturen@example.nl"
LARGE = 25  # recipients of every tenth invoice
A_LABEL = "xn--bcher-kva.example"  # bücher.example


def recipients(number: int) -> list[str]:
    if number % 10 == 0:
        return [f"klant{number}.{n}@example.org" for n in range(LARGE)]
    return [f"klant{number}@bücher.example" if number % 7 == 0 else f"klant{number}@example.org"]


def invoice(number: int) -> bytes:
    names = ",".join(recipients(number))
    return (
        f"From: Café De Kroon <{SENDER}>\r\nTo: {names}\r\nSubject: Factuur {number}: café\r\n"
        f"X-Invoice: {number}\r\n\r\nBijgaand factuur {number} à € 12,50.\r\n"
    ).encode()


EXPECTED = {
    (number, one.replace("bücher.example", A_LABEL)) for number in range(INVOICES) for one in recipients(number)
}


@pytest.fixture(autouse=True)
def _virtual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "now", virtual_time.now)
    monkeypatch.setattr(lag, "PERIOD", 60.0)  # the clock would stop for it ten times a second


@pytest.fixture
def sick_address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The first of the two addresses of the host that it yields."""
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **named: Any) -> Any:
        if host != "mail.panel.example":
            return real(host, port, *args, **named)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in ("127.0.0.2", "127.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return iter(["127.0.0.2"])


def arrived(upstream: ScriptedUpstream) -> Counter[tuple[int, str]]:
    found: Counter[tuple[int, str]] = Counter()
    for received in upstream.messages:
        match = re.search(rb"X-Invoice: (\d+)", received.content)
        assert match is not None
        found.update((int(match[1]), recipient) for recipient in received.recipients)
    return found


async def month_end(site: Site, upstream: ScriptedUpstream, **way: Any) -> tuple[Any, float]:
    site.configure(upstreams={"own": site.way_to(upstream, **way)}, senders=[], routes={})
    async with site.house(patience=24 * 3600) as house:
        began = asyncio.get_running_loop().time()
        async with Client.to(house.port()) as client:
            for number in range(INVOICES):
                await client.send(SENDER, recipients(number), invoice(number))
        while house.ledger.delivered < len(EXPECTED):
            await asyncio.sleep(5)
        took = asyncio.get_running_loop().time() - began
        seen = house.seen
        await house.empty()
    assert arrived(upstream) == Counter(EXPECTED)  # each once
    assert not seen.all(RecipientFailed)
    assert not seen.all(NotificationQueued)
    return seen, took


def told(name: str, seen: Any, took: float, more: str) -> None:
    attempts, deferred = len(seen.all(AttemptEnded)), len(seen.all(RecipientDeferred))
    print(
        f"\n{name}: {INVOICES} invoices to {len(EXPECTED)}: {attempts} attempts, {deferred} deferred, {more}, "
        f"{took / 60:.1f} minutes"
    )


def test_through_a_panel_with_an_hourly_limit_ten_recipients_and_a_sick_address(
    tmp_path: Path, certificates: Certificates, sick_address: Iterator[str]
) -> None:
    async def run() -> None:
        async with HostingPanel() as panel, ScriptedUpstream(host=next(sick_address), port=panel.port) as sick:
            sick.script("banner", CLOSE, times=None)
            seen, took = await month_end(Site(tmp_path, certificates), panel, host="mail.panel.example")
        assert sick.connections > 0
        transactions = len(panel.messages)
        assert took >= 3600 * (transactions // AN_HOUR) - 60
        assert took <= 3600 * (transactions // AN_HOUR + 1)
        # What is under way when the hour is used up, on each of its connections.
        assert panel.limited <= 5 * (transactions // AN_HOUR + 1)
        # Once it said how many it takes, nobody is one too many.
        assert panel.too_many <= 2 * (LARGE - RECIPIENTS)
        told(
            "panel",
            seen,
            took,
            f"{transactions} transactions, {panel.limited} refused for the hour, "
            f"{panel.too_many} recipients one too many, {sick.connections} connections to the sick address",
        )

    virtual_time.run(run())


def test_through_an_old_server_without_ehlo_and_eight_bit(tmp_path: Path, certificates: Certificates) -> None:
    async def run() -> None:
        async with OldServer() as old:
            seen, took = await month_end(Site(tmp_path, certificates), old)
        assert old.strange == 0
        told("old server", seen, took, f"{len(old.messages)} transactions, {old.connections} connections")

    virtual_time.run(run())
