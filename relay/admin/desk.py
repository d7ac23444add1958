"""The operator's desk: what can be asked of the queue, whether a relay runs or not.

    with open_desk(config.admin.socket, lambda: wiring.open_store(config, observer), routes) as desk:
        document = desk.list(Wanted(place=Place.HELD))

A running relay is asked through its admin socket; where none runs, the store is opened here (`direct`), and
nobody else can have it until the desk is closed. Either way the answers are the documents of `documents`, and
what is wrong is raised: NoSuchEntry (exit code 4), any other RelayError (exit code 1), each with one sentence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from relay.admin import client
from relay.admin.direct import DirectDesk
from relay.admin.question import fields_of
from relay.admin.queue import prefix_of
from relay.errors import RelayError, StoreInUse
from relay.queue.listing import Verb, Wanted
from relay.queue.store import QueueStore

Document = dict[str, Any]
OpenStore = Callable[[], Awaitable[QueueStore]]

_PATIENCE = 3600.0  # seconds for what may be large: a backup, a page of a very long queue


class Desk(Protocol):
    """Every method may raise RelayError."""

    @property
    def running(self) -> bool:
        """Whether a relay answers; else what is wished for is carried out when one starts."""
        ...

    def list(self, wanted: Wanted, *, after: int = 0, limit: int = 100) -> Document:
        """The document "queue list"."""
        ...

    def find(self, wanted: Wanted, *, limit: int = 100) -> Document:
        """The document "queue find"."""
        ...

    def show(self, prefix: str) -> Document:
        """The document "queue show". `prefix` is any that only one ID has. NoSuchEntry, AmbiguousId."""
        ...

    def act(self, verb: Verb, prefixes: Sequence[str], *, route: str | None = None) -> Document:
        """The document of a verb. NoSuchEntry and AmbiguousId: nothing was done to any of them."""
        ...

    def act_on_all(self, verb: Verb, wanted: Wanted, *, route: str | None = None) -> Iterator[Document]:
        """Progress documents while it is done, the last is the document of a verb. `wanted.place` not FINISHED."""
        ...

    def backup(self, file: Path) -> Document:
        """The document "backup". A running relay writes the file, as its own user."""
        ...

    def senders(self) -> Document:
        """The document "senders": who is known to be refused."""
        ...

    def forget_senders(self, names: Sequence[str], *, upstream: str | None = None) -> Document:
        """The document "senders" of those that were forgotten; without `names` all. NoSuchEntry: none of them was."""
        ...

    def pin_sender(self, upstream: str, author: str, *, reverse_path: str | None = None) -> Document:
        """The document "senders" of the one that is refused for good from now on."""
        ...


@contextmanager
def open_desk(
    socket: Path, open_store: OpenStore, routes: Iterable[str], upstreams: Iterable[str] = ()
) -> Iterator[Desk]:
    """The desk, for a `with` block. `routes` and `upstreams` are the names in the configuration: they count where no
    relay runs.

    Raises RelayError when neither socket nor store can be used.
    """
    if client.answers(socket):
        yield SocketDesk(socket)
        return
    try:
        desk = DirectDesk(open_store, routes, upstreams)
    except StoreInUse as error:
        raise RelayError(
            f"nobody answers on {socket}, and {error} (a relay that starts or stops needs a moment)"
        ) from None
    try:
        yield desk
    finally:
        desk.close()


class SocketDesk:
    """The queue of a running relay; a Desk."""

    running = True

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def list(self, wanted: Wanted, *, after: int = 0, limit: int = 100) -> Document:
        return self._get("/v1/queue", **fields_of(wanted), after=after, limit=limit)

    def find(self, wanted: Wanted, *, limit: int = 100) -> Document:
        return self._get("/v1/queue/find", **fields_of(wanted), limit=limit)

    def show(self, prefix: str) -> Document:
        return _got(self._socket, f"/v1/queue/{prefix_of(prefix)}")

    def act(self, verb: Verb, prefixes: Sequence[str], *, route: str | None = None) -> Document:
        return self._post("/v1/queue/act", {"verb": verb, "ids": [*prefixes], "route": route})

    def act_on_all(self, verb: Verb, wanted: Wanted, *, route: str | None = None) -> Iterator[Document]:
        body = {"verb": verb, "all": fields_of(wanted), "route": route}
        ended = False
        for document in client.stream(self._socket, "/v1/queue/act", body, timeout=_PATIENCE):
            ended = "progress" not in document
            yield document
        if not ended:
            raise RelayError("the relay went away in the middle: what was reported is done, the rest may not be")

    def backup(self, file: Path) -> Document:
        return self._post("/v1/queue/backup", {"file": str(file)}, timeout=_PATIENCE)

    def senders(self) -> Document:
        return self._get("/v1/senders")

    def forget_senders(self, names: Sequence[str], *, upstream: str | None = None) -> Document:
        return self._post("/v1/senders/forget", {"senders": [*names], "upstream": upstream})

    def pin_sender(self, upstream: str, author: str, *, reverse_path: str | None = None) -> Document:
        return self._post("/v1/senders/pin", {"upstream": upstream, "author": author, "reverse_path": reverse_path})

    def _get(self, target: str, **parameters: str | int) -> Document:
        return _got(self._socket, f"{target}?{urlencode(parameters, errors='replace')}")

    def _post(self, target: str, body: Document, *, timeout: float = 60.0) -> Document:
        return client.checked(client.post(self._socket, target, body, timeout=timeout)[1])


def _got(socket: Path, target: str) -> Document:
    return client.checked(client.get(socket, target)[1])
