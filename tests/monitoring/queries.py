"""All queries of dashboard, rules and alerts, and the series that they select, read without a parser of PromQL."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "monitoring"
RULE_FILES = ("rules.yml", "alerts.yml")

_NAME = r"\b(?:relay_\w+|process_\w+|up|relay:[\w:]+)\b"
_SELECTOR = re.compile(rf"({_NAME})(?:\{{([^}}]*)\}})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
# Grafana's own variables, as it replaces them before it asks.
_VARIABLES = {"$__rate_interval": "5m", "$__range": "6h"}


@dataclass(frozen=True)
class Query:
    """`legend` is the template of a panel's legend."""

    where: str
    expr: str
    legend: str = ""

    def promql(self) -> str:
        text = self.expr
        for variable, value in _VARIABLES.items():
            text = text.replace(variable, value)
        return text

    def selectors(self) -> list[tuple[str, list[tuple[str, str, str]]]]:
        """Names with their matchers: label, operator, value."""
        found = _SELECTOR.findall(_GROUPING.sub("", self.expr))
        return [(name, _MATCHER.findall(matchers)) for name, matchers in found]

    def groupings(self) -> set[str]:
        """The labels by which it aggregates or joins."""
        return {label.strip() for labels in _GROUPING.findall(self.expr) for label in labels.split(",")}

    def shown(self) -> set[str]:
        """The labels of the legend."""
        return set(re.findall(r"\{\{\s*(\w+)\s*\}\}", self.legend))


def rules(file: str) -> list[dict[str, Any]]:
    """The rules of all groups in `file`."""
    document = yaml.safe_load((FOLDER / file).read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules("alerts.yml")}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    return found


def _of_dashboard(part: Any, where: str) -> Iterator[Query]:
    if isinstance(part, dict):
        where = part.get("title") or part.get("name") or where
        if "expr" in part:
            yield Query(f"dashboard: {where}", part["expr"], part.get("legendFormat") or part.get("textFormat", ""))
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from _of_dashboard(each, where)


def every_query() -> list[Query]:
    found = [
        Query(f"{file}: {rule.get('alert') or rule['record']}", rule["expr"])
        for file in RULE_FILES
        for rule in rules(file)
    ]
    return found + list(_of_dashboard(dashboard(), ""))
