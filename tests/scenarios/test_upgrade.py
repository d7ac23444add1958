"""A newer relay on an older queue delivers what waits there; an older relay leaves a newer queue alone."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest

import relay.queue.sqlite.statements as statements
from relay.events import EntriesFound, EntrySetAside, RecipientDelivered, RecipientExpired
from tests.kit.house import Site
from tests.kit.ledger import balanced
from tests.scenarios.desk import reachable
from tests.scenarios.desk import relay as run

LAYOUTS = Path(__file__).parents[1] / "queue" / "layouts"
SPOOLED = "0Z6J1K8G5007.eml"


def old_queue(site: Site) -> None:
    """A queue as the first layout left it, with mail of every kind; long ago enough that its lifetime is over."""
    connection = sqlite3.connect(site.queue_path)
    connection.executescript((Path(statements.__file__).parent / "sql" / "0001.sql").read_text())
    connection.executescript((LAYOUTS / "1.sql").read_text())
    connection.close()
    site.queue_path.chmod(0o600)
    spool = site.queue_path.with_name("queue.db.spool")
    spool.mkdir(mode=0o700)
    head = b"From: jan@example.nl\r\nSubject: Factuur\r\n\r\n"
    (spool / SPOOLED).write_bytes(head + b"x" * (300 - len(head)))


def digest(site: Site) -> str:
    return hashlib.sha256(site.queue_path.read_bytes()).hexdigest()


@pytest.mark.asyncio
async def test_mail_that_waits_in_a_queue_of_the_first_layout_is_delivered_by_todays_relay(site: Site) -> None:
    old_queue(site)
    async with site.upstream() as own:
        site.configure(
            upstreams={"own": site.way_to(own)},
            session_codes={"enabled": True, "via_own_smtp": True, "fallback": False, "match": [{"subject": "*code*"}]},
        )
        async with site.house() as house:
            found = await house.event(EntriesFound)
            await house.event(RecipientDelivered, queue_id="0Z6J1K8G0007", recipient="piet@example.com")
            await house.event(RecipientDelivered, queue_id="0Z6J1K8G1007", recipient="b@x.nl")
            await house.event(RecipientExpired, queue_id="0Z6J1K8G2007", recipient="els@x.nl")  # a code, too late
            await reachable(site)
            held = await run(site, "queue", "list", "--state", "held")
            shown = await run(site, "queue", "show", "0Z6J1K8G0007")
            status = await run(site, "status")
            release = await run(site, "queue", "release", "0Z6J1K8G3007")
            await house.event(RecipientDelivered, queue_id="0Z6J1K8G3007", recipient="held@x.nl")
            damaged = await run(site, "queue", "list", "--state", "damaged")
            await house.event(RecipientDelivered, queue_id="0Z6J1K8G5007")  # from its file
            assert house.seen.all(EntrySetAside) == []
    assert found.entries == 6
    assert "0Z6J1K8G3007" in held.out
    assert (shown.code, shown.lines[0]) == (0, "0Z6J1K8G0007  delivered")
    assert (release.code, release.out) == (0, "0Z6J1K8G3007: released\n")
    assert status.code == 1
    assert "Messages in the queue that cannot be read any more: " in status.out
    assert [line.split()[0] for line in damaged.lines[1:]] == ["0Z6J1K8G4007"]  # as it was, and it blocks nobody
    delivered = [message.recipients for message in own.messages if message.reverse_path]
    assert sorted(delivered) == [("b@x.nl",), ("piet@example.com",)]
    assert b"Goedemiddag" in next(one.content for one in own.messages if one.recipients == ("piet@example.com",))


@pytest.mark.asyncio
async def test_a_queue_of_a_newer_relay_is_refused_with_a_sentence_and_left_as_it_is(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house():
            pass
        connection = sqlite3.connect(site.queue_path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        before = digest(site)
        serve = await run(site, "serve")
        listed = await run(site, "queue", "list")
        status = await run(site, "status")
    assert (serve.code, serve.out) == (1, "")
    (sentence,) = serve.err.splitlines()
    assert sentence.startswith(f"relay: {site.queue_path} was written by a newer relay (layout 99, this one knows ")
    assert (listed.code, listed.out, listed.err) == (1, "", serve.err)
    assert status.code == 3
    assert "was written by a newer relay" in status.out
    assert digest(site) == before


@pytest.mark.asyncio
async def test_a_command_on_an_old_queue_while_no_relay_runs_brings_it_to_todays_layout_first(site: Site) -> None:
    old_queue(site)
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        listed = await run(site, "queue", "list")
        assert listed.code == 0
        assert [line.split()[0] for line in listed.lines[1:]] == [f"0Z6J1K8G{n}007" for n in range(6)]
        cancelled = await run(site, "queue", "cancel", "0Z6J1K8G3")
        assert (cancelled.code, cancelled.out) == (0, "0Z6J1K8G3007: cancelled\n")
        async with site.house() as house:
            await house.event(RecipientDelivered, queue_id="0Z6J1K8G0007")
            assert balanced(house.ledger)
