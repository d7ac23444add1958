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
        self._left = (0, 0)  # sizes of database and log
        self._spoilt: StoreUnavailable | None = None

    def opened(self) -> None:
        """The log and its index are open as well, from now on."""
        for path in (self._log, self._index):
            try:
                self._known[path] = _identity(os.stat(path))
            except OSError:
                raise self._lost(path, GONE) from None
        self.wrote(lambda: True)

    def named(self) -> None:
        """The name of the database leads to what was opened."""
        self._at(self._database)

    def wrote(self, log_is_ours: Callable[[], bool]) -> None:
        """We have written, and what we wrote into has its name; in the log it stands behind what we wrote before."""
        database, log = self._at(self._database), self._at(self._log)
        if not log_is_ours():
            self._spoilt = self._trouble(self._log, "was overwritten")
            raise self._spoilt
        self._left = (database.st_size, log.st_size)

    def look(self, is_ours: Callable[[], bool], log_is_ours: Callable[[], bool], *, everything: bool = False) -> None:
        """Before we write. `is_ours` and `log_is_ours`: whether the files of database and log hold what we left."""
        if self._spoilt is not None:
            raise self._spoilt
        database, log = self._at(self._database), self._at(self._log)
        size, logged = self._left
        if log.st_size < logged:
            self._spoilt = self._trouble(self._log, "was cut")
        elif not log_is_ours():
            self._spoilt = self._trouble(self._log, "was overwritten")
        elif database.st_size < size or not is_ours():
            self._spoilt = self._trouble(self._database, "was overwritten")
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
