"""Where an SQLite store lives in a test."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw

from relay.queue.model import Recorded
from relay.queue.sqlite.start import SqliteStore
from tests.kit.store import usual
from tests.queue.mail import NOON, Noted

COUNT = """
    SELECT CASE WHEN state = 'held' OR place IN (3, 4) THEN 'held' WHEN place = 2 THEN 'active'
                WHEN attempts > 0 THEN 'deferred' ELSE 'pending' END AS is_at, count(*)
    FROM recipient JOIN entry ON entry.id = recipient.entry
    WHERE state NOT IN ('delivered', 'failed', 'expired', 'cancelled') GROUP BY is_at
"""


class FailingFile(apsw.VFSFile):
    """With `fail`, commits have an unknown fate; what those of `house` wrote is found again."""

    fail = False
    house: SqliteHouse | None = None

    @classmethod
    @contextlib.contextmanager
    def in_doubt(cls, house: SqliteHouse) -> Iterator[None]:
        cls.fail, cls.house = True, house
        try:
            yield
        finally:
            cls.fail, cls.house = False, None

    def xSync(self, flags: int) -> None:
        super().xSync(flags)  # it reaches the disk
        if FailingFile.fail:
            if FailingFile.house is not None:
                FailingFile.house.lose_index()
            raise apsw.IOError("fsync")  # and nobody is told


class FailingDisk(apsw.VFS):
    """The disk of every database that is opened until `unregister`."""

    def __init__(self) -> None:
        super().__init__("failing", base="unix", makedefault=True)

    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:
        return FailingFile("unix", name, flags)


class SqliteHouse:
    """A store in a folder of its own; a crash is a copy of its files, taken while it is open."""

    def __init__(self, folder: Path | None = None) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="queue")) if folder is None else folder
        self._generation = 0
        self._stores: list[SqliteStore] = []
        self.noted = Noted()
        self.now = NOON

    @property
    def folder(self) -> Path:
        return self._base / str(self._generation)

    @property
    def path(self) -> Path:
        return self.folder / "queue.db"

    async def open(self) -> SqliteStore:
        self.noted = Noted()
        self.store = await SqliteStore.open(self.path, observer=self.noted, **usual(now=lambda: self.now))
        self._stores.append(self.store)
        return self.store

    async def open_copy(self, path: Path) -> SqliteStore:
        store = await SqliteStore.open(path, observer=Noted(), **usual(now=lambda: NOON))
        self._stores.append(store)
        return store

    async def settle_without_history(self) -> None:
        self.store.keep_history(Recorded.NOTHING)

    async def restart(self) -> SqliteStore:
        await self.store.close()
        return await self.open()

    async def crash(self) -> SqliteStore:
        left = self.folder
        self._generation += 1
        shutil.copytree(left, self.folder, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        return await self.open()

    def lose_index(self) -> None:
        """Close the reading connection: the last connection of a process takes the index of the log with it, and what
        is committed is then what the log says."""
        disk = self.store._disk

        def close() -> None:
            if disk._reader is not None:
                disk._reader.close()
                disk._reader = None

        disk._reading.submit(close).result()

    def counted(self) -> dict[str, int]:
        with contextlib.closing(apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
            counts = {"pending": 0, "deferred": 0, "active": 0, "held": 0}
            return counts | dict(connection.execute(COUNT))

    async def demolish(self) -> None:
        for store in self._stores:
            await store.close()
        shutil.rmtree(self._base)
