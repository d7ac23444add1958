"""Clients that mean harm: what they cost the relay is bounded, and ordinary ones do not notice."""

from __future__ import annotations

import asyncio
import errno
import re
import select
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from tests.kit.certificates import Certificates
from tests.kit.hostile import besieged
from tests.kit.house import JAN, PATIENCE, PIET, Client, Site, free_port, mail, send
from tests.kit.process import Process
from tests.kit.upstream import KEYWORDS, ScriptedUpstream

MOST = 64 * 2**10  # KiB that clients may cost the relay over idle, all together (contract: Meaning, listeners)
EACH, MESSAGES, SESSIONS = 20, 100, 5


@dataclass(frozen=True)
class Relay:
    process: Process
    port: int

    def memory(self, kind: str) -> int:
        """VmRSS (now) or VmHWM (the most since the start), in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{kind}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1])


@asynccontextmanager
async def relay(site: Site, own: ScriptedUpstream, **parts: Any) -> AsyncIterator[Relay]:
    """A relay in a process of its own, which has delivered a message already."""
    port = free_port()
    settings = {"name": "legacy", "listen": f"127.0.0.1:{port}", **parts.pop("listener", {})}
    site.configure(
        upstreams={"own": site.way_to(own, max_connections=5)}, listeners=[settings], log={"format": "json"}, **parts
    )
    async with Process.serving(site) as process:
        await send(port, JAN, [PIET], mail("warm"))
        await own.message(1)
        yield Relay(process, port)
        assert [line for line in process.lines if not line.startswith("{")] == []  # no traceback
        assert process.all("exception_caught") == []


@pytest.mark.asyncio
async def test_all_ordinary_mail_passes_while_hostile_clients_of_every_kind_are_at_work(
    site: Site, certificates: Certificates
) -> None:
    pem = site.folder / "door.pem"
    pem.write_bytes(certificates.good.pem)
    door = {"tls": "starttls", "certificate": str(pem), "key": str(pem), "max_message_size": "1MiB"}
    subjects = [f"Factuur {number}" for number in range(MESSAGES)]
    async with site.upstream() as own, relay(site, own, listener=door) as running:
        before = running.memory("VmRSS")
        async with besieged(running.port, each=EACH) as siege:
            await asyncio.gather(*(_send_all(running.port, subjects[n::SESSIONS]) for n in range(SESSIONS)))
            await own.message(1 + MESSAGES)
            for patient in ("idle", "slow_command", "slow_data"):
                assert siege.now[patient] == EACH
        grown = running.memory("VmHWM") - before
    arrived = [re.findall(rb"^Subject: (.*)\r$", one.content, re.MULTILINE) for one in own.messages[1:]]
    assert sorted(arrived) == sorted([subject.encode()] for subject in subjects)
    assert grown < MOST


async def _send_all(port: int, subjects: list[str]) -> None:
    """Each in a session of its own, as most applications do."""
    for subject in subjects:
        async with Client.to(port) as client:
            await client.send(JAN, [PIET], mail(subject))


BEGIN = b"EHLO werkplek-7\r\nMAIL FROM:<jan@example.nl>\r\nRCPT TO:<piet@example.org>\r\nDATA\r\n"
MEGABYTE = b"a" * 2**20
NESTED = b"".join(
    b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (depth, depth) for depth in range(500)
)
COSTLY: dict[str, tuple[bytes, Iterable[bytes], bytes, bytes]] = {
    # what it says until it is believed; what follows; how that ends; the reply
    "200 MB without a line end": (BEGIN, repeat(MEGABYTE, 200), b"\r\n.\r\n", b"552 5.3.4 "),
    "a header of 100 000 fields": (BEGIN, repeat(b"X-Field: value\r\n" * 1_000, 100), b"\r\nx\r\n.\r\n", b"552 5.3.4 "),
    "a header of 200 MB in one field": (
        *(BEGIN + b"Subject: x\r\n", repeat(b" " + MEGABYTE + b"\r\n", 200)),
        *(b"\r\n.\r\n", b"552 5.3.4 "),
    ),
    "8 000 addresses in From": (
        *(BEGIN, [b"From: " + b",\r\n ".join(b"a%d@example.nl" % n for n in range(8_000)) + b"\r\n\r\nx\r\n"]),
        *(b".\r\n", b"250 2.0.0 "),
    ),
    "500 nested parts": (
        BEGIN,
        [b"From: jan@example.nl\r\n", NESTED, b"\r\n\r\n\xe9\xe9n\r\n"],
        b".\r\n",
        b"250 2.0.0 ",
    ),
    "a command of 10 MB": (b"", repeat(MEGABYTE, 10), b"\r\n", b"500 5.5.6 "),
    "an argument of 10 MB": (b"EHLO werkplek-7\r\nMAIL FROM:<", repeat(MEGABYTE, 10), b">\r\n", b"500 5.5.6 "),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("what", COSTLY)
async def test_what_would_cost_much_ends_in_a_clean_reply_within_bounded_memory(what: str, site: Site) -> None:
    begin, pieces, end, expected = COSTLY[what]
    keywords = [word for word in KEYWORDS if word != "8BITMIME"]  # what has 8-bit octets has to be re-encoded
    senders = [{"name": "all", "address": "administratie@example.nl"}]
    async with site.upstream(keywords=keywords) as own, relay(site, own, senders=senders) as running:
        before = running.memory("VmRSS")
        async with Client.to(running.port) as other:
            said = await _say(running.port, begin, pieces, end, then=expected)
            await other.send(JAN, [PIET], mail("ander"))
            delivered = 2 + expected.startswith(b"250")
            await own.message(delivered)
        grown = running.memory("VmHWM") - before
    assert said.splitlines()[-1].startswith(expected), said
    assert len(own.messages) == delivered
    assert grown < MOST


async def _say(port: int, begin: bytes, pieces: Iterable[bytes], end: bytes, *, then: bytes) -> bytes:
    """All that is said, up to a line that begins with `then`; when `begin` holds a DATA, its 354 is waited for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        said = bytearray(await reader.readline())
        writer.write(begin)
        if begin.startswith(BEGIN):
            said += await reader.readuntil(b"354 ") + await reader.readline()
        listening = asyncio.create_task(_listen(reader, said, then=then))
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            writer.write(end)
            await writer.drain()
        except OSError:
            pass  # thrown out before the end
        async with asyncio.timeout(PATIENCE):
            await listening
    finally:
        writer.transport.abort()
    return bytes(said)


async def _listen(reader: asyncio.StreamReader, said: bytearray, *, then: bytes) -> None:
    """Until a line begins with `then`, or the connection ends."""
    try:
        while line := await reader.readline():
            said += line
            if line.startswith(then):
                return
    except ConnectionError:
        pass


@pytest.mark.asyncio
async def test_hundreds_that_arrive_at_once_are_all_connected_at_once(site: Site) -> None:
    """Where the queue before `accept` is full, a client hears nothing for a second, then for three, then for seven."""
    path = site.folder / "door"
    site.configure(
        upstreams={"own": {"type": "capture", "directory": str(site.folder)}},
        listeners=[{"name": "legacy", "listen": ["127.0.0.1:0", f"unix:{path}"]}],
    )
    async with site.house() as house:
        with ExitStack() as clients:
            waiting: list[socket.socket] = []
            for family, where in ((socket.AF_INET, ("127.0.0.1", house.port())), (socket.AF_UNIX, str(path))):
                for _ in range(300):
                    client = clients.enter_context(socket.socket(family, socket.SOCK_STREAM))
                    client.setblocking(False)
                    assert client.connect_ex(where) in (0, errno.EINPROGRESS)
                    waiting.append(client)
            # The relay, on this loop, has not accepted one of them yet.
            _, connected, _ = select.select([], waiting, [], 0)
            assert len(connected) == len(waiting)
