"""What the kernel holds of a connection: it tells what came before a request, and what has not arrived over there.

An answer that was here before its request left, or while a part of that was not over there yet, answers something else.
"""

from __future__ import annotations

import fcntl
import socket
import termios
from array import array


def unread(sock: socket.socket) -> int:
    """Octets that came and that this process has not read."""
    return _asked(sock, termios.FIONREAD)


def unacknowledged(sock: socket.socket) -> int:
    """Octets that left this process and that the other end has not taken."""
    return _asked(sock, termios.TIOCOUTQ)


def _asked(sock: socket.socket, what: int) -> int:
    found = array("i", (0,))
    try:
        fcntl.ioctl(sock.fileno(), what, found)
    except (OSError, ValueError):  # it is closed
        return 0
    return found[0]
