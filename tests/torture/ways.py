"""The two ways of a session code: a vendor's endpoint (HTTPS), and the own server (SMTP).

async with Ways.of(site) as ways:
    ways.mood = lambda: False     # the vendor wants no code now
    ...
    assert ways.by_both == set()
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.kit.endpoint import Asked, Endpoint
from tests.kit.house import PIET, Site
from tests.kit.upstream import KEYWORDS, Received, ScriptedUpstream
from tests.torture.traffic import Books, entry_of

CONNECTIONS = 3  # to each of them, at most


class Ways:
    """A vendor whose `mood` says whether it wants a code now, and the own server; what each of them took, by number.

    `keys`: by queue ID, the idempotency keys that the vendor was asked with.
    """

    def __init__(self, site: Site, own: ScriptedUpstream, **parts: Any) -> None:
        self.vendor = Endpoint(site.certificates.good)
        self.own = own
        self.books = Books(site.folder)
        self.taken: dict[str, Counter[int]] = {"vendor": Counter(), "own": Counter()}
        self.keys: defaultdict[str, set[str]] = defaultdict(set)
        self.mood: Callable[[], bool] = lambda: True
        self.content_there: Callable[[], None] = lambda: None
        self.vendor.always(self._judge)
        own.content_allowed = self._arrives
        vendor = {
            "type": "https",
            "url": self.vendor.url,
            "format": "mime",
            "auth": "none",
            "tls_ca": site.certificates.ca_path,
            "max_connections": CONNECTIONS,
        }
        usual = {
            "upstreams": {"own": site.way_to(own, max_connections=CONNECTIONS), "vendor": vendor},
            "routes": {"default": {"retry": "1s"}, "session-codes": {"retry": "1s"}},
            "log": {"format": "json"},
        }
        site.configure(**(usual | parts))

    @classmethod
    @asynccontextmanager
    async def of(cls, site: Site, *, keywords: tuple[str, ...] = KEYWORDS, **parts: Any) -> AsyncIterator[Ways]:
        """They are open until the end of the block; `parts` of the configuration instead of or besides the usual."""
        async with site.upstream(tls="none", users=None, keywords=keywords) as own:
            ways = cls(site, own, **parts)
            async with ways.vendor:
                yield ways
            ways.books.close()

    async def _judge(self, _: web.Request) -> web.StreamResponse:
        asked: Asked = self.vendor.requests.pop()  # there is no memory for all of them, nor for the messages below
        self.keys[entry_of(asked.body)].add(asked.key)
        if not self.mood():
            return web.Response(status=503)
        self._note("vendor", Received("noreply@example.nl", (PIET,), asked.body, connection=asked.connection))
        return web.Response(status=202)

    def _arrives(self, received: Received) -> str | None:
        self.own.messages.clear()
        self._note("own", received)
        self.content_there()
        return None

    def _note(self, way: str, received: Received) -> None:
        self.books.arrive(received, f"{way} {received.connection}")
        self.taken[way][self.books.arrivals[-1].number] += 1

    @property
    def by_both(self) -> set[int]:
        return self.taken["vendor"].keys() & self.taken["own"].keys()
