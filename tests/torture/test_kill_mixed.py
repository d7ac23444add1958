"""SIGKILL at random moments while mail comes in by every door and leaves by every way at once."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import pytest

from tests.kit.house import Site
from tests.kit.upstream import KEYWORDS, SILENCE
from tests.torture.nursery import Nursery, Relay
from tests.torture.traffic import Arrival, Books, again, by_bdat, by_data, endless, faults, message, send, waiting
from tests.torture.ways import CONNECTIONS, Ways

KINDS = ("file", "direct", "bdat", "code", "attachment")
"""How a client hands in: into a folder, to `reply: direct`, by BDAT, a session code, a message with a large attachment.
(Of the other kinds every tenth is as large.)"""
ATTACHMENTS = 1_000_000  # their numbers begin here
EACH = 2  # clients of a kind
FILES = 16  # that lie in the folder, as soon as one of them was taken
AGAIN = 2  # messages of each connection that may come again after a kill


def listeners(doors: Path, files: Path) -> list[dict[str, Any]]:
    """A door for each kind, and the folder of files."""
    direct, *others = [{"name": kind, "listen": f"unix:{doors / kind}"} for kind in KINDS[1:]]
    pickup = {"name": "file", "type": "pickup", "directory": str(files)}
    return [pickup, direct | {"reply": "direct", "patience": "1s"}, *others]


class Clients:
    """Clients of all kinds, who go on with the next relay where the one before died.

    Who sends ordinary mail sends it again until it is acknowledged, as applications do. A file is written once: it is
    acknowledged when it has its name in the folder. Who gets no code asks for another one.
    """

    def __init__(self, doors: Path, files: Path, books: Books) -> None:
        self.kinds: dict[int, str] = {}
        self.sent = Counter[int]()
        self._doors = doors
        self._files = files
        self._books = books
        numbers, attachments = endless(books), count(ATTACHMENTS, 10)
        self._of_files = self._of("file", numbers)
        self._others = [(kind, self._of(kind, attachments if kind == "attachment" else numbers)) for kind in KINDS[1:]]

    def _of(self, kind: str, numbers: Iterable[int]) -> Iterator[int]:
        """The numbers of one client, each as often as it is to be sent."""
        for number in numbers:
            self.kinds[number] = kind
            self.sent[number] = 1
            yield number
            while kind not in ("file", "code") and number not in self._books.acknowledged:
                self.sent[number] += 1
                yield number

    def begin(self, relay: Relay) -> list[asyncio.Task[None]]:
        """All at once, until that relay is gone. Files are there before it is."""
        tasks = [self._write_files(relay), *(self._send(relay, kind, numbers) for kind, numbers in self._others)]
        return [asyncio.create_task(task) for task in tasks]

    async def _send(self, relay: Relay, kind: str, numbers: Iterator[int]) -> None:
        if await relay.started():
            hand_over = by_bdat if kind == "bdat" else by_data
            await send(self._doors / kind, self._books, numbers, hand_over=hand_over)

    async def _write_files(self, relay: Relay) -> None:
        draft = self._files.with_name("draft")
        for times in count(1):
            lying = sum(1 for _ in self._files.glob("*.eml"))
            for number in islice(self._of_files, max(0, FILES - lying)):
                draft.write_bytes(message(number))
                os.utime(draft, (number, number))  # nobody has written to it for two seconds
                draft.rename(self._files / f"{number}.eml")
                self._books.acknowledge(number, "")
            if await relay.line("queued", times, listener="file") is None:
                return

    def acknowledged(self) -> Counter[str]:
        """How many of each kind."""
        return Counter(self.kinds[number] for number in self._books.acknowledged)


@dataclass(frozen=True, slots=True)
class Life:
    """Of a relay that was killed: how many connections to each of the two there had been by then, and the queue IDs of
    which it had said that they were delivered."""

    connections: dict[str, int]
    delivered: set[str]

    def had(self, arrival: Arrival) -> bool:
        """Whether it came from this relay, or from one before it."""
        way, number = arrival.connection.split()
        return int(number) <= self.connections[way]


def came_again(arrivals: list[Arrival], lives: list[Life]) -> list[tuple[int, Arrival]]:
    """As `traffic.again`, of entries; in the order of the relays that sent them. (The dead may be read late.)"""
    inorder = sorted(arrivals, key=lambda arrival: sum(not life.had(arrival) for life in lives))
    kills = [(sum(map(life.had, arrivals)), life.delivered) for life in lives]
    return again(inorder, kills, lambda arrival: arrival.queue_id)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.promise(
    "A relay that is killed (SIGKILL) while mail comes by folder, BDAT and direct reply, with large attachments, and "
    "session codes leave by HTTPS or SMTP, loses nothing that it had acknowledged, and repeats two messages of a "
    "connection at most."
)
async def test_mail_of_all_kinds_survives_sigkill_at_random_moments(
    quick_site: Site, tmp_path: Path, nursery: Nursery, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    rounds, most = size((5, 6), (100, 25))
    files = tmp_path / "files"
    files.mkdir()
    chance = random.Random()
    lives: list[Life] = []
    async with Ways.of(
        quick_site,
        keywords=(*KEYWORDS, "CHUNKING"),
        listeners=listeners(quick_site.folder, files),
        routes={
            "default": {"retry": "1s"},
            "direct": {"retry": "1s", "priority": "high"},
            "session-codes": {"retry": "1s"},
        },
        senders=[{"match": {"listener": "direct"}, "keep": True, "route": "direct"}],
        session_codes={"enabled": True, "match": [{"listener": "code"}]},
    ) as ways:
        own, vendor, books = ways.own, ways.vendor, ways.books
        clients = Clients(quick_site.folder, files, books)
        own.script("rcpt", lambda _: chance.choices(("450 4.2.0 later", SILENCE, None), (80, 15, 905))[0], times=None)
        own.script("dot", lambda _: chance.choices((SILENCE, None), (5, 995))[0], times=None)
        ways.mood = lambda: chance.random() < 0.9

        for kind in islice(cycle(KINDS), rounds):
            relay = nursery.birth(quick_site)
            tasks = clients.begin(relay)
            assert await relay.started(), relay.lines
            if number := chance.randint(0, most):
                await relay.line("queued", number, listener=kind)
            await relay.kill()
            await asyncio.gather(*tasks)
            connections = {"own": own.connections, "vendor": vendor.connections}
            lives.append(Life(connections, {line["queue_id"] for line in relay.all("delivered")}))
        own.unscript("rcpt")
        own.unscript("dot")
        ways.mood = lambda: True
        relay = nursery.birth(quick_site)
        tasks = clients.begin(relay)
        assert await relay.started(), relay.lines
        await books.until(lambda: clients.acknowledged().keys() == set(KINDS))
        await relay.stop()
        await asyncio.gather(*tasks)
        relay = nursery.birth(quick_site)
        assert await relay.started(), relay.lines
        await books.until(lambda: len(books.arrivals) >= len(books.acknowledged) and not books.missing())
        await relay.until(partial(waiting, quick_site.queue_path), set())
        await relay.stop()

    arrivals = books.arrivals
    assert books.missing() == []
    assert all(arrival.whole for arrival in arrivals)
    assert faults(quick_site.queue_path) == []
    assert [path.name for path in files.rglob("*") if path.is_file()] == []

    assert ways.by_both == set()
    assert {clients.kinds[number] for number in ways.taken["vendor"]} <= {"code"}
    assert ways.keys == {queue_id: {queue_id} for queue_id in ways.keys}

    copies = came_again(arrivals, lives)
    of_way = Counter((kill, arrival.connection.split()[0]) for kill, arrival in copies)
    assert all(number <= AGAIN * CONNECTIONS for number in of_way.values()), of_way
    entries: dict[int, set[str]] = {}
    for arrival in arrivals:
        entries.setdefault(arrival.number, set()).add(arrival.queue_id)
    doubled = {n: (clients.kinds[n], ids, clients.sent[n]) for n, ids in entries.items() if len(ids) > clients.sent[n]}
    assert doubled == {}
    assert any(command.startswith("BDAT") for command in own.commands)

    kinds = clients.acknowledged()
    relayed = sum("relayed as" in one.reply for one in books.acknowledged.values())
    codes = {way: sum(clients.kinds[number] == "code" for number in taken) for way, taken in ways.taken.items()}
    by_https = sum(number for (_, way), number in of_way.items() if way == "vendor")
    figures(
        f"{rounds} kills, {kinds.total()} acknowledged, all arrived whole: {kinds['file']} files of a folder, "
        f"{kinds['direct']} by direct reply ({relayed} of them relayed), {kinds['bdat']} by BDAT, "
        f"{kinds['attachment']} with large attachments, {kinds['code']} session codes; {codes['vendor']} codes came "
        f"by HTTPS and {codes['own']} by SMTP, none by both; {len(copies)} entries came again ({by_https} by HTTPS, "
        f"with the same key; at most {max(of_way.values(), default=0)} after one kill over {CONNECTIONS} connections), "
        f"none of them settled before; {sum(map(len, entries.values())) - len(entries)} messages came again because "
        "their clients, without a 250, sent them again"
    )
