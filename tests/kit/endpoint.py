"""A vendor's HTTPS endpoint on 127.0.0.1: aiohttp's server with real TLS, that does what a test says.

    async with Endpoint(certificates.good) as endpoint:
        endpoint.script(answer(503, {"Retry-After": "7"}))     # then 202 to all others
        ...
        request = await endpoint.request()

`requests` has what came, in order. Nothing of the relay is used here.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import trustme
from aiohttp import web

from tests.kit.certificates import Certificate
from tests.kit.ports import port_for

PATIENCE = 30.0

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Asked:
    """`connection`: its number, counted from 1."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def key(self) -> str:
        return self.headers["Idempotency-Key"]


class Endpoint:
    """`client_authority`: who must have issued the client's certificate, if one is wanted."""

    def __init__(self, certificate: Certificate, *, client_authority: trustme.CA | None = None) -> None:
        self._certificate = certificate
        self._client_authority = client_authority
        self._script: list[Behaviour] = []
        self._otherwise: Behaviour = answer(202)
        self._changed = asyncio.Event()
        self.requests: list[Asked] = []
        self.connections = 0
        self._numbers: dict[asyncio.Protocol, int] = {}
        self.port = port_for(self)

    async def __aenter__(self) -> Endpoint:
        context = self._certificate.server()
        if self._client_authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            self._client_authority.configure_trust(context)
        server = web.Server(self._handle)
        self._runner = web.ServerRunner(server, handle_signals=False)
        await self._runner.setup()
        loop = asyncio.get_running_loop()

        def counted() -> asyncio.Protocol:
            self.connections += 1
            protocol: asyncio.Protocol = server()
            self._numbers[protocol] = self.connections
            return protocol

        self._listening = await loop.create_server(counted, "127.0.0.1", self.port, ssl=context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.close()
        self.release.set()
        await self._runner.cleanup()

    @property
    def release(self) -> asyncio.Event:
        """Set when those who hang may go."""
        if not hasattr(self, "_release"):
            self._release = asyncio.Event()
        return self._release

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/v1/messages"

    def script(self, *behaviours: Behaviour) -> None:
        """What happens to the next requests, one each."""
        self._script += behaviours

    def always(self, behaviour: Behaviour) -> None:
        """What happens to all others."""
        self._otherwise = behaviour

    async def request(self, number: int = 1) -> Asked:
        """The request of that number (counted from 1), as soon as it is there."""
        async with asyncio.timeout(PATIENCE):
            while len(self.requests) < number:
                self._changed.clear()
                await self._changed.wait()
        return self.requests[number - 1]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        number = self._numbers[request.protocol]
        self.requests.append(Asked(request.method, request.path_qs, dict(request.headers), body, number))
        self._changed.set()
        behaviour = self._script.pop(0) if self._script else self._otherwise
        return await behaviour(request)  # type: ignore[arg-type]

    # Behaviours

    def hangs(self) -> Behaviour:
        """No answer until the test ends."""

        async def behave(_: web.Request) -> web.StreamResponse:
            await self.release.wait()
            return web.Response(status=202)

        return behave


def answer(status: int, headers: dict[str, str] | None = None, text: str = "", kind: str = "text/plain") -> Behaviour:
    async def behave(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers, text=text or None, content_type=kind)

    return behave


def says(status: int, document: object) -> Behaviour:
    return answer(status, text=json.dumps(document), kind="application/json")


def raw(octets: bytes) -> Behaviour:
    """These octets instead of an answer, then the end of the connection."""

    async def behave(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(octets)
        request.transport.close()
        return web.Response()

    return behave


async def hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def without_end(request: web.Request) -> web.StreamResponse:
    """200, and JSON until nobody wants more."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    try:
        while True:
            await response.write(b'{"message": "' + b"x" * 65_536)
    except ConnectionError:
        return response


async def stalls(request: web.Request) -> web.StreamResponse:
    """200, a word, and then nothing until the other end hangs up."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"mess')
    assert request.transport is not None
    gone = asyncio.Event()
    while not request.transport.is_closing():
        try:
            async with asyncio.timeout(0.05):
                await gone.wait()
        except TimeoutError:
            continue
    return response
