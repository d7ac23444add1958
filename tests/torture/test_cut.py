"""An upstream that offers CHUNKING behind a line that is cut anywhere, in either direction, again and again.

Messages leave in one write with their envelope there, so that a cut tells less about how far they came.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from relay.events import RecipientDeferred
from tests.kit.house import JAN, PIET, Site, mail
from tests.kit.upstream import KEYWORDS, ScriptedUpstream
from tests.scenarios.conftest import certificates, site

__all__ = ["certificates", "site"]
_RESET = struct.pack("ii", 1, 0)


class Shears:
    """A line to `upstream`: while `sharp`, each connection is reset after some octets one way or the other."""

    def __init__(self, upstream: ScriptedUpstream, chance: random.Random) -> None:
        self.sharp = True
        self.cuts = 0
        self._upstream = upstream
        self._chance = chance
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Shears:
        self._server = await asyncio.start_server(self._joined, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        beyond_reader, beyond = await asyncio.open_connection(self._upstream.host, self._upstream.port)
        # The greeting is some 250 octets one way and 30 the other; a message some 500 and 100.
        there, back = self._chance.randrange(30, 2_000), self._chance.randrange(250, 800)
        try:
            await asyncio.wait(
                [
                    asyncio.create_task(self._carry(reader, beyond, there)),
                    asyncio.create_task(self._carry(beyond_reader, writer, back)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self._tasks.discard(task)
            for end in (writer, beyond):
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int) -> None:
        """Until `most` octets went over, or either end has gone."""
        try:
            while data := await reader.read(2**16):
                if self.sharp and len(data) >= most:
                    writer.write(data[:most])
                    await asyncio.sleep(0)  # they leave before the reset
                    self.cuts += 1
                    return
                most -= len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass


@pytest.mark.asyncio
@pytest.mark.promise("A line that is cut in the middle of a message loses none, and what may arrive twice was in doubt")
async def test_a_line_cut_anywhere_loses_nothing(
    site: Site, size: Callable[..., Any], figures: Callable[[str], None]
) -> None:
    messages, cuts = size((60, 40), (2_000, 2_000))
    chance = random.Random(8)  # the same places each time
    upstream = site.upstream(tls="none", users=None, keywords=(*KEYWORDS, "CHUNKING"))
    async with upstream, Shears(upstream, chance) as shears:
        way = site.way_to(upstream, max_connections=2) | {"port": shears.port}
        site.configure(upstreams={"own": way}, routes={"default": {"retry": "1d"}})
        async with site.house(patience=3_000) as house:
            sent = {await house.send(JAN, [PIET], mail(f"nummer {number}")) for number in range(messages)}
            while house.ledger.delivered < messages:
                shears.sharp = shears.cuts < cuts
                before = len(house.seen.events)
                await house.relay.reload()  # whatever waits is tried at once
                await house.seen.until(lambda before=before: _came_to_rest(house, before))  # type: ignore[misc]
            doubted = {event.queue_id for event in house.seen.all(RecipientDeferred, in_doubt=True)}
    arrived = Counter(_queue_id(one.content) for one in upstream.messages)
    twice = {queue_id for queue_id, times in arrived.items() if times > 1}
    assert set(arrived) == sent
    assert twice <= doubted
    assert upstream.chunks > 0
    assert shears.cuts > cuts / 4
    figures(
        f"{messages} messages, {upstream.chunks} in one write, {shears.cuts} cuts: none lost, {len(doubted)} in doubt "
        f"at some time, {len(twice)} of them arrived more than once, nothing else did"
    )


def _came_to_rest(house: Any, before: int) -> bool:
    """Everything that waited was tried since, or the upstream is left alone."""
    return (
        len(house.seen.events) > before and not house.ledger.active and not house.relay.upstreams["own"].connections[1]
    )


def _queue_id(content: bytes) -> str:
    found = re.search(rb"(?i)with e?smtps?a? id ([0-9A-Z]+)", content)
    assert found is not None, content
    return found[1].decode()
