"""The admin socket: what changes anything goes through here, a Unix socket that only its group may use.

    GET  /v1/status, /v1/clients
    GET  /v1/queue          state, route, to, from, since; after, limit
    GET  /v1/queue/find     state, route, to, from, since; limit
    GET  /v1/queue/PREFIX   one message, by any prefix of its ID that no other has
    POST /v1/queue/act      {"verb", "route"?, "ids": [PREFIX, …]}, or "all": {state, route, to, from, since}:
                            then a line of JSON for each page that is done, the last is the report
    POST /v1/queue/backup   {"file": "/absolute/path"}
    GET  /v1/senders        who is known to be refused
    POST /v1/senders/forget {"senders": [ADDRESS, …], "upstream"?}: an empty list is all of them
    POST /v1/senders/pin    {"upstream", "author", "reverse_path"?}
    POST /v1/reload         200 {"version": 1, "needs_restart": […]}, or 422 {"version": 1, "problems": […]} when
                            the file is bad and nothing was changed

`relay.admin.documents` has the shape of every answer. What cannot be is 404 (no such entry), 409 (ambiguous, not
possible), 422 (bad input) or 503 (the store cannot), with {"version": 1, "error": "One sentence", "problem": WORD}.
A bug is a 500 with a constant sentence; the log has the rest.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from relay.admin import documents, queue, senders
from relay.admin.documents import Document
from relay.admin.errors import AmbiguousId, NoSuchEntry, NotPossible, Refused
from relay.admin.port import House
from relay.admin.question import number_of, verb_of, wanted_of
from relay.durable import UnixSocket
from relay.errors import BadConfig, RelayError, StoreUnavailable
from relay.queue.listing import Listed, Verb

_LARGEST = 64 * 1024  # octets of a request's body
_BACKLOG = 100  # connections that wait to be taken
_PATIENCE = 30.0  # seconds until the body has to be there
_AT_ONCE = 200  # recipients that are made JSON before mail has its turn again
_HEADERS = {"Server": "relay", "Cache-Control": "no-store"}

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class ControlSocket:
    """The open socket, until `close`."""

    def __init__(self, server: asyncio.Server, pages: _Server, listener: UnixSocket) -> None:
        self._server = server
        self._pages = pages
        self._listener = listener

    async def close(self) -> None:
        """Stop listening, give requests under way a second, close connections."""
        self._server.close()
        self._listener.remove()
        self._pages.pre_shutdown()
        await self._pages.shutdown(1.0)
        await self._server.wait_closed()


async def start(path: Path, house: House) -> ControlSocket:
    """Serve `house` on a Unix socket at `path`, mode 0660. Raises OSError when that cannot be."""
    listener = UnixSocket(str(path), 0o660, _BACKLOG)
    pages = _Server(_Desk(house).answer, access_log=None)
    server = await asyncio.get_running_loop().create_unix_server(pages, sock=listener, backlog=_BACKLOG)
    return ControlSocket(server, pages, listener)


class _Desk:
    """Requests become calls of `relay.admin`, and what they say becomes documents."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._pages: dict[tuple[str, str], Answer] = {
            ("GET", "/v1/status"): self._status,
            ("GET", "/v1/clients"): self._clients,
            ("GET", "/v1/queue"): self._list,
            ("GET", "/v1/queue/find"): self._find,
            ("POST", "/v1/queue/act"): self._act,
            ("POST", "/v1/queue/backup"): self._backup,
            ("GET", "/v1/senders"): self._senders,
            ("POST", "/v1/senders/forget"): self._forget_senders,
            ("POST", "/v1/senders/pin"): self._pin_sender,
            ("POST", "/v1/reload"): self._reload,
        }

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._page(request)(request)
        except RelayError as error:
            return _json(_status_of(error), documents.error(error))

    def _page(self, request: web.BaseRequest) -> Answer:
        page = self._pages.get((request.method, request.path))
        if page is not None:
            return page
        _, slash, prefix = request.path.partition("/v1/queue/")
        if request.method == "GET" and slash and "/" not in prefix:
            return self._show
        return _wrong_method if request.path in {path for _, path in self._pages} else _no_page

    async def _status(self, _: web.BaseRequest) -> web.StreamResponse:
        return _json(200, documents.status(await self._house.snapshot()))

    async def _clients(self, _: web.BaseRequest) -> web.StreamResponse:
        return _json(200, documents.clients(self._house.clients()))

    async def _list(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = _parameters(request)
        after, limit = number_of(asked, "after", 0), number_of(asked, "limit", 100)
        wanted = wanted_of(_without(asked, "after", "limit"))
        page = await queue.list_(self._house.store, wanted, after=after, limit=limit)
        return await _listing(page.entries, next=page.next)

    async def _find(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = _parameters(request)
        wanted = wanted_of(_without(asked, "limit"))
        found = await queue.find(self._house.store, wanted, limit=number_of(asked, "limit", 100))
        return await _listing(found.entries, more=found.more)

    async def _show(self, request: web.BaseRequest) -> web.StreamResponse:
        prefix = request.path.rpartition("/")[2]
        return _json(200, documents.message(await queue.show(self._house.store, prefix)))

    async def _act(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = await _body(request, "verb", "route", "ids", "all")
        route, ids, every = asked.get("route"), asked.get("ids"), asked.get("all")
        if not (route is None or isinstance(route, str)):
            raise Refused("route must be text")
        order = queue.order(verb_of(asked.get("verb")), route, self._house.routes)
        store, now, wake = self._house.store, datetime.now(UTC), self._wake(order.verb)
        if (ids is None) == (every is None):
            raise Refused("say which entries: either ids or all")
        if every is not None:
            if not isinstance(every, dict):
                raise Refused("all must be an object of conditions; {} is every entry")
            reports = queue.act_on_all(store, order, wanted_of(every), now=now, wake=wake)
            return await _progress(request, reports)
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise Refused("ids must be a list of texts")
        return _json(200, documents.report(await queue.act(store, order, ids, now=now, wake=wake)))

    def _wake(self, verb: Verb) -> Callable[[], None]:
        """What tells the house that mail is due; what a person wants tried does not wait for an upstream's pause."""
        if verb not in (Verb.RETRY, Verb.RELEASE):
            return self._house.wake
        once = iter((self._house.try_now,))  # for an order of many pages, too: each try at a refused login counts

        def wake() -> None:
            next(once, self._house.wake)()

        return wake

    async def _backup(self, request: web.BaseRequest) -> web.StreamResponse:
        file = (await _body(request, "file")).get("file")
        if not isinstance(file, str):
            raise Refused("file must be text: the absolute path of the file to write")
        path = Path(file)
        return _json(200, documents.backup(path, await queue.backup(self._house.store, path)))

    async def _senders(self, _: web.BaseRequest) -> web.StreamResponse:
        return _json(200, documents.senders(await senders.list_(self._house.store, now=datetime.now(UTC))))

    async def _forget_senders(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = await _body(request, "senders", "upstream")
        names, upstream = asked.get("senders", []), asked.get("upstream")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Refused("senders must be a list of texts; an empty one is all of them")
        if not (upstream is None or isinstance(upstream, str)):
            raise Refused("upstream must be text")
        forgotten = await senders.forget(self._house.store, names, now=datetime.now(UTC), upstream=upstream)
        await self._house.senders_changed()
        return _json(200, documents.senders(forgotten))

    async def _pin_sender(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = await _body(request, "upstream", "author", "reverse_path")
        upstream, author, path = (asked.get(name) for name in ("upstream", "author", "reverse_path"))
        if not (isinstance(upstream, str) and isinstance(author, str) and (path is None or isinstance(path, str))):
            raise Refused("upstream and author must be text, and so must reverse_path where it is given")
        house = self._house
        pinned = await senders.pin(
            house.store, upstream, author, reverse_path=path, upstreams=house.upstreams, now=datetime.now(UTC)
        )
        await house.senders_changed()
        return _json(200, documents.senders([pinned]))

    async def _reload(self, _: web.BaseRequest) -> web.StreamResponse:
        try:
            needs_restart = await self._house.reload()
        except BadConfig as error:
            return _json(422, {"version": 1, "problems": [str(problem) for problem in error.problems]})
        except RelayError as error:
            return _json(422, {"version": 1, "problems": [str(error)]})
        return _json(200, {"version": 1, "needs_restart": list(needs_restart)})


async def _wrong_method(_: web.BaseRequest) -> web.StreamResponse:
    return _json(405, documents.refusal("no-such-page", "this page is not asked for in this way"))


async def _no_page(_: web.BaseRequest) -> web.StreamResponse:
    text = "the running relay does not know this request: is it older than the command? (then restart it)"
    return _json(404, documents.refusal("no-such-page", text))


def _status_of(error: RelayError) -> int:
    match error:
        case NoSuchEntry():
            return 404
        case StoreUnavailable():
            return 503
        case Refused() if not isinstance(error, AmbiguousId | NotPossible):
            return 422
        case _:
            return 409


# Requests


def _parameters(request: web.BaseRequest) -> dict[str, str]:
    asked = dict(request.query)
    if len(asked) != len(request.query):
        raise Refused("each condition may be given once")
    return asked


def _without(asked: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: text for name, text in asked.items() if name not in names}


async def _body(request: web.BaseRequest, *names: str) -> dict[str, Any]:
    """The object that was sent; only `names` may be in it."""
    try:
        async with asyncio.timeout(_PATIENCE):
            octets = await request.clone(client_max_size=_LARGEST).read()
        body = json.loads(octets)
    except TimeoutError:
        raise Refused("the request never ended") from None
    except web.HTTPRequestEntityTooLarge:
        raise Refused(f"the request is too long: at most {_LARGEST} octets") from None
    except (ValueError, RecursionError):
        raise Refused("the request is no JSON") from None
    if not isinstance(body, dict):
        raise Refused("the request must be an object")
    for name in body:
        if name not in names:
            raise Refused(f"there is no {json.dumps(name)} here: only {', '.join(names)}")
    return body


# Answers


def _json(status: int, document: Document) -> web.Response:
    return web.Response(
        status=status, body=json.dumps(document).encode(), headers={**_HEADERS, "Content-Type": "application/json"}
    )


async def _listing(entries: tuple[Listed, ...], **rest: object) -> web.Response:
    """The document of a listing; a long one is made in pieces, so that mail goes on meanwhile."""
    pieces: list[str] = []
    recipients = 0
    for listed in entries:
        pieces.append(json.dumps(documents.entry(listed)))
        recipients += len(listed.recipients) + 1
        if recipients >= _AT_ONCE:
            recipients = 0
            await asyncio.sleep(0)
    text = f'{{"version": {documents.VERSION}, "entries": [{", ".join(pieces)}], {json.dumps(rest)[1:]}'
    return web.Response(body=text.encode(), headers={**_HEADERS, "Content-Type": "application/json"})


async def _progress(request: web.BaseRequest, reports: AsyncGenerator[queue.Report, None]) -> web.StreamResponse:
    """A line for each report, and the last one once more, as the report it is."""
    async with aclosing(reports):
        report = await anext(reports)  # what is wrong from the start is an answer of its own
        response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        try:
            await response.write(_line(documents.progress(report)))
            try:
                async for report in reports:
                    await response.write(_line(documents.progress(report)))
                last = documents.report(report)
            except StoreUnavailable as error:
                last = documents.error(error)
            await response.write(_line(last))
            await response.write_eof()
        except ConnectionError:
            pass  # nobody reads any more; what is done stays done
        return response


def _line(document: Document) -> bytes:
    return json.dumps(document).encode() + b"\n"


# HTTP


class _Connection(web.RequestHandler):
    """aiohttp's side of one connection, with our own words for what is not HTTP, and for bugs."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, HttpProcessingError):
            # The peer's mistake, not ours: aiohttp would log it as an error, with a traceback.
            answer = _json(exc.code, documents.refusal("bad-input", "this is not a request we understand"))
        else:
            super().handle_error(request, status, exc, message)  # it logs, which is an event
            answer = _json(500, documents.refusal("bug", "an unexpected error; the log of the relay has it"))
        answer.force_close()
        return answer


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)
