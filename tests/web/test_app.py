"""The pages for those who watch, over real sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_network

import aiohttp
import pytest

from relay.policy import client
from relay.web import app
from relay.web.app import Health
from relay.web.server import Server

LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1")]
WELL = Health(ok=True, ready=True)


async def metrics_page(accept: str) -> tuple[bytes, str]:
    return f"accept {accept}\n".encode(), "text/plain; version=0.0.4; charset=utf-8"


async def well() -> Health:
    return WELL


@asynccontextmanager
async def serving(  # type: ignore[no-untyped-def]
    health: Callable[[], Awaitable[Health]] = well, *, metrics=metrics_page, allow=LOOPBACK
):
    server = await app.start(("127.0.0.1", 0), allow, metrics=metrics, health=health)
    try:
        yield server
    finally:
        await server.close()


async def get(server: Server, path: str, *, method: str = "GET", **fields: str) -> tuple[int, str, dict[str, str]]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://127.0.0.1:{server.port}{path}", headers=fields) as response,
    ):
        return response.status, await response.text(), dict(response.headers)


async def say(server: Server, octets: bytes) -> bytes:
    """All that the server answers to `octets` until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(octets)
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.asyncio
async def test_metrics_are_served_as_the_accept_header_asks() -> None:
    async with serving() as server:
        status, text, headers = await get(server, "/metrics", Accept="application/openmetrics-text")
    assert (status, text) == (200, "accept application/openmetrics-text\n")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.asyncio
async def test_a_well_relay_says_ok() -> None:
    async with serving() as server:
        assert (await get(server, "/healthz"))[:2] == (200, "ok\n")
        assert (await get(server, "/readyz"))[:2] == (200, "ok\n")
        assert (await get(server, "/readyz", method="HEAD"))[:2] == (200, "")


@pytest.mark.asyncio
async def test_a_relay_that_is_stopping_is_alive_but_not_ready() -> None:
    async def stopping() -> Health:
        return Health(ok=True, ready=False, reasons=("stopping",))

    async with serving(stopping) as server:
        assert (await get(server, "/healthz"))[:2] == (200, "ok\n")
        assert (await get(server, "/readyz"))[:2] == (503, "stopping\n")


@pytest.mark.asyncio
async def test_what_is_wrong_is_said_in_one_line() -> None:
    async def ill() -> Health:
        return Health(ok=False, ready=True, reasons=("the store cannot commit:\r\ndisk full", "two"))

    async with serving(ill) as server:
        assert (await get(server, "/healthz"))[:2] == (503, "the store cannot commit:  disk full; two\n")
        assert (await get(server, "/readyz"))[0] == 503


@pytest.mark.asyncio
async def test_a_health_check_that_hangs_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_PATIENCE", 0.01)
    never = asyncio.Event()

    async def hanging() -> Health:
        await never.wait()
        return WELL

    async with serving(hanging) as server:
        assert (await get(server, "/healthz"))[0] == 503


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/", "/metrics/", "/healthz/../metrics", "/%6detrics/x", "/admin"])
async def test_there_are_no_other_pages(path: str) -> None:
    async with serving() as server:
        answer = await say(server, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_pages_can_only_be_read(method: str) -> None:
    async with serving() as server:
        status, _, headers = await get(server, "/metrics", method=method)
    assert status == 405
    assert headers["Allow"] == "GET, HEAD"


@pytest.mark.asyncio
async def test_a_peer_that_is_not_allowed_learns_nothing() -> None:
    async with serving(allow=[ip_network("192.0.2.0/24")]) as server:
        for path in ("/metrics", "/healthz", "/nothing"):
            assert (await get(server, path))[0] == 403


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [("127.0.0.1", True), ("::ffff:127.0.0.1", True), ("::1", True), ("fe80::1%eth0", False), ("192.0.2.1", False)],
)
def test_an_ipv4_peer_seen_as_ipv6_is_judged_as_ipv4(peer: str, allowed: bool) -> None:
    assert client.allowed(client.plain(peer), tuple(LOOPBACK)) is allowed


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO localhost\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["smtp", "long field", "many fields", "long path"],
)
async def test_what_is_no_reasonable_request_is_refused_without_a_banner_and_without_noise(
    octets: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as server:
        answer = await say(server, octets)
    assert answer.startswith(b"HTTP/1.")
    assert b" 400 " in answer.split(b"\r\n")[0]
    assert b"h11" not in answer
    assert b"Python" not in answer
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.asyncio
async def test_no_answer_tells_versions() -> None:
    async with serving() as server:
        for path in ("/metrics", "/healthz", "/nothing"):
            _, _, headers = await get(server, path)
            assert headers["Server"] == "relay"
            assert headers["Cache-Control"] == "no-store"
            assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.asyncio
async def test_a_bug_in_a_page_is_500_without_details_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(accept: str) -> tuple[bytes, str]:
        raise LookupError("secret detail")

    async with serving(metrics=broken) as server:
        status, text, headers = await get(server, "/metrics")
        assert status == 500
        assert "secret detail" not in text
        assert headers["Server"] == "relay"
        assert (await get(server, "/healthz"))[0] == 200
    assert "Error handling request" in caplog.text


@pytest.mark.asyncio
async def test_closing_ends_idle_connections() -> None:
    server = await app.start(("127.0.0.1", 0), LOOPBACK, metrics=metrics_page, health=well)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200 ")
    async with asyncio.timeout(60):
        await server.close()
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


@pytest.mark.asyncio
async def test_silent_and_strange_peers_keep_nobody_from_the_metrics() -> None:
    async with serving(allow=[ip_network("127.0.0.1/32")]) as server, asyncio.timeout(60):
        silent = []
        for address in ("127.0.0.1", "127.0.0.2") * 100:
            silent.append(await asyncio.open_connection("127.0.0.1", server.port, local_addr=(address, 0)))
        assert (await get(server, "/metrics"))[0] == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, local_addr=("127.0.0.2", 0))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
        for _, one in (*silent, (reader, writer)):
            one.transport.abort()
        await asyncio.gather(*(one.wait_closed() for _, one in silent), return_exceptions=True)
