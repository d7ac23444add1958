"""From a name to a connected socket: all addresses of the name are tried.

The second address gets its chance while the first is silent (RFC 8305, section 5), so that a dead IPv6
way costs a quarter of a second and not the whole patience of a session code. aiohappyeyeballs does that; it
takes turns between IPv6 and IPv4, and begins with the first address of the list.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

STAGGER = 0.25  # seconds

# As getaddrinfo gives it: family, type, protocol, canonical name, socket address.
Address = tuple[
    socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
]
_NUMBER = re.compile(r"\[Errno (\d+)\]")


class Dialer:
    """Looks up and dials one host. Lookups have threads of their own: a dead resolver must stop nothing else."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="resolve")

    async def resolve(self, timeout: float) -> Sequence[Address]:
        """The host's addresses, asked anew; raises OSError (of which TimeoutError) or UnicodeError."""
        try:
            ip_address(self._host)
        except ValueError:
            async with asyncio.timeout(timeout):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, 0)
        return self._look_up(socket.AI_NUMERICHOST)

    def _look_up(self, flags: int) -> Sequence[Address]:
        return socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=flags)


async def connect(addresses: Sequence[Address], timeout: float) -> socket.socket:
    """A connected socket, of whichever address answers first. Raises OSError, that of the last address."""
    from aiohappyeyeballs import start_connection  # not at the start, where nobody waits for it

    task = asyncio.current_task()
    assert task is not None
    cancellations = task.cancelling()
    async with asyncio.timeout(timeout):
        try:
            sock = await start_connection(addresses, happy_eyeballs_delay=STAGGER)
        except OSError as error:
            # It puts the errors of all addresses in one text, in the order of the addresses.
            numbers = _NUMBER.findall(str(error))
            raise OSError(int(numbers[-1]), os.strerror(int(numbers[-1]))) if numbers else error from None
        if task.cancelling() > cancellations:  # it loses a cancellation that meets the end of its race
            sock.close()
            raise asyncio.CancelledError
    return sock
