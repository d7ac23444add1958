"""The clients that were here since the start, as events tell. Bounded.

A message costs one look-up and a few assignments. Who was seen least recently makes room for newcomers;
what clients say of themselves is cut to 255 characters.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from relay import events
from relay.mail.quirk import Quirk
from relay.values import frozen

MOST = 1000
_LONGEST = 255


@frozen
class ClientSeen:
    """One client address. `software` is what its X-Mailer or User-Agent said, `helo` what it called itself."""

    address: str
    listeners: tuple[str, ...]
    first_seen: datetime
    last_seen: datetime
    messages: int
    refused: int
    helo: str
    software: str
    quirks: Mapping[Quirk, int]


@dataclass(slots=True)
class _Client:
    """A `ClientSeen` in the making; moments are Unix times."""

    first_seen: float
    last_seen: float
    listeners: tuple[str, ...] = ()
    messages: int = 0
    refused: int = 0
    helo: str = ""
    software: str = ""
    quirks: dict[Quirk, int] = field(default_factory=dict)


class Clients:
    """An observer that remembers who connected, what they handed in, and what was odd about it."""

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._clients: OrderedDict[str, _Client] = OrderedDict()  # by address, the latest last
        self.takes: dict[type[events.Event], Callable[[Any], object]] = {
            events.ConnectionAccepted: self._seen,
            events.ClientDescribed: self._described,
            events.MessageQueued: self._queued,
            events.MessageRefused: self._refused,
            events.QuirksTolerated: self._tolerated,
        }

    def observe(self, event: events.Event) -> None:
        take = self.takes.get(type(event))
        if take is not None:
            take(event)

    def seen(self) -> tuple[ClientSeen, ...]:
        """All clients that are remembered, the latest first."""
        return tuple(
            ClientSeen(
                address,
                client.listeners,
                datetime.fromtimestamp(client.first_seen, UTC),
                datetime.fromtimestamp(client.last_seen, UTC),
                client.messages,
                client.refused,
                client.helo,
                client.software,
                dict(client.quirks),
            )
            for address, client in reversed(self._clients.items())
        )

    def _seen(self, event: _Seen) -> _Client:
        address, now = event.client, self._now()
        client = self._clients.get(address)
        if client is None:
            if len(self._clients) >= MOST:
                self._clients.popitem(last=False)
            client = self._clients[address] = _Client(now, now)
        else:
            client.last_seen = now
            self._clients.move_to_end(address)
        if event.listener not in client.listeners:
            client.listeners += (event.listener,)
        return client

    def _described(self, event: events.ClientDescribed) -> None:
        client = self._seen(event)
        client.helo = event.helo[:_LONGEST]
        # One machine may run several programs; one that says nothing does not hide another.
        client.software = event.software[:_LONGEST] or client.software

    def _queued(self, event: events.MessageQueued) -> None:
        self._seen(event).messages += 1

    def _refused(self, event: events.MessageRefused) -> None:
        self._seen(event).refused += 1

    def _tolerated(self, event: events.QuirksTolerated) -> None:
        quirks = self._seen(event).quirks
        for quirk in event.quirks:
            quirks[quirk] = quirks.get(quirk, 0) + 1


_Seen = (
    events.ConnectionAccepted
    | events.ClientDescribed
    | events.MessageQueued
    | events.MessageRefused
    | events.QuirksTolerated
)
