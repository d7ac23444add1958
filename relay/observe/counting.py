"""What can be counted, and the figures, whose cost on the hot path is one dictionary look-up.

A `Metric` is declared once, with the values that each of its labels can have: a closed set, or the names of one kind in
the configuration. Anything else counts as "other", so that nothing from a message, and no mistake, makes series without
end. All combinations start at 0, so that `increase()` sees the first event.

`Count`, `CountEach`, `Observe` and `Latest` say what an event moves; the figures make of each the function that takes
such an event.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, product
from typing import Any, NamedTuple

OTHER = "other"

Labels = tuple[str, ...]
Take = Callable[[Any], object]
Names = Mapping[str, Sequence[str]]
"""The names of the configuration by kind: "listeners", "upstreams" …"""


class Metric:
    """A counter (its name ends with `_total`), a Unix time, or a histogram with these bounds (inclusive). `labels` has
    the values of each label, or which kind of names they are."""

    def __init__(self, name: str, meaning: str, bounds: Sequence[float] = (), **labels: Sequence[str] | str) -> None:
        self.name, self.meaning, self.bounds = name, meaning, bounds
        self.labels = tuple([label.removesuffix("_") for label in labels])  # "class" is a word of Python
        self._values = labels.values()

    @property
    def is_counter(self) -> bool:
        return self.name.endswith("_total")

    def values(self, names: Names) -> list[Sequence[str]]:
        """The values of each label, where the configuration has these names."""
        return [names.get(values, ()) if isinstance(values, str) else values for values in self._values]


class Count(NamedTuple):
    """One more under the label values `key`; under none where one of them is None."""

    metric: Metric
    key: Callable[[Any], Labels]


class CountEach(NamedTuple):
    """One more under each of `keys`."""

    metric: Metric
    keys: Callable[[Any], Iterable[Labels]]


class Observe(NamedTuple):
    """The number `value` of an event, under its `label` where the histogram has one."""

    metric: Metric
    value: Callable[[Any], float]
    label: Callable[[Any], str] | None = None


class Latest(NamedTuple):
    """The Unix time `moment` of an event, by default that at which it comes, takes the place of the one before; None
    leaves it."""

    metric: Metric
    key: Callable[[Any], Labels]
    moment: Callable[[Any], float | None] | None = None


Moves = Count | CountEach | Observe | Latest


class Figures:
    """The figures of a counter or of a Unix time, one for each combination of label values."""

    __slots__ = ("_by_key", "_now", "_values", "metric")

    def __init__(self, metric: Metric, now: Callable[[], float]) -> None:
        self.metric = metric
        self._now = now
        self._values: list[Sequence[str]] = []
        self._by_key: dict[Labels, float] = {}

    def configure(self, names: Names) -> None:
        """Change the sets of values; a figure stays where its combination does."""
        self._values, before = self.metric.values(names), self._by_key
        known = product(*self._values)
        if self.metric.is_counter:
            self._by_key = {key: before.get(key, 0) for key in known}
        else:
            self._by_key = {
                key: before[key] if key in before else self._now() for key in known if key in before or not key
            }

    def taking(self, moves: Count | CountEach | Latest) -> Take:
        """What takes an event."""
        match moves:
            case Latest(_, labels_of, moment_of):

                def take(event: object) -> None:
                    key, moment = labels_of(event), self._now() if moment_of is None else moment_of(event)
                    if moment is not None and key == self._known(key):
                        self._by_key[key] = moment

            case CountEach(_, keys_of):

                def take(event: object) -> None:
                    for key in keys_of(event):
                        self._count_known(key)

            case Count(_, key_of):

                def take(event: object) -> None:
                    key = key_of(event)
                    if key in self._by_key:
                        self._by_key[key] += 1
                    elif None not in key:
                        self._count_known(key)

        return take

    def _count_known(self, key: Labels) -> None:
        known = self._known(key)
        self._by_key[known] = self._by_key.get(known, 0) + 1

    def _known(self, key: Labels) -> Labels:
        return tuple(value if value in set_ else OTHER for value, set_ in zip(key, self._values, strict=True))

    def figures(self) -> Mapping[Labels, float]:
        return self._by_key


class Histogram:
    """Observations by upper bound (inclusive), and their sum."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def cumulative(self) -> Iterator[tuple[str, float]]:
        """Bounds as text, "+Inf" last, each with the number of observations up to it."""
        names = (*(str(float(bound)) for bound in self._bounds), "+Inf")
        return zip(names, accumulate(self.counts), strict=True)


class Histograms:
    """The figures of a histogram: one for each value of its label, else one, under ""."""

    __slots__ = ("_by_value", "metric")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._by_value: dict[str, Histogram] = {}

    def configure(self, names: Names) -> None:
        """Change the set of label values; a histogram whose value stays goes on."""
        [values] = self.metric.values(names) or [("",)]
        self._by_value = {value: self._by_value.get(value) or Histogram(self.metric.bounds) for value in values}

    def taking(self, moves: Observe) -> Take:
        """What takes an event."""
        _, measure, label_of = moves
        bounds = self.metric.bounds

        def take(event: object) -> None:
            observed = measure(event)
            value = "" if label_of is None else label_of(event)
            try:
                histogram = self._by_value[value]
            except KeyError:
                histogram = self._by_value.setdefault(OTHER, Histogram(bounds))
            histogram.counts[bisect_left(bounds, observed)] += 1
            histogram.total += observed

        return take

    def histograms(self) -> Mapping[str, Histogram]:
        return self._by_value
