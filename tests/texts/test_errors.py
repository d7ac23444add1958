"""What is wrong is said in Dutch where the configuration asks for it, and nothing is translated that nobody says."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from relay.cli import language
from relay.cli.check import check, judge
from relay.config.load import parse
from relay.errors import BadConfig
from relay.texts import errors

ROOT = Path(__file__).parents[2]
BAD = sorted((ROOT / "tests" / "config" / "bad").iterdir())
LINES = tomllib.loads(Path(errors.__file__).with_name("errors.nl.toml").read_text("utf-8"))
OF_RE2 = {"missing )", "missing ]", "unexpected )", "invalid perl operator", "no argument for repetition operator"}
OF_RE2 |= {"invalid character class", "trailing \\"}


@pytest.fixture(autouse=True)
def _english_again() -> Iterator[None]:
    yield
    language.choose("en")


def _constants() -> Iterator[str]:
    for path in (ROOT / "relay").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _values(sentence: str) -> set[str]:
    return set(re.findall(r"<[a-z]+>", sentence))


@pytest.mark.parametrize("folder", BAD, ids=lambda folder: folder.name)
def test_every_mistake_is_said_in_dutch(folder: Path) -> None:
    with pytest.raises(BadConfig) as caught:
        parse((folder / "config.yaml").read_text("utf-8"))
    for problem in caught.value.problems:
        assert errors.in_dutch(problem.problem) != problem.problem
        assert not problem.hint or errors.in_dutch(problem.hint) != problem.hint


def test_what_is_translated_is_said_somewhere() -> None:
    said = "\n".join(_constants())
    for english in LINES.keys() - OF_RE2:
        for part in re.split(r"<[a-z]+>|; or |: ", english):  # where sentences are put together
            assert part.strip(' ()"') in said or part in said, english


def test_both_languages_name_the_same_values() -> None:
    for english, dutch in LINES.items():
        assert _values(dutch) <= _values(english), english


def test_a_value_is_translated_where_it_is_a_sentence_and_left_alone_where_it_is_none() -> None:
    assert errors.in_dutch('no upstream named "owm"') == 'geen upstream met de naam "owm"'
    assert errors.in_dutch("better: a hash made by relay hash") == "beter: een hash gemaakt met relay hash"
    assert errors.in_dutch("nobody has translated this") == "nobody has translated this"


def test_check_follows_the_language_of_a_bad_file_and_its_json_is_english(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("language: nl\nupstreams: {own: {host: mail.example.nl}}\nroutes: {default: {upstreams: [owm]}}\n")
    app = typer.Typer()
    app.command()(check)
    told = CliRunner().invoke(app, ["-c", str(file)])
    assert told.exit_code == 1
    first = f'{file}:3: routes.default.upstreams: geen upstream met de naam "owm" (bedoelde u "own"?)'
    assert told.stdout.splitlines()[0] == first
    assert told.stdout.splitlines()[-1] == f"{file}: niet goed, 1 fout"
    [error] = json.loads(CliRunner().invoke(app, ["-c", str(file), "--json"]).stdout)["errors"]
    assert (error["problem"], error["hint"]) == ('no upstream named "owm"', 'did you mean "own"?')
    assert judge(file)[0][0].problem == 'no upstream named "owm"'


@pytest.mark.parametrize(
    "written",
    ["language: nl", "\ufefflanguage: 'nl'", '{"hostname": "x", "language": "nl"}', "a: [\nlanguage:  nl # x"],
)
def test_the_language_of_a_file_is_seen_however_it_is_written(tmp_path: Path, written: str) -> None:
    (tmp_path / "config.yaml").write_text(written, "utf-8")
    language.choose_of(tmp_path / "config.yaml")
    assert language.say("status.well") == "alles in orde"


def test_a_file_that_asks_for_no_language_is_told_in_english(tmp_path: Path) -> None:
    language.choose("nl")
    (tmp_path / "config.yaml").write_text("upstreams: {}\n")
    language.choose_of(tmp_path / "config.yaml")
    assert language.say("status.well") == "all is well"
