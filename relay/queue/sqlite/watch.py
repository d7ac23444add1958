"""Whether the names of a store's files still lead to what it has open, and nobody else wrote into that.

What is removed, moved or replaced stays open and takes what is written, until the process ends; then it is gone, with
all that waits. So database and log are looked at before and behind each commit, and everything once a second. What
lies in its place again is well again; a file that was overwritten or cut is not before the next start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from relay.errors import StoreUnavailable

GONE = "is gone (removed, or moved)"


class Watch:
    """`there` has what is open from start to end, by path. All methods raise StoreUnavailable ("moved"), which says
    what happened to which file, and what to do; all are for the writer's thread, but for `named`."""

    def __init__(self, database: Path, there: Mapping[Path, os.stat_result]) -> None:
        self._folder = str(database.parent)
        self._database, self._log, self._index = (f"{database}{end}" for end in ("", "-wal", "-shm"))
        self._known = {str(path): _identity(found) for path, found in there.items()}
        self._known[self._folder] = _identity(os.stat(self._folder))
        self._left = (0, 0, 0)  # size and time of the database, size of the log
        self._spoilt: StoreUnavailable | None = None

    def opened(self) -> None:
        """The log and its index are open as well, from now on."""
        for path in (self._log, self._index):
            try:
                self._known[path] = _identity(os.stat(path))
            except OSError:
                raise self._lost(path, GONE) from None
        self.wrote()

    def named(self) -> None:
        """The name of the database leads to what was opened."""
        self._at(self._database)

    def wrote(self) -> None:
        """We have written, and what we wrote into has its name."""
        database, log = self._at(self._database), self._at(self._log)
        self._left = (database.st_size, database.st_mtime_ns, log.st_size)

    def look(self, ours: Callable[[], bool], *, everything: bool = False) -> None:
        """Before we write. `ours`: whether the file of the database is ours in what it holds; asked when others wrote
        there."""
        if self._spoilt is not None:
            raise self._spoilt
        database, log = self._at(self._database), self._at(self._log)
        size, time, logged = self._left
        if log.st_size < logged:
            self._spoilt = self._trouble(self._log, "was cut")
        elif (database.st_size, database.st_mtime_ns) != (size, time):
            if database.st_size < size or not ours():
                self._spoilt = self._trouble(self._database, "was overwritten")
            self._left = (database.st_size, database.st_mtime_ns, logged)
        if self._spoilt is not None:
            raise self._spoilt
        if everything:
            for path in self._known:
                self._at(path)

    def _at(self, path: str) -> os.stat_result:
        try:
            found = os.stat(path)
        except OSError:
            raise self._lost(path, GONE) from None
        if _identity(found) != self._known.get(path):
            raise self._lost(path, "is not the one that is in use (replaced, or covered by a mount)")
        return found

    def _lost(self, path: str, what: str) -> StoreUnavailable:
        """About the folder, where it is the folder."""
        try:
            whole = _identity(os.stat(self._folder)) == self._known[self._folder]
        except OSError:
            whole = False
        return self._trouble(path if whole else self._folder, what)

    def _trouble(self, path: str, what: str) -> StoreUnavailable:
        advice = "do not stop the relay, what waits would be lost; `relay queue backup FILE` saves it"
        return StoreUnavailable("moved", f"{path} {what}: {advice}")


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
