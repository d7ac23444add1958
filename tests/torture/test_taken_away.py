"""A file of the queue is taken away, replaced or overwritten under the relay: it says so, and all mail can be saved."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.extent import kinds
from tests.kit.house import Site
from tests.scenarios.desk import relay
from tests.torture.machine import LARGE, Ledger, Machine
from tests.torture.volumes import MIB, ext4, needs_root, run, tmpfs

pytestmark = pytest.mark.asyncio

LATER = "450 4.2.0 later"


def removed(name: str) -> Callable[[Path], None]:
    return lambda state: (state / name).unlink()


def replaced(state: Path) -> None:
    """By a backup, which lies beside it."""
    os.rename(state / "earlier.db", state / "queue.db")


def overwritten(state: Path) -> None:
    """`cp earlier.db queue.db`: the file stays the same, what is in it does not."""
    shutil.copyfile(state / "earlier.db", state / "queue.db")


def cut(name: str) -> Callable[[Path], None]:
    return lambda state: os.truncate(state / name, 0)


GONE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "the database is removed": ("queue.db", removed("queue.db")),
    "the log is removed": ("queue.db-wal", removed("queue.db-wal")),
    "the index of the log is removed": ("queue.db-shm", removed("queue.db-shm")),
    "the lock is removed": ("queue.db.lock", removed("queue.db.lock")),
    "a backup is put in the place of the database": ("queue.db", replaced),
    "the folder is renamed": ("", lambda state: os.rename(state, state.with_name("renamed"))),
    "the spool is moved": (
        "queue.db.spool",
        lambda state: os.rename(state / "queue.db.spool", state / "elsewhere"),
    ),
}
"""Each with the name that is said."""

SPOILT: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a backup is copied over the database": ("queue.db", overwritten),
    "the database is cut": ("queue.db", cut("queue.db")),
    "the log is cut": ("queue.db-wal", cut("queue.db-wal")),
}


async def fill(site: Site, machine: Machine) -> None:
    """What waits; and a backup of before."""
    machine.own.script("rcpt", LATER, times=None)
    saved = await relay(site, "queue", "backup", str(site.queue_path.with_name("earlier.db")))
    assert saved.code == 0, saved.err
    assert {reply[:4] for reply in await machine.offer_at_once(4)} == {"250 "}
    assert (await machine.offer(LARGE)).startswith("250 ")


async def it_is_said(site: Site, machine: Machine, path: Path) -> None:
    """To applications, health, log and administrator: which file, what not to do, and what to do."""
    small, large = await machine.offer(), await machine.offer(LARGE)
    status, health = await machine.page("/healthz")
    ready, _ = await machine.page("/readyz")
    line = await machine.relay.line("store_failed")
    shown = await relay(site, "status")
    assert (status, ready, shown.code, line["level"]) == (503, 503, 1, "error")
    assert {small[:9], large[:9]} == {"451 4.3.0"}
    for said in (small, health, line["text"], " ".join(shown.out.split())):
        assert f"{path} " in said, said
        assert "not stop the relay" in said
        assert "would be lost" in said
        assert "`relay queue backup FILE`" in said


async def killed(machine: Machine) -> None:
    machine.relay.signal(signal.SIGKILL)
    assert await machine.relay.ended() == -signal.SIGKILL


def restore(backup: Path, queue: Path) -> None:
    """As docs/install.md says."""
    queue.parent.mkdir(exist_ok=True)
    old = queue.parent / "old"
    old.mkdir()
    for path in queue.parent.glob("queue.db*"):
        path.rename(old / path.name)
    shutil.copy(backup, queue)
    if backup.with_name(f"{backup.name}.spool").exists():
        shutil.copytree(backup.with_name(f"{backup.name}.spool"), queue.with_name(f"{queue.name}.spool"))


@pytest.mark.promise(
    "A file of the queue that is taken away under the relay is noticed, mail hears 451, and a backup made then has all "
    "that was acknowledged: killed and restored, everything arrives."
)
@pytest.mark.parametrize("what", kinds(GONE, lambda what: GONE[what][0] == ""))
async def test_what_waits_is_saved_after(what: str, site: Site, figures: Callable[[str], None]) -> None:
    name, take = GONE[what]
    site.queue_path = site.folder / "state" / "queue.db"
    state, backup, ledger = site.queue_path.parent, site.folder / "saved.db", Ledger()
    async with site.upstream() as own:
        async with Machine.running(site, own, ledger=ledger) as machine:
            await fill(site, machine)
            began = time.monotonic()
            take(state)
            await machine.relay.line("store_failed")
            seen = time.monotonic() - began
            await it_is_said(site, machine, state / name if name else state)
            made = await relay(site, "queue", "backup", str(backup))
            assert made.code == 0, made.err
            await killed(machine)
        restore(backup, site.queue_path)
        own.unscript("rcpt")
        async with Machine.running(site, own, ledger=ledger) as machine:
            await machine.everything_acknowledged_arrives()
    figures(f"seen after {seen:.1f} s; {len(ledger.acknowledged)} acknowledged, all arrived")


@pytest.mark.promise("While a file of the queue is away what waits is delivered; once it is back the relay goes on.")
@pytest.mark.parametrize(
    "what",
    kinds(["queue.db", "queue.db-wal", "queue.db.lock", "queue.db.spool", "."], lambda what: what == "."),
)
async def test_what_is_moved_away_and_back(what: str, site: Site, figures: Callable[[str], None]) -> None:
    site.queue_path = site.folder / "state" / "queue.db"
    there = site.queue_path.parent / what if what != "." else site.queue_path.parent
    async with site.upstream() as own, Machine.running(site, own) as machine:
        await fill(site, machine)
        there.rename(site.folder / "away")
        await machine.relay.line("store_failed")
        own.unscript("rcpt")
        await machine.everything_acknowledged_arrives()
        assert (await machine.offer()).startswith("451 4.3.0 ")
        assert not await machine.healthy()
        (site.folder / "away").rename(there)
        await machine.relay.line("store_recovered")
        assert (await machine.offer()).startswith("250 ")
        assert (await machine.offer(LARGE)).startswith("250 ")
        assert await machine.healthy()
        await machine.everything_acknowledged_arrives()
        assert (await relay(site, "status")).code == 0
        assert machine.arrived.keys() == machine.ledger.acknowledged
        assert set(machine.arrived.values()) == {1}
    ledger = machine.ledger
    figures(f"{len(ledger.acknowledged)} acknowledged, all arrived, once; {ledger.refusals.total()} heard 451")


@pytest.mark.promise("A file of the queue that somebody writes into under the relay is noticed, and mail hears 451.")
@pytest.mark.parametrize("what", kinds(SPOILT, lambda what: SPOILT[what][0]))
async def test_nothing_is_acknowledged_any_more_after(what: str, site: Site) -> None:
    name, spoil = SPOILT[what]
    site.queue_path = site.folder / "state" / "queue.db"
    async with site.upstream() as own, Machine.running(site, own) as machine:
        await fill(site, machine)
        spoil(site.queue_path.parent)
        await machine.relay.line("store_failed")
        await it_is_said(site, machine, site.queue_path.parent / name)
        await killed(machine)


@contextmanager
def covered(state: Path) -> Iterator[None]:
    """Something else is mounted over it."""
    run("mount", "-t", "tmpfs", "tmpfs", state)
    try:
        yield
    finally:
        run("umount", "--lazy", state)


@needs_root
@pytest.mark.promise("A mount over the queue's folder is noticed, and nothing is lost when it goes.")
async def test_a_mount_over_the_folder_and_gone_again(site: Site, figures: Callable[[str], None]) -> None:
    site.queue_path = site.folder / "state" / "queue.db"
    state = site.queue_path.parent
    async with site.upstream() as own, Machine.running(site, own) as machine:
        await fill(site, machine)
        with covered(state):
            await machine.relay.line("store_failed")
            await it_is_said(site, machine, state)
        await machine.relay.line("store_recovered")
        assert (await machine.offer()).startswith("250 ")
        own.unscript("rcpt")
        await machine.everything_acknowledged_arrives()
    figures(f"{len(machine.ledger.acknowledged)} acknowledged, all arrived")


@needs_root
@pytest.mark.promise("A disk that is unmounted (lazily) under the relay is noticed, and a backup has all that waits.")
async def test_what_waits_is_saved_after_the_disk_is_unmounted(site: Site, figures: Callable[[str], None]) -> None:
    where, ledger = site.folder / "state", Ledger()
    site.queue_path = where / "queue.db"
    async with site.upstream() as own:
        with ext4(where, size=32 * MIB), tmpfs(site.folder / "nothing", size=MIB):
            async with Machine.running(site, own, ledger=ledger) as machine:
                await fill(site, machine)
                run("umount", "--lazy", where)
                await machine.relay.line("store_failed")
                await it_is_said(site, machine, where)
                made = await relay(site, "queue", "backup", str(site.folder / "saved.db"))
                assert made.code == 0, made.err
                await killed(machine)
            run("mount", "-t", "tmpfs", "tmpfs", where)  # what `ext4` will unmount
            restore(site.folder / "saved.db", site.queue_path)
            own.unscript("rcpt")
            async with Machine.running(site, own, ledger=ledger) as machine:
                await machine.everything_acknowledged_arrives()
    figures(f"{len(ledger.acknowledged)} acknowledged, all arrived")


@pytest.mark.promise("No message is acknowledged into a database that was taken away under load; what was is saved.")
async def test_under_load_what_was_acknowledged_is_saved(site: Site, figures: Callable[[str], None]) -> None:
    site.queue_path = site.folder / "state" / "queue.db"
    ledger = Ledger()
    async with site.upstream() as own:
        own.script("rcpt", LATER, times=None)
        async with Machine.running(site, own, ledger=ledger) as machine:

            async def client() -> None:
                while (await machine.offer()).startswith("250 "):
                    pass

            clients = [asyncio.create_task(client()) for _ in range(8)]
            async with asyncio.timeout(60):
                while len(ledger.acknowledged) < 50:
                    await asyncio.sleep(0.01)
            site.queue_path.unlink()
            await asyncio.gather(*clients)
            assert set(ledger.refusals) == {"451 4.3.0"}
            made = await relay(site, "queue", "backup", str(site.folder / "saved.db"))
            assert made.code == 0, made.err
            await killed(machine)
        restore(site.folder / "saved.db", site.queue_path)
        own.unscript("rcpt")
        async with Machine.running(site, own, ledger=ledger) as machine:
            await machine.everything_acknowledged_arrives()
    figures(f"{len(ledger.acknowledged)} acknowledged, all arrived; {ledger.refusals.total()} heard 451")
