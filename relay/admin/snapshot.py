"""The relay at one moment, as its operator sees it: values only, none of them from a message's content."""

from __future__ import annotations

from datetime import datetime

from relay.observe.situation import Answer, Noted, Trouble
from relay.values import frozen


@frozen
class ListenerNow:
    """`addresses` as they are written in the configuration; `sessions` are open now.

    `accepted` since the start: connections, or the files taken from a folder.
    """

    name: str
    type: str
    addresses: tuple[str, ...]
    sessions: int
    accepted: int


@frozen
class PaceNow:
    """How much of a limit of an account is used: so many of `most` within any `seconds`, transactions or recipients."""

    used: int
    most: int
    seconds: float
    of_recipients: bool


@frozen
class UpstreamNow:
    """`where` is host and port, or a folder. `opens_in`: seconds until it is tried again, 0 while it is up.

    `most`: the connections there may be now. `pace`: of its account, which other upstreams may share. `held_until`:
    it said that its quota is used up. `max_recipients`: in one transaction; it refused more where there is a
    `max_recipients_until`, when it is tried with more again.
    """

    name: str
    type: str
    where: str
    up: bool
    opens_in: float
    idle: int
    busy: int
    most: int
    answer: Answer | None
    pace: tuple[PaceNow, ...] = ()
    held_until: datetime | None = None
    max_recipients: int = 0
    max_recipients_until: datetime | None = None


@frozen
class RouteNow:
    """Messages of a route by place; `oldest` is the oldest acceptance among those not held."""

    name: str
    upstreams: tuple[str, ...]
    pending: int
    deferred: int
    active: int
    held: int
    oldest: datetime | None


@frozen
class CodesNow:
    """Session codes: recipients since the start, and messages that wait."""

    enabled: bool
    delivered: int
    failed: int
    expired: int
    waiting: int


@frozen
class Snapshot:
    """All of `relay status`. `troubles` come worst first; `recipients` is the ledger, by its events and states."""

    version: str
    pid: int
    at: datetime
    started_at: datetime
    config: str
    reloaded_at: datetime
    hostname: str
    ready: bool
    listeners: tuple[ListenerNow, ...]
    upstreams: tuple[UpstreamNow, ...]
    routes: tuple[RouteNow, ...]
    codes: CodesNow
    recipients: dict[str, int]
    queue_bytes: int
    disk_free: int | None
    min_free: int
    damaged: int
    troubles: tuple[Trouble, ...]
    errors: tuple[Noted, ...]
