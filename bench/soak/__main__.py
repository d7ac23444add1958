"""A soak: messages at a steady pace through `relay serve`, rewritten, to an upstream that comes and goes.

    python -m bench.soak [SECONDS [PER_SECOND [FILE]]]

3 600 seconds and 200 a second where nothing is said. Every ten seconds it looks at memory, descriptors, threads, queue,
the log and the size of the database, and the lag of the event loop; at the end the queue is drained, and what was
acknowledged has to have arrived. The samples go to FILE as JSON (build/soak.json). Metrics and log of the relay are on.
Needs the [dev] packages. The pattern of the upstream's troubles is always the same (see `upstream`).
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from bench import stop
from bench.soak import sample
from bench.soak.ledger import Balance, Ledger
from bench.soak.sample import Buckets, Metrics, Sample
from tests.kit.house import free_port

EVERY = 10.0  # seconds
SEED = 8
DRAINED_WITHIN = 300.0  # seconds
OUT = Path("build/soak.json")


def configure(folder: Path, port: int, metrics: int, upstream: int) -> Path:
    quick = dict.fromkeys(("connect", "greeting", "command", "data", "progress", "final"), "5s")
    path = folder / "config.yaml"
    # JSON is YAML as well.
    path.write_text(
        json.dumps(
            {
                "hostname": "relay.example.nl",
                "listeners": [{"name": "legacy", "listen": f"127.0.0.1:{port}"}],
                "upstreams": {
                    "own": {
                        **{"host": "127.0.0.1", "port": upstream, "tls": "none"},
                        **{"max_connections": 10, "timeouts": quick},
                    }
                },
                "routes": {"default": {"retry": "1s, 2s, 5s"}},
                "senders": [{"name": "all", "address": "administratie@example.nl", "display_name": "{name} via A"}],
                "queue": {"store": f"sqlite:{folder}/queue.db", "min_free": "1MiB"},
                "admin": {"listen": f"127.0.0.1:{metrics}", "socket": f"{folder}/admin.sock"},
                "log": {"format": "json"},
            }
        )
    )
    return path


class Relay:
    """The process under test."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, metrics: int) -> None:
        self.pid = process.pid
        self._process = process
        self._database = folder / "queue.db"
        self._metrics = f"http://127.0.0.1:{metrics}/metrics"
        self._started = asyncio.Event()
        self.lines: Counter[str] = Counter()
        self.errors: list[str] = []
        self._last: deque[str] = deque(maxlen=10)
        self._reading = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def serving(cls, config: Path, metrics: int) -> AsyncIterator[Relay]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay", "serve", "-c", str(config)), stderr=asyncio.subprocess.PIPE
        )
        relay = cls(process, config.parent, metrics)
        try:
            async with asyncio.timeout(30):
                await relay._started.wait()
            yield relay
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
                await relay._reading
            else:
                await relay._reading
                print(f"the relay ended with {process.returncode}:", *relay._last, sep="\n", file=sys.stderr)

    async def _read(self) -> None:
        """Its log is counted, and only what tells of bugs and failing machines is kept."""
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            level = json.loads(line)["level"] if line.startswith(b"{") else "no log"
            self.lines[level] += 1
            self._last.append(line.decode().rstrip())
            if level in ("error", "critical", "no log") and len(self.errors) < 20:
                self.errors.append(line.decode().rstrip())
            if b'"event": "started"' in line or b'"event":"started"' in line:
                self._started.set()

    async def metrics(self) -> Metrics:
        def get() -> str:
            with urllib.request.urlopen(self._metrics, timeout=30) as answer:
                return str(answer.read().decode())

        return Metrics(await asyncio.to_thread(get))

    def octets(self, suffix: str = "") -> int:
        path = self._database.with_name(self._database.name + suffix)
        return path.stat().st_size if path.exists() else 0


class Watch:
    """Takes the samples."""

    def __init__(self, relay: Relay, arrived: Ledger) -> None:
        self._relay = relay
        self._arrived = arrived
        self._began = time.monotonic()
        self.lag: Buckets = {}

    async def look(self) -> Sample:
        relay = self._relay
        metrics, process = await relay.metrics(), sample.process(relay.pid)
        lag = sample.since(metrics.lag, self.lag)
        self.lag = metrics.lag
        arrived = self._arrived.snapshot()
        return Sample(
            at=round(time.monotonic() - self._began, 1),
            rss=process.rss,
            descriptors=process.descriptors,
            threads=process.threads,
            queue=metrics.total("relay_queue_recipients"),
            log=relay.octets("-wal"),
            database=relay.octets(),
            lag_p50=sample.quantile(lag, 0.5),
            lag_p99=sample.quantile(lag, 0.99),
            lag_max=sample.quantile(lag, 1),
            lag_over_20_ms=sample.over(lag, 0.02),
            lag_looks=int(lag[max(lag)]),
            accepted=metrics.total("relay_recipients_total", 'event="accepted"'),
            delivered=metrics.total("relay_recipients_total", 'event="delivered"'),
            duplicates=sum(arrived) - len(arrived) + arrived.count(0),
        )


def shown(one: Sample) -> str:
    return (
        f"{one.at:7.0f} s  rss {one.rss >> 20:4} MiB  fds {one.descriptors:3}  threads {one.threads:2}  "
        f"queue {one.queue:5}  log {one.log >> 20:3} MiB  database {one.database >> 20:4} MiB  "
        f"lag ≤ {one.lag_p50:g}/{one.lag_p99:g}/{one.lag_max:g} ms ({one.lag_over_20_ms} of {one.lag_looks} over 20)  "
        f"accepted {one.accepted}  delivered {one.delivered}  twice {one.duplicates}"
    )


async def main(seconds: int, per_second: int, out: Path) -> int:
    count = seconds * per_second
    async with AsyncExitStack() as house:
        folder = Path(house.enter_context(tempfile.TemporaryDirectory(prefix="relay-soak-")))
        acknowledged, arrived = Ledger(folder / "acknowledged", count), Ledger(folder / "arrived", count)
        upstream = await house.enter_async_context(role("upstream", folder / "arrived", count, seconds, SEED))
        assert upstream.stdout is not None
        upstream_port = int(await upstream.stdout.readline())
        port, metrics = free_port(), free_port()
        config = configure(folder, port, metrics, upstream_port)
        relay = await house.enter_async_context(Relay.serving(config, metrics))
        client = await house.enter_async_context(role("client", port, folder / "acknowledged", count, per_second))
        watch = Watch(relay, arrived)
        samples: list[Sample] = []
        saying = asyncio.create_task(client.communicate())
        while not saying.done():
            await asyncio.wait((saying,), timeout=EVERY)
            samples.append(await watch.look())
            print(shown(samples[-1]), flush=True)
        drained = await drain(watch)
        print(f"drained: {shown(drained)}")
        report = {
            "seconds": seconds,
            "per_second": per_second,
            "client": json.loads(saying.result()[0]),
            "upstream": json.loads((await upstream.communicate(b""))[0]),
            "balance": asdict(Balance.of(acknowledged.snapshot(), arrived.snapshot())),
            "peak_mib": sample.process(relay.pid).peak >> 20,
            "lag": {f"{bound * 1e3:g}": count for bound, count in watch.lag.items()},
            "log_lines": dict(relay.lines),
            "errors": relay.errors,
            "drained": asdict(drained),
            "samples": [asdict(one) for one in samples],
        }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    return conclude(report, samples, watch.lag)


async def drain(watch: Watch) -> Sample:
    """The upstream is up now: look until nothing is left in the queue."""
    async with asyncio.timeout(DRAINED_WITHIN):
        while (one := await watch.look()).queue:
            await asyncio.sleep(1)
    return one


def conclude(report: dict[str, object], samples: list[Sample], lag: Buckets) -> int:
    print("\nthe mean of the first quarter, and of the last:")
    for what, values, unit in (
        ("memory", [one.rss / 2**20 for one in samples], "MiB"),
        ("descriptors", [float(one.descriptors) for one in samples], ""),
        ("threads", [float(one.threads) for one in samples], ""),
        ("the database's log", [one.log / 2**20 for one in samples], "MiB"),
        ("database", [one.database / 2**20 for one in samples], "MiB"),
    ):
        first, last = sample.quarters(values)
        print(f"  {what}: {first:.1f} → {last:.1f} {unit}; at most {max(values):.1f}")
    most = max(one.queue for one in samples)
    print(f"queue: {most} at most, {samples[-1].queue} at the end, drained afterwards")
    beyond, looks = sample.over(lag, 0.02), lag[max(lag)]
    print(
        f"lag of the event loop: p50 ≤ {sample.quantile(lag, 0.5):g} ms, p99 ≤ {sample.quantile(lag, 0.99):g} ms, "
        f"max ≤ {sample.quantile(lag, 1):g} ms; {beyond} of {looks:.0f} looks over 20 ms "
        f"({100 * beyond / looks:.2f} %)"
    )
    for name in ("client", "upstream", "balance", "peak_mib", "log_lines", "errors"):
        print(f"{name}: {json.dumps(report[name])}")
    balance = report["balance"]
    assert isinstance(balance, dict)
    return 0 if balance["missing"] == 0 and not report["errors"] else 1


@asynccontextmanager
async def role(module: str, *words: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that plays the client or the upstream."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"bench.soak.{module}", *map(str, words)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:3]] + [3_600, 200][len(sys.argv[1:3]) :]
    raise SystemExit(stop.run(main(numbers[0], numbers[1], Path(sys.argv[3]) if sys.argv[3:] else OUT)))
