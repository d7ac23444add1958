"""Relays that die where the test says: a process that has imported everything, and makes each relay by a fork.

    python -m tests.torture.dying     an order a line on stdin; what it says, and the relays' logs, on stderr

"ready" once it has imported; "pid N" for each relay that is born, "exit CODE" when it is dead (negative: by that
signal). One lives at a time, and none outlives this process. The relay's code knows nothing of it: functions of it are
wrapped in the child (`points`), and at the passage that the order names the child sends itself SIGKILL.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
# What `relay serve` imports when it needs it, and each child would import again.
IMPORTED = (
    "relay.cli.serve",
    "relay.config.outside",
    "relay.daemon.main",
    "relay.web.app",
    "relay.web.control",
    "uvloop",
)


@dataclass(frozen=True, slots=True)
class Order:
    """One relay. `point`: a name in `points.POINTS` or `WAYS`, where it dies at that `passage`. `without`: a name in
    `points.WITHOUT`, what it leaves out. `hasty`: it does often what it does seldom (checkpoints, sweeps, wipes).
    `waits`: for SIGUSR1, before it does anything. `environment` is set in it.
    """

    config: str
    point: str = ""
    passage: int = 1
    without: str = ""
    hasty: bool = False
    waits: bool = False
    environment: tuple[tuple[str, str], ...] = ()

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Order:
        return cls(**json.loads(line))


def main() -> None:
    """Until the end of stdin."""
    _die_with(os.getppid())
    for name in IMPORTED:
        importlib.import_module(name)
    points = importlib.import_module("tests.torture.points")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # a child that waits for it may be sent it before
    os.write(2, b"ready\n")
    while line := sys.stdin.buffer.readline():
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            _die_with(parent)
            _live(Order.of_line(line), points.prepare)
        os.write(2, b"pid %d\n" % child)
        _, status = os.waitpid(child, 0)
        # What it was about to log when it died has no end.
        os.write(2, b"\nexit %d\n" % os.waitstatus_to_exitcode(status))


def _die_with(parent: int) -> None:
    """SIGKILL for us as soon as `parent` is dead."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _live(order: Order, prepare: object) -> None:
    from relay.cli.serve import serve

    os.environ.update(order.environment)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if order.waits:
        signal.sigwait({signal.SIGUSR1})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    assert callable(prepare)
    code = 70
    try:
        prepare(order)
        code = serve(Path(order.config))
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
