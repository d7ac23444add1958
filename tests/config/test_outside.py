"""Files that the configuration names: what has no end is refused where it is written, and not waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from relay import wiring
from relay.cli.check import check
from relay.config import tls
from relay.config.load import parse
from relay.errors import BadConfig
from tests.kit.certificates import authority

CONFIG = """hostname: relay.example.nl
listeners:
  - {name: a, tls: starttls, certificate: PEM, key: ODD, auth: users, users: [{name: u, password: {file: ODD}}]}
  - {name: b, listen: "127.0.0.1:2525", tls: starttls, certificate: ODD, key: PEM}
upstreams:
  own: {host: a.nl, username: u, password: {file: ODD}, tls_ca: ODD, tls_certificate: PEM, tls_key: ODD}
  vendor: {type: https, url: "https://a.nl/", auth: bearer, token: {file: ODD}, tls_ca: ODD}
  google:
    preset: gmail
    username: u@a.nl
    oauth2: {provider: google, grant: service_account, key: ODD}
  microsoft:
    preset: m365
    username: u@a.nl
    oauth2: {provider: microsoft, tenant: a.nl, client_id: c, certificate: ODD, tls_ca: ODD}
"""
KEYS = {
    3: ["listeners[0].key", "listeners[0].users[0].password"],
    4: ["listeners[1].certificate"],
    6: ["upstreams.own.password", "upstreams.own.tls_ca", "upstreams.own.tls_key"],
    7: ["upstreams.vendor.tls_ca", "upstreams.vendor.token"],
    11: ["upstreams.google.oauth2.key"],
    15: ["upstreams.microsoft.oauth2.certificate", "upstreams.microsoft.oauth2.tls_ca"],
}


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    authority().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "pem"))
    return tmp_path / "pem"


@pytest.mark.parametrize("odd", ["fifo", "/dev/null"])
def test_what_has_no_end_is_named_with_its_line_and_its_key(tmp_path: Path, fifo: Path, pem: Path, odd: str) -> None:
    file = tmp_path / "config.yaml"
    odd = str(fifo) if odd == "fifo" else odd
    file.write_text(CONFIG.replace("PEM", str(pem)).replace("ODD", odd))
    app = typer.Typer()
    app.command()(check)
    told = CliRunner().invoke(app, ["-c", str(file)])
    assert told.exit_code == 1
    for line, keys in KEYS.items():
        for key in keys:
            (said,) = [one for one in told.stdout.splitlines() if one.startswith(f"{file}:{line}: {key}: ")]
            assert f"{odd} cannot be read: not a regular file" in said


def test_a_configuration_that_has_no_end_is_refused(fifo: Path) -> None:
    app = typer.Typer()
    app.command()(check)
    told = CliRunner().invoke(app, ["-c", str(fifo)])
    assert (told.exit_code, told.stdout.splitlines()[0]) == (1, f"{fifo}: cannot be read: not a regular file")


def test_a_certificate_that_has_no_end_by_now_is_no_certificate(fifo: Path, pem: Path) -> None:
    text = CONFIG.replace("PEM", str(pem)).replace("ODD", str(fifo))
    with pytest.raises(BadConfig, match="not a regular file"):
        wiring.listener_settings(0, parse(text))
    assert tls.certificate_end(tls.server_context("modern"), fifo) is None
