"""A relay to be measured: how it is started, and what it costs while it runs.

    peer = relay.lay_out(folder, site)      # or postfix, or naive
    with Running(peer, folder) as running:
        print(running.cold, running.memory(), running.processor())

Processor time and memory are those of all its processes, which a control group (cgroup v2) of its own holds together.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ADDRESS = "relay@relay.example.com"  # what every peer has to put into From and the reverse-path
PATIENCE = 30.0
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Site:
    """Where a peer stands: the port to listen on, the upstream's, how many connections it may open to that.

    `ca`: the upstream asks for STARTTLS and AUTH PLAIN, and this file has who signed its certificate.
    """

    port: int
    upstream: int
    connections: int
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """`start` stays in the foreground; `stop`: a command that ends it, none where SIGTERM does."""

    name: str
    port: int
    start: tuple[str, ...]
    stop: tuple[str, ...] = ()


class Lacking(Exception):
    """Something that this machine would need, in a sentence."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Running:
    """A peer from its first 220 on. `cold`: milliseconds from its start until then."""

    def __init__(self, peer: Peer, folder: Path) -> None:
        self.peer = peer
        self._log = folder / f"{peer.name}.log"
        self._group = _groups() / f"relay-bench-{os.getpid()}-{peer.name}"
        self._process: subprocess.Popen[bytes] | None = None
        self.cold = 0.0
        self.start()

    def start(self) -> None:
        """Raises Lacking where it does not come up."""
        self._group.mkdir()
        try:
            self.cold = self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> float:
        into_group = ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._group / "cgroup.procs"))
        with self._log.open("ab") as log:
            begun = time.monotonic()
            self._process = subprocess.Popen(
                [*into_group, *self.peer.start],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not _greets(self.peer.port):
            if time.monotonic() > begun + PATIENCE or self._process.poll() is not None:
                said = self._log.read_text(errors="replace").strip().splitlines()
                raise Lacking(f"{self.peer.name} did not start: {said[-1] if said else 'it said nothing'}.")
            time.sleep(0.002)
        return (time.monotonic() - begun) * 1e3

    def stop(self) -> None:
        """All of its processes, by force in the end; nothing where it does not run."""
        if not self._group.exists():
            return
        if self.peer.stop:
            subprocess.run(self.peer.stop, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        for number in (signal.SIGTERM, signal.SIGKILL):
            end = time.monotonic() + 5
            for pid in self._pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            while self._pids() and time.monotonic() < end:
                if self._process is not None:
                    self._process.poll()
                time.sleep(0.02)
        if self._process is not None:
            self._process.kill()  # it may not have been in the group yet
            self._process.wait()
        self._group.rmdir()

    def _pids(self) -> list[int]:
        return [int(pid) for pid in (self._group / "cgroup.procs").read_text().split()]

    def processor(self) -> float:
        """Seconds that it has used, user and system."""
        lines = (self._group / "cpu.stat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("usage_usec")) / 1e6

    def memory(self) -> float:
        """MB that are resident; what processes share counts for each of them."""
        return sum(self._resident()) / 1e6

    def _resident(self) -> Iterator[int]:
        for pid in self._pids():
            with contextlib.suppress(OSError, IndexError):
                yield int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE

    def memory_shared_out(self) -> float:
        """MB that are resident; what processes share is divided among them (PSS)."""
        return sum(self._proportional()) / 1e6

    def _proportional(self) -> Iterator[int]:
        for pid in self._pids():
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                yield int(rollup.partition("\nPss:")[2].split()[0]) * 1024

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            greeting = sock.recv(512)
            sock.sendall(b"QUIT\r\n")
            return greeting.startswith(b"220")
    except OSError:
        return False


def _groups() -> Path:
    for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (path / "cgroup.procs").exists() and os.access(path, os.W_OK):
            return path
    raise Lacking("Processor time and memory need cgroup v2 at /sys/fs/cgroup, and root to make groups in it.")
