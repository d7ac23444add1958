"""Peers that answer without end: a vendor's endpoint, a token endpoint, an upstream. Each has a bound in octets and in
time, and says what it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relay.mail.outcome import Deferred, Delivered, Outcome
from relay.transport import token_http
from relay.transport.exchange import HttpsConnection, Terms
from relay.transport.https import HttpsSettings, HttpsTransport
from relay.transport.oauth2 import OAuth2Terms
from relay.transport.tls import TlsTerms
from relay.transport.token_file import TokenFile
from relay.transport.tokens import TokenSource
from tests.kit.certificates import Certificates
from tests.kit.endpoint import Endpoint, raw
from tests.kit.flood import Flood
from tests.kit.upstream import ScriptedUpstream
from tests.transport.conftest import Run
from tests.transport.parts import HASTY, SOON, Seen, connected, refused, request, transport_to

IN_BUFFERS = 32 * 1024 * 1024  # octets at most that sockets and TLS take from who answers, whoever reads them

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HTTP: dict[str, dict[str, Any]] = {
    "interim answers": {"piece": b"HTTP/1.1 100 \r\n\r\n"},
    "interim answers with fields": {"piece": b"HTTP/1.1 102 Processing\r\nA: b\r\n\r\n"},
    "fields": {"first": OK, "piece": b"a: b\r\n"},
    "one field": {"first": OK + b"a: ", "piece": b"b"},
    "no line end": {"piece": b"H"},
    "a reason": {"first": b"HTTP/1.1 200 ", "piece": b"x"},
    "a chunk below nothing": {"first": CHUNKED + b"-5\r\n", "piece": b"x"},
    "a chunk of all there is": {"first": CHUNKED + b"-1\r\n", "piece": b"x"},
    "the size of a chunk": {"first": CHUNKED, "piece": b"0"},
    "trailers": {"first": CHUNKED + b"0\r\n", "piece": b"a: b\r\n"},
}
BODIES: dict[str, dict[str, Any]] = {
    "a body without end": {"first": OK + b"Content-Type: application/json\r\n\r\n", "piece": b"["},
    "a body of 2^63 octets": {"first": OK + b"Content-Length: 9223372036854775807\r\n\r\n", "piece": b"x"},
    "small chunks": {"first": CHUNKED, "piece": b"1\r\nx\r\n"},
    "what stands behind a chunk's size": {"first": CHUNKED + b"5;", "piece": b"x"},
}
TWICE = {"answers": {"piece": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}}


def of(attacks: dict[str, dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("attack", attacks.values(), ids=attacks)


# A vendor's endpoint


@asynccontextmanager
async def vendor(certificates: Certificates, port: int, total: float = 20.0) -> AsyncIterator[HttpsConnection]:
    terms = Terms(url=f"https://127.0.0.1:{port}/v1", host="127.0.0.1", total=total)
    settings = HttpsSettings("vendor", port, terms, tls=TlsTerms(ca=certificates.ca_path), connect=20)
    connection = await HttpsTransport(settings, observer=Seen()).connect()
    assert isinstance(connection, HttpsConnection), connection
    try:
        yield connection
    finally:
        connection.abort()


async def outcome(connection: HttpsConnection) -> Outcome:
    delivery = await connection.deliver(request())
    assert not connection.usable
    return delivery.outcomes[0]


@of(HTTP)
def test_an_endpoint_that_never_comes_to_its_answer_is_left(
    run: Run, certificates: Certificates, attack: dict[str, Any]
) -> None:
    async def scene() -> None:
        async with (
            Flood(certificate=certificates.good, **attack) as flood,
            vendor(certificates, flood.port) as connection,
        ):
            found = await outcome(connection)
            await flood.left()
            assert flood.sent < IN_BUFFERS
        if isinstance(found, Deferred):
            assert (found.in_doubt, found.upstream_sick) == (True, True)
            assert found.text in (
                "the endpoint does not speak HTTP",
                "the endpoint closed the connection without an answer",
            )
        else:  # its status was there
            assert isinstance(found, Delivered)

    run(scene())


@of(BODIES | TWICE)
def test_an_endpoint_that_does_not_end_its_answer_is_left_and_its_status_counts(
    run: Run, certificates: Certificates, attack: dict[str, Any]
) -> None:
    async def scene() -> None:
        async with (
            Flood(certificate=certificates.good, **attack) as flood,
            vendor(certificates, flood.port) as connection,
        ):
            assert isinstance(await outcome(connection), Delivered)
            await flood.left()
            assert flood.sent < IN_BUFFERS

    run(scene())


def test_an_endpoint_that_drips_has_the_time_of_one_answer(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with (
            Flood(b"x", first=b"HTTP/1.1 200 ", drips=True, certificate=certificates.good) as flood,
            vendor(certificates, flood.port, total=SOON) as connection,
        ):
            found = await outcome(connection)
            await flood.left()
            assert isinstance(found, Deferred)
            assert found.in_doubt

    run(scene())


def test_what_an_endpoint_says_unasked_ends_the_connection(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with Endpoint(certificates.good) as endpoint, vendor(certificates, endpoint.port) as connection:
            whole = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            spoken = asyncio.Event()

            async def speaks_on(asked: Any) -> Any:
                asked.transport.write(whole)
                await spoken.wait()
                asked.transport.write(b"HTTP/1.1 100 \r\n\r\n")
                await endpoint.release.wait()
                return await raw(b"")(asked)

            endpoint.script(speaks_on)
            lost = asyncio.Event()
            connection.when_lost(lost.set)
            delivery = await connection.deliver(request())
            assert isinstance(delivery.outcomes[0], Delivered)
            assert connection.usable
            spoken.set()
            await lost.wait()
            assert not connection.usable

    run(scene())


# A token endpoint


async def no_token(certificates: Certificates, folder: Path, port: int) -> str:
    terms = OAuth2Terms(
        provider="generic",
        grant="client_credentials",
        username="relay@example.nl",
        client_id="app",
        token_url=f"https://127.0.0.1:{port}/token",
        ca=certificates.ca_path,
    )
    source = TokenSource("own", terms, TokenFile(folder / "own"), observer=Seen(), now=lambda: datetime.now(UTC))
    found = await source.get()
    assert isinstance(found, Deferred)
    return found.text


@of(HTTP | BODIES)
def test_a_token_endpoint_that_does_not_end_its_answer_is_left(
    run: Run, certificates: Certificates, tmp_path: Path, attack: dict[str, Any]
) -> None:
    async def scene() -> None:
        async with Flood(certificate=certificates.good, **attack) as flood:
            text = await no_token(certificates, tmp_path, flood.port)
            await flood.left()
            assert flood.sent < IN_BUFFERS
        said = ("the answer is larger than 256 KiB", "what answers there does not speak HTTP", "not JSON")
        assert text.startswith("no token from 127.0.0.1: ")
        assert text.endswith(said), text

    run(scene())


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 ", CHUNKED], ids=["status", "reason", "chunks"])
def test_a_token_endpoint_that_drips_has_the_time_of_one_answer(
    run: Run, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    monkeypatch.setattr(token_http, "WHOLE", SOON)

    async def scene() -> None:
        piece = b"1\r\nx\r\n" if first is CHUNKED else b"x"
        async with Flood(piece, first=first, drips=True, certificate=certificates.good) as flood:
            text = await no_token(certificates, tmp_path, flood.port)
            assert text == "no token from 127.0.0.1: no answer in time"

    run(scene())


def test_a_token_endpoint_whose_handshake_never_ends_is_left(
    run: Run, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_http, "WHOLE", SOON)

    async def scene() -> None:
        record = b"\x16\x03\x03\x40\x00\x02\x00\xff\xff"  # a ServerHello of 64 KiB, an octet at a time
        async with Flood(b"\0", first=record, after=b"", drips=True) as flood:
            text = await no_token(certificates, tmp_path, flood.port)
            assert text.startswith("no token from 127.0.0.1: ")
            await flood.left()

    run(scene())


# An upstream

SMTP: dict[str, dict[str, Any]] = {
    "a banner": {"piece": b"220-x\r\n"},
    "a banner in one line": {"first": b"220 ", "piece": b"x"},
    "empty lines": {"piece": b"\r\n"},
    "banners": {"piece": b"220 x\r\n"},
    "8-bit octets": {"first": b"220 ", "piece": b"\xff"},
    "NUL": {"first": b"220 ", "piece": b"\0"},
}
_TOLD = ("the reply is too long", "the reply has no code", "the reply has a NUL", "more than it was asked for")


@of(SMTP)
def test_an_upstream_whose_banner_does_not_end_is_left(run: Run, attack: dict[str, Any]) -> None:
    async def scene() -> None:
        async with Flood(after=b"", **attack) as flood:
            upstream = ScriptedUpstream()
            upstream.port = flood.port
            assert (await refused(upstream)).text.endswith(_TOLD)
            await flood.left()
            assert flood.sent < IN_BUFFERS

    run(scene())


def test_an_upstream_that_drips_has_the_time_of_one_reply(run: Run) -> None:
    async def scene() -> None:
        async with Flood(b"x", first=b"220 ", after=b"", drips=True) as flood:
            upstream = ScriptedUpstream()
            upstream.port = flood.port
            found = await refused(upstream, timeouts=HASTY)
            assert found.text in (f"the upstream did not answer banner within {SOON:g} s", _TOO_LONG)
            await flood.left()

    run(scene())


_TOO_LONG = "the upstream does not speak SMTP: the reply is too long"


@pytest.mark.parametrize("stage", ["ehlo", "mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize("line", [b"250-x\r\n", b"250-SIZE 5\r\n", b"250-"], ids=["lines", "keywords", "one line"])
def test_a_reply_has_32_kib_at_most(run: Run, stage: str, line: bytes) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            upstream.script(stage, line * 10_000)
            if stage == "ehlo":
                found = await refused(upstream)
            else:
                connection = await connected(upstream)
                (found,) = (await connection.deliver(request())).outcomes  # type: ignore[assignment]
                assert not connection.usable
                connection.abort()
            assert isinstance(found, Deferred)
            assert found.text == _TOO_LONG

    run(scene())


@pytest.mark.parametrize("size", ["-1", "abc", "1" + "0" * 30, "9" * 5000, "1e999", "NaN", "٣", "", "5 6 7", "0"])
def test_a_size_that_is_none_is_no_limit(run: Run, size: str) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=("PIPELINING", f"SIZE {size}")) as upstream:
            transport = transport_to(upstream)
            connection = await transport.connect()
            assert not isinstance(connection, Deferred)
            assert transport.size_limit is None
            (found,) = (await connection.deliver(request())).outcomes
            assert isinstance(found, Delivered)
            await connection.close()

    run(scene())
