"""A relay with very many messages waiting, and a year of history behind it: what that costs anybody.

    python -m bench.scale [MESSAGES] [--history ROWS] [--json FILE]      (1 000 000 take about half an hour)

Two relays, rewriting nothing, with metrics and log on; their upstream is down at first. The messages (2 KiB) are put
into the queue by the store's own API and not by SMTP, the history by SQL; all else goes by the doors that everybody
uses: Postfix's smtp-source hands mail in over 20 sessions, its smtp-sink is the upstream. What is measured, of a relay
with an empty queue and of one with a full one, in turns:

- start, from exec to the first 220: by then the leases of a relay that was killed are taken back
- how much mail is taken a second, alone, with a scrape of /metrics every second, and with an operator's commands
- what is resident in memory, and how long the commands and a scrape take, from their start to their end
- once the upstream is there: how fast the backlog is drained beside how fast fresh mail goes from end to end, how long
  the write-ahead log becomes, and whether the oldest go first

Prints tables in Markdown; `--json` keeps the figures. The load and the commands use the same processors as the relay.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw

from bench import stop
from tests.kit.filled import fill, remember
from tests.kit.house import free_port

SESSIONS = 20
CONNECTIONS = 20  # to the upstream
TURN = 4000  # messages of one turn of taking
TURNS = 5
FRESH = 20_000  # messages of the end-to-end run
REPEATS = 5  # of each command
LEFT_LEASED = 100  # by the relay that was killed
COMMANDS = {
    "status": ["status"],
    "queue list": ["queue", "list"],
    "queue list --state deferred": ["queue", "list", "--state", "deferred"],
    "queue list --state held": ["queue", "list", "--state", "held"],
    "queue find --to (the newest)": ["queue", "find", "--to", "*@example.org", "--limit", "5"],
    "queue find --to (the oldest)": ["queue", "find", "--to", "m0@example.org"],
    "queue find --to (nobody)": ["queue", "find", "--to", "nobody@*"],
    "queue find --since 1h": ["queue", "find", "--since", "1h"],
}
KINDS = ("alone", "scraped every second", "a command every second")
BESIDE = (["status"], ["queue", "list"], ["queue", "find", "--to", "m0@example.org"])

Figures = dict[str, Any]


class Site:
    """A folder with a relay's configuration and queue, and the ports it uses."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.port, self.upstream_port, self.admin_port = free_port(), free_port(), free_port()
        self.config = folder / "config.yaml"
        self.queue = folder / "queue.db"
        self.started_in = self.resident_at_start = 0.0
        self.pid = 0
        terms = {
            "hostname": "relay.example.nl",
            "listeners": [{"name": "legacy", "listen": f"127.0.0.1:{self.port}"}],
            "upstreams": {
                "own": {"host": "127.0.0.1", "port": self.upstream_port, "tls": "none", "max_connections": CONNECTIONS}
            },
            "queue": {"store": f"sqlite:{self.queue}", "min_free": "1MiB", "history": "365d"},
            "admin": {"listen": f"127.0.0.1:{self.admin_port}", "socket": f"{folder}/admin.sock"},
        }
        self.config.write_text(json.dumps(terms))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """A relay until the end of the block; `started_in` has the seconds from exec to its first 220."""
        with (self.folder / "log").open("ab") as log:
            started = time.perf_counter()
            command = (sys.executable, "-m", "relay", "serve", "-c", str(self.config))
            relay = await asyncio.create_subprocess_exec(*command, stderr=log)
            try:
                while not await asyncio.to_thread(_greets, self.port):
                    assert relay.returncode is None, "the relay ended"
                self.started_in = time.perf_counter() - started
                self.pid = relay.pid
                while not (self.folder / "admin.sock").exists():
                    await asyncio.sleep(0.02)
                self.resident_at_start = self.resident
                yield
            finally:
                if relay.returncode is None:
                    relay.terminate()
                await relay.wait()
                (self.folder / "admin.sock").unlink(missing_ok=True)

    @asynccontextmanager
    async def upstream(self) -> AsyncIterator[None]:
        """The upstream is up until the end of the block."""
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        command = ("smtp-sink", *user, f"127.0.0.1:{self.upstream_port}", "1000")
        sink = await asyncio.create_subprocess_exec(*command)
        try:
            while not await asyncio.to_thread(_greets, self.upstream_port):
                assert sink.returncode is None, "the upstream ended"
            yield
        finally:
            sink.terminate()
            await sink.wait()

    @property
    def resident(self) -> float:
        """MiB of the relay."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    @property
    def log_size(self) -> float:
        """MiB of the write-ahead log."""
        wal = self.queue.with_name("queue.db-wal")
        return wal.stat().st_size / 2**20 if wal.exists() else 0.0

    def scrape(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics") as page:
            text: str = page.read().decode()
            return text

    async def recipients(self, name: str) -> int:
        """A figure of the ledger."""
        text = await asyncio.to_thread(self.scrape)
        return sum(int(float(line.split()[-1])) for line in text.splitlines() if line.startswith(name))

    async def run(self, words: list[str]) -> float:
        """A command; seconds from its start to its end."""
        started = time.perf_counter()
        command = (sys.executable, "-m", "relay", *words, "-c", str(self.config))
        nowhere = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*command, stdout=nowhere, stderr=nowhere)
        assert await process.wait() in (0, 1)  # status: 1, for the upstream is down
        return time.perf_counter() - started

    async def take(self, messages: int) -> float:
        """Hand in so many; messages a second."""
        started = time.perf_counter()
        command = ("smtp-source", "-d", "-s", str(SESSIONS), "-m", str(messages), "-l", "4096", "-N")
        source = await asyncio.create_subprocess_exec(
            *command, "-f", "jan@example.nl", "-t", "fresh@example.org", f"127.0.0.1:{self.port}"
        )
        assert await source.wait() == 0
        return messages / (time.perf_counter() - started)


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            return client.recv(4) == b"220 "
    except ConnectionError:
        time.sleep(0.005)
        return False


@asynccontextmanager
async def again_and_again(once: Any, pause: float = 1.0) -> AsyncIterator[list[float]]:
    """`once()` every so often until the end of the block; the seconds that each took."""
    took: list[float] = []
    over = asyncio.Event()

    async def go_on() -> None:
        while not over.is_set():
            started = time.perf_counter()
            await once()
            took.append(time.perf_counter() - started)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), pause)

    running = asyncio.create_task(go_on())
    try:
        yield took
    finally:
        over.set()
        await running


async def taking(sites: Sequence[Site]) -> list[Figures]:
    """What the doors take, alone and with others beside it: one kind after the other, and the sites in turn."""
    seen: list[Figures] = [{"taken": {kind: [] for kind in KINDS}, "scrapes": []} for _ in sites]
    for site in sites:
        await site.take(TURN // 4)
    for turn in range(TURNS):
        for kind in KINDS:
            for site, figures in zip(sites, seen, strict=True):
                async with beside(kind, site, turn) as took:
                    figures["taken"][kind].append(await site.take(TURN))
                if kind == "scraped every second":
                    figures["scrapes"] += took
    for site, figures in zip(sites, seen, strict=True):
        figures["resident"] = site.resident
    return seen


@asynccontextmanager
async def beside(kind: str, site: Site, turn: int) -> AsyncIterator[list[float]]:
    """Whoever else wants something of the relay until the end of the block, and the seconds that each took."""

    async def a_scrape() -> None:
        await asyncio.to_thread(site.scrape)

    async def a_command() -> None:
        await site.run(BESIDE[turn % len(BESIDE)])

    if kind == "alone":
        yield []
    else:
        async with again_and_again(a_scrape if kind == "scraped every second" else a_command) as took:
            yield took


async def commands(site: Site) -> dict[str, list[float]]:
    return {name: [await site.run(words) for _ in range(REPEATS)] for name, words in COMMANDS.items()}


async def drained(site: Site, messages: int) -> Figures:
    """The upstream comes up: all goes out. Then fresh mail goes from end to end, with nothing waiting."""
    gone = 'relay_recipients_total{event="delivered"}'
    longest = 0.0
    async with site.upstream():
        started = time.perf_counter()
        os.kill(site.pid, signal.SIGHUP)  # or it would be left alone for up to five minutes
        while (done := await site.recipients(gone)) < messages:
            longest = max(longest, site.log_size)
            print(f"\r{done} of {messages} drained, {site.resident:.0f} MiB", end="", file=sys.stderr, flush=True)
            await asyncio.sleep(0.5)
        rate = done / (time.perf_counter() - started)
        resident = site.resident
        started = time.perf_counter()
        await site.take(FRESH)
        while await site.recipients(gone) < messages + FRESH:
            await asyncio.sleep(0.05)
        fresh = FRESH / (time.perf_counter() - started)
    return {"drained": rate, "fresh": fresh, "log": longest, "resident": resident}


def out_of_turn(queue: Path, since: int) -> int:
    """Clients take turns, and of each the oldest goes first: how many places a message of it went too early at most."""
    with contextlib.closing(apsw.Connection(str(queue))) as connection:
        return int(
            next(
                connection.execute(
                    """
            SELECT coalesce(max(place - turn), 0) FROM (
                SELECT row_number() OVER (PARTITION BY client ORDER BY key) AS place,
                       row_number() OVER (PARTITION BY client ORDER BY ended_at, key) AS turn
                FROM history WHERE key > ?)
            """,
                    (since,),
                )
            )[0]
        )


def last_key(queue: Path) -> int:
    with contextlib.closing(apsw.Connection(str(queue))) as connection:
        return int(next(connection.execute("SELECT coalesce(max(key), 0) FROM history"))[0])


async def main(messages: int, history: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="relay-scale-") as name:
        empty, full = (Site(Path(name) / which) for which in ("empty", "full"))
        figures: Figures = {"messages": messages, "history": history}
        await fill(full.queue, 0)
        remember(full.queue, history, days=366)  # a day's worth of it is too old
        figures["filled"] = await fill(full.queue, messages - LEFT_LEASED)
        await fill(full.queue, LEFT_LEASED, leased=True, first=messages - LEFT_LEASED)  # by a relay that was killed
        before = last_key(full.queue)
        async with empty.serving():
            pass  # what Python compiles is compiled
        async with empty.serving(), full.serving():
            of_each = await taking((empty, full))
            for site, which, seen in zip((empty, full), ("empty", "full"), of_each, strict=True):
                figures[which] = {"start": site.started_in, "resident at start": site.resident_at_start, **seen}
            figures["full"]["commands"] = await commands(full)
            waiting = await full.recipients("relay_queue_recipients")
            figures |= await drained(full, waiting)
        figures["overtaken"] = out_of_turn(full.queue, before)
    return figures


def report(figures: Figures) -> Iterator[str]:
    """Markdown."""
    empty, full = figures["empty"], figures["full"]
    yield f"{figures['messages']:,} messages waiting, {figures['history']:,} in the history".replace(",", " ")
    yield ""
    yield "| | empty queue | full queue | |"
    yield "|---|---|---|---|"
    yield f"| start to the first 220 | {empty['start']:.2f} s | {full['start']:.2f} s | |"
    for kind, rates in empty["taken"].items():
        before, now = statistics.median(rates), statistics.median(full["taken"][kind])
        yield f"| mail taken, {kind} | {before:.0f}/s | {now:.0f}/s | {now / before:.0%} |"
    for what in ("resident at start", "resident"):
        yield f"| {what} | {empty[what]:.0f} MiB | {full[what]:.0f} MiB | |"
    yield f"| a scrape | {_span(empty['scrapes'])} | {_span(full['scrapes'])} | |"
    for name, took in full["commands"].items():
        yield f"| `relay {name}` | | {_span(took)} | |"
    yield ""
    drained, fresh = figures["drained"], figures["fresh"]
    yield f"Drained at {drained:.0f}/s; fresh mail goes end to end at {fresh:.0f}/s ({drained / fresh:.0%})."
    yield f"Meanwhile the write-ahead log had at most {figures['log']:.0f} MiB, and {figures['resident']:.0f} MiB were"
    yield f"resident. Of one client, nothing went more than {figures['overtaken']} places early."
    yield f"(The queue was filled by the store's API, at {figures['filled']:.0f}/s.)"


def _span(took: list[float]) -> str:
    return f"{statistics.median(took):.2f} s (at most {max(took):.2f} s)"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.scale")
    parser.add_argument("messages", nargs="?", type=int, default=100_000)
    parser.add_argument("--history", type=int, default=1_000_000, help="rows, of a year")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    asked = parser.parse_args()
    seen = stop.run(main(asked.messages, asked.history))
    if asked.json is not None:
        asked.json.write_text(json.dumps(seen, indent=1) + "\n")
    print("\n".join(report(seen)))
