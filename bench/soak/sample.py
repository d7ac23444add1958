"""What the relay is like at one moment, from outside: /proc, the queue's files, and its own metrics."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LAG = "relay_event_loop_lag_seconds_bucket"
_ROW = re.compile(r"^(?P<name>[a-z_]+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)$", re.MULTILINE)

Buckets = Mapping[float, float]  # by upper bound in seconds: observations up to it


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory and files in octets. The lag is of the time since the sample before, as the upper bound of its bucket in
    milliseconds; `accepted`, `delivered` and `duplicates` are totals."""

    at: float
    rss: int
    descriptors: int
    threads: int
    queue: int
    log: int
    database: int
    lag_p50: float
    lag_p99: float
    lag_max: float
    lag_over_20_ms: int
    lag_looks: int
    accepted: int
    delivered: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Process:
    """What /proc tells."""

    rss: int
    peak: int
    descriptors: int
    threads: int


def process(pid: int) -> Process:
    status = Path(f"/proc/{pid}/status").read_text()

    def field(name: str) -> int:
        return int(status.partition(f"\n{name}:")[2].split(None, 1)[0])

    return Process(field("VmRSS") * 1024, field("VmHWM") * 1024, len(os.listdir(f"/proc/{pid}/fd")), field("Threads"))


class Metrics:
    """One exposition."""

    def __init__(self, text: str) -> None:
        self._rows = [(row["name"], row["labels"] or "", float(row["value"])) for row in _ROW.finditer(text)]

    def total(self, name: str, label: str = "") -> int:
        return int(sum(value for one, labels, value in self._rows if one == name and label in labels))

    @property
    def lag(self) -> Buckets:
        found = ((labels.partition('le="')[2][:-1], value) for name, labels, value in self._rows if name == _LAG)
        return {float(bound): value for bound, value in found}


def since(now: Buckets, before: Buckets) -> Buckets:
    return {bound: count - before.get(bound, 0) for bound, count in now.items()}


def quantile(buckets: Buckets, share: float) -> float:
    """The upper bound, in milliseconds, of the bucket in which that share of the observations is reached."""
    bounds = sorted(buckets)
    wanted = share * buckets[bounds[-1]]
    return next(bound for bound in bounds if buckets[bound] >= wanted) * 1e3


def over(buckets: Buckets, seconds: float) -> int:
    return int(buckets[max(buckets)] - buckets[seconds])


def quarters(values: Sequence[float]) -> tuple[float, float]:
    """The means of the first and of the last quarter."""
    some = max(1, len(values) // 4)
    return sum(values[:some]) / some, sum(values[-some:]) / some
