"""The section `oauth2`: what follows from it, what must be there for it, and what is unwise."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from relay.config import advice, outside
from relay.config.load import load, parse
from relay.config.logins import MicrosoftOAuth2
from relay.config.model import Config
from relay.config.upstreams import SmtpUpstream
from tests.kit.certificates import authority

HEAD = "hostname: relay.example.nl\nupstreams:\n  own:\n    username: a@example.nl\n"
MICROSOFT = "provider: microsoft, tenant: example.nl, client_id: app"


def own(config: Config) -> SmtpUpstream:
    found = config.upstreams["own"]
    assert isinstance(found, SmtpUpstream)
    return found


def problems(config: Config) -> list[str]:
    return [f"{one.where.rpartition(': ')[2]}: {one.problem}" for one in outside.problems(config, serving=True)]


@pytest.mark.parametrize("way", ["preset: m365", "preset: gmail", "host: smtp.example.nl"])
def test_who_gives_tokens_logs_in_with_them_whatever_is_usual_at_that_provider(way: str) -> None:
    upstream = own(parse(f"{HEAD}    {way}\n    oauth2: {{{MICROSOFT}, client_secret: {{env: X}}}}\n"))
    assert upstream.auth == "xoauth2"
    assert own(parse(f"{HEAD}    preset: m365\n    password: {{env: X}}\n")).auth == "login"


@pytest.mark.parametrize("written", ["2027-11-30", '"2027-11-30"'])
def test_a_date_may_stand_as_yaml_reads_it_or_in_quotes(written: str) -> None:
    terms = f"{MICROSOFT}, client_secret: {{env: X}}, secret_expires: {written}"
    upstream = own(parse(f"{HEAD}    preset: m365\n    oauth2: {{{terms}}}\n"))
    assert isinstance(upstream.oauth2, MicrosoftOAuth2)
    assert upstream.oauth2.secret_expires == date(2027, 11, 30)


def test_no_secret_is_shown() -> None:
    config = parse(f"{HEAD}    preset: m365\n    oauth2: {{{MICROSOFT}, client_secret: geheim}}\n")
    assert "geheim" not in repr(config)
    warned = [str(one) for one in advice.warnings(config)]
    assert any("oauth2.client_secret: the password itself stands in the file" in one for one in warned)
    assert any("oauth2.secret_expires: nobody can warn before the client secret ends" in one for one in warned)
    assert "geheim" not in "\n".join(warned)


def test_files_that_tokens_are_had_with_must_be_what_they_are_called(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    (tmp_path / "key.json").write_text(json.dumps({"type": "authorized_user"}))
    authority().issue_cert("a.example.nl").private_key_pem.write_to_path(tmp_path / "a.key")
    authority().issue_cert("b.example.nl").cert_chain_pems[0].write_to_path(tmp_path / "b.pem")
    file.write_text(
        f"hostname: relay.example.nl\nupstreams:\n"
        f"  one: {{preset: m365, username: a@b.nl, oauth2: {{{MICROSOFT}, certificate: b.pem, key: a.key}}}}\n"
        f"  two: {{preset: m365, username: a@b.nl, oauth2: "
        f"{{{MICROSOFT}, client_secret: {{file: none}}, tls_ca: a.key}}}}\n"
        f"  three: {{preset: gmail, username: a@b.nl, oauth2: {{provider: google, key: key.json}}}}\n"
    )
    assert problems(load(file)) == [
        f"upstreams.two.oauth2.client_secret: password file {tmp_path / 'none'} does not exist",
        "upstreams.one.oauth2.key: the key does not belong to the certificate",
        f"upstreams.two.oauth2.tls_ca: {tmp_path / 'a.key'} holds no certificate in PEM form",
        f"upstreams.three.oauth2.key: {tmp_path / 'key.json'} is not the key of a service account",
    ]


def test_a_national_cloud_has_another_scope() -> None:
    terms = f"{MICROSOFT}, client_secret: {{env: X}}, authority: https://login.microsoftonline.us"
    warned = [str(one) for one in advice.warnings(parse(f"{HEAD}    preset: m365\n    oauth2: {{{terms}}}\n"))]
    assert any("oauth2.scope: the scope asked for is that of the public cloud" in one for one in warned)
