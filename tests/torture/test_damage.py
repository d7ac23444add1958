"""Damage in the queue: what is damaged is set aside and told, the rest flows, and who looks can still see it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relay.queue.sqlite.start import SqliteStore
from tests.kit.house import PATIENCE, Site
from tests.kit.store import usual
from tests.kit.upstream import ScriptedUpstream
from tests.queue.mail import Noted, an_entry
from tests.scenarios.desk import reachable, relay
from tests.torture.machine import LARGE, Ledger, Machine

pytestmark = pytest.mark.asyncio

SMALL = 200
PAGE = 4096
GARBAGE = (
    "NULL", "-1", "9223372036854775807", "''", "'garbage'", "'a@b@c'", "x'00ff'", "zeroblob(3)",
    "CAST(x'fffe61' AS TEXT)", "CAST(x'6a616e00' AS TEXT)",
)  # fmt: skip
KEYS = {"entry": "id", "recipient": "entry", "content": "entry"}


@dataclass(frozen=True)
class Harm:
    """What was done to the row of one message."""

    table: str
    column: str
    value: str


def columns(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """All that says something, by table."""
    for table in KEYS:
        for row in connection.execute(f"PRAGMA table_info({table})").fetchall():
            if row[1] not in ("id", "entry", "padding"):
                yield table, row[1]


def do_harm(path: Path, values: tuple[str, ...]) -> dict[int, Harm]:
    """To a message each, in the order of their numbers: every value in every column that takes it."""
    done: dict[int, Harm] = {}
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        keys = [key for (key,) in connection.execute("SELECT id FROM entry ORDER BY id")]
        for table, column in columns(connection):
            for value in values:
                key = keys[len(done)]
                try:
                    connection.execute(f"UPDATE {table} SET {column} = {value} WHERE {KEYS[table]} = ?", (key,))
                except sqlite3.Error:
                    continue  # its type does not allow it
                done[len(done) + 1] = Harm(table, column, value)
    return done


async def queued(site: Site, own: ScriptedUpstream, count: int, octets: int = SMALL) -> Ledger:
    """So many messages lie in the queue, and no relay runs."""
    await own.go_down()
    async with Machine.running(site, own) as machine:
        for _ in range(0, count, 20):
            await machine.offer_many(min(20, count - machine.ledger.offered), octets)
    await own.come_back()
    return machine.ledger


async def kept(site: Site, own: ScriptedUpstream) -> None:
    """A few messages lie in the queue, without a relay that took them."""
    site.configure(upstreams={"own": site.way_to(own)})
    store = await SqliteStore.open(site.queue_path, observer=Noted(), **usual())
    for _ in range(5):
        await store.put(an_entry(), leased=False)
    await store.close()


@pytest.mark.promise(
    "Whatever a row of the queue says, in any column: if it makes no sense the message is set aside and told, all "
    "others are delivered, and the queue can still be looked at."
)
async def test_a_row_that_makes_no_sense_stops_nobody_else(
    site: Site, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    values = size(("9223372036854775807", "CAST(x'fffe61' AS TEXT)"), GARBAGE)
    async with site.upstream() as own:
        ledger = await queued(site, own, size(75, 260))
        harm = await asyncio.to_thread(do_harm, site.queue_path, values)
        good = ledger.acknowledged - harm.keys()
        assert good
        async with Machine.running(site, own, ledger=ledger) as machine:
            async with asyncio.timeout(PATIENCE):
                await own.until(lambda: good <= machine.arrived.keys())
                while True:
                    aside, failed = (len(machine.relay.all(event)) for event in ("entry_set_aside", "failed"))
                    if aside + failed + len(machine.arrived.keys() - {-1}) >= len(ledger.acknowledged):
                        break
                    await asyncio.sleep(0.05)
            assert aside
            assert (await machine.offer()).startswith("250 ")
            await reachable(site)
            listed, shown = await asyncio.gather(
                relay(site, "queue", "list", "--state", "damaged", "--limit", "1000", "--json"), relay(site, "status")
            )
            assert listed.code == 0, listed.err
            entries = listed.document["entries"]
            assert len(entries) == aside
            assert (shown.code, f": {aside}." in shown.lines[1]) == (1, True), shown.out
            names = [name for entry in entries if len(name := entry["queue_id"]) == 12 and name.isalnum()]
            seen = await relay(site, "queue", "show", names[-1])
            assert (seen.code, "damaged" in seen.out) == (0, True), (seen.out, seen.err)
            assert machine.relay.all("exception") == []
    figures(
        f"{len(harm)} rows damaged: {aside} set aside, {failed} refused by the upstream and returned, "
        f"{len(harm) - aside - failed} readable and delivered; the others arrived"
    )


@pytest.mark.promise(
    "A spool file that is missing, cut, or holds something else: its message is set aside and told, the rest flows."
)
async def test_a_spool_file_that_is_damaged_is_never_sent(site: Site, figures: Callable[[str], None]) -> None:
    async with site.upstream() as own:
        ledger = await queued(site, own, 5, LARGE)
        missing, cut, longer, other, _ = sorted(Path(f"{site.queue_path}.spool").iterdir())
        missing.unlink()
        cut.write_bytes(cut.read_bytes()[:-1000])
        longer.write_bytes(longer.read_bytes() + b"more\r\n")
        other.write_bytes(bytes(other.stat().st_size))
        async with Machine.running(site, own, ledger=ledger) as machine:
            texts = [(await machine.relay.line("entry_set_aside", number))["text"] for number in range(1, 5)]
            assert sorted(texts) == ["its spool file is damaged"] * 3 + ["its spool file is missing"]
            await own.message()
            assert len(own.messages) == 1
            await reachable(site)
            listed = await relay(site, "queue", "list", "--state", "damaged")
            assert (listed.code, len(listed.lines)) == (0, 5), listed
    figures("missing, cut, longer, other content: four set aside, the fifth arrived")


@pytest.mark.promise(
    "A database with a damaged page is told at the start, with what to do; nothing is acknowledged then."
)
async def test_a_damaged_page_is_told_with_what_to_do(site: Site, figures: Callable[[str], None]) -> None:
    async with site.upstream() as own:
        await kept(site, own)
        with contextlib.closing(sqlite3.connect(site.queue_path)) as connection:
            (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'recipient'").fetchone()
        with site.queue_path.open("r+b") as file:
            file.seek((page - 1) * PAGE)
            file.write(b"\xff" * PAGE)
        serve = await relay(site, "serve")  # not at once: only one of them holds the store
        listed = await relay(site, "queue", "list")
    assert serve.code == listed.code == 1
    assert "Traceback" not in serve.err + listed.err
    assert f"{site.queue_path}: database disk image is malformed" in serve.err
    assert "backup" in serve.err, serve.err
    assert "malformed" in listed.err
    figures("the start is refused with one sentence and the remedy")


@pytest.mark.promise("The queue of a newer relay is left alone, and it is said which version is wanted.")
async def test_a_queue_of_a_newer_relay_is_left_alone(site: Site, figures: Callable[[str], None]) -> None:
    async with site.upstream() as own:
        await kept(site, own)
        with contextlib.closing(sqlite3.connect(site.queue_path)) as connection:
            connection.execute("PRAGMA user_version = 99")
        before = site.queue_path.read_bytes()
        serve = await relay(site, "serve")  # not at once: only one of them holds the store
        listed = await relay(site, "queue", "list")
    assert serve.code == listed.code == 1
    for answer in (serve, listed):
        assert "was written by a newer relay (layout 99, this one knows " in answer.err
        assert len(answer.err.splitlines()) == 1
    assert site.queue_path.read_bytes() == before
    figures("one sentence, exit code 1, not an octet changed")


@pytest.mark.promise(
    "A password that cannot be read any more keeps mail waiting and is told; when it can be read mail goes, by itself."
)
async def test_a_secret_that_cannot_be_read_keeps_mail_waiting(site: Site, figures: Callable[[str], None]) -> None:
    async with site.upstream() as own, Machine.running(site, own) as machine:
        password = site.password_path.read_text()
        site.password_path.unlink()
        site.password_path.mkdir()  # nobody can read that, root neither
        await machine.offer_many(3)
        await machine.relay.line("upstream_set_aside", upstream="own")
        await reachable(site)
        shown = await relay(site, "status")
        assert (shown.code, str(site.password_path) in shown.out) == (1, True), shown.out
        site.password_path.rmdir()
        site.set_password(password)
        await relay(site, "reload")
        await machine.everything_acknowledged_arrives()
    figures("3 waited, status named the file, all arrived after the reload")
