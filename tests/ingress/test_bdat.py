"""BDAT: content in chunks, over real sockets (RFC 3030)."""

from __future__ import annotations

import asyncio

import pytest

from relay.events import CommandRefused, ExceptionCaught, MessageQueued, MessageRefused, SessionEnded
from relay.ingress import replies, session
from relay.ingress.chunks import ChunkReader
from relay.ingress.data import ContentReader
from relay.ingress.session import Session
from relay.queue.content import FileContent
from tests.ingress.house import MESSAGE, PATIENCE, SOON, HouseOf, codes, hard_reset, on_both_loops
from tests.kit import configured

KIB = 1024
ENVELOPE = b"MAIL FROM:<jan@example.nl>\r\nRCPT TO:<piet@example.com>\r\n"
EVIL = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\n"


def chunk(octets: bytes, *, last: bool = False) -> bytes:
    return b"BDAT %d%b\r\n" % (len(octets), b" LAST" if last else b"") + octets


@on_both_loops
async def test_chunking_is_offered_and_binarymime_is_not(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        lines = (await client.say(b"EHLO pc")).split(b"\r\n")
        assert b"250-CHUNKING" in lines
        assert not [line for line in lines if b"BINARYMIME" in line]


@on_both_loops
async def test_a_message_comes_in_one_chunk(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        await client.say(*ENVELOPE.splitlines())
        client.send(chunk(MESSAGE, last=True))
        reply = await client.reply()
        (entry,) = await house.entries()
        assert reply == b"250 2.0.0 OK: queued as %b\r\n" % entry.queue_id.encode()
        assert entry.submission.head == MESSAGE[:-7]
        assert await house.contents() == [MESSAGE]
        assert len(house.observed.of(MessageQueued)) == 1


@pytest.mark.parametrize("cut", [1, 9, 10**6])
@on_both_loops
async def test_pipelined_chunks_are_one_message_and_what_follows_is_a_command(house_of: HouseOf, cut: int) -> None:
    async with house_of() as house:
        client = await house.client()
        chunks = chunk(MESSAGE) + chunk(b".\r\n\r\n.\r\n") + chunk(EVIL) + b"bdat 0 last\r\n"
        wire = ENVELOPE + chunks + b"NOOP\r\n" + ENVELOPE + chunk(MESSAGE, last=True) + b"QUIT\r\n"
        for begin in range(0, len(wire), cut):
            client.send(wire[begin : begin + cut])
            await asyncio.sleep(0)
        answers = [await client.reply() for _ in range(11)]
        assert codes(answers) == [b"250"] * 10 + [b"221"]
        assert answers[2:5] == [replies.CHUNK_OK] * 3
        assert await house.contents() == [MESSAGE + b".\r\n\r\n.\r\n" + EVIL, MESSAGE]


@on_both_loops
async def test_thousands_of_tiny_chunks_are_all_answered(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        client.send(ENVELOPE + chunk(MESSAGE) + chunk(b"x") * 10_000 + b"BDAT 0 LAST\r\nQUIT\r\n")
        assert (await client.end()).count(b"\r\n") == 10_000 + 5
        assert await house.contents() == [MESSAGE + b"x" * 10_000 + b"\r\n"]


@on_both_loops
async def test_large_chunks_go_through_a_spool_file(house_of: HouseOf) -> None:
    body = (b"x" * 98 + b"\r\n") * 20_000
    async with house_of() as house:
        client = await house.client()
        client.send(ENVELOPE + chunk(MESSAGE) + chunk(body[:500_001]) + chunk(body[500_001:]) + b"BDAT 0 LAST\r\n")
        assert codes([await client.reply() for _ in range(6)]) == [b"250"] * 6
        (entry,) = await house.entries()
        assert isinstance(entry.content, FileContent)
        assert await house.contents() == [MESSAGE + body]


@pytest.mark.parametrize(
    ("commands", "reply"),
    [
        (b"", replies.NO_MAIL),
        (b"MAIL FROM:<jan@example.nl>\r\n", replies.NO_RECIPIENT),
        (ENVELOPE + b"RSET\r\n", replies.NO_MAIL),
    ],
)
@pytest.mark.parametrize("octets", [EVIL, EVIL * 10_000])
@on_both_loops
async def test_the_octets_of_a_refused_chunk_are_no_commands(
    house_of: HouseOf, monkeypatch: pytest.MonkeyPatch, commands: bytes, reply: bytes, octets: bytes
) -> None:
    async with house_of() as house:
        monkeypatch.delattr(type(house.door.spool), "begin")  # nothing of them is written to the disk
        client = await house.client()
        client.send(commands + chunk(octets) + b"NOOP\r\n")
        for _ in range(commands.count(b"\n")):
            await client.reply()
        assert await client.reply() == reply
        assert await client.reply() == replies.OK
        assert [event.verb for event in house.observed.of(CommandRefused)] == ["BDAT"]
        assert house.door.memory.used == 0


@on_both_loops
async def test_a_chunk_before_auth_is_read_and_refused(house_of: HouseOf) -> None:
    async with house_of(auth="users", verify=lambda name, password: True) as house:
        client = await house.client()
        client.send(ENVELOPE + chunk(b"NOOP\r\n" * 100, last=True) + b"NOOP\r\n")
        assert [await client.reply() for _ in range(4)] == [
            replies.AUTH_REQUIRED,
            replies.AUTH_REQUIRED,
            replies.NO_MAIL,
            replies.OK,
        ]


@pytest.mark.parametrize("argument", [b"", b"x", b"-5", b"5 LAST x", b"5 FIRST", b"5_0", b"1" * 21, b"0x10", b"LAST"])
@on_both_loops
async def test_a_chunk_whose_size_cannot_be_read_ends_the_session(house_of: HouseOf, argument: bytes) -> None:
    async with house_of() as house:
        client = await house.client()
        client.send(ENVELOPE + b"BDAT " + argument + b"\r\n" + EVIL)
        assert await client.end() == replies.SENDER_OK + replies.RECIPIENT_OK + replies.BAD_CHUNK
        assert await house.entries() == []


@on_both_loops
async def test_data_and_bdat_do_not_mix(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        await client.say(*ENVELOPE.splitlines())
        client.send(chunk(MESSAGE))
        assert await client.reply() == replies.CHUNK_OK
        assert await client.say(b"DATA") == replies.CHUNKS_BEGAN
        assert await client.say(b"RCPT TO:<klaas@example.com>") == replies.CHUNKS_BEGAN
        assert await client.say(b"MAIL FROM:<klaas@example.com>") == replies.NESTED_MAIL
        assert (await client.say(b"BDAT 0 LAST"))[:3] == b"250"
        assert await house.contents() == [MESSAGE]


@pytest.mark.parametrize("command", [b"RSET", b"EHLO again", b"HELO again"])
@pytest.mark.parametrize("large", [False, True])
@on_both_loops
async def test_chunks_are_forgotten_by_a_reset(house_of: HouseOf, command: bytes, large: bool) -> None:
    async with house_of() as house:
        client = await house.client()
        client.send(ENVELOPE + chunk(MESSAGE) + chunk(b"x" * (1_000_000 if large else 1)))
        assert codes([await client.reply() for _ in range(4)]) == [b"250"] * 4
        assert house.door.memory.used > 0
        assert (await client.say(command))[:3] == b"250"
        assert house.door.memory.used == 0
        assert house.door.spool.names() == set()
        assert not house.observed.of(MessageRefused)
        await client.say(*ENVELOPE.splitlines())
        client.send(chunk(b"\r\nTwee\r\n", last=True))
        assert (await client.reply())[:3] == b"250"
        assert await house.contents() == [b"\r\nTwee\r\n"]


@on_both_loops
async def test_a_chunk_that_makes_the_message_too_large_is_refused_and_the_session_goes_on(house_of: HouseOf) -> None:
    async with house_of(max_message_size=100 * KIB) as house:
        client = await house.client()
        client.send(
            ENVELOPE + chunk(b"x" * 60 * KIB) + chunk(b"x" * 60 * KIB) + chunk(b"QUIT\r\n", last=True) + b"NOOP\r\n"
        )
        assert [await client.reply() for _ in range(6)][2:] == [
            replies.CHUNK_OK,
            replies.TOO_LARGE,
            replies.NO_MAIL,
            replies.OK,
        ]
        assert [event.result for event in house.observed.of(MessageRefused)] == ["rejected_size"]
        assert (await client.mail())[:3] == b"250"
        assert await house.contents() == [MESSAGE]


@pytest.mark.parametrize(("envelope", "reply"), [(ENVELOPE, replies.TOO_LARGE), (b"", replies.NO_MAIL)])
@on_both_loops
async def test_an_endless_chunk_is_told_and_closed(house_of: HouseOf, envelope: bytes, reply: bytes) -> None:
    async with house_of(max_message_size=100 * KIB) as house:
        client = await house.client()
        client.send(envelope + b"BDAT 99999999999 LAST\r\n" + b"x" * 300 * KIB)
        for _ in range(envelope.count(b"\n")):
            await client.reply()
        assert await client.reply() == reply
        assert await client.end() == b""
        await house.nobody_is_left()
        assert await house.entries() == []


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (MESSAGE + b"x\ny\r\n", replies.BARE_LF),
        (MESSAGE + b"x\ry\r\n", replies.BARE_CR),
        (MESSAGE + b"x\ny\r\r\n", replies.BARE_LF_AND_CR),
    ],
)
@pytest.mark.parametrize("large", [False, True])
@on_both_loops
async def test_bare_line_ends_are_rejected_where_the_listener_does(
    house_of: HouseOf, content: bytes, reply: bytes, large: bool
) -> None:
    content += (b"x" * 98 + b"\r\n") * 10_000 * large
    async with house_of(bare_newline="reject") as house:
        client = await house.client()
        client.send(ENVELOPE + chunk(content) + b"BDAT 0 LAST\r\n")
        assert [await client.reply() for _ in range(4)][2:] == [replies.CHUNK_OK, reply]
        assert await client.mail(content) == reply
        assert [event.result for event in house.observed.of(MessageRefused)] == ["rejected_syntax"] * 2
        assert not house.observed.of(CommandRefused)
        client.send(ENVELOPE + chunk(MESSAGE, last=True))
        assert codes([await client.reply() for _ in range(3)]) == [b"250"] * 3
        assert await house.contents() == [MESSAGE]


@on_both_loops
async def test_a_spool_file_that_fails_under_chunks_puts_the_mail_off(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        directory = house.door.spool.directory
        directory.rename(directory.with_name("away"))
        client.send(ENVELOPE + chunk(MESSAGE + EVIL * 20_000) + chunk(EVIL, last=True) + b"NOOP\r\n")
        assert [await client.reply() for _ in range(5)][2:] == [replies.STORE_FAILED, replies.NO_MAIL, replies.OK]
        directory.with_name("away").rename(directory)
        assert (await client.mail())[:3] == b"250"
        assert await house.contents() == [MESSAGE]


@pytest.mark.parametrize("how", ["eof", "reset", "quit"])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("within", [False, True])
@on_both_loops
async def test_a_message_whose_last_chunk_never_comes_is_not_kept(
    house_of: HouseOf, how: str, large: bool, within: bool
) -> None:
    async with house_of() as house:
        client = await house.client()
        client.send(ENVELOPE + chunk(MESSAGE + b"x" * (1_000_000 * large)))
        for _ in range(3):
            await client.reply()
        if within and how != "quit":
            client.send(b"BDAT 10\r\nx")
        if how == "eof":
            client.writer.write_eof()
        elif how == "reset":
            hard_reset(client)
        else:
            client.send(b"QUIT\r\n")
        assert [event.why for event in await house.observed.until(SessionEnded)] == [how]
        assert [event.result for event in house.observed.of(MessageRefused)] == ["aborted"]
        await house.nobody_is_left()
        assert await house.entries() == []
        assert house.door.spool.names() == set()


@on_both_loops
async def test_a_client_that_leaves_after_the_last_chunk_never_cancels_the_commit(house_of: HouseOf) -> None:
    async with house_of() as house:
        house.store.gate.clear()
        client = await house.client()
        client.send(ENVELOPE + chunk(MESSAGE, last=True))
        async with asyncio.timeout(PATIENCE):
            await house.store.arrived.wait()
        client.writer.write_eof()
        house.store.gate.set()
        await house.observed.until(SessionEnded)
        assert await house.contents() == [MESSAGE]


@on_both_loops
async def test_a_chunk_that_stalls_is_given_up(house_of: HouseOf) -> None:
    async with house_of(limits=configured.limits(data=SOON)) as house:
        client = await house.client()
        client.send(ENVELOPE + b"BDAT 100 LAST\r\nx")
        assert (await client.end()).endswith(replies.TOO_SLOW)
        assert [event.result for event in house.observed.of(MessageRefused)] == ["aborted"]


@on_both_loops
async def test_a_bug_between_chunks_ends_the_session(house_of: HouseOf, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_session: Session, _argument: bytes) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setitem(session._METHODS, b"NOOP", ("NOOP", broken))
    async with house_of() as house:
        client = await house.client()
        client.send(ENVELOPE + chunk(MESSAGE))
        assert codes([await client.reply() for _ in range(3)]) == [b"250"] * 3
        assert await client.say(b"NOOP") == replies.LOCAL_ERROR
        assert await client.end() == b""
        await house.nobody_is_left()
        assert len(house.observed.of(ExceptionCaught)) == 1


@pytest.mark.parametrize("command", [b"DATA\r\n" + MESSAGE + b".\r\n", b"BDAT 5 LAST\r\nHallo", b"BDAT 5\r\nHallo"])
@on_both_loops
async def test_a_bug_at_the_beginning_of_content_keeps_nothing_and_takes_no_content_for_commands(
    house_of: HouseOf, monkeypatch: pytest.MonkeyPatch, command: bytes
) -> None:
    def broken(_reader: object, _data: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ContentReader, "feed", broken)
    monkeypatch.setattr(ChunkReader, "feed", broken)
    async with house_of() as house:
        client = await house.client()
        client.send(ENVELOPE + command + b"NOOP\r\n")
        assert await client.end() == replies.SENDER_OK + replies.RECIPIENT_OK + replies.LOCAL_ERROR
        await house.nobody_is_left()
        assert await house.entries() == []
