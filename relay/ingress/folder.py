"""The files of a pickup folder: which are complete, who has which, and where each of them ends.

    NAME.eml            complete: it was renamed to this name, or nobody wrote to it for `SETTLED` seconds
    .taken/ID.NAME.eml  ours, as the entry called ID, from before it is kept until it is removed
    bad/NAME.eml        not taken; bad/NAME.eml.reason.txt says why

Files without `.eml` at the end, and those with a dot in front, are somebody's work in progress, and left alone.
A file is ours under its queue ID, durably, before the entry is kept: so a crash between the two steps, or
between keeping and removing, is seen at the next start, and the file is neither lost nor taken twice.

Everything here blocks, and is called on a thread.
"""

from __future__ import annotations

import errno
import heapq
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from relay.durable import replace, sync
from relay.values import frozen

SETTLED = 2.0  # seconds without a change, for programs that write where they should rename
LONGEST_NAME = 200  # octets of a name; we put 13 before it or 14 behind
TAKEN, BAD = ".taken", "bad"


@frozen
class Claimed:
    """A file of ours: the entry that it becomes, and its name (with the octets that are no UTF-8 as surrogates)."""

    queue_id: str
    name: str

    @property
    def shown(self) -> str:
        """The name for people."""
        return os.fsencode(self.name).decode("utf-8", "replace")


class Folder:
    """One pickup folder. All methods may raise OSError."""

    def __init__(self, directory: Path, *, settled: float = SETTLED) -> None:
        self.directory = directory
        self._settled = settled
        self._taken = directory / TAKEN
        self._bad = directory / BAD

    def make(self) -> None:
        """Make what is missing of it; its owner and its group may use it."""
        for path, mode in ((self.directory, 0o770), (self._taken, 0o700), (self._bad, 0o770)):
            try:
                path.mkdir(mode=mode)
            except FileExistsError:
                if not path.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
            else:
                path.chmod(mode)  # whatever the umask is

    def waiting(self, most: int) -> list[str]:
        """At most `most` names of complete files, the longest unchanged first."""
        now = time.time()
        found: list[tuple[int, str]] = []
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.lower().endswith(".eml"):
                    continue
                try:
                    if entry.is_dir(follow_symlinks=False):
                        continue
                    changed = entry.stat(follow_symlinks=False).st_mtime_ns
                except FileNotFoundError:
                    continue
                if not 0 <= now - changed / 1e9 < self._settled:  # a time yet to come is a clock that is wrong
                    found.append((changed, entry.name))
        return [name for _, name in heapq.nsmallest(most, found)]

    def claim(self, wanted: Iterable[Claimed]) -> list[Claimed]:
        """Make files ours; those that cannot be had are left out. Their names are cut to `LONGEST_NAME`."""
        ours: list[Claimed] = []
        trouble: OSError | None = None
        for one in wanted:
            short = Claimed(one.queue_id, os.fsdecode(os.fsencode(one.name)[-LONGEST_NAME:]))
            try:
                os.rename(self.directory / one.name, self._path(short))
            except FileNotFoundError:
                continue  # somebody took it away
            except OSError as error:
                trouble = error
            else:
                ours.append(short)
        if trouble is not None and not ours:
            raise trouble
        self._sync()
        return ours

    def claimed(self) -> list[Claimed]:
        """What a relay that is gone had claimed."""
        parts = [name.partition(".") for name in sorted(os.listdir(self._taken))]
        return [Claimed(queue_id, name) for queue_id, dot, name in parts if dot and queue_id.isalnum() and name]

    def open(self, one: Claimed) -> int:
        """A descriptor of a regular file; a link is not followed, and nothing blocks."""
        descriptor = os.open(self._path(one), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file")
        return descriptor

    def remove(self, one: Claimed) -> None:
        """Its message is kept."""
        with suppress(FileNotFoundError):
            os.unlink(self._path(one))

    def give_back(self, one: Claimed) -> None:
        """To be taken again later."""
        self._move(one, self.directory)
        self._sync()

    def set_aside(self, one: Claimed, reason: str) -> None:
        """It cannot be taken."""
        there = self._move(one, self._bad)
        # Whoever put the file there is to read it, as far as the umask lets them.
        replace(there.with_name(there.name + ".reason.txt"), (reason.encode(),), 0o666)
        self._sync()

    def _path(self, one: Claimed) -> Path:
        return self._taken / f"{one.queue_id}.{one.name}"

    def _move(self, one: Claimed, folder: Path) -> Path:
        """Into `folder`, under its name or one like it; never onto another file."""
        stem, dot, ending = one.name.rpartition(".")
        number, path = 1, folder / one.name
        while True:
            try:
                os.link(self._path(one), path, follow_symlinks=False)
            except FileExistsError:
                number += 1
                path = folder / f"{stem}-{number}{dot}{ending}"
            except OSError:  # a file of another user, or a file system without links
                os.rename(self._path(one), path)
                return path
            else:
                os.unlink(self._path(one))
                return path

    def _sync(self) -> None:
        for folder in (self._taken, self.directory):
            sync(folder)
