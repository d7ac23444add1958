"""What a machine has, or has not: then a test goes without, or is skipped and says what is lacking."""

from __future__ import annotations

import os
import pty

import pytest

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
"""A folder in memory, where a sync costs nothing; None is the usual one."""


def terminal() -> tuple[int, int]:
    """A terminal: its leader, which reads what is shown, and its follower, which a program gets."""
    try:
        return pty.openpty()
    except OSError as error:
        pytest.skip(f"no terminal is to be had here: {error}")
