"""What is done to a relay, and the figures that come of it.

`Stream`: Postfix's `smtp-source` hands in messages as fast as it can; they count from the first connect until the last
is at the sink. `Latency`: one at a time. `Idle`: a fresh process that has nothing to do.
"""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Self

from bench.build import Programs
from bench.peer import Running
from bench.sink import Sink

Figures = dict[str, float]

STALLED = 20.0  # seconds without a message at the sink
LOOKS = 0.01
SAMPLES = 0.2  # seconds between two looks at the memory: of Postfix's processes each costs


class Failed(Exception):
    """A run whose figures mean nothing, and why."""


@dataclass(frozen=True, slots=True)
class Stream:
    """`size` octets a message, over `sessions` at a time; `reuse`: many messages in a connection, else one."""

    says: str
    size: int
    sessions: int
    reuse: bool = True

    @property
    def large(self) -> bool:
        """Octets a second say more than messages a second."""
        return self.size >= 1024 * 1024


@dataclass(frozen=True, slots=True)
class Latency:
    says: str
    size: int
    messages: int


@dataclass(frozen=True, slots=True)
class Idle:
    says: str


Workload = Stream | Latency | Idle

WORKLOADS: dict[str, Workload] = {
    "idle": Idle("a fresh process, an empty queue"),
    "small20": Stream("4 KiB, 20 sessions", 4096, 20),
    "s100": Stream("4 KiB, 100 sessions", 4096, 100),
    "small20n": Stream("4 KiB, 20 at a time, one connection for each message", 4096, 20, reuse=False),
    "single": Stream("4 KiB, 1 session", 4096, 1),
    "lat": Latency("4 KiB, one message at a time", 4096, 200),
    "large": Stream("5 MiB, 4 sessions", 5 * 1024 * 1024, 4),
}


@dataclass(frozen=True, slots=True)
class Bench:
    """A running peer and the sink behind it."""

    running: Running
    sink: Sink
    programs: Programs


def measure(bench: Bench, workload: Workload, messages: int) -> Figures:
    """One run. `messages` is of a `Stream` (see `amount`). Raises Failed."""
    match workload:
        case Stream():
            return _stream(bench, workload, messages)
        case Latency():
            return _latency(bench, workload)
        case Idle():
            return _idle(bench)


def amount(bench: Bench, workload: Workload, seconds: float) -> int:
    """How many messages take this peer about so long. Raises Failed.

    Found out by runs that do not count, until they get no faster: at first processes are started, caches filled.
    """
    if not isinstance(workload, Stream):
        return 0
    slower, rate = 0.0, _stream(bench, workload, workload.sessions)["rate"]
    while rate > 1.5 * slower:
        slower = rate
        messages = max(workload.sessions, int(rate * seconds / 3))
        rate = _stream(bench, workload, messages)["rate"]
    return max(workload.sessions, int(max(rate, slower) * seconds))


def _stream(bench: Bench, workload: Stream, messages: int) -> Figures:
    running, sink = bench.running, bench.sink
    before, used = sink.read(), running.processor()
    command = ["smtp-source", "-s", str(workload.sessions), "-m", str(messages), "-l", str(workload.size)]
    command += ["-f", "jan@example.com", "-t", "piet@example.org", *(["-d"] if workload.reuse else [])]
    with _Peak(running) as peak:
        start = time.monotonic_ns()
        source = subprocess.run([*command, f"127.0.0.1:{running.peer.port}"], capture_output=True, check=False)
        accepted = time.monotonic_ns() - start
        if source.returncode:
            raise Failed(f"smtp-source: {source.stderr.decode(errors='replace').strip()[-200:]}")
        _wait_for(sink, before.messages + messages)
    time.sleep(0.3)  # what the relay still has to write down belongs to these messages
    came = sink.read() - before
    if (came.messages, came.expected) != (messages, messages):
        raise Failed(f"{messages} messages went in, {came.messages} came out, {came.expected} of them rewritten")
    seconds = (came.last - start) / 1e9
    return {
        "messages": messages,
        "rate": messages / seconds,
        "accepted_rate": messages / accepted * 1e9,
        "octet_rate": messages * workload.size / seconds / 1e6,
        "processor_ms": (running.processor() - used) * 1e3 / messages,
        "peak_mb": peak.megabytes,
        "connections": came.connections,
        "chunked": came.chunked,
        "logins": came.logins,
    }


def _wait_for(sink: Sink, messages: int) -> None:
    last, moved = -1, time.monotonic()
    while (now := sink.read().messages) < messages:
        if now != last:
            last, moved = now, time.monotonic()
        elif time.monotonic() > moved + STALLED:
            raise Failed(f"{messages - now} messages had not arrived {STALLED:.0f} s after the one before")
        time.sleep(LOOKS)


class _Peak:
    """The most memory that was resident at one of the looks, in `megabytes`, while this is entered."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.megabytes = 0.0

    def _look(self) -> None:
        while True:
            self.megabytes = max(self.megabytes, self._running.memory())
            if self._ended.wait(SAMPLES):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _latency(bench: Bench, workload: Latency) -> Figures:
    command = [str(bench.programs.latency), str(bench.running.peer.port), str(bench.sink.counters)]
    probe = subprocess.run(
        [*command, str(workload.messages), str(workload.size)], capture_output=True, text=True, check=False
    )
    if probe.returncode:
        raise Failed(probe.stderr.strip())
    arrived, accepted = zip(*(map(float, line.split()) for line in probe.stdout.splitlines()), strict=True)
    return {
        "arrived_p50_ms": statistics.median(arrived) / 1e3,
        "arrived_p99_ms": statistics.quantiles(arrived, n=100)[98] / 1e3,
        "accepted_p50_ms": statistics.median(accepted) / 1e3,
        "accepted_p99_ms": statistics.quantiles(accepted, n=100)[98] / 1e3,
    }


def _idle(bench: Bench) -> Figures:
    bench.running.stop()
    bench.running.start()
    time.sleep(1)  # what it still does after its first 220 is part of being started
    return {
        "cold_ms": bench.running.cold,
        "idle_mb": bench.running.memory_shared_out(),
    }
