"""The example and the JSON schema are held against the model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relay.config import model, schema, upstreams
from relay.config.explain import _sections
from relay.config.load import load, parse
from relay.config.section import Section

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.yaml"


def keys(section: type[Section], path: str = "") -> Iterator[tuple[str, str]]:
    """All keys of the model with their sentence; names and indexes are left out."""
    for name, field in section.model_fields.items():
        key = f"{path}.{field.alias or name}".strip(".")
        assert field.description, f"{key} has no sentence"
        yield key, field.description
        for below in _sections(field.annotation):
            yield from keys(below, key)


def test_the_example_loads_and_names_its_schema() -> None:
    assert EXAMPLE.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=./config.schema.json\n")
    load(EXAMPLE)


def complete() -> str:
    """The example with everything that is commented out."""
    return re.sub(r"(?m)^( *)#(?=[a-z-])", r"\1", EXAMPLE.read_text(encoding="utf-8"))


def test_the_example_loads_with_all_that_is_commented_out() -> None:
    parse(complete())


def test_every_key_of_the_model_is_in_the_example_with_its_sentence() -> None:
    lines = complete().splitlines()
    shown = set()
    stack: list[tuple[int, str]] = []
    for line in lines:
        found = re.match(r"( *(?:- )?)([a-z0-9_-]+):", line)
        if found is None:
            continue
        stack = [(indent, key) for indent, key in stack if indent < len(found[1])]
        stack.append((len(found[1]), found[2]))
        names = [key for n, (_, key) in enumerate(stack) if not (n == 1 and stack[0][1] in ("upstreams", "routes"))]
        shown.add((".".join(names), line.partition(" # ")[2]))
    assert set(keys(model.Config)) - shown == set()


def test_the_defaults_in_the_example_are_those_of_the_model() -> None:
    least = parse("hostname: relay.example.nl\nupstreams:\n  own: {host: smtp.example.nl}\n")
    example = load(EXAMPLE)
    assert example.listeners[0] == least.listeners[0]
    assert example.routes["default"] == least.routes["default"]
    for name in ("session_codes", "log"):
        assert getattr(example, name) == getattr(least, name)
    assert example.admin.listen == least.admin.listen
    assert example.queue.min_free == least.queue.min_free
    ours, theirs = (config.upstreams["own"] for config in (example, least))
    differing = {key for key in upstreams.SmtpUpstream.model_fields if getattr(ours, key) != getattr(theirs, key)}
    assert differing == {"username", "password", "auth"}


def test_the_shipped_schema_is_that_of_the_model() -> None:
    shipped = (ROOT / "config.schema.json").read_text(encoding="utf-8")
    assert shipped == schema.text(), "write it anew: relay schema > config.schema.json"


def test_every_key_in_the_schema_has_a_sentence_and_defaults_as_people_write_them() -> None:
    made = schema.schema()

    def described(part: Any) -> None:
        for key, value in part.get("properties", {}).items():
            assert "description" in value or "$ref" in value, key
        for below in part.get("$defs", {}).values():
            described(below)

    described(made)
    assert made["required"] == ["upstreams"]
    assert made["$defs"]["Timeouts"]["properties"]["connect"]["default"] == "15s"
    assert made["$defs"]["SmtpListener"]["properties"]["listen"]["default"] == ["127.0.0.1:25", "[::1]:25"]
    pattern = re.compile(made["$defs"]["Timeouts"]["properties"]["connect"]["pattern"])
    matching = [text for text in ("90s", "1h30m", "5", "", "5 m") if pattern.search(text)]
    assert matching == ["90s", "1h30m"]
