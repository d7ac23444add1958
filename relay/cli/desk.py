"""The desk of a command: the relay, or the queue where none runs; and what it says when it reaches neither."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from relay.cli.language import choose_of, sentence
from relay.cli.screen import refuse
from relay.errors import RelayError

if TYPE_CHECKING:
    from relay.admin.desk import Desk
    from relay.config.model import Config
    from relay.events import Event
    from relay.queue.model import QueueView
    from relay.queue.store import QueueStore

_OF_THE_SERVICE = Path("/run/credentials/relay.service")


class Nobody:
    """An observer that tells nobody: a command's own store has no log and no metrics."""

    def observe(self, event: Event) -> None: ...


@contextmanager
def at_desk(config: Path) -> Iterator[Desk]:
    """The desk, for a block; a RelayError in it ends the command with its sentence and exit code."""
    from relay.admin import desk
    from relay.admin.errors import NoSuchEntry
    from relay.config import compile as compiled
    from relay.config.load import load

    try:
        choose_of(config)
        loaded = load(config)
        routes = compiled.policy(loaded).routes
        with desk.open_desk(loaded.admin.socket, lambda: _store(loaded), routes, loaded.upstreams) as opened:
            yield opened
    except RelayError as error:
        refuse(sentence(error), 4 if isinstance(error, NoSuchEntry) else 1)


@contextmanager
def at_relay(config: Path) -> Iterator[Desk]:
    """The desk of the running relay, for a block, as `at_desk`. Exit code 3: none is running."""
    from relay.admin import client, desk
    from relay.config.load import load

    try:
        choose_of(config)
        yield desk.at_socket(load(config).admin.socket)
    except RelayError as error:
        refuse(sentence(error), 3 if isinstance(error, client.NoRunningRelay) else 1)


def load_as_service(file: Path) -> Config:
    """The configuration, with the credentials that systemd gave to the running service; root may read those.

    Raises BadConfig.
    """
    from relay.config.load import load

    if "CREDENTIALS_DIRECTORY" not in os.environ and os.access(_OF_THE_SERVICE, os.R_OK | os.X_OK):
        os.environ["CREDENTIALS_DIRECTORY"] = str(_OF_THE_SERVICE)
    choose_of(file)
    return load(file)


def usual_socket() -> Path:
    """Where the relay listens if its configuration, which cannot be read, does not say otherwise."""
    from relay.config.model import Admin

    return Path(Admin().socket)


async def look(config: Config) -> QueueView | None:
    """What lies in the queue, where no relay runs; None: there is no queue, and none is made. Raises RelayError."""
    if not config.queue.store.exists:
        return None
    store = await _store(config)
    try:
        return await store.view()
    finally:
        await store.close()


async def _store(config: Config) -> QueueStore:
    if not config.queue.store.exists:
        # To open it would make it, as the wrong user.
        raise RelayError(f"there is no queue at {config.queue.store}: a relay makes it when it starts")
    from relay import wiring

    return await wiring.open_store(config, Nobody())
