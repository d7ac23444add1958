from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from relay.durable import Directory, UnixSocket, make_folder, read_regular, require_regular
from tests.kit.odd import ODD


def broken() -> Iterator[bytes]:
    yield b"half"
    raise OSError("no space left on device")


def test_a_file_is_replaced_by_one_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("old")
    path.chmod(0o644)
    Directory(tmp_path).replace("tokens", (b"new ", b"tokens"))
    assert path.read_bytes() == b"new tokens"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["tokens"]


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("old")
    with pytest.raises(OSError, match="no space"):
        Directory(tmp_path).replace("tokens", broken())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["tokens"]


def test_links_are_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    for name in ("tokens", "tokens.partial"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    Directory(tmp_path).replace("tokens", (b"new",))
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "tokens").is_symlink()
    assert (tmp_path / "tokens").read_text() == "new"


def test_a_new_file_takes_nobodys_place_and_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("old", "link"):
        with pytest.raises(FileExistsError):
            Directory(tmp_path).write_new(name, (b"new",))
        with pytest.raises(FileExistsError):
            Directory(tmp_path).create(name)
    with pytest.raises(OSError, match="no space"):
        Directory(tmp_path).write_new("new", broken())
    assert sorted(os.listdir(tmp_path)) == ["link", "old"]
    assert (tmp_path / "old").read_text() == "old"


@pytest.mark.parametrize("kind", ODD)
def test_whatever_has_the_name_of_a_file_is_neither_read_nor_written_nor_waited_for(tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    ODD[kind](folder / "name", precious)
    directory = Directory(folder)
    with pytest.raises(FileExistsError):
        directory.create("name")
    for flags in (os.O_RDONLY, os.O_WRONLY):
        if kind != "a hard link":
            with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
                directory.open("name", flags)
    with contextlib.suppress(IsADirectoryError):
        directory.replace("name", (b"new",))
    directory.replace("other", (b"new",))
    assert sorted(os.listdir(folder)) == ["name", "other"]
    assert sorted(os.listdir(tmp_path)) == ["folder", "precious"]
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("kind", ODD)
def test_whatever_has_the_name_of_what_is_in_the_making_is_no_hindrance(tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    ODD[kind](tmp_path / "name.partial", precious)
    Directory(tmp_path).replace("name", (b"new",))
    assert (tmp_path / "name").read_text() == "new"
    assert precious.read_text() == "mine"
    assert not (tmp_path / "made").exists()


def test_a_folder_that_is_open_stays_the_same_whatever_its_path_leads_to(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "theirs").mkdir()
    directory = Directory(tmp_path / "mine")
    assert directory.is_there
    (tmp_path / "mine").rename(tmp_path / "moved")
    assert not directory.is_there
    (tmp_path / "mine").symlink_to(tmp_path / "theirs")
    assert not directory.is_there
    directory.write_new("file", (b"new",))
    assert (tmp_path / "moved" / "file").read_text() == "new"
    assert os.listdir(tmp_path / "theirs") == []
    with pytest.raises(NotADirectoryError):
        Directory(tmp_path / "mine")
    with pytest.raises(NotADirectoryError):
        Directory(tmp_path).folder("mine")


def test_a_folder_is_closed_when_nobody_has_it_any_more(tmp_path: Path) -> None:
    descriptor = Directory(tmp_path).fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_file_that_a_person_names_may_be_a_link_and_nothing_that_has_no_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("secret")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"secret"
    assert read_regular(tmp_path / "link", 3) == b"sec"
    os.mkfifo(tmp_path / "fifo")
    for odd, why in (
        (tmp_path / "fifo", "not a regular file"),
        (Path("/dev/null"), "not a regular"),
        (tmp_path, "dir"),
    ):
        for use in (read_regular, require_regular):
            with pytest.raises(OSError, match=why):
                use(odd)


def test_a_file_that_lets_its_readers_wait_is_not_waited_for() -> None:
    """The kernel's messages: a regular file, whose end is that of the machine."""
    kernel = Path("/proc/kmsg")
    if not os.access(kernel, os.R_OK):
        pytest.skip("only root can read what the kernel says")
    with pytest.raises(OSError, match="not a regular file"):
        list(iter(partial(read_regular, kernel, 65536), b""))  # all that is there comes first


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
