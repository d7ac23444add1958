"""Time: a client has to make progress, and our own time is not its."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from relay.events import MessageRefused, SessionEnded
from relay.ingress import limits, replies
from tests.ingress.house import MESSAGE, PATIENCE, SOON, Client, HouseOf, on_both_loops
from tests.kit import configured

ENVELOPE = [b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<piet@example.com>"]
BANNER = b"220 relay.example.nl ESMTP relay\r\n"


async def trickle(client: Client, octets: bytes) -> None:
    """Send `octets` for as long as anybody takes them."""

    async def send() -> None:
        while not client.writer.transport.is_closing():
            client.send(octets)
            await client.writer.drain()
            await asyncio.sleep(SOON / 100)

    with suppress(ConnectionError):
        await asyncio.wait_for(send(), PATIENCE)


@pytest.mark.parametrize("octets", [b"x", b"\xff"])
@on_both_loops
async def test_octets_that_trickle_in_give_a_command_no_more_time(house_of: HouseOf, octets: bytes) -> None:
    async with house_of(limits=configured.limits(command=SOON)) as house:
        client = await house.connect()
        task = asyncio.create_task(trickle(client, octets))
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["timeout"]
        await task


@on_both_loops
async def test_an_answer_to_auth_that_trickles_is_not_waited_for(house_of: HouseOf) -> None:
    async with house_of(limits=configured.limits(command=SOON), auth="any") as house:
        client = await house.connect()
        client.send(b"EHLO pc\r\nAUTH LOGIN\r\n")
        task = asyncio.create_task(trickle(client, b"x"))
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["timeout"]
        await task


@on_both_loops
async def test_only_a_complete_command_moves_the_deadline(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        (session,) = house.door.live
        before = session._deadline
        client.send(b"NO")
        async with asyncio.timeout(PATIENCE):
            while not session._buffer:
                await asyncio.sleep(0)
        assert session._deadline == before
        session._deadline -= 100
        client.send(b"OP\r\n")
        assert await client.reply() == replies.OK
        assert session._deadline >= before


@on_both_loops
async def test_time_in_which_nothing_is_read_does_not_count(house_of: HouseOf) -> None:
    async with house_of() as house:
        await house.client()
        (session,) = house.door.live
        session._pause()
        session._paused_at -= 100
        deadline, since = session._deadline, session._since
        session._resume()
        assert session._deadline >= deadline + 100
        assert session._since >= since + 100


@pytest.mark.parametrize("how", ["data", "bdat"])
@on_both_loops
async def test_content_that_comes_too_slowly_is_given_up(
    house_of: HouseOf, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(limits, "FREE_SECONDS", 0.0)
    async with house_of(limits=configured.limits(command=SOON, data=PATIENCE, data_rate=10**9)) as house:
        client = await house.client()
        for command in ENVELOPE:
            await client.say(command)
        client.send(b"DATA\r\n" if how == "data" else b"BDAT 10000000 LAST\r\n")
        task = asyncio.create_task(trickle(client, b"x\r\n"))
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["timeout"]
        assert [event.result for event in house.observed.of(MessageRefused)] == ["aborted"]
        await task


@on_both_loops
async def test_slow_content_is_told_so(house_of: HouseOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE_SECONDS", 0.0)
    async with house_of(limits=configured.limits(command=SOON, data=PATIENCE, data_rate=10**9)) as house:
        client = await house.client()
        for command in (*ENVELOPE, b"DATA"):
            await client.say(command)
        client.send(MESSAGE)
        assert await client.end() == replies.TOO_SLOW


def test_500_octets_a_second_pass_and_one_does_not() -> None:
    for seconds in range(1, 10_000, 7):
        assert not limits.too_slow(500 * seconds, seconds, rate=100)
        assert limits.too_slow(seconds, seconds, rate=100) == (seconds > 60.6)
    assert not limits.too_slow(0, 60.0, rate=100)
    assert not limits.too_slow(0, 10**6, rate=0)


@on_both_loops
async def test_the_time_of_a_commit_is_not_the_clients(house_of: HouseOf) -> None:
    async with house_of(limits=configured.limits(command=SOON, data=SOON)) as house:
        house.store.gate.clear()
        client = await house.connect()
        client.send(b"EHLO pc\r\n" + b"\r\n".join(ENVELOPE) + b"\r\nDATA\r\n" + MESSAGE + b".\r\nQUIT\r\n")
        async with asyncio.timeout(PATIENCE):
            await house.store.arrived.wait()
            (session,) = house.door.live
            looks = [session._timer]
            while len(looks) < 4:  # the clock was looked at, and found nothing
                await asyncio.sleep(SOON / 10)
                if session._timer is not looks[-1]:
                    looks.append(session._timer)
        house.store.gate.set()
        answer = await client.end()
        assert replies.TOO_SLOW not in answer
        assert answer.endswith(replies.BYE)
        assert b"250 2.0.0 OK: queued as" in answer


@on_both_loops
async def test_a_spool_file_that_is_slow_does_not_cost_the_client_its_time(
    house_of: HouseOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = MESSAGE + (b"x" * 98 + b"\r\n") * 50_000
    gate = asyncio.Event()
    async with house_of(limits=configured.limits(command=SOON, data=SOON)) as house:
        client = await house.connect()
        client.send(b"EHLO pc\r\n" + b"\r\n".join(ENVELOPE) + b"\r\n")
        begin = house.door.spool.begin

        def slow() -> Any:
            writer = begin()
            write = writer.write

            async def after_the_gate(data: bytes) -> None:
                await gate.wait()
                await write(data)

            monkeypatch.setattr(writer, "write", after_the_gate)
            return writer

        monkeypatch.setattr(house.door.spool, "begin", slow)
        client.send(b"DATA\r\n" + content + b".\r\nQUIT\r\n")
        async with asyncio.timeout(PATIENCE):
            while not (house.door.live and not next(iter(house.door.live))._reading):
                await asyncio.sleep(0)
            (session,) = house.door.live
            looks = [session._timer]
            while len(looks) < 4:
                await asyncio.sleep(SOON / 10)
                if session._timer is not looks[-1]:
                    looks.append(session._timer)
        gate.set()
        answer = await client.end()
        assert answer.endswith(replies.BYE)
        assert await house.contents() == [content]
