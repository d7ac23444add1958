"""Large content lies in files: durable before its row, gone after its end."""

from __future__ import annotations

import asyncio
import os

import pytest

from relay.errors import StoreUnavailable
from relay.queue.model import Ledger
from tests.queue.house import SqliteHouse
from tests.queue.mail import HEAD, NOON, an_entry, ended
from tests.queue.test_sqlite_start import spooled
from tests.queue.test_sqlite_trouble import files_end_at


async def files(house: SqliteHouse) -> list[str]:
    """What lies in the spool, once the removals under way are done."""
    await asyncio.gather(*(house.store.spool.on_thread(os.getpid) for _ in range(8)))
    return os.listdir(house.store.spool.directory)


@pytest.mark.asyncio
async def test_large_content_is_read_back_from_its_file_and_removed_with_its_entry(house: SqliteHouse) -> None:
    content = await spooled(house, "7QK3", b"abc" * 200_000)
    lease = await house.store.put(an_entry(content=content), leased=True)
    assert lease.entry.content is content
    await house.store.give_back([lease])
    (lease,) = await house.store.lease("default", limit=1, now=NOON)
    assert lease.entry.content == content
    assert content.read(0, 10**6) == HEAD + b"abc" * 200_000
    assert (await house.store.view()).bytes == content.size
    await house.store.settle(ended(lease))
    async with asyncio.timeout(60):
        while await files(house):
            pass


@pytest.mark.asyncio
async def test_the_file_of_an_entry_that_was_refused_goes(house: SqliteHouse) -> None:
    known = await house.store.put(an_entry(), leased=True)
    content = await spooled(house, "7QK3")
    with pytest.raises(StoreUnavailable):
        await house.store.put(an_entry(content=content, name=known.entry.queue_id), leased=True)
    async with asyncio.timeout(60):
        while await files(house):
            pass


@pytest.mark.asyncio
@pytest.mark.parametrize("step", ["nothing", "write", "finish"])
async def test_a_file_can_be_discarded_at_any_step_and_twice(house: SqliteHouse, step: str) -> None:
    writer = house.store.spool.begin()
    if step != "nothing":
        await writer.write(HEAD)
    if step == "finish":
        await writer.finish("7QK3", HEAD, len(HEAD))
    assert len(await files(house)) == (step != "nothing")
    await writer.discard()
    await writer.discard()
    assert await files(house) == []
    with pytest.raises(ValueError, match="discarded"):
        await writer.write(b"x")


@pytest.mark.asyncio
async def test_a_writer_cancelled_in_a_write_can_be_discarded(house: SqliteHouse) -> None:
    writer = house.store.spool.begin()
    writing = asyncio.ensure_future(writer.write(b"x" * 5_000_000))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await writer.discard()
    assert await files(house) == []


@pytest.mark.asyncio
async def test_a_disk_that_takes_no_more_is_unavailable_and_keeps_no_half_file(house: SqliteHouse) -> None:
    writer = house.store.spool.begin()
    await writer.write(b"x" * 1000)
    with files_end_at(2000), pytest.raises(StoreUnavailable) as caught:
        await writer.write(b"x" * 5000)
    assert caught.value.reason == "io"
    assert await files(house) == []
    await writer.discard()
    await spooled(house, "7QK3")
    assert await files(house) == ["7QK3.eml"]


@pytest.mark.asyncio
async def test_a_file_is_never_named_by_a_message_nor_shorter_than_announced(house: SqliteHouse) -> None:
    writer = house.store.spool.begin()
    await writer.write(HEAD)
    for name in ("../../etc/passwd", "a/b", "", "a.b", "é"):
        with pytest.raises(ValueError, match="no queue ID"):
            await writer.finish(name, HEAD, len(HEAD))
    with pytest.raises(ValueError, match="were announced"):
        await writer.finish("7QK3", HEAD, len(HEAD) + 1)
    await writer.discard()
    assert house.store.ledger == Ledger()
