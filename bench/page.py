"""docs/benchmarks.md, made of what a benchmark saw.

python -m bench.page        # anew, from results.json
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from bench import results as kept
from bench.aims import AIMS
from bench.results import BASE, Results, Spread
from bench.scenes import DISTANCE, PLAIN, TLS, Scene
from bench.workloads import WORKLOADS, Stream

PATH = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PERFORMANCE = PATH.with_name("performance.md")
NAMES = {"postfix": "Postfix", "naive": "naive relay", "relay": "the relay"}
NOTHING = "–"

Row = tuple[str, str, str]  # what it says, the workload, the figure of it
LATENCIES: tuple[Row, ...] = (
    ("until it is at the upstream: half of them", "lat", "arrived_p50_ms"),
    ("until it is at the upstream: 99 of 100", "lat", "arrived_p99_ms"),
    ("until the 250: half of them", "lat", "accepted_p50_ms"),
    ("until the 250: 99 of 100", "lat", "accepted_p99_ms"),
)
IDLE: tuple[Row, ...] = (
    ("start to the first 220, ms", "idle", "cold_ms"),
    ("memory, MB (PSS)", "idle", "idle_mb"),
)


def render(results: Results) -> str:
    parts = [_opening(results), _aims(results)]
    parts += [_scene(results, PLAIN, "On one machine"), _scene(results, TLS, "With TLS and AUTH on the way out")]
    parts += [_distance(results), _method(results)]
    return "\n".join(part for part in parts if part)


def write(results: Results) -> None:
    PATH.write_text(render(results))


def _opening(results: Results) -> str:
    further = "\n[performance.md](performance.md) tells where the time goes.\n" if PERFORMANCE.exists() else ""
    return f"""\
# Benchmarks

How fast the relay is beside Postfix that does the same work, and what it costs. Measured on {results.day}; this page is
written by `make bench`, not by hand.
{further}
Figures are medians, with the lowest and the highest of the repetitions in brackets. Absolute figures are those of this
machine at that hour, and move by a third from day to day; "× Postfix" is formed within each repetition, and moves less.
"""


def _aims(results: Results) -> str:
    rows = []
    for aim in AIMS:
        spread = aim.measured(results)
        rows.append(
            [
                aim.says + (", × Postfix" if aim.ratio else ""),
                aim.goal(aim.aim),
                NOTHING if aim.stretch is None else aim.goal(aim.stretch),
                NOTHING if spread is None else _spread(spread) + aim.unit,
                "not measured" if spread is None else aim.verdict(spread),
            ]
        )
    table = _table(["", "aim", "stretch", "measured", "by the median"], rows)
    return f"""\
## What was aimed at

{table}
What 100 000 waiting messages cost, and how an hour with an upstream that comes and goes passes, stands in
[performance](performance.md).
"""


def _scene(results: Results, scene: Scene, title: str) -> str:
    streams = {name: one for name in scene.workloads if isinstance(one := WORKLOADS[name], Stream)}
    small = [(one.says, name, "rate") for name, one in streams.items() if not one.large]
    large = [(one.says, name, "octet_rate") for name, one in streams.items() if one.large]
    tables = [
        _peers_table(results, scene, "messages a second", small),
        _peers_table(results, scene, "MB a second", large),
        _peers_table(results, scene, "one message at a time (4 KiB), ms", LATENCIES),
        _peers_table(
            results,
            scene,
            "processor time for a message, ms",
            [(one.says, name, "processor_ms") for name, one in streams.items()],
        ),
        _peers_table(
            results,
            scene,
            "memory at most, MB",
            [(one.says, name, "peak_mb") for name, one in streams.items()],
            ratio=False,
        ),
        _peers_table(results, scene, "a fresh process, an empty queue", IDLE, ratio=False),
    ]
    found = "\n".join(table for table in tables if table)
    return f"## {title}\n\n{found}" if found else ""


def _peers_table(results: Results, scene: Scene, head: str, rows: Iterable[Row], *, ratio: bool = True) -> str:
    """A column for each peer; "" where nothing of it was measured."""
    others = [peer for peer in scene.peers if peer != BASE]
    lines = []
    for says, workload, figure in rows:
        cells = [_spread(results.spread(scene.table, workload, peer, figure)) for peer in scene.peers]
        if set(cells) == {NOTHING}:
            continue
        if ratio:
            cells += [_spread(results.ratio(scene.table, workload, peer, figure)) for peer in others]
        lines.append([says, *cells])
    ratios = [f"{NAMES[peer]}, × Postfix" for peer in others] if ratio else []
    return _table([head, *(NAMES[peer] for peer in scene.peers), *ratios], lines) if lines else ""


def _distance(results: Results) -> str:
    rows = []
    for scene in DISTANCE:
        cells = [_spread(results.spread(scene.table, "small20", peer, "rate")) for peer in scene.peers]
        if set(cells) != {NOTHING}:
            rows.append([scene.says, *cells, _spread(results.ratio(scene.table, "small20", "relay", "rate"))])
    if not rows:
        return ""
    table = _table(["round trip, connections allowed; messages a second", "Postfix", "the relay", "× Postfix"], rows)
    return f"""\
## With a distant upstream

A proxy (`bench/delay.c`) holds back every octet for half of the round trip, each way; 4 KiB messages, 20 sessions in
front, no TLS. It models the time of travel only: no loss, no bandwidth, no slow start.

{table}"""


def _method(results: Results) -> str:
    machine = _table(["machine", ""], ([name, value] for name, value in results.machine.items()))
    lacking = "".join(f"- Not done: {sentence}\n" for sentence in results.lacking)
    troubles = "".join(f"- No figures: {sentence}\n" for sentence in kept.troubles(results.measurements))
    return f"""\
## How it was measured

`{results.command}`

- Load, relay and upstream share the machine. Load is Postfix's `smtp-source`; the upstream is `bench/sink.c`, which
  offers PIPELINING and CHUNKING, says 250 at once and counts; it also checks that every message came, and with the new
  From. Messages count from the first connect until the last of them is at the upstream. Latency is taken by
  `bench/latency.c`: a connection for each message, from before connect.
- All peers of a table are up at once and measured in turn, in an order that rotates.
- The relay: `max_connections: {PLAIN.connections}`, one rule that rewrites From and the reverse-path, metrics on, log
  at `info` to a file; the rest is default (`bench/ours.py`). 250 after the commit is on the disk.
- Postfix: the same rewriting by `sender_canonical_maps`, {PLAIN.postfix_connections} connections, its connection cache
  on, with TLS by `tlsproxy`, log to a file (`bench/postfix.py`). 250 after an fsync of the queue file. With a distant
  upstream both may open the same number of connections.
- The naive relay (`bench/naive.py`): forty lines of aiosmtpd, aiosmtplib and `email`, without a queue; the upstream has
  the message before the 250.
- TLS: both use STARTTLS and AUTH PLAIN, and both keep their connections. The relay verifies the certificate and the
  name, Postfix the certificate at level `encrypt` (it goes on where that fails).
- Processor time is that of all processes of a peer (cgroup v2), memory the resident set of all of them, looked at five
  times a second; what Postfix's processes share is counted for each. Idle memory divides what is shared (PSS).
{lacking}{troubles}
{machine}"""


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return NOTHING
    show = _digits(spread.median)
    if spread.least == spread.most:
        return show(spread.median)
    return f"{show(spread.median)} ({show(spread.least)}–{show(spread.most)})"


def _digits(value: float) -> Callable[[float], str]:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return lambda number: f"{number:.{digits}f}"


if __name__ == "__main__":
    write(kept.read())
