"""The file system becomes read-only under way: mail hears 451, and nothing is lost.

The kernel makes an ext4 read-only when it meets an error (`errors=remount-ro`), also under files that are open for
writing; `mount -o remount,ro` refuses that, so it is shown where nothing is open: with the spool.
"""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import Callable

import pytest

from tests.kit.house import PATIENCE, Site
from tests.torture.faults import Faults
from tests.torture.machine import LARGE, Ledger, Machine
from tests.torture.volumes import MIB, ext4, needs_root, run, tmpfs

pytestmark = pytest.mark.asyncio


@needs_root
@pytest.mark.promise(
    "A file system that the kernel makes read-only under way: mail hears 451 and health says so; after a repair and a "
    "restart everything acknowledged arrives."
)
async def test_a_file_system_that_the_kernel_makes_read_only_loses_nothing(
    site: Site, figures: Callable[[str], None]
) -> None:
    ledger = Ledger()
    where = site.folder / "disk"
    async with site.upstream() as own:
        own.script("rcpt", "450 4.2.0 later", times=None)
        with ext4(where, size=32 * MIB) as disk:
            site.queue_path = disk / "queue.db"
            async with Machine.running(site, own, ledger=ledger) as machine:
                assert {reply[:4] for reply in await machine.offer_at_once(8)} == {"250 "}
                assert (await machine.offer(LARGE)).startswith("250 ")
                run("mount", "-o", "remount,abort", disk)
                replies = await machine.offer_at_once(4) + await machine.offer_at_once(2, LARGE)
                assert {reply[:9] for reply in replies} == {"451 4.3.0"}
                assert await machine.page("/healthz") == (503, "the store cannot commit\n")
                machine.relay.signal(signal.SIGTERM)
                assert await machine.relay.ended() == 0  # also now it stops in an orderly way
        run("fsck.ext4", "-p", "-f", where.with_suffix(".img"), good=(0, 1))  # 1: it had something to repair
        own.unscript("rcpt")
        with ext4(where, size=32 * MIB):
            async with Machine.running(site, own, ledger=ledger) as machine:
                await machine.everything_acknowledged_arrives()
                assert (await machine.offer(LARGE)).startswith("250 ")
                await machine.everything_acknowledged_arrives()
    figures(f"{len(ledger.acknowledged)} acknowledged, all arrived; {ledger.refusals.total()} heard 451")


@pytest.mark.promise(
    "A queue that cannot be written for a while: mail hears 451, and afterwards the relay goes on by itself."
)
async def test_a_queue_that_is_read_only_for_a_while_is_written_again(
    site: Site, faults: Faults, figures: Callable[[str], None]
) -> None:
    async with site.upstream() as own, Machine.running(site, own, environment=faults.environment) as machine:
        assert (await machine.offer()).startswith("250 ")
        for call in ("write", "truncate", "rename", "sync"):
            faults.rule(call, "*/queue.db*", errno.EROFS)
        faults.rule("open", "*/queue.db.spool/*.part", errno.EROFS)
        replies = await machine.offer_at_once(3) + await machine.offer_at_once(2, LARGE)
        assert {reply[:9] for reply in replies} == {"451 4.3.0"}
        assert not await machine.healthy()
        faults.end()
        await machine.accepts_again(LARGE)
        assert await machine.healthy()
        await machine.everything_acknowledged_arrives()
        assert machine.arrived.keys() == machine.ledger.acknowledged
    figures(f"{machine.ledger.refusals.total()} heard 451; {len(machine.ledger.acknowledged)} arrived")


@needs_root
@pytest.mark.promise(
    "A spool that is remounted read-only refuses large mail only, and takes it again when it is remounted."
)
async def test_a_spool_that_is_remounted_read_only_and_back_goes_on(site: Site, figures: Callable[[str], None]) -> None:
    with tmpfs(site.folder / "queue.db.spool", size=16 * MIB) as spool:
        async with site.upstream() as own, Machine.running(site, own) as machine:
            assert (await machine.offer(LARGE)).startswith("250 ")
            await machine.everything_acknowledged_arrives()
            async with asyncio.timeout(PATIENCE):
                while list(spool.iterdir()):
                    await asyncio.sleep(0.02)
            run("mount", "-o", "remount,ro", spool)
            assert (await machine.offer(LARGE)).startswith("451 4.3.0")
            assert (await machine.offer()).startswith("250 ")
            assert not await machine.healthy()
            run("mount", "-o", "remount,rw", spool)
            assert (await machine.offer(LARGE)).startswith("250 ")
            assert await machine.healthy()
            await machine.everything_acknowledged_arrives()
    figures("large mail heard 451 meanwhile, small mail was taken, all acknowledged arrived")
