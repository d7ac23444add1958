from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.durable import UnixSocket, create, make_folder, replace, write_new


def broken() -> Iterator[bytes]:
    yield b"half"
    raise OSError("no space left on device")


def test_a_file_is_replaced_by_one_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("old")
    path.chmod(0o644)
    replace(path, (b"new ", b"tokens"))
    assert path.read_bytes() == b"new tokens"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["tokens"]


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("old")
    with pytest.raises(OSError, match="no space"):
        replace(path, broken())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["tokens"]


def test_links_are_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    for name in ("tokens", "tokens.partial"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    replace(tmp_path / "tokens", (b"new",))
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "tokens").is_symlink()
    assert (tmp_path / "tokens").read_text() == "new"


def test_a_new_file_takes_nobodys_place_and_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("old", "link"):
        with pytest.raises(FileExistsError):
            write_new(tmp_path / name, (b"new",))
        with pytest.raises(FileExistsError):
            create(tmp_path / name)
    with pytest.raises(OSError, match="no space"):
        write_new(tmp_path / "new", broken())
    assert sorted(os.listdir(tmp_path)) == ["link", "old"]
    assert (tmp_path / "old").read_text() == "old"


def test_a_folder_is_its_owners_and_one_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "queue"
    make_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o750)
    make_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_a_socket_that_answers_nobody_because_it_is_busy_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    callers: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(path)
        busy.listen(0)
        try:
            while True:
                callers.append(socket.socket(socket.AF_UNIX))
                callers[-1].setblocking(False)
                callers[-1].connect(path)
        except BlockingIOError:
            pass
        inode = os.lstat(path).st_ino
        with pytest.raises(OSError, match="in use"):
            UnixSocket(path, 0o660, 1)
        for caller in callers:
            caller.close()
    assert os.lstat(path).st_ino == inode
