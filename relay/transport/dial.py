"""From a name to a connected socket: all addresses of the name are tried.

The second address gets its chance while the first is silent (RFC 8305, section 5), so that a dead IPv6
way costs a quarter of a second and not the whole patience of a session code.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

STAGGER = 0.25  # seconds

Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


class Dialer:
    """Looks up and dials one host. Lookups have threads of their own: a dead resolver must stop nothing else."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="resolve")

    async def resolve(self, timeout: float) -> list[Address]:
        """The host's addresses, asked anew; raises OSError (of which TimeoutError) or UnicodeError."""
        try:
            ip_address(self._host)
        except ValueError:
            async with asyncio.timeout(timeout):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, 0)
        return self._look_up(socket.AI_NUMERICHOST)

    def _look_up(self, flags: int) -> list[Address]:
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=flags)
        return [(family, address) for family, _, _, _, address in found]


async def connect(addresses: list[Address], timeout: float) -> socket.socket:
    """A connected socket, TCP_NODELAY, of whichever address answers first; raises OSError, the last one seen."""
    waiting = list(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    failure: OSError = OSError("the name has no address")
    try:
        async with asyncio.timeout(timeout):
            while waiting or running:
                if waiting:
                    running.add(asyncio.create_task(_connect_one(waiting.pop(0))))
                pause = STAGGER if waiting else None
                done, _ = await asyncio.wait(running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    try:
                        sock = task.result()
                    except OSError as error:
                        failure = error
                        running.discard(task)
                    else:
                        running.discard(task)
                        return sock
    finally:
        await _let_go(running)
    raise failure


async def _connect_one(address: Address) -> socket.socket:
    sock = socket.socket(address[0], socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address[1])
    except BaseException:
        sock.close()
        raise
    return sock


async def _let_go(tasks: set[asyncio.Task[socket.socket]]) -> None:
    """End the calls that came too late; close what they brought."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and task.exception() is None:
            task.result().close()
