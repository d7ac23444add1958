"""How an SQLite store begins: who owns it, what it finds, what it does not believe."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import sys
from pathlib import Path

import apsw
import pytest

from relay.errors import OtherLayout, StoreInUse, StoreUnavailable
from relay.events import EntriesFound, EntrySetAside
from relay.queue.content import FileContent
from relay.queue.model import Ledger, Result, Settlement, State
from relay.queue.sqlite import start
from relay.queue.sqlite.start import SqliteStore
from relay.queue.sqlite.statements import STATEMENTS, read
from tests.kit.ledger import balanced
from tests.kit.store import usual
from tests.queue.house import SqliteHouse
from tests.queue.mail import HEAD, NOON, Noted, an_entry, deferred, ended, ids


async def alter(house: SqliteHouse, statement: str) -> SqliteStore:
    """Change the closed database by hand, and open it again."""
    await house.store.close()
    connection = sqlite3.connect(house.path)
    with connection:
        connection.execute(statement)
    connection.close()
    return await house.open()


async def spooled(house: SqliteHouse, name: str, body: bytes = b"x" * 300_000) -> FileContent:
    writer = house.store.spool.begin()
    await writer.write(HEAD + body[:1000])
    await writer.write(body[1000:])
    return await writer.finish(name, HEAD, len(HEAD) + len(body))


@pytest.mark.asyncio
async def test_a_second_owner_is_refused_and_told_who_holds_the_store(house: SqliteHouse) -> None:
    with pytest.raises(StoreInUse, match=rf"queue\.db is held by process {os.getpid()} \(.*since 20.*UTC\)"):
        await SqliteStore.open(house.path, observer=Noted(), **usual())
    await house.store.put(an_entry(), leased=True)  # the refused one did no harm
    await house.store.close()
    await house.open()


@pytest.mark.asyncio
async def test_what_root_makes_beside_another_users_queue_is_that_users(house: SqliteHouse) -> None:
    await house.store.put(an_entry(), leased=False)
    await house.store.close()
    folder = house.path.parent
    (folder / "queue.db.lock").unlink()
    (folder / "queue.db.spool").rmdir()
    owner = 12345 if os.geteuid() == 0 else os.geteuid()  # only root can look into another user's queue
    os.chown(house.path, owner, -1)
    await house.open()
    assert {path.name: path.stat().st_uid for path in folder.glob("queue.db*")} == dict.fromkeys(
        ["queue.db", "queue.db-shm", "queue.db-wal", "queue.db.lock", "queue.db.spool"], owner
    )


@pytest.mark.asyncio
async def test_a_lock_file_left_by_a_dead_process_is_no_obstacle(house: SqliteHouse) -> None:
    await house.store.close()
    lock = house.path.with_name("queue.db.lock")
    lock.write_text("1\n2026-01-01 00:00:00 UTC\nrelay serve\n")
    await house.open()
    assert lock.read_text().startswith(f"{os.getpid()}\n")


@pytest.mark.asyncio
@pytest.mark.parametrize(("layout", "age"), [(99, "a newer"), (6, "an older"), (0, "an older"), (-1, "an older")])
async def test_a_database_of_another_layout_is_left_alone(house: SqliteHouse, layout: int, age: str) -> None:
    await house.store.close()
    connection = sqlite3.connect(house.path)
    connection.execute(f"PRAGMA user_version = {layout}")
    connection.close()
    before = house.path.read_bytes()
    with pytest.raises(OtherLayout, match=rf"written by {age} relay \(layout {layout}, this one knows 7\)"):
        await house.open()
    assert house.path.read_bytes() == before
    connection = sqlite3.connect(house.path)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    await house.open()  # the lock was let go of


@pytest.mark.asyncio
async def test_a_file_that_is_no_database_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreUnavailable, match="not a database") as caught:
        await SqliteStore.open(path, observer=Noted(), **usual())
    assert caught.value.reason == "corrupt"


@pytest.mark.asyncio
async def test_what_is_found_is_told(house: SqliteHouse) -> None:
    assert house.noted.events == [EntriesFound(0, 0, 0)]
    await house.store.put(an_entry("a@x.nl", "b@x.nl"), leased=True)
    await house.store.put(an_entry("a@x.nl"), leased=False)
    await house.crash()
    assert house.noted.events == [EntriesFound(2, 3, 1)]


@pytest.mark.asyncio
async def test_nobody_else_can_read_the_queue(tmp_path: Path) -> None:
    house = SqliteHouse(tmp_path / "house")
    before = os.umask(0)
    try:
        await house.open()
        await house.store.put(an_entry(content=await spooled(house, "7QK3")), leased=True)
        await house.store.view()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in house.folder.rglob("*")}
        modes["."] = stat.S_IMODE(house.folder.stat().st_mode)
    finally:
        os.umask(before)
        await house.demolish()
    files = {f"queue.db{end}": 0o600 for end in ("", "-wal", "-shm", ".lock")}
    assert modes == files | {"7QK3.eml": 0o600, "queue.db.spool": 0o700, ".": 0o700}


DAMAGE = {
    "a content that is gone": "DELETE FROM content",
    "a head longer than the content": "UPDATE content SET head_length = 5000",
    "a content of another size": "UPDATE entry SET size = 5000",
    "no recipients": "DELETE FROM recipient",
    "a kind nobody knows": "UPDATE entry SET kind = 'fax'",
    "an address without @": "UPDATE recipient SET address = 'x'",
    "a wish nobody knows": "UPDATE recipient SET notify = 'often'",
    "a damaged because": "UPDATE entry SET because = '['",
    "a because of another shape": "UPDATE entry SET because = '[1]'",
    "a time beyond time": "UPDATE entry SET expires_at = 9000000000000000000",
    "no text where text was": "UPDATE entry SET reverse_path = 'jan'",
}


@pytest.mark.asyncio
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_an_entry_that_cannot_be_read_is_set_aside_and_blocks_nobody(house: SqliteHouse, damage: str) -> None:
    bad = an_entry("a@x.nl", "b@x.nl")
    await house.store.put(bad, leased=False)
    store = await alter(house, damage)
    recipients = 0 if damage == DAMAGE["no recipients"] else 2
    good = [an_entry(), an_entry()]
    for entry in good:
        await store.put(entry, leased=False)
    assert ids(await store.lease("default", limit=2, now=NOON)) == [entry.queue_id for entry in good]
    (event,) = house.noted.of(EntrySetAside)
    assert isinstance(event, EntrySetAside)
    assert event.queue_id == bad.queue_id
    assert store.ledger == Ledger(found=recipients, accepted=2, active=2, held=recipients)
    assert balanced(store.ledger)
    store = await house.restart()
    assert store.ledger == Ledger(found=2 + recipients, deferred=2, held=recipients)
    assert len(await store.lease("default", limit=9, now=NOON)) == 2
    assert await store.lease_expired("default", now=NOON.replace(year=2050), limit=9) == []
    assert house.noted.of(EntrySetAside) == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "damage",
    ["route = CAST(x'fffe61' AS TEXT)", "attempts = -1", "received_at = 9223372036854775807"],
    ids=["a route that is no text", "attempts below nothing", "an acceptance beyond time"],
)
@pytest.mark.parametrize("leased", [False, True])
async def test_a_row_that_makes_no_sense_keeps_no_relay_from_starting_and_the_books_right(
    house: SqliteHouse, damage: str, leased: bool
) -> None:
    await house.store.put(an_entry("a@x.nl", "b@x.nl"), leased=leased)
    good = an_entry()
    await house.store.put(good, leased=False)
    store = await alter(house, f"UPDATE entry SET {damage} WHERE id = 1")
    assert "default" in await store.routes()
    assert sum((await store.view()).messages.values()) == 1
    assert store.ledger == Ledger(found=3, pending=1, held=2)
    assert len(house.noted.of(EntrySetAside)) == 1
    assert ids(await store.lease("default", limit=9, now=NOON)) == [good.queue_id]
    assert house.counted() == {"pending": 0, "deferred": 0, "active": 1, "held": 2}


@pytest.mark.asyncio
async def test_what_is_set_aside_does_not_have_every_text_looked_at_at_each_start(
    house: SqliteHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.store.put(an_entry(), leased=False)
    await alter(house, "UPDATE entry SET received_at = -1")
    looked = []
    monkeypatch.setattr(start, "set_aside_damaged", lambda *_, **__: looked.append("at all") or [])
    await house.restart()
    assert looked == []


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["'7QK2.eml'", "CAST(x'fffe61' AS TEXT)"], ids=["another", "no text"])
async def test_a_damaged_name_of_a_spool_file_takes_no_content_away(house: SqliteHouse, name: str) -> None:
    await house.store.put(an_entry(content=await spooled(house, "7QK3"), name="7QK3"), leased=False)
    store = await alter(house, f"UPDATE entry SET spool_file = {name}")
    assert len(house.noted.of(EntrySetAside)) == 1
    assert os.listdir(store.spool.directory) == ["7QK3.eml"]


@pytest.mark.asyncio
async def test_an_entry_whose_spool_file_is_gone_is_set_aside_at_the_start(house: SqliteHouse) -> None:
    entry = an_entry(content=await spooled(house, "7QK3"))
    lease = await house.store.put(entry, leased=True)
    await house.store.settle(deferred(lease, NOON))
    await house.store.close()
    os.unlink(house.store.spool.directory / "7QK3.eml")
    store = await house.open()
    assert house.noted.events == [
        EntrySetAside(entry.queue_id, "its spool file is missing"),
        EntriesFound(1, 1, 0),
    ]
    assert store.ledger == Ledger(found=1, held=1)
    assert await store.lease("default", limit=9, now=NOON) == []
    store = await house.restart()
    assert house.noted.of(EntrySetAside) == []
    assert store.ledger == Ledger(found=1, held=1)


@pytest.mark.asyncio
@pytest.mark.parametrize("trouble", ["missing", "damaged"])
async def test_an_entry_whose_spool_file_suffers_while_it_waits_is_set_aside(house: SqliteHouse, trouble: str) -> None:
    entry = an_entry(content=await spooled(house, "7QK3"))
    await house.store.put(entry, leased=False)
    path = house.store.spool.directory / "7QK3.eml"
    if trouble == "missing":
        path.unlink()
    else:
        path.write_bytes(b"")
    assert await house.store.lease("default", limit=9, now=NOON) == []
    assert house.noted.of(EntrySetAside) == [EntrySetAside(entry.queue_id, f"its spool file is {trouble}")]
    assert house.store.ledger == Ledger(accepted=1, held=1)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["queue.db.spool", "queue.db.lock"])
async def test_what_lies_where_a_file_of_the_queue_belongs_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match=rf"^{tmp_path / name}: "):
        await SqliteStore.open(tmp_path / "queue.db", observer=Noted(), **usual())
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.asyncio
async def test_orphans_in_the_spool_are_removed_at_the_start_and_only_they(house: SqliteHouse) -> None:
    content = await spooled(house, "7QK3")
    await house.store.put(an_entry(content=content), leased=True)
    await spooled(house, "0RPHAN")
    writer = house.store.spool.begin()
    await writer.write(b"half a message")
    await house.store.backup(house.store.spool.directory / "saved.db")  # where it does not belong
    assert len(os.listdir(house.store.spool.directory)) == 5
    store = await house.crash()
    assert sorted(os.listdir(store.spool.directory)) == ["7QK3.eml", "saved.db", "saved.db.spool"]
    (lease,) = await store.lease("default", limit=9, now=NOON)
    kept = lease.entry.content
    assert (kept.size, kept.head) == (content.size, HEAD)
    assert kept.read(len(HEAD), 4) == b"xxxx"
    await writer.discard()


@pytest.mark.asyncio
async def test_a_held_recipient_of_a_found_entry_counts_as_held(house: SqliteHouse) -> None:
    lease = await house.store.put(an_entry("a@x.nl", "b@x.nl"), leased=True)
    results = (Result(0, State.HELD), Result(1, State.PENDING))
    await house.store.settle(Settlement(lease, results, next_attempt_at=NOON))
    assert (await house.restart()).ledger == Ledger(found=2, held=1, deferred=1)


@pytest.mark.asyncio
async def test_whatever_was_said_to_be_kept_is_there_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    program = f"""
import asyncio, os
from relay.queue.sqlite.start import SqliteStore
from tests.queue.mail import an_entry, ended, Noted
from tests.kit.store import usual
async def client(store, n):
    while True:
        lease = await store.put(an_entry(name=os.urandom(8).hex()), leased=True)
        if n % 2:
            await store.settle(ended(lease))
        os.write(1, f"{{'end' if n % 2 else 'put'}} {{lease.entry.queue_id}}\\n".encode())
async def main():
    store = await SqliteStore.open({str(path)!r}, observer=Noted(), **usual())
    await asyncio.gather(*(client(store, n) for n in range(8)))
asyncio.run(main())
"""
    for kills in (40, 300):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, limit=1 << 24
        )
        assert process.stdout is not None
        lines = [await process.stdout.readline() for _ in range(kills)]
        process.kill()
        lines += (await process.stdout.read()).splitlines(keepends=True)
        await process.wait()
        said: dict[bytes, set[bytes]] = {b"put": set(), b"end": set()}
        for line in lines:
            verb, _, name = line.strip().partition(b" ")
            if line.endswith(b"\n"):
                said[verb].add(name)
        store = await SqliteStore.open(path, observer=Noted(), **usual())
        there = {name.encode() for name in ids(await store.lease("default", limit=100_000, now=NOON))}
        assert balanced(store.ledger)
        await store.close()
        assert said[b"put"] <= there
        assert not said[b"end"] & there
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


INDEXED = {
    "wake": "sleeping",
    "select_due": "due_by_client",
    "next_priority": "COVERING INDEX due",  # or due_by_client: both have it first
    "first_client": "due_by_client",
    "next_client": "due_by_client",
    "select_expired": "lifetime",
    "select_expired_codes": "codes",
    "any_expired_code": "codes",
    "routes_due": "COVERING INDEX due",
    "routes_sleeping": "COVERING INDEX sleeping",
    "routes_apart": "COVERING INDEX apart",
    "spool_files": "spooled",
    "make_due": "sleeping",
    "last_sleeping": "sleeping",
    "first_due": "due",
    "first_sleeping": "sleeping",
    "standing_due": "COVERING INDEX due",
    "standing_sleeping": "COVERING INDEX sleeping",
    "standing_apart": "COVERING INDEX apart",
    "standing_in_doubt": "INDEX doubt",
    "standing_to_bounce": "apart",
    "select_to_bounce": "apart",
    "select_held_codes": "apart",
    "any_expired": "lifetime",
    "any_to_bounce": "apart",
    "any_held_code": "apart",
    "names_in_queue": "COVERING INDEX",
    "names_in_history": "COVERING INDEX history_names",
    "history_named": "history_names",
    "ended_before": "PRIMARY KEY",
    "first_of_history": "PRIMARY KEY",
}


def test_no_question_of_the_running_relay_reads_the_whole_queue() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(read("schema.sql"))
    for name, index in INDEXED.items():
        statement = STATEMENTS[name]
        bindings = (1,) * (1 if "?1" in statement else statement.count("?"))
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", bindings)
        text = " / ".join(str(row[3]) for row in plan)
        assert index in text, name
        assert name == "select_expired" or "TEMP B-TREE" not in text, name  # that sorts what has expired only
    connection.close()


@pytest.mark.asyncio
async def test_the_normal_walk_of_a_message_leaves_no_trace_but_its_end(house: SqliteHouse) -> None:
    lease = await house.store.put(an_entry(), leased=True)
    await house.store.settle(ended(lease))
    await house.store.close()
    connection = sqlite3.connect(house.path)
    for table, rows in {"entry": 0, "content": 0, "recipient": 0, "attempt": 0, "history": 1}.items():
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (rows,)
    connection.close()
    assert not house.path.with_name("queue.db-wal").exists()
    await house.open()
