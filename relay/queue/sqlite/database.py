"""The database of the store we ship: SQLite in WAL mode with synchronous=FULL, one writer thread (`disk.Disk`).

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
import ctypes
import errno
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import apsw

from relay.errors import OtherLayout, RelayError, StoreUnavailable
from relay.queue.disk import Mend, Operation, Report, Work, run_all
from relay.queue.ledger import Count
from relay.queue.listing import Saved
from relay.queue.operations.lease import Take
from relay.queue.operations.walk import Wipe
from relay.queue.spool import Spool
from relay.queue.sqlite.backup import Target, copy, copy_tokens
from relay.queue.sqlite.damage import is_text, plain, set_aside_damaged
from relay.queue.sqlite.lock import Lock
from relay.queue.sqlite.marks import Marks
from relay.queue.sqlite.statements import CACHED, read
from relay.queue.sqlite.transaction import Transaction, Turns
from relay.queue.sqlite.watch import Watch

P = ParamSpec("P")
T = TypeVar("T")

SQLITE_VERSION = apsw.sqlite_lib_version()

LAYOUT = 7  # the number of `schema.sql`
PAGE_SIZE = 4096  # of a new queue
LONGEST_LOG = 16 * 2**20  # octets: then it is copied to the database, while no caller waits
LOOK_EVERY = 0.9  # seconds; a little less than `afterwards` comes
BUSY_MILLISECONDS = 1000  # another process may hold the database for a moment (a backup, a shell)

_REASONS: tuple[tuple[tuple[type[apsw.Error], ...], str], ...] = (
    ((apsw.FullError,), "full"),
    ((apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.ProtocolError), "io"),
    ((apsw.BusyError, apsw.LockedError), "busy"),
    ((apsw.CorruptError, apsw.NotADBError), "corrupt"),
    ((apsw.NoMemError, apsw.InterruptError, apsw.MisuseError, apsw.InternalError), "other"),
)


def reason_of(error: apsw.Error, system_error: int = 0) -> str | None:
    """What is wrong with the machine, or None when the operation itself is at fault."""
    if system_error in (errno.ENOSPC, errno.EDQUOT) and isinstance(error, apsw.IOError):
        return "full"
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return reason
    return None


class Database:
    """A `Disk`; it holds `lock`, and lets go of it when it is closed."""

    def __init__(self, path: Path, lock: Lock, watch: Watch) -> None:
        self.path = path
        self._lock = lock
        self._watch = watch
        self._marks = Marks()
        self._moved: StoreUnavailable | None = None  # what the last look found
        self._look_again_at = 0.0
        self._turns: Turns = {}
        self._connection: apsw.Connection | None = None
        self._reader: apsw.Connection | None = None
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="queue-reader")
        self._logged = 0  # octets of the log since it was copied last
        self._page_size = PAGE_SIZE
        self._doubted = False

    def open(self) -> apsw.Connection:
        """The writing connection, opened if need be; raises apsw.Error and StoreUnavailable ("moved").

        After an I/O error nothing is committed before the whole log is in the database.
        """
        if self._connection is None:
            self._watch.named()
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
            self._connection = connection
            self._marks.begin(connection)
            self._watch.opened()
            self._doubted = False
            self._logged = 0
            self._page_size = connection.pragma("page_size")
        return self._connection

    def commit(self, operations: list[Operation[Any]], mend: Mend | None) -> Report:
        """One transaction, durable on return unless the report says otherwise. Never raises."""
        start = time.perf_counter()
        try:
            connection = self.open()
            carried_out = self._possible(operations)
            mended = self._begin(connection, mend)
            try:
                run_all(carried_out, Transaction(connection, self._turns))
            except Exception as error:
                if isinstance(error, apsw.Error) and reason_of(error, connection.system_errno) is not None:
                    raise
                mended = self._one_by_one(connection, carried_out, mend)
            connection.execute("COMMIT")
            if self._moved is None:
                self._watch.wrote(self._log_is_ours)
                self._marks.committed(connection)
            for operation in operations:
                if isinstance(operation, Wipe):
                    operation.done = self._empty_log(connection)
        except StoreUnavailable as moved:
            self._look_again_at = 0.0
            return Report(operations, time.perf_counter() - start, None, (moved.reason, str(moved)), sure=False)
        except Exception as error:  # noqa: BLE001  # a dead thread would leave every caller waiting
            reason, sure = self._give_up(error)
            text = f"{self.path.name}: {error if isinstance(error, apsw.Error) else repr(error)}"
            return Report(operations, time.perf_counter() - start, None, (reason, text), sure)
        return Report(operations, time.perf_counter() - start, mended)

    def _possible(self, operations: list[Operation[Any]]) -> list[Operation[Any]]:
        """All of them; where the database was taken away, those that promise nothing, and the others have failed."""
        if self._moved is None:
            self._look(everything=any(operation.refused_file for operation in operations))
        if self._moved is None:
            return operations
        for operation in operations:
            if operation.promises:
                operation.error = self._moved
        return [operation for operation in operations if operation.error is None]

    def _look(self, *, everything: bool) -> None:
        try:
            self._watch.look(self._is_ours, self._log_is_ours, everything=everything)
        except StoreUnavailable as moved:
            self._moved = moved
        else:
            self._moved = None

    def know(self, connection: apsw.Connection) -> None:
        """Its tables are there: by its marks it is known again."""
        self._marks.know(connection)
        self._checkpoint(connection, apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def _is_ours(self) -> bool:
        """Whether the file of the database is this one, and no older copy; where it is closed, it is looked at once it
        is open."""
        return self._connection is None or self._marks.are_in_database(self._connection)

    def _log_is_ours(self) -> bool:
        return self._connection is None or self._marks.are_in_log(self._connection)

    def _begin(self, connection: apsw.Connection, mend: Mend | None) -> Count | None:
        connection.execute("BEGIN IMMEDIATE")
        self._marks.give(connection)
        return None if mend is None else Transaction(connection).mend(mend)

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
                operation.damaged = set_aside_damaged(Transaction(connection), leased=False)
                error = self._alone(connection, operation) if operation.damaged else error
            if error is not None:
                operation.error = StoreUnavailable("other", f"not storable: {type(error).__name__}")
        return mended

    def _alone(self, connection: apsw.Connection, operation: Operation[Any]) -> Exception | None:
        """Carry it out; what it does is undone when it fails by itself."""
        connection.execute("SAVEPOINT one")
        failed: Exception | None = None
        try:
            run_all([operation], Transaction(connection, self._turns))
        except Exception as error:
            if isinstance(error, apsw.Error) and reason_of(error, connection.system_errno) is not None:
                raise
            connection.execute("ROLLBACK TO one")
            failed = error
        connection.execute("RELEASE one")
        return failed

    def _give_up(self, error: Exception) -> tuple[str, bool]:
        """Roll back; after anything but a full disk or a locked database, close as well.

        What it is called, and whether nothing of the transaction is on the disk for sure: also the sync of a commit may
        fail for want of room.
        """
        connection = self._connection
        system_error = 0 if connection is None else connection.system_errno
        reason = (reason_of(error, system_error) if isinstance(error, apsw.Error) else None) or "other"
        sure = isinstance(error, apsw.FullError | apsw.BusyError | apsw.LockedError)
        if connection is not None:
            try:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if reason == "full":
                    self._logged = LONGEST_LOG  # once it is copied, its room is used again
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
            self._let_go(connection)

    def _let_go(self, connection: apsw.Connection) -> None:
        with contextlib.suppress(apsw.Error):
            if self._moved is not None:
                _keep_names(connection)
            connection.close(True)

    def _empty_log(self, connection: apsw.Connection) -> bool:
        """After a commit, which stands whatever becomes of this."""
        done = self._checkpoint(connection, apsw.SQLITE_CHECKPOINT_TRUNCATE)
        if done:
            self._logged = 0
        return done

    def afterwards(self) -> str:
        connection, now = self._connection, time.monotonic()
        if connection is not None:
            if now >= self._look_again_at:
                self._look_again_at = now + LOOK_EVERY
                self._look(everything=True)
            self._logged += connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE, True)[0] * self._page_size
            if self._logged >= LONGEST_LOG:
                self._logged = 0
                self._checkpoint(connection, apsw.SQLITE_CHECKPOINT_PASSIVE)
        return str(self._moved or "")

    def _checkpoint(self, connection: apsw.Connection, mode: int) -> bool:
        """Copy the log to the database. A failing disk shows at the next commit, where somebody is told: it opens the
        database anew, and does this first."""
        self._look(everything=False)
        if self._moved is not None:
            return False  # what is left of it stays as it is
        try:
            connection.wal_checkpoint(mode=mode)
            self._marks.checkpointed(connection)
            self._watch.wrote(self._log_is_ours)
        except StoreUnavailable:
            return False  # the next look says so
        except (apsw.BusyError, apsw.FullError):
            return False  # the log is good, and longer for a while
        except apsw.Error:
            self._close_in_doubt()
            return False
        return True

    def close(self) -> None:
        """Idempotent. The last connection to be closed copies the log to the database and removes it."""
        self._reading.shutdown(wait=True)
        if self._connection is not None:
            self._look(everything=True)
        for connection in (self._reader, self._connection):
            if connection is not None:
                self._let_go(connection)
        self._reader = self._connection = None
        self._lock.release()

    async def read(self, look: Callable[Concatenate[Work, P], T], *args: P.args, **named: P.kwargs) -> T:
        def bound(work: Work) -> T:
            return look(work, *args, **named)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._reading, self._read, bound)
        except RuntimeError:  # the thread has ended
            raise StoreUnavailable("other", "the queue is closed") from None

    def _read(self, look: Callable[[Work], T]) -> T:
        try:
            reader = self._open_reader()
            reader.execute("BEGIN")
            try:
                return look(Transaction(reader))
            finally:
                reader.execute("COMMIT")
        except (apsw.Error, UnicodeDecodeError) as error:
            self._close_reader()
            reason = reason_of(error) if isinstance(error, apsw.Error) else "corrupt"
            raise StoreUnavailable(reason or "other", f"{self.path.name}: {error}") from None

    def _open_reader(self) -> apsw.Connection:
        if self._reader is None:
            self._watch.named()
            self._reader = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
            self._reader.set_busy_timeout(BUSY_MILLISECONDS)
            self._reader.execute("PRAGMA query_only = ON")
            self._reader.execute("PRAGMA wal_autocheckpoint = 0")
            self._reader.execute("PRAGMA cache_size = -2048")
        return self._reader

    def _close_reader(self) -> None:
        """It is opened anew, unless it could not be: then it is all there is."""
        reader = self._reader
        if reader is None:
            return
        with contextlib.suppress(apsw.Error):
            if self._moved is None:
                self._reader = None
                reader.close(True)
            elif reader.in_transaction:
                reader.execute("ROLLBACK")

    def save(self, path: Path, spool: Spool, stop: Callable[[], bool]) -> Saved:
        """A copy at `path`, by the connection that reads, a slice between two looks: no other can be opened where the
        database was taken away."""
        target = Target(path.absolute())

        def on_reader(step: Callable[[apsw.Connection], None]) -> None:
            self._reading.submit(lambda: step(self._open_reader())).result()

        def transaction(work: Callable[[Work], None]) -> None:
            on_reader(partial(_written, work))

        with target.begun(), spool.kept():
            try:
                with contextlib.closing(apsw.Connection(str(target.made))) as made:
                    made.execute(f"PRAGMA page_size = {PAGE_SIZE}")
                    lay_out(made, target.made)
                try:
                    on_reader(partial(_attach, target.made))
                    saved = copy(transaction, target, spool, stop)
                finally:
                    on_reader(_detach)
            except apsw.FullError as error:  # nothing else is written than the copy
                raise RelayError(f"{path}: the backup cannot be written: {error}") from None
            except apsw.Error as error:
                raise StoreUnavailable(reason_of(error) or "other", f"{path}: {error}") from None
            copy_tokens(self.path, target)
            target.finish()
        return saved


def _attach(path: Path, reader: apsw.Connection) -> None:
    reader.execute("ATTACH ? AS copy", (str(path),))
    # What a crash leaves of it is thrown away; `Target.finish` makes it durable.
    reader.execute("PRAGMA copy.journal_mode = OFF")
    reader.execute("PRAGMA copy.synchronous = OFF")


def _written(work: Callable[[Work], None], reader: apsw.Connection) -> None:
    """Into the copy; questions only read."""
    reader.execute("PRAGMA query_only = OFF")
    try:
        reader.execute("BEGIN")
        work(Transaction(reader))
        reader.execute("COMMIT")
    finally:
        if reader.in_transaction:
            reader.execute("ROLLBACK")
        reader.execute("PRAGMA query_only = ON")


def _detach(reader: apsw.Connection) -> None:
    if "copy" in [name for _, name, _ in reader.execute("PRAGMA database_list")]:
        reader.execute("DETACH copy")


def _keep_names(connection: apsw.Connection) -> None:
    """Who closes the last connection removes the log by its name, which may be somebody else's now."""
    flag = ctypes.c_int(1)
    connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(flag))


def lay_out(connection: apsw.Connection, path: Path) -> None:
    """Make the tables in an empty database; one of another layout is refused (OtherLayout)."""
    version = cast("int", connection.pragma("user_version"))
    if version == 0 and not connection.pragma("schema_version"):
        with connection:
            connection.execute(read("schema.sql"))
            connection.execute(f"PRAGMA user_version = {LAYOUT}")
            connection.execute(f"PRAGMA application_id = {secrets.randbits(31)}")
    elif version != LAYOUT:
        raise OtherLayout(
            f"{path} was written by {'an older' if version < LAYOUT else 'a newer'} relay (layout {version}, this one "
            f"knows {LAYOUT}): install that version again, or start with another file"
        )
