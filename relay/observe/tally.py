"""The figures of all that is counted (`table`), and who keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from relay.observe.counting import OTHER, Figures, Histograms, Metric, Observe
from relay.observe.fan_out import Taking
from relay.observe.table import METRICS, ROWS

MOST_RULES = 64
"""Rules with series of their own; the rest count as "other"."""

REPLY_VERBS = (
    *("HELO", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "AUTH", "STARTTLS"),
    OTHER,
)
REPLY_CLASSES = (2, 3, 4, 5)

_LAG = Metric("relay_event_loop_lag_seconds", "How late a timer of 100 ms is.", (0.001, 0.005, 0.02, 0.1, 0.5, 1, 5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names of the configuration that become label values."""

    listeners: Sequence[str] = ()
    upstreams: Sequence[str] = ()
    routes: Sequence[str] = ()
    rules: Sequence[str] = ()
    oauth2: Sequence[str] = ()
    """The upstreams that log in with a token."""


class Tally(Taking):
    """An observer that counts.

    `replies` is counted by whoever replies at the door: (verb, first digit) → how many. Its keys are
    all pairs of `REPLY_VERBS` and `REPLY_CLASSES` and no others; it stays the same object. `observe_lag` is given by
    how many seconds the event loop was late (`observe.lag`).
    """

    def __init__(self, names: Names, *, now: Callable[[], float] = time.time) -> None:
        self.replies = {(verb, digit): 0 for verb in REPLY_VERBS for digit in REPLY_CLASSES}
        self._now = now
        self._figures = {
            metric: Histograms(metric) if metric.bounds else Figures(metric, now) for metric in (*METRICS, _LAG)
        }
        self.takes = {
            kind: tuple([self._take(moves) for moves in row.moves]) for kind, row in ROWS.items() if row.moves
        }
        self.observe_lag: Callable[[float], object] = self._take(Observe(_LAG, float))
        self.names = names
        self.configure(names)

    def configure(self, names: Names) -> None:
        """Use other names, after a reload; what is counted under names that stay goes on."""
        self.names = names
        by_kind = {
            "listeners": names.listeners,
            "upstreams": names.upstreams,
            "routes": names.routes,
            "rules": (*names.rules[:MOST_RULES], OTHER),
            "oauth2": names.oauth2,
        }
        for figures in self._figures.values():
            figures.configure(by_kind)

    def _take(self, moves: Any) -> Callable[[Any], object]:
        return self._figures[moves.metric].taking(moves)
