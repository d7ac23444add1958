"""The month's invoices through Microsoft 365: 300 from 12 senders, of whom it refuses 9. All arrive, once."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path

import pytest

from relay import wiring
from relay.events import AttemptEnded, RecipientDeferred, RecipientDelivered, SenderJudged
from relay.observe import lag
from tests.kit import virtual_time
from tests.kit.certificates import Certificates
from tests.kit.house import ACCOUNT, PASSWORD, Client, Site
from tests.kit.microsoft import Microsoft365

ALLOWED = [f"toegestaan{number}@example.nl" for number in range(3)]
REFUSED_AT_MAIL = [f"afdeling{number}@example.nl" for number in range(5)]
REFUSED_AT_DOT = [f"vestiging{number}@example.nl" for number in range(4)]
SENDERS = [*ALLOWED, *REFUSED_AT_MAIL, *REFUSED_AT_DOT]
INVOICES = 300
RULE = {"name": "fallback", "address": ACCOUNT, "when": "refused", "display_name": "{name} via Administratie"}


def invoice(number: int, sender: str) -> bytes:
    name = sender.partition("@")[0].capitalize()
    return (
        f"From: {name} <{sender}>\r\nTo: klant{number}@example.org\r\nSubject: Factuur {number}\r\n"
        f"X-Invoice: {number}\r\n\r\nBijgaand factuur {number}.\r\n"
    ).encode()


def test_three_hundred_invoices_of_twelve_senders_arrive_once_though_nine_are_refused(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "now", virtual_time.now)
    monkeypatch.setattr(lag, "PERIOD", 60.0)  # the clock would stop for it ten times a second
    virtual_time.run(month_end(Site(tmp_path, certificates)))


async def month_end(site: Site) -> None:
    microsoft = Microsoft365(
        ACCOUNT,
        PASSWORD,
        envelopes=[*ALLOWED, *REFUSED_AT_DOT],
        authors=ALLOWED,
        moody=ALLOWED[:1],
        tls="starttls",
        certificate=site.certificates.good,
    )
    async with microsoft:
        own = site.way_to(microsoft, preset="m365")
        site.configure(upstreams={"own": own}, senders=[RULE], routes={})
        async with site.house(patience=7200) as house:
            # Another program has the mailbox open as well: Microsoft refuses our third connection.
            reader, other = await asyncio.open_connection(microsoft.host, microsoft.port)
            await reader.readline()
            began = asyncio.get_running_loop().time()
            async with Client.to(house.port()) as client:
                for number in range(INVOICES):
                    sender = SENDERS[number * len(SENDERS) // INVOICES]  # one after the other, as a batch comes
                    await client.send(sender, [f"klant{number}@example.org"], invoice(number, sender))
            while house.ledger.delivered < INVOICES:
                await asyncio.sleep(5)
            took = asyncio.get_running_loop().time() - began
            seen = house.seen
            await house.empty()
            other.close()

    found = [re.search(rb"X-Invoice: (\d+)", received.content) for received in microsoft.messages]
    arrived = Counter(int(match[1]) for match in found if match)
    assert arrived == Counter(range(INVOICES))  # each once
    assert set(microsoft.refusals) == {*REFUSED_AT_MAIL, *REFUSED_AT_DOT, ALLOWED[0]}
    assert max(microsoft.refusals.values()) <= 2
    assert microsoft.throttled > 0
    assert {event.author for event in seen.all(SenderJudged)} == {*REFUSED_AT_MAIL, *REFUSED_AT_DOT}
    for received in microsoft.messages:
        number = int(re.search(rb"X-Invoice: (\d+)", received.content)[1])  # type: ignore[index]
        sender = SENDERS[number * len(SENDERS) // INVOICES]
        repaired = sender not in ALLOWED
        head = received.content.partition(b"\r\n\r\n")[0]
        assert received.reverse_path == (ACCOUNT if repaired else sender)
        assert (b"Reply-To: " in head and f"<{sender}>".encode() in head) or not repaired
    attempts, refusals = len(seen.all(AttemptEnded)), sum(microsoft.refusals.values())
    deferred = len(seen.all(RecipientDeferred))
    print(
        f"\n{INVOICES} invoices: {attempts} attempts, {refusals} refusals seen (at most "
        f"{max(microsoft.refusals.values())} of a sender), {microsoft.throttled} times 432, {microsoft.delayed} "
        f"answers delayed, {deferred} deferred, {took / 60:.1f} minutes; {len(seen.all(RecipientDelivered))} delivered"
    )
