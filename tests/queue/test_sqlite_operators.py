"""What operators rely on in an SQLite store beyond the seam: older files, damage, secrets, copies."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

import relay.queue.sqlite.backup
import relay.queue.store_loop
from relay.errors import RelayError, StoreUnavailable
from relay.events import EntrySetAside, RecipientCancelled
from relay.mail.content import MemoryContent
from relay.queue.listing import Acted, Did, Place, Verb, Wanted
from relay.queue.model import Ledger, Result, Settlement, State
from relay.queue.sqlite.start import SqliteStore
from relay.queue.sqlite.transaction import Transaction
from tests.kit.files import contents
from tests.kit.ledger import balanced
from tests.kit.store import usual
from tests.queue.house import FailingFile, SqliteHouse
from tests.queue.mail import HEAD, NOON, Noted, an_entry, deferred, ended, ids, memory
from tests.queue.operators import LATER, act, names
from tests.queue.test_spool import files
from tests.queue.test_sqlite_start import DAMAGE, alter, spooled
from tests.queue.test_sqlite_trouble import failing_disk, files_end_at, traces

__all__ = ["failing_disk"]


@pytest.mark.asyncio
async def test_the_number_of_an_entry_is_not_given_again_while_the_history_has_it(house: SqliteHouse) -> None:
    lease = await house.store.put(an_entry(), leased=True)
    await house.store.settle(ended(lease))
    again = await (await house.restart()).put(an_entry(), leased=True)
    assert isinstance(lease.key, int)
    assert isinstance(again.key, int)
    assert again.key > lease.key


@pytest.mark.asyncio
async def test_without_history_the_attempts_of_what_is_finished_go_as_well(house: SqliteHouse) -> None:
    house.store.keep_history(None)
    both = await house.store.put(an_entry("a@x.nl", "b@x.nl"), leased=True)
    one = await house.store.put(an_entry(), leased=True)
    rest = (Result(0, State.PENDING), Result(1, State.HELD))
    await house.store.settle(Settlement(both, rest, next_attempt_at=NOON, at=NOON))
    await house.store.settle(replace(deferred(one, NOON), at=NOON))
    await act(house.store, Verb.RELEASE, both)
    both, one = await house.store.lease("default", limit=2, now=NOON)
    await house.store.settle(ended(one))
    results = (Result(0, State.PENDING), Result(1, State.DELIVERED))
    await house.store.settle(Settlement(both, results, next_attempt_at=NOON, at=NOON))
    (both,) = await house.store.lease("default", limit=2, now=NOON)
    await house.store.settle(ended(both))
    await house.store.close()
    connection = apsw.Connection(str(house.path))
    assert list(connection.execute("SELECT count(*) FROM attempt")) == [(0,)]
    connection.close()


# Damage


@pytest.mark.asyncio
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_what_is_damaged_can_be_looked_at_and_cancelled(house: SqliteHouse, damage: str) -> None:
    await house.store.put(an_entry("a@x.nl", "b@x.nl"), leased=False)
    store = await alter(house, damage)
    await store.lease("default", limit=9, now=NOON)
    (listed,) = await store.list(Wanted(place=Place.DAMAGED))
    assert listed.damage
    shown = await store.show(listed.queue_id)
    assert shown is not None
    assert shown.head == b""
    assert await store.act(Verb.BOUNCE, [listed.queue_id], now=NOON) == [
        Acted(listed.queue_id, Did.IMPOSSIBLE, "it cannot be read: cancel it, or release it once the cause is gone")
    ]
    recipients = len(listed.recipients)
    assert await store.act(Verb.CANCEL, [listed.queue_id], now=NOON) == [Acted(listed.queue_id, Did.DONE)]
    assert store.ledger == Ledger(found=recipients, cancelled=recipients)
    (finished,) = await store.find(Wanted())
    assert [one.state for one in finished.recipients] == ["cancelled"] * recipients


@pytest.mark.asyncio
@pytest.mark.parametrize("verb", [Verb.RETRY, Verb.RELEASE])
async def test_what_was_damaged_is_read_again_when_an_operator_wants_it(house: SqliteHouse, verb: Verb) -> None:
    content = await spooled(house, "7QK3")
    entry = an_entry("a@x.nl", "b@x.nl", content=content)
    await house.store.put(entry, leased=False)
    path = content.folder.path / content.name
    path.rename(path.with_suffix(".away"))
    assert await house.store.lease("default", limit=9, now=NOON) == []
    assert await act(house.store, Verb.HOLD, entry) == [Did.NOTHING]
    assert await act(house.store, verb, entry) == [Did.DONE]
    assert house.store.ledger == Ledger(accepted=2, pending=2)
    assert await house.store.lease("default", limit=9, now=NOON) == []
    assert len(house.noted.of(EntrySetAside)) == 2
    assert house.store.ledger == Ledger(accepted=2, held=2)
    path.with_suffix(".away").rename(path)
    assert await act(house.store, verb, entry) == [Did.DONE]
    (lease,) = await house.store.lease("default", limit=9, now=NOON)
    await house.store.settle(ended(lease))
    assert house.store.ledger == Ledger(accepted=2, delivered=2)


@pytest.mark.asyncio
async def test_a_held_message_whose_file_was_missing_is_held_again_when_retried(house: SqliteHouse) -> None:
    content = await spooled(house, "7QK3")
    entry = an_entry(content=content)
    await house.store.put(entry, leased=False, held=True)
    path = content.folder.path / content.name
    path.rename(house.folder / "away")
    store = await house.restart()
    (house.folder / "away").rename(path)
    assert (await store.list(Wanted()))[0].place is Place.DAMAGED
    assert await act(store, Verb.RETRY, entry) == [Did.DONE]
    assert (await store.list(Wanted()))[0].place is Place.HELD
    assert store.ledger == Ledger(found=1, held=1)
    assert await act(store, Verb.RELEASE, entry) == [Did.DONE]
    assert len(await store.lease("default", limit=9, now=NOON)) == 1


# What is left of what is cancelled


@pytest.mark.asyncio
async def test_the_file_of_a_cancelled_message_goes_now_or_after_its_attempt(house: SqliteHouse) -> None:
    waits = an_entry(content=await spooled(house, "7QK3"))
    busy = an_entry(content=await spooled(house, "7QK4"))
    given = an_entry(content=await spooled(house, "7QK5"))
    await house.store.put(waits, leased=False)
    lease = await house.store.put(busy, leased=True)
    back = await house.store.put(given, leased=True)
    await act(house.store, Verb.CANCEL, waits, busy, given)
    await house.store.settle(deferred(lease, LATER))
    await house.store.give_back([back])
    async with asyncio.timeout(60):
        while await files(house):
            pass
    assert (await house.store.view()).bytes == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["now", "after", "given back", "after a crash"])
async def test_nothing_of_a_cancelled_session_code_is_left(
    house: SqliteHouse, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(relay.queue.store_loop, "WIPE_AFTER", 0.01)
    content = MemoryContent(HEAD + b"GEHEIM" * 500, len(HEAD))
    entry = an_entry(content=content, session_code=True)
    lease = await house.store.put(entry, leased=how != "now")
    await act(house.store, Verb.CANCEL, entry)
    if how == "after":
        await house.store.settle(deferred(lease, LATER))
    elif how == "given back":
        await house.store.give_back([lease])
    elif how == "after a crash":
        await house.crash()
        assert len(house.noted.of(RecipientCancelled)) == 1
    async with asyncio.timeout(60):
        while traces(house, b"GEHEIM"):
            await house.store.check()


# A commit of unknown fate


async def unknown_fate(house: SqliteHouse, disk: type[FailingFile], *work: object) -> None:
    with disk.in_doubt(house):
        outcomes = await asyncio.gather(*work, return_exceptions=True)  # type: ignore[call-overload]
    assert [getattr(outcome, "reason", None) for outcome in outcomes] == ["io"] * len(work)
    await house.store.check()


def agree(house: SqliteHouse) -> None:
    ledger = house.store.ledger
    assert balanced(ledger)
    assert house.counted() == {name: getattr(ledger, name) for name in house.counted()}


@pytest.mark.asyncio
async def test_after_an_act_of_unknown_fate_the_ledger_says_what_the_disk_says(
    failing_disk: type[FailingFile], tmp_path: Path
) -> None:
    house = SqliteHouse(tmp_path / "house")
    store = await house.open()
    entries = [an_entry("a@x.nl", "b@x.nl") for _ in range(4)]
    for n, entry in enumerate(entries):
        await store.put(entry, leased=False, held=n == 3)
    busy = await store.put(an_entry(), leased=True)
    acts = zip((Verb.HOLD, Verb.CANCEL, Verb.BOUNCE, Verb.RELEASE), entries, strict=True)
    await unknown_fate(
        house, failing_disk, *(act(store, verb, entry) for verb, entry in acts), act(store, Verb.CANCEL, busy)
    )
    agree(house)
    assert store.ledger == Ledger(accepted=9, cancelled=2, held=2, pending=4, active=1)
    await store.settle(deferred(busy, LATER))  # the wish was refused, so it is not done
    assert store.ledger == Ledger(accepted=9, cancelled=2, held=2, pending=4, deferred=1)
    agree(house)
    assert (await store.view()).bytes == 4 * entries[0].content.size
    await house.demolish()


@pytest.mark.asyncio
@pytest.mark.parametrize("verb", [Verb.HOLD, Verb.CANCEL, Verb.BOUNCE, Verb.RELEASE])
@pytest.mark.parametrize("end", ["settle", "give back"])
async def test_a_wish_is_kept_when_the_end_of_its_lease_is_of_unknown_fate(
    failing_disk: type[FailingFile], tmp_path: Path, verb: Verb, end: str
) -> None:
    house = SqliteHouse(tmp_path / "house")
    store = await house.open()
    first = await store.put(an_entry("a@x.nl", "b@x.nl"), leased=True)
    await store.settle(Settlement(first, (Result(0, State.HELD), Result(1, State.PENDING)), next_attempt_at=NOON))
    (lease,) = await store.lease("default", limit=1, now=NOON)
    await act(store, verb, lease)

    def over() -> object:
        return store.settle(deferred(lease, LATER)) if end == "settle" else store.give_back([lease])

    await unknown_fate(house, failing_disk, over())
    if verb is not Verb.CANCEL:  # there the disk may have nothing left to count
        agree(house)
    await over()  # type: ignore[misc]
    agree(house)
    expected = {
        Verb.HOLD: Ledger(accepted=2, held=2),
        Verb.CANCEL: Ledger(accepted=2, cancelled=2),
        Verb.BOUNCE: Ledger(accepted=2, deferred=2),
        Verb.RELEASE: Ledger(accepted=2, deferred=2),
    }
    assert store.ledger == expected[verb]
    await house.demolish()


@pytest.mark.asyncio
async def test_a_message_finished_by_a_commit_of_unknown_fate_is_in_the_history_once(
    failing_disk: type[FailingFile], tmp_path: Path
) -> None:
    house = SqliteHouse(tmp_path / "house")
    store = await house.open()
    at_once = await store.put(an_entry(), leased=True)
    later = await store.put(an_entry("a@x.nl", "b@x.nl"), leased=True)
    results = (Result(0, State.DELIVERED, "250 first"), Result(1, State.PENDING))
    await store.settle(Settlement(later, results, next_attempt_at=NOON, at=NOON))
    (later,) = await store.lease("default", limit=1, now=NOON)
    await unknown_fate(house, failing_disk, store.settle(ended(at_once)), store.settle(ended(later)))
    await asyncio.gather(store.settle(ended(at_once)), store.settle(ended(later)))
    assert store.ledger == Ledger(accepted=3, delivered=3)
    found = await store.find(Wanted())
    assert names(found) == [later.entry.queue_id, at_once.entry.queue_id]
    assert [one.reply for one in found[0].recipients] == ["250 first", "250 2.0.0 ok"]
    await house.demolish()


@pytest.mark.asyncio
async def test_leases_and_bounces_of_a_commit_of_unknown_fate_wait_as_before(
    failing_disk: type[FailingFile], tmp_path: Path
) -> None:
    house = SqliteHouse(tmp_path / "house")
    store = await house.open()
    due, to_bounce = an_entry(), an_entry(route="vendor")
    code = an_entry(session_code=True, expires_at=NOON, route="codes")
    await store.put(due, leased=False)
    await store.put(to_bounce, leased=False)
    await store.put(code, leased=False, held=True)
    await act(store, Verb.BOUNCE, to_bounce)
    await unknown_fate(
        house,
        failing_disk,
        store.lease("default", limit=9, now=NOON),
        store.lease_expired("vendor", limit=9, now=NOON),
        store.lease_expired("codes", limit=9, now=NOON),
    )
    agree(house)
    assert store.ledger.deferred == 0
    (lease,) = await store.lease("default", limit=9, now=NOON)
    assert lease.entry.attempts == 1
    (lease,) = await store.lease_expired("vendor", limit=9, now=NOON)
    assert (lease.bounced, lease.entry.attempts) == (True, 0)
    assert ids(await store.lease_expired("codes", limit=9, now=NOON)) == [code.queue_id]
    agree(house)
    await house.demolish()


# Copies


def wait_in(house: SqliteHouse, monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[asyncio.Event, Callable[[], None]]:
    """The next backup stops before the statement `name`: an event says so, and a call lets it go on."""
    loop, reached, go = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    inner = Transaction.execute

    def execute(self: object, statement: str, bindings: object = ()) -> object:
        if statement == name and not go.is_set():
            loop.call_soon_threadsafe(reached.set)
            go.wait(10)
        return inner(self, statement, bindings)

    monkeypatch.setattr(Transaction, "execute", execute)
    return reached, go.set


@pytest.mark.asyncio
async def test_a_backup_has_the_files_of_its_large_messages_and_nobody_else_can_read_it(
    house: SqliteHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await house.store.put(an_entry(content=await spooled(house, "7QK3", b"a" * 300_000)), leased=True)
    await house.store.put(an_entry(content=await spooled(house, "7QK4", b"b" * 300_000)), leased=False)
    small = await house.store.put(an_entry(), leased=True)
    reached, go_on = wait_in(house, monkeypatch, "ended_meanwhile")
    saving = asyncio.ensure_future(house.store.backup(tmp_path / "copy.db"))
    await reached.wait()
    # Its content is in the copy already, its file is not: that has to stay so long.
    await asyncio.gather(house.store.settle(ended(first)), house.store.settle(ended(small)))
    assert await files(house) == ["7QK3.eml", "7QK4.eml"] or await files(house) == ["7QK4.eml", "7QK3.eml"]
    go_on()
    saved = await saving
    assert saved.entries == 3
    async with asyncio.timeout(60):
        while await files(house) != ["7QK4.eml"]:
            pass
    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("copy*")}
    assert modes == {"copy.db": 0o600, "copy.db.spool": 0o700}
    copy = await house.open_copy(tmp_path / "copy.db")
    leases = await copy.lease("default", limit=9, now=NOON)
    bodies = [lease.entry.content.read(0, 10**6)[len(HEAD) :] for lease in leases]
    assert bodies == [b"a" * 300_000, b"b" * 300_000, b"Goedemiddag\r\n"]
    assert len(await copy.find(Wanted(), limit=99)) == 3  # finished meanwhile, and in the copy they wait
    await asyncio.gather(*(copy.settle(ended(lease)) for lease in leases))
    assert os.path.exists(house.store.spool.directory / "7QK4.eml")  # the copy's end is not ours


@pytest.mark.asyncio
async def test_what_ends_before_its_content_was_copied_is_left_out_and_is_in_the_history_of_the_copy(
    house: SqliteHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = [await house.store.put(an_entry(), leased=True) for _ in range(2)]
    reached, go_on = wait_in(house, monkeypatch, "copy_contents")
    saving = asyncio.ensure_future(house.store.backup(tmp_path / "copy.db"))
    await reached.wait()
    await house.store.settle(ended(first))
    go_on()
    assert (await saving).entries == 1
    copy = await house.open_copy(tmp_path / "copy.db")
    assert [(one.queue_id, one.place) for one in await copy.find(Wanted())] == [
        (second.entry.queue_id, Place.DEFERRED),
        (first.entry.queue_id, Place.FINISHED),
    ]


@pytest.mark.asyncio
async def test_a_wish_about_what_is_active_is_done_in_a_copy(house: SqliteHouse, tmp_path: Path) -> None:
    lease = await house.store.put(an_entry(), leased=True)
    await act(house.store, Verb.HOLD, lease)
    await house.store.backup(tmp_path / "copy.db")
    copy = await house.open_copy(tmp_path / "copy.db")
    assert copy.ledger == Ledger(found=1, held=1)


@pytest.mark.asyncio
async def test_session_codes_never_get_into_a_copy_nor_stay_because_of_one(
    house: SqliteHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay.queue.store_loop, "WIPE_AFTER", 0.01)

    def code() -> MemoryContent:
        return MemoryContent(HEAD + b"GEHEIM" * 500, len(HEAD))

    leases = [await house.store.put(an_entry(content=code(), session_code=True), leased=True) for _ in range(5)]
    large = an_entry(content=await spooled(house, "7QK3", b"GEHEIM" * 60_000), session_code=True)
    leases.append(await house.store.put(large, leased=True))
    await house.store.put(an_entry(), leased=False)
    reached, go_on = wait_in(house, monkeypatch, "copy_contents")
    saving = asyncio.ensure_future(house.store.backup(tmp_path / "copy.db"))
    await reached.wait()
    made = [path for path in tmp_path.rglob("copy*") if path.is_file()]
    assert made
    assert not [path for path in made if b"GEHEIM" in path.read_bytes()]
    await asyncio.gather(*(house.store.settle(ended(lease)) for lease in leases))
    async with asyncio.timeout(60):
        while [name for name in traces(house, b"GEHEIM") if not name.endswith("-wal")]:
            await house.store.check()
    go_on()
    assert (await saving).left_out == 6
    async with asyncio.timeout(60):
        while traces(house, b"GEHEIM"):
            await house.store.check()
    assert b"GEHEIM" not in (tmp_path / "copy.db").read_bytes()


@pytest.mark.asyncio
async def test_a_backup_of_another_file_system_copies_the_files(
    house: SqliteHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    await house.store.put(an_entry(content=await spooled(house, "7QK3")), leased=False)
    await house.store.backup(tmp_path / "copy.db")
    copied = tmp_path / "copy.db.spool" / "7QK3.eml"
    assert copied.read_bytes() == HEAD + b"x" * 300_000
    assert (copied.stat().st_mode & 0o777, copied.stat().st_nlink) == (0o600, 1)


@pytest.mark.asyncio
async def test_a_backup_that_fails_or_is_stopped_leaves_nothing_behind(
    house: SqliteHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.store.put(an_entry(content=memory(b"x" * 400_000)), leased=False)
    await house.store.put(an_entry(content=await spooled(house, "7QK3")), leased=False)
    target = tmp_path / "copies"
    target.mkdir()
    with files_end_at(300_000), pytest.raises(StoreUnavailable, match=r"copy\.db: "):
        await house.store.backup(target / "copy.db")
    assert list(target.iterdir()) == []
    reached, go_on = wait_in(house, monkeypatch, "copy_contents")
    saving = asyncio.ensure_future(house.store.backup(target / "copy.db"))
    await reached.wait()
    with pytest.raises(RelayError, match="a backup is under way"):
        await house.store.backup(target / "other.db")
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    closing = asyncio.ensure_future(house.store.close())
    go_on()
    await closing
    assert list(target.iterdir()) == []
    with pytest.raises(StoreUnavailable, match="closed"):
        await house.store.backup(target / "copy.db")


@pytest.mark.asyncio
async def test_a_backup_removes_nothing_that_is_not_its_own(house: SqliteHouse, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    (folder / "copy.db.part.spool").mkdir(parents=True)
    (folder / "copy.db.part.spool" / "precious").write_bytes(b"mine")
    (folder / "copy.db.part").write_bytes(b"another")
    was = dict(contents(folder))
    await house.store.backup(folder / "copy.db")
    (folder / "copy.db").unlink()
    assert dict(contents(folder)) == was


@pytest.mark.asyncio
async def test_a_backup_that_is_refused_keeps_its_folder_from_nobody(house: SqliteHouse, tmp_path: Path) -> None:
    """So that the disk that it is on can be unmounted, also while the exception is kept somewhere."""
    (tmp_path / "copy.db").write_bytes(b"another")
    (tmp_path / "long").mkdir()
    kept = []
    for name in ("copy.db", f"long/{'x' * 250}"):
        with pytest.raises(RelayError) as refused:
            await house.store.backup(tmp_path / name)
        kept.append(refused)
    there = {os.path.realpath(f"/proc/self/fd/{descriptor}") for descriptor in os.listdir("/proc/self/fd")}
    assert there.isdisjoint({str(tmp_path), str(tmp_path / "long")})


@pytest.mark.asyncio
async def test_what_a_dead_backup_left_is_no_obstacle(house: SqliteHouse, tmp_path: Path) -> None:
    (tmp_path / "copy.db.relay-part").write_bytes(b"half")
    (tmp_path / "copy.db.relay-part.spool").mkdir()
    await house.store.backup(tmp_path / "copy.db")
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.db"]
    store = await SqliteStore.open(tmp_path / "copy.db", observer=Noted(), **usual())
    await store.close()


@pytest.mark.asyncio
async def test_a_backup_larger_than_one_slice_is_whole(
    house: SqliteHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay.queue.sqlite.backup, "AT_ONCE", 10_000)
    monkeypatch.setattr(relay.queue.sqlite.backup, "ENTRIES_AT_ONCE", 7)
    monkeypatch.setattr(relay.queue.sqlite.backup, "HISTORY_AT_ONCE", 11)
    leases = [await house.store.put(an_entry(content=memory(b"x" * 37 * n)), leased=True) for n in range(100)]
    await asyncio.gather(*(house.store.settle(ended(lease)) for lease in leases[::2]))
    assert (await house.store.backup(tmp_path / "copy.db")).entries == 50
    copy = await house.open_copy(tmp_path / "copy.db")
    assert len(await copy.lease("default", limit=99, now=NOON)) == 50
    assert len(await copy.find(Wanted(place=Place.FINISHED), limit=99)) == 50
