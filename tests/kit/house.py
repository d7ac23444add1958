"""The whole relay for scenarios: a configuration in a folder, the daemon in process, events to wait for.

    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            queue_id = await house.send("jan@example.nl", ["piet@example.org"])
            await house.event(RecipientDelivered, queue_id=queue_id)

`house.seen` holds all events in order. `tests.kit.process` runs the same configuration as `relay serve`.
Nothing here waits for a time: `until` waits for an event.
"""

from __future__ import annotations

import asyncio
import json
import smtplib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from relay.config.load import load
from relay.daemon.house import House
from relay.daemon.main import running
from relay.events import Event, ExceptionCaught
from relay.queue.model import Ledger
from tests.kit.certificates import Certificates
from tests.kit.ledger import balanced
from tests.kit.ports import free_port as free_port
from tests.kit.upstream import ScriptedUpstream

ACCOUNT, PASSWORD = "relay@example.nl", "Zo-geheim-8"
JAN, PIET = "jan@example.nl", "piet@example.org"
PATIENCE = 60.0  # seconds until a test that waits for an event gives up

E = TypeVar("E", bound=Event)


def mail(subject: str = "Factuur 2024-117", *, sender: str = JAN, body: bytes = b"Bijgaand de factuur.\r\n") -> bytes:
    return b"From: Jan <%b>\r\nTo: %b\r\nSubject: %b\r\n\r\n%b" % (
        sender.encode(),
        PIET.encode(),
        subject.encode(),
        body,
    )


class Site:
    """A folder with configuration, queue and secrets."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self.folder = folder
        self.certificates = certificates
        self.config_path = folder / "config.yaml"
        self.control_path = folder / "admin.sock"
        self.password_path = folder / "password"
        self.queue_path = folder / "queue.db"
        self.configuration: dict[str, Any] = {}
        self.set_password(PASSWORD)

    def set_password(self, password: str) -> None:
        self.password_path.touch(mode=0o600)
        self.password_path.write_text(password)

    def upstream(self, **settings: Any) -> ScriptedUpstream:
        """A strict one: STARTTLS with a good certificate, and an account."""
        terms: dict[str, Any] = {
            "tls": "starttls",
            "certificate": self.certificates.good,
            "users": {ACCOUNT: PASSWORD},
            **settings,
        }
        return ScriptedUpstream(**terms)

    def way_to(self, upstream: ScriptedUpstream, **settings: Any) -> dict[str, Any]:
        """The configuration of an upstream that leads to `upstream`."""
        way = {"host": upstream.host, "port": upstream.port, "tls": upstream.tls}
        if upstream.tls != "none":
            way["tls_ca"] = self.certificates.ca_path
        if upstream.users is not None:
            way |= {"username": ACCOUNT, "password": {"file": str(self.password_path)}}
        return way | settings

    def configure(self, **parts: Any) -> Path:
        """Write the configuration: what every scenario needs, and `parts` instead of or besides it."""
        self.configuration = {
            "hostname": "relay.example.nl",
            "listeners": [{"name": "legacy", "listen": "127.0.0.1:0"}],
            "routes": {"default": {"retry": "1s"}},
            "queue": {"store": f"sqlite:{self.queue_path}", "min_free": "1MiB"},
            "admin": {"listen": None, "socket": str(self.control_path)},
            **parts,
        }
        return self.write()

    def write(self) -> Path:
        """Write `configuration`, changed by hand."""
        # JSON is YAML as well.
        self.config_path.write_text(json.dumps(self.configuration, indent=1))
        return self.config_path

    @asynccontextmanager
    async def house(self, *, patience: float = 240.0) -> AsyncIterator[RunningHouse]:
        """The relay, until the block ends, at most `patience` seconds of the loop's time.

        A bug caught at a bulkhead, or books out of balance, fail the test.
        """
        seen = Seen()
        config = await asyncio.to_thread(load, self.config_path)
        async with asyncio.timeout(patience):
            async with running(config, path=self.config_path, observers=[seen]) as relay:
                house = RunningHouse(relay, seen)
                yield house
                assert balanced(house.ledger), house.ledger
        caught = seen.all(ExceptionCaught)
        assert caught == [], "\n".join(event.traceback for event in caught)


class Seen:
    """An observer that remembers, and wakes who waits."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()

    def observe(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def all(self, kind: type[E], **fields: object) -> list[E]:
        """The events of `kind` whose fields have these values, in order."""
        return [
            event
            for event in self.events
            if isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items())
        ]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it is looked at after each event."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            last = "\n".join(map(str, self.events[-30:]))
            raise AssertionError(f"it did not come about; the last events:\n{last}") from None


class RunningHouse:
    """The relay as a test sees it."""

    def __init__(self, relay: House, seen: Seen) -> None:
        self.relay = relay
        self.seen = seen

    @property
    def ledger(self) -> Ledger:
        return self.relay.store.ledger

    def port(self, listener: str = "legacy") -> int:
        return next(one.addresses[0][1] for one in self.relay.doors.listeners if one.name == listener)

    async def event(self, kind: type[E], number: int = 1, **fields: object) -> E:
        """The event of that number (counted from 1) of `kind` with these fields, as soon as it is there."""
        await self.seen.until(lambda: len(self.seen.all(kind, **fields)) >= number)
        return self.seen.all(kind, **fields)[number - 1]

    async def empty(self) -> None:
        """Wait until nothing is left in the queue."""

        def nothing_waits() -> bool:
            ledger = self.ledger
            return not (ledger.pending or ledger.deferred or ledger.active)

        await self.seen.until(nothing_waits)

    async def send(self, sender: str, recipients: Sequence[str], content: bytes | None = None) -> str:
        """Hand in a message as an application does; its queue ID."""
        return await send(self.port(), sender, recipients, content)

    async def send_many(self, subjects: Sequence[str]) -> list[str]:
        """One message for each subject, in this order, in one session; their queue IDs."""
        async with Client.to(self.port()) as client:
            return [await client.send(JAN, [PIET], mail(subject)) for subject in subjects]


async def send(port: int, sender: str, recipients: Sequence[str], content: bytes | None = None) -> str:
    def blocking() -> str:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="werkplek-7", timeout=PATIENCE) as client:
            client.ehlo_or_helo_if_needed()
            client.mail(sender)
            for recipient in recipients:
                client.rcpt(recipient)
            code, text = client.data(mail(sender=sender) if content is None else content)
            assert code == 250, (code, text)
            return text.decode().rpartition(" ")[2]

    return await asyncio.to_thread(blocking)


class Client:
    """A session with the relay, line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def to(cls, where: int | Path) -> AsyncIterator[Client]:
        """A port of this machine, or a Unix socket."""
        if isinstance(where, Path):
            client = cls(*await asyncio.open_unix_connection(where))
        else:
            client = cls(*await asyncio.open_connection("127.0.0.1", where))
        try:
            await client.reply()
            await client.say("HELO werkplek-7")
            yield client
        finally:
            client._writer.transport.abort()

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def reply(self) -> str:
        """The next reply of one line, or "" at the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            return (await self._reader.readline()).decode().rstrip()

    async def say(self, line: str) -> str:
        self.write(line.encode() + b"\r\n")
        return await self.reply()

    async def envelope(self, sender: str, recipients: Sequence[str]) -> None:
        """Up to the content."""
        assert (await self.say(f"MAIL FROM:<{sender}>")).startswith("250")
        for recipient in recipients:
            assert (await self.say(f"RCPT TO:<{recipient}>")).startswith("250")

    async def begin(self, sender: str, recipients: Sequence[str]) -> None:
        """Up to the 354."""
        await self.envelope(sender, recipients)
        assert (await self.say("DATA")).startswith("354")

    async def send(self, sender: str, recipients: Sequence[str], content: bytes) -> str:
        """A whole message; its queue ID."""
        await self.begin(sender, recipients)
        self.write(content + b".\r\n")
        reply = await self.reply()
        assert reply.startswith("250"), reply
        return reply.rpartition(" ")[2]
