"""The control of a machine that fails as told (`shims/faults.c`); a process gets it by its environment.

    with Faults.made(folder, build(folder)) as faults:
        async with Process.serving(site, **faults.environment) as relay:
            rule = faults.rule("sync", "*/queue.db-wal", errno.EIO, times=1)
            …
            assert rule.hits == 1
            rule.end()
            faults.shift(timedelta(days=30))     # the wall clock; the monotonic one goes on

`tests/torture/disk.py` reads what `RELAY_FAULTS_LOG` noted.
"""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

SOURCE = Path(__file__).with_name("shims") / "faults.c"
_RULES = 16
_SHIFT = struct.Struct("q")
_RULE = struct.Struct("16s208siiiIii")
_HITS = _RULE.size - 8
_ON = _RULE.size - 4


def build(folder: Path) -> Path:
    """The shim, made in `folder`."""
    built = folder / "faults.so"
    flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
    subprocess.run(["gcc", *flags, str(SOURCE), "-o", str(built), "-ldl", "-pthread"], check=True)
    return built


@dataclass(frozen=True, slots=True)
class Rule:
    """One that was given, until `end`."""

    page: mmap.mmap
    at: int

    @property
    def hits(self) -> int:
        """How often it has spoken."""
        (hits,) = struct.unpack_from("i", self.page, self.at + _HITS)
        return int(hits)

    def end(self) -> None:
        struct.pack_into("i", self.page, self.at + _ON, 0)


class Faults:
    """See the top of the module."""

    def __init__(self, folder: Path, library: Path, page: mmap.mmap) -> None:
        self._page = page
        self.log = folder / "faults.log"
        self.environment = {"LD_PRELOAD": str(library), "RELAY_FAULTS": str(folder / "faults")}
        self.logged = {**self.environment, "RELAY_FAULTS_LOG": str(self.log)}

    @classmethod
    @contextmanager
    def made(cls, folder: Path, library: Path) -> Iterator[Faults]:
        path = folder / "faults"
        path.write_bytes(bytes(_SHIFT.size + _RULES * _RULE.size))
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        page = mmap.mmap(descriptor, 0)
        os.close(descriptor)
        yield cls(folder, library, page)
        page.close()

    def rule(
        self, call: str, path: str, error: int = 0, *, times: int = -1, skip: int = 0, delay: timedelta = timedelta()
    ) -> Rule:
        """At `call` (sync, write, read, open, rename, truncate) on a path like `path`, from now on."""
        for at in range(_SHIFT.size, len(self._page), _RULE.size):
            if not struct.unpack_from("i", self._page, at + _ON)[0]:
                milliseconds = round(delay.total_seconds() * 1000)
                _RULE.pack_into(self._page, at, call.encode(), path.encode(), error, skip, times, milliseconds, 0, 0)
                struct.pack_into("i", self._page, at + _ON, 1)
                return Rule(self._page, at)
        raise AssertionError("too many rules")

    def end(self) -> None:
        """All is well again, but for the clock."""
        for at in range(_SHIFT.size, len(self._page), _RULE.size):
            struct.pack_into("i", self._page, at + _ON, 0)

    def shift(self, by: timedelta) -> None:
        """The wall clock is off by so much from now on."""
        _SHIFT.pack_into(self._page, 0, round(by.total_seconds()) * 1_000_000_000)
