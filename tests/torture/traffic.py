"""Mail whose fate is written down: what was acknowledged, and what has arrived.

Both books are files, and a line is synced before whoever writes it goes on: the client before its next command, the
upstream before its 250 after the dot. `mark` is noted with each line: a number that says how far something else was.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path

from tests.kit.house import JAN, PATIENCE, PIET, Client, mail
from tests.kit.upstream import Received

CLIENTS = 4
_NUMBER = re.compile(rb"Subject: Factuur (\d+)")
_QUEUE_ID = re.compile(rb"\bid ([0-9A-Z]{12})\b")


class Book:
    """Lines of a file, each on the disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

    def write(self, *words: object) -> None:
        os.write(self._descriptor, " ".join(map(str, words)).encode() + b"\n")
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    number: int
    reply: str
    mark: int

    @property
    def queue_id(self) -> str:
        """ "" where there was no reply."""
        return self.reply.rpartition(" ")[2]


@dataclass(frozen=True, slots=True)
class Arrival:
    """`number`: of the message, or of that which a bounce is about. `whole`: it is as it was sent.

    `connection`: the name of the one that it came over.
    """

    number: int
    queue_id: str
    bounce: bool
    whole: bool
    mark: int
    connection: str


class Books:
    """Kept in `folder`."""

    def __init__(self, folder: Path, mark: Callable[[], int] = lambda: 0) -> None:
        self.acknowledged: dict[int, Acknowledged] = {}
        self.arrivals: list[Arrival] = []
        self._mark = mark
        self._acknowledged = Book(folder / "acknowledged")
        self._arrived = Book(folder / "arrived")
        self._numbers = count(1)
        self._changed = asyncio.Event()

    def next(self) -> int:
        return next(self._numbers)

    def acknowledge(self, number: int, reply: str) -> None:
        mark = self._mark()
        self._acknowledged.write(number, mark, reply)
        self.acknowledged[number] = Acknowledged(number, reply, mark)
        self._changed.set()

    def arrive(self, received: Received, connection: str = "") -> str | None:
        """For an upstream's `content_allowed`: it is called between the dot and the answer.

        `connection`: its name, where there are more than those of one upstream.
        """
        mark = self._mark()
        number = _NUMBER.search(received.content)
        arrival = Arrival(
            int(number[1]) if number else 0,
            entry_of(received.content),
            received.reverse_path == "",
            number is not None and received.content.endswith(b"\r\n\r\n" + body(int(number[1]))),
            mark,
            connection or str(received.connection),
        )
        self._arrived.write(arrival.number, arrival.queue_id, arrival.bounce, mark)
        self.arrivals.append(arrival)
        self._changed.set()
        return None

    def many(self, count: int) -> bool:
        """So many are acknowledged."""
        return len(self.acknowledged) >= count

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds; it is looked at whenever a line is written. Too long is `PATIENCE` without a line."""
        try:
            while not condition():
                self._changed.clear()
                async with asyncio.timeout(PATIENCE):
                    await self._changed.wait()
        except TimeoutError:
            missing = self.missing()
            raise AssertionError(f"{len(missing)} acknowledged, and not arrived: {missing[:20]}") from None

    def missing(self) -> list[int]:
        """The numbers that were acknowledged, and have not arrived: not at all, or not as the entry of the reply."""
        numbers = self.arrived()
        entries = {"", *(arrival.queue_id for arrival in self.arrivals)}
        there = {number for number, one in self.acknowledged.items() if number in numbers and one.queue_id in entries}
        return sorted(self.acknowledged.keys() - there)

    def arrived(self, *, bounce: bool = False) -> set[int]:
        return {arrival.number for arrival in self.arrivals if arrival.bounce is bounce}

    def close(self) -> None:
        self._acknowledged.close()
        self._arrived.close()


def entry_of(content: bytes) -> str:
    """The queue ID that a message names, or ""."""
    named = _QUEUE_ID.search(content)
    return named[1].decode() if named else ""


def body(number: int) -> bytes:
    """Every tenth message is so large that it lies in a spool file, however fast it comes."""
    size = 800_000 if number % 10 == 0 else 2_000
    return (b"%08d\r\n" % number) * (size // 10)


def message(number: int) -> bytes:
    return mail(f"Factuur {number}", body=body(number))


async def by_data(client: Client, recipient: str, content: bytes) -> str:
    """Hand it over; the last reply."""
    await client.begin(JAN, [recipient])
    client.write(content + b".\r\n")
    return await client.reply()


async def by_bdat(client: Client, recipient: str, content: bytes) -> str:
    """The same, in two chunks."""
    await client.envelope(JAN, [recipient])
    half = len(content) // 2
    client.write(b"BDAT %d\r\n" % half + content[:half])
    assert (await client.reply()).startswith("250")
    client.write(b"BDAT %d LAST\r\n" % (len(content) - half) + content[half:])
    return await client.reply()


async def send(
    where: Path,
    books: Books,
    numbers: Iterable[int],
    recipient: str = PIET,
    hand_over: Callable[[Client, str, bytes], Awaitable[str]] = by_data,
) -> None:
    """One client: message after message, until the last number, or until the relay is gone."""
    try:
        async with Client.to(where) as client:
            for number in numbers:
                reply = await hand_over(client, recipient, message(number))
                if not reply.startswith("250 "):
                    return
                books.acknowledge(number, reply)
    except (OSError, AssertionError):
        return


def endless(books: Books) -> Iterator[int]:
    while True:
        yield books.next()


def twice(arrivals: list[Arrival], kills: Iterable[tuple[int, set[str]]]) -> Counter[int]:
    """How many arrived once more after each kill (`again`)."""
    copies = again(arrivals, kills, lambda one: (one.number, one.bounce) if one.number else one.queue_id)
    return Counter(kill for kill, _ in copies)


def again(
    arrivals: list[Arrival], kills: Iterable[tuple[int, set[str]]], name: Callable[[Arrival], object]
) -> list[tuple[int, Arrival]]:
    """What arrived once more under the same `name`: the kill between, and the arrival before it.

    A kill is how many had arrived by then, and the queue IDs of which the relay had said that they were delivered. It
    is wrong if a message comes twice without a kill between, or after the relay knew that it was delivered.
    """
    ended: dict[int, set[str]] = {}
    for kill, said in kills:
        ended.setdefault(kill, set()).update(said)
    places: dict[object, list[int]] = {}
    for place, arrival in enumerate(arrivals):
        places.setdefault(name(arrival), []).append(place)
    found = []
    for copies in places.values():
        for first, second in pairwise(copies):
            between = [kill for kill in ended if first < kill <= second]
            assert between, f"{arrivals[first]} came twice while the relay lived"
            settled = set[str]().union(*(ended[kill] for kill in between))
            assert arrivals[first].queue_id not in settled, f"{arrivals[first]} came again after it was settled"
            found.append((between[0], arrivals[first]))
    return found


def waiting(queue: Path) -> set[str]:
    """The queue IDs of what waits, for an attempt or for a person; without what is set aside."""
    with closing(sqlite3.connect(queue)) as connection:
        return {name for (name,) in connection.execute("SELECT queue_id FROM entry WHERE place <> 4")}


def faults(queue: Path) -> list[str]:
    """What is wrong with a queue whose relay has stopped: its database, or files that belong to no row."""
    with closing(sqlite3.connect(queue)) as connection:
        (state,) = connection.execute("PRAGMA integrity_check").fetchone()
        named = {name for (name,) in connection.execute("SELECT spool_file FROM entry WHERE spool_file IS NOT NULL")}
    wrong = [] if state == "ok" else [f"integrity_check: {state}"]
    there = {path.name for path in queue.with_name(queue.name + ".spool").iterdir()}
    if there != named:
        wrong.append(f"spool files {sorted(there)}, rows name {sorted(named)}")
    return wrong
