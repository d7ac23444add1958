"""Both languages say the same, all of it is said somewhere, and nothing is said that is not there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.texts.language import texts_in
from tests.kit.sentences import EN, NL, Tables, braces

SOURCES = {
    path: ast.parse(path.read_text("utf-8"))
    for path in sorted((Path(__file__).parents[2] / "relay").rglob("*.py"))
    if "texts" not in path.parts
}
LITERALS = {
    node.value
    for tree in SOURCES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
}
KEYS = {f"{table}.{name}" for table, sentences in EN.items() for name in sentences}
_KEY = re.compile(rf"(?:{'|'.join(EN)})\.[a-z0-9-]*")


def _titles() -> Iterator[str]:
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Column":
                yield ast.literal_eval(node.args[0])


HEADINGS = {f"heading.{title.lower().replace(' ', '-')}" for title in _titles()}


def _keys(tables: Tables) -> set[str]:
    return {f"{table}.{name}" for table, sentences in tables.items() for name in sentences}


def _made() -> Iterator[tuple[str, str]]:
    """The keys that are put together where they are said, as "bounce.title-" and ""."""
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                first, last = node.values[0].value, node.values[-1]
                if _KEY.fullmatch(first):
                    yield first, last.value if isinstance(last, ast.Constant) else ""


MADE = set(_made())


def test_both_languages_have_the_same_keys() -> None:
    assert _keys(EN) == _keys(NL)
    assert [(table, [*names]) for table, names in EN.items()] == [(table, [*names]) for table, names in NL.items()]


@pytest.mark.parametrize("table", EN)
def test_both_languages_have_the_same_values_in_their_braces(table: str) -> None:
    for name, english in EN[table].items():
        assert braces(english) == braces(NL[table][name]), name


def test_every_sentence_that_is_said_is_there() -> None:
    assert HEADINGS <= KEYS
    said = {word for word in LITERALS if _KEY.fullmatch(word) and not word.endswith((".", "-"))}
    assert said - {"queue.store"} <= KEYS  # that one is a key of the configuration


def test_every_sentence_that_is_there_is_said() -> None:
    said = {key for key in KEYS if key in LITERALS or key.removesuffix("s") in LITERALS}  # cli.human.counted: one, many
    for key in KEYS - said - HEADINGS:
        ways = [(start, end) for start, end in MADE if key.startswith(start) and key.endswith(end)]
        assert any(_is_a_word(key[len(start) : len(key) - len(end)]) for start, end in ways), key


def test_every_sentence_gets_the_values_that_are_in_its_braces() -> None:
    for path, tree in SOURCES.items():
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant):
                key, given = call.args[0].value, {each.arg for each in call.keywords}
                if key in KEYS and None not in given:
                    table, _, name = key.partition(".")
                    assert braces(EN[table][name]) == given, f"{path.name}: {key}"


def test_a_language_is_read_once() -> None:
    assert texts_in("en") is texts_in("en")


def test_no_language_is_read_while_the_relay_is_imported() -> None:
    told = "import sys, relay.daemon.house; sys.exit('tomllib' in sys.modules)"
    subprocess.run([sys.executable, "-c", told], check=True)


def _is_a_word(made: str) -> bool:
    """Whether the code knows it (a remedy, a class of refusal), or puts it together itself (f"{kind}-ended")."""
    return made in LITERALS or any(pattern.fullmatch(made) for pattern in _PATTERNS)


def _patterns() -> Iterator[re.Pattern[str]]:
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "" for part in node.values]
                if re.fullmatch(r"[a-z]{3,}-|-[a-z]{3,}", "".join(parts)):
                    yield re.compile("".join(part or "[a-z]+(?:-[a-z]+)*" for part in parts))


_PATTERNS = [*_patterns()]
