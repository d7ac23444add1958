"""Who has seen which message: a counter of one octet for each number, in a file that processes share."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path


class Ledger:
    """`count` messages, numbered from 0. One process writes, any may read."""

    def __init__(self, path: Path, count: int) -> None:
        """Opened where it is, made where it is not."""
        if not path.exists():
            path.write_bytes(bytes(count))
        with path.open("r+b") as file:
            self._counters = mmap.mmap(file.fileno(), count)

    def add(self, number: int) -> None:
        self._counters[number] = min(255, self._counters[number] + 1)

    def snapshot(self) -> bytes:
        return self._counters[:]


@dataclass(frozen=True, slots=True)
class Balance:
    """Messages. `duplicates`: arrivals beyond the first; `unasked`: arrived, but never acknowledged to the client."""

    acknowledged: int
    arrived: int
    missing: int
    duplicates: int
    unasked: int

    @classmethod
    def of(cls, acknowledged: bytes, arrived: bytes) -> Balance:
        seen = len(arrived) - arrived.count(0)
        pairs = list(zip(acknowledged, arrived, strict=True))
        return cls(
            len(acknowledged) - acknowledged.count(0),
            seen,
            sum(1 for said, came in pairs if said and not came),
            sum(arrived) - seen,
            sum(1 for said, came in pairs if came and not said),
        )
