"""What can be asked of the relay: `REQUESTS`, a row for each, and `answer`.

The admin socket of a running relay answers by it (`relay.web.control`), and so does the desk of a command where no
relay runs (`desk`). `documents` has the shape of every answer. What cannot be is 404 (no such entry), 409 (ambiguous,
not possible), 422 (bad input) or 503 (the store cannot), with {"version": 1, "error": "One sentence", "problem": WORD}.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from relay.admin import documents, queue, senders
from relay.admin.documents import Document
from relay.admin.errors import Refused, status_of
from relay.admin.house import House
from relay.admin.parameters import CONDITIONS, VERB, WANTED, Parameter, number, optional, text, texts, values, wanted
from relay.admin.queue import Report
from relay.errors import BadConfig, RelayError, StoreUnavailable
from relay.queue.listing import Did, Verb, Wanted
from relay.values import frozen

Lines = AsyncGenerator[bytes, None]
"""A document of JSON each, as the work goes on."""

_LATER = "it will be returned to its sender when the relay runs"


@frozen
class Answer:
    """`body` is a document as JSON, or several."""

    status: int
    body: bytes | Lines

    @property
    def content_type(self) -> str:
        return "application/json" if isinstance(self.body, bytes) else "application/x-ndjson"


@frozen
class Request:
    """A row of the table. `function` is called with a house, and the values of `parameters` by their names.

    A path that ends with "*" has any name there, which is its one parameter.
    """

    method: str
    path: str
    function: Callable[..., Awaitable[Document | bytes | Lines]]
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
        told = await request.function(house, **asked)
    except RelayError as error:
        return _json(documents.error(error), status_of(error))
    return _json(told, 422 if "problems" in told else 200) if isinstance(told, dict) else Answer(200, told)


def _json(document: Document, status: int) -> Answer:
    return Answer(status, json.dumps(document).encode())


def _nowhere(path: str) -> Answer:
    if any(path == known for _, known in _BY_PLACE):
        return _json(documents.refusal("no-such-page", "this page is not asked for in this way"), 405)
    sentence = "the running relay does not know this request: is it older than the command? (then restart it)"
    return _json(documents.refusal("no-such-page", sentence), 404)


# The relay


async def _status(house: House) -> Document:
    return documents.status(await house.snapshot())


async def _clients(house: House) -> Document:
    return documents.clients(house.clients())


async def _reload(house: House) -> Document:
    """`needs_restart`; or `problems`, when the file is bad and nothing was changed."""
    try:
        return documents.document(needs_restart=await house.reload())
    except RelayError as error:
        problems = error.problems if isinstance(error, BadConfig) else (error,)
        return documents.document(problems=[str(problem) for problem in problems])


# The queue


async def _list(house: House, *, after: int, limit: int, **conditions: Any) -> bytes:
    page = await queue.list_(house.store, wanted(conditions), after=after, limit=limit)
    return await documents.listing(page.entries, next=page.next)


async def _find(house: House, *, limit: int, **conditions: Any) -> bytes:
    found = await queue.find(house.store, wanted(conditions), limit=limit)
    return await documents.listing(found.entries, more=found.more)


async def _show(house: House, *, prefix: str) -> bytes:
    return await documents.made(partial(documents.message, await queue.show(house.store, prefix)))


async def _act(
    house: House, *, verb: Verb, route: str | None, ids: list[str] | None, all: Wanted | None
) -> Document | Lines:
    order = queue.order(verb, route, house.routes)
    if (ids is None) == (all is None):
        raise Refused("say which entries: either ids or all")
    now, wake = datetime.now(UTC), _wake(house, verb)
    if all is not None:
        reports = queue.act_on_all(house.store, order, all, now=now, wake=wake)
        return _progress(await anext(reports), reports)  # what is wrong from the start is an answer of its own
    report = await queue.act(house.store, order, ids or (), now=now, wake=wake)
    return documents.report(report if house.running else _later(report))


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


async def _backup(house: House, *, file: str) -> Document:
    return documents.backup(Path(file), await queue.backup(house.store, Path(file)))


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
    Request("GET", "/v1/senders", senders.list_),
    Request(
        "POST",
        "/v1/senders/forget",
        senders.forget,
        {"senders": texts(_ALL_OF_THEM, missing=[]), "upstream": optional(text())},
    ),
    Request(
        "POST",
        "/v1/senders/pin",
        senders.pin,
        {"upstream": text(), "author": text(), "reverse_path": optional(text())},
    ),
)
_BY_PLACE = {(request.method, request.path): request for request in REQUESTS}
