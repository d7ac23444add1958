"""A client that is set to what the listener does not offer leaves a line that says what to change."""

from __future__ import annotations

import ssl

import pytest

from relay.events import ClientLeft, CommandRefused, ConnectionDenied, QuirksTolerated, SessionEnded
from relay.mail.quirk import Quirk
from relay.observe.log_lines import Lines
from relay.observe.table import Level
from tests.ingress.house import HouseOf, on_both_loops
from tests.kit.certificates import Certificates

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def line(event: ClientLeft | CommandRefused | ConnectionDenied) -> str:
    """As the log has it at level info."""
    return Lines("text", journal=False).line(0, event, Level.INFO)


@pytest.mark.parametrize(
    ("command", "tls", "auth", "told"),
    [
        (b"AUTH LOGIN", "none", "none", ("502", "switch the login off", "auth: any")),
        (b"AUTH PLAIN AGEAYg==", "none", "none", ("502", "switch the login off", "auth: any")),
        (b"STARTTLS", "none", "none", ("502", "switch TLS off", "tls: starttls")),
        (b"AUTH PLAIN AGEAYg==", "starttls", "any", ("538", "switch STARTTLS on")),
    ],
)
@on_both_loops
async def test_what_is_not_offered_is_named_with_its_cure(
    house_of: HouseOf, certificates: Certificates, command: bytes, tls: str, auth: str, told: tuple[str, ...]
) -> None:
    context = certificates.good.server() if tls != "none" else None
    async with house_of(tls=tls, auth=auth, tls_context=context) as house:
        client = await house.client()
        await client.say(b"EHLO scanner")
        await client.say(command)
        (refused,) = house.observed.of(CommandRefused)
        written = line(refused)
        assert all(words in written for words in told), written
        await client.say(b"EXPN all")
        assert "switch" not in house.observed.of(CommandRefused)[1].text


@pytest.mark.parametrize(("tls", "told"), [("none", "set it to no TLS"), ("starttls", "set it to STARTTLS")])
@pytest.mark.parametrize("hello", [HELLO, HELLO + b"\n"], ids=["no line", "a line"])
@on_both_loops
async def test_tls_on_a_plain_port_is_named_with_its_cure(
    house_of: HouseOf, certificates: Certificates, tls: str, told: str, hello: bytes
) -> None:
    async with house_of(tls=tls, tls_context=certificates.good.server()) as house:
        client = await house.connect()
        client.send(hello)
        (denied,) = await house.observed.until(ConnectionDenied)
        assert told in line(denied)
        assert "tls: implicit" in line(denied)


@on_both_loops
async def test_another_protocol_is_not_called_tls(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.connect()
        client.send(b"\x03\x00\x00\x13\x0e\xe0")
        (denied,) = await house.observed.until(ConnectionDenied)
        assert "TLS" not in line(denied)


@on_both_loops
async def test_no_tls_on_a_port_for_tls_is_named_with_its_cure(house_of: HouseOf, certificates: Certificates) -> None:
    async with house_of(tls="implicit", tls_context=certificates.good.server()) as house:
        client = await house.connect()
        client.send(b"EHLO scanner\r\n")
        (denied,) = await house.observed.until(ConnectionDenied)
        assert "the client began without TLS: switch it on there" in line(denied)


@on_both_loops
async def test_tls_that_is_too_old_is_named_with_its_cure(house_of: HouseOf, certificates: Certificates) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(certificates.ca_path)
    old.set_ciphers("AES128-SHA:@SECLEVEL=0")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    context = certificates.good.server()
    async with house_of(tls="starttls", tls_context=context) as house:
        client = await house.client()
        await client.say(b"STARTTLS")
        with pytest.raises((OSError, ConnectionError)):
            await client.start_tls(old)
        (denied,) = await house.observed.until(ConnectionDenied)
        assert "tls_profile: legacy" in line(denied)


@pytest.mark.parametrize(
    ("tls", "auth", "told"),
    [
        (
            "none",
            "none",
            "a login or TLS, which is not offered here: switch that off in the client, or write auth: any and tls:",
        ),
        (
            "none",
            "any",
            "insists on TLS, which is not offered here: switch that off in the client, or write tls: starttls",
        ),
        (
            "starttls",
            "none",
            "insists on a login, which is not offered here: switch that off in the client, or write auth: any",
        ),
    ],
)
@on_both_loops
async def test_a_client_that_greets_and_leaves_is_told_of_once_with_what_it_may_want(
    house_of: HouseOf, certificates: Certificates, tls: str, auth: str, told: str
) -> None:
    context = certificates.good.server() if tls != "none" else None
    async with house_of(tls=tls, auth=auth, tls_context=context) as house:
        for number in (1, 2):
            client = await house.connect()
            await client.say(b"EHLO scanner")
            await client.say(b"QUIT")
            await house.observed.until(SessionEnded, number)
        (left,) = house.observed.of(ClientLeft)
        assert told in line(left)
        assert all(Quirk.ONLY_EHLO in event.quirks for event in house.observed.of(QuirksTolerated))


@on_both_loops
async def test_a_client_that_hands_in_mail_or_finds_all_it_may_want_is_not_told_of(
    house_of: HouseOf, certificates: Certificates
) -> None:
    async with house_of(tls="starttls", auth="any", tls_context=certificates.good.server()) as house:
        client = await house.client()
        await client.say(b"QUIT")
        await house.observed.until(SessionEnded)
        assert house.observed.of(ClientLeft) == []
    async with house_of() as house:
        client = await house.client()
        await client.say(b"MAIL FROM:<jan@example.nl>")
        await client.say(b"QUIT")
        await house.observed.until(SessionEnded)
        assert house.observed.of(ClientLeft) == []


@on_both_loops
async def test_what_a_client_wants_is_shown_among_the_clients(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        await client.say(b"AUTH LOGIN")
        await client.say(b"STARTTLS")
        await client.say(b"QUIT")
        await house.observed.until(QuirksTolerated)
        (quirks,) = [event.quirks for event in house.observed.of(QuirksTolerated)]
        assert quirks == (Quirk.WANTS_AUTH, Quirk.WANTS_STARTTLS)
        other = await house.connect()
        other.send(HELLO)
        await house.observed.until(QuirksTolerated, 2)
        assert house.observed.of(QuirksTolerated)[1].quirks == (Quirk.SPEAKS_TLS,)
