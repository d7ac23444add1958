"""Alerts and recording rules: Prometheus takes them, an alert fires when it should and is silent when all is well."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.queries import FOLDER, RULE_FILES, alerts

PAGE = FOLDER.parent / "docs" / "monitoring.md"
# Hours of what the promise about accepting shows already.
LIKE_THOSE_BEFORE = (
    "One session code in twenty expires, for hours",
    "One session code in a hundred is late, for hours",
    "One mail in ten expires, for hours",
    "One mail in fifty is late, for hours",
)
TEST_FILES = ("alerts_test.yml", "alerts_days_test.yml")

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def promtool(*arguments: str) -> str:
    """What it says; it must be content."""
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def every_test() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each test of the two files, with the file that it stands in."""
    documents = [yaml.safe_load((FOLDER / file).read_text(encoding="utf-8")) for file in TEST_FILES]
    return [(document, test) for document in documents for test in document["tests"]]


def every_case() -> list[dict[str, Any]]:
    return [case for _, test in every_test() for case in test["alert_rule_test"]]


@needs_promtool
def test_prometheus_takes_the_rules_and_the_configuration() -> None:
    assert "FAILED" not in promtool("check", "rules", *RULE_FILES)
    assert "FAILED" not in promtool("check", "config", "prometheus.yml")


@needs_promtool
@pytest.mark.parametrize(
    ("document", "test"),
    [
        pytest.param(*each, id=name, marks=[pytest.mark.repetition] if name in LIKE_THOSE_BEFORE else [])
        for each in every_test()
        if (name := each[1]["name"])
    ],
)
def test_alerts_fire_when_something_is_wrong_and_only_then(
    document: dict[str, Any], test: dict[str, Any], tmp_path: Path
) -> None:
    alone = document | {"rule_files": [str(FOLDER / file) for file in document["rule_files"]], "tests": [test]}
    # JSON is YAML as well.
    (tmp_path / "test.yml").write_text(json.dumps(alone))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "test.yml"))


@needs_promtool
@pytest.mark.repetition
@pytest.mark.parametrize("file", TEST_FILES)
def test_promtool_takes_the_tests_as_they_are_written(file: str) -> None:
    assert "SUCCESS" in promtool("test", "rules", file)


def test_each_alert_is_seen_to_fire_and_seen_to_be_silent() -> None:
    firing = {case["alertname"] for case in every_case() if case["exp_alerts"]}
    silent = {case["alertname"] for case in every_case() if not case["exp_alerts"]}
    assert firing == silent == alerts().keys()


def test_on_an_ordinary_day_no_alert_fires() -> None:
    first = yaml.safe_load((FOLDER / TEST_FILES[0]).read_text(encoding="utf-8"))["tests"][0]
    assert first["name"] == "An ordinary day"
    assert {case["alertname"] for case in first["alert_rule_test"]} == alerts().keys()
    assert [case for case in first["alert_rule_test"] if case["exp_alerts"]] == []


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_whom_it_wakes_what_is_wrong_and_what_to_do(name: str) -> None:
    alert = alerts()[name]
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"].keys() == {"summary", "action"}


def test_every_alert_has_its_line_on_the_page_with_its_severity() -> None:
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `Relay")]
    written = {row[1].strip(" `"): row[2].strip() for row in rows}
    assert written == {name: alert["labels"]["severity"] for name, alert in alerts().items()}


def test_the_page_names_every_file_of_the_folder() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [path.name for path in Path(FOLDER).iterdir() if path.name not in text] == []
