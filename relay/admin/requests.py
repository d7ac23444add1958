"""What can be asked of the relay: `REQUESTS`, a row for each, and `answer`.

The admin socket of a running relay answers by it (`relay.web.control`), and so does the desk of a command where no
relay runs (`desk`). `documents` has the shape of every answer. What cannot be is 404 (no such entry), 409 (ambiguous,
not possible), 422 (bad input) or 503 (the store cannot), with {"version": 1, "error": "One sentence", "problem": WORD}.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from relay.admin import documents, queue, senders
from relay.admin.documents import Document
from relay.admin.errors import Refused, status_of
from relay.admin.parameters import (
    CONDITIONS,
    VERB,
    WANTED,
    Parameter,
    Values,
    number,
    optional,
    text,
    texts,
    values,
    wanted,
)
from relay.admin.queue import Report
from relay.admin.snapshot import Snapshot
from relay.errors import BadConfig, RelayError, StoreUnavailable
from relay.observe.clients import ClientSeen
from relay.queue.listing import Did, Verb, Wanted
from relay.queue.store import QueueStore

_LATER = "it will be returned to its sender when the relay runs"


class House(Protocol):
    """What is asked: the running relay (the daemon is one), or what stands for it where none runs."""

    @property
    def running(self) -> bool:
        """Whether mail goes on by itself; else what is wished for is carried out when a relay starts."""
        ...

    @property
    def store(self) -> QueueStore: ...

    @property
    def routes(self) -> Iterable[str]:
        """The names of the routes there are now."""
        ...

    @property
    def upstreams(self) -> Iterable[str]:
        """The names of the upstreams there are now."""
        ...

    async def senders_changed(self) -> None:
        """What the store remembers of senders is not what it was. Raises StoreUnavailable."""
        ...

    async def reload(self) -> tuple[str, ...]:
        """Read the configuration anew and apply it; the keys whose change waits for a restart.

        Raises BadConfig, and changes nothing, when the file is bad.
        """
        ...

    async def snapshot(self) -> Snapshot:
        """The relay as it is now. When the queue cannot be read, there are no routes, and a trouble says so."""
        ...

    def clients(self) -> Sequence[ClientSeen]:
        """Who sent mail since the start, the latest first."""
        ...

    def try_now(self) -> None:
        """As `wake`; and a person wants mail tried, so upstreams that are set aside are asked again at once."""
        ...

    def wake(self) -> None:
        """Entries became due, or changed their route: the workers look into the store."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is a document as JSON, or one on each line, as the work goes on."""

    status: int
    body: bytes | AsyncGenerator[bytes, None]

    @property
    def content_type(self) -> str:
        return "application/json" if isinstance(self.body, bytes) else "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Request:
    """A row of the table. `function` is called with a house and the values of `parameters`.

    A path that ends with "*" has any name there, which is its one parameter.
    """

    method: str
    path: str
    function: Callable[[House, Values], Awaitable[Answer]]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


async def answer(house: House, method: str, path: str, given: Callable[[], Awaitable[Mapping[str, object]]]) -> Answer:
    """Do what is asked for. `given` has the parameters by name, and may raise Refused."""
    folder, _, name = path.rpartition("/")
    request = _BY_PLACE.get((method, path)) or _BY_PLACE.get((method, f"{folder}/*"))
    if request is None:
        return _nowhere(path)
    parameters = request.parameters
    try:
        if request.path.endswith("*"):
            asked = values(parameters, dict.fromkeys(parameters, name))
        else:
            asked = values(parameters, await given()) if parameters else {}
        return await request.function(house, asked)
    except RelayError as error:
        return _json(documents.error(error), status_of(error))


def _json(document: Document, status: int = 200) -> Answer:
    return Answer(status, json.dumps(document).encode())


def _nowhere(path: str) -> Answer:
    if any(path == known for _, known in _BY_PLACE):
        return _json(documents.refusal("no-such-page", "this page is not asked for in this way"), 405)
    sentence = "the running relay does not know this request: is it older than the command? (then restart it)"
    return _json(documents.refusal("no-such-page", sentence), 404)


# The relay


async def _status(house: House, _: Values) -> Answer:
    return _json(documents.status(await house.snapshot()))


async def _clients(house: House, _: Values) -> Answer:
    return _json(documents.clients(house.clients()))


async def _reload(house: House, _: Values) -> Answer:
    """`needs_restart`, or 422 with `problems` when the file is bad and nothing was changed."""
    try:
        return _json(documents.document(needs_restart=await house.reload()))
    except RelayError as error:
        problems = error.problems if isinstance(error, BadConfig) else (error,)
        return _json(documents.document(problems=[str(problem) for problem in problems]), 422)


# The queue


async def _list(house: House, asked: Values) -> Answer:
    page = await queue.list_(house.store, wanted(asked), after=asked["after"], limit=asked["limit"])
    return Answer(200, await documents.listing(page.entries, next=page.next))


async def _find(house: House, asked: Values) -> Answer:
    found = await queue.find(house.store, wanted(asked), limit=asked["limit"])
    return Answer(200, await documents.listing(found.entries, more=found.more))


async def _show(house: House, asked: Values) -> Answer:
    return _json(documents.message(await queue.show(house.store, asked["prefix"])))


async def _act(house: House, asked: Values) -> Answer:
    order = queue.order(asked["verb"], asked["route"], house.routes)
    now, wake = datetime.now(UTC), _wake(house, order.verb)
    match asked["ids"], asked["all"]:
        case None, Wanted() as every:
            reports = queue.act_on_all(house.store, order, every, now=now, wake=wake)
            first = await anext(reports)  # what is wrong from the start is an answer of its own
            return Answer(200, _progress(first, reports))
        case [*prefixes], None:
            report = await queue.act(house.store, order, prefixes, now=now, wake=wake)
            return _json(documents.report(report if house.running else _later(report)))
    raise Refused("say which entries: either ids or all")


async def _progress(report: Report, reports: AsyncGenerator[Report, None]) -> AsyncGenerator[bytes, None]:
    """A line for each report, and the last one once more, as the report it is."""
    async with aclosing(reports):
        yield _line(documents.progress(report))
        try:
            async for report in reports:
                yield _line(documents.progress(report))
            last = documents.report(report)
        except StoreUnavailable as error:
            last = documents.error(error)
        yield _line(last)


def _line(document: Document) -> bytes:
    return json.dumps(document).encode() + b"\n"


def _wake(house: House, verb: Verb) -> Callable[[], None]:
    """What wakes the house when mail is due; what a person wants tried does not wait for an upstream's pause."""
    if verb not in (Verb.RETRY, Verb.RELEASE):
        return house.wake
    once = iter((house.try_now,))  # for an order of many pages, too: each try at a refused login counts

    def wake() -> None:
        next(once, house.wake)()

    return wake


def _later(report: Report) -> Report:
    """`report` where no relay runs: a bounce is written by the relay, and until it runs the wish is kept."""
    if report.order.verb is not Verb.BOUNCE:
        return report
    results = (replace(acted, why=_LATER) if acted.did is Did.DONE else acted for acted in report.results)
    return replace(report, results=tuple(results))


async def _backup(house: House, asked: Values) -> Answer:
    file = Path(asked["file"])
    return _json(documents.backup(file, await queue.backup(house.store, file)))


# Senders


async def _senders(house: House, _: Values) -> Answer:
    return _json(documents.senders(await senders.list_(house.store, now=datetime.now(UTC))))


async def _forget_senders(house: House, asked: Values) -> Answer:
    forgotten = await senders.forget(house.store, asked["senders"], now=datetime.now(UTC), upstream=asked["upstream"])
    await house.senders_changed()
    return _json(documents.senders(forgotten))


async def _pin_sender(house: House, asked: Values) -> Answer:
    pinned = await senders.pin(
        house.store,
        asked["upstream"],
        asked["author"],
        reverse_path=asked["reverse_path"],
        upstreams=house.upstreams,
        now=datetime.now(UTC),
    )
    await house.senders_changed()
    return _json(documents.senders([pinned]))


# The table

_FILE = "text: the absolute path of the file to write"
_ALL_OF_THEM = "a list of texts; an empty one is all of them"

REQUESTS = (
    Request("GET", "/v1/status", _status),
    Request("GET", "/v1/clients", _clients),
    Request("POST", "/v1/reload", _reload),
    Request("GET", "/v1/queue", _list, {**CONDITIONS, "after": number(0), "limit": number(100)}),
    Request("GET", "/v1/queue/find", _find, {**CONDITIONS, "limit": number(100)}),
    Request("GET", "/v1/queue/*", _show, {"prefix": text()}),
    Request(
        "POST",
        "/v1/queue/act",
        _act,
        {"verb": VERB, "route": optional(text()), "ids": optional(texts()), "all": optional(WANTED)},
    ),
    Request("POST", "/v1/queue/backup", _backup, {"file": text(_FILE)}),
    Request("GET", "/v1/senders", _senders),
    Request(
        "POST",
        "/v1/senders/forget",
        _forget_senders,
        {"senders": texts(_ALL_OF_THEM, missing=[]), "upstream": optional(text())},
    ),
    Request(
        "POST",
        "/v1/senders/pin",
        _pin_sender,
        {"upstream": text(), "author": text(), "reverse_path": optional(text())},
    ),
)
_BY_PLACE = {(request.method, request.path): request for request in REQUESTS}
