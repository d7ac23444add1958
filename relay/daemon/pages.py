"""What the house shows of itself: metrics, health, the admin socket, and the sign of life for systemd."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from relay.errors import StoreUnavailable
from relay.events import Warned
from relay.observe import systemd

if TYPE_CHECKING:
    from relay.daemon.house import House
    from relay.queue.model import QueueView
    from relay.web.app import Health
    from relay.web.control import ControlSocket
    from relay.web.server import Server

LONG_LOOK, SELDOM = 0.02, 20  # seconds of a look that is not made often; and it takes one part of so many of the time
STORE_ANSWERS = 10.0  # seconds a commit may take before the house counts as sick


class Pages:
    """`open` them once mail is served: mail does not wait for pages, and goes on without them.

    `opened` is set once that was tried.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._web: Server | None = None
        self._control: ControlSocket | None = None
        self.opened = asyncio.Event()
        self._view: QueueView | None = None
        self._look_again_at = 0.0
        self._looking = asyncio.Lock()

    async def open(self) -> None:
        from relay.web import app, control  # after the doors are open

        house = self._house
        admin = house.config.admin
        if admin.listen is not None:
            where = (admin.listen.host, admin.listen.port)
            try:
                self._web = await app.start(where, admin.allow, metrics=self._exposition, health=self._health)
            except OSError as error:
                self._warn(f"admin.listen: {admin.listen}: {error.strerror}; mail goes on, but without /metrics")
        try:
            # A service has its folder from systemd; who tries the relay by hand gets one.
            admin.socket.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._control = await control.start(admin.socket, house)
        except OSError as error:
            named = error.filename or admin.socket
            self._warn(
                f"admin.socket: {named}: {error.strerror}; mail goes on, but the commands do not reach the relay: name "
                "a path in a folder of its own user"
            )
        self.opened.set()

    async def close(self) -> None:
        for pages in (self._web, self._control):
            if pages is not None:
                await pages.close()

    def _warn(self, text: str) -> None:
        self._house.observer.observe(Warned(text))

    async def _exposition(self, accept: str) -> tuple[bytes, str]:
        try:
            view = await self._look()
        except StoreUnavailable:
            return self._house.metrics.exposition(accept)
        return self._house.metrics.exposition(accept, (view.messages, view.oldest, view.bytes))

    async def _look(self) -> QueueView:
        """A look at a very long queue takes a while: then it serves twenty times as long, whoever asks how often."""
        clock = asyncio.get_running_loop().time
        async with self._looking:
            now = clock()
            if self._view is None or now >= self._look_again_at:
                self._view = await self._house.store.view()
                took = clock() - now
                self._look_again_at = now + (took * SELDOM if took > LONG_LOOK else 0.0)
            return self._view

    async def _health(self) -> Health:
        from relay.web.app import Health

        house = self._house
        trouble = await self._trouble_of_the_store()
        reasons = [trouble] if trouble else []
        ready = house.ready and not reasons
        return Health(ok=not reasons, ready=ready, reasons=tuple(reasons if house.ready else [*reasons, "stopping"]))

    async def _trouble_of_the_store(self) -> str:
        try:
            async with asyncio.timeout(STORE_ANSWERS):
                await self._house.store.check()
        except StoreUnavailable as error:
            return str(error) if error.reason == "moved" else "the store cannot commit"
        except TimeoutError:
            return "the store cannot commit"
        return ""

    async def watchdog(self) -> None:
        """A sign of life is given only when the loop runs and the store commits, or says why not."""
        period = systemd.watchdog_period()
        while period is not None:
            with contextlib.suppress(StoreUnavailable):
                await self._house.store.check()
            systemd.notify("WATCHDOG=1")
            await asyncio.sleep(period)
