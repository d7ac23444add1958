"""The operator's side of the admin socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from relay.errors import RelayError


class NoRunningRelay(RelayError):
    """Nobody answers on the admin socket."""


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


def post(path: Path, target: str, *, timeout: float = 60.0) -> tuple[int, dict[str, Any]]:
    """POST to the relay behind the socket at `path`: status and document. Raises NoRunningRelay, RelayError."""
    connection = _UnixConnection(path, timeout)
    try:
        connection.request("POST", target)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except PermissionError:
        raise RelayError(f"{path}: permission denied (join the group of the socket, or use sudo)") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise NoRunningRelay(f"no relay is running behind {path}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise RelayError(f"{path}: no answer ({type(error).__name__})") from None
    finally:
        connection.close()
