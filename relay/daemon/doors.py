"""The listeners of the house: opened, changed at a reload, closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from relay import wiring
from relay.config import model
from relay.errors import RelayError
from relay.events import Observer, Warned
from relay.ingress.door import Door
from relay.ingress.listener import Listener
from relay.ingress.ports import has_family, open_port, open_unix, passed_sockets
from relay.ingress.settings import ListenerSettings


class Doors:
    """`make` gives what the sessions of a listener share."""

    def __init__(
        self,
        make: Callable[[ListenerSettings], Door],
        observer: Observer,
    ) -> None:
        self._make = make
        self._observer = observer
        self.listeners: list[Listener] = []

    def open(self, config: model.Config) -> None:
        """Open all ports; nothing is served yet. Raises RelayError."""
        self.listeners = self._open(config, config.smtp_listeners)

    def _open(self, config: model.Config, indexes: Iterable[int]) -> list[Listener]:
        opened: list[Listener] = []
        try:
            for index in indexes:
                settings = wiring.listener_settings(index, config)
                opened.append(Listener(self._make(settings), _sockets(config.smtp_listeners[index])))
        except BaseException:
            for listener in opened:
                listener.close_sockets()
            raise
        return opened

    async def start(self) -> None:
        for listener in self.listeners:
            await listener.start()

    async def change(
        self, old: model.Config, new: model.Config, group: asyncio.TaskGroup
    ) -> Callable[[], list[Listener]]:
        """Open what is new, and end what is gone; or neither, and raise RelayError.

        What is given back makes the change without any more waiting or refusing, and returns the listeners to start.
        """
        settings = {one.name: wiring.listener_settings(index, new) for index, one in new.smtp_listeners.items()}
        before = {one.name: one.listen for one in old.smtp_listeners.values()}
        staying = {one.name for one in new.smtp_listeners.values() if before.get(one.name) == one.listen}
        leaving = [listener for listener in self.listeners if listener.name not in staying]
        opened = await self._replace(
            leaving, [index for index, one in new.smtp_listeners.items() if one.name not in staying], old, new, group
        )

        def swap() -> list[Listener]:
            self.listeners = [listener for listener in self.listeners if listener.name in staying] + opened
            for listener in self.listeners:
                listener.change(settings[listener.name])
            return opened

        return swap

    async def _replace(
        self,
        leaving: list[Listener],
        new: Sequence[int],
        old: model.Config,
        config: model.Config,
        group: asyncio.TaskGroup,
    ) -> list[Listener]:
        ports = {address.port or address.host for index in new for address in config.smtp_listeners[index].listen}
        in_the_way = [one for one in leaving if ports & _held(one)]
        for listener in in_the_way:  # they hold what the new ones need
            listener.stop_accepting()
        try:
            opened = self._open(config, new)
        except RelayError:
            await self._reopen(in_the_way, old, group)
            raise
        for listener in leaving:
            listener.stop_accepting()  # at once: after a reload nobody gets in by the way that was
            group.create_task(listener.close())
        return opened

    async def _reopen(self, closed: list[Listener], config: model.Config, group: asyncio.TaskGroup) -> None:
        """Put others in the place of listeners that had stopped accepting, as the configuration still says."""
        names = {listener.name for listener in closed}
        for index, one in config.smtp_listeners.items():
            if one.name in names:
                try:
                    again = self._open(config, [index])
                except RelayError as error:
                    self._observer.observe(Warned(f"{one.name} cannot be opened again: {error}"))
                    continue
                for listener in again:
                    await listener.start()
                self.listeners += again
        for listener in closed:
            self.listeners.remove(listener)
            group.create_task(listener.close())

    def certificates(self) -> dict[str, datetime]:
        """When our own certificates end, by "listener:NAME"."""
        settings = [listener.door.settings for listener in self.listeners]
        return {f"listener:{one.name}": one.certificate_ends for one in settings if one.certificate_ends is not None}

    async def close(self) -> None:
        """Take nothing new, and let what is half-way finish."""
        await asyncio.gather(*(one.close() for one in self.listeners))

    def close_sockets(self) -> None:
        for listener in self.listeners:
            listener.close_sockets()


def _held(listener: Listener) -> set[int | str]:
    return {port or host.removeprefix("unix:") for host, port in listener.addresses}


def _sockets(listener: model.SmtpListener) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for address in listener.listen:
            if address.kind == "systemd":
                sockets += passed_sockets(address.host)
            elif address.kind == "unix":
                sockets.append(open_unix(address.host))
            elif not listener.listen_is_default or has_family(address.host):
                sockets.append(open_port(address.host, address.port))
    except BaseException:
        for opened in sockets:
            opened.close()
        raise
    return sockets
