"""/metrics, /healthz and /readyz over HTTP, for those who watch; nothing here changes anything.

Peers outside `allow` get 403, and have a few places of their own: they keep nobody else away. The Host field is not
checked, because monitoring reaches these pages by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from relay.mail.reply import sanitise
from relay.policy.client import Network, allowed, plain
from relay.values import frozen
from relay.web.server import Request, Response, Server, serve

_PATIENCE = 5.0  # seconds that a page may take to know its answer


@frozen
class Health:
    """`ok`: the process lives, its loop turns and the store can commit. `ready`: it accepts mail as well.

    `reasons` say in plain words what is missing.
    """

    ok: bool
    ready: bool
    reasons: tuple[str, ...] = ()


MetricsPage = Callable[[str], Awaitable[tuple[bytes, str]]]
"""From an Accept header to the page and its content type."""


async def start(
    address: tuple[str, int],
    allow: Sequence[Network],
    *,
    metrics: MetricsPage,
    health: Callable[[], Awaitable[Health]],
) -> Server:
    """Listen on `address` (host and port). Raises OSError when that is not possible."""
    pages = _Pages(allow, metrics, health)
    return await serve(address, pages.answer, _plain, known=pages.allows)


class _Pages:
    """What there is to see."""

    def __init__(self, allow: Sequence[Network], metrics: MetricsPage, health: Callable[[], Awaitable[Health]]) -> None:
        self._allow = tuple(allow)
        self._metrics = metrics
        self._health = health
        self._by_path = {"/metrics": self._metrics_page, "/healthz": self._healthz, "/readyz": self._readyz}

    def allows(self, peer: str) -> bool:
        return allowed(plain(peer), self._allow)

    async def answer(self, request: Request) -> Response:
        if not self.allows(request.peer):
            return _plain(403, "not allowed from here", Connection="close")
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

    async def _metrics_page(self, request: Request) -> Response:
        body, content_type = await self._metrics(request.headers.get("accept", ""))
        return Response(200, content_type, body, _HEADERS)

    async def _healthz(self, _: Request) -> Response:
        health = await self._health()
        return _judged(health.ok, health.reasons)

    async def _readyz(self, _: Request) -> Response:
        health = await self._health()
        return _judged(health.ok and health.ready, health.reasons)


_HEADERS = {"X-Content-Type-Options": "nosniff"}


def _plain(status: int, text: str, **headers: str) -> Response:
    body = (sanitise(text) + "\n").encode()
    return Response(status, "text/plain; charset=utf-8", body, {**_HEADERS, **headers})


def _judged(good: bool, reasons: tuple[str, ...]) -> Response:
    return _plain(200, "ok") if good else _plain(503, "; ".join(reasons) or "not yet")
