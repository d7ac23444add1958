"""What a disk holds after a sync that failed: not what was to be synced.

When writing a page fails, the kernel marks it clean all the same: reading it gives what was written, a later sync has
nothing to do and succeeds, and after a power cut it is gone. Only a page that is written again is dirty again. `lost`
follows the log of `faults.c` by that rule; `cut_power` takes from the files what the disk never had.
"""

from __future__ import annotations

from pathlib import Path

PAGE = 4096

Ranges = dict[int, list[tuple[int, int]]]
"""By the number of a page of the kernel, what was written there (from, to), counted over the file."""


def lost(log: Path, pattern: str) -> dict[Path, Ranges]:
    """What was written to files like `pattern` and is in the memory of the kernel only, though it counts as written."""
    dirty: dict[Path, Ranges] = {}
    gone: dict[Path, Ranges] = {}
    for line in log.read_text().splitlines():
        what, first, second, name = line.split("\t")
        path = Path(name)
        if not path.match(pattern):
            continue
        waiting, missing = dirty.setdefault(path, {}), gone.setdefault(path, {})
        match what:
            case "write":
                _write(waiting, missing, int(first), int(first) + int(second))
            case "truncate":
                for pages in (waiting, missing):
                    for page in [page for page in pages if page * PAGE >= int(first)]:
                        del pages[page]
            case "unsynced":
                for page, ranges in waiting.items():
                    missing.setdefault(page, []).extend(ranges)
                waiting.clear()
            case "synced":
                waiting.clear()
    return {path: pages for path, pages in gone.items() if pages}


def _write(dirty: Ranges, missing: Ranges, start: int, end: int) -> None:
    for page in range(start // PAGE, (end - 1) // PAGE + 1):
        ranges = dirty.setdefault(page, [])
        ranges += missing.pop(page, [])  # the whole page goes with it
        ranges.append((max(start, page * PAGE), min(end, (page + 1) * PAGE)))


def cut_power(log: Path, pattern: str) -> int:
    """Take it away; how many octets. For files that nobody has open."""
    taken = 0
    for path, pages in lost(log, pattern).items():
        if not path.exists():
            continue
        with path.open("r+b") as file:
            size = path.stat().st_size
            for start, end in (one for ranges in pages.values() for one in ranges):
                if start < size:
                    file.seek(start)
                    file.write(bytes(min(end, size) - start))
                    taken += min(end, size) - start
    return taken
