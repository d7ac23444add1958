"""What the relay was to reach, and whether it did. Postfix beside it, in the same run, is the measure of most."""

from __future__ import annotations

from dataclasses import dataclass

from bench.results import Results, Spread


@dataclass(frozen=True, slots=True)
class Aim:
    """`figure` of `workload` in `table`; `ratio`: divided by Postfix's. `least`: the more the better, else the less."""

    says: str
    table: str
    workload: str
    figure: str
    unit: str
    aim: float
    stretch: float | None = None
    ratio: bool = False
    least: bool = True

    def measured(self, results: Results) -> Spread | None:
        of = results.ratio if self.ratio else results.spread
        return of(self.table, self.workload, "relay", self.figure)

    def verdict(self, spread: Spread) -> str:
        """By the median."""
        if self.stretch is not None and self._reached(spread.median, self.stretch):
            return "met, stretch too"
        return "met" if self._reached(spread.median, self.aim) else "**not met**"

    def _reached(self, value: float, goal: float) -> bool:
        return value >= goal if self.least else value <= goal

    def goal(self, value: float) -> str:
        return f"{'≥' if self.least else '≤'} {value:g}{self.unit}"


def _times(says: str, table: str, workload: str, aim: float, stretch: float | None = None) -> Aim:
    return Aim(says, table, workload, "rate", " ×", aim, stretch, ratio=True)


def _most(says: str, workload: str, figure: str, unit: str, aim: float, stretch: float | None = None) -> Aim:
    return Aim(says, "plain", workload, figure, unit, aim, stretch, least=False)


AIMS = (
    _times("messages a second, 20 sessions", "plain", "small20", 5, 8),
    _times("messages a second, 100 sessions", "plain", "s100", 8, 14),
    _times("messages a second, a connection for each message", "plain", "small20n", 3),
    _times("messages a second over one connection to an upstream 30 ms away", "distance-30-1", "small20", 5),
    _most("processor time for a message, 20 sessions", "small20", "processor_ms", " ms", 0.30, 0.20),
    Aim(
        "time until a message is at the upstream, median",
        "plain",
        "lat",
        "arrived_p50_ms",
        " ×",
        0.7,
        0.5,
        ratio=True,
        least=False,
    ),
    _times("octets a second, 5 MiB", "plain", "large", 1.0, 1.2),
    _most("memory at 5 MiB", "large", "peak_mb", " MB", 80),
    _most("memory at 100 sessions", "s100", "peak_mb", " MB", 70),
    _most("start to the first 220", "idle", "cold_ms", " ms", 300),
    _most("memory when idle", "idle", "idle_mb", " MB", 60),
)
