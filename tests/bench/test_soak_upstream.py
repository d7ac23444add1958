"""The upstream of the soak: it knows each message that comes whole, by DATA or by BDAT, and only those."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from bench.soak.ledger import Ledger
from bench.soak.mail import last_line
from bench.soak.upstream import Upstream

HEAD = b"Subject: Factuur\r\n\r\n" + b"regel\r\n" * 40


def envelope(number: int) -> bytes:
    return b"MAIL FROM:<jan@example.nl>\r\nRCPT TO:<n%d@example.org>\r\n" % number


def chunk(content: bytes) -> bytes:
    return b"BDAT %d LAST\r\n%b" % (len(content), content)


@pytest.mark.asyncio
@pytest.mark.parametrize("at_a_time", [1, 70, 100_000])
async def test_what_comes_by_data_and_by_bdat_is_counted_when_it_is_whole(tmp_path: Path, at_a_time: int) -> None:
    ledger = Ledger(tmp_path / "arrived", 4)
    upstream = Upstream(ledger, random.Random(1))
    await upstream.listen()
    said = b"EHLO relay\r\n"
    said += envelope(0) + chunk(HEAD + last_line(0) + b"\r\n")
    said += envelope(1) + chunk(HEAD)  # its end is missing
    said += envelope(2) + b"DATA\r\n" + HEAD + last_line(2) + b"\r\n.\r\n"
    said += envelope(3) + chunk(HEAD + b"\r\n.\r\n" + last_line(3) + b"\r\n") + b"QUIT\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    for start in range(0, len(said), at_a_time):
        writer.write(said[start : start + at_a_time])
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        heard = await reader.readuntil(b"221 2.0.0 bye\r\n")
    writer.transport.abort()
    upstream._stop()
    assert b"250-CHUNKING\r\n" in heard
    assert heard.count(b"250 2.0.0 taken\r\n") == 4
    assert ledger.snapshot() == bytes([1, 0, 1, 1])
    assert (upstream.seen["by BDAT"], upstream.seen["broken messages"]) == (3, 1)
