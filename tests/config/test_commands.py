"""`relay check`, `relay schema` and `relay hash` as they are typed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from relay.cli.check import check
from relay.cli.explain import explain
from relay.cli.hash import hash_
from relay.cli.schema import schema
from relay.config import password

app = typer.Typer()
app.command()(check)
app.command()(schema)
app.command()(explain)
app.command("hash")(hash_)

GOOD = "hostname: relay.example.nl\nupstreams:\n  own: {host: smtp.example.nl}\n"


def run(*arguments: str, text: str | None = None, **environment: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments, input=text, env=environment)
    assert "Traceback" not in result.output
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(GOOD)
    return file


def test_a_good_file_is_good(file: Path) -> None:
    assert run("check", "-c", str(file)) == (0, f"{file}: good\n", "")
    assert run("check", RELAY_CONFIG=str(file)) == (0, f"{file}: good\n", "")


def test_all_errors_are_told_at_once_and_the_exit_code_is_1(file: Path) -> None:
    file.write_text("upstreams:\n  own: {hots: smtp.example.nl}\nlog: {level: loud}\n")
    code, out, _ = run("check", "--config", str(file))
    assert code == 1
    assert out.splitlines() == [
        f'{file}:2: upstreams.own.hots: unknown key (did you mean "host"?)',
        f"{file}:3: log.level: must be debug, info, warning or error",
        f"{file}: bad, 2 errors",
    ]


def test_warnings_leave_a_file_good(file: Path) -> None:
    file.write_text(GOOD.replace("nl}", "nl, username: u, password: geheim}").replace("relay.", "", 1))
    code, out, _ = run("check", "-c", str(file))
    assert code == 0
    assert [line.partition(" (")[0] for line in out.splitlines()] == [
        f"warning: {file}:3: upstreams.own.password: the password itself stands in the file",
        f"{file}: good, 1 warning",
    ]
    assert "geheim" not in out


def test_a_missing_password_file_is_an_error_and_a_missing_credential_a_warning(file: Path) -> None:
    file.write_text(GOOD.replace("nl}", "nl, username: u, password: {file: none}}"))
    assert run("check", "-c", str(file))[0] == 1
    file.write_text(GOOD.replace("nl}", "nl, username: u, password: {credential: none}}"))
    code, out, _ = run("check", "-c", str(file))
    assert (code, out.startswith("warning: ")) == (0, True)


def test_a_file_that_is_not_there_is_bad(tmp_path: Path) -> None:
    code, out, _ = run("check", "-c", str(tmp_path / "none"))
    assert code == 1
    assert "No such file or directory" in out


def test_json_is_one_document_with_a_version(file: Path) -> None:
    code, out, _ = run("check", "--json", "-c", str(file))
    assert (code, json.loads(out)) == (0, {"version": 1, "file": str(file), "good": True, "errors": [], "warnings": []})
    file.write_text("upstreams:\n  own: {}\n")
    code, out, _ = run("check", "--json", "-c", str(file))
    document = json.loads(out)
    assert (code, document["version"], document["good"]) == (1, 1, False)
    assert document["errors"] == [
        {"where": f"{file}:2: upstreams.own.host", "problem": "missing", "hint": "this key is required"}
    ]


def test_a_rule_that_holds_is_told_by_explain(file: Path) -> None:
    file.write_text(GOOD + "senders:\n  - {name: wait, match: {from: jan@example.nl}, hold: true}\n")
    who = ("explain", "-c", str(file), "--to", "piet@example.org", "--from")
    held = "  hold          held for a person by rule wait, until it is released"
    assert held in run(*who, "jan@example.nl")[1].splitlines()
    assert "hold" not in run(*who, "piet@example.nl")[1]
    document = json.loads(run(*who, "jan@example.nl", "--json")[1])
    assert [(rule["name"], rule["spoke"], rule["hold"]) for rule in document["rules"]] == [("wait", True, True)]
    assert document["rewriting"]["result"] == "unchanged"


def test_what_a_rule_holds_is_explained_as_it_leaves_once_it_is_released(file: Path) -> None:
    rules = "  - {name: wait, match: {from: jan@example.nl}, hold: true}\n  - {name: all, address: info@example.nl}\n"
    file.write_text(f"{GOOD}senders:\n{rules}")
    who = ("explain", "-c", str(file), "--to", "piet@example.org", "--from", "jan@example.nl")
    assert "becomes     jan <info@example.nl>" in run(*who)[1]
    document = json.loads(run(*who, "--json")[1])
    assert [(rule["name"], rule["spoke"], rule["hold"]) for rule in document["rules"]] == [
        ("wait", True, True),
        ("all", True, False),
    ]
    assert document["rewriting"]["result"] == "rewritten"


def test_the_schema_is_printed() -> None:
    code, out, _ = run("schema")
    assert code == 0
    assert json.loads(out)["title"] == "Configuration of the relay"


def test_a_password_from_standard_input_becomes_its_hash() -> None:
    code, out, _ = run("hash", text="geheim\n")
    assert code == 0
    assert password.matches(out.strip(), "geheim")
    assert run("hash", text="")[0] == 1


def test_a_password_from_the_terminal_is_asked_for_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for second, good in (("geheim", True), ("gehiem", False)):
        answers = iter(["geheim", second])
        monkeypatch.setattr("sys.stdin", Terminal())
        monkeypatch.setattr("getpass.getpass", lambda prompt, answers=answers: next(answers))
        if good:
            hash_()
            assert password.matches(capsys.readouterr().out.strip(), "geheim")
        else:
            with pytest.raises(typer.Exit) as caught:
                hash_()
            assert caught.value.exit_code == 1
