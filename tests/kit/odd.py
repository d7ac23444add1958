"""What may lie where a file belongs, put there by somebody else."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest


def _a_device(path: Path, _: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a device")
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


ODD: dict[str, Callable[[Path, Path], object]] = {
    "a link": lambda path, precious: path.symlink_to(precious),
    "a link to nothing": lambda path, precious: path.symlink_to(precious.with_name("made")),
    "a hard link": lambda path, precious: path.hardlink_to(precious),
    "a FIFO": lambda path, _: os.mkfifo(path, 0o666),
    "a socket": lambda path, _: os.mknod(path, stat.S_IFSOCK | 0o666),
    "a device": _a_device,
    "a folder": lambda path, _: path.mkdir(),
}
"""By its kind: makes it at a path. The second path is that of a file which nobody may read or change; nothing is beside
it that is called "made"."""
