"""The log writer: off the loop, in order, bounded, and complete when it closes."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay import events
from relay.observe import log
from relay.observe.log import LogWriter, is_journal
from tests.observe.samples import COMMITTED, DELIVERED, QUEUED, SAMPLES


class Pipe:
    """A stderr that somebody reads, or does not read."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        self.reading = io.FileIO(reading, "rb")
        self.writing = io.FileIO(writing, "wb")

    def rest(self) -> list[str]:
        """All that is still to come, as lines; ends what is written."""
        self.writing.close()
        return self.reading.readall().decode().splitlines()

    def close(self) -> None:
        self.reading.close()
        self.writing.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def writer(stream: io.RawIOBase, *, level: str = "info", format: str = "text") -> LogWriter:
    return LogWriter(stream, level=level, format=format, loop=asyncio.get_running_loop())


async def read_line(pipe: Pipe) -> str:
    async with asyncio.timeout(60):
        line = b""
        while not line.endswith(b"\n"):
            line += await asyncio.to_thread(pipe.reading.read, 1)
    return line.decode()


@pytest.mark.asyncio
async def test_lines_appear_by_themselves_soon_after_the_event(pipe: Pipe) -> None:
    writing = writer(pipe.writing)
    writing.observe(QUEUED)
    assert " info queued queue_id=" in await read_line(pipe)
    writing.observe(DELIVERED)
    assert " info delivered queue_id=" in await read_line(pipe)
    writing.close()


@pytest.mark.asyncio
async def test_closing_writes_what_waits_and_ends_the_thread(pipe: Pipe) -> None:
    writing = writer(pipe.writing, level="debug")
    for sample in SAMPLES:
        writing.observe(sample)
    writing.close()
    writing.close()
    writing.observe(QUEUED)
    assert len(pipe.rest()) == len(SAMPLES)
    assert "log" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.asyncio
async def test_level_and_format_change_at_a_reload(pipe: Pipe) -> None:
    writing = writer(pipe.writing, level="warning")
    writing.observe(QUEUED)
    writing.configure(level="info", format="json")
    writing.observe(COMMITTED)
    writing.observe(DELIVERED)
    writing.close()
    (line,) = pipe.rest()
    assert line.startswith('{"time":')
    assert '"event":"delivered"' in line


@pytest.mark.asyncio
async def test_a_stderr_that_blocks_stops_nobody_and_what_is_too_much_is_counted(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MOST_WAITING", 1000)
    monkeypatch.setattr(log, "FLUSH_EVERY", 0)
    writing = writer(pipe.writing)
    for _ in range(1000):  # more than a pipe holds: the thread blocks
        writing.observe(QUEUED)
    first = await read_line(pipe)
    for _ in range(1200):
        writing.observe(DELIVERED)
        await asyncio.sleep(0)  # time for a flush, which must leave them waiting
    assert " queued " in first
    reading = asyncio.create_task(asyncio.to_thread(pipe.reading.readall))
    closing = asyncio.create_task(asyncio.to_thread(writing.close, 30.0))
    async with asyncio.timeout(60):
        await closing
        pipe.writing.close()
        lines = (await reading).decode().splitlines()
    assert sum(" queued " in line for line in lines) == 999
    assert sum(" delivered " in line for line in lines) == 1000
    assert 'warning warning text="the log could not keep up; 200 events were not written"' in lines[-1]


@pytest.mark.asyncio
async def test_a_stderr_that_nobody_reads_does_not_hold_up_the_end(pipe: Pipe) -> None:
    writing = writer(pipe.writing)
    for _ in range(1000):
        writing.observe(QUEUED)
    writing.close(patience=0)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "log")
    assert thread.daemon
    reading = asyncio.create_task(asyncio.to_thread(pipe.reading.readall))
    async with asyncio.timeout(60):
        await asyncio.to_thread(thread.join)
        pipe.writing.close()
        await reading


@pytest.mark.asyncio
async def test_a_stderr_made_non_blocking_by_somebody_else_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing.fileno(), False)
    writing = writer(pipe.writing)
    for _ in range(2000):
        writing.observe(QUEUED)
    reading = asyncio.create_task(asyncio.to_thread(pipe.reading.readall))
    async with asyncio.timeout(60):
        await asyncio.to_thread(writing.close, 30.0)
        pipe.writing.close()
        assert len((await reading).splitlines()) == 2000


@pytest.mark.asyncio
async def test_a_stderr_whose_reader_went_away_is_borne(pipe: Pipe) -> None:
    pipe.reading.close()
    writing = writer(pipe.writing)
    writing.observe(QUEUED)
    writing.close()


@pytest.mark.asyncio
async def test_an_event_that_cannot_be_worded_does_not_end_the_log(pipe: Pipe) -> None:
    class Novel(events.Event):
        pass

    writing = writer(pipe.writing)
    writing.observe(Novel())
    writing.observe(dataclasses.replace(QUEUED, because=None))  # type: ignore[arg-type]
    writing.observe(DELIVERED)
    writing.close()
    novel, broken, delivered = pipe.rest()
    assert "error exception" in novel
    assert "Novel" in novel
    assert "no line for MessageQueued: TypeError" in broken
    assert " info delivered " in delivered


def test_stderr_is_the_journal_only_when_it_is_the_very_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "journal", "wb") as journal, open(tmp_path / "other", "wb") as other:
        status = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert is_journal(journal.fileno())
        assert not is_journal(other.fileno())
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not is_journal(journal.fileno())
