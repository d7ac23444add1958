"""A large message costs the relay disk, not memory, and arrives as it was."""

from __future__ import annotations

import hashlib
import random
import signal

import pytest

from tests.kit.house import JAN, PIET, Client, Site, free_port
from tests.kit.process import Process

MIB = 1024 * 1024


@pytest.mark.asyncio
async def test_thirty_megabytes_arrive_byte_for_byte_with_less_than_100_mb_of_memory(site: Site) -> None:
    port = free_port()
    head = b"From: Jan <jan@example.nl>\r\nSubject: scan\r\n\r\n"
    # Lines of any octets but CR and LF, some of which begin with a dot.
    chance = random.Random(30)
    line = bytes(octet for octet in range(256) if octet not in b"\r\n")
    lines = [b"." * chance.randint(0, 2) + line[chance.randint(0, 200) :] for _ in range(1000)]
    body = b"\r\n".join(lines * (30 * MIB // sum(len(one) + 2 for one in lines) + 1)) + b"\r\n"
    assert len(body) > 30 * MIB
    async with site.upstream() as own:
        site.configure(
            upstreams={"own": site.way_to(own)},
            listeners=[{"name": "legacy", "listen": f"127.0.0.1:{port}"}],
            log={"format": "json"},
        )
        async with Process.serving(site) as relay:
            async with Client.to(port) as client:
                await client.begin(JAN, [PIET])
                client.write((head + body).replace(b"\r\n.", b"\r\n..") + b".\r\n")
                reply = await client.reply()
                assert reply.startswith("250 "), reply
            received = await own.message()
            await relay.line("delivered")
            assert relay.peak_memory < 100_000_000
            relay.signal(signal.SIGTERM)
            assert await relay.ended() == 0
    arrived = received.content.partition(b"\r\n\r\n")[2]
    assert len(arrived) == len(body)
    assert hashlib.sha256(arrived).digest() == hashlib.sha256(body).digest()
    assert [path for path in (site.folder / "queue.db.spool").rglob("*") if path.is_file()] == []
