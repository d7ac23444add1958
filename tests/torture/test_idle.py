"""Connections that do nothing: by the hundred they cost little, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from relay.ingress import replies
from tests.kit.house import Client, Site
from tests.kit.sink import Sink
from tests.torture.load import LONG_PATIENCE, MIB, MOST, Loaded, loaded, ordinary, to

Size = Callable[[Any, Any], Any]
Figures = Callable[[str], None]

GREETING = b"220 relay.example.nl ESMTP relay\r\n"
PER_CLIENT = 250  # half of what one address may have

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def idle(port: int, many: int) -> AsyncIterator[list[Connection]]:
    """So many connections that were greeted, from several addresses."""
    connections: list[Connection] = []
    try:
        for number in range(many):
            source = f"127.0.2.{1 + number // PER_CLIENT}"
            connections.append(await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0)))
        for reader, _ in connections:
            assert await reader.readline() == GREETING
        yield connections
    finally:
        for _, writer in connections:
            writer.transport.abort()


@pytest.mark.promise(
    "1 000 connections that do nothing keep no mail out and cost little memory; one beyond the limit hears 421"
)
@pytest.mark.asyncio
async def test_idle_connections_keep_no_mail_out_and_cost_little(site: Site, size: Size, figures: Figures) -> None:
    many, room, messages = size(100, 1_000), 10, 200
    listener = {"limits": {"sessions": many + room}}
    async with Sink() as sink, loaded(site, upstreams={"own": to(sink.port)}, listener=listener) as relay:
        sink.bodies.clear()
        before = relay.forget_peak()
        async with asyncio.timeout(LONG_PATIENCE), idle(relay.port, many):
            opened = relay.memory("VmRSS") - before
            await ordinary(relay.port, [f"Factuur {number}" for number in range(messages)])
            await sink.until(lambda: sink.bodies.total() == messages)
            await sessions_are(relay, many)
            async with idle(relay.port, room):
                reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
                assert (await reader.read()).startswith(b"421 ")
                writer.transport.abort()
        grown = relay.memory("VmHWM") - before
    assert grown < MOST
    figures(
        f"{many} idle connections: {opened / MIB:.1f} MiB ({opened / many / 1024:.1f} KiB each), {grown / MIB:.1f} MiB "
        f"at most while {messages} messages were accepted and delivered; the first beyond the limit heard 421"
    )


@pytest.mark.promise(
    "Connections that do nothing are told so and closed after limits.command, and leave nothing behind"
)
@pytest.mark.asyncio
async def test_idle_connections_go_after_their_time_and_leave_nothing_behind(
    site: Site, size: Size, figures: Figures
) -> None:
    many, rounds = size((100, 2), (1_000, 5))
    # Their time is long enough to be greeted on a busy machine.
    listener = {"limits": {"command": size("1s", "10s")}}
    own = {"max_connections": 1}
    async with Sink() as sink, loaded(site, upstreams={"own": to(sink.port, **own)}, listener=listener) as relay:
        descriptors = relay.descriptors()
        resident: list[int] = []
        async with asyncio.timeout(LONG_PATIENCE):
            for _ in range(rounds):
                async with idle(relay.port, many) as connections:
                    for reader, _ in connections:
                        assert await reader.read() == replies.TOO_SLOW
                    await sessions_are(relay, 0)
                resident.append(relay.memory("VmRSS"))
            async with Client.to(relay.port) as client:
                while relay.descriptors() > descriptors + 1:  # that of this client
                    await client.say("NOOP")
    grown = resident[-1] - resident[0]
    assert grown < 4 * MIB  # a leak of a KiB for each connection would be seen
    figures(
        f"{rounds} times {many} idle connections: each heard 421 and was closed; descriptors as before "
        f"({descriptors}), memory {grown / 1024:.0f} KiB more after the last than after the first time"
    )


async def sessions_are(relay: Loaded, many: int) -> None:
    """As soon as the relay has so many."""
    while await relay.metric('relay_smtpd_sessions{listener="legacy"}') != many:
        pass
