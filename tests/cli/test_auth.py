"""`relay auth setup`, and what of `relay auth` needs no upstream; the rest is in tests/scenarios/test_oauth2.py."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from relay.cli.auth import _source_of, auth
from relay.config.load import load, parse
from relay.transport.token_file import Kept, TokenFile


def run(*words: str, answers: str = "") -> Result:
    return CliRunner().invoke(auth, list(words), input=answers)


def test_the_script_for_microsoft_365_does_every_step_for_one_mailbox() -> None:
    shown = run("setup", "m365", "--mailbox", "facturen@example.nl", "--months", "12")
    assert (shown.exit_code, shown.stderr) == (0, "")
    script = shown.stdout
    steps = (
        "-eq 'SMTP.SendAsApp'",
        "New-MgApplication ",
        "New-MgServicePrincipalAppRoleAssignment",
        "Add-MgApplicationPassword",
        "New-ServicePrincipal -AppId $App.AppId -ObjectId $Enterprise.Id",
        "Add-MailboxPermission -Identity $Mailbox -User $Enterprise.Id",
        "Set-CASMailbox -Identity $Mailbox -SmtpClientAuthenticationDisabled $false",
    )
    places = [script.rindex(step) for step in steps]
    assert places == sorted(places)
    assert "$Mailbox = 'facturen@example.nl'" in script
    assert ".AddMonths(12)" in script


def test_what_the_script_prints_for_the_configuration_is_a_good_one() -> None:
    script = run("setup", "m365").stdout
    snippet = re.search(r"^upstreams:\n(?:^ .*\n)+", script, re.MULTILINE)
    assert snippet is not None
    text = snippet[0].replace("$($Ends.ToString('yyyy-MM-dd'))", "2028-11-26").replace("$Mailbox", "a@example.nl")
    text = re.sub(r"\$\(.*\)$", "een-id", text, flags=re.MULTILINE)
    written = yaml.safe_load(text)["upstreams"]["own"]["oauth2"]
    assert written.keys() == {"provider", "tenant", "client_id", "client_secret", "secret_expires"}
    assert parse(f"hostname: relay.example.nl\n{text}").upstreams["own"].auth == "xoauth2"  # type: ignore[union-attr]


@pytest.mark.parametrize("mailbox", ["geen-adres", "a'; Remove-Item -Recurse C:\\ ;'@example.nl", "$(x)@example.nl"])
def test_nothing_but_an_address_gets_into_the_script(mailbox: str) -> None:
    refused = run("setup", "m365", "--mailbox", mailbox)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--mailbox" in refused.stderr


def test_without_an_upstream_that_has_oauth2_there_is_nothing_to_show(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("hostname: relay.example.nl\nupstreams: {own: {host: smtp.example.nl}}\n")
    shown = run("status", "-c", str(file))
    assert (shown.exit_code, shown.stdout, shown.stderr) == (0, "", "no upstream has oauth2\n")


def test_a_login_at_google_shows_the_address_and_refuses_what_is_not_its_end(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"hostname: relay.example.nl\nqueue: {{store: 'sqlite:{tmp_path}/queue.db'}}\nupstreams:\n"
        "  own: {preset: gmail, username: a@example.nl, oauth2: {provider: google, grant: refresh_token, client_id: x, "
        "client_secret: {env: PATH}}}\n"
    )
    shown = run("login", "own", "-c", str(file), answers="http://127.0.0.1:1/?code=x&state=y\n")
    assert shown.exit_code == 1
    assert "https://accounts.google.com/o/oauth2/v2/auth?client_id=x&" in shown.stdout
    assert "that address belongs to another login" in shown.stderr
    assert not (tmp_path / "queue.db.tokens").exists()


def test_an_old_error_under_a_good_token_is_over_and_days_are_counted_by_the_calendar(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    ends = datetime.now().astimezone() + timedelta(days=2)
    file.write_text(
        f"hostname: relay.example.nl\nqueue: {{store: 'sqlite:{tmp_path}/queue.db'}}\nupstreams:\n"
        "  own: {preset: m365, username: a@example.nl, oauth2: {provider: microsoft, tenant: example.nl, client_id: x, "
        f"client_secret: {{env: PATH}}, secret_expires: {ends:%Y-%m-%d}}}}}\n"
    )
    source, now = _source_of(load(file), "own", None), time.time()
    kept = Kept(source.terms.identity, "token", now - 3000, now + 3000, error="AADSTS7000215", error_at=now - 60)
    token_file = TokenFile(tmp_path / "queue.db.tokens" / "own", None)
    token_file.write(kept)
    fresh = run("status", "-c", str(file))
    token_file.write(replace(kept, error_at=now - 1000))
    old = run("status", "-c", str(file))
    token_file.write(replace(kept, error_at=now - 1000, expires_at=now - 1))
    ended = run("status", "-c", str(file))
    assert "AADSTS7000215" in fresh.stdout
    assert "AADSTS7000215" not in old.stdout
    assert "AADSTS7000215" in ended.stdout
    assert f"ends on {ends:%Y-%m-%d} (in 2 days)" in old.stdout


def test_who_logs_in_with_a_password_loads_nothing_of_tokens_or_pins() -> None:
    code = (
        "import sys, relay.daemon.main, relay.wiring\n"
        "names = ('msal', 'google.auth', 'dns', 'cryptography', 'aiohappyeyeballs', 'relay.transport.oauth2')\n"
        "print([name for name in names if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
