"""Small disks of a test's own: a tmpfs, or an ext4 in a file. They need root, and go with the test.

with tmpfs(folder / "disk", size=8 * MIB) as disk:
    ...
    with ballast(disk):      # full
        ...
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 2**20

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk")


def run(*words: str | Path, good: tuple[int, ...] = (0,)) -> None:
    """A command of the system; the test is skipped where it is not there or not allowed."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"{words[0]} is not there")
    if done.returncode not in good:
        message = f"{' '.join(map(str, words))}: {done.stderr.strip()}"
        if "permission denied" in message.lower() or "not permitted" in message.lower():
            pytest.skip(message)
        raise AssertionError(message)


@contextmanager
def _mounted(where: Path, *words: str | Path) -> Iterator[Path]:
    where.mkdir()
    run("mount", *words, where)
    try:
        yield where
    finally:
        # Lazily: a test that failed may have left a process behind that is about to end.
        run("umount", "--lazy", where)
        where.rmdir()


@contextmanager
def tmpfs(where: Path, *, size: int, inodes: int = 0) -> Iterator[Path]:
    """`inodes` 0: as many as it likes."""
    with _mounted(where, "-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes},mode=0700", "tmpfs") as disk:
        yield disk


@contextmanager
def ext4(where: Path, *, size: int, options: str = "errors=remount-ro") -> Iterator[Path]:
    """In a file beside it, which stays: it can be mounted again."""
    image = where.with_suffix(".img")
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(size)
        run("mkfs.ext4", "-q", "-F", "-m", "0", image)
    with _mounted(where, "-o", f"loop,{options}", image) as disk:
        yield disk


@contextmanager
def ballast(disk: Path, *, leave: int = 0) -> Iterator[None]:
    """The disk is full, but for `leave` octets."""
    path = disk / "ballast"
    with path.open("wb") as file:
        with contextlib.suppress(OSError):  # others write as well
            there = os.statvfs(disk)
            os.posix_fallocate(file.fileno(), 0, there.f_bavail * there.f_frsize - leave)
        with contextlib.suppress(OSError):  # up to the last octet
            while not leave:
                os.pwrite(file.fileno(), bytes(4096), file.seek(0, os.SEEK_END))
    try:
        yield
    finally:
        path.unlink()


@contextmanager
def no_inodes(disk: Path) -> Iterator[None]:
    """No further file can be made."""
    folder = disk / "inodes"
    folder.mkdir()
    made: list[Path] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                path = folder / str(len(made))
                path.touch()
                made.append(path)
        yield
    finally:
        for path in made:
            path.unlink()
        folder.rmdir()
