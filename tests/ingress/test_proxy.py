"""PROXY headers of load balancers: whom they name, what they must not do, and that nothing behind them is lost."""

from __future__ import annotations

import socket
import ssl
import struct
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.events import ConnectionAccepted, ConnectionDenied, MessageQueued, SessionEnded
from relay.ingress import doorstep, proxy
from relay.ingress.proxy import BadHeader, HeaderReader, ProxyHeader
from tests.ingress.house import HouseOf, hard_reset, on_both_loops
from tests.kit import configured
from tests.kit.certificates import Certificates

BALANCER = (ip_network("127.0.0.0/8"),)
OFFICE = (ip_network("203.0.113.0/24"),)
CLIENT = b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 25\r\n"


def block(
    source: str, target: str = "192.0.2.1", *, command: int = 0x21, family: int | None = None, rest: bytes = b""
) -> bytes:
    """A header of version 2."""
    one, two = ip_address(source), ip_address(target)
    addresses = one.packed + two.packed + struct.pack("!HH", 56324, 25) + rest
    kind = family if family is not None else 0x11 if one.version == 4 else 0x21
    return proxy.SIGNATURE + bytes([command, kind]) + struct.pack("!H", len(addresses)) + addresses


def read(octets: bytes) -> tuple[ProxyHeader | None, bytes]:
    """The header at the start of `octets`, read as from a socket, and what stays in the socket."""
    reader, position = HeaderReader(), 0
    while position < len(octets):
        part = octets[position : position + reader.wanted]
        position += len(part)
        header = reader.feed(part)
        if header is not None:
            return header, octets[position:]
    return None, b""


GOOD = {
    CLIENT: "203.0.113.7",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n": "1.1.1.1",
    b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n": "255.255.255.255",
    b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 25\r\n": "2001:db8::7",
    b"PROXY TCP6 2001:0DB8:0000:0000:0000:0000:0000:0007 ::1 1 25\r\n": "2001:db8::7",
    b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.1 1 25\r\n": "203.0.113.7",
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n": None,
    block("203.0.113.7"): "203.0.113.7",
    block("2001:db8::7", "2001:db8::1"): "2001:db8::7",
    block("::ffff:203.0.113.7", "::ffff:192.0.2.1"): "203.0.113.7",
    block("203.0.113.7", rest=b"\x04\x00\x03abc"): "203.0.113.7",  # a TLV
    block("203.0.113.7", rest=b"\x04" + b"x" * 3000): "203.0.113.7",
    block("203.0.113.7", command=0x20): None,  # LOCAL, whatever addresses it brings
    proxy.SIGNATURE + b"\x20\x00\x00\x00": None,
    proxy.SIGNATURE + b"\x21\x00\x00\x00": None,  # unspecified
    block("203.0.113.7", family=0x31, rest=b"\0" * 204): None,  # a client of the balancer's Unix socket
}


@pytest.mark.parametrize(("octets", "client"), GOOD.items())
def test_a_header_names_the_client_and_nothing_behind_it_is_touched(octets: bytes, client: str | None) -> None:
    assert read(octets + b"EHLO pc\r\n") == (ProxyHeader(client), b"EHLO pc\r\n")


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO pc.example.nl\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS comes",
        b"PROXY\r\n",
        b"PROXY \r\nEHLO pc.example.nl\r\n",
        b"proxy TCP4 203.0.113.7 192.0.2.1 56324 25\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 25\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 25 26\r\n",
        b"PROXY TCP4  203.0.113.7 192.0.2.1 56324 25\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 65536\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 -1 25\r\n",
        b"PROXY TCP4 203.0.113.007 192.0.2.1 56324 25\r\n",
        b"PROXY TCP4 203.0.113.256 192.0.2.1 56324 25\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 56324 25\r\n",
        b"PROXY TCP6 203.0.113.7 192.0.2.1 56324 25\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 56324 25\r\n",
        b"PROXY UDP4 203.0.113.7 192.0.2.1 56324 25\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",  # 108 octets
        block("203.0.113.7", command=0x22),
        block("203.0.113.7", command=0x11),
        block("203.0.113.7", family=0x12),  # UDP
        block("203.0.113.7", family=0x41),
        block("203.0.113.7", family=0x21),  # too short for what it says
        block("203.0.113.7", rest=b"x" * 5000),
        proxy.SIGNATURE[:-1] + b"\r" + b"\x21\x11\x00\x0c" + b"x" * 12,
    ],
)
def test_what_is_no_header_is_known_by_its_first_octets(octets: bytes) -> None:
    with pytest.raises(BadHeader):
        read(octets)


@given(st.sampled_from([b"PROXY ", b"PROXY TCP4 ", b"PROXY UNKNOWN ", proxy.SIGNATURE, b""]), st.binary(max_size=300))
def test_any_octets_are_a_header_or_none_and_never_more_than_the_longest(begin: bytes, rest: bytes) -> None:
    octets = begin + rest
    try:
        header, behind = read(octets)
    except BadHeader:
        return
    if header is not None and octets.startswith(b"PROXY"):
        assert len(octets) - len(behind) <= proxy.LONGEST_LINE
        assert octets[: len(octets) - len(behind)].endswith(b"\r\n")


@pytest.mark.parametrize("header", [CLIENT, block("203.0.113.7")])
@on_both_loops
async def test_the_client_that_the_header_names_is_the_client(house_of: HouseOf, header: bytes) -> None:
    async with house_of(proxy_protocol=BALANCER, allow=OFFICE) as house:
        client = await house.connect()
        client.send(header)
        assert (await client.reply())[:4] == b"220 "
        await client.say(b"EHLO pc.example.nl")
        assert (await client.mail())[:3] == b"250"
        assert [event.client for event in house.observed.of(MessageQueued)] == ["203.0.113.7"]
        (entry,) = await house.entries()
        assert entry.submission.peer.address == "203.0.113.7"


@on_both_loops
async def test_commands_that_come_with_the_header_are_answered(house_of: HouseOf) -> None:
    async with house_of(proxy_protocol=BALANCER, allow=OFFICE) as house:
        client = await house.connect()
        client.send(block("203.0.113.7", rest=b"\x04" + b"x" * 900) + b"EHLO pc.example.nl\r\nQUIT\r\n")
        assert (await client.reply())[:4] == b"220 "
        assert (await client.reply())[:4] == b"250-"
        assert (await client.reply())[:4] == b"221 "


@on_both_loops
async def test_a_header_may_come_octet_by_octet(house_of: HouseOf) -> None:
    async with house_of(proxy_protocol=BALANCER, allow=OFFICE) as house:
        client = await house.connect()
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in CLIENT:
            client.send(bytes([octet]))
            await client.writer.drain()
        assert (await client.reply())[:4] == b"220 "


@on_both_loops
async def test_who_may_send_is_judged_by_the_client_and_not_by_the_load_balancer(house_of: HouseOf) -> None:
    async with house_of(proxy_protocol=BALANCER, allow=BALANCER) as house:
        client = await house.connect()
        client.send(CLIENT)
        assert (await client.reply())[:9] == b"554 5.7.1"
        (denied,) = house.observed.of(ConnectionDenied)
        assert (denied.reason, denied.client) == ("denied_address", "203.0.113.7")


@on_both_loops
async def test_sessions_are_counted_by_the_client_that_the_header_names(house_of: HouseOf) -> None:
    async with house_of(proxy_protocol=BALANCER, allow=OFFICE, limits=configured.limits(per_client=1)) as house:
        clients = [await house.connect() for _ in range(3)]
        for client, last in zip(clients, ("7", "7", "8"), strict=True):
            client.send(CLIENT.replace(b"113.7", b"113." + last.encode()))
            assert (await client.reply())[:3] == (b"421" if client is clients[1] else b"220")


@on_both_loops
async def test_from_anybody_else_a_header_is_an_unknown_command(house_of: HouseOf) -> None:
    async with house_of(proxy_protocol=(ip_network("192.0.2.0/24"),)) as house:
        client = await house.connect()
        assert (await client.reply())[:4] == b"220 "
        assert (await client.say(CLIENT.rstrip()))[:3] == b"500"
        assert (await client.say(b"EHLO pc.example.nl"))[:3] == b"250"
        assert (await client.mail())[:3] == b"250"
        assert [event.client for event in house.observed.of(MessageQueued)] == ["127.0.0.1"]


@on_both_loops
async def test_a_load_balancer_without_a_header_is_closed_and_told_of(house_of: HouseOf) -> None:
    async with house_of(proxy_protocol=BALANCER) as house:
        client = await house.connect()
        client.send(b"EHLO pc.example.nl\r\n")
        assert await client.end() == b""
        (denied,) = await house.observed.until(ConnectionDenied)
        assert (denied.reason, denied.client) == ("not_smtp", "127.0.0.1")
        assert denied.text == "no PROXY header (does the load balancer send one?)"


@pytest.mark.parametrize(
    ("begun", "patience", "what"),
    [
        (b"", 0.01, "no PROXY header came within"),
        (CLIENT[:20], 0.5, "the PROXY header did not come to its end within"),
    ],
)
@on_both_loops
async def test_a_header_that_does_not_come_is_told_of(
    house_of: HouseOf, monkeypatch: pytest.MonkeyPatch, begun: bytes, patience: float, what: str
) -> None:
    monkeypatch.setattr(doorstep, "PATIENCE", patience)
    async with house_of(proxy_protocol=BALANCER) as house:
        client = await house.connect()
        client.send(begun)
        assert await client.end() == b""
        (denied,) = await house.observed.until(ConnectionDenied)
        assert denied.text.startswith(what)


@on_both_loops
async def test_health_checks_make_no_noise(house_of: HouseOf) -> None:
    async with house_of(proxy_protocol=BALANCER, allow=OFFICE) as house:
        local = block("203.0.113.7", command=0x20)
        for check in (b"", CLIENT[:4], proxy.SIGNATURE[:7]):
            client = await house.connect()
            client.send(check)
            client.writer.write_eof()
            assert await client.end() == b""
        for check in (local, b"PROXY UNKNOWN\r\n"):
            client = await house.connect()
            client.send(check)
            assert (await client.end())[:9] == b"554 5.7.1"
        for check in (b"", CLIENT[:4], local):
            client = await house.connect()
            client.send(check)
            hard_reset(client)
        assert house.observed.of(ConnectionDenied) == []
        assert house.observed.of(ConnectionAccepted) == []


@on_both_loops
async def test_a_load_balancer_that_is_allowed_may_speak_for_itself(house_of: HouseOf) -> None:
    async with house_of(proxy_protocol=BALANCER, allow=BALANCER) as house:
        client = await house.connect()
        client.send(block("203.0.113.7", command=0x20))
        assert (await client.reply())[:4] == b"220 "
        assert (await client.say(b"EHLO balancer"))[:3] == b"250"
        assert (await client.say(b"QUIT"))[:3] == b"221"
        await house.observed.until(SessionEnded)
        assert [event.client for event in house.observed.of(ConnectionAccepted)] == ["127.0.0.1"]


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
@on_both_loops
async def test_tls_begins_behind_the_header(house_of: HouseOf, certificates: Certificates, tls: str) -> None:
    server = certificates.good.server()
    async with house_of(proxy_protocol=BALANCER, allow=OFFICE, tls=tls, tls_context=server) as house:
        client = await house.connect()
        client.send(CLIENT)
        if tls == "starttls":
            assert (await client.reply())[:4] == b"220 "
            assert (await client.say(b"STARTTLS"))[:3] == b"220"
        await client.start_tls(ssl.create_default_context(cafile=certificates.ca_path))
        if tls == "implicit":
            assert (await client.reply())[:4] == b"220 "
        assert (await client.say(b"EHLO pc.example.nl"))[:3] == b"250"
        assert (await client.mail())[:3] == b"250"
        peer = (await house.entries())[0].submission.peer
        assert peer.address == "203.0.113.7"
        assert peer.tls


@on_both_loops
async def test_connections_whose_header_has_not_come_are_limited(house_of: HouseOf) -> None:
    async with house_of(proxy_protocol=BALANCER, allow=OFFICE, limits=configured.limits(sessions=2)) as house:
        silent = [await house.connect() for _ in range(3)]
        assert await silent[2].end() == b""
        assert [event.reason for event in house.observed.of(ConnectionDenied)] == ["denied_limit"]


@on_both_loops
async def test_a_listener_that_closes_does_not_wait_for_headers(house_of: HouseOf) -> None:
    async with house_of(proxy_protocol=BALANCER, allow=OFFICE) as house:
        client = await house.connect()
        client.send(CLIENT[:9])
        other = await house.connect()
        other.send(CLIENT)
        assert (await other.reply())[:4] == b"220 "  # so the first has arrived as well
        await house.listener.close()
        assert await client.end() == b""
        assert (await other.end())[:3] == b"421"
