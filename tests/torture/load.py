"""`relay serve` under load, seen from outside (memory, descriptors, the lag of its loop), and clients that send much.

async with loaded(site, upstreams={"own": to(sink.port)}) as relay:
    before = relay.memory("VmRSS")
    sent = await Large(25_000_000).send_all(relay.port, 200)
    grown = relay.memory("VmHWM") - before
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.house import JAN, PATIENCE, PIET, Client, Site, free_port, mail, send
from tests.kit.process import Process

MIB = 2**20
MOST = 64 * MIB  # that clients may cost the relay over idle, all together (contract: Meaning, listeners)
PIECE = 2**18
WARMING = 20  # messages before memory is measured
HEAD = mail("large", body=b"")
LONG_PATIENCE = 600.0  # seconds until a test that waits for gigabytes gives up

_BUCKET = re.compile(r'^relay_event_loop_lag_seconds_bucket\{le="(.+)"\} (\S+)$', re.MULTILINE)


class _Process(Process):
    patience = LONG_PATIENCE


@dataclass(frozen=True)
class Loaded:
    """The running relay."""

    process: Process
    port: int
    metrics: int

    def memory(self, kind: str) -> int:
        """VmRSS (now) or VmHWM (the most since `forget_peak`), in octets."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{kind}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def forget_peak(self) -> int:
        """VmHWM begins anew; what is resident now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.memory("VmRSS")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def shows_metrics(self) -> None:
        """As soon as it does: mail does not wait for that."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self.lag()
                except urllib.error.URLError:
                    continue
                return

    async def lag(self) -> Lag:
        return Lag({float(bound): int(float(count)) for bound, count in _BUCKET.findall(await self._exposition())})

    async def metric(self, name: str) -> float:
        """The value of a series, as it stands in the exposition."""
        return float((await self._exposition()).partition(f"\n{name} ")[2].split(None, 1)[0])

    async def _exposition(self) -> str:
        def get() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics") as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(get)


@dataclass(frozen=True)
class Lag:
    """How late the loop's timer of 100 ms was: by bound in seconds, how often up to it."""

    looks: dict[float, int]

    def since(self, before: Lag) -> Lag:
        return Lag({bound: count - before.looks[bound] for bound, count in self.looks.items()})

    def __str__(self) -> str:
        bounds = sorted(self.looks)
        all_of_them = self.looks[bounds[-1]]
        p50, p99, most = (
            next(bound for bound in bounds if self.looks[bound] >= share * all_of_them) * 1e3
            for share in (0.5, 0.99, 1)
        )
        return f"lag of the event loop: p50 ≤ {p50:g} ms, p99 ≤ {p99:g} ms, max ≤ {most:g} ms ({all_of_them} looks)"


@asynccontextmanager
async def loaded(site: Site, **parts: Any) -> AsyncIterator[Loaded]:
    """From its start, a few messages delivered; it must not have met a bug at its end."""
    port, metrics = free_port(), free_port()
    site.configure(
        listeners=[
            {"name": "legacy", "listen": f"127.0.0.1:{port}"} | parts.pop("listener", {}),
            *parts.pop("more_listeners", []),
        ],
        log={"format": "json"},
        admin={"listen": f"127.0.0.1:{metrics}", "socket": str(site.control_path)},
        **parts,
    )
    async with _Process.serving(site) as process:
        for _ in range(WARMING):
            await send(port, JAN, [PIET], mail("warm"))
        await process.line("delivered", WARMING)
        relay = Loaded(process, port, metrics)
        await relay.shows_metrics()
        yield relay
        assert [line for line in process.lines if not line.startswith("{")] == []  # no traceback
        assert process.all("exception_caught") == []


def to(port: int, **settings: Any) -> dict[str, Any]:
    """The configuration of an upstream on this machine."""
    return {"host": "127.0.0.1", "port": port, "tls": "none", **settings}


async def ordinary(port: int, subjects: list[str], sessions: int = 5) -> None:
    """Small messages, each in a session of its own, so many at a time; each is accepted."""

    async def some(mine: list[str]) -> None:
        for subject in mine:
            async with Client.to(port) as client:
                await client.send(JAN, [PIET], mail(subject))

    await asyncio.gather(*(some(subjects[first::sessions]) for first in range(sessions)))


class Large:
    """Messages that differ in their last line only, so that many of them cost a test little."""

    def __init__(self, octets: int, *, wide: bool = False, sender: str = JAN) -> None:
        """Each has about so many octets; `wide`: with 8-bit octets in every line."""
        line = (b"regel caf\xe9 " if wide else b"regel cafe ") * 6 + b"1.250,00\r\n"
        self._sender = sender.encode()
        self._lines = memoryview(line * (octets // len(line)))
        self._digest = hashlib.sha1(self._lines, usedforsecurity=False)

    def body(self, number: int) -> bytes:
        return bytes(self._lines) + _last(number)

    def digest(self, number: int) -> str:
        """As `Sink` has it."""
        whole = self._digest.copy()
        whole.update(_last(number))
        return whole.hexdigest()

    async def send(self, port: int, number: int, all_there: asyncio.Barrier) -> None:
        """The message of that number; it is acknowledged. Its last line waits until everybody is that far."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await reader.readline()
            writer.write(
                b"HELO werkplek-7\r\nMAIL FROM:<%b>\r\nRCPT TO:<%b>\r\nDATA\r\n" % (self._sender, PIET.encode())
            )
            for expected in (b"250", b"250", b"250", b"354"):
                line = await reader.readline()
                assert line.startswith(expected), line
            writer.write(HEAD)
            for offset in range(0, len(self._lines), PIECE):
                writer.write(self._lines[offset : offset + PIECE])
                await writer.drain()
            await all_there.wait()
            writer.write(_last(number) + b".\r\n")
            line = await reader.readline()
            assert line.startswith(b"250"), line
        finally:
            writer.transport.abort()

    async def send_all(self, port: int, many: int) -> Counter[str]:
        """The messages 0 to `many`, all under way at once; what `Sink` has to have in the end."""
        all_there = asyncio.Barrier(many)
        async with asyncio.timeout(LONG_PATIENCE), asyncio.TaskGroup() as group:
            for number in range(many):
                group.create_task(self.send(port, number, all_there))
        return Counter(self.digest(number) for number in range(many))


def _last(number: int) -> bytes:
    return b"Einde van lijst %d.\r\n" % number
