"""The operator's side of the admin socket: HTTP over a Unix socket, JSON both ways."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from relay.errors import RelayError

if TYPE_CHECKING:
    from relay.admin.documents import Document

HURRY = 60.0  # seconds until there has to be an answer


class NoRunningRelay(RelayError):
    """Nobody answers on the admin socket."""


class NotAllowed(RelayError):
    """Whoever asks may not use the admin socket."""


def documents(path: Path, method: str, page: str, parameters: Mapping[str, Any], timeout: float) -> Iterator[Document]:
    """What the relay behind the socket at `path` answers, as it comes; `timeout` is in seconds, for each document.

    Raises NoRunningRelay, NotAllowed, RelayError.
    """
    if method == "GET":
        target, body = f"{page}?{urlencode(parameters, errors='replace')}", None
    else:
        target, body = page, parameters
    with asked(path, method, target, body, timeout) as answer, ours():
        if answer.headers.get_content_type() == "application/x-ndjson":
            yield from map(_document, answer)
        else:
            yield _document(answer.read())


@contextmanager
def ours() -> Iterator[None]:
    """For a block that reads an answer: one that is not as `documents` has it is reported in a sentence."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError):
        raise RelayError(
            "the relay's answer is no document of ours: are the command and the relay of one version?"
        ) from None


def answers(path: Path) -> bool:
    """Whether somebody listens on the socket. Raises RelayError when we may not know."""
    connection = _UnixConnection(path, HURRY)
    try:
        with _plainly(path):
            connection.connect()
    except NoRunningRelay:
        return False
    finally:
        connection.close()
    return True


@contextmanager
def asked(path: Path, method: str, target: str, body: object, timeout: float) -> Iterator[http.client.HTTPResponse]:
    """The answer, for a `with` block. Raises NoRunningRelay, RelayError."""
    connection = _UnixConnection(path, timeout)
    octets = None if body is None else json.dumps(body).encode()
    try:
        with _plainly(path):
            connection.request(method, target, octets, {"Content-Type": "application/json"} if octets else {})
            yield connection.getresponse()
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise


@contextmanager
def _plainly(path: Path) -> Iterator[None]:
    """What goes wrong on the way is reported in a sentence."""
    try:
        yield
    except PermissionError:
        raise NotAllowed(f"{path}: permission denied (join the group of the socket, or use sudo)") from None
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise NoRunningRelay(f"no relay is running behind {path}") from None
    except TimeoutError:
        raise RelayError(f"{path}: the relay does not answer (its log may say why)") from None
    except (OSError, http.client.HTTPException) as error:
        raise RelayError(f"{path}: no answer ({type(error).__name__}); the relay may just have stopped") from None


def _document(octets: bytes) -> Document:
    document = json.loads(octets, parse_constant=lambda _: None)  # an older relay has Infinity
    if not isinstance(document, dict):
        raise TypeError("no object")
    return document
