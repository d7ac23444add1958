"""How a store in one SQLite file is opened, with `<file>.lock` and `<file>.spool` beside it.

What it finds is put in order first: the leases of a dead process are taken back, rows and files matched.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

import apsw

from relay.durable import leave_to_owner, make_folder
from relay.errors import StoreUnavailable
from relay.events import Observer
from relay.queue.ledger import Change, Found
from relay.queue.model import Ledger, Recorded
from relay.queue.operations.lease import set_aside
from relay.queue.operations.operator import apply_wishes
from relay.queue.questions import routes
from relay.queue.rows import SET_ASIDE, microseconds
from relay.queue.spool import Spool
from relay.queue.sqlite.damage import set_aside_damaged
from relay.queue.sqlite.database import Database, lay_out, reason_of
from relay.queue.sqlite.lock import Lock
from relay.queue.sqlite.transaction import Transaction
from relay.queue.sqlite.watch import Watch
from relay.queue.store_loop import GroupedStore

_REMEDIES = {
    "corrupt": ": keep a copy of it with the -wal and .spool beside it, check the disk, and put back a backup "
    "(`relay queue backup` makes them)",
    "full": ": make room on that disk",
}


class SqliteStore(GroupedStore):
    """A QueueStore in one SQLite file."""

    @classmethod
    async def open(
        cls,
        path: Path | str,
        *,
        observer: Observer,
        min_free: int,
        history: Recorded,
        now: Callable[[], datetime],
    ) -> Self:
        """The store at `path`, made if it is not there; leases of a dead process are taken back.

        `history`: what is recorded of finished mail (see `keep_history`).
        Raises StoreInUse, OtherLayout and StoreUnavailable. Emits EntriesFound, EntrySetAside for entries whose
        spool file is gone, and what operators had wished of entries that were leased.
        """
        begin = partial(_open, Path(path), microseconds(now()), history=history)
        database, spool, found = await asyncio.get_running_loop().run_in_executor(None, begin)
        return cls(database, found, spool=spool, observer=observer, min_free=min_free, history=history, now=now)


def _open(path: Path, now: int, *, history: Recorded) -> tuple[Database, Spool, Found]:
    path = path.absolute()
    with contextlib.ExitStack() as undo:
        try:
            make_folder(path.parent)
            lock = Lock.acquire(path)
            undo.callback(lock.release)
            made = _make(path)
            spool = Spool(path.with_name(path.name + ".spool"))
            undo.callback(spool.close)
            lock_path = path.with_name(path.name + ".lock")
            leave_to_owner(path, lock_path, spool.directory)
            watch = Watch(path, {path: made, lock_path: lock.file, spool.directory: os.fstat(spool.folder.fileno())})
            database = Database(path, lock, watch)
            undo.callback(database.close)
            connection = database.open()
            lay_out(connection, path)
            database.know(connection)
            found, orphans = _put_in_order(connection, spool, now, history=history)
            spool.remove_now(orphans)
        except apsw.Error as error:
            reason = reason_of(error) or "other"
            raise StoreUnavailable(reason, f"{path}: {error}{_REMEDIES.get(reason, '')}") from None
        except OSError as error:
            reason = "full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "io"
            raise StoreUnavailable(reason, f"{error.filename or path}: {error.strerror}") from None
        undo.pop_all()
        return database, spool, found


def _make(path: Path) -> os.stat_result:
    """An empty file, 0600, if there is none: SQLite gives the log and its index the mode of the database."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _put_in_order(connection: apsw.Connection, spool: Spool, now: int, *, history: Recorded) -> tuple[Found, set[str]]:
    try:
        with connection:
            found = look_around(Transaction(connection), spool, now, history=history)
    except UnicodeDecodeError:
        with connection:
            found = look_around(Transaction(connection), spool, now, history=history, doubtful=True)
    return found


def look_around(
    work: Transaction, spool: Spool, now: int, *, history: Recorded, doubtful: bool = False
) -> tuple[Found, set[str]]:
    """Take back the leases of a dead process, do what was wished of them, then match rows and spool files.

    With what was found come the files that no row points to. `doubtful`: there are texts that are none
    (UnicodeDecodeError otherwise).
    """
    entries, octets, last_key, leases, damaged = next(work.execute("found_entries"))
    last_key = max(last_key, next(work.execute("last_key_of_history"))[0])
    recipients = work.recipients(leased=True)
    changes: list[Change] = []
    aside = set_aside_damaged(work, leased=True) if damaged or doubtful else []
    work.execute("forget_summarised")
    if leases:
        wished = [key for (key,) in work.execute("leased_wishes")]
        work.execute("doubt_codes")
        work.execute("take_back")
        changes = apply_wishes(work, wished, now, history=history)
    routes(work)  # who starts a relay asks for them
    there = spool.names()
    kept: set[str] = set()
    for key, queue_id, place, attempts, name in list(work.execute("spool_files")):
        kept |= {name, spool.name_of(queue_id)}  # also where its name was damaged: the content is whole
        if name not in there and place != SET_ASIDE:
            aside.append(set_aside(work, key, queue_id, attempts, "its spool file is missing"))
    ledger = Ledger(found=sum(recipients.values()), **recipients)
    return Found(entries, octets, last_key, leases, ledger, aside, changes), there - kept
