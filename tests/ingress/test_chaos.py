"""Sessions without sense: whatever comes, in whatever order, is answered in SMTP, and nothing is left behind."""

from __future__ import annotations

import random
import re

import pytest

from relay.events import ExceptionCaught, MessageQueued
from relay.queue.content import FileContent
from tests.ingress.house import MESSAGE, HouseOf, on_both_loops
from tests.kit import configured

PARTS = [
    *[b"EHLO pc\r\n", b"HELO pc\r\n", b"RSET\r\n", b"NOOP\r\n", b"\r\n", b"QUIT\r\n", b"VRFY jan\r\n", b"HELP\n"],
    *[b"MAIL FROM:<jan@example.nl>\r\n"] * 6,
    *[b"RCPT TO:<piet@example.com>\r\n"] * 6,
    *[b"MAIL FROM:<jan>\r\nRCPT TO:piet\r\n"] * 6,
    *[b"DATA\r\n" + MESSAGE + b".\r\n", b"DATA\r\n", b".\r\n", MESSAGE, b"\r\n.\r\n", b"\n.\n", b"x" * 70_000],
    *[b"BDAT 0\r\n", b"BDAT 0 LAST\r\n", b"BDAT 5\r\nHallo", b"BDAT 5 LAST\r\nHallo", b"BDAT 9000\r\n", b"BDAT x\r\n"],
    *[b"BDAT 300000\r\n" + b"y" * 300_000, b"BDAT 99999999 LAST\r\n", b"AUTH LOGIN\r\n", b"AUTH PLAIN AGEAYg==\r\n"],
    *[
        b"STARTTLS\r\n",
        b"MAIL FROM:<\xff>\r\n",
        b"RCPT TO:<@@>\r\n",
        b"\0\r\n",
        b"\x16\x03\x01",
        b"z" * 5_000 + b"\r\n",
    ],
]
REPLIES = re.compile(rb"(?:[2345][0-9][0-9][ -][ -~]*\r\n)*")


@pytest.mark.parametrize("bare_newline", ["normalize", "reject", "accept-lf-dot"])
@on_both_loops
async def test_sessions_without_sense_are_answered_and_leave_nothing_behind(
    house_of: HouseOf, bare_newline: str
) -> None:
    chance = random.Random(5)
    async with house_of(
        bare_newline=bare_newline,
        limits=configured.limits(errors=30, header_size=100_000),
        max_message_size=400_000,
        auth="any",
        complete_addresses=True,
    ) as house:
        for _ in range(200):
            wire = b"".join(chance.choices(PARTS, k=chance.randint(1, 30)))
            client = await house.connect()
            for begin in range(0, len(wire), step := chance.choice([50, 5_000, 10**6])):
                client.send(wire[begin : begin + step])
            if chance.random() < 0.9:
                client.writer.write_eof()
                answer = await client.end()
                assert REPLIES.fullmatch(answer), answer
            else:
                client.writer.transport.abort()
        await house.nobody_is_left()
        assert not house.observed.of(ExceptionCaught)
        taken = house.observed.of(MessageQueued)
        assert len(taken) > 20
        entries = await house.entries()
        assert {entry.queue_id for entry in entries} == {event.queue_id for event in taken}
        spooled = {one.content.name for one in entries if isinstance(one.content, FileContent)}
        assert house.door.spool.names() == spooled
        for content in await house.contents():
            assert b"\n" not in content.replace(b"\r\n", b"")
            assert b"\r" not in content.replace(b"\r\n", b"")
            assert content == b"" or content.endswith(b"\r\n")
