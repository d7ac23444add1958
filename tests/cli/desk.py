"""What the operator's commands meet in tests: messages as values, a desk that has them, and a terminal.

The documents are made by `relay.admin.documents`, so that they have the shape of the real ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import typer
from typer.testing import CliRunner, Result

from relay.admin import documents, parameters, queue
from relay.admin.errors import AmbiguousId, NoSuchEntry
from relay.cli.clients import clients
from relay.cli.queue import queue as queue_commands
from relay.cli.status import status
from relay.queue.listing import Acted, Addressee, Did, Listed, Place, Saved, Shown, Tried, Verb, Wanted
from relay.queue.model import Kind
from tests.kit import machine

NOW = datetime(2026, 11, 24, 7, 0, tzinfo=UTC)
EVIL = "\x1b[31mrood\x07 [bold]\u202e"

CONFIG = """\
hostname: relay.example.nl
upstreams: {{own: {{host: smtp.example.com}}}}
queue: {{store: "sqlite:{folder}/queue.db"}}
admin: {{socket: "{folder}/admin.sock"}}
"""


def configuration(folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(folder=folder))
    return path


def to(address: str, state: str = "pending", reply: str = "", upstream: str = "") -> Addressee:
    ended = NOW - timedelta(minutes=1) if state in ("delivered", "failed", "expired", "cancelled") else None
    return Addressee(address, state, reply, upstream, ended)


def a_message(number: int = 1, place: Place = Place.DEFERRED, **parts: Any) -> Listed:
    waits = place in (Place.PENDING, Place.DEFERRED)
    usual = Listed(
        key=number,
        queue_id=f"0XK3M7PQ{number:04d}",
        place=place,
        kind=Kind.MAIL,
        route="default",
        size=34_567,
        attempts=3,
        received_at=NOW - timedelta(hours=3, minutes=12),
        next_attempt_at=NOW + timedelta(minutes=4, seconds=20) if waits else None,
        expires_at=NOW + timedelta(days=4),
        ended_at=NOW - timedelta(minutes=1) if place is Place.FINISHED else None,
        listener="legacy",
        client="10.0.0.5",
        user=None,
        reverse_path="jan.van.der.berg@accountantskantoor-voorbeeld.nl",
        recipients=(to("piet@example.org", reply="451 4.7.1 Greylisted, please try again in 5 minutes"),),
        session_code=False,
    )
    return replace(usual, **parts)


def all_about(listed: Listed, **parts: Any) -> Shown:
    usual = Shown(
        listed=listed,
        because=("senders[2]",),
        helo="werkplek-7",
        protocol="ESMTPS",
        tls="TLSv1.3",
        envid=None,
        head=b"From: Jan <jan@example.nl>\r\nSubject: Factuur [bold]117[/bold]\r\n",
        tries=(Tried(1, NOW - timedelta(hours=2), "piet@example.org", "own", "451 4.7.1 Greylisted " + "x" * 200),),
    )
    return replace(usual, **parts)


class FakeDesk:
    """Messages that lie still. `orders` are the verbs it was given, each with its IDs."""

    running = True

    def __init__(self, *listed: Listed) -> None:
        self.listed = {one.queue_id: one for one in listed}
        self.orders: list[tuple[Verb, list[str], str | None]] = []
        self.wanted: list[Wanted] = []
        self.did: dict[str, Acted] = {}

    def get(self, path: str, *, after: int = 0, limit: int = 100, **conditions: str) -> documents.Document:
        if path not in ("/v1/queue", "/v1/queue/find"):
            return documents.message(all_about(self.listed[self._resolve(path.removeprefix("/v1/queue/"))]))
        wanted = self._asked(conditions)
        if path == "/v1/queue/find":
            entries = [*reversed(self.listed.values())]
            return self._page(entries[:limit], more=len(entries) > limit)
        entries = [one for one in self.listed.values() if one.key > after and one.place is (wanted.place or one.place)]
        return self._page(entries[:limit], next=entries[limit - 1].key if len(entries) > limit else None)

    def post(self, path: str, *, verb: Verb, ids: Sequence[str], route: str | None) -> documents.Document:
        assert path == "/v1/queue/act"
        chosen = [self._resolve(prefix) for prefix in ids]
        self.orders.append((verb, chosen, route))
        return documents.report(self._report(verb, chosen, route))

    def stream(self, path: str, **asked: Any) -> Iterator[documents.Document]:
        if path == "/v1/queue/backup":
            yield documents.backup(Path(asked["file"]), Saved(entries=2, octets=1_234_567, left_out=1))
            return
        assert path == "/v1/queue/act"
        self._asked(asked["all"])
        verb, ids, route = asked["verb"], [*self.listed], asked["route"]
        self.orders.append((verb, ids, route))
        report = self._report(verb, ids, route)
        yield documents.progress(report)
        yield documents.report(replace(report, results=tuple(r for r in report.results if r.did is not Did.DONE)))

    def _asked(self, conditions: dict[str, str]) -> Wanted:
        wanted = parameters.wanted(parameters.values(parameters.CONDITIONS, conditions))
        self.wanted.append(wanted)
        return wanted

    def _page(self, entries: Sequence[Listed], **rest: object) -> documents.Document:
        return documents.document(entries=[documents.entry(one) for one in entries], **rest)

    def _resolve(self, prefix: str) -> str:
        found = [queue_id for queue_id in self.listed if queue_id.startswith(prefix.upper())]
        if not found:
            raise NoSuchEntry(f"no message has an ID that begins with {prefix}")
        if len(found) > 1:
            raise AmbiguousId(f"more than one ID begins with {prefix} ({', '.join(found)})")
        return found[0]

    def _report(self, verb: Verb, ids: Sequence[str], route: str | None) -> queue.Report:
        results = tuple([self.did.get(queue_id, Acted(queue_id, Did.DONE)) for queue_id in ids])
        counts = {did: sum(result.did is did for result in results) for did in Did}
        return queue.Report(queue.Order(verb, route), counts, results)


def unescaped(document: Any) -> Any:
    """The document with EVIL in it as a relay would send it that makes nothing harmless."""
    escaped, bare = (json.dumps(text)[1:-1] for text in (documents.printable(EVIL), EVIL))
    assert escaped in json.dumps(document)
    return json.loads(json.dumps(document).replace(escaped, bare))


def run(*words: str) -> Result:
    """`relay` with these words, its answers not on a terminal."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(status)
    app.command()(clients)
    app.add_typer(queue_commands, name="queue")
    return CliRunner().invoke(app, list(words))


class Terminal:
    """A terminal to write to. What was written is read at the end."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.written = ""


@contextmanager
def terminal() -> Iterator[Terminal]:
    """`written` is there after the block; it may be no more than a terminal's buffer holds (4 KiB)."""
    leader, follower = machine.terminal()
    with os.fdopen(follower, "w", encoding="utf-8") as stream, os.fdopen(leader, "rb", buffering=0) as reader:
        told = Terminal(stream)
        yield told
        stream.flush()
        os.set_blocking(leader, False)
        while chunk := reader.read(65_536):
            told.written += chunk.decode()
