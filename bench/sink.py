"""A running sink (`sink.c`), what it has counted, and the distance to it (`delay.c`).

with Sink(programs, folder / "sink", offers) as sink:
    ...  # point a relay at sink.port
    print(sink.read().messages)
"""

from __future__ import annotations

import base64
import mmap
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.build import Programs

USER, PASSWORD = "relay", "secret"
_LOGIN = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
_COUNTERS = struct.Struct("8Q")


@dataclass(frozen=True, slots=True)
class Offers:
    """How the upstream is reached. `pem`: certificate and key; with it STARTTLS and AUTH PLAIN are asked for.

    `travel`: microseconds that every octet is on its way, half of a round trip.
    """

    chunking: bool = True
    pem: Path | None = None
    travel: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """The first fields of `struct counters`, in its order. `last`: nanoseconds, monotonic."""

    messages: int
    octets: int
    connections: int
    expected: int
    last: int
    most_open: int
    chunked: int
    logins: int

    def __sub__(self, before: Counts) -> Counts:
        """What came since; `last` and `most_open` are of now."""
        return Counts(
            self.messages - before.messages,
            self.octets - before.octets,
            self.connections - before.connections,
            self.expected - before.expected,
            self.last,
            self.most_open,
            self.chunked - before.chunked,
            self.logins - before.logins,
        )


class Sink:
    """`counters` is the file of its counters; `port` is what a relay connects to. `expect`: see `sink.c`."""

    def __init__(self, programs: Programs, counters: Path, offers: Offers, expect: str) -> None:
        self.counters = counters
        options = ["-e", expect]
        if offers.chunking:
            options.append("-c")
        if offers.pem is not None:
            options += ["-t", str(offers.pem), "-a", _LOGIN]
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            self.port = self._start(str(programs.sink), *options, str(counters))
            if offers.travel:
                self.port = self._start(str(programs.delay), str(self.port), str(offers.travel))
            with counters.open("rb") as file:
                self._memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        except BaseException:
            self.close()
            raise

    def _start(self, *command: str) -> int:
        """The port that it printed, as soon as it listens."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise OSError(f"{command[0]} did not start")
        return int(line)

    def read(self) -> Counts:
        """What it has counted until now."""
        return Counts(*_COUNTERS.unpack_from(self._memory))

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
