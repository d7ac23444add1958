"""What needs a person, as values: troubles of now, errors of late, and what upstreams said last."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from enum import StrEnum

from relay.values import frozen


class Severity(StrEnum):
    """ERROR: mail suffers now. WARNING: it will, or a person is asked for something."""

    ERROR = "error"
    WARNING = "warning"


@frozen
class Trouble:
    """Something that needs a person. `cause` names it for good and holds nothing of a message (upstream-aside:own).

    `text` is one sentence on what is wrong, `remedy` one on what to do, both in the language of the configuration.
    """

    cause: str
    severity: Severity
    since: datetime
    text: str
    remedy: str


@frozen
class Noted:
    """A line of the log of level error or warning, kept in memory: when, level, its word, what it said."""

    at: datetime
    level: str
    event: str
    text: str


@frozen
class Answer:
    """What an upstream said last: `ok`, or the stage and reply of what went wrong (`code` 0: no reply)."""

    at: datetime
    ok: bool
    stage: str = ""
    code: int = 0
    status: str = ""
    text: str = ""


@frozen
class Situation:
    """What no event tells: `certificates` are the ends of our listeners' and theirs, by "listener:NAME" or
    "upstream:NAME"; `damaged`, `held` and `in_doubt` (held as well, and not among `held`) count entries; `oldest` is
    the oldest acceptance by route.

    `lying` counts what could not be taken and lies in a pickup folder, by listener; `folders` says what is in the way
    of taking files, where something is. `credentials` are the ends of what the relay logs in with, by "secret:NAME"
    or "certificate:NAME".
    `up` has all upstreams there are, False for those set aside; `routes` the upstreams of each route.
    """

    disk_free: int | None
    min_free: int
    certificates: dict[str, datetime]
    held: int
    damaged: int
    oldest: dict[str, datetime]
    up: dict[str, bool]
    routes: dict[str, tuple[str, ...]]
    in_doubt: int = 0
    credentials: dict[str, datetime] = field(default_factory=dict)
    lying: dict[str, int] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
