"""When the machine fails: nothing half-kept, everybody told, and on again without a restart."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import relay.queue.sqlite.database
import relay.queue.store_loop
from relay.errors import StoreUnavailable
from relay.events import BatchCommitted, Event, StoreFailed, StoreRecovered
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.queue.listing import Place, Verb, Wanted
from relay.queue.model import Kind, Lease, Ledger, Result, Settlement, State, Told
from tests.kit.files import contents
from tests.queue.house import FailingDisk, FailingFile, SqliteHouse
from tests.queue.mail import HEAD, NOON, an_entry, deferred, ended, ids, memory, tried
from tests.queue.test_sqlite_start import spooled

LARGE = memory(b"y" * 200_000)


def limit_pages(house: SqliteHouse, pages: int) -> None:
    """From the next commit on. It is the writer's thread that says so: nobody else may use its connection."""
    disk: Any = house.store._disk
    commit = disk._possible

    def limit_and_commit(operations: object) -> object:
        disk._possible = commit
        disk._connection.execute(f"PRAGMA max_page_count = {pages}")
        return commit(operations)

    disk._possible = limit_and_commit


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Writing beyond `size` of any file fails: EFBIG, which SQLite calls an I/O error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.asyncio
async def test_a_full_disk_keeps_nothing_and_is_over_when_there_is_room_again(house: SqliteHouse) -> None:
    kept = await house.store.put(an_entry(), leased=True)
    limit_pages(house, 12)
    results = await asyncio.gather(
        *(house.store.put(an_entry(content=LARGE), leased=True) for _ in range(3)), return_exceptions=True
    )
    assert [getattr(result, "reason", None) for result in results] == ["full"] * 3
    assert house.store.ledger == Ledger(accepted=1, active=1)
    limit_pages(house, 100_000)
    await house.store.settle(ended(kept))
    await house.store.put(an_entry(content=LARGE), leased=False)
    assert [type(event) for event in house.noted.events[-4:]] == [
        StoreFailed,
        BatchCommitted,
        StoreRecovered,
        BatchCommitted,
    ]
    assert (await house.crash()).ledger == Ledger(found=1, pending=1)


@pytest.mark.asyncio
async def test_an_io_error_keeps_nothing_and_the_database_is_opened_anew(house: SqliteHouse) -> None:
    kept = await house.store.put(an_entry(), leased=True)
    before = house.store._disk._connection  # type: ignore[attr-defined]
    with files_end_at(house.path.with_name("queue.db-wal").stat().st_size):
        results = await asyncio.gather(
            house.store.put(an_entry(content=LARGE), leased=True),
            house.store.settle(deferred(kept, NOON)),
            return_exceptions=True,
        )
        with pytest.raises(StoreUnavailable):
            await house.store.put(an_entry(content=memory(b"y" * 2_000_000)), leased=True)
    assert [getattr(result, "reason", None) for result in results] == ["io"] * 2
    assert house.store.ledger == Ledger(accepted=1, active=1)
    await house.store.check()
    assert house.store._disk._connection is not before  # type: ignore[attr-defined]
    assert house.noted.of(StoreRecovered) == [StoreRecovered()]
    assert await house.store.lease("default", limit=5, now=NOON) == []
    await house.store.settle(ended(kept))
    assert (await house.crash()).ledger == Ledger()


@pytest.fixture
def failing_disk() -> Iterator[type[FailingFile]]:
    disk = FailingDisk()
    yield FailingFile
    FailingFile.fail = False
    disk.unregister()


@pytest.mark.asyncio
async def test_after_a_commit_of_unknown_fate_the_disk_says_what_callers_were_told(
    failing_disk: type[FailingFile], tmp_path: Path
) -> None:
    house = SqliteHouse(tmp_path / "house")
    store = await house.open()
    settled = await store.put(an_entry("s@x.nl"), leased=True)
    given = await store.put(an_entry("g@x.nl"), leased=True)
    waiting = an_entry("w@x.nl", route="vendor")
    await store.put(waiting, leased=False)
    failure = replace(ended(settled, State.FAILED), notifications=(an_entry("jan@example.nl"),))
    lost = [an_entry("l@x.nl"), an_entry("u@x.nl")]
    untold = [tried(an_entry("d@x.nl")), tried(an_entry("e@x.nl"))]
    content = await spooled(house, "7QK3")
    failing_disk.fail = True
    outcomes = await asyncio.gather(
        store.put(lost[0], leased=True),
        store.put(lost[1], leased=False),
        store.put(an_entry(content=content), leased=False),
        store.settle(failure),
        store.give_back([given]),
        store.lease("vendor", limit=5, now=NOON),
        store.record(ended(untold[0])),
        store.record(deferred(untold[1], NOON)),
        return_exceptions=True,
    )
    assert [getattr(outcome, "reason", None) for outcome in outcomes] == ["io"] * 8
    failing_disk.fail = False
    await store.check()
    assert store.ledger == Ledger(accepted=3, active=2, pending=1)
    assert await store.lease("default", limit=5, now=NOON) == []  # neither the lost ones nor the given one
    await store.settle(ended(given))
    finished = {found.queue_id for found in await store.find(Wanted(place=Place.FINISHED))}
    assert finished.isdisjoint([lease.entry.queue_id for lease in untold])
    assert ids(await store.lease("vendor", limit=5, now=NOON)) == [waiting.queue_id]
    await store.settle(failure)
    store = await house.crash()
    assert store.ledger == Ledger(found=2, deferred=1, pending=1)
    assert os.listdir(store.spool.directory) == []
    await house.demolish()


@pytest.mark.asyncio
async def test_after_a_commit_of_unknown_fate_what_a_summary_was_made_of_waits_for_another(
    failing_disk: type[FailingFile], tmp_path: Path
) -> None:
    house = SqliteHouse(tmp_path / "house")
    store = await house.open()
    jan = Address.of("jan@example.nl")
    lease = await store.put(an_entry("s@x.nl"), leased=True)
    told = (Told(jan, lease.entry.queue_id, NOON, "{}"),)
    settlement = replace(ended(lease, State.FAILED), told=told)
    failing_disk.fail = True
    with pytest.raises(StoreUnavailable):
        await store.settle(settlement)
    failing_disk.fail = False
    await store.settle(settlement)
    # Nobody has read yet: another connection would keep what the log holds of that commit out of sight.
    failing_disk.fail = True
    with pytest.raises(StoreUnavailable):
        await store.summarise(an_entry("jan@example.nl", kind=Kind.BOUNCE), told)
    failing_disk.fail = False
    await store.check()
    assert await store.lease("default", limit=9, now=NOON) == []
    assert await store.collected(jan, limit=9) == list(told)
    summary = an_entry("jan@example.nl", kind=Kind.BOUNCE)
    await store.summarise(summary, told)
    store = await house.crash()
    assert await store.collected(jan, limit=9) == []
    assert ids(await store.lease("default", limit=9, now=NOON)) == [summary.queue_id]
    await house.demolish()


@pytest.mark.asyncio
async def test_a_line_that_a_summary_told_is_not_told_again_when_its_settlement_is_repeated(
    failing_disk: type[FailingFile], tmp_path: Path
) -> None:
    house = SqliteHouse(tmp_path / "house")
    store = await house.open()
    jan = Address.of("jan@example.nl")
    lease = await store.put(an_entry("s@x.nl"), leased=True)
    told = (Told(jan, lease.entry.queue_id, NOON, "{}"),)
    settlement = replace(ended(lease, State.FAILED), told=told)
    failing_disk.fail = True
    with pytest.raises(StoreUnavailable):
        await store.settle(settlement)
    failing_disk.fail = False
    await store.check()
    await store.summarise(an_entry("jan@example.nl", kind=Kind.BOUNCE), told)
    await store.settle(settlement)
    assert await store.collected(jan, limit=9) == []
    await house.demolish()


@pytest.mark.asyncio
async def test_a_database_that_another_process_holds_is_busy_and_then_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay.queue.sqlite.database, "BUSY_MILLISECONDS", 10)
    house = SqliteHouse(tmp_path / "house")
    store = await house.open()
    hold = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]); "
        "connection.execute('BEGIN IMMEDIATE'); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(house.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(StoreUnavailable) as caught:
            await store.put(an_entry(), leased=True)
        process.communicate(b"\n")
    assert caught.value.reason == "busy"
    await store.put(an_entry(), leased=True)
    assert store.ledger == Ledger(accepted=1, active=1)
    await house.demolish()


@pytest.mark.asyncio
async def test_a_damaged_database_is_said_to_be_corrupt(house: SqliteHouse) -> None:
    for _ in range(50):
        await house.store.put(an_entry(content=LARGE), leased=False)
    await house.store.close()
    connection = sqlite3.connect(house.path)
    ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'entry'")
    ((size,),) = connection.execute("PRAGMA page_size")
    connection.close()
    with open(house.path, "r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with pytest.raises(StoreUnavailable) as caught:
        await house.open()
    assert caught.value.reason == "corrupt"


@pytest.mark.asyncio
async def test_a_lease_whose_caller_was_cancelled_comes_back_after_the_disk_has_recovered(
    failing_disk: type[FailingFile], tmp_path: Path
) -> None:
    house = SqliteHouse(tmp_path / "house")
    store = await house.open()
    failed = asyncio.Event()

    def follow(event: Event) -> None:
        if isinstance(event, BatchCommitted):
            failing_disk.fail = True  # from now on: what follows is the way back of the lease
        elif isinstance(event, StoreFailed):
            failed.set()

    house.noted.follow = follow
    putting = asyncio.ensure_future(store.put(an_entry(), leased=True))
    await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    async with asyncio.timeout(60):
        await failed.wait()
        house.noted.follow = None
        failing_disk.fail = False
        assert store.ledger == Ledger(accepted=1, active=1)
        while not await store.lease("default", limit=5, now=NOON):
            pass
    await house.demolish()


@pytest.mark.asyncio
async def test_after_closing_the_store_is_unavailable(house: SqliteHouse) -> None:
    lease = await house.store.put(an_entry(), leased=True)
    await house.store.close()
    for question in (
        house.store.put(an_entry(), leased=True),
        house.store.settle(ended(lease)),
        house.store.next_due("default"),
        house.store.check(),
    ):
        with pytest.raises(StoreUnavailable, match="closed"):
            await question


@pytest.mark.asyncio
async def test_low_space_is_seen_before_the_disk_is_full(house: SqliteHouse) -> None:
    assert not house.store.low_on_space
    house.store._min_free = house.store.disk_free() * 2
    house.store._look_again_at = 0.0
    assert house.store.low_on_space


def traces(house: SqliteHouse, secret: bytes) -> list[str]:
    return [path.name for path, octets in contents(house.folder) if secret in octets]


@pytest.mark.asyncio
async def test_nothing_of_a_session_code_is_left_after_it_was_settled(
    house: SqliteHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay.queue.store_loop, "WIPE_AFTER", 0.01)

    def code(n: int, size: int) -> MemoryContent:
        return MemoryContent(HEAD + b"uw code: GEHEIM%04d\r\n" % n * (size // 22), len(HEAD))

    # Codes of all sizes among other mail, so that pages fill, split and merge; they end in another order.
    leases = []
    for n in range(120):
        content = code(n, 22 * (1 + n * n % 2200))
        leases.append(await house.store.put(an_entry(content=content, session_code=True), leased=n % 2 == 0))
        await house.store.put(an_entry(content=memory(b"z" * (n * 131 % 9000))), leased=False)
    assert traces(house, b"GEHEIM")
    waiting = await house.store.lease("default", limit=500, now=NOON)
    leases = [lease for lease in leases if lease.key in {0} or lease.entry.attempts == 1] + [
        lease for lease in waiting if lease.entry.session_code
    ]
    order = sorted(leases, key=lambda lease: hash(lease.entry.queue_id[::-1]) * 7919 % 1009)
    for lease in order[:-1]:
        await house.store.settle(ended(lease))
    last = order[-1].entry.content.read(len(HEAD) + 9, 10)
    async with asyncio.timeout(60):
        while any(traces(house, b"GEHEIM%04d" % n) for n in range(120) if b"GEHEIM%04d" % n != last):
            await house.store.check()
    assert traces(house, last)  # the one that still waits
    await house.store.settle(ended(order[-1]))
    await wiped(house)


ENDS = ("delivered", "failed", "expired", "cancelled", "cancelled meanwhile", "the last of two")


async def leased_to(house: SqliteHouse, end: str, *, session_code: bool) -> Lease:
    """A session code or a bill, which is to come to its `end`."""
    content = memory(b"GEHEIM" * 100 if session_code else b"Factuur" * 100)
    to = ("a@x.nl", "b@x.nl") if end == "the last of two" else ("a@x.nl",)
    entry = an_entry(*to, content=content, session_code=session_code, expires_at=NOON)
    lease = await house.store.put(entry, leased=end != "cancelled", held=end == "cancelled")
    if end == "the last of two":
        results = (Result(0, State.DELIVERED), Result(1, State.PENDING))
        await house.store.settle(Settlement(lease, results, next_attempt_at=NOON))
        (lease,) = await house.store.lease("default", limit=1, now=NOON)
    elif end == "cancelled meanwhile":
        await house.store.act(Verb.CANCEL, [entry.queue_id], now=NOON)
    return lease


def come_to(house: SqliteHouse, end: str, lease: Lease) -> Awaitable[object]:
    match end:
        case "failed":
            bounce = an_entry("jan@example.nl", kind=Kind.BOUNCE)
            return house.store.settle(replace(ended(lease, State.FAILED), notifications=(bounce,)))
        case "expired":
            return house.store.settle(ended(lease, State.EXPIRED))
        case "cancelled":
            return house.store.act(Verb.CANCEL, [lease.entry.queue_id], now=NOON)
        case "cancelled meanwhile":
            return house.store.give_back([lease])
        case _:
            return house.store.settle(ended(lease))


async def wiped(house: SqliteHouse) -> None:
    """Nothing of a session code is left, once its log was emptied."""
    async with asyncio.timeout(60):
        while traces(house, b"GEHEIM"):
            await house.store.check()


@pytest.mark.asyncio
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("place", ["first", "between", "last"])
async def test_of_a_batch_in_which_a_session_code_and_bills_end_together_nothing_of_the_code_is_left_on_the_disk(
    house: SqliteHouse, monkeypatch: pytest.MonkeyPatch, end: str, place: str
) -> None:
    monkeypatch.setattr(relay.queue.store_loop, "WIPE_AFTER", 0.0)
    bills = [(one, await leased_to(house, one, session_code=False)) for one in ENDS]
    code = (end, await leased_to(house, end, session_code=True))
    at = {"first": 0, "between": 3, "last": len(bills)}[place]
    assert traces(house, b"GEHEIM")
    together = [*bills[:at], code, *bills[at:]]
    commits = len(house.noted.of(BatchCommitted))
    await asyncio.gather(*(come_to(house, *one) for one in together))
    batch = house.noted.of(BatchCommitted)[commits]
    assert isinstance(batch, BatchCommitted)
    assert batch.operations == len(together)
    await wiped(house)
    await house.store.close()
    assert traces(house, b"GEHEIM") == []


@pytest.mark.asyncio
async def test_a_session_code_that_was_delivered_before_it_was_kept_is_never_written(house: SqliteHouse) -> None:
    await house.store.record(ended(tried(an_entry(content=memory(b"GEHEIM" * 100), session_code=True))))
    assert traces(house, b"GEHEIM") == []
    assert house.store._wipe_timer is None


@pytest.mark.asyncio
async def test_a_session_code_refused_for_want_of_room_leaves_nothing(
    house: SqliteHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay.queue.store_loop, "WIPE_AFTER", 0.01)
    limit_pages(house, 8)
    codes = [an_entry(content=memory(b"GEHEIM" * 100), session_code=True) for _ in range(20)]
    with pytest.raises(StoreUnavailable):
        await asyncio.gather(*(house.store.put(code, leased=True) for code in codes))
    limit_pages(house, 100_000)
    await wiped(house)
