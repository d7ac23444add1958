"""The administrator's commands on a queue of 100 000 messages, and what they cost the door.

    python -m bench.operator [MESSAGES]

The upstream is down, so that all of it waits. Each command is timed from its start to its end, as whoever types it
feels it; then the door takes mail in turns of some seconds, alone and with the commands running beside it: one every
second, and without a pause. Prints a table; exit code 1 when a command took a second, or the door lost a tenth to
the commands of every second. The load and the commands use the same processors as the relay: figures of a machine
with two of them are on the dark side.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

MESSAGES = 100_000
SESSIONS = 20
TURN = 3.0  # seconds of one measurement
TURNS = 6  # of each kind, one kind after the other
REPEATS = 7  # of each command
BODY = b"From: Jan <jan@example.nl>\r\nTo: piet@example.org\r\nSubject: Factuur\r\n\r\n" + b"Bijgaand.\r\n" * 200
COMMANDS = {
    "status": ["status"],
    "status --json": ["status", "--json"],
    "queue list": ["queue", "list"],
    "queue list --state deferred": ["queue", "list", "--state", "deferred"],
    "queue list --to (nobody)": ["queue", "list", "--to", "nobody@*"],
    "queue find --to (the newest)": ["queue", "find", "--to", "m*@example.org", "--limit", "5"],
    "queue find --to (the oldest)": ["queue", "find", "--to", "m0-0@example.org"],
    "queue find --to (nobody)": ["queue", "find", "--to", "nobody@*"],
    "queue find --since 1h": ["queue", "find", "--since", "1h"],
}
BESIDE = (["status"], ["queue", "list"], ["queue", "find", "--to", "m0-0@example.org"])


class Door:
    """Mail handed in by `SESSIONS` clients; `accepted` counts."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.accepted = 0

    async def take(self, *, messages: int = 0, seconds: float = 0.0) -> float:
        """Hand in until so many are accepted, or so long; messages a second."""
        before, started = self.accepted, time.perf_counter()
        end = started + seconds if seconds else float("inf")
        most = before + messages if messages else sys.maxsize
        async with asyncio.TaskGroup() as group:
            for number in range(SESSIONS):
                group.create_task(self._session(number, most, end))
        return (self.accepted - before) / (time.perf_counter() - started)

    async def _session(self, number: int, most: int, end: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        await reader.readline()
        writer.write(b"HELO bench\r\n")
        await reader.readline()
        turn = 0
        while self.accepted < most and time.perf_counter() < end:
            envelope = b"MAIL FROM:<jan@example.nl>\r\nRCPT TO:<m%d-%d@example.org>\r\nDATA\r\n" % (number, turn)
            writer.write(envelope)
            for expected in (b"250", b"250", b"354"):
                reply = await reader.readline()
                assert reply.startswith(expected), reply
            writer.write(BODY + b".\r\n")
            reply = await reader.readline()
            assert reply.startswith(b"250"), reply
            self.accepted += 1
            turn += 1
        writer.write(b"QUIT\r\n")
        await reader.readline()
        writer.close()


class Commands:
    """The relay's commands, with their time."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self.ran = 0

    async def run(self, words: list[str]) -> float:
        """Seconds from start to end."""
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay", *words, "-c", str(self._config)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        assert process.returncode in (0, 1), said  # status: 1, for the upstream is down
        self.ran += 1
        return time.perf_counter() - started

    @asynccontextmanager
    async def beside(self, pause: float) -> AsyncIterator[None]:
        """One after the other, with a pause between them, until the end of the block."""
        over = asyncio.Event()

        async def again_and_again() -> None:
            while not over.is_set():
                for words in BESIDE:
                    await self.run(words)
                    if pause and not over.is_set():
                        await asyncio.wait([waiting], timeout=pause)

        waiting = asyncio.create_task(over.wait())
        running = asyncio.create_task(again_and_again())
        try:
            yield
        finally:
            over.set()
            await running


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def serving(folder: Path, port: int) -> AsyncIterator[Path]:
    """A relay whose upstream is down; its configuration."""
    config = folder / "config.yaml"
    terms = {
        "hostname": "relay.example.nl",
        "listeners": [{"name": "legacy", "listen": f"127.0.0.1:{port}"}],
        "upstreams": {"own": {"host": "127.0.0.1", "port": free_port(), "tls": "none"}},
        "queue": {"store": f"sqlite:{folder}/queue.db", "min_free": "1MiB"},
        "admin": {"listen": None, "socket": f"{folder}/admin.sock"},
        "log": {"level": "error"},
    }
    config.write_text(json.dumps(terms))
    relay = await asyncio.create_subprocess_exec(sys.executable, "-m", "relay", "serve", "-c", str(config))
    try:
        while not (folder / "admin.sock").exists():
            assert relay.returncode is None
            await asyncio.sleep(0.02)
        yield config
    finally:
        if relay.returncode is None:
            relay.terminate()
        await relay.wait()


async def main(messages: int) -> int:
    with tempfile.TemporaryDirectory(prefix="relay-") as name:
        port = free_port()
        async with serving(Path(name), port) as config:
            door, commands = Door(port), Commands(config)
            rate = await door.take(messages=messages)
            print(f"{door.accepted} messages wait, taken at {rate:.0f}/s\n")
            slow = await _time(commands)
            print()
            lost = await _compare(door, commands)
            print(f"\nat the end {door.accepted} messages wait; {commands.ran} commands were run")
    return 1 if slow or lost else 0


async def _time(commands: Commands) -> bool:
    """The table of the commands; whether one of them took a second."""
    print(f"{'command':32} {'median':>8} {'slowest':>8}")
    worst = 0.0
    for name, words in COMMANDS.items():
        took = [await commands.run(words) for _ in range(REPEATS)]
        worst = max(worst, *took)
        print(f"{name:32} {statistics.median(took):6.2f} s {max(took):6.2f} s")
    return worst >= 1.0


async def _compare(door: Door, commands: Commands) -> bool:
    """The table of the door; whether it lost a tenth to the commands of every second."""
    kinds = {"alone": None, "a command every second": 1.0, "commands without a pause": 0.0}
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(TURNS):
        for kind, pause in kinds.items():
            if pause is None:
                rates[kind].append(await door.take(seconds=TURN))
            else:
                async with commands.beside(pause):
                    rates[kind].append(await door.take(seconds=TURN))
    alone = statistics.median(rates["alone"])
    print(f"{'the door':32} {'accepted':>10}")
    for kind, measured in rates.items():
        rate = statistics.median(measured)
        print(f"{kind:32} {rate:8.0f}/s  {rate / alone:4.0%}   ({', '.join(f'{one:.0f}' for one in measured)})")
    return statistics.median(rates["a command every second"]) < 0.9 * alone


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    raise SystemExit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else MESSAGES)))
