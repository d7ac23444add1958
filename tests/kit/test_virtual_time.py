"""Virtual time jumps over waiting, and over nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import timedelta
from pathlib import Path

import pytest

from relay.queue.sqlite.start import SqliteStore
from tests.delivery.ways import Watch
from tests.kit import virtual_time
from tests.kit.store import usual
from tests.kit.virtual_time import NOON, Stuck, now, run
from tests.queue.mail import an_entry

AN_INSTANT = 1e-6  # virtual seconds: whatever may jump is over by then


def test_an_hour_of_timers_passes_in_order_and_in_no_time() -> None:
    async def hour() -> list[tuple[str, timedelta]]:
        told = []

        async def tell(name: str, pause: float) -> None:
            for _ in range(int(3600 / pause)):
                await asyncio.sleep(pause)
            told.append((name, now() - NOON))

        await asyncio.gather(tell("seconds", 1.0), tell("half", 1800.0), tell("late", 2400.0))
        return told

    begun = time.monotonic()
    assert run(hour()) == [
        ("late", timedelta(minutes=40)),
        ("half", timedelta(hours=1)),
        ("seconds", timedelta(hours=1)),
    ]
    assert time.monotonic() - begun < 20


def test_the_clock_stands_still_while_a_thread_has_work_for_the_loop() -> None:
    async def work() -> bytes:
        async with asyncio.timeout(AN_INSTANT):
            return await asyncio.to_thread(hashlib.pbkdf2_hmac, "sha256", b"word", b"salt", 50_000)

    assert len(run(work())) == 32


def test_the_clock_stands_still_while_a_store_commits_and_reads(tmp_path: Path) -> None:
    async def keep() -> None:
        store = await SqliteStore.open(tmp_path / "queue.db", observer=Watch(), **usual(now=now))
        async with asyncio.timeout(AN_INSTANT):
            for number in range(20):
                await store.put(an_entry(name=f"K{number}"), leased=False)
            assert await store.next_due("default") is not None
        await store.close()

    run(keep())


def test_what_is_written_to_a_socket_arrives_before_the_clock_jumps() -> None:
    async def talk() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                writer.write(line)
            writer.close()

        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for _ in range(20):
                async with asyncio.timeout(AN_INSTANT):
                    writer.write(b"hello\n")
                    assert await reader.readline() == b"hello\n"
                await asyncio.sleep(60)
            writer.close()
            await writer.wait_closed()
        assert now() - NOON >= timedelta(minutes=20)

    run(talk())


def test_who_waits_for_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(virtual_time, "PATIENCE", 0.05)
    with pytest.raises(Stuck, match="no timer"):
        run(wait())
