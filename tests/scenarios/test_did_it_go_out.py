"""Did invoice 123 go out? Found by its subject where the history keeps it, with the sender as which it left."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from relay.events import RecipientDelivered
from tests.kit.house import ACCOUNT, JAN, PIET, Site, mail
from tests.scenarios.desk import at_terminal, reachable, relay
from tests.scenarios.test_repair import RULE, own_only

CODE = "Uw inlogcode"


@pytest.mark.asyncio
async def test_an_invoice_is_found_by_its_number_and_left_as_the_account_that_repaired_it(site: Site) -> None:
    async with site.upstream(sender_allowed=own_only) as own:
        site.configure(
            upstreams={"own": site.way_to(own, preset="m365", auth="auto")},
            senders=[RULE],
            session_codes={"enabled": True, "via_own_smtp": True, "fallback": False},
        )
        site.configuration["queue"]["history"] = {"keep": "14d", "subject": True}
        site.write()
        async with site.house() as house:
            await reachable(site)
            ids = [await house.send(JAN, [PIET], mail(f"Factuur {number}")) for number in (122, 123)]
            code = await house.send(JAN, [PIET], mail(CODE))
            for queue_id in (*ids, code):
                await house.event(RecipientDelivered, queue_id=queue_id)
            found = await relay(site, "queue", "find", "--subject", "factuur 123")
            as_json = (await relay(site, "queue", "find", "--subject", "factuur 123", "--json")).document
            screen = await at_terminal(site, 80, "queue", "show", ids[1])
            nothing = await relay(site, "queue", "find", "--subject", "inlogcode")
        stopped = await relay(site, "queue", "find", "--subject", "FACTUUR 123", "--json")
        both = (await relay(site, "queue", "find", "--json")).document
    assert found.code == 0
    assert [line.split()[0] for line in found.lines] == ["ID", ids[1]]
    assert "Factuur\\x20123" in found.out
    (entry,) = as_json["entries"]
    assert (entry["queue_id"], entry["subject"]) == (ids[1], "Factuur 123")
    assert entry["left_as"] == {"author": ACCOUNT, "reverse_path": ACCOUNT, "result": "repaired"}
    (sent,) = [received for received in own.messages if b"Factuur 123" in received.content]
    assert entry["message_id"].encode() in sent.content
    assert "left as       relay@example.nl; repaired, since the provider refused the" in screen.plain
    assert "subject       Factuur 123" in screen.plain
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "nothing found\n")
    assert [one["queue_id"] for one in stopped.document["entries"]] == [ids[1]]
    subjects = {one["queue_id"]: one["subject"] for one in both["entries"]}
    assert subjects == {ids[0]: "Factuur 122", ids[1]: "Factuur 123", code: None}


@pytest.mark.asyncio
async def test_without_the_wish_no_subject_is_kept_and_who_asks_for_one_is_told_so(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            await reachable(site)
            queue_id = await house.send(JAN, [PIET], mail("Factuur 123"))
            await house.event(RecipientDelivered, queue_id=queue_id)
            found = await relay(site, "queue", "find", "--subject", "factuur 123")
            (entry,) = (await relay(site, "queue", "find", "--json")).document["entries"]
    assert (found.code, found.out) == (0, "")
    assert found.err == ("nothing found\nfinished mail is found by its subject only with queue.history.subject: true\n")
    assert (entry["subject"], entry["left_as"]["author"]) == (None, JAN)
    with contextlib.closing(sqlite3.connect(site.queue_path)) as queue:
        assert queue.execute("SELECT queue_id, subject FROM history").fetchall() == [(queue_id, None)]
