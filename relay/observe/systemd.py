"""What systemd is told (sd_notify(3)): ready, reloading, stopping, alive. Nothing where it does not ask."""

from __future__ import annotations

import os
import socket

from relay import figures

_LONGEST = 1_000_000 * figures.DAY


def notify(state: str) -> None:
    """Send `state` ("READY=1", "STATUS=…") to $NOTIFY_SOCKET; never raises, never blocks."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as out:
            out.sendto(state.encode(), address)
    except OSError:
        pass  # the supervisor is gone; mail goes on


def watchdog_period() -> float | None:
    """Seconds between two signs of life (half of what systemd allows), or None when it does not watch."""
    microseconds = figures.count(os.environ.get("WATCHDOG_USEC", ""), _LONGEST)
    watched = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds or watched != str(os.getpid()):
        return None
    return microseconds / 2_000_000
