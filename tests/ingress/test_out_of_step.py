"""Client and door never differ about where commands end, and a client that is sent away hears why."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from relay.events import ConnectionDenied, QuirksTolerated, SessionEnded
from relay.ingress import replies
from relay.mail.quirk import Quirk
from tests.ingress.house import PATIENCE, HouseOf, on_both_loops
from tests.kit import configured
from tests.kit.certificates import Certificates

SMUGGLED = (
    b"MAIL FROM:<evil@example.net>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\n"
    b"From: evil@example.net\r\n\r\nsmuggled\r\n.\r\nNOOP\r\n"
)


@pytest.mark.parametrize(
    "command",
    [
        b"BDAT %d\0 LAST",
        b"BDAT %d LAST\0",
        b"BDAT:%d LAST",
        b"BDAT\x0b%d LAST",
        b"bdat\t-%d",
        b"BDAT " + b" " * 5000 + b"%d LAST",
        b"BDAT %d LAST " + b"x" * 70_000,
        b"  BDAT %d LAST " + b"x" * 5000,
    ],
    ids=lambda command: repr(command[:20]),
)
@on_both_loops
async def test_where_a_chunk_ends_that_cannot_be_counted_nobody_guesses(house_of: HouseOf, command: bytes) -> None:
    async with house_of() as house:
        client = await house.client()
        await client.say(b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<piet@example.com>")
        client.send(command % len(SMUGGLED) + b"\r\n" + SMUGGLED)
        assert (await client.reply())[:2] == b"50"
        assert await client.end() == b""
        assert await house.entries() == []
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["errors"]


@on_both_loops
async def test_a_tab_behind_bdat_is_a_blank(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        await client.say(b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<piet@example.com>")
        client.send(b"BDAT\t%d\tLAST\r\n" % len(SMUGGLED) + SMUGGLED)
        assert (await client.reply())[:3] == b"250"
        assert await house.contents() == [SMUGGLED]
        assert await client.say(b"QUIT") == replies.BYE


@pytest.mark.parametrize("opening", [b"POST / HTTP/1.1\r\n", b"MAIL\r\n" * 3, b"x" * 2_000_000])
@on_both_loops
async def test_who_is_sent_away_while_it_talks_hears_why_and_then_an_orderly_end(
    house_of: HouseOf, opening: bytes
) -> None:
    async with house_of(limits=configured.limits(errors=3)) as house:
        heard = await asyncio.to_thread(talk, house.port, opening + b"x: y\r\n" * 100_000)
        assert heard.splitlines()[-1][:3] in (b"421", b"500", b"554")
        (ended,) = await house.observed.until(SessionEnded)
        assert ended.why == "errors"


@on_both_loops
async def test_a_message_far_too_large_is_refused_so_that_its_sender_can_hear_it(house_of: HouseOf) -> None:
    async with house_of(max_message_size=100_000) as house:
        envelope = b"HELO pc\r\nMAIL FROM:<jan@example.nl>\r\nRCPT TO:<piet@example.com>\r\nDATA\r\n"
        heard = await asyncio.to_thread(talk, house.port, envelope + b"x" * 8_000_000)
        assert heard.endswith(replies.TOO_LARGE)
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["limit"]


def talk(port: int, octets: bytes) -> bytes:
    """Send everything, then listen to the end, as simple programs do; a reset is an error here."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(octets)
        heard = b""
        while more := client.recv(65536):
            heard += more
        return heard


@on_both_loops
async def test_a_client_that_will_not_stop_is_left_all_the_same(
    house_of: HouseOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.ingress.session.HEARD_OUT", 0.0)
    async with house_of() as house:
        client = await house.connect()
        client.send(b"POST / HTTP/1.1\r\n")
        assert replies.NOT_SMTP in await client.end()
        await house.observed.until(SessionEnded)


@on_both_loops
async def test_nobody_waits_for_a_client_that_is_sent_away_when_the_relay_stops(
    house_of: HouseOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.ingress.session.HEARD_OUT", 10 * PATIENCE)
    async with house_of() as house:
        client = await house.connect()
        client.send(b"POST / HTTP/1.1\r\n")
        assert replies.NOT_SMTP in await client.end()
        async with asyncio.timeout(PATIENCE):  # shorter than the silence that is waited for
            await house.listener.close()
        await house.nobody_is_left()


@pytest.mark.parametrize(
    "settings", [{"allow": ()}, {"limits": configured.limits(per_client=1)}], ids=["denied", "limited"]
)
@on_both_loops
async def test_clients_that_are_turned_away_inside_tls_are_few_at_a_time(
    house_of: HouseOf, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr("relay.ingress.session.TURNED_AWAY_AT_ONCE", 3)
    async with house_of(tls="implicit", tls_context=certificates.good.server(), **settings) as house:
        welcome = len(house.door.settings.allow)
        clients = [await house.connect() for _ in range(10)]
        for silent in clients[welcome + 3 :]:
            assert await silent.end() == b""
        assert len(house.door.live) == welcome + 3
        (reason,) = {event.reason for event in house.observed.of(ConnectionDenied)}
        assert reason in ("denied_address", "denied_limit")


@on_both_loops
async def test_a_line_end_too_many_is_no_pipelining(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.connect()
        await client.reply()
        client.send(b"HELO pc\r\n\r\n")
        assert (await client.reply())[:3] == b"250"
        client.send(b"MAIL FROM:<jan@example.nl>\r\n\r\n")
        assert (await client.reply())[:3] == b"250"
        assert (await client.say(b"QUIT")) == replies.BYE
        await house.observed.until(SessionEnded)
        told = [quirk for event in house.observed.of(QuirksTolerated) for quirk in event.quirks]
        assert Quirk.EARLY_PIPELINING not in told
