"""A queue with very many messages, and a year of history: nobody pays for their number.

What something costs is counted in steps of SQLite's machine, which no clock and no neighbour changes. How long it takes
is measured by `bench/scale.py`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from relay.events import BatchCommitted, Event, Observer
from relay.queue.listing import Verb, Wanted
from relay.queue.model import Lease, Result, Settlement, State
from relay.queue.sqlite.database import Database
from relay.queue.sqlite.start import SqliteStore
from tests.kit.certificates import Certificates
from tests.kit.filled import CLIENTS, Nobody, entries, fill, remember, sleep_until
from tests.kit.house import Site
from tests.kit.process import Process
from tests.kit.store import usual

FEW = 500
MORE_THAN_A_SLICE = 2500
HOUR = timedelta(hours=1)
MIB = 2**20
MOST_MEMORY = 24 * MIB  # more than an empty relay needs: what waits in the store is not in memory
MOST_LOG = 96 * MIB
CONNECTIONS = 8


@asynccontextmanager
async def opened(path: Path, observer: Observer | None = None) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path, observer=observer or Nobody(), **usual())
    try:
        yield store
    finally:
        await store.close()


class Steps:
    """How many steps SQLite makes for a store, writing and reading."""

    def __init__(self, store: SqliteStore) -> None:
        self.made = 0
        disk = cast(Database, store._disk)
        for connection in (disk.open(), disk._reader):
            assert connection is not None
            connection.set_progress_handler(self._one, 1)

    def _one(self) -> bool:
        self.made += 1
        return False

    async def of(self, deed: Awaitable[Any]) -> int:
        before = self.made
        await deed
        return self.made - before


def now() -> datetime:
    return datetime.now(UTC)


async def deliver(store: SqliteStore, *, later: bool) -> None:
    """Lease ten, and settle them: they are delivered, or wait for an hour."""
    leases = await store.lease("default", limit=10, now=now())
    assert len(leases) == 10
    await asyncio.gather(*(store.settle(settled(lease, later=later)) for lease in leases))


def settled(lease: Lease, *, later: bool) -> Settlement:
    if later:
        return Settlement(lease, (Result(0, State.PENDING, "451 4.7.1 later"),), now() + HOUR, "default")
    return Settlement(lease, (Result(0, State.DELIVERED, "250 2.0.0 Ok", upstream="own"),))


async def hand_in(store: SqliteStore, *, leased: bool) -> None:
    """A fresh message, which goes out at once, or waits."""
    (entry,) = entries(1, first=10**9 + leased)
    lease = await store.put(entry, leased=leased)
    if leased:
        await store.settle(settled(lease, later=False))
    else:
        await store.act(Verb.CANCEL, [entry.queue_id], now=now())


async def give_back(store: SqliteStore) -> None:
    await store.give_back(await store.lease("default", limit=10, now=now()))


async def name_of_one(store: SqliteStore) -> str:
    return (await store.list(Wanted(), limit=1))[0].queue_id


async def look_at_one(store: SqliteStore) -> None:
    name = await name_of_one(store)
    assert await store.match(name[:8])
    assert await store.show(name)


async def hold_and_release(store: SqliteStore) -> None:
    name = await name_of_one(store)
    await store.act(Verb.HOLD, [name], now=now())
    await store.act(Verb.RELEASE, [name], now=now())


DEEDS: dict[str, Callable[[SqliteStore], Awaitable[Any]]] = {
    "a message that goes out at once": lambda store: hand_in(store, leased=True),
    "a message that waits, and is cancelled": lambda store: hand_in(store, leased=False),
    "ten that are delivered": lambda store: deliver(store, later=False),
    "ten that are deferred": lambda store: deliver(store, later=True),
    "ten that are given back": give_back,
    "is anything past its lifetime?": lambda store: store.lease_expired("default", limit=9, now=now()),
    "is a session code?": lambda store: store.lease_expired(
        "default", limit=9, now=now() + 999 * HOUR, session_codes_only=True
    ),
    "when is the next due?": lambda store: store.next_due("default"),
    "under which routes does mail wait?": lambda store: store.routes(),
    "the oldest hundred": lambda store: store.list(Wanted()),
    "the newest hundred": lambda store: store.find(Wanted()),
    "the newest of an address": lambda store: store.find(Wanted(to="m*@example.org"), limit=5),
    "all about one": look_at_one,
    "one is held and released": hold_and_release,
    "a commit that proves itself": lambda store: store.check(),
    "nothing is too old for the history": lambda store: store.forget(before=now() - timedelta(days=400)),
}  # fmt: skip


async def steps(path: Path, waiting: int, history: int) -> dict[str, int]:
    """What each deed costs with so many messages waiting and so many in the history."""
    path.parent.mkdir()
    await fill(path, 0)
    if history:
        remember(path, history, days=365)
    await fill(path, waiting)
    async with opened(path) as store:
        await store.routes()  # the reading connection is there
        counted = Steps(store)
        return {name: await counted.of(deed(store)) for name, deed in DEEDS.items()}


@pytest.mark.asyncio
@pytest.mark.promise("What a message and a question cost does not grow with what waits, nor with a year of history.")
async def test_nothing_costs_more_steps_in_a_long_queue_with_a_long_history(
    tmp_path: Path, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    many, finished = size(20_000, 1_000_000), size(20_000, 3_000_000)
    few = await steps(tmp_path / "few" / "queue.db", FEW, FEW)
    long = await steps(tmp_path / "long" / "queue.db", many, finished)
    grown = {name: (few[name], long[name]) for name in DEEDS}
    for name, (before, after) in grown.items():
        assert after <= 1.5 * before + 5000, (name, before, after)
    figures(
        f"{many} waiting and {finished} in the history beside {FEW} and {FEW}, in steps of SQLite: "
        + ", ".join(f"{name} {before}, {after}" for name, (before, after) in grown.items())
    )


class Commits:
    """An observer that notes how many steps each commit was."""

    def __init__(self) -> None:
        self.steps: Steps | None = None
        self.largest = 0
        self._before = 0

    def observe(self, event: Event) -> None:
        if isinstance(event, BatchCommitted) and self.steps is not None:
            self.largest = max(self.largest, self.steps.made - self._before)
            self._before = self.steps.made


async def wake_what_is_due(store: SqliteStore, many: int) -> None:
    for _ in range(3):
        leases = await store.lease("default", limit=10, now=now() + 2 * HOUR)
        await asyncio.gather(*(store.settle(settled(lease, later=False)) for lease in leases))


async def wake_all(store: SqliteStore, many: int) -> None:
    woken = 0

    def count() -> None:
        nonlocal woken
        woken += 1

    await store.make_due(now=now(), woken=count)
    assert woken > many / 2000  # whoever looks for mail is rung for each slice, not at the end


async def forget_all(store: SqliteStore, many: int) -> None:
    assert await store.forget(before=now() + HOUR) == many


@pytest.mark.asyncio
@pytest.mark.parametrize("deed", [wake_what_is_due, wake_all, forget_all], ids=lambda deed: deed.__name__)
@pytest.mark.promise("What touches very much mail at once does so in slices: no message waits for all of it.")
async def test_no_commit_is_larger_for_very_much_mail(
    deed: Callable[[SqliteStore, int], Awaitable[None]],
    tmp_path: Path,
    size: Callable[..., Any],
    figures: Callable[[str], None],
) -> None:
    largest = {}
    for many in (MORE_THAN_A_SLICE, size(8 * MORE_THAN_A_SLICE, 200 * MORE_THAN_A_SLICE)):
        path = tmp_path / str(many) / "queue.db"
        path.parent.mkdir()
        await fill(path, 0)
        if deed is forget_all:
            remember(path, many, days=365)
        else:
            await fill(path, many)
            sleep_until(path, first=now() + HOUR / 2, last=now() + HOUR)
        commits = Commits()
        async with opened(path, commits) as store:
            await store.routes()
            commits.steps = Steps(store)
            await deed(store, many)
        largest[many] = commits.largest
    few, most = largest.values()
    assert 0 < most <= 1.5 * few + 5000
    figures(
        f"the largest commit, in steps of SQLite: {' and '.join(f'{n} for {m} messages' for m, n in largest.items())}"
    )


class Sink(asyncio.Protocol):
    """An upstream that takes everything, quickly; `taken` has the numbers of the messages in the order they came."""

    def __init__(self, taken: list[int], look: Callable[[], None]) -> None:
        self._taken = taken
        self._look = look
        self._buffer = bytearray()
        self._in_content = False
        self._number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = b"\r\n.\r\n" if self._in_content else b"\r\n"
        while (at := self._buffer.find(end)) >= 0:
            said = bytes(self._buffer[:at])
            del self._buffer[: at + len(end)]
            if self._in_content:
                self._taken.append(self._number)
                self._look()
                self._in_content = False
                reply = b"250 2.0.0 Ok"
            else:
                reply = self._reply_to(said)
            self._transport.write(reply + b"\r\n")
            end = b"\r\n.\r\n" if self._in_content else b"\r\n"

    def _reply_to(self, line: bytes) -> bytes:
        match line[:4].upper():
            case b"EHLO":
                return b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME"
            case b"RCPT":
                self._number = int(line.partition(b"<m")[2].partition(b"@")[0])
                return b"250 2.1.5 Ok"
            case b"DATA":
                self._in_content = True
                return b"354 go on"
            case _:
                return b"250 2.0.0 Ok"


def turns(taken: list[int]) -> int:
    """Clients take turns, and of each the oldest goes first: how many places the one that was furthest off was off."""
    counted: Counter[int] = Counter()
    off = 0
    for number in taken:
        client = number % CLIENTS
        off = max(off, abs(number // CLIENTS - counted[client]))
        counted[client] += 1
    return off


@pytest.mark.asyncio
@pytest.mark.promise(
    "A long queue is drained once the upstream is back: all of it, once, the oldest first, in little memory."
)
async def test_what_waited_is_drained_once_and_the_oldest_first_in_little_memory(
    tmp_path: Path, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    many, leased = size(5_000, 1_000_000), 100
    site = Site(tmp_path, Certificates(tmp_path))
    log = tmp_path / "queue.db-wal"
    taken: list[int] = []
    longest = 0
    over = asyncio.Event()

    def look() -> None:
        nonlocal longest
        if len(taken) % 500 == 0:
            longest = max(longest, log.stat().st_size)
        if len(taken) == many:
            over.set()

    upstream = await asyncio.get_running_loop().create_server(
        lambda: Sink(taken, look), "127.0.0.1", 0, start_serving=False
    )
    own = {"host": "127.0.0.1", "port": upstream.sockets[0].getsockname()[1], "tls": "none"}
    site.configure(upstreams={"own": own | {"max_connections": CONNECTIONS}}, log={"format": "json", "level": "info"})
    async with Process.serving(site) as relay:
        idle = relay.peak_memory
    await fill(site.queue_path, many - leased)
    await fill(site.queue_path, leased, leased=True, first=many - leased)  # by a relay that was killed
    async with Process.serving(site) as relay:
        grown_at_start = relay.peak_memory - idle
        await upstream.start_serving()
        async with asyncio.timeout(size(250, 5000)):
            await over.wait()
        grown = relay.peak_memory - idle
    upstream.close()
    assert Counter(taken) == Counter(range(many))
    off = turns(taken)
    assert off <= 4 * CONNECTIONS
    assert grown_at_start < MOST_MEMORY
    assert grown < MOST_MEMORY
    assert longest < MOST_LOG
    figures(
        f"{many} drained, each once, none more than {off} places off its turn; memory {grown_at_start / MIB:.0f} MiB"
        f" above an empty relay's at the start, {grown / MIB:.0f} at the end, write-ahead log {longest / MIB:.0f} MiB"
    )
