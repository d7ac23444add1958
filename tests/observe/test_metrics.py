"""Metrics: names and labels of the contract, all combinations from 0, bounded, and the ledger's equation."""

from __future__ import annotations

import random
import shutil
import subprocess
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from relay import events
from relay.mail.outcome import Stage, Trouble
from relay.mail.quirk import Quirk
from relay.observe.metrics import LEDGER_EVENTS, LEDGER_STATES, Gauges, Metrics, Queued
from relay.observe.table import ROWS
from relay.observe.tally import MOST_RULES, REPLY_CLASSES, REPLY_VERBS, Names
from relay.queue.model import Ledger
from tests.kit.ledger import balanced
from tests.observe.samples import DEFERRED, DELIVERED, ENDED, FAILED, QUEUED, SAMPLES

NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
NAMES = Names(
    listeners=("legacy",),
    upstreams=("own", "vendor"),
    routes=("default", "session-codes"),
    rules=("fallback",),
    oauth2=("own",),
)
HALF_PAST_SIX = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
WAITING: Queued = ({"default": 2}, {"default": HALF_PAST_SIX}, 8192)

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def gauges(ledger: Ledger | None = None) -> Gauges:
    return Gauges(
        ledger=lambda: asdict(ledger or Ledger()),
        sessions=lambda: {"legacy": 3},
        connections=lambda: {"own": (1, 2)},
        up=lambda: {"vendor": False},
        disk_free=lambda: 10**9,
        verdicts=lambda: {"own": 2},
        tokens=lambda: {"own": NOW},
        credentials=lambda: {"own": NOW},
    )


def metrics(names: Names = NAMES) -> Metrics:
    made = Metrics(names, version="0.1.0", sqlite="3.54.1", now=NOW.timestamp)
    made.gauges = gauges()
    return made


def series(made: Metrics, queued: Queued | None = WAITING) -> Series:
    """All series of ours: name and labels → value."""
    body, _ = made.exposition("", queued)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(body.decode())
        for sample in family.samples
        if family.name.startswith("relay_")
    }


def value(made: Metrics, name: str, **labels: str) -> float:
    return series(made)[name, tuple(sorted(labels.items()))]


def family(sample: str) -> str:
    for ending in ("_bucket", "_sum", "_count"):
        sample = sample.removesuffix(ending)
    return sample


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("names", [NAMES, Names()], ids=["configured", "bare"])
def test_promtool_has_nothing_to_complain_about(names: Names) -> None:
    body, _ = metrics(names).exposition("", WAITING)
    checked = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, timeout=60)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_who_asks_for_openmetrics_gets_openmetrics() -> None:
    body, content_type = metrics().exposition("application/openmetrics-text; version=1.0.0, text/plain;q=0.5", WAITING)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    families = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]
    assert {found.name for found in families} > {"relay_recipients", "relay_outcomes"}


def test_all_combinations_of_labels_start_at_0() -> None:
    found = series(metrics())
    for name, labels in (
        ("relay_attempt_failures_total", [("class", "dropped"), ("stage", "dot"), ("upstream", "vendor")]),
        ("relay_smtpd_messages_total", [("listener", "legacy"), ("result", "store_failed")]),
        ("relay_smtpd_connections_total", [("listener", "legacy"), ("result", "tls_error")]),
        ("relay_client_quirks_total", [("listener", "legacy"), ("quirk", "bare-lf")]),
        ("relay_rewrites_total", [("result", "repaired"), ("rule", "other")]),
        ("relay_outcomes_total", [("outcome", "in_doubt"), ("upstream", "own")]),
        ("relay_smtpd_auth_total", [("mechanism", "cram-md5"), ("result", "error")]),
        ("relay_smtpd_replies_total", [("code_class", "4"), ("verb", "STARTTLS")]),
        ("relay_recipients_total", [("event", "cancelled")]),
        ("relay_queue_errors_total", [("reason", "corrupt")]),
        ("relay_unhandled_exceptions_total", [("component", "observer")]),
        ("relay_delivery_delay_seconds_bucket", [("le", "0.01"), ("route", "session-codes")]),
        ("relay_notifications_total", [("kind", "suppressed")]),
        ("relay_loops_detected_total", []),
        ("relay_oauth_refresh_total", [("result", "error"), ("upstream", "own")]),
    ):
        assert found[name, tuple(labels)] == 0
    failures = [labels for name, labels in found if name == "relay_attempt_failures_total"]
    assert len(failures) == len(NAMES.upstreams) * len(Stage) * len(Trouble)
    quirks = [labels for name, labels in found if name == "relay_client_quirks_total"]
    assert len(quirks) == len(NAMES.listeners) * len(Quirk)
    counted = [number for (name, _), number in found.items() if name.endswith(("_total", "_bucket", "_sum", "_count"))]
    assert set(counted) == {0}
    assert not [name for name, _ in found if name.endswith("_created")]


def test_a_large_installation_stays_below_1500_series() -> None:
    names = Names(
        listeners=[f"l{number}" for number in range(3)],
        upstreams=[f"u{number}" for number in range(8)],
        routes=["default", "session-codes", "r1", "r2", "r3", "r4"],
        rules=[f"rule {number}" for number in range(100)],
        oauth2=[f"u{number}" for number in range(8)],
    )
    made = metrics(names)
    made.gauges = replace(gauges(), tokens=lambda: dict.fromkeys(names.oauth2, NOW))
    found = series(made)
    assert len(found) < 1500
    assert len({labels for name, labels in found if name == "relay_rewrites_total"}) == 3 * (MOST_RULES + 1)


def test_a_thousand_random_mails_make_no_new_series() -> None:
    made = metrics()
    for sample in SAMPLES:
        made.observe(sample)
    before = series(made).keys()
    chance = random.Random(7)
    for number in range(1000):
        queue_id = f"Q{number}"
        made.observe(replace(QUEUED, queue_id=queue_id, client=f"192.0.2.{number % 256}", size=chance.randrange(10**8)))
        made.observe(replace(ENDED, queue_id=queue_id, stage=chance.choice(list(Stage)), trouble=Trouble.TRANSIENT))
        for outcome in (DELIVERED, DEFERRED, FAILED):
            made.observe(replace(outcome, queue_id=queue_id, recipient=f"r{number}@example.com", text=f"t{number}"))
    assert series(made).keys() == before


def test_a_name_outside_the_closed_sets_counts_as_other_and_makes_one_series() -> None:
    made = metrics()
    before = len(series(made))
    for number in range(50):
        made.observe(replace(DELIVERED, upstream=f"stranger{number}"))
        made.observe(events.SenderDecided("Q", f"stranger{number}", "rewritten", 1))
        made.observe(events.StoreFailed(f"strange {number}", ""))
    assert value(made, "relay_outcomes_total", upstream="other", outcome="delivered") == 50
    assert value(made, "relay_rewrites_total", rule="other", result="rewritten") == 50
    assert value(made, "relay_queue_errors_total", reason="other") == 50
    assert len(series(made)) == before + 1


def test_the_ledger_balances_in_every_scrape() -> None:
    ledger = Ledger(found=3, accepted=10, delivered=6, failed=1, expired=1, cancelled=1, pending=2, held=1, active=1)
    assert balanced(ledger)
    made = metrics()
    made.gauges = gauges(ledger)
    ended = [value(made, "relay_recipients_total", event=event) for event in LEDGER_EVENTS[2:]]
    waiting = [value(made, "relay_queue_recipients", state=state) for state in LEDGER_STATES]
    found, accepted = (value(made, "relay_recipients_total", event=event) for event in LEDGER_EVENTS[:2])
    assert found + accepted == sum(ended) + sum(waiting) == 13
    ledger.delivered += 2
    ledger.pending -= 2
    assert value(made, "relay_recipients_total", event="delivered") == 8


def test_gauges_tell_the_present() -> None:
    made = metrics()
    assert value(made, "relay_smtpd_sessions", listener="legacy") == 3
    assert value(made, "relay_upstream_up", upstream="own") == 1
    assert value(made, "relay_upstream_up", upstream="vendor") == 0
    assert value(made, "relay_upstream_connections", upstream="own", state="busy") == 2
    assert value(made, "relay_upstream_connections", upstream="vendor", state="idle") == 0
    assert value(made, "relay_queue_messages", route="default") == 2
    assert value(made, "relay_queue_oldest_age_seconds", route="default") == 1800
    assert value(made, "relay_queue_oldest_age_seconds", route="session-codes") == 0
    assert value(made, "relay_queue_bytes") == 8192
    assert value(made, "relay_disk_free_bytes") == 10**9
    assert value(made, "relay_sender_verdicts", upstream="own") == 2
    assert value(made, "relay_sender_verdicts", upstream="vendor") == 0
    assert value(made, "relay_oauth_token_expiry_timestamp_seconds", upstream="own") == NOW.timestamp()
    assert value(made, "relay_oauth_secret_expiry_timestamp_seconds", upstream="own") == NOW.timestamp()


def test_a_queue_that_cannot_be_read_is_absent_and_not_empty() -> None:
    names = {name for name, _ in series(metrics(), None)}
    assert "relay_queue_messages" not in names
    assert "relay_queue_oldest_age_seconds" not in names
    assert "relay_recipients_total" in names


def test_mail_that_waits_under_a_route_that_is_gone_is_not_out_of_sight() -> None:
    oldest = {"gone": datetime(2026, 11, 23, 6, tzinfo=UTC), "gone too": datetime(2026, 11, 23, 6, 59, tzinfo=UTC)}
    found = series(metrics(), ({"gone": 2, "gone too": 1}, oldest, 0))
    assert found["relay_queue_messages", (("route", "other"),)] == 3
    assert found["relay_queue_oldest_age_seconds", (("route", "other"),)] == 3600


def test_a_reload_keeps_what_was_counted_and_follows_the_names() -> None:
    made = metrics()
    made.observe(DELIVERED)
    made.observe(events.UpstreamConnected("own", NOW))
    made.configure(replace(NAMES, upstreams=("own", "graph")))
    assert value(made, "relay_outcomes_total", upstream="own", outcome="delivered") == 1
    assert value(made, "relay_outcomes_total", upstream="graph", outcome="delivered") == 0
    assert value(made, "relay_upstream_certificate_expiry_timestamp_seconds", upstream="own") == NOW.timestamp()
    assert not [labels for _, labels in series(made) if ("upstream", "vendor") in labels]


def test_replies_are_counted_through_the_shared_dictionary() -> None:
    made = metrics()
    assert len(made.replies) == len(REPLY_VERBS) * len(REPLY_CLASSES) == 52
    replies = made.replies
    replies["RCPT", 5] += 2
    made.configure(NAMES)
    assert value(made, "relay_smtpd_replies_total", verb="RCPT", code_class="5") == 2


def test_histograms_put_a_value_at_or_below_the_bound() -> None:
    made = metrics()
    made.observe(replace(DELIVERED, delay=30.0))
    made.observe(replace(DELIVERED, delay=30.5))
    made.observe(replace(DELIVERED, delay=200_000.0))
    bucket = "relay_delivery_delay_seconds_bucket"
    assert value(made, bucket, route="default", le="10.0") == 0
    assert value(made, bucket, route="default", le="30.0") == 1
    assert value(made, bucket, route="default", le="60.0") == 2
    assert value(made, bucket, route="default", le="+Inf") == 3
    assert value(made, "relay_delivery_delay_seconds_sum", route="default") == 200_060.5
    made.observe_lag(0.2)
    assert value(made, "relay_event_loop_lag_seconds_bucket", le="0.5") == 1


def test_an_outcome_in_doubt_is_counted_once() -> None:
    made = metrics()
    made.observe(DEFERRED)
    made.observe(replace(FAILED, in_doubt=True))
    assert value(made, "relay_outcomes_total", upstream="own", outcome="in_doubt") == 2
    assert value(made, "relay_outcomes_total", upstream="own", outcome="deferred") == 0
    assert value(made, "relay_outcomes_total", upstream="own", outcome="failed") == 0


def test_what_no_upstream_was_asked_about_is_no_outcome_of_one() -> None:
    made = metrics()
    before = series(made)
    made.observe(replace(DEFERRED, upstream="", in_doubt=False))
    made.observe(replace(FAILED, upstream="", stage=None, code=0))
    assert series(made) == before


def test_build_and_process_are_told() -> None:
    made = metrics()
    body, _ = made.exposition()
    assert b'relay_build_info{python="3.' in body
    assert b'sqlite="3.54.1",version="0.1.0"} 1.0' in body
    assert b"process_resident_memory_bytes " in body
    assert b"process_open_fds " in body


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_an_event_moves_the_metrics_that_the_reference_names(event: events.Event) -> None:
    ticks = iter((NOW.timestamp(), NOW.timestamp() + 60))
    made = Metrics(replace(NAMES, rules=()), version="0", now=lambda: next(ticks))
    before = series(made, None)
    made.observe(event)
    moved = {
        family(name) for (name, labels), number in series(made, None).items() if before.get((name, labels)) != number
    }
    assert moved == set(ROWS[type(event)].feeds)
