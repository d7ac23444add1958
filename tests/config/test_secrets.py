"""Secrets are read when they are used, and shown never; passwords match or do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relay.config import password
from relay.config.secrets import Secret, secret
from relay.errors import RelayError

CHEAP = "$scrypt$ln=4,r=8,p=1$c2FsdHNhbHQ$cmOKdSTE6dPOgDwJbp9Oy8TBmPQpBBv7+OMBEYkuEd8"


def test_a_file_is_read_anew_each_time_and_loses_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "password"
    stored = secret({"file": str(file)})
    with pytest.raises(RelayError, match=f"^password file {file} does not exist$"):
        stored.reveal()
    file.write_bytes(b"geheim \r\n")
    assert stored.reveal() == "geheim "
    file.write_bytes("\ufeffnieuw wachtwoord é".encode())
    assert stored.reveal() == "nieuw wachtwoord é"


def test_a_variable_and_a_credential_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.delenv("RELAY_PASSWORD", raising=False)
    variable, credential = secret({"env": "RELAY_PASSWORD"}), secret({"credential": "own-password"})
    with pytest.raises(RelayError, match="variable RELAY_PASSWORD is not set"):
        variable.reveal()
    with pytest.raises(RelayError, match=r"credential own-password: \$CREDENTIALS_DIRECTORY is not set"):
        credential.reveal()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(RelayError, match="credential own-password does not exist"):
        credential.reveal()
    monkeypatch.setenv("RELAY_PASSWORD", "één")
    (tmp_path / "own-password").write_text("twee\n")
    assert (variable.reveal(), credential.reveal()) == ("één", "twee")


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"nul\0", b"\xff\xfe", b"x" * 70_000])
def test_a_file_that_holds_no_password_is_told_without_its_content(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(RelayError) as caught:
        secret({"file": str(file)}).reveal()
    assert "lines" not in str(caught.value).replace("more than one line", "")
    assert str(file) in str(caught.value)


def test_what_has_no_end_is_no_password_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for odd, why in (
        (tmp_path / "fifo", "not a regular file"),
        ("/dev/null", "not a regular file"),
        (tmp_path, "Is a"),
    ):
        with pytest.raises(RelayError, match=f"^password file {odd} cannot be read: {why}"):
            secret({"file": str(odd)}).reveal()


def test_a_secret_is_shown_by_its_kind_only() -> None:
    stored = secret("geheim")
    assert stored.reveal() == "geheim"
    assert (repr(stored), f"{stored}") == ("Secret(plain)", "Secret(plain)")
    assert stored == Secret("plain", "geheim")


def test_a_hash_matches_its_password_only() -> None:
    made = password.hash_password("wachtwoord é")
    assert made.startswith("$scrypt$ln=14,r=8,p=5$")
    assert made != password.hash_password("wachtwoord é")
    assert not password.matches(made, "wachtwoord e")
    assert password.matches(made, "wachtwoord é")
    assert password.matches(made, "wachtwoord é")


def test_a_stored_password_matches_as_it_is_or_as_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "hash"
    file.write_text(CHEAP + "\n")
    for stored in (secret("geheim"), secret(CHEAP), secret({"file": str(file)}), CHEAP, "geheim"):
        assert password.matches(stored, "geheim")
        assert not password.matches(stored, "Geheim")
        assert not password.matches(stored, "")
        assert not password.matches(stored, CHEAP)
        assert not password.matches(stored, "\udcff")


@pytest.mark.parametrize(
    "text",
    [
        "$scrypt$",
        "$scrypt$ln=14,r=8,p=5$c2FsdHNhbHQ$AAAA",
        "$scrypt$ln=20,r=8,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=00,r=8,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=14,r=99,p=16$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=4,r=8,p=1$c2FsdHNhbHQab$AAAAAAAAAAAAAAAAAAAAAAAAA",
    ],
)
def test_a_hash_that_is_broken_or_costs_too_much_is_refused(text: str) -> None:
    with pytest.raises(RelayError):
        password.parse(text)
