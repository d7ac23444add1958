"""A message in each place that there is, in a real store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from relay.queue.listing import Place
from relay.queue.model import Entry
from relay.queue.sqlite.start import SqliteStore
from tests.admin.house import open_store
from tests.queue.mail import NOON, deferred, ended


async def put(folder: Path, store: SqliteStore, entry: Entry, place: Place) -> SqliteStore:
    """The store, with `entry` in `place`: another one where the entry had to be damaged from outside."""
    if place in (Place.PENDING, Place.HELD, Place.DAMAGED):
        await store.put(entry, leased=False, held=place is Place.HELD)
        return await damage(folder, store, entry) if place is Place.DAMAGED else store
    lease = await store.put(entry, leased=True)
    if place is Place.DEFERRED:
        await store.settle(deferred(lease, NOON + timedelta(hours=1)))
    elif place is Place.FINISHED:
        await store.settle(ended(lease))
    return store


async def damage(folder: Path, store: SqliteStore, entry: Entry) -> SqliteStore:
    """Its row cannot be read any more, and was found so."""
    await store.close()
    with closing(sqlite3.connect(folder / "queue.db")) as database, database:
        database.execute("UPDATE entry SET because = '[' WHERE queue_id = ?", (entry.queue_id,))
    store = await open_store(folder)
    await store.lease(entry.route, limit=1, now=NOON)
    return store
