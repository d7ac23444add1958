"""The way out into a folder: each message becomes a file, and is delivered with that.

`QUEUEID.eml` has the content byte for byte, `QUEUEID.json` beside it the envelope; a second transaction
for the same entry is `QUEUEID-2`. The .eml appears whole or not at all, after its .json, and is on disk
before the outcome says so. Files are 0600. File work happens on a thread; cancelling does not stop it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from relay.durable import Directory, make_folder
from relay.mail.outcome import Deferred, Delivered, Stage, Trouble
from relay.mail.reply import Reply, sanitise
from relay.transport.port import CALLED_OFF, Delivery, DeliveryRequest


class CaptureTransport:
    """A capture upstream (`port.Transport`), and its own connection: there is nothing to keep open."""

    usable = True
    size_limit: int | None = None
    tokens = None

    def __init__(self, name: str, directory: str | os.PathLike[str]) -> None:
        self._name = name
        self._directory = Path(directory)

    @property
    def name(self) -> str:
        return self._name

    async def connect(self) -> CaptureTransport | Deferred:
        """Makes the folder (0700) if there is none."""
        try:
            await asyncio.to_thread(make_folder, self._directory)
        except OSError as error:
            return self._deferred(Stage.CONNECT, error)
        return self

    @property
    def past_dot(self) -> bool:
        """Never in doubt: a file that was being written is not there under its name."""
        return False

    def reload(self) -> None:
        """There is nothing to read anew."""

    async def deliver(self, request: DeliveryRequest) -> Delivery:
        """Delivered to all recipients, or deferred for all where the folder cannot be written."""
        if request.gate is not None and not await request.gate():
            return Delivery((CALLED_OFF,) * len(request.recipients))
        try:
            name = await asyncio.to_thread(self._write, request)
        except OSError as error:
            sick = self._deferred(Stage.BODY, error)
            return Delivery((sick,) * len(request.recipients), sick)
        return Delivery((Delivered(Reply(250, "2.0.0", sanitise(f"captured as {name}"))),) * len(request.recipients))

    async def refresh(self) -> bool:
        """Nothing is open that could be closed."""
        return True

    def when_lost(self, tell: Callable[[], None]) -> None:
        """Nothing can be lost."""

    async def close(self) -> None:
        """Nothing is open."""

    def abort(self) -> None:
        """Nothing is open."""

    def _deferred(self, stage: Stage, error: OSError) -> Deferred:
        text = f"a message cannot be captured in the folder of {self._name}: {error.strerror or error}"
        return Deferred(stage, Trouble.TRANSIENT, sanitise(text), upstream_sick=True)

    def _write(self, request: DeliveryRequest) -> str:
        folder = Directory(self._directory)
        stem = _claim(folder, request)
        name, beside = f"{stem}.eml", f"{stem}.json"
        try:
            folder.replace(name, request.pieces())
        except BaseException:
            for leftover in (name, beside):
                with contextlib.suppress(OSError):
                    folder.remove(leftover)
            raise
        return name


def _claim(folder: Directory, request: DeliveryRequest) -> str:
    """Make the .json, under a name that nobody had, for the .eml neither."""
    stem = name = "".join(c if c.isalnum() and c.isascii() else "_" for c in request.queue_id)
    number = 1
    while True:
        if not folder.has(f"{name}.eml"):
            with contextlib.suppress(FileExistsError):
                folder.write_new(f"{name}.json", (_envelope(request),))
                return name
        number += 1
        name = f"{stem}-{number}"


def _envelope(request: DeliveryRequest) -> bytes:
    envelope = {
        "queue_id": request.queue_id,
        "reverse_path": "" if request.reverse_path is None else str(request.reverse_path),
        "recipients": [str(recipient.address) for recipient in request.recipients],
        "size": request.size,
    }
    return json.dumps(envelope, indent=1).encode() + b"\n"
