"""The operator's desk: whatever can be asked (`requests`), whether a relay runs or not.

    with open_desk(config.admin.socket, lambda: wiring.open_store(config, observer), routes, upstreams) as desk:
        document = desk.get("/v1/queue", state="held")

A running relay is asked through its admin socket; where none runs, the store is opened here, and nobody else can have
it until the desk is closed. Either way the same table answers, with the documents of `documents`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from relay.admin import client
from relay.admin.errors import NotPossible, by_problem
from relay.errors import RelayError, StoreInUse
from relay.values import frozen

if TYPE_CHECKING:
    from relay.admin.documents import Document
    from relay.queue.store import QueueStore

Carrier = Callable[[str, str, Mapping[str, object], float], "Iterator[Document]"]
"""Brings method, path and parameters to who answers, and the documents of the answer; so many seconds for each."""

_PATIENCE = 3600.0  # seconds for what may be large: a backup, a page of a very long queue


class Desk:
    """Every method may raise RelayError: NoSuchEntry (exit code 4) or any other (1), each with one sentence.

    `running`: a relay answers; else what is wished for is carried out when one starts.
    """

    def __init__(self, carrier: Carrier, *, running: bool) -> None:
        self._carrier = carrier
        self.running = running

    def get(self, path: str, **parameters: str | int) -> Document:
        [document] = self._carrier("GET", path, parameters, client.HURRY)
        return _checked(document)

    def post(self, path: str, **parameters: object) -> Document:
        [document] = self._carrier("POST", path, parameters, client.HURRY)
        return _checked(document)

    def stream(self, path: str, **parameters: object) -> Iterator[Document]:
        """POST what may take long: progress documents while it is done, the last is the answer."""
        ended = False
        for document in self._carrier("POST", path, parameters, _PATIENCE):
            ended = "progress" not in document
            yield _checked(document)
        if not ended:
            raise RelayError("the relay went away in the middle: what was reported is done, the rest may not be")


def at_socket(socket: Path) -> Desk:
    """The desk of the relay that runs behind `socket`; each method may raise NoRunningRelay as well."""
    return Desk(partial(client.documents, socket), running=True)


@contextmanager
def open_desk(
    socket: Path,
    open_store: Callable[[], Coroutine[Any, Any, QueueStore]],
    routes: Iterable[str],
    upstreams: Iterable[str],
) -> Iterator[Desk]:
    """The desk, for a `with` block. `routes` and `upstreams` are the names in the configuration: they count where no
    relay runs.

    Raises RelayError when neither socket nor store can be used.
    """
    if client.answers(socket):
        yield at_socket(socket)
        return
    with asyncio.Runner() as runner:
        try:
            store = runner.run(open_store())
        except StoreInUse as error:
            raise RelayError(
                f"nobody answers on {socket}, and {error} (a relay that starts or stops needs a moment)"
            ) from None
        try:
            yield Desk(partial(_called, runner, _NoRelay(store, tuple(routes), tuple(upstreams))), running=False)
        finally:
            runner.run(store.close())


@frozen
class _NoRelay:
    """Stands for the house where no relay runs: a store, and nobody who could be woken (`admin.house.House`)."""

    store: QueueStore
    routes: tuple[str, ...]
    upstreams: tuple[str, ...]
    running = False

    async def senders_changed(self) -> None: ...

    def wake(self) -> None: ...

    def try_now(self) -> None: ...

    async def snapshot(self) -> NoReturn:
        self.clients()

    async def reload(self) -> NoReturn:
        self.clients()

    def clients(self) -> NoReturn:
        raise NotPossible("no relay is running")


def _called(
    runner: asyncio.Runner, house: _NoRelay, method: str, path: str, parameters: Mapping[str, object], _: float
) -> Iterator[Document]:
    """The Carrier to a `house` of this process, whose loop turns while something is asked."""
    from relay.admin.requests import answer

    async def given() -> Mapping[str, object]:
        return parameters

    answered = runner.run(answer(house, method, path, given)).body
    if isinstance(answered, bytes):
        yield json.loads(answered)
        return

    async def line() -> bytes | None:
        return await anext(answered, None)

    while (document := runner.run(line())) is not None:
        yield json.loads(document)


def _checked(document: Document) -> Document:
    """`document`, unless it is of an error: that is raised."""
    if "error" in document:
        raise by_problem(document.get("problem"), str(document["error"]))
    return document
