"""Files, folders and sockets: how they are made so that a power cut, a crash or another hand does not spoil them.

A name is on the disk when its folder was synced, and not before: a file can be, and be lost with the name of the
folder in which it lies. A new file is never one that is there already, and never a link. All of it blocks, and
raises OSError; nothing waits in `open`, whatever lies there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from secrets import token_hex

_ANYHOW = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def sync(path: Path) -> None:
    """What the file holds, or the names that the folder holds, are durable."""
    descriptor = os.open(path, os.O_RDONLY | _ANYHOW)
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


def require_regular(path: Path | str) -> None:
    """A file that a person named is one that can be read to its end: OSError for a FIFO, a device or a folder."""
    _require_regular(os.stat(path))


def read_regular(path: Path | str, most: int = -1) -> bytes:
    """What a file that a person named holds, or the first `most` octets of it; links lead on to theirs.

    Raises OSError as `require_regular` does, and where one has to wait for what it holds, as for some below /proc.
    """
    require_regular(path)  # first, for there are devices that do something when they are opened
    with open(_checked(os.open(path, os.O_RDONLY | _ANYHOW)), "rb") as file:
        octets: bytes | None = file.read(most)
    if octets is None:
        raise OSError(errno.EINVAL, "not a regular file")
    return octets


def leave_to_owner(like: Path | int, *made: Path | int) -> None:
    """What root makes for the relay's own user must not keep that user out: it gets the owner that `like` has."""
    if os.geteuid() == 0:
        owner = os.stat(like)
        for one in made:
            os.chown(one, owner.st_uid, owner.st_gid, follow_symlinks=isinstance(one, int))


class Directory:
    """A folder that is open: its names are looked up in this very folder, wherever its path leads by now.

    No name in it is followed where it is a link, nor is its own, and a name is never a path. It closes itself when
    nobody has it any more, so that what was begun in it ends in it; `close` does so at once.
    """

    def __init__(self, path: Path, *, within: Directory | None = None) -> None:
        """Open the folder at `path`, or the one of that name `within` another."""
        self.path: Path = path if within is None else within.path / path
        beside = None if within is None else within._descriptor
        self._descriptor: int = os.open(path, _FOLDER | os.O_NOFOLLOW, dir_fd=beside)
        self.close = weakref.finalize(self, os.close, self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    @property
    def is_there(self) -> bool:
        """Whether its path still leads to it, and not to nothing or to another folder."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self._descriptor))
        except OSError:
            return False

    @property
    def is_usable(self) -> bool:
        """Whether we may list it, and make and remove names in it."""
        found = os.fstat(self._descriptor)
        if found.st_mode & stat.S_ISVTX and found.st_uid != os.geteuid():
            return False  # nobody but the owner of a file removes it there
        return os.access(".", os.R_OK | os.W_OK | os.X_OK, dir_fd=self._descriptor, effective_ids=True)

    def stat(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)

    def has(self, name: str) -> bool:
        """Whether anything has the name."""
        try:
            self.stat(name)
        except FileNotFoundError:
            return False
        return True

    @contextlib.contextmanager
    def entries(self) -> Iterator[Iterator[os.DirEntry[str]]]:
        """What lies in it now."""
        # Of its own: a list that another thread reads at the same time has a place in it.
        descriptor = os.open(".", _FOLDER, dir_fd=self._descriptor)
        try:
            with os.scandir(descriptor) as entries:
                yield entries
        finally:
            os.close(descriptor)

    def names(self) -> set[str]:
        with self.entries() as entries:
            return {entry.name for entry in entries}

    def folder(self, name: str) -> Directory:
        return Directory(Path(name), within=self)

    def make_folder(self, name: str, mode: int) -> Directory:
        """A new one with that mode, whatever the umask is. Raises FileExistsError where something has the name."""
        os.mkdir(name, mode, dir_fd=self._descriptor)
        made = self.folder(name)
        os.fchmod(made._descriptor, mode)
        return made

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """A descriptor of the regular file `name`; OSError for whatever else has that name."""
        _require_regular(self.stat(name))
        return _checked(os.open(name, flags | os.O_NOFOLLOW | _ANYHOW, dir_fd=self._descriptor))

    def create(self, name: str, mode: int = 0o600) -> int:
        """Make a new, empty file; its descriptor is for writing. Raises FileExistsError where something has the
        name."""
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=self._descriptor)

    def write_new(self, name: str, pieces: Iterable[bytes], mode: int = 0o600, *, to_owner: bool = False) -> None:
        """Make a file of `pieces`, whole or not at all; what it holds is durable, its name is not yet.

        It is `create`d; `to_owner` gives it to the owner of this folder (`leave_to_owner`).
        """
        descriptor = self.create(name, mode)
        try:
            with open(descriptor, "wb") as file:
                if to_owner:
                    leave_to_owner(self._descriptor, descriptor)
                file.writelines(pieces)
                file.flush()
                os.fsync(descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                self.remove(name)
            raise

    def replace(self, name: str, pieces: Iterable[bytes], mode: int = 0o600, *, to_owner: bool = False) -> None:
        """The file `name` is what it was, or `pieces`: whole and durable. A link there is replaced, not followed."""
        partial = f"{name}.partial"
        try:
            self.remove(partial)  # of a process that is gone
        except FileNotFoundError:
            pass
        except OSError:  # no file of ours
            partial = f"{name}.{token_hex(4)}.partial"
        self.write_new(partial, pieces, mode, to_owner=to_owner)
        try:
            self.rename(partial, name)
        except OSError:
            self.remove(partial)
            raise
        self.sync()

    def rename(self, name: str, new: str, *, into: Directory | None = None) -> None:
        """What has the name `new` goes, unless it is a folder."""
        os.rename(name, new, src_dir_fd=self._descriptor, dst_dir_fd=(into or self)._descriptor)

    def link(self, name: str, new: str, *, into: Directory) -> None:
        """A second name for the same thing. Raises FileExistsError where something has it."""
        os.link(name, new, src_dir_fd=self._descriptor, dst_dir_fd=into._descriptor, follow_symlinks=False)

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self._descriptor)

    def sync(self) -> None:
        """The names in it are durable."""
        os.fsync(self._descriptor)


def _checked(descriptor: int) -> int:
    """It, unless it is not that of a regular file."""
    try:
        _require_regular(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")


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
