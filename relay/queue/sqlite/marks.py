"""By what database and log are known as we left them, and not as an older copy of them that somebody put there.

In the log the checksum of a frame goes over all frames before it, so no other has what the last one has that was
committed; and whenever SQLite begins the log anew, it counts its first salt up by one (its "WAL-mode file format").
The database gets a new number in its head by the first commit behind a checkpoint, and the next checkpoint brings it
into the file. So a copy that differs has another number.
"""

from __future__ import annotations

import secrets
from contextlib import suppress

import apsw

from relay.values import frozen

_HEAD, _FRAME_HEAD = 32, 24  # octets of the log's head, and of what stands before each page in it


@frozen
class _Log:
    """The log behind a commit: its first salt, and where its last frame begins, with what."""

    salt: int
    offset: int
    frame: bytes


class Marks:
    """Those that the writing connection left; for its thread."""

    def __init__(self) -> None:
        self._log: _Log | None = None  # None: it was empty, or nobody knows
        self._frames = 0
        self._in_file: int | None = None  # the number of the database, unless all of it is in the log
        self._in_log = 0
        self._given = True  # the number in the log is committed there

    def begin(self, connection: apsw.Connection) -> None:
        """The connection is open, and the log as empty as it could be made."""
        self._log, self._frames = None, 0
        connection.set_wal_hook(self._logged)

    def _logged(self, _: apsw.Connection, __: str, frames: int) -> int:
        self._frames = frames
        return apsw.SQLITE_OK

    def know(self, connection: apsw.Connection) -> None:
        """The database has its tables, and nobody looked yet."""
        self._in_file, self._in_log = _number(connection), int(connection.pragma("application_id"))

    def give(self, connection: apsw.Connection) -> None:
        """In a transaction: whoever looks at the file behind the next checkpoint will know it."""
        if not self._given:
            connection.execute(f"PRAGMA application_id = {self._in_log}")

    def committed(self, connection: apsw.Connection) -> None:
        self._given, self._log = True, None
        with suppress(apsw.Error):
            head = _log(connection, 0, _HEAD)
            if head and self._frames:
                offset = _HEAD + (self._frames - 1) * (_FRAME_HEAD + int.from_bytes(head[8:12]))
                self._log = _Log(_salt(head), offset, _log(connection, offset, _FRAME_HEAD))

    def checkpointed(self, connection: apsw.Connection) -> None:
        """Raises apsw.Error."""
        if not _log(connection, 0, _HEAD):
            self._log = None
        if _number(connection) == self._in_log:
            self._in_file, self._in_log, self._given = self._in_log, secrets.randbits(31), False

    def are_in_log(self, connection: apsw.Connection) -> bool:
        """Also where it cannot be read: a disk that fails shows in what is written."""
        if self._log is None:
            return True
        try:
            salt = _salt(_log(connection, 0, _HEAD))
            if salt == self._log.salt:
                return _log(connection, self._log.offset, _FRAME_HEAD) == self._log.frame
        except apsw.Error:
            return True
        return salt == (self._log.salt + 1) % 2**32

    def are_in_database(self, connection: apsw.Connection) -> bool:
        """Also where it cannot be read."""
        try:
            return _number(connection) in (self._in_file, self._in_log)
        except apsw.Error:
            return True


def _number(connection: apsw.Connection) -> int | None:
    """The number in the head of the database's file; None where it is no database. Raises apsw.Error."""
    _, head = connection.read("main", 0, 0, 100)
    return int.from_bytes(head[68:72], signed=True) if head.startswith(b"SQLite format 3\0") else None


def _log(connection: apsw.Connection, offset: int, size: int) -> bytes:
    """What stands there in the log; b"" where it is shorter. Raises apsw.Error."""
    whole, octets = connection.read("main", 1, offset, size)
    return octets if whole else b""


def _salt(head: bytes) -> int:
    return int.from_bytes(head[16:20])
