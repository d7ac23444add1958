"""The pickup folders of the house: opened, changed at a reload, closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from relay import wiring
from relay.config import model
from relay.ingress.pickup import Pickup, PickupSettings


class Folders:
    """`make` gives the one that takes mail from a folder. There is never more than one for a directory."""

    def __init__(self, make: Callable[[PickupSettings], Pickup]) -> None:
        self._make = make
        self._by_directory: dict[Path, Pickup] = {}
        self._taking: dict[Path, asyncio.Task[None]] = {}

    @property
    def pickups(self) -> list[Pickup]:
        return list(self._by_directory.values())

    async def open(self, config: model.Config) -> None:
        """Make the folders, and settle what a crash left behind; nothing is taken yet. Raises RelayError."""
        self._by_directory = await self._opened(_settings(config))

    async def _opened(self, wanted: dict[Path, PickupSettings]) -> dict[Path, Pickup]:
        new: dict[Path, Pickup] = {}
        for directory in wanted.keys() - self._by_directory.keys():
            if directory in self._taking:  # an earlier reload took it away, and it has not ended yet
                await self._taking[directory]
            new[directory] = self._make(wanted[directory])
            await new[directory].open()
        return new

    def start(self, group: asyncio.TaskGroup) -> None:
        for pickup in self.pickups:
            self._run(pickup, group)

    def _run(self, pickup: Pickup, group: asyncio.TaskGroup) -> None:
        self._taking[pickup.settings.directory] = group.create_task(pickup.run())

    async def change(self, config: model.Config, group: asyncio.TaskGroup) -> Callable[[], None]:
        """Open the folders that are new; what is given back makes the change. Raises RelayError."""
        wanted = _settings(config)
        opened = await self._opened(wanted)

        def swap() -> None:
            for directory, pickup in self._by_directory.items():
                if directory not in wanted:
                    pickup.stop()
            self._by_directory = {
                directory: opened.get(directory) or self._by_directory[directory] for directory in wanted
            }
            for directory, pickup in self._by_directory.items():
                pickup.change(wanted[directory])
            for pickup in opened.values():
                self._run(pickup, group)

        return swap

    async def close(self) -> None:
        """Take nothing new, and finish what is on its way."""
        for pickup in self.pickups:
            pickup.stop()
        await asyncio.gather(*self._taking.values())


def _settings(config: model.Config) -> dict[Path, PickupSettings]:
    return {one.directory: wiring.pickup_settings(one, config) for one in config.pickup_listeners.values()}
