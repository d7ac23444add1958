"""The files of a pickup folder: which are complete, who has which, and where each of them ends.

    NAME.eml            complete: it was renamed to this name, or nobody wrote to it for `SETTLED` seconds
    .taken/ID.NAME.eml  ours, as the entry called ID, from before it is kept until it is removed
    bad/NAME.eml        not taken; bad/NAME.eml.reason.txt says why

Files without `.eml` at the end, and those with a dot in front, are somebody's work in progress, and left alone.
A file is ours under its queue ID, durably, before the entry is kept: so a crash between the two steps, or
between keeping and removing, is seen at the next start, and the file is neither lost nor taken twice.

Whoever may write here may put anything under any name, at any moment, `bad` and `.taken` among them. So the folder is
held open, no link is followed, nothing but a file with this one name is read, and nothing is made but new files. What
lies where one of our two folders belongs is put beside it (`bad-1f09a3c2`).

Everything here blocks, and is called on a thread; while `waiting`, `claim` or `claimed` runs, nothing else does.
"""

from __future__ import annotations

import errno
import heapq
import os
import re
import time
from collections.abc import Container, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from secrets import token_hex

from relay.durable import Directory
from relay.values import frozen

SETTLED = 2.0  # seconds without a change, for programs that write where they should rename
LONGEST_NAME = 200  # octets of a name; we put 13 before it or 14 behind
TAKEN, BAD = ".taken", "bad"
MOST_COUNTED = 1_000
_MODES = {TAKEN: 0o700, BAD: 0o770}
_PUT_BESIDE = re.compile(r"(\.taken|bad)-[0-9a-f]{8}")
_NO_FOLDER_OF_OURS = frozenset({errno.ENOTDIR, errno.ELOOP, errno.EACCES})
_REASONS = ("reason.txt", *(f"reason-{number}.txt" for number in range(2, 10)))


@frozen
class Claimed:
    """A file of ours: the entry that it becomes, and its name (with the octets that are no UTF-8 as surrogates)."""

    queue_id: str
    name: str

    @property
    def shown(self) -> str:
        """The name for people."""
        return os.fsencode(self.name).decode("utf-8", "replace")

    @property
    def kept_as(self) -> str:
        return f"{self.queue_id}.{self.name}"


class Folder:
    """One pickup folder. All methods may raise OSError."""

    def __init__(self, directory: Path, *, settled: float = SETTLED) -> None:
        self.directory = directory
        self.lying = 0  # what could not be taken, and lies there; of `bad/` no more are counted than `MOST_COUNTED`
        self._settled = settled
        self._top: Directory | None = None
        self._counted: tuple[object, int] = (None, 0)

    def make(self) -> None:
        """Make it if it is not there; its owner and its group may use it."""
        with suppress(FileExistsError):
            self.directory.mkdir(mode=0o770)
            made = Directory(self.directory)
            os.fchmod(made.fileno(), 0o770)  # whatever the umask is
        self._top = Directory(self.directory)
        for name in _MODES:
            with suppress(OSError):  # whoever may write in it may be in the way; each look tries it again
                self._inner(name)

    def _look_again(self) -> Directory:
        """Hold open what is there now."""
        if self._top is None or not self._top.is_there:
            self._top = Directory(self.directory)
        self._taken = self._inner(TAKEN)
        return self._top

    def _inner(self, name: str) -> Directory:
        """`.taken` or `bad`; made where there is none that we can use."""
        assert self._top is not None
        try:
            folder = self._top.folder(name)
        except FileNotFoundError:
            return self._top.make_folder(name, _MODES[name])
        except OSError as error:
            if error.errno not in _NO_FOLDER_OF_OURS:
                raise
        else:
            if folder.is_usable:
                return folder
        self._top.rename(name, f"{name}-{token_hex(4)}")
        return self._top.make_folder(name, _MODES[name])

    def waiting(self, most: int, but: Container[str] = ()) -> list[str]:
        """At most `most` names of complete files, the longest unchanged first, without those in `but`."""
        now = time.time()
        found: list[tuple[int, str]] = []
        odd = 0
        with self._look_again().entries() as entries:
            for entry in entries:
                if entry.name.startswith(".") or not _is_message(entry.name):
                    odd += _PUT_BESIDE.fullmatch(entry.name) is not None
                    continue
                try:
                    if entry.is_dir(follow_symlinks=False):
                        odd += 1
                        continue
                    seen = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                # A program that renames by a second name takes the first away at once.
                changed = seen.st_mtime_ns if seen.st_nlink == 1 else seen.st_ctime_ns
                settled = not 0 <= now - changed / 1e9 < self._settled  # a time yet to come is a clock that is wrong
                if settled and entry.name not in but:
                    found.append((seen.st_mtime_ns, entry.name))
        try:
            self.lying = odd + self._count_bad()
        except OSError:  # something lies there that is no folder of ours, and cannot be put beside it
            self.lying = odd + 1
        return [name for _, name in heapq.nsmallest(most, found)]

    def _count_bad(self) -> int:
        """How many files lie in `bad/`, which is read when a name in it came or went."""
        bad = self._inner(BAD)
        there = os.fstat(bad.fileno())
        stamp = (there.st_dev, there.st_ino, there.st_mtime_ns)
        if self._counted[0] != stamp or time.time() - there.st_mtime < 1:  # clocks of file systems are coarse
            with bad.entries() as entries:
                messages = (entry for entry in entries if _is_message(entry.name))
                self._counted = (stamp, sum(1 for _ in islice(messages, MOST_COUNTED)))
        return self._counted[1]

    def claim(self, wanted: Iterable[Claimed]) -> tuple[list[Claimed], list[tuple[str, OSError]]]:
        """Make files ours; with them come those that cannot be moved. Names are cut to `LONGEST_NAME`."""
        top = self._look_again()
        ours: list[Claimed] = []
        stuck: list[tuple[str, OSError]] = []
        for one in wanted:
            short = Claimed(one.queue_id, os.fsdecode(os.fsencode(one.name)[-LONGEST_NAME:]))
            try:
                top.rename(one.name, short.kept_as, into=self._taken)
            except FileNotFoundError:
                continue  # somebody took it away
            except OSError as error:
                stuck.append((one.name, error))
            else:
                ours.append(short)
        self.sync()
        return ours, stuck

    def claimed(self, most: int) -> list[Claimed]:
        """What a relay that is gone had claimed, at most so many."""
        self._look_again()
        with self._taken.entries() as entries:
            parts = (entry.name.partition(".") for entry in entries)
            names = ((queue_id, name) for queue_id, _, name in parts if queue_id.isalnum() and _is_message(name))
            return [Claimed(queue_id, name) for queue_id, name in heapq.nsmallest(most, names)]

    def open(self, one: Claimed) -> int:
        """A descriptor of a regular file that has no other name: what has one may be somebody else's."""
        descriptor = self._taken.open(one.kept_as)
        if os.fstat(descriptor).st_nlink != 1:
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it has another name as well (a hard link)")
        return descriptor

    def remove(self, one: Claimed) -> None:
        """Its message is kept."""
        with suppress(FileNotFoundError):
            self._taken.remove(one.kept_as)

    def give_back(self, one: Claimed) -> str:
        """To be taken again later, under the name that this returns; durable after `sync`."""
        assert self._top is not None
        return self._move(one, self._top)

    def set_aside(self, one: Claimed, reason: str) -> bool:
        """It cannot be taken. False: it lies in `bad/`, and the reason cannot be written beside it."""
        bad = self._inner(BAD)
        name = self._move(one, bad)
        written = any(self._explain(bad, f"{name}.{ending}", reason) for ending in _REASONS)
        for folder in (bad, self._taken):
            folder.sync()
        return written

    def _explain(self, bad: Directory, name: str, reason: str) -> bool:
        try:
            # Whoever put the file there is to read it, as far as the umask lets them.
            bad.replace(name, (reason.encode(),), 0o666)
        except OSError:  # a folder has the name, or somebody else's thing that we cannot move; or the disk is full
            return False
        return True

    def sync(self) -> None:
        """What was claimed and given back is durable."""
        assert self._top is not None
        for folder in (self._taken, self._top):
            folder.sync()

    def _move(self, one: Claimed, folder: Directory) -> str:
        """Into `folder`, under its name or one like it; never onto another file."""
        stem, dot, ending = one.name.rpartition(".")
        number, name = 1, one.name
        while True:
            try:
                self._taken.link(one.kept_as, name, into=folder)
            except FileExistsError:
                if os.path.samestat(folder.stat(name), self._taken.stat(one.kept_as)):
                    break  # a crash came between the two steps
                number += 1  # somebody may have taken thousands of them
                name = f"{stem}-{number if number < 10 else token_hex(4)}{dot}{ending}"
            except OSError:  # a file of another user, a folder, or a file system without links
                self._taken.rename(one.kept_as, name, into=folder)
                return name
            else:
                break
        try:
            self.remove(one)
        except OSError:  # it would be taken again under each of them
            folder.remove(name)
            raise
        return name


def _is_message(name: str) -> bool:
    return name.lower().endswith(".eml")
