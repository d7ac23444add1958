"""/metrics, /healthz and /readyz over HTTP, for those who watch; nothing here changes anything.

Importing this costs some 100 ms (aiohttp), so it is imported after the listeners are open. Peers
outside `allow` get 403. The Host field is not checked, because monitoring reaches these pages by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from relay.mail.reply import sanitise
from relay.policy.client import allowed, plain

Network = IPv4Network | IPv6Network

_PATIENCE = 5.0  # seconds that a page may take to know its answer
_IDLE = 30  # seconds without a request, after which a connection is closed
_LONGEST_LINE = 2048
_MOST_FIELDS = 32


@dataclass(frozen=True, slots=True)
class Health:
    """`ok`: the process lives, its loop turns and the store can commit. `ready`: it accepts mail as well.

    `reasons` say in plain words what is missing.
    """

    ok: bool
    ready: bool
    reasons: tuple[str, ...] = ()


MetricsPage = Callable[[str], Awaitable[tuple[bytes, str]]]
"""From an Accept header to the page and its content type."""


class WebServer:
    """The running server. `port` is the one in use, also where 0 was asked for."""

    def __init__(self, server: asyncio.Server, pages: _Server) -> None:
        self._server = server
        self._pages = pages
        self.port: int = server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, give requests under way a second, close connections."""
        self._server.close()
        self._pages.pre_shutdown()
        await self._pages.shutdown(1.0)
        await self._server.wait_closed()


async def start(
    address: tuple[str, int],
    allow: Sequence[Network],
    *,
    metrics: MetricsPage,
    health: Callable[[], Awaitable[Health]],
) -> WebServer:
    """Listen on `address` (host and port). Raises OSError when that is not possible."""
    pages = _Server(
        _Pages(allow, metrics, health).answer,
        access_log=None,
        keepalive_timeout=_IDLE,
        lingering_time=1.0,
        max_line_size=_LONGEST_LINE,
        max_field_size=_LONGEST_LINE,
        max_headers=_MOST_FIELDS,
    )
    server = await asyncio.get_running_loop().create_server(pages, *address, backlog=64)
    return WebServer(server, pages)


class _Pages:
    """What there is to see."""

    def __init__(self, allow: Sequence[Network], metrics: MetricsPage, health: Callable[[], Awaitable[Health]]) -> None:
        self._allow = tuple(allow)
        self._metrics = metrics
        self._health = health
        self._by_path = {"/metrics": self._metrics_page, "/healthz": self._healthz, "/readyz": self._readyz}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.remote is None or not allowed(plain(request.remote), self._allow):
            return _plain(403, "not allowed from here")
        page = self._by_path.get(request.path)
        if page is None:
            return _plain(404, "there is no such page")
        if request.method not in ("GET", "HEAD"):
            return _plain(405, "this page can only be read", Allow="GET, HEAD")
        try:
            async with asyncio.timeout(_PATIENCE):
                return await page(request)
        except TimeoutError:
            return _plain(503, f"no answer within {_PATIENCE:.0f} s")

    async def _metrics_page(self, request: web.BaseRequest) -> web.Response:
        body, content_type = await self._metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={**_HEADERS, "Content-Type": content_type})

    async def _healthz(self, _: web.BaseRequest) -> web.Response:
        health = await self._health()
        return _judged(health.ok, health.reasons)

    async def _readyz(self, _: web.BaseRequest) -> web.Response:
        health = await self._health()
        return _judged(health.ok and health.ready, health.reasons)


_HEADERS = {
    "Server": "relay",  # or aiohttp would tell its version and Python's
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


def _plain(status: int, text: str, **headers: str) -> web.Response:
    return web.Response(status=status, text=sanitise(text) + "\n", headers={**_HEADERS, **headers})


def _judged(good: bool, reasons: tuple[str, ...]) -> web.Response:
    return _plain(200, "ok") if good else _plain(503, "; ".join(reasons) or "not yet")


class _Connection(web.RequestHandler):
    """aiohttp's side of one connection, with our own words for what is not HTTP."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, HttpProcessingError):
            # The peer's mistake, not ours: aiohttp would log it as an error, with a traceback.
            answer: web.StreamResponse = _plain(exc.code, "this is not a request we understand")
            answer.force_close()
            return answer
        answer = super().handle_error(request, status, exc, message)
        answer.headers.update(_HEADERS)
        return answer


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)
