"""A listener: its sockets, and the sessions that came through them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from relay.durable import UnixSocket
from relay.ingress.door import Door
from relay.ingress.doorstep import Doorstep
from relay.ingress.ports import BACKLOG
from relay.ingress.session import Session
from relay.ingress.settings import ListenerSettings

FINISH_CONTENT = 30.0  # seconds for content in progress when the relay stops


class Listener:
    """Serves `sockets` until closed. The door's settings can be changed while it runs."""

    def __init__(self, door: Door, sockets: Sequence[socket.socket]) -> None:
        self.door = door
        self._sockets = tuple(sockets)
        self._servers: list[asyncio.Server] = []
        self._on_doorstep: set[Doorstep] = set()

    @property
    def name(self) -> str:
        return self.door.settings.name

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each socket; of a Unix socket "unix:/path" and 0."""
        return [_address(listener) for listener in self._sockets]

    @property
    def shown(self) -> list[str]:
        """The same as people write it: "127.0.0.1:25", "[::1]:25", "unix:/path"."""
        return [
            host if not port else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            for host, port in self.addresses
        ]

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        for listener in self._sockets:
            # A server listens anew on a socket that listens already, and with 100 places if nothing is said.
            if listener.family == socket.AF_UNIX:
                server = await loop.create_unix_server(self._arrived, sock=listener, backlog=BACKLOG)
            else:
                server = await loop.create_server(self._arrived, sock=listener, backlog=BACKLOG)
            self._servers.append(server)

    def _arrived(self) -> Session | Doorstep:
        """Who speaks with the next client."""
        door = self.door
        if door.settings.proxy_protocol:
            return Doorstep(door, self._loop, self._on_doorstep)
        return Session(door, self._loop)

    def change(self, settings: ListenerSettings) -> None:
        """New sessions follow `settings`; sessions that are open keep what they began with."""
        self.door.settings = settings

    def stop_accepting(self) -> None:
        for server in self._servers:
            server.close()
        self._remove_files()

    def close_sockets(self) -> None:
        """For a listener that never started."""
        for listener in self._sockets:
            listener.close()
        self._remove_files()

    def _remove_files(self) -> None:
        for listener in self._sockets:
            if isinstance(listener, UnixSocket):
                listener.remove()

    async def close(self) -> None:
        """Stop accepting, end idle sessions with 421, let content in progress finish, then abort."""
        self.stop_accepting()
        door = self.door
        door.stopping = True
        for doorstep in list(self._on_doorstep):
            doorstep.abort()
        for session in list(door.live):
            session.shut_down()
        tasks = [session.task for session in list(door.live)]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=FINISH_CONTENT)
            for session in list(door.live):
                session.abort()
            if late:  # a commit is never cancelled; a client that is gone ends the rest at once
                await asyncio.wait(late)


def _address(listener: socket.socket) -> tuple[str, int]:
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}", 0
    return name[0], name[1]
