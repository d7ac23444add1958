"""A listener: its sockets, and the sessions that came through them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence

from relay.ingress.door import Door
from relay.ingress.session import HANDSHAKE, Session
from relay.ingress.settings import ListenerSettings

FINISH_CONTENT = 30.0  # seconds for content in progress when the relay stops


class Listener:
    """Serves `sockets` until closed. The door's settings can be changed while it runs."""

    def __init__(self, door: Door, sockets: Sequence[socket.socket]) -> None:
        self.door = door
        self._sockets = tuple(sockets)
        self._servers: list[asyncio.Server] = []

    @property
    def name(self) -> str:
        return self.door.settings.name

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [listener.getsockname()[:2] for listener in self._sockets]

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        settings = self.door.settings
        context = settings.tls_context if settings.tls == "implicit" else None
        if context is not None:
            context.sni_callback = self._newest
        for listener in self._sockets:
            server = await loop.create_server(
                lambda: Session(self.door, loop),
                sock=listener,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE if context else None,
            )
            self._servers.append(server)

    def _newest(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """A handshake begins: the certificate is that of the settings as they are now."""
        context = self.door.settings.tls_context
        if context is not None:
            connection.context = context

    def change(self, settings: ListenerSettings) -> None:
        """New sessions follow `settings`; sessions that are open keep what they began with."""
        self.door.settings = settings

    def stop_accepting(self) -> None:
        for server in self._servers:
            server.close()

    def close_sockets(self) -> None:
        """For a listener that never started."""
        for listener in self._sockets:
            listener.close()

    async def close(self) -> None:
        """Stop accepting, end idle sessions with 421, let content in progress finish, then abort."""
        self.stop_accepting()
        door = self.door
        door.stopping = True
        for session in list(door.live):
            session.shut_down()
        tasks = [session.task for session in list(door.live)]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=FINISH_CONTENT)
            for session in list(door.live):
                session.abort()
            if late:  # a commit is never cancelled; a client that is gone ends the rest at once
                await asyncio.wait(late)
