"""Where an SQLite store lives in a test."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from relay.queue.sqlite import SqliteStore
from tests.queue.mail import NOON, Noted


class SqliteHouse:
    """A store in a folder of its own; a crash is a copy of its files, taken while it is open."""

    def __init__(self, folder: Path | None = None) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="queue")) if folder is None else folder
        self._generation = 0
        self._stores: list[SqliteStore] = []
        self.noted = Noted()

    @property
    def folder(self) -> Path:
        return self._base / str(self._generation)

    @property
    def path(self) -> Path:
        return self.folder / "queue.db"

    async def open(self) -> SqliteStore:
        self.noted = Noted()
        self.store = await SqliteStore.open(self.path, observer=self.noted, min_free=0, now=lambda: NOON)
        self._stores.append(self.store)
        return self.store

    async def restart(self) -> SqliteStore:
        await self.store.close()
        return await self.open()

    async def crash(self) -> SqliteStore:
        left = self.folder
        self._generation += 1
        shutil.copytree(left, self.folder, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        return await self.open()

    async def demolish(self) -> None:
        for store in self._stores:
            await store.close()
        shutil.rmtree(self._base)
