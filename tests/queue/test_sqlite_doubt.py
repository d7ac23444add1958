"""A commit failed and reached the disk all the same: whoever is to be told is told once, also when the process dies.

What is settled is settled again by a worker that lives; after a crash the disk is right.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from relay.errors import StoreUnavailable
from relay.events import EntrySetAside
from relay.mail.address import Address
from relay.queue.listing import Place, Wanted
from relay.queue.model import Entry, Kind, Ledger, Result, Settlement, State, Told
from tests.queue.house import FailingFile, SqliteHouse
from tests.queue.mail import NOON, an_entry, deferred, ended, ids, tried
from tests.queue.test_sqlite_operators import agree, unknown_fate
from tests.queue.test_sqlite_trouble import failing_disk

__all__ = ["failing_disk"]


async def a_failure_of_unknown_fate(
    house: SqliteHouse, disk: type[FailingFile], *, in_part: bool = False
) -> tuple[Settlement, Entry]:
    """A settlement that reached the disk though the store could not say so, and its notification."""
    store = house.store
    lease = await store.put(an_entry("a@x.nl", "b@x.nl"), leased=True)
    bounce = an_entry("jan@example.nl", kind=Kind.BOUNCE)
    results = (Result(0, State.FAILED), Result(1, State.PENDING if in_part else State.FAILED))
    settlement = Settlement(lease, results, NOON if in_part else None, notifications=(bounce,), at=NOON)
    await unknown_fate(house, disk, store.settle(settlement))
    return settlement, bounce


@pytest.mark.asyncio
@pytest.mark.parametrize("in_part", [False, True])
async def test_a_failure_that_reached_the_disk_is_told_once_by_whoever_comes_after_a_crash(
    failing_disk: type[FailingFile], tmp_path: Path, in_part: bool
) -> None:
    house = SqliteHouse(tmp_path / "house")
    await house.open()
    settlement, bounce = await a_failure_of_unknown_fate(house, failing_disk, in_part=in_part)
    entry = settlement.lease.entry
    store = await house.crash()
    assert store.ledger == Ledger(found=1 + in_part, pending=1, deferred=int(in_part))
    failed = [one for one in await store.find(Wanted()) if one.queue_id == entry.queue_id]
    assert [to.state for to in failed[0].recipients] == ["failed", "pending" if in_part else "failed"]
    (lease, *rest) = sorted(await store.lease("default", limit=9, now=NOON), key=lambda lease: -(lease.key or 0))
    assert (lease.entry.queue_id, lease.entry.attempts) == (bounce.queue_id, 1)
    assert [[pending.index for pending in one.pending] for one in rest] == [[1]] * in_part
    await house.demolish()


@pytest.mark.asyncio
@pytest.mark.parametrize("in_part", [False, True])
@pytest.mark.parametrize("doubts", [1, 3])
async def test_a_failure_that_is_settled_again_is_told_once(
    failing_disk: type[FailingFile], tmp_path: Path, in_part: bool, doubts: int
) -> None:
    house = SqliteHouse(tmp_path / "house")
    store = await house.open()
    settlement, bounce = await a_failure_of_unknown_fate(house, failing_disk, in_part=in_part)
    failing_disk.fail = True
    for _ in range(doubts - 1):  # of these, only the first reaches the disk
        with pytest.raises(StoreUnavailable):
            await store.settle(settlement)
    failing_disk.fail = False
    await store.check()
    # It waits for the settlement, and nobody takes it or counts it before.
    assert store.ledger == Ledger(accepted=2, active=2)
    assert await store.lease("default", limit=9, now=NOON) == []
    assert (await store.view()).messages == {"default": 1}
    await asyncio.gather(store.settle(settlement), store.check())
    agree(house)
    deferred = int(in_part)
    assert store.ledger == Ledger(accepted=3, failed=2 - deferred, pending=1, deferred=deferred)
    await unknown_fate(house, failing_disk, store.check())  # nothing is mended any more
    agree(house)
    found = await store.find(Wanted())
    assert [one.queue_id for one in found] == [bounce.queue_id, settlement.lease.entry.queue_id]
    leased = await store.lease("default", limit=9, now=NOON)
    assert sorted(ids(leased)) == sorted(one.queue_id for one in found[: 1 + in_part])
    agree(house)
    store = await house.crash()
    assert store.ledger.found == 1 + in_part
    await house.demolish()


@pytest.mark.asyncio
async def test_a_notification_that_was_leased_by_the_commit_that_made_it_is_as_if_nobody_had(
    failing_disk: type[FailingFile], tmp_path: Path
) -> None:
    house = SqliteHouse(tmp_path / "house")
    store = await house.open()
    lease = await store.put(an_entry(), leased=True)
    bounce = an_entry("jan@example.nl", kind=Kind.BOUNCE)
    settlement = replace(ended(lease, State.FAILED), notifications=(bounce,))
    taking = store.lease("default", limit=9, now=NOON)
    await unknown_fate(house, failing_disk, store.settle(settlement), taking)
    await house.crash()
    assert house.store.ledger == Ledger(found=1, pending=1)
    assert ids(await house.store.lease("default", limit=9, now=NOON)) == [bounce.queue_id]
    await house.demolish()


@pytest.mark.asyncio
async def test_a_report_that_was_summarised_before_its_settlement_is_repeated_is_in_no_other_summary(
    failing_disk: type[FailingFile], tmp_path: Path
) -> None:
    house = SqliteHouse(tmp_path / "house")
    store = await house.open()
    jan = Address.of("jan@example.nl")
    lease = await store.put(an_entry("s@x.nl"), leased=True)
    told = (Told(jan, lease.entry.queue_id, NOON, "{}"),)
    settlement = replace(ended(lease, State.FAILED), told=told)
    await unknown_fate(house, failing_disk, store.settle(settlement))
    assert await store.collected(jan, limit=9) == list(told)  # the failure stands, and so does its report
    await store.summarise(an_entry("jan@example.nl", kind=Kind.BOUNCE), told)
    await store.settle(settlement)
    assert await store.collected(jan, limit=9) == []
    assert store.ledger == Ledger(accepted=2, failed=1, pending=1)
    await house.demolish()


@pytest.mark.asyncio
@pytest.mark.parametrize("in_part", [False, True])
async def test_nothing_is_told_of_what_a_client_is_to_send_again(
    failing_disk: type[FailingFile], tmp_path: Path, in_part: bool
) -> None:
    house = SqliteHouse(tmp_path / "house")
    store = await house.open()
    jan = Address.of("jan@example.nl")
    lease = tried(an_entry("a@x.nl", "b@x.nl"))
    queue_id = lease.entry.queue_id
    results = (Result(0, State.FAILED), Result(1, State.PENDING if in_part else State.FAILED))
    told = (Told(jan, queue_id, NOON, "{}"), Told(Address.of("piet@example.nl"), queue_id, NOON))
    bounce = an_entry("piet@example.nl", kind=Kind.BOUNCE)
    settlement = Settlement(lease, results, NOON if in_part else None, notifications=(bounce,), at=NOON, told=told)
    await unknown_fate(house, failing_disk, store.record(settlement))
    assert await store.readers(since=NOON) == []
    assert await store.find(Wanted()) == []
    store = await house.crash()
    assert store.ledger == Ledger()
    assert await store.readers(since=NOON) == []
    await house.demolish()


@pytest.mark.asyncio
@pytest.mark.parametrize("tried_before", [False, True])
@pytest.mark.parametrize("dies", [False, True])
async def test_what_was_leased_to_expire_in_a_commit_of_unknown_fate_has_no_attempt_less(
    failing_disk: type[FailingFile], tmp_path: Path, tried_before: bool, dies: bool
) -> None:
    house = SqliteHouse(tmp_path / "house")
    store = await house.open()
    entries = [an_entry("a@x.nl", expires_at=NOON), an_entry("c@x.nl", expires_at=NOON, session_code=True)]
    for entry in entries:
        lease = await store.put(entry, leased=tried_before)
        if tried_before:
            await store.settle(deferred(lease, NOON))
    other = await store.put(an_entry("b@x.nl"), leased=True)
    await unknown_fate(house, failing_disk, store.lease_expired("default", limit=9, now=NOON))
    if dies:
        store = await house.crash()
    listed = [one for one in await store.list(Wanted()) if one.queue_id != other.entry.queue_id]
    assert [(one.attempts, one.place) for one in listed] == [
        (int(tried_before), Place.DEFERRED if tried_before else Place.PENDING)
    ] * 2
    leases = await store.lease_expired("default", limit=9, now=NOON)
    assert sorted(ids(leases)) == sorted(entry.queue_id for entry in entries)
    assert [lease.entry.attempts for lease in leases] == [int(tried_before)] * 2
    assert house.noted.of(EntrySetAside) == []
    agree(house)
    store = await house.restart()
    assert house.noted.of(EntrySetAside) == []
    await house.demolish()
