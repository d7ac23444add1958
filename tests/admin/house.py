"""A running house for the admin socket: a real store, and no mail that flows by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from relay.admin import client
from relay.admin.snapshot import CodesNow, Snapshot
from relay.mail.quirk import Quirk
from relay.observe.clients import ClientSeen
from relay.queue.sqlite.start import SqliteStore
from relay.queue.store import QueueStore
from relay.web import control
from tests.kit.store import usual
from tests.queue.mail import NOON, Noted

T = TypeVar("T")

PATIENCE = 60.0  # seconds until who asks gives up

ROUTES = ("default", "archive", "session-codes")

SNAPSHOT = Snapshot(
    version="1.2.3",
    pid=4711,
    at=NOON,
    started_at=NOON - timedelta(hours=1),
    config="/etc/relay/config.yaml",
    reloaded_at=NOON,
    hostname="relay.example.nl",
    ready=True,
    listeners=(),
    upstreams=(),
    routes=(),
    codes=CodesNow(enabled=False, delivered=0, failed=0, expired=0, waiting=0),
    recipients={"delivered": 3},
    queue_bytes=0,
    disk_free=None,
    min_free=0,
    damaged=0,
    troubles=(),
    errors=(),
)
CLIENT = ClientSeen(
    address="192.0.2.7",
    listeners=("legacy",),
    first_seen=NOON,
    last_seen=NOON,
    messages=2,
    refused=0,
    helo="imuis",
    software="iMUIS\x1b[2J",
    quirks={Quirk.BARE_LF: 3},
)


class FakeHouse:
    """What the socket knows of the daemon; `error` is raised by whatever is asked."""

    running = True
    routes = ROUTES
    upstreams = ("own", "vendor")

    def __init__(self, store: QueueStore) -> None:
        self._store = store
        self.woken = 0
        self.senders_told = 0
        self.opening: dict[str, datetime] = {}
        self.error: Exception | None = None

    @property
    def store(self) -> QueueStore:
        if self.error is not None:
            raise self.error
        return self._store

    def opens_at(self, route: str) -> datetime | None:
        return self.opening.get(route)

    async def senders_changed(self) -> None:
        self.senders_told += 1

    async def reload(self) -> tuple[str, ...]:
        if self.error is not None:
            raise self.error
        return ("queue.store",)

    async def snapshot(self) -> Snapshot:
        if self.error is not None:
            raise self.error
        return SNAPSHOT

    def clients(self) -> Sequence[ClientSeen]:
        return (CLIENT,)

    def wake(self) -> None:
        self.woken += 1

    try_now = wake


async def open_store(folder: Path, observer: Noted | None = None) -> SqliteStore:
    return await SqliteStore.open(folder / "queue.db", observer=observer or Noted(), **usual(now=lambda: NOON))


@asynccontextmanager
async def answering(path: Path, store: QueueStore) -> AsyncIterator[FakeHouse]:
    """A house behind the socket at `path`."""
    house = FakeHouse(store)
    server = await control.start(path, house)
    try:
        yield house
    finally:
        await server.close()


async def ask(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Call what blocks, while the house answers."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.to_thread(function, *arguments, **named)


def get(path: Path, target: str) -> tuple[int, Any]:
    """Status and document of a GET at the socket."""
    with client.asked(path, "GET", target, None, PATIENCE) as answer:
        return answer.status, json.loads(answer.read())


def post(path: Path, target: str, body: Any = None) -> tuple[int, Any]:
    """Status and document of a POST at the socket."""
    with client.asked(path, "POST", target, body, PATIENCE) as answer:
        return answer.status, json.loads(answer.read())
