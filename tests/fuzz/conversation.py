"""A session on a wire of memory: what a client says goes in, what it hears comes out, and nothing waits."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from relay.events import Event, ExceptionCaught
from relay.ingress.accept import QueueIds
from relay.ingress.door import Door
from relay.ingress.limits import AuthTries, Memory, Sessions
from relay.ingress.session import Session
from relay.mail.content import Content
from relay.mail.submission import Submission
from relay.queue.spool import Spool
from tests.kit import configured

REPLIES = re.compile(rb"(?:[2-5][0-9]{2}[ -][ -~]*\r\n)*")
QUEUED = b"250 2.0.0 OK: queued as 1\r\n"
GREETING = b"EHLO pc\r\nMAIL FROM:<jan@example.nl>\r\nRCPT TO:<piet@example.com>\r\nDATA\r\n"
END = b"\r\n.\r\n"
_FOLDER = tempfile.TemporaryDirectory()  # removed at exit
SPOOL = Spool(Path(_FOLDER.name))  # nothing here is large enough for a file


class _Wire:
    """A transport of memory."""

    def __init__(self) -> None:
        self.heard = bytearray()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 25) if name == "peername" else default

    def write(self, octets: bytes) -> None:
        self.heard += octets

    def close(self) -> None:
        pass

    abort = pause_reading = resume_reading = close

    def set_write_buffer_limits(self, high: int) -> None:
        """What is written is read at once."""

    def can_write_eof(self) -> bool:
        return False  # as with TLS: so no session waits for the client to fall silent


@dataclass
class Conversation:
    """What came of it."""

    taken: list[bytes] = field(default_factory=list)
    heard: bytes = b""
    events: list[Event] = field(default_factory=list)

    def observe(self, event: Event) -> None:
        self.events.append(event)

    async def accept(
        self, submission: Submission, content: Content, elapsed: Callable[[], float], **direct: object
    ) -> bytes:
        octets = content.read(0, content.size)
        assert octets.startswith(submission.head)
        self.taken.append(octets)
        return QUEUED


async def _talk(pieces: list[bytes], bare_newline: str) -> Conversation:
    talk = Conversation()
    settings = configured.listener(
        name="fuzz",
        allow=(ip_network("127.0.0.0/8"),),
        max_message_size=64 * 1024,
        auth="any",
        bare_newline=bare_newline,
        limits=configured.limits(errors=10_000),
    )
    door = Door(
        settings=settings,
        sessions=Sessions(),
        auth_tries=AuthTries(),
        memory=Memory(),
        acceptor=talk,  # type: ignore[arg-type]  # only `accept` is asked for
        queue_ids=QueueIds(),
        spool=SPOOL,
        space=lambda: True,
        observer=talk,
        now=lambda: datetime.now(UTC),
        replies=Counter(),
        live=set(),
    )
    session, wire = Session(door, asyncio.get_running_loop()), _Wire()
    session.connection_made(wire)  # type: ignore[arg-type]  # as much of a transport as is used
    await asyncio.sleep(0)
    for piece in pieces:
        session.data_received(piece)
        await asyncio.sleep(0)
    session.eof_received()
    async with asyncio.timeout(60):
        await session.task
    assert door.memory.used == 0
    assert door.sessions.total == 0
    talk.heard = bytes(wire.heard)
    return talk


def talk(octets: bytes, *, step: int = 0, bare_newline: str = "normalize") -> Conversation:
    """All that is said, `step` octets at a time (0: at once), and the end of it."""
    step = step or len(octets) or 1
    pieces = [octets[begin : begin + step] for begin in range(0, len(octets), step)]
    loop = asyncio.new_event_loop()
    try:
        told = loop.run_until_complete(_talk(pieces, bare_newline))
    finally:
        loop.close()
    troubles = [event for event in told.events if isinstance(event, ExceptionCaught)]
    assert not troubles, troubles[0].traceback
    assert REPLIES.fullmatch(told.heard), told.heard
    return told


def one_message(octets: bytes) -> None:
    """Content without an end of the data in it is one message, or none, whatever else it holds; and QUIT is heard."""
    step, octets = octets[0] if octets else 0, octets[1:]
    if END in octets + END[:-1] or (octets + END).startswith(b".\r\n"):
        return
    whole = talk(GREETING + octets + END + b"QUIT\r\n")
    assert len(whole.taken) == 1
    assert whole.heard.count(b"\r\n221 ") == 1
    assert whole.heard.endswith(QUEUED + b"221 2.0.0 Bye\r\n")
    assert talk(GREETING + octets + END + b"QUIT\r\n", step=step).taken == whole.taken
    refused = talk(GREETING + octets + END + b"QUIT\r\n", step=step, bare_newline="reject")
    assert len(refused.taken) <= 1


def anything_said(octets: bytes) -> None:
    """Whatever is said, replies are lines of SMTP, no exception is caught, and cuts of the network change nothing."""
    step, octets = octets[0] if octets else 0, octets[1:]
    whole = talk(octets)
    parts = talk(octets, step=step)
    assert parts.taken == whole.taken
    assert len(whole.taken) == whole.heard.count(QUEUED)
