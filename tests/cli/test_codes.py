"""`relay codes learn` and `relay codes try`: what an admin types, and that no code is on the screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from relay.cli.codes import Learned, Letter, codes
from relay.config.load import load
from relay.errors import RelayError
from relay.policy.learn import propose
from tests.kit.extent import examples
from tests.policy.test_learn import view

CONFIG = """\
hostname: relay.example.nl
upstreams:
  own: {host: smtp.example.com}
  vendor: {host: smtp.vendor.example}
"""
CODES = ("482913", "118-204", "551200")


def letter(folder: Path, name: str, subject: str, *, to: str = "jan@example.nl", more: str = "") -> str:
    path = folder / f"{name}.eml"
    mailer = "X-Mailer: iMUIS Online 12.4\n"
    path.write_text(f"From: iMUIS <noreply@imuis.nl>\nTo: {to}\nSubject: {subject}\n{mailer}{more}\nDag.\n")
    return str(path)


@pytest.fixture
def samples(tmp_path: Path) -> list[str]:
    return [letter(tmp_path, f"Uw inlogcode is {code}", f"Uw inlogcode is {code}") for code in CODES]


@pytest.fixture
def ordinary(tmp_path: Path) -> list[str]:
    return [letter(tmp_path, "factuur", "Factuur 2024-117"), letter(tmp_path, "uren", "Uren", to="a@x.nl, b@x.nl")]


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(codes, list(arguments))
    assert not any(code in result.output for code in CODES)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def configured(folder: Path, text: str = "") -> str:
    (folder / "config.yaml").write_text(CONFIG + text)
    return str(folder / "config.yaml")


# learn


def test_a_proposal_can_be_put_into_the_configuration_and_catches_the_samples_alone(
    tmp_path: Path, samples: list[str], ordinary: list[str]
) -> None:
    result = run("learn", *samples, "--not", *ordinary)
    assert (result.exit_code, result.stderr) == (0, "")
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    assert yaml.safe_load(result.stdout)["session_codes"]["match"] == [
        {
            "from": "noreply@imuis.nl",
            "subject": r"/(?i)^Uw inlogcode is \d[\d. -]{1,12}\d$/",
            "header": {"X-Mailer": "iMUIS Online*"},
            "recipients": 1,
            "max_size": "16KiB",
        }
    ]
    config = configured(tmp_path, result.stdout)
    load(Path(config))
    assert run("try", *samples, "-c", config).exit_code == 0
    for file in ordinary:
        assert run("try", file, "-c", config).exit_code == 1


def test_each_condition_is_explained_and_the_proposal_is_verified(samples: list[str], ordinary: list[str]) -> None:
    said = " ".join(run("learn", *samples, "--not", *ordinary).stdout.replace("#", "").split())
    assert "What the subject says around the code; keeps out 2 of 2 ordinary mails." in said
    assert "A code is for one person; keeps out 1 of 2 ordinary mails." in said
    assert "it matches 3 of 3 samples and none of 2 ordinary mails." in said


def test_who_gives_no_ordinary_mail_is_told_that_none_was_looked_at(samples: list[str]) -> None:
    said = run("learn", samples[0]).stdout.replace("\n# ", " ")
    assert "give some with --not" in said
    assert "Broad: one sample only" in said


def test_what_cannot_be_told_apart_is_no_proposal(tmp_path: Path, samples: list[str]) -> None:
    twin = letter(tmp_path, "twin", "Uw inlogcode is 77341")
    result = run("learn", *samples, "--not", twin)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"relay: {twin}: cannot be told from the samples: it has all that they have in common\n"
    document = json.loads(run("learn", *samples, "--json", "--not", twin).stdout)
    assert (document["version"], document["good"], document["ordinary_matched"]) == (1, False, [twin])


def test_learn_as_json_has_the_entries_and_why(samples: list[str]) -> None:
    document = json.loads(run("learn", *samples, "--json").stdout)
    assert document["good"]
    assert list(document["match"][0]) == ["from", "subject", "header", "recipients", "max_size"]
    assert document["kinds"][0]["why"]["recipients"] == "a code is for one person"


@pytest.mark.parametrize(
    ("octets", "problem"),
    [
        (None, "No such file or directory"),
        (b"", "no message"),
        (b"\0\xff\n", "no message"),
        (b"Dag Jan\n", "no message"),
    ],
)
@pytest.mark.parametrize("verb", ["learn", "try"])
def test_what_is_no_message_is_refused_in_a_sentence(
    tmp_path: Path, verb: str, octets: bytes | None, problem: str
) -> None:
    file = tmp_path / "x.eml"
    if octets is not None:
        file.write_bytes(octets)
    more = ["-c", configured(tmp_path)] if verb == "try" else []
    result = run(verb, str(file), *more)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"relay: {file}: {problem}")
    assert result.stderr.count("\n") == 1


SUBJECTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=4)


@examples(150)
@example(["0", "0.0"], "")
@given(SUBJECTS, st.text(max_size=20))
def test_whatever_the_samples_say_a_good_proposal_matches_them_and_nothing_breaks(
    subjects: list[str], sender: str
) -> None:
    def line(text: str) -> str:
        return "".join([" " if c in "\r\n" else c for c in text]).encode("utf-8", "replace").decode()

    views = [view(line(subject), sender=f"{line(sender)} <robot@x.example>") for subject in subjects]
    letters = [Letter(Path("x.eml"), each) for each in views]
    try:
        learned = Learned(propose(views), letters, ())
    except RelayError:
        return
    text = "\n".join(learned.lines())
    assert len(yaml.safe_load(text)["session_codes"]["match"]) >= 1
    assert learned.good


# try


def test_try_says_why_condition_by_condition_in_eighty_columns(
    tmp_path: Path, samples: list[str], ordinary: list[str]
) -> None:
    config = configured(tmp_path, "session_codes: {enabled: true}\n")
    result = run("try", samples[0], ordinary[0], "-c", config)
    assert (result.exit_code, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert "  session_codes.match[0]: matches, and speaks" in lines
    assert "  session_codes.match[0]: does not match" in lines
    assert f"{ordinary[0]}: no session code" in lines
    assert lines[-1] == "way out: vendor; own as well where that is down or slow"
    assert "2024-117" not in result.stdout


@pytest.mark.parametrize(
    ("more", "way"),
    [
        ("via_own_smtp: true", "way out: own; vendor as well where that is down or slow"),
        ("fallback: false", "way out: vendor, and no other (session_codes.fallback: false)"),
    ],
)
def test_try_says_which_way_it_would_go(tmp_path: Path, samples: list[str], more: str, way: str) -> None:
    config = configured(tmp_path, f"session_codes: {{enabled: true, {more}}}\n")
    assert run("try", *samples, "-c", config).stdout.splitlines()[-1] == way


def test_try_warns_where_session_codes_are_not_enabled(tmp_path: Path, samples: list[str]) -> None:
    result = run("try", *samples, "-c", configured(tmp_path))
    assert result.exit_code == 0
    assert "way out" not in result.stdout
    assert "session codes are not enabled" in result.stderr


def test_try_looks_at_client_listener_user_and_recipient_as_they_are_told(tmp_path: Path, samples: list[str]) -> None:
    match = "{client: 192.0.2.0/24, listener: legacy, user: imuis, to: '*@klant.example'}"
    config = configured(tmp_path, f"session_codes: {{enabled: true, match: [{match}]}}\n")
    told = ["--client", "192.0.2.9", "--listener", "legacy", "--user", "imuis", "--to", "jan@klant.example"]
    assert run("try", samples[0], "-c", config).exit_code == 1
    assert run("try", samples[0], "-c", config, *told).exit_code == 0
    assert run("try", samples[0], "-c", config, "--listener", "other").exit_code == 2
    assert run("try", samples[0], "-c", config, "--to", "nobody").exit_code == 2


def test_a_file_with_a_byte_order_mark_is_a_message(tmp_path: Path, samples: list[str]) -> None:
    sample = Path(samples[0])
    sample.write_bytes(b"\xef\xbb\xbf" + sample.read_bytes())
    config = configured(tmp_path, "session_codes: {enabled: true, match: [{from: '*@imuis.nl', to: jan@example.nl}]}\n")
    assert run("try", str(sample), "-c", config).exit_code == 0


def test_a_sample_need_not_be_one_that_can_be_sent(tmp_path: Path) -> None:
    samples = [letter(tmp_path, str(n), f"Uw inlogcode is {code}", to="Jan") for n, code in enumerate(CODES)]
    assert run("learn", *samples).exit_code == 0


def test_a_code_in_another_field_is_not_shown_either(tmp_path: Path) -> None:
    file = letter(tmp_path, "x", "Code", more="X-Code: 482 913\n")
    match = "session_codes: {enabled: true, match: [{header: {X-Code: '*'}}]}\n"
    for more in ([], ["--json"]):
        result = run("try", file, "-c", configured(tmp_path, match), *more)
        assert result.exit_code == 0
        assert "482 913" not in result.stdout
        assert "####" in result.stdout


def test_try_as_json_is_one_document(tmp_path: Path, samples: list[str]) -> None:
    config = configured(tmp_path, "session_codes: {enabled: true}\n")
    document = json.loads(run("try", samples[1], "-c", config, "--json").stdout)
    assert (document["version"], document["enabled"], document["ways"]) == (1, True, ["vendor", "own"])
    (told,) = document["files"]
    assert told["session_code"] == "session_codes.match[0]"
    assert told["entries"][0]["conditions"][0]["found"] == ["(not shown: session code)"]
    assert told["file"].endswith("Uw inlogcode is ####.eml")
