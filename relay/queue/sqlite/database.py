"""The store we ship: SQLite in WAL mode with synchronous=FULL, one writer thread, group commit.

An operation that fails by itself fails alone. When the machine fails (full, I/O error, locked,
damaged), the whole batch does, and nothing of it is kept; after an I/O error the database is closed
and opened anew before it is believed again. An fsync that failed once says nothing the second time: what
the log holds may be in the memory of the kernel only, marked as written. So nothing is committed behind it;
first all of it is written once more, into the database, and synced there (`Database.open`).
Such a commit may have reached the disk all the same, so the first transaction afterwards begins by
making the disk say what the books say (`Mend`).

Reading goes over a connection of its own, on a thread of its own, in short transactions.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import apsw

from relay.durable import leave_to_owner, make_folder
from relay.errors import StoreTooNew, StoreUnavailable
from relay.events import EntriesFound, Observer
from relay.queue.disk import Mend, Report
from relay.queue.ledger import Books, Count
from relay.queue.listing import Saved
from relay.queue.operations.lease import Take
from relay.queue.operations.walk import Wipe
from relay.queue.rows import PAGE_SIZE, Row, microseconds
from relay.queue.spool import Spool
from relay.queue.sqlite.backup import Target, copy
from relay.queue.sqlite.damage import is_text, plain, set_aside_damaged
from relay.queue.sqlite.lock import Lock
from relay.queue.sqlite.start import Found, found_recipients, look_around
from relay.queue.sqlite.statements import CACHED, INSERTS, LARGEST, STATEMENTS, migrations
from relay.queue.store_loop import GroupedStore
from relay.queue.work import Operation, Work, run_all

T = TypeVar("T")

SQLITE_VERSION = apsw.sqlite_lib_version()

CHECKPOINT_PAGES = 1000  # of the log (16 MiB): then it is copied to the database, while no caller waits
_NO_KEYS = array("q", (-1,))  # an empty array cannot be bound
BUSY_MILLISECONDS = 1000  # another process may hold the database for a moment (a backup, a shell)

_REASONS: tuple[tuple[tuple[type[apsw.Error], ...], str], ...] = (
    ((apsw.FullError,), "full"),
    ((apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.ProtocolError), "io"),
    ((apsw.BusyError, apsw.LockedError), "busy"),
    ((apsw.CorruptError, apsw.NotADBError), "corrupt"),
    ((apsw.NoMemError, apsw.InterruptError, apsw.MisuseError, apsw.InternalError), "other"),
)
_REMEDIES = {
    "corrupt": ": keep a copy of it with the -wal and .spool beside it, check the disk, and put back a backup "
    "(`relay queue backup` makes them)",
    "full": ": make room on that disk",
}


def _reason(error: apsw.Error, system_error: int = 0) -> str | None:
    """What is wrong with the machine, or None when the operation itself is at fault."""
    if system_error in (errno.ENOSPC, errno.EDQUOT) and isinstance(error, apsw.IOError):
        return "full"
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return reason
    return None


class _Transaction:
    """A transaction under way (`operations.Work`)."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def execute(self, name: str, bindings: Sequence[Any] = ()) -> Iterator[Row]:
        return self._connection.execute(STATEMENTS[name], bindings)

    def changed(self, name: str, bindings: Sequence[Any] = ()) -> int:
        self._connection.execute(STATEMENTS[name], bindings)
        return self._connection.changes()

    def insert(self, name: str, rows: Sequence[Row]) -> None:
        statements = INSERTS[name]
        done, left = 0, len(rows)
        while left:
            size = min(left, LARGEST)
            values = tuple(chain.from_iterable(rows[done : done + size]))
            self._connection.execute(statements[size], values)
            done += size
            left -= size

    def keys(self, keys: Iterable[int]) -> object:
        return apsw.carray(array("q", keys) or _NO_KEYS)

    def end(self, keys: Sequence[int], *, overwrite: bool) -> None:
        if overwrite:
            self._connection.execute("PRAGMA secure_delete = ON")
        try:
            self._connection.execute(STATEMENTS["delete_entries"], (self.keys(keys),))
        finally:
            if overwrite:
                self._connection.execute("PRAGMA secure_delete = OFF")

    def mend(self, mend: Mend) -> Count:
        """The disk says what the books say, and then is counted."""
        if mend.undone:
            self.execute("untell", (self.keys(mend.undone),))
            self.end(mend.undone, overwrite=True)
            self.execute("delete_attempts", (self.keys(mend.undone),))
            self.execute("delete_history", (self.keys(mend.undone),))
            self.execute("not_summarised", (self.keys(mend.undone),))
        self.execute("withhold", (self.keys(mend.withheld),))
        leased = self.keys([*(kept.key for kept in mend.leased), *mend.withheld])
        self.execute("lose_leases", (self.keys(mend.uncounted), leased))
        for kept in mend.leased:
            self.execute("keep_lease", (kept.attempts, kept.route, kept.wish, kept.key))
            self.execute("keep_recipients", (self.keys(kept.pending), kept.key))
        return Count(found_recipients(self, leased=False), next(self.execute("octets_not_leased"))[0])


class Database:
    """The thread's side (`grouped.Disk`). Every method but the reading ones runs on the writer thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: apsw.Connection | None = None
        self._reader: apsw.Connection | None = None
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="queue-reader")
        self._log_pages = 0
        self._doubted = False

    def open(self) -> apsw.Connection:
        """The writing connection, opened if need be; raises apsw.Error.

        After an I/O error nothing is committed before the whole log is in the database.
        """
        if self._connection is None:
            connection = apsw.Connection(str(self.path), statementcachesize=CACHED)
            try:
                connection.set_busy_timeout(BUSY_MILLISECONDS)
                connection.create_scalar_function("is_text", is_text, 1, deterministic=True)
                connection.create_scalar_function("plain", plain, 1, deterministic=True)
                connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA wal_autocheckpoint = 0")
                connection.execute("PRAGMA journal_size_limit = 67108864")
                connection.execute("PRAGMA cache_size = -8192")
                # What a failed commit or a dead process left in the log goes (session codes, too).
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.Error as error:
                # Somebody reads, or there is no room for the copy: the log is emptied later.
                if self._doubted or not isinstance(error, apsw.BusyError | apsw.FullError):
                    connection.close(True)
                    raise
            self._doubted = False
            self._log_pages = 0
            self._connection = connection
        return self._connection

    def commit(self, operations: list[Operation[Any]], mend: Mend | None) -> Report:
        """One transaction, durable on return unless the report says otherwise. Never raises."""
        start = time.perf_counter()
        try:
            connection = self.open()
            mended = self._begin(connection, mend)
            try:
                run_all(operations, _Transaction(connection))
            except Exception as error:  # a dead thread would leave every caller waiting
                if isinstance(error, apsw.Error) and _reason(error, connection.system_errno) is not None:
                    raise
                mended = self._one_by_one(connection, operations, mend)
            connection.execute("COMMIT")
            for operation in operations:
                if isinstance(operation, Wipe):
                    operation.done = self._empty_log(connection)
        except apsw.Error as error:
            reason, sure = self._give_up(error)
            text = f"{self.path.name}: {error}"
            return Report(operations, time.perf_counter() - start, None, (reason, text), sure)
        return Report(operations, time.perf_counter() - start, mended)

    def _begin(self, connection: apsw.Connection, mend: Mend | None) -> Count | None:
        connection.execute("BEGIN IMMEDIATE")
        return None if mend is None else _Transaction(connection).mend(mend)

    def _one_by_one(
        self, connection: apsw.Connection, operations: list[Operation[Any]], mend: Mend | None
    ) -> Count | None:
        """The batch failed because of one of its operations: only that one fails."""
        connection.execute("ROLLBACK")
        mended = self._begin(connection, mend)
        for operation in operations:
            error = self._alone(connection, operation)
            if error is not None and isinstance(operation, Take):
                # One row that nobody can make sense of must not keep the others from being taken.
                operation.damaged = set_aside_damaged(_Transaction(connection), leased=False)
                error = self._alone(connection, operation) if operation.damaged else error
            if error is not None:
                operation.error = StoreUnavailable("other", f"not storable: {type(error).__name__}")
        return mended

    def _alone(self, connection: apsw.Connection, operation: Operation[Any]) -> Exception | None:
        """Carry it out; what it does is undone when it fails by itself."""
        connection.execute("SAVEPOINT one")
        failed: Exception | None = None
        try:
            run_all([operation], _Transaction(connection))
        except Exception as error:  # as above
            if isinstance(error, apsw.Error) and _reason(error, connection.system_errno) is not None:
                raise
            connection.execute("ROLLBACK TO one")
            failed = error
        connection.execute("RELEASE one")
        return failed

    def _give_up(self, error: apsw.Error) -> tuple[str, bool]:
        """Roll back; after anything but a full disk or a locked database, close as well.

        What it is called, and whether nothing of the transaction is on the disk for sure: also the sync of a commit may
        fail for want of room.
        """
        connection = self._connection
        reason = _reason(error, 0 if connection is None else connection.system_errno) or "other"
        sure = isinstance(error, apsw.FullError | apsw.BusyError | apsw.LockedError)
        if connection is not None:
            try:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if reason == "full":
                    self._log_pages = CHECKPOINT_PAGES  # once it is copied, its room is used again
                if sure:
                    return reason, True
            except apsw.Error:
                reason = "io" if sure else reason
            self._close_in_doubt()
            sure = False
        return reason, sure

    def _close_in_doubt(self) -> None:
        """What it said is not believed any more, before it is opened anew."""
        connection, self._connection = self._connection, None
        self._doubted = True
        if connection is not None:
            with contextlib.suppress(apsw.Error):
                connection.close(True)

    def _empty_log(self, connection: apsw.Connection) -> bool:
        """After a commit, which stands whatever becomes of this."""
        done = self._checkpoint(connection, apsw.SQLITE_CHECKPOINT_TRUNCATE)
        if done:
            self._log_pages = 0
        return done

    def afterwards(self) -> None:
        connection = self._connection
        if connection is None:
            return
        self._log_pages += connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE, True)[0]
        if self._log_pages >= CHECKPOINT_PAGES:
            self._log_pages = 0
            self._checkpoint(connection, apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _checkpoint(self, connection: apsw.Connection, mode: int) -> bool:
        """Copy the log to the database. A failing disk shows at the next commit, where somebody is told: it opens the
        database anew, and does this first."""
        try:
            connection.wal_checkpoint(mode=mode)
        except (apsw.BusyError, apsw.FullError):
            return False  # the log is good, and longer for a while
        except apsw.Error:
            self._close_in_doubt()
            return False
        return True

    def close(self) -> None:
        """Close both connections: the last one copies the log to the database and removes it."""
        self._reading.shutdown(wait=True)
        for connection in (self._reader, self._connection):
            if connection is not None:
                with contextlib.suppress(apsw.Error):
                    connection.close(True)
        self._reader = self._connection = None

    async def read(self, look: Callable[[Work], T]) -> T:
        """`look` on the reading thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reading, self._look, look)
        except RuntimeError:  # the thread has ended
            raise StoreUnavailable("other", "the queue is closed") from None

    def _look(self, look: Callable[[Work], T]) -> T:
        try:
            if self._reader is None:
                self._reader = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
                self._reader.set_busy_timeout(BUSY_MILLISECONDS)
                self._reader.execute("PRAGMA query_only = ON")
                self._reader.execute("PRAGMA wal_autocheckpoint = 0")
                self._reader.execute("PRAGMA cache_size = -2048")
            self._reader.execute("BEGIN")
            try:
                return look(_Transaction(self._reader))
            finally:
                self._reader.execute("COMMIT")
        except (apsw.Error, UnicodeDecodeError) as error:
            reader, self._reader = self._reader, None
            with contextlib.suppress(apsw.Error):
                if reader is not None:
                    reader.close(True)
            reason = _reason(error) if isinstance(error, apsw.Error) else "corrupt"
            raise StoreUnavailable(reason or "other", f"{self.path.name}: {error}") from None

    def save(self, path: Path, spool: Spool, stop: Callable[[], bool]) -> Saved:
        """A copy at `path`, over a connection of its own."""
        target = Target(path.absolute())
        with target.begun(), spool.kept():
            try:
                with contextlib.closing(apsw.Connection(str(target.made))) as made:
                    made.execute(f"PRAGMA page_size = {PAGE_SIZE}")
                    _migrate(made, target.made)
                with contextlib.closing(apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)) as both:
                    both.set_busy_timeout(BUSY_MILLISECONDS)
                    both.execute("PRAGMA wal_autocheckpoint = 0")
                    both.execute("ATTACH ? AS copy", (str(target.made),))
                    # What a crash leaves of it is thrown away; `finish` makes it durable.
                    both.execute("PRAGMA copy.journal_mode = OFF")
                    both.execute("PRAGMA copy.synchronous = OFF")

                    def transaction(work: Callable[[Work], None]) -> None:
                        both.execute("BEGIN")
                        work(_Transaction(both))
                        both.execute("COMMIT")

                    saved = copy(transaction, target, spool, stop)
            except apsw.Error as error:
                raise StoreUnavailable(_reason(error) or "other", f"{path}: {error}") from None
            target.finish()
        return saved


class SqliteStore(GroupedStore):
    """A QueueStore in one SQLite file, with `<file>.lock` and `<file>.spool` beside it."""

    _lock: Lock

    @classmethod
    async def open(
        cls,
        path: Path | str,
        *,
        observer: Observer,
        min_free: int = 200 * 1024 * 1024,
        history: timedelta | None = timedelta(days=14),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> SqliteStore:
        """The store at `path`, made if it is not there; leases of a dead process are taken back.

        `history` None: what becomes of finished mail is not recorded (see `keep_history`).
        Raises StoreInUse, StoreTooNew and StoreUnavailable. Emits EntriesFound, EntrySetAside for entries whose
        spool file is gone, and what operators had wished of entries that were leased.
        """
        begin = partial(_open, Path(path), microseconds(now()), history=history is not None)
        lock, database, spool, found = await asyncio.get_running_loop().run_in_executor(None, begin)
        books = Books(observer)
        books.open(found.ledger, found.octets, found.aside, found.changes)
        store = cls(
            database,
            spool=spool,
            books=books,
            last_key=found.last_key,
            observer=observer,
            directory=database.path.parent,
            min_free=min_free,
            history=history,
            now=now,
        )
        store._lock = lock
        if any(change.gone and change.session_code for change in found.changes):
            store._wipe_soon()
        observer.observe(EntriesFound(found.entries, books.ledger.found, found.leases))
        return store

    def _close_files(self) -> None:
        try:
            super()._close_files()
        finally:
            self._lock.release()


def _open(path: Path, now: int, *, history: bool) -> tuple[Lock, Database, Spool, Found]:
    path = path.absolute()
    with contextlib.ExitStack() as undo:
        try:
            make_folder(path.parent)
            lock = Lock.acquire(path)
            undo.callback(lock.release)
            _make(path)
            spool = Spool(path.with_name(path.name + ".spool"))
            undo.callback(spool.close)
            leave_to_owner(path, path.with_name(path.name + ".lock"), path.with_name(path.name + ".spool"))
            database = Database(path)
            undo.callback(database.close)
            connection = database.open()
            _migrate(connection, path)
            found, orphans = _look_around(connection, spool, now, history=history)
            spool.remove_now(orphans)
        except apsw.Error as error:
            reason = _reason(error) or "other"
            raise StoreUnavailable(reason, f"{path}: {error}{_REMEDIES.get(reason, '')}") from None
        except OSError as error:
            reason = "full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "io"
            raise StoreUnavailable(reason, f"{path}: {error.strerror}") from None
        undo.pop_all()
        return lock, database, spool, found


def _look_around(connection: apsw.Connection, spool: Spool, now: int, *, history: bool) -> tuple[Found, set[str]]:
    try:
        with connection:
            found = look_around(_Transaction(connection), spool, now, history=history)
    except UnicodeDecodeError:
        with connection:
            found = look_around(_Transaction(connection), spool, now, history=history, doubtful=True)
    return found


def _make(path: Path) -> None:
    """An empty file, 0600: SQLite gives the log and its index the mode of the database."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _migrate(connection: apsw.Connection, path: Path) -> None:
    steps = migrations()
    version = connection.pragma("user_version")
    if not isinstance(version, int) or version > len(steps):
        raise StoreTooNew(
            f"{path} was written by a newer relay (layout {version}, this one knows {len(steps)}): "
            "install that version again, or start with another file"
        )
    for step in range(version, len(steps)):
        with connection:
            connection.execute(steps[step])
            connection.execute(f"PRAGMA user_version = {step + 1}")
