"""The disk as it is after a power cut: what `shims/powercut.c` wrote down, carried out again and cut off.

What was synced is there: octets of a file after fsync or fdatasync of the file, names after one of their folder. Of
all else a disk may keep any part: nothing (`loses_all`), everything (`keeps_all`), or what chance says, page by page
and name by name (`keeps_some`). SQLite's `-shm` is no file of the disk: it is made anew.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

PAGE = 4096
_RECORD = struct.Struct("<BBHHHQQQ")
_CREATED, _EMPTIED, _FOLDER = 1, 2, 4

Keeps = Callable[[], bool]
"""Asked for each page and each name that was not synced."""


def loses_all() -> bool:
    return False


def keeps_all() -> bool:
    return True


def keeps_some(chance: random.Random) -> Keeps:
    """Each with the same likelihood, which is chosen first."""
    likelihood = chance.random()
    return lambda: chance.random() < likelihood


@dataclass(frozen=True, slots=True)
class Record:
    """One call. `end` is where the journal ends with it."""

    what: str
    flags: int
    path: str
    path2: str
    file: int
    at: int
    length: int
    octets: bytes
    end: int


def records(path: Path) -> list[Record]:
    """The whole ones: the last may be cut off, when the process was killed."""
    return list(_records(path.read_bytes()))


def _records(journal: bytes) -> Iterator[Record]:
    end = 0
    while end + _RECORD.size <= len(journal):
        what, flags, path, path2, _, file, at, length = _RECORD.unpack_from(journal, end)
        first = end + _RECORD.size
        second, third = first + path, first + path + path2
        end = third + (length if chr(what) == "W" else 0)
        if end > len(journal):
            return
        names = journal[first:second].decode(), journal[second:third].decode()
        yield Record(chr(what), flags, *names, file, at, length, journal[third:end], end)


@dataclass(slots=True, eq=False)
class File:
    """`safe` is what was synced; `changes` came later: an offset and octets, or a length and None."""

    safe: bytearray = field(default_factory=bytearray)
    changes: list[tuple[int, bytes | None]] = field(default_factory=list)
    begun: dict[int, int] = field(default_factory=dict)  # syncs: how many of the changes each covers

    def sync(self, number: int) -> None:
        covered = self.begun.pop(number)
        for at, octets in self.changes[:covered]:
            _change(self.safe, at, octets)
        del self.changes[:covered]
        self.begun = {other: max(0, count - covered) for other, count in self.begun.items()}

    def after(self, keeps: Keeps) -> bytes:
        content = bytearray(self.safe)
        for at, octets in self.changes:
            for start, piece in _pages(at, octets):
                if keeps():
                    _change(content, start, piece)
        return bytes(content)


@dataclass(slots=True, eq=False)
class Folder:
    """As `File`, with names: each change takes names away (None) or gives them."""

    safe: dict[str, File | Folder] = field(default_factory=dict)
    changes: list[dict[str, File | Folder | None]] = field(default_factory=list)
    begun: dict[int, int] = field(default_factory=dict)
    now: dict[str, File | Folder] = field(default_factory=dict)

    def change(self, names: dict[str, File | Folder | None]) -> None:
        self.changes.append(names)
        _rename(self.now, names)

    def sync(self, number: int) -> None:
        covered = self.begun.pop(number)
        for names in self.changes[:covered]:
            _rename(self.safe, names)
        del self.changes[:covered]
        self.begun = {other: max(0, count - covered) for other, count in self.begun.items()}

    def after(self, keeps: Keeps) -> dict[str, File | Folder]:
        names = dict(self.safe)
        for change in self.changes:
            if keeps():
                _rename(names, change)
        return names


class Disk:
    """What lies beneath the folder, which was empty and is safe itself."""

    def __init__(self) -> None:
        self._root = Folder()
        self._by_number: dict[int, File | Folder] = {}

    def apply(self, record: Record) -> None:
        there = self._by_number.get(record.file)
        match record.what:
            case "O" if record.path == "":
                self._by_number[record.file] = self._root
            case "O" if record.flags & _CREATED:
                self._create(record)
            case "O":
                assert there is not None, f"{record.path} is older than the journal"
                if record.flags & _EMPTIED and isinstance(there, File):
                    there.changes.append((0, None))
            case "M":
                self._create(record)
            case "W" if isinstance(there, File):
                there.changes.append((record.at, record.octets))
            case "T" if isinstance(there, File):
                there.changes.append((record.length, None))
            case "B" if there is not None:
                there.begun[record.at] = len(there.changes)
            case "S" if there is not None:
                there.sync(record.at)
            case "U":
                folder, name = self._place(record.path)
                folder.change({name: None})
            case "R":
                folder, name = self._place(record.path)
                folder2, name2 = self._place(record.path2)
                assert folder is folder2, f"{record.path} goes to another folder"
                folder.change({name: None, name2: folder.now[name]})
            case _:
                raise AssertionError(f"the journal has a call that nobody here knows: {record.what} {record.path}")

    def _create(self, record: Record) -> None:
        folder, name = self._place(record.path)
        new: File | Folder = Folder() if record.what == "M" or record.flags & _FOLDER else File()
        folder.change({name: new})
        self._by_number[record.file] = new

    def _place(self, path: str) -> tuple[Folder, str]:
        folder = self._root
        parts = PurePosixPath(path).parts[1:]
        for part in parts[:-1]:
            inner = folder.now[part]
            assert isinstance(inner, Folder)
            folder = inner
        return folder, parts[-1]

    def cut(self, where: Path, keeps: Keeps) -> None:
        """Make the folder `where`, as the disk is after a power cut now."""
        _lay_out(self._root, where, keeps)


def _lay_out(folder: Folder, where: Path, keeps: Keeps) -> None:
    where.mkdir(mode=0o700)
    for name, there in folder.after(keeps).items():
        if isinstance(there, Folder):
            _lay_out(there, where / name, keeps)
        elif not name.endswith("-shm"):
            path = where / name
            path.touch(mode=0o600)
            path.write_bytes(there.after(keeps))


def _change(content: bytearray, at: int, octets: bytes | None) -> None:
    """Write at an offset, or make it as long as that (None). What was never written is zeros."""
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    if octets is None:
        del content[at:]
    else:
        content[at : at + len(octets)] = octets


def _pages(at: int, octets: bytes | None) -> Iterator[tuple[int, bytes | None]]:
    if octets is None:
        yield at, None
        return
    start = 0
    while start < len(octets):
        end = min(len(octets), start + PAGE - (at + start) % PAGE)
        yield at + start, octets[start:end]
        start = end


def _rename(names: dict[str, File | Folder], change: dict[str, File | Folder | None]) -> None:
    for name, there in change.items():
        if there is None:
            names.pop(name, None)
        else:
            names[name] = there
