"""A listener with a real store behind it, and a client that says what the test says."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import pytest

from relay.events import Event
from relay.ingress.accept import Acceptor, QueueIds
from relay.ingress.door import Door
from relay.ingress.limits import AuthTries, Memory, Sessions
from relay.ingress.listener import Listener
from relay.ingress.ports import open_port
from relay.ingress.settings import ListenerLimits, ListenerSettings
from relay.mail.address import Address
from relay.mail.reply import Reply
from relay.policy.decide import DEFAULT, Accept, Policy
from relay.policy.retry import Schedule
from relay.policy.rules import SenderRule
from relay.queue.model import Entry, Lease
from relay.queue.sqlite.start import SqliteStore
from tests.kit import configured
from tests.kit.loops import EACH_LOOP, LOOPS
from tests.kit.store import usual

E = TypeVar("E", bound=Event)

PATIENCE = 60.0
SOON = 0.3  # seconds for what will not come; on a busy machine all that comes before it takes some of them
LOOPBACK = (ip_network("127.0.0.0/8"),)
SETTINGS = configured.listener(allow=LOOPBACK, max_message_size=10 * 1024 * 1024)
SCHEDULE = Schedule((timedelta(minutes=5),), timedelta(days=5))
ROUTES = {DEFAULT: configured.route(DEFAULT, ("own",), SCHEDULE)}
POLICY = configured.policy(routes=ROUTES, bounces_from=Address("relay", "example.nl"))
MESSAGE = b"From: jan@example.nl\r\nSubject: Factuur\r\n\r\nHallo\r\n"


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test, once on uvloop and once on asyncio's own loop."""

    @functools.wraps(test)
    def run(loop: str, **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(test(**fixtures))

    signature = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = signature.replace(parameters=[loop, *signature.parameters.values()])  # type: ignore[attr-defined]
    marked: Callable[..., None] = pytest.mark.parametrize("loop", EACH_LOOP)(run)
    return marked


class Observed:
    """An observer that remembers, and wakes whoever waits for an event."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = asyncio.Event()

    def observe(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type[E], count: int = 1) -> list[E]:
        """The events of `kind`, once there are `count`."""
        async with asyncio.timeout(PATIENCE):
            while len(self.of(kind)) < count:
                self._more.clear()
                await self._more.wait()
        return self.of(kind)


class Store:
    """The real store, with a gate in front of its `put`, and troubles to order."""

    def __init__(self, real: SqliteStore) -> None:
        self.real = real
        self.troubles: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()

    async def put(self, entry: Entry, *, leased: bool, held: bool = False, ways: Sequence[str] = ()) -> Lease:
        self.arrived.set()
        await self.gate.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        return await self.real.put(entry, leased=leased, held=held)


class Client:
    """The other side of a session."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def reply(self) -> bytes:
        """The next reply, all of its lines."""
        lines = b""
        async with asyncio.timeout(PATIENCE):
            while True:
                line = await self.reader.readline()
                lines += line
                if line[3:4] != b"-":
                    return lines

    async def say(self, *commands: bytes) -> bytes:
        """Send the commands in one write; the last reply."""
        self.send(b"".join(command + b"\r\n" for command in commands))
        for _ in commands:
            reply = await self.reply()
        return reply

    async def mail(self, content: bytes = MESSAGE, *recipients: bytes) -> bytes:
        """One transaction; the reply to the final dot. `content` is as on the wire, dots stuffed."""
        assert (await self.say(b"MAIL FROM:<jan@example.nl>"))[:3] == b"250"
        for recipient in recipients or (b"piet@example.com",):
            assert (await self.say(b"RCPT TO:<" + recipient + b">"))[:3] == b"250"
        assert (await self.say(b"DATA"))[:3] == b"354"
        self.send(content + b".\r\n")
        return await self.reply()

    async def end(self) -> bytes:
        """What still comes until the server has closed; then this side is closed as well."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""
            finally:
                self.writer.close()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """The handshake."""
        async with asyncio.timeout(PATIENCE):
            await self.writer.start_tls(context, server_hostname="localhost")

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


class House:
    """What stands behind the port; `settings` and `limits` are those of the listener."""

    def __init__(self, store: SqliteStore, settings: ListenerSettings, observed: Observed) -> None:
        self.observed = observed
        self.store = Store(store)
        self.rung: list[str] = []
        self.space = True
        self.senders: tuple[SenderRule, ...] = ()
        self.verdicts: asyncio.Queue[Reply | Exception | None] = asyncio.Queue()
        self.waiting: list[tuple[float, Callable[[], bool]]] = []
        acceptor = Acceptor(
            store=self.store,  # type: ignore[arg-type]  # only `put` is asked for
            policy=lambda: replace(POLICY, senders=self.senders),
            room=lambda route, size: False,
            offer=lambda lease, decision, policy: None,
            ring=self.rung.append,
            direct=self.try_directly,
            observer=observed,
            size_limit=lambda route: None,
        )
        self.door = Door(
            settings=settings,
            sessions=Sessions(),
            auth_tries=AuthTries(),
            memory=Memory(),
            acceptor=acceptor,
            queue_ids=QueueIds(),
            spool=store.spool,
            space=lambda: self.space,
            observer=observed,
            now=lambda: datetime.now(UTC),
            replies=Counter(),
            live=set(),
        )
        self.listener = Listener(self.door, [open_port("127.0.0.1", 0)])
        self.port = self.listener.addresses[0][1]
        self._clients: list[Client] = []

    async def try_directly(
        self,
        entry: Entry,
        decision: Accept,
        policy: Policy,
        *,
        patience: float,
        waits: Callable[[], bool],
        accepted: Callable[[], None],
    ) -> Reply | None:
        """An upstream that says what is put into `verdicts`."""
        self.waiting.append((patience, waits))
        self.store.arrived.set()
        verdict = await self.verdicts.get()
        if isinstance(verdict, Exception):
            raise verdict
        if verdict is not None and verdict.code < 300:
            accepted()
        return verdict

    async def connect(self, context: ssl.SSLContext | None = None, **options: Any) -> Client:
        """A connection, before its banner."""
        name = "localhost" if context else None
        streams = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=name, **options)
        self._clients.append(Client(*streams))
        return self._clients[-1]

    async def client(self, context: ssl.SSLContext | None = None) -> Client:
        """A client that has heard the banner and said EHLO."""
        client = await self.connect(context)
        assert (await client.reply())[:4] == b"220 "
        assert (await client.say(b"EHLO pc.example.nl"))[:3] == b"250"
        return client

    async def entries(self) -> list[Entry]:
        """What the store holds, oldest first."""
        leases = await self.store.real.lease(DEFAULT, limit=1_000, now=datetime.now(UTC) + timedelta(seconds=1))
        await self.store.real.give_back(leases)
        return [lease.entry for lease in leases]

    async def contents(self) -> list[bytes]:
        return [entry.content.read(0, entry.content.size) for entry in await self.entries()]

    async def nobody_is_left(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.door.live:
                await asyncio.wait([session.task for session in self.door.live])
        assert self.door.memory.used == self.door.memory.spooling == self.door.memory.envelopes == 0
        assert self.door.sessions.total == 0

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        self.store.gate.set()
        await self.listener.close()
        await self.nobody_is_left()


@contextlib.asynccontextmanager
async def a_house(folder: Path, *, limits: ListenerLimits | None = None, **settings: Any) -> AsyncIterator[House]:
    """A listener that is open, on a store in `folder`; `settings` are changes to `SETTINGS`."""
    observed = Observed()
    store = await SqliteStore.open(folder / "queue.db", observer=observed, **usual())
    try:
        house = House(store, replace(SETTINGS, limits=limits or configured.limits(), **settings), observed)
        await house.listener.start()
        try:
            yield house
        finally:
            await house.close()
    finally:
        await store.close()


def hard_reset(client: Client) -> None:
    """Close with RST."""
    raw = client.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.writer.transport.abort()


def codes(replies: Sequence[bytes]) -> list[bytes]:
    return [reply[:3] for reply in replies]


HouseOf = Callable[..., contextlib.AbstractAsyncContextManager[House]]
