"""Every query of dashboard, rules and alerts asks for series that the relay really has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.events import UpstreamConnected
from relay.observe.metrics import Gauges, Metrics
from relay.observe.tally import Names
from relay.queue.model import Ledger
from tests.monitoring.queries import Query, dashboard, every_query, rules

NAMES = Names(
    listeners=("legacy",),
    upstreams=("own", "vendor"),
    routes=("default", "session-codes"),
    rules=("a",),
    oauth2=("own",),
)
NEXT_YEAR = datetime(2027, 1, 1, tzinfo=UTC)
OF_PROMETHEUS = {"job", "instance"}
OPEN = {"listener", "upstream", "rule", *OF_PROMETHEUS}  # their values are names that the administrator chooses

Labels = dict[str, set[str]]


def exposed() -> dict[str, Labels]:
    """What a relay exposes: name of the series → labels → their values."""
    metrics = Metrics(NAMES, version="0", sqlite="3")
    metrics.gauges = Gauges(
        ledger=lambda: asdict(Ledger()),
        sessions=lambda: {"legacy": 1},
        connections=lambda: {"own": (1, 2)},
        up=lambda: {"own": True},
        disk_free=lambda: 1,
        verdicts=lambda: {"own": 2},
        tokens=lambda: {"own": NEXT_YEAR},
        credentials=lambda: {"own": NEXT_YEAR},
    )
    for upstream in NAMES.upstreams:
        metrics.observe(UpstreamConnected(upstream, NEXT_YEAR))
    body, _ = metrics.exposition("", ({}, {}, 1))
    series: dict[str, Labels] = {"up": {}}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = series.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return series | {rule["record"]: {} for rule in rules("rules.yml")}


EXPOSED = exposed()
QUERIES = every_query()


def is_there(matcher: tuple[str, str, str], labels: Labels) -> bool:
    """Whether the matcher names a label that there is, and only values that it can have."""
    label, operator, value = matcher
    if label not in labels.keys() | OF_PROMETHEUS:
        return False
    if label in OPEN or "$" in value:
        return True
    wanted = value.split("|") if "~" in operator else [value]
    return all(any(re.fullmatch(one, known) for known in labels[label]) for one in wanted)


def complaints(query: Query) -> list[str]:
    found = []
    selected: set[str] = set()
    for name, matchers in query.selectors():
        if name not in EXPOSED:
            found.append(f"{name}: there is no such metric")
            continue
        selected |= EXPOSED[name].keys()
        found += [f"{name}: {''.join(each)}" for each in matchers if not is_there(each, EXPOSED[name])]
    labels = selected | OF_PROMETHEUS
    found += [f"{label}: not a label of what it selects" for label in query.groupings() - {""} - labels]
    aggregated = re.match(r"(60 \* )?(sum|min|max|histogram_quantile)\b", query.expr)
    return found + [
        f"{{{{{label}}}}}: not a label of the result"
        for label in query.shown()
        if label not in (query.groupings() if aggregated else labels)
    ]


def test_there_are_queries_to_look_at() -> None:
    places = {query.where.partition(":")[0] for query in QUERIES}
    assert places == {"dashboard", "rules.yml", "alerts.yml"}
    assert all(query.selectors() for query in QUERIES)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.where)
def test_a_query_asks_for_series_that_the_relay_has(query: Query) -> None:
    assert complaints(query) == []


@pytest.mark.parametrize(
    ("expr", "legend"),
    [
        ("relay_smtpd_mesages_total", ""),
        ("relay_accept_seconds_bucket", ""),
        ("process_open_files", ""),
        ("relay:accept:increase2h", ""),
        ('relay_outcomes_total{outcome="bounced"}', ""),
        ('relay_outcomes_total{outcome=~"delivered|bounced"}', ""),
        ('relay_outcomes_total{route="default"}', ""),
        ('relay_delivery_delay_seconds_bucket{le="30"}', ""),
        ('relay_expired_total{route="codes"}', ""),
        ("sum by (route) (relay_outcomes_total)", ""),
        ("sum by (upstream) (relay_outcomes_total)", "{{outcome}}"),
    ],
)
def test_a_query_that_asks_for_something_else_is_found(expr: str, legend: str) -> None:
    assert complaints(Query("", expr, legend)) != []


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    recorded = [{"record": f"query:{number}", "expr": query.promql()} for number, query in enumerate(QUERIES)]
    # JSON is YAML as well.
    (tmp_path / "queries.yml").write_text(json.dumps({"groups": [{"name": "all", "rules": recorded}]}))
    checked = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "queries.yml"], capture_output=True, text=True, timeout=60
    )
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout + checked.stderr


# The dashboard as Grafana reads it


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dashboard()["panels"]
    return found


def test_the_dashboard_is_for_any_data_source_job_and_instance() -> None:
    board = dashboard()
    assert board["schemaVersion"] >= 39
    variables = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}
    assert variables == {"datasource": "datasource", "job": "query", "instance": "query", "vendor": "textbox"}
    asked = [part for panel in panels() if panel["type"] != "row" for part in (panel, *panel["targets"])]
    assert {part["datasource"]["uid"] for part in asked} == {"${datasource}"}
    for query in QUERIES:
        if query.where.startswith("dashboard"):
            for name, matchers in query.selectors():
                assert {("job", "=~", "$job"), ("instance", "=~", "$instance")} <= set(matchers), (query, name)


def test_the_dashboard_has_its_five_rows_and_each_panel_says_what_it_shows() -> None:
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert rows == ["Now", "Intake", "Delivery", "Session codes", "Health"]
    for panel in panels():
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["description"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["targets"]


def test_no_panel_lies_on_another_and_rows_can_be_folded() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    taken: set[tuple[int, int]] = set()
    top = -1
    for panel in panels():
        place = panel["gridPos"]
        fields = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not fields & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] == "row":
            top = place["y"]
            assert all(y < top for _, y in taken), panel["title"]
        assert place["y"] >= top, f"{panel['title']} does not stand below its row"
        taken |= fields
