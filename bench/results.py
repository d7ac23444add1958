"""What a benchmark saw, as it is kept in `results.json`: a line for each measurement; a page can be made of it anew."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

PATH = Path(__file__).with_name("results.json")
BASE = "postfix"  # whom the others are compared with


@dataclass(frozen=True, slots=True)
class Measurement:
    """`table` is a name of `scenes`, `workload` one of `workloads`; `trouble`: why there are no figures."""

    table: str
    workload: str
    peer: str
    repetition: int
    figures: dict[str, float] = field(default_factory=dict)
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some repetitions, and their extremes."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> Spread | None:
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True, slots=True)
class Results:
    """`lacking`: what this machine could not do, in sentences."""

    day: str
    command: str
    machine: dict[str, str]
    lacking: tuple[str, ...]
    measurements: tuple[Measurement, ...]

    def values(self, table: str, workload: str, peer: str, figure: str) -> dict[int, float]:
        """By repetition."""
        return {
            one.repetition: one.figures[figure]
            for one in self.measurements
            if (one.table, one.workload, one.peer) == (table, workload, peer) and figure in one.figures
        }

    def spread(self, table: str, workload: str, peer: str, figure: str) -> Spread | None:
        return Spread.of(list(self.values(table, workload, peer, figure).values()))

    def ratio(self, table: str, workload: str, peer: str, figure: str) -> Spread | None:
        """To Postfix, formed within each repetition: what the machine does meanwhile befalls both."""
        base = self.values(table, workload, BASE, figure)
        mine = self.values(table, workload, peer, figure)
        return Spread.of([value / base[number] for number, value in mine.items() if base.get(number)])


def write(results: Results) -> None:
    document = asdict(results)
    lines = ",\n  ".join(json.dumps(one) for one in document.pop("measurements"))
    text = json.dumps({**document, "measurements": []}, indent=1, ensure_ascii=False)
    PATH.write_text(text.replace('"measurements": []', f'"measurements": [\n  {lines}\n ]') + "\n")


def read() -> Results:
    document = json.loads(PATH.read_text())
    measurements = tuple(Measurement(**one) for one in document.pop("measurements"))
    return Results(**{**document, "lacking": tuple(document["lacking"])}, measurements=measurements)


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Four digits are more than a benchmark knows."""
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def troubles(measurements: Iterable[Measurement]) -> list[str]:
    return [f"{one.table}, {one.workload}, {one.peer}: {one.trouble}" for one in measurements if one.trouble]
