"""Files, folders and sockets: how they are made so that a power cut, a crash or a second process does not spoil them.

A name is on the disk when its folder was synced, and not before: a file can be, and be lost with the name of the
folder in which it lies. A new file is never one that is there already, and never a link. All of it blocks, and
raises OSError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable
from pathlib import Path


def sync(path: Path) -> None:
    """What the file holds, or the names that the folder holds, are durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make it (0700) if it is not there, with those above it; the names of all that were made are durable."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in reversed(missing):
        sync(made.parent)


def create(path: Path, mode: int = 0o600) -> int:
    """Make a new, empty file; its descriptor is for writing. Raises FileExistsError where something has the name."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def write_new(path: Path, pieces: Iterable[bytes], mode: int = 0o600, *, like: Path | None = None) -> None:
    """Make a file of `pieces`, whole or not at all; what it holds is durable, its name is not yet.

    It is `create`d, and given to the owner of `like` (`leave_to_owner`).
    """
    descriptor = create(path, mode)
    try:
        with open(descriptor, "wb") as file:
            if like is not None:
                leave_to_owner(like, descriptor)
            file.writelines(pieces)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def replace(path: Path, pieces: Iterable[bytes], mode: int = 0o600, *, like: Path | None = None) -> None:
    """The file at `path` is what it was, or `pieces`: whole and durable. A link there is replaced, not followed."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)  # of a process that is gone
    write_new(partial, pieces, mode, like=like)
    os.rename(partial, path)
    sync(path.parent)


def leave_to_owner(like: Path, *made: Path | int) -> None:
    """What root makes for the relay's own user must not keep that user out: it gets the owner that `like` has."""
    if os.geteuid() == 0:
        owner = os.stat(like)
        for one in made:
            os.chown(one, owner.st_uid, owner.st_gid)


class UnixSocket(socket.socket):
    """A Unix socket that listens at `path`, with `mode`; its file is ours until `remove`.

    It takes the place of a socket that nobody answers on. Everything else that may be there stays, and is an OSError:
    EADDRINUSE.
    """

    def __init__(self, path: str, mode: int, backlog: int) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._file: tuple[str, int, int] | None = None
        try:
            self.setblocking(False)
            if _is_stale(path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            self._bind(path)
            # Nobody can connect before `listen`. (A umask would count for files of other threads as well.)
            os.chmod(path, mode)
            self.listen(backlog)
        except BaseException:
            self.remove()
            self.close()
            raise

    def _bind(self, path: str) -> None:
        try:
            self.bind(path)
        except OSError as error:
            if error.errno is None:  # "AF_UNIX path too long"
                raise OSError(errno.ENAMETOOLONG, "the path is too long: 107 octets at most") from None
            raise
        made = os.lstat(path)
        self._file = (path, made.st_dev, made.st_ino)

    def remove(self) -> None:
        """Take the file away, unless it is somebody else's by now. Idempotent."""
        file, self._file = self._file, None
        if file is None:
            return
        path, device, inode = file
        with contextlib.suppress(OSError):  # gone already, or the folder is no longer ours
            there = os.lstat(path)
            if (there.st_dev, there.st_ino) == (device, inode):
                os.unlink(path)


def _is_stale(path: str) -> bool:
    """Whether a socket is there that nobody answers on."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except BlockingIOError:
            return False  # a full backlog: somebody listens
    return False
