"""The door's side of `reply: direct`: what the client hears, and when."""

from __future__ import annotations

import asyncio

from relay.errors import StoreUnavailable
from relay.events import EntryHeld, MessageQueued, MessageRefused, SessionEnded
from relay.mail.reply import Reply
from relay.policy.match import Match
from tests.ingress.house import MESSAGE, PATIENCE, House, HouseOf, hard_reset, on_both_loops
from tests.kit import configured

TAKEN = Reply(250, "2.6.0", "taken: relayed as 7QK3")
REFUSED = Reply(550, "5.7.60", "SendAsDenied")


def large() -> bytes:
    return MESSAGE + (b"x" * 98 + b"\r\n") * 6000


async def spool_is_empty(house: House) -> None:
    spool = house.door.spool
    async with asyncio.timeout(PATIENCE):
        while spool.names():
            await spool.on_thread(lambda: None)


@on_both_loops
async def test_the_client_hears_what_the_upstream_said_and_nothing_is_put(house_of: HouseOf) -> None:
    async with house_of(patience=7.0) as house:
        client = await house.client()
        house.verdicts.put_nowait(TAKEN)
        assert await client.mail() == b"250 2.6.0 taken: relayed as 7QK3\r\n"
        house.verdicts.put_nowait(REFUSED)
        assert await client.mail() == b"550 5.7.60 SendAsDenied\r\n"
        assert [patience for patience, _ in house.waiting] == [7.0, 7.0]
        assert await house.entries() == []
        (queued,) = house.observed.of(MessageQueued)
        assert queued.size == len(MESSAGE)
        (refused,) = house.observed.of(MessageRefused)
        assert (refused.result, refused.code, refused.status) == ("rejected_policy", 550, "5.7.60")
        await client.say(b"QUIT")
        await house.nobody_is_left()
        (ended,) = house.observed.of(SessionEnded)
        assert (ended.why, ended.messages) == ("quit", 1)


@on_both_loops
async def test_without_a_verdict_it_is_kept_as_anywhere_and_a_failing_store_says_so(house_of: HouseOf) -> None:
    async with house_of(patience=7.0) as house:
        client = await house.client()
        house.verdicts.put_nowait(None)
        assert (await client.mail()).startswith(b"250 2.0.0 OK: queued as ")
        assert len(await house.entries()) == 1
        for reason, reply in (("full", b"452 4.3.1 "), ("io", b"451 4.3.0 ")):
            house.verdicts.put_nowait(StoreUnavailable(reason, "the disk"))
            assert (await client.mail()).startswith(reply)
        assert [event.result for event in house.observed.of(MessageRefused)] == ["store_failed"] * 2


@on_both_loops
async def test_no_other_listener_waits_for_an_upstream(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        assert (await client.mail()).startswith(b"250 2.0.0 OK: queued as ")
        assert house.waiting == []


@on_both_loops
async def test_what_a_rule_holds_is_not_tried_while_the_client_waits(house_of: HouseOf) -> None:
    async with house_of(patience=7.0) as house:
        rule = configured.rule("check", Match(), None, hold=True)
        house.senders = (rule,)
        client = await house.client()
        assert (await client.mail()).startswith(b"250 2.0.0 OK: queued as ")
        assert house.waiting == []
        assert len(house.observed.of(EntryHeld)) == 1


@on_both_loops
async def test_what_an_upstream_refuses_is_no_error_of_the_client(house_of: HouseOf) -> None:
    async with house_of(patience=7.0, limits=configured.limits(errors=2)) as house:
        client = await house.client()
        for _ in range(5):
            house.verdicts.put_nowait(REFUSED)
            assert (await client.mail())[:3] == b"550"
        assert (await client.say(b"NONSENSE"))[:3] == b"500"
        house.verdicts.put_nowait(REFUSED)
        assert (await client.mail())[:3] == b"550"
        client.send(b"NONSENSE\r\n")
        assert (await client.end()).startswith(b"500 5.5.2 Command not recognized\r\n421 4.7.0 Too many errors")
        assert house.door.replies["DATA", 5] == 6


@on_both_loops
async def test_large_content_that_was_refused_leaves_no_file(house_of: HouseOf) -> None:
    async with house_of(patience=7.0) as house:
        client = await house.client()
        house.verdicts.put_nowait(REFUSED)
        assert (await client.mail(large()))[:3] == b"550"
        await spool_is_empty(house)


@on_both_loops
async def test_with_bdat_it_is_the_last_chunk_that_waits(house_of: HouseOf) -> None:
    async with house_of(patience=7.0) as house:
        client = await house.client()
        await client.say(b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<piet@example.com>")
        client.send(b"BDAT 10\r\n" + MESSAGE[:10])
        assert (await client.reply())[:3] == b"250"
        house.verdicts.put_nowait(REFUSED)
        client.send(b"BDAT %d LAST\r\n" % (len(MESSAGE) - 10) + MESSAGE[10:])
        assert await client.reply() == b"550 5.7.60 SendAsDenied\r\n"
        assert len(house.waiting) == 1


@on_both_loops
async def test_a_client_that_only_stops_sending_still_waits_one_that_resets_does_not(house_of: HouseOf) -> None:
    async with house_of(patience=7.0) as house:
        client = await house.client()
        await client.say(b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<piet@example.com>", b"DATA")
        client.send(MESSAGE + b".\r\n")
        client.writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            await house.store.arrived.wait()
        (_, waits) = house.waiting[0]
        assert waits()
        house.verdicts.put_nowait(TAKEN)
        assert await client.end() == TAKEN.to_bytes()

        house.store.arrived.clear()
        client = await house.client()
        await client.say(b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<piet@example.com>", b"DATA")
        client.send(MESSAGE + b".\r\n")
        async with asyncio.timeout(PATIENCE):
            await house.store.arrived.wait()
        (_, waits) = house.waiting[1]
        hard_reset(client)
        async with asyncio.timeout(PATIENCE):
            while waits():
                await asyncio.sleep(0)
        house.verdicts.put_nowait(TAKEN)
        await house.nobody_is_left()
