"""What an administrator gets wrong, each as a real file: `relay check` says line, key, what is wrong and what to do.

The service is installed as it is shipped, with the credential own-password. Folders that begin with 00 have no mistake.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from relay.cli.check import check
from relay.config import units
from tests.kit.certificates import authority

MISTAKES = Path(__file__).parent / "mistakes"
SHIPPED = Path(__file__).parents[2] / "systemd"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that everybody may enter, with an installed service that serves the configuration in it."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.delenv("RELAY_PW", raising=False)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        (place / "own-password").write_text("geheim\n")
        (place / "own-password").chmod(0o600)
        install(place)
        monkeypatch.setattr(units, "FOLDERS", (place / "units",))
        yield place


def install(place: Path, **settings: str) -> None:
    """The units as README has them: shipped, and the line for the credential. `settings` are a drop-in."""
    folder = place / "units"
    (folder / "relay.service.d").mkdir(parents=True, exist_ok=True)
    text = (SHIPPED / "relay.service").read_text()
    text = text.replace("#LoadCredential=own-password", "LoadCredential=own-password").replace("/etc/relay", str(place))
    (folder / "relay.service").write_text(text)
    shutil.copy(SHIPPED / "relay.socket", folder)
    lines = [f"{key}={value}" for key, value in {"PrivateTmp": "no", **settings}.items()]
    (folder / "relay.service.d" / "here.conf").write_text("\n".join(["[Service]", *lines, ""]))


def checked(place: Path) -> str:
    app = typer.Typer()
    app.command()(check)
    said = CliRunner().invoke(app, ["-c", str(place / "config.yaml")]).stdout
    return said.replace(f"{place}/config.yaml", "config.yaml").replace(str(place), "/etc/relay")


def owned(text: str, place: Path) -> str:
    """`text` with the owner of the files here in place of root, who owns them on a real machine."""
    return text.replace(f"{place.owner()}:{place.group()}", "root:root")


@pytest.mark.parametrize("folder", sorted(MISTAKES.iterdir()), ids=lambda folder: folder.name)
def test_a_mistake_gets_exactly_these_sentences(folder: Path, place: Path) -> None:
    for file in folder.iterdir():
        if file.name != "expected.txt":
            shutil.copy(file, place)
    for file in (*place.glob("own-*"), *place.glob("*.key")):
        file.chmod(0o600)
    made(place)
    said = owned(checked(place), place)
    assert said == (folder / "expected.txt").read_text(encoding="utf-8")
    assert "eheim" not in said
    assert folder.name.startswith(("00", "18")) == (said == "config.yaml: good\n")


def made(place: Path) -> None:
    """A certificate and its key, where the folder of a mistake says that there are some."""
    if (place / "relay.key").exists():
        issued = authority().issue_cert("relay.example.nl")
        (place / "relay.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        (place / "relay.key").write_bytes(issued.private_key_pem.bytes())


README = """hostname: relay.example.nl
upstreams:
  own: {host: smtp.example.nl, username: administratie@example.nl, password: PASSWORD}
listeners:
  - listen: systemd:legacy
"""


def written(place: Path, password: str, mode: int = 0o644) -> str:
    (place / "config.yaml").write_text(README.replace("PASSWORD", password))
    (place / "config.yaml").chmod(mode)
    return owned(checked(place), place)


GOOD = "config.yaml: good\n"


@pytest.mark.parametrize(
    "settings",
    [
        {"LoadCredential": "\nLoadCredential=own:/etc/hostname"},
        {"SetCredential": "own:geheim"},
        {"SetCredentialEncrypted": "own: \\\n# a comment between\n  abc"},
        {"LoadCredentialEncrypted": "own:/etc/credstore/own"},
        {"LoadCredential": "own"},
        {"ImportCredential": "ow*"},
        {"ImportCredential": "relay.*:own"},
    ],
)
def test_a_credential_of_the_unit_in_any_form_is_found(place: Path, settings: dict[str, str]) -> None:
    assert "relay.service has no credential own" in written(place, "{credential: own}")
    install(place, **settings)
    assert "relay.service has no credential own" not in written(place, "{credential: own}")


def test_a_credential_out_of_a_folder_is_found_by_both_names(place: Path) -> None:
    (place / "secrets").mkdir()
    (place / "secrets" / "own").write_text("geheim")
    (place / "secrets" / "own").chmod(0o600)
    install(place, LoadCredential=f"mail:{place}/secrets")
    assert written(place, "{credential: mail_own}") == GOOD
    assert "relay.service has no credential mail_other" in written(place, "{credential: mail_other}")


def test_an_empty_line_in_a_drop_in_takes_the_credentials_back(place: Path) -> None:
    install(place, LoadCredential="")
    assert "relay.service has no credential own-password" in written(place, "{credential: own-password}")


def test_a_line_of_the_unit_that_is_still_a_comment_gives_no_credential(place: Path) -> None:
    shutil.copy(SHIPPED / "relay.service", place / "units")
    said = written(place, "{credential: own-password}")
    assert "has no credential own-password (add LoadCredential=own-password:/etc/relay/own-password to it" in said


def test_the_file_behind_a_credential_must_be_there_and_for_root_alone(place: Path) -> None:
    (place / "own-password").chmod(0o644)
    said = written(place, "{credential: own-password}")
    assert "/etc/relay/own-password can be read by everybody on this machine (chmod 0600" in said
    (place / "own-password").unlink()
    said = written(place, "{credential: own-password}")
    assert "own-password does not exist, and relay.service loads it from there (make it" in said


@pytest.mark.parametrize("mode", [0o644, 0o604])
def test_a_secret_that_everybody_can_read_is_named_with_its_cure(place: Path, mode: int) -> None:
    (place / "own-password").chmod(mode)
    said = written(place, "{file: own-password}")
    assert "can be read by everybody on this machine (chmod 0600 /etc/relay/own-password)" in said


def test_a_secret_in_a_folder_that_the_service_may_not_enter_is_not_its_to_read(place: Path) -> None:
    (place / "secrets").mkdir(mode=0o700)
    (place / "secrets" / "own").write_text("geheim")
    said = written(place, "{file: secrets/own}")
    assert "relay.service cannot read /etc/relay/secrets/own: /etc/relay/secrets is root:root 0700" in said
    assert "write {credential: own}, and LoadCredential=own:/etc/relay/secrets/own in relay.service" in said


def test_a_group_that_the_unit_gives_may_read(place: Path) -> None:
    (place / "own-password").chmod(0o640)
    assert "cannot read" in written(place, "{file: own-password}")
    install(place, SupplementaryGroups=str((place / "own-password").stat().st_gid))
    assert written(place, "{file: own-password}") == GOOD
    install(place, Group=str((place / "own-password").stat().st_gid))
    assert written(place, "{file: own-password}") == GOOD


def test_a_user_that_exists_reads_what_is_its_own(place: Path) -> None:
    install(place, DynamicUser="no", User=str(os.getuid()))
    assert written(place, "{file: own-password}") == GOOD
    install(place, DynamicUser="no", User="nobody")
    said = written(place, "{file: own-password}")
    assert "own-password is root:root 0600, and it runs as nobody (write {credential: own-password}" in said


def test_what_the_unit_hides_is_not_its_to_read(place: Path) -> None:
    install(place, PrivateTmp="yes")
    (place / "own-password").chmod(0o644)
    assert "relay.service cannot read /etc/relay/own-password: PrivateTmp= hides it" in written(
        place, "{file: own-password}"
    )


def test_a_configuration_that_the_service_cannot_read_is_bad(place: Path) -> None:
    said = written(place, "{credential: own-password}", mode=0o600)
    assert said.startswith("config.yaml:1: relay.service cannot read this file: config.yaml is root:root 0600")
    assert said.endswith("config.yaml: bad, 1 error\n")


def test_what_the_service_would_lack_is_a_warning_for_a_file_that_it_does_not_serve(place: Path) -> None:
    install(place, ExecStart="\nExecStart=/opt/relay/venv/bin/relay serve -c /etc/other.yaml")
    said = written(place, "{file: own-password}", mode=0o600)
    assert said.startswith("warning: config.yaml:3: upstreams.own.password: relay.service cannot read")
    assert said.endswith("config.yaml: good, 1 warning\n")


def test_a_variable_is_looked_for_in_the_unit_and_in_its_files(place: Path) -> None:
    missing = "relay.service does not set the variable RELAY_PW"
    assert missing in written(place, "{env: RELAY_PW}")
    install(place, Environment='"A=b" RELAY_PW=geheim')
    assert missing not in written(place, "{env: RELAY_PW}")
    (place / "environment").write_text("# RELAY_PW=x\nA=b\n")
    install(place, EnvironmentFile=f"-{place}/environment")
    assert missing in written(place, "{env: RELAY_PW}")
    (place / "environment").write_text("A=b\nRELAY_PW='geheim'\n")
    assert missing not in written(place, "{env: RELAY_PW}")


def test_a_key_where_systemd_lays_credentials_is_looked_for_in_the_unit(place: Path) -> None:
    tls = "    tls: starttls\n    certificate: {0}/relay.pem\n    key: {0}/relay.key\n"
    tls = tls.format("/run/credentials/relay.service")
    (place / "relay.pem").write_text("")
    install(place, LoadCredential=f"relay.pem:{place}/relay.pem")
    (place / "config.yaml").write_text(README.replace("PASSWORD", "{credential: own-password}") + tls)
    said, verdict = checked(place).splitlines()
    assert said.startswith("config.yaml:8: listeners[0].key: relay.service has no credential relay.key (add LoadCred")
    assert verdict == "config.yaml: bad, 1 error"


def test_sockets_are_those_of_all_units_that_lead_to_the_service(place: Path) -> None:
    text = README.replace("PASSWORD", "{credential: own-password}").replace("systemd:legacy", "systemd:office")
    (place / "config.yaml").write_text(text)
    assert "no socket has this name: relay.socket hands over legacy (write systemd:legacy)" in checked(place)
    other = "[Socket]\nListenStream=2525\nFileDescriptorName=office\nService=relay.service\n"
    (place / "units" / "office.socket").write_text(other)
    assert checked(place) == GOOD
    (place / "units" / "office.socket").write_text(other.replace("Service=relay.service", ""))
    assert "no socket has this name" in checked(place)
    install(place, Sockets="office.socket")
    assert checked(place) == GOOD
    for unit in ("office.socket", "relay.socket"):
        (place / "units" / unit).unlink()
    assert "no unit hands over sockets to relay.service (install systemd/relay.socket" in checked(place)


def test_a_unit_that_is_masked_is_none(place: Path) -> None:
    (place / "units" / "relay.service").unlink()
    (place / "units" / "relay.service").symlink_to(os.devnull)
    assert written(place, "{file: own-password}") == GOOD


def test_where_no_service_is_installed_a_credential_is_what_lies_beside_the_configuration(place: Path) -> None:
    shutil.rmtree(place / "units")
    assert written(place, "{credential: own-password}") == GOOD
    said = written(place, "{credential: other}")
    assert "credential other: no relay.service is installed here that gives it (write the secret into" in said
    assert said.startswith("warning: ")
    assert "environment variable RELAY_PW is not set (what starts the relay must set it)" in written(
        place, "{env: RELAY_PW}"
    )
