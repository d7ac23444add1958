"""Counters and histograms whose cost on the hot path is one dictionary look-up.

A label takes its values from a closed set: an enumeration or the names of the configuration. Anything
else counts as "other", so that nothing from a message, and no mistake, makes series without end. All
combinations start at 0, so that `increase()` sees the first event.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, product

OTHER = "other"

Labels = tuple[str, ...]


class Counter:
    """A counter, with labels in the order they are given."""

    __slots__ = ("_counts", "_values", "labels", "meaning", "name")

    def __init__(self, name: str, meaning: str, **values: Sequence[str]) -> None:
        self.name = name
        self.meaning = meaning
        self.labels = tuple(values)
        self._values: list[tuple[str, ...]] = []
        self._counts: dict[Labels, int] = {}
        self.configure(**values)

    def configure(self, **values: Sequence[str]) -> None:
        """Change the sets of values; counts go on where a combination stays. Labels not named stay as they are."""
        before = dict(zip(self.labels, self._values, strict=False))
        self._values = [tuple(values.get(label, before.get(label, ()))) for label in self.labels]
        self._counts = {key: self._counts.get(key, 0) for key in product(*self._values)}

    def add(self, *key: str) -> None:
        """Count one more; one label value for each label."""
        try:
            self._counts[key] += 1
        except KeyError:
            known = tuple(value if value in set_ else OTHER for value, set_ in zip(key, self._values, strict=True))
            self._counts[known] = self._counts.get(known, 0) + 1

    def counts(self) -> Mapping[Labels, int]:
        return self._counts


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
    """A histogram for each value of at most one label; without a label there is one, under ""."""

    __slots__ = ("_bounds", "_by_value", "label", "meaning", "name")

    def __init__(
        self, name: str, meaning: str, bounds: Sequence[float], label: str | None = None, values: Sequence[str] = ("",)
    ) -> None:
        self.name = name
        self.meaning = meaning
        self.label = label
        self._bounds = bounds
        self._by_value: dict[str, Histogram] = {}
        self.configure(values)

    def configure(self, values: Sequence[str]) -> None:
        """Change the set of label values; a histogram whose value stays goes on."""
        self._by_value = {value: self._by_value.get(value) or Histogram(self._bounds) for value in values}

    def observe(self, observed: float, value: str = "") -> None:
        try:
            histogram = self._by_value[value]
        except KeyError:
            histogram = self._by_value.setdefault(OTHER, Histogram(self._bounds))
        histogram.counts[bisect_left(self._bounds, observed)] += 1
        histogram.total += observed

    def histograms(self) -> Mapping[str, Histogram]:
        return self._by_value
