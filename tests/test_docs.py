"""Documents that cannot lie: what they name exists, and what they show works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relay.config.load import load

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/walk.md")


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_and_link_that_a_document_names_exists(document: str) -> None:
    text = read(document)
    named = re.findall(r"`((?:relay|docs|systemd)/[\w./-]+)`", text)
    linked = [(ROOT / document).parent / link for link in re.findall(r"\]\(([\w./-]+)\)", text)]
    missing = [str(path) for path in [*(ROOT / name for name in named), *linked] if not path.exists()]
    assert missing == []


def test_every_name_in_the_walk_stands_in_the_code() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "relay").rglob("*.py"))
    names = re.findall(r"`([A-Za-z_]+(?:\.[a-z_]+)?)`", read("docs/walk.md"))
    assert len(names) > 20
    missing = [name for name in names if re.search(rf"\b{name.rpartition('.')[2]}\b", source) is None]
    assert missing == []


def test_the_configuration_in_the_readme_is_a_good_one(tmp_path: Path) -> None:
    first, *others = re.findall(r"```yaml\n(.*?)```", read("README.md"), re.DOTALL)
    (tmp_path / "config.yaml").write_text(first, encoding="utf-8")
    config = load(tmp_path / "config.yaml")
    assert [rule.keep for rule in config.senders] == [True, False]
    upstreams = "upstreams:\n  own: {host: smtp.example.nl}\n"
    for number, text in enumerate(others):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text + upstreams, encoding="utf-8")
        load(path)


def test_every_log_event_in_the_troubles_exists() -> None:
    events = set(re.findall(r"\| `(\w+)` \|", read("docs/events.md")))
    named = re.findall(r"^\| log: `(\w+)`", read("README.md"), re.MULTILINE)
    assert named
    assert set(named) <= events
