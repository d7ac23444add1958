"""Documents that cannot lie: what they name exists, and what they show works."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import typer
import yaml

from relay.cli.main import VERBS
from relay.config.load import load
from relay.observe import needs_a_person
from relay.observe.table import ROWS
from relay.transport.credentials import SIGNATURE, Credentials
from tests.kit.sentences import EN

ROOT = Path(__file__).parent.parent
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *PAGES]
GROUPS = {
    verb: {command.name or command.callback.__name__ for command in group.registered_commands if command.callback}
    for verb, place in VERBS.items()
    if isinstance(group := getattr(importlib.import_module(place.split(":")[0]), place.split(":")[1]), typer.Typer)
}
"""Verbs that have verbs of their own."""
WORDS = {row.word for row in ROWS.values()}
CAUSES = set(re.findall(r"^    ([a-z-]+)", needs_a_person.__doc__ or "", re.MULTILINE))

_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(text: str, language: str | None = None) -> list[str]:
    """What stands in fences, without the indentation of a list."""
    return [
        re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)
        for indent, marked, body in _FENCED.findall(text)
        if language in (None, marked)
    ]


def code(text: str) -> list[str]:
    """Lines in fences and spans of code."""
    spans = re.findall(r"`([^`\n]+)`", _FENCED.sub("", text))
    return [*spans, *(line for block in blocks(text) for line in block.splitlines())]


# What is named


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_and_link_that_a_document_names_exists(document: str) -> None:
    text = read(document)
    named = re.findall(r"`((?:relay|docs|systemd|monitoring|tests)/[\w./-]+)`", text)
    linked = [(ROOT / document).parent / link for link in re.findall(r"\]\(([\w./-]+)(?:#[\w-]*)?\)", text)]
    missing = [str(path) for path in [*(ROOT / name for name in named), *linked] if not path.exists()]
    assert missing == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, new = set(), {ROOT / "README.md"}
    while new:
        reached |= new
        found = {
            (page.parent / link).resolve()
            for page in new
            for link in re.findall(r"\]\(([\w./-]+\.md|docs/decisions)\)", page.read_text(encoding="utf-8"))
        }
        folders = {page for folder in found if folder.is_dir() for page in folder.glob("*.md")}
        new = (found | folders) - reached - {ROOT / "docs" / "decisions"}
    assert {ROOT / page for page in PAGES} - reached == set()


def test_every_name_in_the_walk_stands_in_the_code() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "relay").rglob("*.py"))
    names = re.findall(r"`([A-Za-z_]+(?:\.[a-z_]+)?)`", read("docs/walk.md"))
    assert len(names) > 20
    missing = [name for name in names if re.search(rf"\b{name.rpartition('.')[2]}\b", source) is None]
    assert missing == []


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `relay VERB …` in code."""
    for line in code(text):
        for part in re.split(r"&&|[;?]|(?:^|\s)#", line):
            # As a shell has it, or as the value of a setting that runs it.
            if call := re.match(r'(?:[\w\[\]]+ ?= ?"?)?(?:/\S*/)?relay +([a-z].*)', part.strip()):
                yield [word.rstrip('.,:)"') for word in call[1].split()]


def strange(words: list[str]) -> bool:
    """Whether there is no such command."""
    verb, *rest = words
    if verb not in VERBS:
        return True
    # A verb of a group may stand alone, or several with strokes between them, as in a list of them.
    return verb in GROUPS and bool(rest) and rest[0][0].islower() and not set(rest[0].split("|")) <= GROUPS[verb]


@pytest.mark.parametrize("document", [*DOCUMENTS, "config.example.yaml", "monitoring/alerts.yml"])
def test_every_command_that_a_document_names_exists(document: str) -> None:
    text = read(document)
    if document.endswith(".yml"):
        text = "\n".join(f"`{line}`" for line in re.findall(r'action: "(.*)"', text))
    assert [words for words in commands(text) if strange(words)] == []


def test_commands_are_found_where_they_stand() -> None:
    text = "Do `relay reloat` or `systemctl restart relay`.\n```\nx && relay queue drop ID   # the relay forever\n```\n"
    assert [words for words in commands(text) if strange(words)] == [["reloat"], ["queue", "drop", "ID"]]
    found = [words for document in DOCUMENTS for words in commands(read(document))]
    assert len(found) > 50
    assert {words[0] for words in found} > {"check", "status", "queue", "explain", "reload", "clients"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_option_of_a_command_that_a_document_names_exists(document: str) -> None:
    for verb, *rest in commands(read(document)):
        if verb == "sendmail":
            continue  # its options are those of sendmail
        words = [verb, *rest[: verb in GROUPS]]
        for option in (word for word in rest if word.startswith("--")):
            assert option in options(words), (words, option)


def options(words: list[str]) -> set[str]:
    """The long options of a command, from typer's own parser."""
    module, function = VERBS[words[0]].split(":")
    command = getattr(importlib.import_module(module), function)
    if isinstance(command, typer.Typer):
        group = typer.main.get_group(command)
        made = group.commands[words[1]] if words[1:] and words[1] in group.commands else group
    else:
        app = typer.Typer()
        app.command()(command)
        made = typer.main.get_command(app)
    return {"--help", *(name for parameter in made.params for name in parameter.opts)}


def test_every_verb_stands_in_the_readme_or_a_page() -> None:
    found = {words[0] for document in DOCUMENTS for words in commands(read(document))}
    assert found == VERBS.keys()


# What is shown


def samples() -> list[tuple[str, str]]:
    return [(document, block) for document in DOCUMENTS for block in blocks(read(document), "yaml")]


@pytest.mark.parametrize(
    ("document", "sample"), samples(), ids=[f"{document}-{number}" for number, (document, _) in enumerate(samples())]
)
def test_every_configuration_that_a_document_shows_is_a_good_one(document: str, sample: str, tmp_path: Path) -> None:
    keys = yaml.safe_load(sample).keys()
    if "upstreams" not in keys:
        sample += "\nupstreams:\n  own: {host: smtp.example.nl}\n"
    if "hostname" not in keys:
        sample += "\nhostname: relay.example.nl\n"
    (tmp_path / "config.yaml").write_text(sample, encoding="utf-8")
    load(tmp_path / "config.yaml")


def test_the_configuration_in_the_readme_is_as_the_text_says(tmp_path: Path) -> None:
    first = blocks(read("README.md"), "yaml")[0]
    (tmp_path / "config.yaml").write_text(first, encoding="utf-8")
    assert [rule.keep for rule in load(tmp_path / "config.yaml").senders] == [True, False]
    assert len(first.splitlines()) <= 10


# What is seen in trouble


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_log_line_that_a_document_names_exists(document: str) -> None:
    cells = [cell for line in read(document).splitlines() for cell in line.split("|") if "log: `" in cell]
    told = [re.sub(r"stage `\w+`", "", cell.partition("log: ")[2]) for cell in cells]
    named = [word for cell in told for word in re.findall(r"`([a-z_]+)`", cell)]
    lines = re.findall(r"\b[Ll]ines? `([a-z_]+)`", read(document))
    assert set(named + lines) - WORDS == set()


def test_the_causes_of_troubles_are_those_of_the_code() -> None:
    assert len(CAUSES) > 10
    assert EN["trouble"].keys() >= CAUSES


def test_every_cause_that_relay_status_can_tell_is_explained_and_no_other() -> None:
    rows = [line.split(" | ") for line in read("docs/troubles.md").splitlines() if line.startswith("| ")]
    named = {word for row in rows for word in re.findall(r"`([a-z]+(?:-[a-z]+)*)`", row[0])}
    log_lines = {word for row in rows for word in re.findall(r"log: `(\w+)`", row[0])}
    assert named - log_lines == CAUSES


def test_headings_do_not_jump_over_a_level() -> None:
    for document in DOCUMENTS:
        levels = [len(marks) for marks in re.findall(r"^(#+) ", _FENCED.sub("", read(document)), re.MULTILINE)]
        assert levels[0] == 1, document
        assert all(below <= above + 1 for above, below in pairwise(levels)), document


def test_the_signed_request_that_the_vendors_see_is_signed_as_the_relay_signs() -> None:
    page = read("docs/vendor-endpoint.md")
    found = re.search(
        r"^POST .*?Content-Length: (\d+)\n.*?Timestamp: (\d+)\n.*?: sha256=(\w+)\n\n(.*?)\n```", page, re.S | re.M
    )
    assert found is not None
    body = found[4].encode()
    signed = Credentials("hmac-sha256", "not-a-secret").fields(int(found[2]), [body])
    assert (len(body), f"sha256={found[3]}") == (int(found[1]), signed[SIGNATURE])


def test_every_bound_is_shown_by_a_test_that_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", read("docs/bounds.md")))
    there = {
        name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert named
    assert named <= there
