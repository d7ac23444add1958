"""Power loss: the relay goes on with the disk that a power cut leaves, and what was acknowledged is on it.

`shims/powercut.c` writes down what a relay under load does to its files, and what it syncs. Each power cut is a moment
of that journal; `journal` makes the disk of that moment, without what was not synced, or with a part of it by chance;
an ordinary relay starts on it. Three tests leave out a sync in the relay, and have to lose mail: so the first can fail.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.kit.house import Site
from tests.kit.upstream import ScriptedUpstream
from tests.torture.journal import Disk, Record, keeps_all, keeps_some, loses_all, records
from tests.torture.nursery import Nursery
from tests.torture.points import WITHOUT
from tests.torture.traffic import CLIENTS, Books, endless, faults, send, waiting

SHIM = Path(__file__).with_name("shims") / "powercut.c"
CONNECTIONS = 3

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is needed to build the shim")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nursery]:
    """A nursery whose relays write down what they do to files, where their order says so."""
    shim = tmp_path_factory.mktemp("shim") / "powercut.so"
    words = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(shim), str(SHIM), "-lpthread"]
    subprocess.run(words, check=True)
    async with Nursery.open({"LD_PRELOAD": str(shim)}) as nursery:
        yield nursery


@dataclass(frozen=True, slots=True)
class Run:
    """What a relay did under load until it was killed. `settled`: the queue IDs of which it had said that they were
    delivered, and how long the journal was then."""

    records: list[Record]
    books: Books
    settled: list[tuple[int, str]]
    disk: Path


@dataclass(frozen=True, slots=True)
class Sequel:
    """What became of it after a power cut: numbers that were acknowledged and have not arrived, queue IDs that came
    twice, and those of them that had been settled."""

    lost: set[int]
    twice: set[str]
    wrongly: set[str]
    faults: list[str]


def configure(site: Site, own: ScriptedUpstream, disk: Path) -> Path:
    """For a queue on `disk`, where the relay has to make two folders whose names can be lost as well. The door."""
    site.queue_path = disk / "lib" / "relay" / "queue.db"
    door = site.folder / "door"
    site.configure(
        upstreams={"own": site.way_to(own, max_connections=CONNECTIONS)},
        listeners=[{"name": "legacy", "listen": f"unix:{door}"}],
        routes={"default": {"retry": "1s"}},
        log={"format": "json"},
    )
    return door


async def load(
    site: Site, watched: Nursery, own: ScriptedUpstream, messages: int, *, kill: bool = True, **order: Any
) -> Run:
    """So many `messages` are acknowledged, or more, and the relay is killed, or stopped."""
    disk, journal = site.folder / "disk", site.folder / "journal"
    disk.mkdir()
    journal.touch()
    books = Books(site.folder, lambda: journal.stat().st_size)
    own.content_allowed = books.arrive
    door = configure(site, own, disk)
    settled: list[tuple[int, str]] = []

    def note(line: dict[str, Any]) -> None:
        if line.get("event") == "delivered":
            settled.append((journal.stat().st_size, line["queue_id"]))

    environment = (("POWERCUT_FOLDER", str(disk)), ("POWERCUT_JOURNAL", str(journal)))
    relay = watched.birth(site, environment=environment, **order)
    relay.tell = note
    assert await relay.started(), relay.lines
    clients = [asyncio.create_task(send(door, books, endless(books))) for _ in range(CLIENTS)]
    await books.until(partial(books.many, messages))
    await (relay.kill() if kill else relay.stop())
    await asyncio.gather(*clients)
    await own.until(lambda: own.open == 0)
    books.close()
    return Run(records(journal), books, settled, disk)


async def power_comes_back(
    site: Site, watched: Nursery, own: ScriptedUpstream, run: Run, disk: Path, end: int
) -> Sequel:
    """A relay on `disk`, which is as at `end` of the journal, until its queue is empty."""
    before, after = run.books, Books(disk)
    own.content_allowed = after.arrive
    configure(site, own, disk)
    relay = watched.birth(site)
    assert await relay.started(), relay.lines
    await relay.until(lambda: waiting(site.queue_path), set())
    await relay.stop()
    after.close()
    arrived = [arrival for arrival in before.arrivals if arrival.mark < end]
    acknowledged = {one.number for one in before.acknowledged.values() if one.mark <= end}
    came = {arrival.queue_id for arrival in after.arrivals}
    assert all(arrival.whole for arrival in after.arrivals)
    return Sequel(
        lost=acknowledged - {arrival.number for arrival in (*arrived, *after.arrivals)},
        twice=came & {arrival.queue_id for arrival in arrived},
        wrongly=came & {queue_id for mark, queue_id in run.settled if mark <= end},
        faults=faults(site.queue_path),
    )


def every_other(own: ScriptedUpstream) -> None:
    """Of two messages the upstream takes one, and wants the other later."""
    turn = itertools.cycle([None, "451 4.3.0 later"])
    own.script("mail", lambda _: next(turn), times=None)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.promise("A power cut at any moment, which takes all or some of what was not synced, takes no message.")
async def test_what_was_acknowledged_survives_a_power_cut(
    quick_site: Site, watched: Nursery, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    runs, cuts, messages = size((1, 5, 40), (10, 20, 150))
    chance = random.Random()
    acknowledged = twice = calls = 0
    for number in range(runs):
        folder = quick_site.folder / str(number)
        folder.mkdir()
        place = Site(folder, quick_site.certificates)
        async with quick_site.upstream(tls="none", users=None) as own:
            every_other(own)
            run = await load(place, watched, own, messages, hasty=number % 2 == 0)
            own.unscript("mail")
            moments = [*sorted(chance.sample(range(len(run.records)), cuts - 1)), len(run.records) - 1]
            disk, done = Disk(), 0
            for cut, moment in enumerate(moments):
                for record in run.records[done : moment + 1]:
                    disk.apply(record)
                done = moment + 1
                end, where = run.records[moment].end, folder / f"disk-{cut}"
                disk.cut(where, loses_all if cut % 2 else keeps_some(chance))
                sequel = await power_comes_back(place, watched, own, run, where, end)
                said = f"run {number}, cut {cut} behind call {moment} of {len(run.records)}"
                assert not sequel.lost, f"{said}: lost {sequel.lost}"
                assert not sequel.wrongly, f"{said}: settled, and came again: {sequel.wrongly}"
                assert len(sequel.twice) <= CONNECTIONS, f"{said}: twice {sequel.twice}"
                assert not sequel.faults, f"{said}: {sequel.faults}"
                twice += len(sequel.twice)
                shutil.rmtree(where)
            acknowledged += len(run.books.acknowledged)
            calls += len(run.records)
    figures(
        f"{runs * cuts} power cuts, each at one of {calls} calls that change or sync files, half of them without "
        "anything that was not synced, half with a random part of it; "
        f"{acknowledged} messages acknowledged, none lost; {twice} came twice, none of them settled before; "
        "every database whole, no spool file left"
    )


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.promise("The tests of power cuts can fail: a relay that leaves out a sync loses mail in them.")
@pytest.mark.parametrize("sync", WITHOUT)
async def test_a_power_cut_takes_acknowledged_mail_from_a_relay_without(
    sync: str, quick_site: Site, watched: Nursery, figures: Callable[[str], None]
) -> None:
    async with quick_site.upstream(tls="none", users=None) as own:
        own.script("mail", "451 4.3.0 later", times=None)
        run = await load(quick_site, watched, own, 30, without=sync)
        own.unscript("mail")
        disk = Disk()
        for record in run.records:
            disk.apply(record)
        disk.cut(quick_site.folder / "disk-after", loses_all)
        sequel = await power_comes_back(
            quick_site, watched, own, run, quick_site.folder / "disk-after", run.records[-1].end
        )
    assert sequel.lost
    figures(f"{len(sequel.lost)} of {len(run.books.acknowledged)} acknowledged messages lost")


@pytest.mark.asyncio(loop_scope="session")
async def test_the_journal_has_every_change_of_a_file(quick_site: Site, watched: Nursery) -> None:
    async with quick_site.upstream(tls="none", users=None) as own:
        every_other(own)
        run = await load(quick_site, watched, own, 30, kill=False, hasty=True)
    disk = Disk()
    for record in run.records:
        disk.apply(record)
    disk.cut(quick_site.folder / "disk-made", keeps_all)
    made, there = (contents(quick_site.folder / name) for name in ("disk-made", "disk"))
    assert {name for name in made.keys() | there.keys() if made.get(name) != there.get(name)} == set()
    assert {record.what for record in run.records} == set("OWTBSRUM")


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
