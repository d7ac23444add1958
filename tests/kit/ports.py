"""Ports of this machine that nobody else takes between two moments of a test.

The kernel gives those that it chooses itself to clients as well: one that was free a moment ago may be the other end of
somebody's connection now. These lie below, and no two tests have one at a time, in whatever process.
"""

from __future__ import annotations

import os
import random
import socket
import weakref
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_COUNT = 12_000
_FIRST = int(_RANGE.read_text().split()[0]) - _COUNT if _RANGE.exists() else 20_000


class _Process:
    """The owner of what is never given back."""


_OURS = _Process()


def port_for(owner: object) -> int:
    """A port that is the owner's as long as it lives."""
    for port in random.sample(range(_FIRST, _FIRST + _COUNT), _COUNT):
        # A name that only one process of this machine can have, and that ends with it.
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0relay-tests-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            name.close()
            continue
        weakref.finalize(owner, os.close, name.detach())
        return port
    raise AssertionError("every port is taken")


def free_port() -> int:
    """A port that is this process's until its end."""
    return port_for(_OURS)
