"""`relay explain`: what an admin types and what the screen says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from relay.cli.explain import explain

CONFIG = """\
hostname: relay.example.nl
upstreams:
  own: {type: smtp, host: smtp.example.com, port: 587, tls: starttls}
  vendor: {type: smtp, host: smtp.vendor.example, port: 465, tls: implicit}
senders:
  - match: {from: noreply@example.nl}
    keep: true
  - name: fallback
    match: {from: "*@example.nl"}
    address: administratie@example.nl
    display_name: "{name} via Administratie"
  - match: {client: 127.0.0.1, header: {X-Mailer: imuis}}
    keep: true
session_codes:
  enabled: true
  match:
    - {subject: '/(?i)\\bsessiecode\\b/', max_size: 50KiB}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def run(config: Path, *arguments: str) -> Result:
    app = typer.Typer(add_completion=False)
    app.command()(explain)
    return CliRunner().invoke(app, ["-c", str(config), *arguments])


def test_the_answer_is_plain_text_of_eighty_columns(config: Path) -> None:
    result = run(
        config, "--from", "Büro Van 't Hof <jan@example.nl>", "--to", "klant@example.com", "--subject", "Factuur"
    )
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "\x1b" not in result.stdout
    assert "  senders[0]: does not match" in lines
    assert "  fallback: matches, and speaks" in lines
    assert "  route         default" in lines
    assert "  upstreams     own" in lines
    assert "    becomes     administratie@example.nl" in lines
    assert "  Reply-To      Büro Van 't Hof <jan@example.nl>" in lines
    assert "    Subject: Factuur" in lines
    assert result.stderr == ""


def test_json_is_one_document_with_a_version(config: Path) -> None:
    result = run(
        config, "--from", "jan@example.nl", "--to", "a@x.nl", "--to", "b@x.nl", "--envelope-from", "<>", "--json"
    )
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["version"] == 1
    assert told["accepted"] is True
    assert told["because"] == ["fallback"]
    assert told["reverse_path"] == told["rewriting"]["reverse_path"] == "<>"
    assert told["recipients"] == ["a@x.nl", "b@x.nl"]
    assert told["rules"][1]["conditions"] == [
        {"name": "from", "expected": ["*@example.nl"], "found": ["jan@example.nl"], "held": True}
    ]
    assert told["rewriting"]["from_after"] == "jan via Administratie <administratie@example.nl>"
    assert told["upstreams"] == ["own"]


def test_a_session_code_goes_its_way_and_is_not_on_the_screen(config: Path) -> None:
    for form in ((), ("--json",)):
        result = run(config, "--from", "jan@x.nl", "--to", "a@x.nl", "--subject", "Uw sessiecode 123456", *form)
        assert result.exit_code == 0
        assert "123456" not in result.output
        assert "session_codes.match[0]" in result.stdout
        assert "vendor" in result.stdout


def test_a_message_file_brings_author_recipients_and_fields(config: Path, tmp_path: Path) -> None:
    eml = tmp_path / "mail.eml"
    eml.write_bytes(
        b'From: "B\xfcro" <jan@elders.nl>\nTo: klant@example.com\nBcc: geheim@x.nl\nX-Mailer: iMUIS\n\nTekst\n'
    )
    result = run(config, "--eml", str(eml), "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["recipients"] == ["klant@example.com", "geheim@x.nl"]
    assert told["reverse_path"] == "jan@elders.nl"
    assert told["because"] == ["senders[2]"]
    assert told["header_before"].startswith('From: "Büro" <jan@elders.nl>\r\n')
    assert "geheim" not in told["header_after"]


def test_a_message_file_is_read_as_a_pickup_folder_would(config: Path, tmp_path: Path) -> None:
    eml = tmp_path / "mail.eml"
    message = b"Sender: app@elders.nl\nFrom: jan@elders.nl\nTo: klant@example.com\nSubject: x\rBcc: y@x.nl\n\nTekst"
    eml.write_bytes(b"\xef\xbb\xbf" + message)
    told = json.loads(run(config, "--eml", str(eml), "--json").stdout)
    assert (told["reverse_path"], told["recipients"]) == ("app@elders.nl", ["klant@example.com"])
    eml.write_bytes(b"X-Sender: <>\r\nX-Receiver: piet@example.org\r\n" + message)
    told = json.loads(run(config, "--eml", str(eml), "--json").stdout)
    assert (told["reverse_path"], told["recipients"]) == ("<>", ["piet@example.org"])
    assert told["header_before"].startswith("Sender: app@elders.nl\r\n")


def test_a_message_file_that_a_pickup_folder_would_refuse_needs_a_recipient(config: Path, tmp_path: Path) -> None:
    eml = tmp_path / "mail.eml"
    eml.write_bytes(b"From: jan@elders.nl\nTo: Klant\n\nTekst\n")
    refused = run(config, "--eml", str(eml))
    assert refused.exit_code == 2
    assert "To: no usable address: Klant" in refused.stderr
    assert run(config, "--eml", str(eml), "--to", "klant@example.com").exit_code == 0


def test_a_message_file_cannot_write_to_the_terminal(config: Path, tmp_path: Path) -> None:
    eml = tmp_path / "mail.eml"
    eml.write_bytes(b"From: \x1b[31mJan\x07 <jan@example.nl>\r\nSubject: \x1b]0;x\x07 [bold]\r\n\r\n")
    result = run(config, "--eml", str(eml), "--to", "a@x.nl")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert "[bold]" in result.stdout


def test_a_loop_is_refused_with_exit_code_1(config: Path, tmp_path: Path) -> None:
    eml = tmp_path / "mail.eml"
    eml.write_bytes(b"Received: x\r\n" * 50 + b"From: jan@example.nl\r\n\r\n")
    result = run(config, "--eml", str(eml), "--to", "a@x.nl")
    assert result.exit_code == 1
    assert "554 5.4.6" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--to", "a@x.nl"], "who is the author? Give --from ADDRESS, or --eml FILE"),
        (["--from", "jan@x.nl"], "who is the recipient? Give --to ADDRESS"),
        (["--from", "jan", "--to", "a@x.nl"], "--from: not one address: jan"),
        (["--from", "a@x.nl, b@x.nl", "--to", "a@x.nl"], "--from: not one address: a@x.nl, b@x.nl"),
        (["--from", "a@x.nl", "--to", "nobody"], "--to: not one address: nobody"),
        (["--from", "a@x.nl", "--to", "b@x.nl", "--envelope-from", "x"], "--envelope-from: not one address: x"),
        (
            ["--from", "a@x.nl", "--to", "b@x.nl", "--listener", "x"],
            "--listener: no listener named 'x' (there are: legacy)",
        ),
        (["--eml", "/nowhere.eml", "--to", "b@x.nl"], "--eml /nowhere.eml: No such file or directory"),
        (["--eml", "/dev/null", "--to", "b@x.nl"], "--eml /dev/null: not a regular file"),
        (["--eml", "x", "--from", "a@x.nl"], "--eml brings its own From and Subject: leave out --from and --subject"),
    ],
)
def test_what_makes_no_sense_is_one_sentence_and_exit_code_2(config: Path, arguments: list[str], sentence: str) -> None:
    result = run(config, *arguments)
    assert result.exit_code == 2
    assert result.stderr == f"relay: {sentence}\n"
    assert result.stdout == ""


def test_a_bad_configuration_is_told_with_exit_code_1(tmp_path: Path) -> None:
    bad = tmp_path / "config.yaml"
    bad.write_text("upstreams: {own: {type: smtp}}\nsender: []\n")
    result = run(bad, "--from", "a@x.nl", "--to", "b@x.nl")
    assert result.exit_code == 1
    assert "config.yaml" in result.stderr
    assert "Traceback" not in result.output
    missing = run(tmp_path / "none.yaml", "--from", "a@x.nl", "--to", "b@x.nl")
    assert missing.exit_code == 1
    assert len(missing.stderr.splitlines()) == 1


def test_it_says_whether_the_application_would_hear_the_upstreams_verdict(config: Path) -> None:
    config.write_text(
        CONFIG.replace("keep: true", "address: a@b.nl\n    hold: true", 1)
        + "listeners:\n"
        + "  - {name: legacy}\n"
        + '  - {name: waits, listen: "127.0.0.1:26", reply: direct}\n'
        + "  - {name: files, type: pickup, directory: /srv/mail}\n"
    )
    asked = ("--from", "jan@example.nl", "--to", "a@x.nl")
    assert "  reply         queued: 250 as soon as it is kept\n" in run(config, *asked).stdout
    assert "  reply         queued: 250" in run(config, *asked, "--listener", "files").stdout
    direct = run(config, *asked, "--listener", "waits")
    assert "reply direct: the application hears the upstream's verdict, at most 20 s;" in " ".join(
        direct.stdout.split()
    )
    held = ("--from", "noreply@example.nl", "--to", "a@x.nl", "--listener", "waits")
    assert "  reply         queued: 250" in run(config, *held).stdout
    for arguments, expected in ((asked, ("queued", None)), ((*asked, "--listener", "waits"), ("direct", 20.0))):
        told = json.loads(run(config, *arguments, "--json").stdout)
        assert (told["reply_mode"], told["patience"]) == expected
