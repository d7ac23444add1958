"""A day in the life of a relay, on which all happens that `points.POINTS` names.

It starts on a queue that a dead relay left, with a lease and with spool files that no row names. Applications
send small mail, large mail and mail to somebody who is refused; an operator does each verb of `points.VERBS`. Wherever
the relay dies on that day, the day after has the rest of it: `Day.second` sees that nothing was lost.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from relay.queue.sqlite.database import LAYOUT
from relay.queue.sqlite.statements import read
from tests.kit.house import Site
from tests.kit.upstream import ScriptedUpstream
from tests.torture.nursery import Relay
from tests.torture.points import VERBS
from tests.torture.traffic import Books, faults, send, twice, waiting

GONE = "weg@example.org"  # refused by the upstream
WAITING = "later@example.org"  # not now, says the upstream on the first day
HELD = "vast@example.com"  # held by a sender rule
OLD = {("piet@example.com",), ("b@x.nl",)}  # who waits for mail of the old queue
STAYS = {"0Z6J1K8G1007", "0Z6J1K8G3007"}  # held in the old queue, as a whole or in part
NUMBERS = range(1, 15)
REFUSED = range(31, 35)
CONNECTIONS = 3


def leave_queue(site: Site) -> Path:
    """Mail of every kind, so old that its lifetime is over. The folder of spool files."""
    with closing(sqlite3.connect(site.queue_path)) as connection:
        connection.executescript(read("schema.sql") + Path(__file__).with_name("left.sql").read_text())
        connection.execute(f"PRAGMA user_version = {LAYOUT}")
    site.queue_path.chmod(0o600)
    spool = site.queue_path.with_name("queue.db.spool")
    spool.mkdir(mode=0o700)
    head = b"From: jan@example.nl\r\nSubject: Factuur\r\n\r\n"
    (spool / "0Z6J1K8G5007.eml").write_bytes(head + b"x" * (300 - len(head)))
    return spool


class Day:
    """`site` is configured for it. `own` is the upstream."""

    def __init__(self, site: Site, own: ScriptedUpstream) -> None:
        self.books = Books(site.folder)
        self.answered: set[str] = set()  # verbs
        self.about: dict[str, tuple[int, str]] = {}  # number and queue ID of the message of each verb
        self._site = site
        self._own = own
        self._door = site.folder / "door"
        own.content_allowed = self.books.arrive
        spool = leave_queue(site)
        (spool / "0Z6J1K8GZZZZ.eml").write_bytes(b"nobody's")
        (spool / "0123456789abcdef.part").write_bytes(b"half of somebody's")
        own.script("rcpt", lambda _: self._judge(), times=None)
        site.configure(
            upstreams={"own": site.way_to(own, max_connections=CONNECTIONS)},
            listeners=[{"name": "legacy", "listen": f"unix:{self._door}"}],
            routes={"default": {"retry": "1s"}, "second": {"retry": "1s", "upstreams": ["own"]}},
            senders=[{"name": "look", "match": {"to": HELD}, "hold": True}],
            session_codes={"enabled": True, "via_own_smtp": True, "fallback": False, "match": [{"subject": "*code*"}]},
            log={"format": "json"},
        )
        self._later = True

    def _judge(self) -> str | None:
        word = self._own.commands[-1]
        if GONE in word:
            return "550 5.1.1 nobody of that name"
        return "450 4.2.0 later" if WAITING in word and self._later else None

    async def first(self, relay: Relay) -> None:
        """Until all of it is done, or the relay is dead."""
        if await relay.started():
            await asyncio.gather(self._operate(relay), *self._applications())

    def _applications(self) -> list[asyncio.Task[None]]:
        numbers = iter(NUMBERS)
        sends = [send(self._door, self.books, numbers) for _ in range(2)]
        return [asyncio.create_task(one) for one in (*sends, send(self._door, self.books, REFUSED, GONE))]

    async def _operate(self, relay: Relay) -> None:
        """Each verb on a message that is held, or that waits for its next attempt."""
        for number, verb in enumerate(VERBS, 101):
            waits = verb in ("retry", "hold")
            await send(self._door, self.books, [number], WAITING if waits else HELD)
            if number not in self.books.acknowledged:
                return
            queue_id = self.books.acknowledged[number].queue_id
            self.about[verb] = number, queue_id
            if waits and await relay.line("deferred", queue_id=queue_id) is None:
                return
            if not await self._ask(relay, verb, queue_id):
                return
            self.answered.add(verb)

    async def _ask(self, relay: Relay, verb: str, queue_id: str) -> bool:
        """Tell the relay. True when it has answered."""
        words = {"verb": verb, "ids": [queue_id], **({"route": "second"} if verb == "reroute" else {})}
        body = json.dumps(words).encode()
        head = (
            "POST /v1/queue/act HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            reader, writer = await _reach(relay, self._site.control_path)
            writer.write(head.encode() + body)
            answer = await reader.read()
            writer.close()
        except OSError:
            return False
        return answer.startswith(b"HTTP/1.1 200")

    async def second(self, relay: Relay, kill: tuple[int, set[str]]) -> int:
        """The day after the kill: everything acknowledged arrives, what the operator was told is so, and the operator
        does the rest. How many came twice.

        `kill` is how much had arrived when the first relay died, and what that had said was delivered.
        """
        books, about = self.books, self.about
        assert await relay.started(), relay.lines
        self._later = False
        for verb, (_, queue_id) in about.items():
            if verb not in self.answered:
                await self._ask(relay, verb, queue_id)
        for verb in ("reroute", "hold"):  # what waits for a person still
            if verb in about:
                assert verb not in self.answered or about[verb][0] not in books.arrived()
                await self._ask(relay, "release", about[verb][1])
        known = {queue_id for _, queue_id in about.values()}
        for queue_id in waiting(self._site.queue_path) - STAYS - known:  # held, and dead before its 250
            await self._ask(relay, "release", queue_id)
        ended = {about[verb][0] for verb in ("cancel", "bounce") if verb in about}
        bounced = {number for number in books.acknowledged if number in REFUSED}
        bounced |= {about["bounce"][0]} if "bounce" in about else set()
        wanted = books.acknowledged.keys() - bounced - ended
        await books.until(lambda: wanted <= books.arrived() and bounced <= books.arrived(bounce=True))
        await relay.until(lambda: waiting(self._site.queue_path), STAYS)
        await relay.stop()
        books.close()
        assert {message.recipients for message in self._own.messages} >= OLD
        assert not ended & books.arrived(), "cancelled or returned, and sent"
        assert all(arrival.whole for arrival in books.arrivals if arrival.number and not arrival.bounce)
        assert faults(self._site.queue_path) == []
        copies = twice(books.arrivals, [kill]).total()
        assert copies <= CONNECTIONS
        return copies


async def _reach(relay: Relay, path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The admin socket, which opens a moment after the doors; OSError where the relay is dead."""
    while True:
        try:
            return await asyncio.open_unix_connection(path)
        except OSError:
            if relay.code is not None:
                raise
            await asyncio.sleep(0.01)
