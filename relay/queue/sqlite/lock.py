"""One process owns a store: a lock file of ours beside the database.

SQLite's own exclusive mode would shut out our reading connection as well. The kernel drops the
lock when the process dies, however it dies; the file stays, and what it says is for people.
"""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from relay.errors import StoreInUse


class Lock:
    """Held from `acquire` until `release`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, database: Path) -> Lock:
        """The lock of `database`; raises StoreInUse, naming who holds it, and OSError."""
        path = database.with_name(database.name + ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(os.pread(descriptor, 1024, 0))
            os.close(descriptor)
            raise StoreInUse(f"{database} is held by {holder}: stop that first") from None
        except OSError:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _ourselves().encode("utf-8", "replace"), 0)
        return cls(descriptor)

    @property
    def file(self) -> os.stat_result:
        """What is held."""
        assert self._descriptor is not None
        return os.fstat(self._descriptor)

    def release(self) -> None:
        """Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):  # a disk that cannot be written: the name of a dead process stays
                os.ftruncate(descriptor, 0)
            os.close(descriptor)


def _ourselves() -> str:
    """Process, start and command (the verb only: what follows it is nobody's business)."""
    words = [Path(sys.argv[0] or "python").name, *(word for word in sys.argv[1:2] if word.isalpha())]
    return f"{os.getpid()}\n{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n{' '.join(words)}\n"


def _holder(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").splitlines()
    if len(lines) < 3 or not lines[0].isdigit():
        return "another process"
    since, command = (line if line.isprintable() else "?" for line in lines[1:3])
    return f"process {lines[0]} ({command}, since {since})"
