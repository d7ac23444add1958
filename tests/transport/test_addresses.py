"""A host with several addresses: one that is sick gives way to the next within the same attempt."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from relay.mail.outcome import Deferred, Delivered, Stage
from relay.transport.addresses import REMEMBERED, Addresses
from relay.transport.dial import Address
from relay.transport.smtp import Heard, SmtpTransport
from relay.transport.transaction import SmtpConnection
from tests.kit.certificates import Certificates
from tests.kit.upstream import CLOSE, DROP, SILENCE, Fault, ScriptedUpstream
from tests.transport.conftest import Run
from tests.transport.parts import PATIENT, SOON, request, transport_to

V4 = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
Named = Callable[..., None]


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Named:
    """`named(a, b)`: localhost has these addresses, in this order."""
    real = socket.getaddrinfo

    def name(*hosts: str) -> None:
        def look_up(host: str, port: int, *_: Any, **more: Any) -> list[Any]:
            where = hosts if host == "localhost" else (host,)
            return [one for each in where for one in real(each, port, type=socket.SOCK_STREAM)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return name


@asynccontextmanager
async def hosts(*addresses: str, **terms: Any) -> AsyncIterator[list[ScriptedUpstream]]:
    """An upstream at each of the addresses, all at the same port."""
    async with AsyncExitStack() as stack:
        found: list[ScriptedUpstream] = []
        for address in addresses:
            port = found[0].port if found else None
            found.append(await stack.enter_async_context(ScriptedUpstream(host=address, port=port, **terms)))
        yield found


def way_to(upstream: ScriptedUpstream, **settings: Any) -> SmtpTransport:
    return transport_to(upstream, host="localhost", **settings)


async def delivered(way: SmtpTransport) -> None:
    connection = await way.connect()
    assert isinstance(connection, SmtpConnection), connection
    assert isinstance((await connection.deliver(request())).outcomes[0], Delivered)
    await connection.close()


SICK: list[tuple[str, str, Fault]] = [
    ("hangs up", "banner", CLOSE),
    ("resets", "banner", DROP),
    ("says 421", "banner", "421 4.3.2 Service not available"),
    ("says 554", "banner", "554 5.3.2 no service"),
    ("is silent", "banner", SILENCE),
    ("hangs up at EHLO", "ehlo", CLOSE),
    ("says 421 at EHLO", "ehlo", "421 4.7.0 too busy"),
    ("is silent at EHLO", "ehlo", SILENCE),
    ("refuses STARTTLS", "starttls", "454 4.7.0 TLS not available"),
    ("hangs up within TLS", "tls", CLOSE),
    ("speaks no TLS", "tls", b"no TLS here\r\n" * 9),
]


@pytest.mark.parametrize(("stage", "fault"), [row[1:] for row in SICK], ids=[row[0] for row in SICK])
@pytest.mark.parametrize("order", [("127.0.0.2", "::1"), ("::1", "127.0.0.2")], ids=["IPv4 first", "IPv6 first"])
def test_an_address_that_is_sick_gives_way_to_the_next_in_the_same_attempt(
    run: Run, certificates: Certificates, named: Named, order: tuple[str, str], stage: str, fault: Fault
) -> None:
    async def scene() -> None:
        async with hosts(*order, tls="starttls", certificate=certificates.good) as (sick, good):
            named(*order)
            sick.script(stage, fault, times=None)
            patience = replace(PATIENT, greeting=SOON * 4) if fault is SILENCE else PATIENT
            await delivered(way_to(sick, tls_ca=certificates.ca_path, timeouts=patience))
            assert (sick.connections, len(good.messages)) == (1, 1)

    run(scene())


@pytest.mark.parametrize("kind", ["expired", "wrong_name", "untrusted", "self_signed"])
def test_a_bad_certificate_at_one_address_gives_way_too(
    run: Run, certificates: Certificates, named: Named, kind: str
) -> None:
    async def scene() -> None:
        async with hosts(*V4[:2], tls="implicit", certificate=certificates.good) as (sick, good):
            named(*V4[:2])
            await sick.come_back(getattr(certificates, kind))
            await delivered(way_to(sick, tls_ca=certificates.ca_path))
            assert (len(sick.messages), len(good.messages)) == (0, 1)

    run(scene())


def test_at_most_three_addresses_are_tried_and_the_first_says_why(run: Run, named: Named) -> None:
    async def scene() -> None:
        async with hosts(*V4) as upstreams:
            named(*V4)
            upstreams[0].script("banner", "421 4.3.2 the first", times=None)
            for one in upstreams[1:3]:
                one.script("banner", CLOSE, times=None)
            way = way_to(upstreams[0])
            outcome = await way.connect()
            assert isinstance(outcome, Deferred)
            assert (outcome.stage, outcome.text) == (Stage.BANNER, "the first")
            assert [one.connections for one in upstreams] == [1, 1, 1, 0]
            await delivered(way)  # the next attempt begins with the one that was left
            assert [one.connections for one in upstreams] == [1, 1, 1, 1]

    run(scene())


def test_where_three_refuse_the_connection_the_next_attempt_begins_with_the_others(run: Run, named: Named) -> None:
    async def scene() -> None:
        async with hosts(V4[3]) as (good,):
            named(*V4)
            way = way_to(good)
            outcome = await way.connect()
            assert isinstance(outcome, Deferred)
            assert (outcome.stage, good.connections) == (Stage.CONNECT, 0)
            await delivered(way)

    run(scene())


def test_three_that_are_silent_take_no_longer_together_than_two_greetings(run: Run, named: Named) -> None:
    async def scene() -> None:
        async with hosts(*V4[:3]) as upstreams:
            named(*V4[:3])
            for one in upstreams:
                one.script("banner", SILENCE, times=None)
            outcome = await way_to(upstreams[0], timeouts=replace(PATIENT, greeting=SOON)).connect()
            assert isinstance(outcome, Deferred)
            assert [one.connections for one in upstreams] == [1, 1, 0]

    run(scene())


def test_what_is_said_of_a_login_is_said_by_one_address(run: Run, named: Named) -> None:
    async def scene() -> None:
        async with hosts(*V4[:2], users={"relay": "right"}) as (first, second):
            named(*V4[:2])
            for one in (first, second):
                one.script("auth", CLOSE, times=None)
            way = way_to(first, auth="auto", username="relay", password=lambda: "right")
            assert isinstance(await way.connect(), Deferred)
            assert (first.connections, second.connections) == (1, 0)

    run(scene())


def test_the_address_that_last_took_mail_goes_first(run: Run, named: Named) -> None:
    async def scene() -> None:
        async with hosts(*V4[:2]) as (first, second):
            named(*V4[:2])
            first.script("banner", CLOSE)
            way = way_to(first)
            await delivered(way)
            named(*V4[:2])
            await delivered(way)
            assert (first.connections, second.connections) == (1, 2)

    run(scene())


def test_the_address_that_broke_off_a_transaction_is_no_longer_the_first(run: Run, named: Named) -> None:
    async def scene() -> None:
        async with hosts(*V4[:2]) as (first, second):
            named(V4[1], V4[0])
            way = way_to(first)
            await delivered(way)
            named(*V4[:2])
            second.script("mail", "421 4.3.2 closing")
            connection = await way.connect()
            assert isinstance(connection, SmtpConnection)
            await connection.deliver(request())
            await delivered(way)
            assert [len(one.messages) for one in (first, second)] == [1, 1]

    run(scene())


def test_each_address_can_be_looked_at(run: Run, named: Named) -> None:
    async def scene() -> None:
        async with hosts("127.0.0.2", "::1", *V4[1:]) as upstreams:
            named("127.0.0.2", "::1", *V4[1:])
            upstreams[1].script("banner", "421 4.3.2 sick", times=None)
            seen = [one async for one in way_to(upstreams[0]).look_at_each()]
            assert [address for address, _ in seen] == ["127.0.0.2", "::1", *V4[1:]]
            assert [isinstance(came, Heard) for _, came in seen] == [True, False, True, True, True]
            named("127.0.0.2")
            assert [one async for one in way_to(upstreams[0]).look_at_each()] == []

    run(scene())


def test_families_take_turns_so_that_the_first_three_have_both() -> None:
    def address(host: str) -> Address:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, 25))

    found = [address(host) for host in ("::2", "::3", "::4", "::5", "192.0.2.1", "192.0.2.2")]
    addresses = Addresses()
    assert [one[4][0] for one in addresses.in_order(found, 0.0)] == ["::2", "192.0.2.1", "::3"]
    addresses.failed(found[0], 0.0)
    assert [one[4][0] for one in addresses.in_order(found, 1.0)] == ["192.0.2.1", "::3", "192.0.2.2"]
    assert [one[4][0] for one in addresses.in_order(found, REMEMBERED)] == ["::2", "192.0.2.1", "::3"]
