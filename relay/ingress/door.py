"""What all sessions of one listener share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from relay.events import Observer
from relay.ingress.accept import Acceptor, QueueIds
from relay.ingress.limits import AuthTries, ClientRates, Memory, Sessions
from relay.ingress.settings import ListenerSettings
from relay.queue.spool import Spool

if TYPE_CHECKING:
    from relay.ingress.session import Session

MOST_LEFT = 1000


@dataclass(slots=True)
class Door:
    """`space` False: the store is nearly full. `live` are the sessions that are open.

    `size_limit`: the octets that the largest upstream takes, or None where that is not known.
    """

    settings: ListenerSettings
    sessions: Sessions
    auth_tries: AuthTries
    memory: Memory
    acceptor: Acceptor
    queue_ids: QueueIds
    spool: Spool
    space: Callable[[], bool]
    observer: Observer
    now: Callable[[], datetime]
    replies: dict[tuple[str, int], int]
    live: set[Session]
    client_rates: ClientRates = field(default_factory=ClientRates)
    size_limit: Callable[[], int | None] = lambda: None
    stopping: bool = False
    left: set[str] = field(default_factory=set)  # clients that were told of

    def is_news(self, client: str) -> bool:
        """Whether nothing was told yet of a client that left without handing in mail."""
        if client in self.left:
            return False
        if len(self.left) >= MOST_LEFT:
            self.left.clear()
        self.left.add(client)
        return True
