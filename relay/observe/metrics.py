"""What Prometheus sees: the tally and the gauges, in the exposition format.

Gauges are read at the moment of a scrape, through callables that the wiring registers. A scrape
is one step on the event loop, so the ledger's equation holds in every one of them:
found + accepted = delivered + failed + expired + cancelled + what is in the queue.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from relay.observe.counting import OTHER, Figures, Histograms
from relay.observe.tally import REPLY_CLASSES, REPLY_VERBS, Names, Tally

LEDGER_EVENTS = ("found", "accepted", "delivered", "failed", "expired", "cancelled")
LEDGER_STATES = ("pending", "deferred", "active", "held")


Queued = tuple[Mapping[str, int], Mapping[str, datetime], int]
"""The queue at one moment: messages and the oldest acceptance by route, octets in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """What is read at each scrape, quickly and without blocking.

    `ledger`: recipients by event and by state. `sessions`: open sessions by listener. `connections`: ours
    by upstream, (idle, busy). `up`: by upstream, False while it is set aside; who is missing is up.
    `disk_free`: octets on the queue's file system, None when unknown. `verdicts`: senders that are known to
    be refused, by upstream. `tokens`, `credentials`: by upstream, when its token ends, and when what that
    is had with.
    """

    ledger: Callable[[], Mapping[str, int]]
    sessions: Callable[[], Mapping[str, int]]
    connections: Callable[[], Mapping[str, tuple[int, int]]]
    up: Callable[[], Mapping[str, bool]]
    disk_free: Callable[[], int | None]
    verdicts: Callable[[], Mapping[str, int]]
    tokens: Callable[[], Mapping[str, datetime]]
    credentials: Callable[[], Mapping[str, datetime]]


_OPEN = "application/openmetrics-text"


class Metrics(Tally):
    """A tally that can be scraped. `gauges` is set by the wiring; until then they are left out."""

    def __init__(self, names: Names, *, version: str, sqlite: str = "", now: Callable[[], float] = time.time) -> None:
        super().__init__(names, now=now)
        self.gauges: Gauges | None = None
        self._build = (version, platform.python_version(), sqlite)
        self._queued: Queued | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(_Collector(self._families))

    def exposition(self, accept: str = "", queued: Queued | None = None) -> tuple[bytes, str]:
        """The metrics and their content type: OpenMetrics where the Accept header asks for it, else text.

        `queued`: as just read; None when it could not be read, then its gauges are left out.
        """
        # The library compares what stands behind it as a version, whatever it is.
        encode, content_type = choose_encoder(_OPEN if _OPEN in accept else "")
        self._queued = queued
        return encode(self._registry), content_type

    def _families(self) -> Iterator[Metric]:
        yield _gauge("relay_build_info", "1, with what runs.", ("version", "python", "sqlite"), {self._build: 1})
        yield from map(_family, self._figures.values())
        yield self._reply_counts()
        if self.gauges is not None:
            yield from self._current(self.gauges)
        if self._queued is not None:
            yield from self._queue(*self._queued)

    def _reply_counts(self) -> Metric:
        family = CounterMetricFamily("relay_smtpd_replies_total", "Replies to clients.", labels=("verb", "code_class"))
        for verb in REPLY_VERBS:
            for digit in REPLY_CLASSES:
                family.add_metric((verb, str(digit)), self.replies[verb, digit])
        return family

    def _current(self, gauges: Gauges) -> Iterator[Metric]:
        ledger = gauges.ledger()
        recipients = CounterMetricFamily(
            "relay_recipients_total", "The ledger: recipients that came in and went out.", labels=("event",)
        )
        for event in LEDGER_EVENTS:
            recipients.add_metric((event,), ledger[event])
        yield recipients
        yield _gauge(
            "relay_queue_recipients",
            "The ledger's other side: recipients in the queue.",
            ("state",),
            {(state,): ledger[state] for state in LEDGER_STATES},
        )
        sessions, up, connections = gauges.sessions(), gauges.up(), gauges.connections()
        yield _gauge(
            "relay_smtpd_sessions",
            "Open sessions.",
            ("listener",),
            {(name,): sessions.get(name, 0) for name in self.names.listeners},
        )
        yield _gauge(
            "relay_upstream_up",
            "1 unless the upstream is set aside.",
            ("upstream",),
            {(name,): int(up.get(name, True)) for name in self.names.upstreams},
        )
        yield _gauge(
            "relay_upstream_connections",
            "Our connections to the upstream.",
            ("upstream", "state"),
            {
                (name, state): count
                for name in self.names.upstreams
                for state, count in zip(("idle", "busy"), connections.get(name, (0, 0)), strict=True)
            },
        )
        verdicts = gauges.verdicts()
        yield _gauge(
            "relay_sender_verdicts",
            "Senders that the upstream is known to refuse.",
            ("upstream",),
            {(name,): verdicts.get(name, 0) for name in self.names.upstreams},
        )
        for name, meaning, ends in (
            ("relay_oauth_token_expiry_timestamp_seconds", "When the OAuth2 token ends.", gauges.tokens()),
            (
                "relay_oauth_secret_expiry_timestamp_seconds",
                "When the client secret or certificate of OAuth2 ends.",
                gauges.credentials(),
            ),
        ):
            yield _gauge(name, meaning, ("upstream",), {(each,): end.timestamp() for each, end in ends.items()})
        free = gauges.disk_free()
        if free is not None:
            yield _gauge("relay_disk_free_bytes", "Free on the queue's file system.", (), {(): free})

    def _queue(self, messages: Mapping[str, int], oldest: Mapping[str, datetime], octets: int) -> Iterator[Metric]:
        counts = dict.fromkeys(self.names.routes, 0)
        ages = dict.fromkeys(self.names.routes, 0.0)
        now = self._now()
        for route, count in messages.items():
            # Mail may still wait under a route that a reload took away, and must not be out of sight.
            name = route if route in self.names.routes else OTHER
            counts[name] = counts.get(name, 0) + count
        for route, since in oldest.items():
            name = route if route in self.names.routes else OTHER
            ages[name] = max(ages.get(name, 0.0), now - since.timestamp())
        yield _gauge("relay_queue_messages", "Messages in the queue.", ("route",), _by_one(counts))
        yield _gauge(
            "relay_queue_oldest_age_seconds", "Age of the oldest message in the queue.", ("route",), _by_one(ages)
        )
        yield _gauge("relay_queue_bytes", "Stored.", (), {(): octets})


class _Collector(Collector):
    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families()


def _by_one(values: Mapping[str, float]) -> Mapping[tuple[str, ...], float]:
    return {(name,): value for name, value in values.items()}


def _gauge(name: str, meaning: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _family(figures: Figures | Histograms) -> Metric:
    metric = figures.metric
    if isinstance(figures, Histograms):
        family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        for value, histogram in figures.histograms().items():
            key = (value,) if metric.labels else ()
            family.add_metric(key, list(histogram.cumulative()), histogram.total)
        return family
    if not metric.is_counter:
        return _gauge(metric.name, metric.meaning, metric.labels, figures.figures())
    counter = CounterMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, count in figures.figures().items():
        counter.add_metric(labels, count)
    return counter
