"""The admin socket: what changes anything goes through here, a Unix socket that only its group may use.

`relay.admin.requests` has what can be asked, and answers. A GET has its parameters in the query, a POST in an object of
JSON. A bug is a 500 with a constant sentence; the log has the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from relay.admin import documents
from relay.admin.errors import Refused
from relay.admin.house import House
from relay.admin.requests import answer
from relay.durable import UnixSocket
from relay.web.server import Request, Response, Server, TooLong, serve

_BACKLOG = 100  # connections that wait to be taken


class ControlSocket:
    """The open socket, until `close`."""

    def __init__(self, server: Server, listener: UnixSocket) -> None:
        self._server = server
        self._listener = listener

    async def close(self) -> None:
        """Stop listening, give requests under way a second, close connections."""
        self._listener.remove()
        await self._server.close()


async def start(path: Path, house: House) -> ControlSocket:
    """Serve `house` on a Unix socket at `path`, mode 0660. Raises OSError when that cannot be."""
    listener = UnixSocket(str(path), 0o660, _BACKLOG)
    return ControlSocket(await serve(listener, partial(_answer, house), _refusal), listener)


async def _answer(house: House, request: Request) -> Response:
    answered = await answer(house, request.method, request.path, partial(_given, request))
    return Response(answered.status, answered.content_type, answered.body)


async def _given(request: Request) -> Mapping[str, object]:
    if request.method == "GET":
        query = dict(request.query)
        if len(query) != len(request.query):
            raise Refused("each condition may be given once")
        return query
    try:
        body = json.loads(await request.body())
    except TimeoutError:
        raise Refused("the request never ended") from None
    except TooLong as error:
        raise Refused(f"the request is too long: {error}") from None
    except (ValueError, RecursionError):
        raise Refused("the request is no JSON") from None
    if not isinstance(body, dict):
        raise Refused("the request must be an object")
    return body


def _refusal(status: int, sentence: str) -> Response:
    document = documents.refusal("bug" if status == 500 else "bad-input", sentence)
    return Response(status, "application/json", json.dumps(document).encode())
