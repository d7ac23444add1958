"""A relay on a machine that fails: what clients hear, what arrives, and what it says of itself.

    async with Machine.running(site, own, environment=faults.environment) as machine:
        assert (await machine.offer()).startswith("250 ")
        …the disk fails…
        assert (await machine.offer()).startswith("451 ")
        await machine.everything_acknowledged_arrives()

`acknowledged` has the numbers of the messages that were answered with 250; they outlive a restart on the same `Ledger`.
"""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.kit.house import JAN, PATIENCE, PIET, Client, Site, free_port, mail
from tests.kit.process import Process
from tests.kit.upstream import Received, ScriptedUpstream
from tests.scenarios.desk import reachable

SMALL, LARGE = 2_000, 1_500_000  # octets: in the database, and in a spool file


@dataclass
class Ledger:
    """What the clients know: the numbers of the messages that were acknowledged, and the other replies."""

    acknowledged: set[int] = field(default_factory=set)
    refusals: Counter[str] = field(default_factory=Counter)
    offered: int = 0

    def number(self) -> int:
        self.offered += 1
        return self.offered


def content(number: int, octets: int) -> bytes:
    return mail(str(number), body=(b"%08d\r\n" % number) * (octets // 10))


def number_of(received: Received) -> int:
    """-1 for a message of the relay's own: a bounce, or an alarm."""
    word = received.content.partition(b"Subject: ")[2].split(maxsplit=1)[0]
    return int(word) if word.isdigit() else -1


class Machine:
    """See the top of the module."""

    def __init__(self, relay: Process, own: ScriptedUpstream, ledger: Ledger, port: int, web: int) -> None:
        self.relay = relay
        self.own = own
        self.ledger = ledger
        self.port = port
        self._web = web

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        site: Site,
        own: ScriptedUpstream,
        *,
        ledger: Ledger | None = None,
        min_free: str = "1KiB",
        parts: dict[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Machine]:
        """A relay in front of `own`; `parts` of the configuration instead of or besides what it needs."""
        port, web = free_port(), free_port()
        site.configure(
            **{
                "upstreams": {"own": site.way_to(own, max_connections=3)},
                "listeners": [{"name": "legacy", "listen": f"127.0.0.1:{port}"}],
                "queue": {"store": f"sqlite:{site.queue_path}", "min_free": min_free},
                "admin": {"listen": f"127.0.0.1:{web}", "socket": str(site.control_path)},
                "log": {"format": "json"},
                **(parts or {}),
            }
        )
        async with Process.serving(site, **(environment or {})) as relay:
            await reachable(site)
            yield cls(relay, own, ledger or Ledger(), port, web)

    # Clients

    async def offer(self, octets: int = SMALL) -> str:
        """One message in a session of its own; the reply that decided about it, "" where there was none."""
        number = self.ledger.number()
        try:
            async with Client.to(self.port) as client:
                reply = await self._offer(client, number, octets)
        except OSError:
            reply = ""
        self._note(number, reply)
        return reply

    async def offer_many(self, count: int, octets: int = SMALL) -> list[str]:
        """One after the other."""
        return [await self.offer(octets) for _ in range(count)]

    async def offer_at_once(self, count: int, octets: int = SMALL) -> list[str]:
        """Each in a session of its own."""
        return list(await asyncio.gather(*(self.offer(octets) for _ in range(count))))

    async def _offer(self, client: Client, number: int, octets: int) -> str:
        for command in (f"MAIL FROM:<{JAN}>", f"RCPT TO:<{PIET}>", "DATA"):
            reply = await client.say(command)
            if not reply.startswith(("250", "354")):
                return reply
        client.write(content(number, octets) + b".\r\n")
        return await client.reply()

    def _note(self, number: int, reply: str) -> None:
        if reply.startswith("250 "):
            self.ledger.acknowledged.add(number)
        else:
            self.ledger.refusals[reply[:9]] += 1

    async def accepts_again(self, octets: int = SMALL) -> None:
        """Wait until a message is taken."""
        async with asyncio.timeout(PATIENCE):
            while not (await self.offer(octets)).startswith("250 "):
                await asyncio.sleep(0.05)

    # The other end

    @property
    def arrived(self) -> Counter[int]:
        return Counter(number_of(received) for received in self.own.messages)

    async def everything_acknowledged_arrives(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self.own.until(lambda: self.ledger.acknowledged <= self.arrived.keys())
        except TimeoutError:
            missing = sorted(self.ledger.acknowledged - self.arrived.keys())
            last = "\n".join(self.relay.lines[-20:])
            raise AssertionError(
                f"{missing} were acknowledged and did not arrive; the relay said last:\n{last}"
            ) from None

    # What it says of itself

    async def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page over HTTP."""

        def blocking() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._web}{path}", timeout=PATIENCE) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        await self._page_is_open()
        return await asyncio.to_thread(blocking)

    async def _page_is_open(self) -> None:
        """It opens a moment after the doors."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self._web)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.transport.abort()
                return

    async def healthy(self) -> bool:
        status, _ = await self.page("/healthz")
        return status == 200

    async def metrics(self, *series: str) -> list[float]:
        """The values of these series in one answer of /metrics, so that they are of one moment."""
        _, text = await self.page("/metrics")
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return [float(values[one]) for one in series]

    async def metric(self, series: str) -> float:
        (value,) = await self.metrics(series)
        return value
