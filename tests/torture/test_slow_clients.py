"""Clients that write an octet at a time, or do not read what they are told: they are thrown out, and cost little."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from relay.events import ConnectionAccepted, RecipientDelivered, SessionEnded
from relay.ingress import limits, replies, secure
from tests.kit.certificates import Certificates
from tests.kit.house import PATIENCE, Site
from tests.kit.sink import Sink
from tests.torture.load import LONG_PATIENCE, MIB, MOST, loaded, ordinary, to

Size = Callable[[Any, Any], Any]
Figures = Callable[[str], None]

SHORTEST_ANSWER = 100  # octets, to EHLO
UNREAD = 512 * 1024  # octets of answers for one that reads none, in the kernel and in the relay
PAUSE = 0.02  # seconds between two octets of a slow writer
SECONDS = 1  # that a slow writer has, whatever it is slow in
ENVELOPE = b"EHLO pc\r\nMAIL FROM:<x@example.net>\r\nRCPT TO:<y@example.org>\r\n"
CLIENT_HELLO = bytes.fromhex("1603013ff801003ff40303") + bytes(1)
# By what it is slow in: the listener, what it says first, what trickles then.
WRITERS = {
    "command": ("plain", b"EHLO ", b"a"),
    "answer to AUTH": ("plain", b"EHLO pc\r\nAUTH LOGIN\r\n", b"a"),
    "DATA": ("plain", ENVELOPE + b"DATA\r\n", b"a"),
    "BDAT": ("plain", ENVELOPE + b"BDAT 1000000 LAST\r\n", b"a"),
    "handshake behind STARTTLS": ("starttls", b"EHLO pc\r\nSTARTTLS\r\n", CLIENT_HELLO),
    "handshake": ("implicit", b"", CLIENT_HELLO),
}


@pytest.mark.promise(
    "A client that writes an octet at a time, in whatever it says, is closed in time and holds up no mail"
)
def test_slow_writers_are_closed_in_whatever_they_are_slow(
    site: Site, certificates: Certificates, size: Size, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FREE_SECONDS", float(SECONDS))
    monkeypatch.setattr(secure, "HANDSHAKE", float(SECONDS))
    each = size(5, 80)
    pem = site.folder / "door.pem"
    pem.write_bytes(certificates.good.pem)
    terms = {"limits": {"command": f"{SECONDS}s", "data_rate": "1KiB"}}
    secured = {"certificate": str(pem), "key": str(pem)}
    site.configure(
        listeners=[
            {"name": "plain", "listen": "127.0.0.1:0", "auth": "any", **terms},
            {"name": "starttls", "listen": "127.0.0.1:0", "tls": "starttls", **secured, **terms},
            {"name": "implicit", "listen": "127.0.0.1:0", "tls": "implicit", **secured, **terms},
        ],
        upstreams={"files": {"type": "capture", "directory": str(site.folder)}},
    )
    site.folder.chmod(0o700)
    subjects = [f"Factuur {number}" for number in range(50)]

    async def scene() -> dict[str, int]:
        async with site.house() as house:
            writing = {
                what: [asyncio.create_task(trickle(house.port(door), first, then)) for _ in range(each)]
                for what, (door, first, then) in WRITERS.items()
            }
            await ordinary(house.port("plain"), subjects)
            await house.event(RecipientDelivered, number=len(subjects))
            for tasks in writing.values():
                await asyncio.gather(*tasks)
            seen = house.seen
            await seen.until(lambda: len(seen.all(SessionEnded)) == len(seen.all(ConnectionAccepted)))
            return {what: sum(task.result() for task in tasks) for what, tasks in writing.items()}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(scene())
    figures(
        f"{each} each slow in {', '.join(WRITERS)}: all closed once their time was over ({sum(told.values())} of "
        f"{each * len(WRITERS)} could be told 421), {len(subjects)} ordinary messages passed meanwhile"
    )


async def trickle(port: int, first: bytes, then: bytes) -> bool:
    """Until the relay has closed the connection. True when it said 421."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.3.1", 0))
        hearing = asyncio.create_task(hear(reader))
        try:
            writer.write(first)
            while not hearing.done():
                octet, then = then[:1], then[1:] or then
                if not writer.transport.is_closing():
                    writer.write(octet)
                await asyncio.wait((hearing,), timeout=PAUSE)
            return replies.TOO_SLOW in await hearing
        finally:
            writer.transport.abort()


async def hear(reader: asyncio.StreamReader) -> bytes:
    """All that was said until the end of the connection."""
    said = b""
    try:
        while piece := await reader.read(2**16):
            said += piece
    except ConnectionError:
        pass
    return said


@pytest.mark.promise("A client with 500 sessions that reads no reply costs the relay at most 64 MiB, and is thrown out")
@pytest.mark.asyncio
async def test_clients_that_read_no_reply_cost_bounded_memory_and_are_thrown_out(
    site: Site, size: Size, figures: Figures
) -> None:
    many = size(50, 500)
    listener = {"limits": {"command": size("2s", "10s")}}
    async with Sink() as sink, loaded(site, upstreams={"own": to(sink.port)}, listener=listener) as relay:
        sink.bodies.clear()
        before = relay.forget_peak()
        async with asyncio.timeout(LONG_PATIENCE), asyncio.TaskGroup() as group:
            for _ in range(many):
                group.create_task(flood(relay.port))
            await ordinary(relay.port, [f"Factuur {number}" for number in range(100)])
            await sink.until(lambda: sink.bodies.total() == 100)
        grown = relay.memory("VmHWM") - before
        answers = await relay.metric('relay_smtpd_replies_total{code_class="2",verb="EHLO"}')
    unread = answers * SHORTEST_ANSWER / many
    assert grown < MOST
    assert unread < UNREAD
    figures(
        f"{many} sessions of one client that ask without end and read nothing: {grown / MIB:.1f} MiB over idle and "
        f"{unread / 1024:.0f} KiB of answers for each, all thrown out; 100 other messages passed meanwhile"
    )


async def flood(port: int) -> None:
    """Ask for what has a long answer, as fast as it is taken, until thrown out."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.setblocking(False)
    sock.bind(("127.0.4.1", 0))
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(sock, ("127.0.0.1", port))
        while True:
            await loop.sock_sendall(sock, b"EHLO pc\r\n" * 10_000)
    except ConnectionError:
        pass
    finally:
        sock.close()
