"""An older copy of database and log is put back into them while the store is open: `cp -a` from a saved folder.

The files stay the same ones, and need not become shorter on the way: a busy store's log is written from its beginning
again and again, and its database has free pages.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import apsw
import pytest

import relay.queue.sqlite.database
from relay.errors import StoreUnavailable
from tests.queue.house import SqliteHouse
from tests.queue.mail import an_entry, ended, memory

DATABASE, LOG, INDEX = "queue.db", "queue.db-wal", "queue.db-shm"


def put_back(older: dict[Path, bytes]) -> None:
    """Over what is there, as long as that is."""
    for path, octets in older.items():
        with open(path, "r+b") as file:
            file.write(octets.ljust(path.stat().st_size, b"\0"))


@pytest.mark.asyncio
@pytest.mark.parametrize("names", [[DATABASE], [LOG], [DATABASE, LOG, INDEX]], ids="+".join)
@pytest.mark.parametrize("longest", [1, 2**24], ids=["copied to the database each time", "in the log"])
async def test_nothing_is_kept_any_more_once_an_older_copy_lies_there(
    house: SqliteHouse, monkeypatch: pytest.MonkeyPatch, names: list[str], longest: int
) -> None:
    monkeypatch.setattr(relay.queue.sqlite.database, "LONGEST_LOG", longest)
    store = house.store
    for lease in [await store.put(an_entry(content=memory(b"x" * 200_000)), leased=True) for _ in range(3)]:
        await store.settle(ended(lease))
    older = {path: path.read_bytes() for path in map(house.folder.joinpath, names)}
    await store.put(an_entry(), leased=False)
    while longest == 1 and store._disk._marks._given:  # type: ignore[attr-defined]  # the writer has yet to copy its log
        await asyncio.sleep(0)
    put_back(older)
    if (names, longest) == ([DATABASE], 2**24):  # all of it is in the log: there is no difference
        await store.put(an_entry(), leased=False)
        return
    name = DATABASE if names == [DATABASE] else LOG
    with pytest.raises(StoreUnavailable, match=rf"{name} was overwritten: do not stop the relay") as told:
        await store.put(an_entry(), leased=False)
    assert told.value.reason == "moved"
    with pytest.raises(StoreUnavailable, match="was overwritten"):
        await store.check()


class Unreadable(apsw.VFSFile):
    """With `fail`, nothing of it can be read."""

    fail = False

    def xRead(self, amount: int, offset: int) -> bytes:
        if Unreadable.fail:
            raise apsw.IOError("read")
        return super().xRead(amount, offset)


class UnreadableDisk(apsw.VFS):
    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:
        return Unreadable("unix", name, flags)


@pytest.mark.asyncio
async def test_a_disk_that_cannot_be_read_for_a_moment_is_not_called_overwritten(tmp_path: Path) -> None:
    disk = UnreadableDisk("unreadable", base="unix", makedefault=True)
    house = SqliteHouse(tmp_path / "house")
    try:
        store = await house.open()
        await store.put(an_entry(), leased=False)
        Unreadable.fail = True
        with contextlib.suppress(StoreUnavailable):  # it may need nothing that is not in memory
            await store.put(an_entry(), leased=False)
        Unreadable.fail = False
        await store.put(an_entry(), leased=False)
    finally:
        Unreadable.fail = False
        await house.demolish()
        disk.unregister()
