"""Files that are opened while mail goes out: what lies there is not followed, not waited for and not written over."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.errors import RelayError
from relay.mail.outcome import Delivered
from relay.transport import oauth2, tls
from relay.transport.capture import CaptureTransport
from relay.transport.token_file import Kept, TokenFile
from tests.kit.odd import ODD
from tests.transport.conftest import Run
from tests.transport.parts import MESSAGE, request

UPSTREAM_FILES: dict[str, Callable[[str], object]] = {
    "authorities": lambda path: tls.build(tls.TlsTerms(True, path, None, None)),
    "authorities of a token endpoint": tls.trusting,
    "certificate": lambda path: tls.build(tls.TlsTerms(True, None, path, None)),
    "login certificate": lambda path: oauth2._pem(path, "CERTIFICATE"),
}


@pytest.mark.parametrize("what", UPSTREAM_FILES)
def test_a_file_of_an_upstream_that_has_no_end_is_not_waited_for(tmp_path: Path, what: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises((OSError, RelayError), match="not a regular file"):
        UPSTREAM_FILES[what](str(tmp_path / "fifo"))


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "precious"
    path.parent.mkdir()
    path.write_text("mine")
    return path


def untouched(precious: Path) -> bool:
    return precious.read_text() == "mine" and os.listdir(precious.parent) == ["precious"]


@pytest.mark.parametrize("name", ["7QK3Z0M5X2A1.eml", "7QK3Z0M5X2A1.json", "7QK3Z0M5X2A1.eml.partial"])
@pytest.mark.parametrize("kind", ODD)
def test_what_lies_in_a_capture_folder_stays_and_the_message_is_captured_beside_it(
    run: Run, folder: Path, precious: Path, kind: str, name: str
) -> None:
    folder.mkdir(exist_ok=True)
    ODD[kind](folder / name, precious)
    before = os.lstat(folder / name)

    async def scene() -> None:
        connection = await CaptureTransport("catch", folder).connect()
        assert isinstance(connection, CaptureTransport)
        delivery = await connection.deliver(request("piet@example.org"))
        assert [type(outcome) for outcome in delivery.outcomes] == [Delivered]

    run(scene())
    if not name.endswith(".partial"):
        assert os.path.samestat(os.lstat(folder / name), before)
    captured = [path for path in folder.glob("*.eml") if path.is_file() and path.read_bytes() == MESSAGE]
    assert [path.name for path in captured] == [f"7QK3Z0M5X2A1{'' if name.endswith('.partial') else '-2'}.eml"]
    assert untouched(precious)


def test_a_capture_folder_that_is_a_link_is_not_written_to(run: Run, tmp_path: Path, precious: Path) -> None:
    (tmp_path / "link").symlink_to(precious.parent)

    async def scene() -> None:
        connection = await CaptureTransport("catch", tmp_path / "link").connect()
        assert isinstance(connection, CaptureTransport)
        delivery = await connection.deliver(request("piet@example.org"))
        assert delivery.sick is not None

    run(scene())
    assert untouched(precious)


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "a hard link"])
def test_tokens_are_neither_read_from_nor_written_through_what_lies_there(
    tmp_path: Path, precious: Path, kind: str
) -> None:
    folder = tmp_path / "tokens"
    folder.mkdir()
    ODD[kind](folder / "own", precious)
    ODD[kind](folder / "own.lock", precious)
    file = TokenFile(folder / "own")
    file.stamp()
    with pytest.raises(RelayError, match="cannot be read"):
        file.read("app")
    with pytest.raises(RelayError, match="cannot be written"), file.locked():
        pass
    if kind == "a folder":
        with pytest.raises(RelayError, match="cannot be written"):
            file.write(Kept("app"))
    else:
        file.write(Kept("app"))
        assert file.read("app") == Kept("app")
    assert untouched(precious)


def test_a_token_file_larger_than_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own").touch(0o600)
    os.truncate(tmp_path / "own", 2**42)
    with pytest.raises(RelayError, match="encrypted"):
        TokenFile(tmp_path / "own").read("app")
