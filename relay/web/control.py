"""The admin socket: what changes anything goes through here, a Unix socket that only its group may use.

`relay.admin.requests` has what can be asked, and the answers. A bug is a 500 with a constant sentence; the log has the
rest.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from contextlib import aclosing
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from relay.admin import documents, requests
from relay.admin.errors import Refused
from relay.admin.requests import House

_LARGEST = 64 * 1024  # octets of a request's body
_PATIENCE = 30.0  # seconds until the body has to be there
_HEADERS = {"Server": "relay", "Cache-Control": "no-store"}


class ControlSocket:
    """The open socket, until `close`."""

    def __init__(self, server: asyncio.Server, pages: _Server, path: Path) -> None:
        self._server = server
        self._pages = pages
        self._path = path

    async def close(self) -> None:
        """Stop listening, give requests under way a second, close connections."""
        self._server.close()
        self._path.unlink(missing_ok=True)
        self._pages.pre_shutdown()
        await self._pages.shutdown(1.0)
        await self._server.wait_closed()


async def start(path: Path, house: House) -> ControlSocket:
    """Serve `house` on a Unix socket at `path`, mode 0660. Raises OSError when that cannot be."""
    _clear(path)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await _answer(house, request)

    pages = _Server(answer, access_log=None)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        server = await asyncio.get_running_loop().create_unix_server(pages, sock=listener)
    except BaseException:
        listener.close()
        raise
    return ControlSocket(server, pages, path)


def _clear(path: Path) -> None:
    """Remove the socket of a process that is gone; one that somebody listens on stays, and `bind` refuses."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)


async def _answer(house: House, request: web.BaseRequest) -> web.StreamResponse:
    async def read() -> bytes:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await request.clone(client_max_size=_LARGEST).read()
        except TimeoutError:
            raise Refused("the request never ended") from None
        except web.HTTPRequestEntityTooLarge:
            raise Refused(f"the request is too long: at most {_LARGEST} octets") from None

    answered = await requests.answer(house, request.method, request.raw_path, read)
    headers = {**_HEADERS, "Content-Type": answered.content_type}
    if isinstance(answered.body, bytes):
        return web.Response(status=answered.status, body=answered.body, headers=headers)
    async with aclosing(answered.body) as lines:
        response = web.StreamResponse(status=answered.status, headers=headers)
        try:
            await response.prepare(request)
            async for line in lines:
                await response.write(line)
            await response.write_eof()
        except ConnectionError:
            pass  # nobody reads any more; what is done stays done
        return response


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
            answer = _refusal(exc.code, "bad-input", "this is not a request we understand")
        else:
            super().handle_error(request, status, exc, message)  # it logs, which is an event
            answer = _refusal(500, "bug", "an unexpected error; the log of the relay has it")
        answer.force_close()
        return answer


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


def _refusal(status: int, problem: str, sentence: str) -> web.Response:
    octets = json.dumps(documents.refusal(problem, sentence)).encode()
    return web.Response(status=status, body=octets, headers={**_HEADERS, "Content-Type": "application/json"})
