"""Sessions over real sockets, with the real store behind them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta

import pytest

from relay.errors import StoreUnavailable
from relay.events import (
    CommandRefused,
    ConnectionAccepted,
    ConnectionDenied,
    ExceptionCaught,
    MessageQueued,
    MessageRefused,
    SessionEnded,
)
from relay.ingress import replies
from relay.ingress.session import REPLIES_AT_ONCE
from relay.ingress.settings import ListenerLimits
from relay.policy.rate import Rate
from relay.queue.content import FileContent
from tests.ingress.house import MESSAGE, PATIENCE, SOON, HouseOf, codes, hard_reset, on_both_loops
from tests.kit import configured

KIB = 1024
ENVELOPE = b"MAIL FROM:<jan@example.nl>\r\nRCPT TO:<piet@example.com>\r\nDATA\r\n"


@on_both_loops
async def test_a_message_is_in_the_store_when_the_client_hears_250(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        reply = await client.mail(MESSAGE, b"piet@example.com", b"klaas@example.com")
        (entry,) = await house.entries()
        assert reply == b"250 2.0.0 OK: queued as %b\r\n" % entry.queue_id.encode()
        submission = entry.submission
        assert entry.content.read(0, 1000) == MESSAGE
        assert submission.head == MESSAGE[:-7]
        assert str(submission.envelope.reverse_path) == "jan@example.nl"
        assert [str(each.address) for each in submission.envelope.recipients] == [
            "piet@example.com",
            "klaas@example.com",
        ]
        peer = submission.peer
        assert (peer.address, peer.helo, peer.protocol, peer.tls, peer.user) == (
            "127.0.0.1",
            "pc.example.nl",
            "ESMTP",
            None,
            None,
        )
        assert house.rung == ["default"]
        (queued,) = house.observed.of(MessageQueued)
        assert (queued.queue_id, queued.size, queued.recipients) == (
            entry.queue_id,
            len(MESSAGE),
            ("piet@example.com", "klaas@example.com"),
        )
        assert await client.say(b"QUIT") == replies.BYE
        assert await client.end() == b""
        (ended,) = await house.observed.until(SessionEnded)
        assert (ended.why, ended.messages) == ("quit", 1)


@on_both_loops
async def test_ehlo_is_answered_in_one_write(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.connect()
        await client.reply()
        client.send(b"EHLO pc\r\n")
        async with asyncio.timeout(PATIENCE):
            answer = await client.reader.read(100_000)
        lines = answer.decode().split("\r\n")
        assert lines[0] == "250-relay.example.nl"
        assert lines[-2:] == ["250 HELP", ""]
        said = {line[4:] for line in lines[1:-1]}
        assert {"SIZE 10485760", "8BITMIME", "SMTPUTF8", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES"} <= said
        assert not {word for word in said if word.startswith(("AUTH", "STARTTLS"))}


@on_both_loops
async def test_helo_is_enough_and_the_protocol_says_so(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.connect()
        await client.reply()
        assert await client.say(b"HELO pc") == b"250 relay.example.nl\r\n"
        assert (await client.mail())[:3] == b"250"
        assert (await house.entries())[0].submission.peer.protocol == "SMTP"


@on_both_loops
async def test_a_client_may_leave_out_its_greeting(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.connect()
        await client.reply()
        assert (await client.mail())[:3] == b"250"
        assert (await house.entries())[0].submission.peer.helo == ""


@on_both_loops
async def test_a_whole_session_may_come_in_one_write(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.connect()
        client.send(
            b"EHLO pc\r\n" + ENVELOPE + MESSAGE + b".\r\n" + ENVELOPE + b"\r\nTwee\r\n.\r\nNOOP\r\nQUIT\r\nNOOP\r\n"
        )
        answers = [await client.reply() for _ in range(12)]
        assert codes(answers) == [
            b"220",
            b"250",
            b"250",
            b"250",
            b"354",
            b"250",
            b"250",
            b"250",
            b"354",
            b"250",
            b"250",
            b"221",
        ]
        assert await client.end() == b""
        assert await house.contents() == [MESSAGE, b"\r\nTwee\r\n"]


@pytest.mark.parametrize("size", [1, 7])
@on_both_loops
async def test_a_session_may_come_in_crumbs(house_of: HouseOf, size: int) -> None:
    async with house_of() as house:
        client = await house.connect()
        wire = b"EHLO pc\r\n" + ENVELOPE + MESSAGE + b"..\r\n.\r\nQUIT\r\n"
        for begin in range(0, len(wire), size):
            client.send(wire[begin : begin + size])
            await asyncio.sleep(0)
        assert codes([await client.reply() for _ in range(7)])[-2:] == [b"250", b"221"]
        assert await house.contents() == [MESSAGE + b".\r\n"]


@on_both_loops
async def test_thousands_of_pipelined_commands_are_all_answered(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        client.send(b"NOOP\r\n" * 30_000 + b"QUIT\r\n")
        answer = await client.end()
        assert answer == replies.OK * 30_000 + replies.BYE


@on_both_loops
async def test_content_is_read_behind_a_thousand_recipients_in_one_write_that_ends_with_data(house_of: HouseOf) -> None:
    """As many octets as are not read on before they are answered, with DATA as the last of them."""
    async with house_of() as house:
        client = await house.client()
        recipients = b"".join(b"RCPT TO:<klant.nummer.%d@afdeling.example.com>\r\n" % n for n in range(1000))
        client.send(b"MAIL FROM:<jan@example.nl>\r\n" + recipients + b"DATA\r\n")
        assert codes([await client.reply() for _ in range(1002)]) == [b"250"] * 1001 + [b"354"]
        client.send(MESSAGE + b".\r\n")
        assert codes([await client.reply()]) == [b"250"]


@on_both_loops
async def test_commands_end_with_a_bare_lf_as_well(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.connect()
        await client.reply()
        client.send(b"ehlo pc\nmail from:<jan@example.nl>\nrcpt\tto:<piet@example.com>\nDATA \n")
        assert codes([await client.reply() for _ in range(4)]) == [b"250", b"250", b"250", b"354"]


@pytest.mark.parametrize(
    ("commands", "last"),
    [
        ([b"RCPT TO:<piet@example.com>"], replies.NO_MAIL),
        ([b"DATA"], replies.NO_MAIL),
        ([b"MAIL FROM:<jan@example.nl>", b"DATA"], replies.NO_RECIPIENT),
        ([b"MAIL FROM:<jan@example.nl>", b"MAIL FROM:<jan@example.nl>"], replies.NESTED_MAIL),
        ([b"MAIL FROM:<jan@example.nl>", b"RSET", b"RCPT TO:<piet@example.com>"], replies.NO_MAIL),
        ([b"MAIL FROM:<jan@example.nl>", b"EHLO again", b"MAIL FROM:<jan@example.nl>"], replies.SENDER_OK),
        ([b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<piet@example.com>", b"DATA now"], replies.BAD_SYNTAX),
        ([b"MAIL FROM:<jan@example.nl> SIZE=10485760"], replies.SENDER_OK),
        ([b"MAIL FROM:<jan@example.nl> SIZE=10485761"], replies.TOO_LARGE),
        ([b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<>"], replies.NO_NULL_RECIPIENT),
        ([b"HELO"], b"250 relay.example.nl\r\n"),
        ([b"HELO UPS_1 2nd floor"], b"250 relay.example.nl\r\n"),
        ([b"EHLO ", b"NOOP"], replies.OK),
        ([b"VRFY jan"], replies.CANNOT_VERIFY),
        ([b"VRFY"], replies.BAD_SYNTAX),
        ([b"EXPN all"], replies.NOT_IMPLEMENTED),
        ([b"HELP"], replies.HELP),
        ([b"NOOP whatever"], replies.OK),
        ([b"RSET"], replies.OK),
        ([b"STARTTLS"], replies.NOT_IMPLEMENTED),
        ([b"AUTH PLAIN AGEAYg=="], replies.NOT_IMPLEMENTED),
        ([b"GET / HTTP/1.1"], replies.UNKNOWN),  # a greeting came first, so it is no browser
        ([b"NOOP\0"], replies.UNKNOWN),
        ([b"NO\0OP"], replies.UNKNOWN),
        ([b"\xff\xfe"], replies.UNKNOWN),
        ([b"MAIL FROM:<jan\0@example.nl>"], replies.BAD_SYNTAX),
        ([b"NOOP \0"], replies.BAD_SYNTAX),
        ([b"EHLO pc\0"], replies.BAD_SYNTAX),
        ([b"__class__"], replies.UNKNOWN),
    ],
)
@on_both_loops
async def test_commands_are_answered(house_of: HouseOf, commands: list[bytes], last: bytes) -> None:
    async with house_of() as house:
        client = await house.client()
        for command in commands:
            reply = await client.say(command)
        assert reply == last
        refused = house.observed.of(CommandRefused)
        assert [event.code for event in refused] == ([int(last[:3])] if last[:1] == b"5" else [])
        assert await client.say(b"NOOP") == replies.OK


@on_both_loops
async def test_one_recipient_too_many_is_put_off_and_the_others_get_the_message(house_of: HouseOf) -> None:
    async with house_of(limits=configured.limits(recipients=2)) as house:
        client = await house.client()
        await client.say(b"MAIL FROM:<jan@example.nl>")
        answers = [await client.say(b"RCPT TO:<r%d@example.com>" % n) for n in range(3)]
        assert answers[2] == replies.TOO_MANY_RECIPIENTS
        await client.say(b"DATA")
        assert (await client.say(b"\r\nHallo\r\n."))[:3] == b"250"
        assert len((await house.entries())[0].submission.envelope.recipients) == 2


@on_both_loops
async def test_a_line_too_long_is_refused_and_the_session_goes_on(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        for length in (4_200, 300_000):
            assert await client.say(b"NOOP " + b"x" * length) == replies.LINE_TOO_LONG
        assert await client.say(b"NOOP " + b"x" * 4_000) == replies.OK


@on_both_loops
async def test_too_many_errors_end_the_session(house_of: HouseOf) -> None:
    async with house_of(limits=configured.limits(errors=3)) as house:
        client = await house.client()
        client.send(b"WHAT\r\n" * 5)
        assert await client.end() == replies.UNKNOWN * 3 + replies.TOO_MANY_ERRORS
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["errors"]


@on_both_loops
async def test_a_session_may_be_bounded_in_messages(house_of: HouseOf) -> None:
    async with house_of(limits=configured.limits(messages=1)) as house:
        client = await house.client()
        assert (await client.mail())[:3] == b"250"
        assert await client.say(b"MAIL FROM:<jan@example.nl>") == replies.TOO_MANY_MESSAGES
        assert await client.end() == b""
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["limit"]


@on_both_loops
async def test_a_client_may_send_so_many_messages_over_all_of_its_sessions(house_of: HouseOf) -> None:
    async with house_of(limits=configured.limits(client_rate=Rate(3, 3600.0))) as house:
        for _ in range(3):
            client = await house.client()
            assert (await client.mail())[:3] == b"250"
        for sender in (b"jan@example.nl", b""):
            client = await house.client()
            reply = await client.say(b"MAIL FROM:<" + sender + b">")
            assert reply == b"421 4.7.0 Too many messages from your address, at most 3 in 3600 seconds\r\n"
            assert await client.end() == b""
        refused = house.observed.of(MessageRefused)
        assert [(event.result, event.code, event.reverse_path) for event in refused] == [
            ("limited", 421, "jan@example.nl"),
            ("limited", 421, ""),
        ]
        assert [event.why for event in await house.observed.until(SessionEnded, 2)] == ["limit"] * 2
        assert len(await house.entries()) == 3


@on_both_loops
async def test_mail_is_put_off_while_the_disk_is_nearly_full(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        house.space = False
        assert await client.say(b"MAIL FROM:<jan@example.nl>") == replies.STORE_FULL
        house.space = True
        assert (await client.mail())[:3] == b"250"


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET / HTTP/1.1",
        b"POST /x HTTP/1.0",
        b"Host: localhost",
        b"CONNECT a:25",
        b"PRI * HTTP/2.0",
        b"SSH-2.0-OpenSSH_9.2",
        b"INVITE sip:jan@example.nl SIP/2.0",
        b"\x16\x03\x01\x02\x00",
    ],
)
@on_both_loops
async def test_a_browser_is_turned_away_at_its_first_line(house_of: HouseOf, request_line: bytes) -> None:
    async with house_of() as house:
        client = await house.connect()
        client.send(request_line + b"\r\nEHLO pc\r\n" + ENVELOPE)
        answer = await client.end()
        assert answer == b"220 relay.example.nl ESMTP relay\r\n" + replies.NOT_SMTP
        assert [event.reason for event in house.observed.of(ConnectionDenied)] == ["not_smtp"]


@pytest.mark.parametrize("octets", [b"\x16\x03\x01\x02\x00\x01", b"\x03\x00\x00\x13", b"\x00\x00\x00\x85\xffSMB"])
@on_both_loops
async def test_a_binary_protocol_is_turned_away_at_its_first_octet(house_of: HouseOf, octets: bytes) -> None:
    async with house_of() as house:
        client = await house.connect()
        client.send(octets)
        assert (await client.end()).endswith(replies.NOT_SMTP)
        assert [event.reason for event in house.observed.of(ConnectionDenied)] == ["not_smtp"]


@on_both_loops
async def test_a_line_end_too_many_gets_no_answer_that_would_be_taken_for_the_next(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.connect()
        client.send(b"\r\nHELO pc\r\n\r\nMAIL FROM:<jan@example.nl>\r\n\r\nRCPT TO:<piet@example.com>\r\n \r\n")
        client.send(b"DATA\r\n" + MESSAGE + b".\r\n\r\n\n\nQUIT\r\n")
        assert codes([await client.reply() for _ in range(7)]) == [
            b"220", b"250", b"250", b"250", b"354", b"250", b"221",
        ]  # fmt: skip
        assert not house.observed.of(CommandRefused)


@on_both_loops
async def test_a_command_of_ten_megabytes_is_given_up(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        (session,) = house.door.live

        async def flood() -> None:
            for _ in range(160):
                client.send(b"x" * 64 * KIB)
                await client.writer.drain()
                assert len(session._buffer) <= 512 * KIB

        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(flood(), PATIENCE)
        (refused,) = await house.observed.until(CommandRefused)
        assert (refused.verb, refused.text) == ("other", "Line too long")
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["errors"]


@on_both_loops
async def test_a_peer_that_is_not_allowed_is_told_and_closed(house_of: HouseOf) -> None:
    async with house_of(allow=()) as house:
        client = await house.connect()
        assert await client.end() == replies.NOT_ALLOWED
        assert [event.reason for event in house.observed.of(ConnectionDenied)] == ["denied_address"]
        assert not house.observed.of(ConnectionAccepted)


@pytest.mark.parametrize("limits", [configured.limits(sessions=1), configured.limits(per_client=1)])
@on_both_loops
async def test_one_session_too_many_is_put_off_until_another_ends(house_of: HouseOf, limits: ListenerLimits) -> None:
    async with house_of(limits=limits) as house:
        first = await house.client()
        second = await house.connect()
        assert await second.end() == replies.TOO_MANY_SESSIONS
        await first.say(b"QUIT")
        await house.observed.until(SessionEnded)
        await house.client()
        assert [event.reason for event in house.observed.of(ConnectionDenied)] == ["denied_limit"]


# Content


@on_both_loops
async def test_content_that_is_too_large_is_refused_and_the_session_goes_on(house_of: HouseOf) -> None:
    async with house_of(max_message_size=100 * KIB) as house:
        client = await house.client()
        assert await client.mail(MESSAGE + b"x" * 150 * KIB + b"\r\n") == replies.TOO_LARGE
        assert [event.result for event in house.observed.of(MessageRefused)] == ["rejected_size"]
        assert not house.observed.of(CommandRefused)  # told once
        assert (await client.mail())[:3] == b"250"
        assert await house.contents() == [MESSAGE]


@on_both_loops
async def test_a_client_that_sends_twice_the_limit_is_told_and_closed(house_of: HouseOf) -> None:
    async with house_of(max_message_size=100 * KIB) as house:
        client = await house.client()
        for command in ENVELOPE.splitlines():
            await client.say(command)
        client.send(MESSAGE + b"x" * 300 * KIB)
        assert await client.reply() == replies.TOO_LARGE
        assert await client.end() == b""
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["limit"]
        assert await house.entries() == []


@on_both_loops
async def test_large_content_goes_through_a_spool_file(house_of: HouseOf) -> None:
    content = MESSAGE + (b"x" * 98 + b"\r\n") * 20_000
    async with house_of() as house:
        client = await house.client()
        assert (await client.mail(content))[:3] == b"250"
        (entry,) = await house.entries()
        assert isinstance(entry.content, FileContent)
        assert await house.contents() == [content]
        assert house.door.spool.names() == {entry.content.name}


@on_both_loops
async def test_a_header_too_long_or_of_too_many_fields_is_refused(house_of: HouseOf) -> None:
    limits = configured.limits(header_size=10 * KIB, header_fields=100)
    async with house_of(limits=limits) as house:
        client = await house.client()
        assert await client.mail(b"A: b\r\n" * 101 + b"\r\n") == replies.HEADER_TOO_LARGE
        assert (await client.mail(b"A: b\r\n" * 100 + b"\r\n"))[:3] == b"250"
        assert (await client.mail(b"A: b\r\n c\r\n\td\r\n" * 100 + b"\r\n"))[:3] == b"250"
        assert await client.mail(b"A: " + b"x" * 11 * KIB + b"\r\n\r\n") == replies.HEADER_TOO_LARGE
        assert await client.mail(b"A: " + b"x" * 400 * KIB + b"\r\n\r\n") == replies.HEADER_TOO_LARGE
        assert len(await house.entries()) == 2


@on_both_loops
async def test_a_message_that_turns_in_circles_is_refused(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        assert (await client.mail(b"Received: x\r\n" * 50 + b"\r\n"))[:9] == b"554 5.4.6"
        assert (await client.mail())[:3] == b"250"


@on_both_loops
async def test_a_long_header_is_put_off_while_memory_is_scarce(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        house.door.memory.used += 100 * KIB * KIB
        assert await client.mail(b"A: " + b"x" * 200 * KIB + b"\r\n\r\n") == replies.STORE_FULL
        content = MESSAGE + b"x" * 200 * KIB + b"\r\n"
        assert (await client.mail(content))[:3] == b"250"
        house.door.memory.used -= 100 * KIB * KIB
        assert await house.contents() == [content]


@pytest.mark.parametrize("large", [False, True])
@on_both_loops
async def test_content_that_never_ends_is_not_kept(house_of: HouseOf, large: bool) -> None:
    async with house_of() as house:
        client = await house.client()
        await client.say(*ENVELOPE.splitlines())
        client.send(MESSAGE + b"x" * (1_000 * KIB if large else 10))
        client.writer.write_eof()
        assert await client.end() == b""
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["eof"]
        (refused,) = house.observed.of(MessageRefused)
        assert (refused.result, refused.code, refused.recipients) == ("aborted", 421, ("piet@example.com",))
        await house.nobody_is_left()
        assert await house.entries() == []
        assert house.door.spool.names() == set()


@on_both_loops
async def test_a_connection_reset_within_content_keeps_nothing(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        await client.say(*ENVELOPE.splitlines())
        client.send(MESSAGE)
        hard_reset(client)
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["reset"]
        assert [event.result for event in house.observed.of(MessageRefused)] == ["aborted"]
        assert await house.entries() == []


@pytest.mark.parametrize("how", ["eof", "reset"])
@pytest.mark.parametrize("large", [False, True])
@on_both_loops
async def test_a_client_that_leaves_after_the_dot_never_cancels_the_commit(
    house_of: HouseOf, how: str, large: bool
) -> None:
    content = MESSAGE + (b"x" * 98 + b"\r\n") * (5_000 if large else 1)
    async with house_of() as house:
        house.store.gate.clear()
        client = await house.client()
        await client.say(*ENVELOPE.splitlines())
        client.send(content + b".\r\n")
        async with asyncio.timeout(PATIENCE):
            await client.writer.drain()
            await house.store.arrived.wait()
        (session,) = house.door.live
        if how == "eof":
            client.writer.write_eof()
        else:
            hard_reset(client)
        async with asyncio.timeout(PATIENCE):
            while not session._over:
                await asyncio.sleep(0)
        house.store.gate.set()
        await house.observed.until(SessionEnded)
        assert await house.contents() == [content]
        if how == "eof":  # half-closed: the client still hears it
            assert (await client.reply())[:3] == b"250"


@pytest.mark.parametrize(
    ("trouble", "reply"),
    [
        (StoreUnavailable("full", "no space"), replies.STORE_FULL),
        (StoreUnavailable("io", "the disk fails"), replies.STORE_FAILED),
        (RuntimeError("a secret \r\n250 injected"), replies.LOCAL_ERROR),
        (TimeoutError("a lock"), replies.LOCAL_ERROR),
        (ConnectionResetError("another server"), replies.LOCAL_ERROR),
    ],
)
@pytest.mark.parametrize("large", [False, True])
@on_both_loops
async def test_a_store_in_trouble_puts_mail_off_and_the_session_goes_on(
    house_of: HouseOf, trouble: Exception, reply: bytes, large: bool
) -> None:
    content = MESSAGE + (b"x" * 98 + b"\r\n") * (5_000 if large else 1)
    async with house_of() as house:
        client = await house.client()
        house.store.troubles.append(trouble)
        assert await client.mail(content) == reply
        ours = not isinstance(trouble, StoreUnavailable)
        assert len(house.observed.of(ExceptionCaught)) == ours
        assert [event.result for event in house.observed.of(MessageRefused)] == ([] if ours else ["store_failed"])
        assert (await client.mail(content))[:3] == b"250"
        assert await house.contents() == [content]


@on_both_loops
async def test_content_is_never_taken_for_commands_when_the_spool_fails_under_it(house_of: HouseOf) -> None:
    content = MESSAGE + b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.com>\r\n" * 20_000
    async with house_of() as house:
        client = await house.client()
        directory = house.door.spool.directory
        directory.rename(directory.with_name("away"))
        assert await client.mail(content) == replies.STORE_FAILED
        directory.with_name("away").rename(directory)
        assert [event.result for event in house.observed.of(MessageRefused)] == ["store_failed"]
        assert not house.observed.of(CommandRefused)
        assert (await client.mail(content))[:3] == b"250"
        assert await house.contents() == [content]


@on_both_loops
async def test_a_bug_within_content_ends_the_session_instead_of_reading_content_as_commands(
    house_of: HouseOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house_of() as house:
        client = await house.client()

        def begin() -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(house.door.spool, "begin", begin)
        await client.say(*ENVELOPE.splitlines())
        client.send(MESSAGE + b"MAIL FROM:<evil@example.com>\r\n" * 20_000)
        assert await client.reply() == replies.LOCAL_ERROR
        assert await client.end() == b""
        assert len(house.observed.of(ExceptionCaught)) == 1


TRICKS = """
\\n.\\n  \\n.\\r  \\r.\\n  \\r.\\r  \\n.\\r\\n  \\r.\\r\\n  \\r\\n\\0.\\r\\n
\\r\\n.\\r\\r\\n  \\r\\r\\n.\\r\\r\\n  \\r\\n.\\n  \\r\\n.\\r  \\r\\n.\\0\\r\\n
"""


@pytest.mark.parametrize("trick", [word.encode().decode("unicode_escape").encode() for word in TRICKS.split()])
@on_both_loops
async def test_no_false_end_of_data_smuggles_a_second_message(house_of: HouseOf, trick: bytes) -> None:
    async with house_of() as house:
        client = await house.client()
        evil = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\nFrom: evil\r\n\r\nboo\r\n"
        assert (await client.mail(MESSAGE + b"x" + trick + evil))[:3] == b"250"
        assert await client.say(b"NOOP") == replies.OK
        (content,) = await house.contents()
        assert b"MAIL FROM:<evil@example.com>\r\n" in content
        bare = content.replace(b"\r\n", b"")
        assert b"\r" not in bare
        assert b"\n" not in bare


# Time


@on_both_loops
async def test_an_idle_session_is_told_and_closed(house_of: HouseOf) -> None:
    async with house_of(limits=configured.limits(command=SOON)) as house:
        client = await house.connect()
        assert await client.end() == b"220 relay.example.nl ESMTP relay\r\n" + replies.TOO_SLOW
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["timeout"]


@on_both_loops
async def test_commands_have_the_time_of_commands_and_content_that_of_content(house_of: HouseOf) -> None:
    async with house_of(limits=configured.limits(command=SOON, data=1_000)) as house:
        client = await house.connect()
        client.send(b"EHLO pc\r\n")
        assert (await client.end()).endswith(replies.TOO_SLOW)


@on_both_loops
async def test_content_that_stalls_is_given_up(house_of: HouseOf) -> None:
    async with house_of(limits=configured.limits(command=SOON, data=SOON)) as house:
        client = await house.connect()
        client.send(b"EHLO pc\r\n" + ENVELOPE + MESSAGE)
        assert (await client.end()).endswith(b"354 End data with <CRLF>.<CRLF>\r\n" + replies.TOO_SLOW)
        assert [event.result for event in house.observed.of(MessageRefused)] == ["aborted"]
        assert await house.entries() == []


@on_both_loops
async def test_a_client_that_never_reads_is_dropped(house_of: HouseOf) -> None:
    async with house_of(limits=configured.limits(command=SOON)) as house:
        client = await house.connect(limit=1)
        client.writer.transport.set_write_buffer_limits(high=0)

        async def flood() -> None:
            while True:
                client.send(b"EHLO pc\r\n" * 1_000)
                await client.writer.drain()

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(flood(), PATIENCE)
        assert [event.why for event in await house.observed.until(SessionEnded)] == ["timeout"]


@on_both_loops
@pytest.mark.parametrize("command", [b"DATA", b"BDAT 600000 LAST"])
@pytest.mark.parametrize("before", [0, REPLIES_AT_ONCE - 3])
async def test_content_of_a_client_that_reads_nothing_goes_to_its_file_and_keeps_nobody_waiting(
    house_of: HouseOf, command: bytes, before: int
) -> None:
    async with house_of() as house:
        client = await house.client()
        (session,) = house.door.live
        session.pause_writing()  # as its transport says while the client reads nothing
        content = b"Subject: x\r\n\r\n".ljust(599_998, b"x") + b"\r\n"
        client.send(b"NOOP\r\n" * before + ENVELOPE.replace(b"DATA", command) + content)
        client.send(b".\r\n" * (command == b"DATA"))
        await house.observed.until(MessageQueued)
        assert house.door.memory.spooling == 0
        session.resume_writing()
        told = codes([await client.reply() for _ in range(before + 3 + (command == b"DATA"))])
        assert told == [b"250"] * (before + 2) + [b"354"] * (command == b"DATA") + [b"250"]


@on_both_loops
async def test_a_stop_says_421_to_who_is_idle_and_lets_content_finish(house_of: HouseOf) -> None:
    async with house_of() as house:
        idle, busy = await house.client(), await house.client()
        await busy.say(*ENVELOPE.splitlines())
        busy.send(MESSAGE)
        closing = asyncio.create_task(house.listener.close())
        assert await idle.end() == replies.SHUTTING_DOWN
        assert not closing.done()
        busy.send(b".\r\n")
        assert (await busy.reply())[:3] == b"250"
        assert await busy.end() == replies.SHUTTING_DOWN
        async with asyncio.timeout(PATIENCE):
            await closing
        with pytest.raises(ConnectionRefusedError):
            await house.connect()
        assert await house.contents() == [MESSAGE]
        assert [event.why for event in house.observed.of(SessionEnded)] == ["shutdown", "shutdown"]


@on_both_loops
async def test_a_stop_waits_for_a_commit_and_its_250_is_heard(house_of: HouseOf) -> None:
    async with house_of() as house:
        house.store.gate.clear()
        client = await house.client()
        await client.say(*ENVELOPE.splitlines())
        client.send(MESSAGE + b".\r\n")
        async with asyncio.timeout(PATIENCE):
            await house.store.arrived.wait()
        closing = asyncio.create_task(house.listener.close())
        await asyncio.sleep(0)
        assert not closing.done()
        house.store.gate.set()
        assert (await client.reply())[:3] == b"250"
        async with asyncio.timeout(PATIENCE):
            await closing


@on_both_loops
async def test_settings_that_change_are_for_new_sessions(house_of: HouseOf) -> None:
    async with house_of() as house:
        old = await house.client()
        house.listener.change(replace(house.door.settings, max_message_size=100))
        assert await old.say(b"MAIL FROM:<jan@example.nl> SIZE=1000") == replies.SENDER_OK
        new = await house.client()
        assert await new.say(b"MAIL FROM:<jan@example.nl> SIZE=1000") == replies.TOO_LARGE


@on_both_loops
async def test_many_clients_at_once_lose_nothing(house_of: HouseOf) -> None:
    async with house_of() as house:

        async def one(number: int) -> bytes:
            client = await house.client()
            answers = [await client.mail(b"Subject: %d-%d\r\n\r\n" % (number, n)) for n in range(3)]
            await client.say(b"QUIT")
            return b"".join(answers)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(30)]
        said = {line.split()[-1].decode() for task in tasks for line in task.result().splitlines()}
        entries = await house.entries()
        assert {entry.queue_id for entry in entries} == said
        assert len(said) == 90
        assert all(entry.expires_at - entry.submission.received_at == timedelta(days=5) for entry in entries)


# What legacy clients do


LEGACY = {
    "MAIL without brackets": ([b"HELO pc", b"MAIL FROM:jan@example.nl"], b"\r\nx\r\n"),
    "a space before the bracket": ([b"HELO pc", b"MAIL FROM: <jan@example.nl>"], b"\r\nx\r\n"),
    "a space before the colon": ([b"HELO pc", b"MAIL FROM : <jan@example.nl>"], b"\r\nx\r\n"),
    "spaces inside": ([b"HELO pc", b"MAIL FROM:< jan@example.nl >"], b"\r\nx\r\n"),
    "a name": ([b"HELO pc", b'MAIL FROM:"Jan" <jan@example.nl>'], b"\r\nx\r\n"),
    "a trailing dot": ([b"HELO pc", b"MAIL FROM:<jan@example.nl.>"], b"\r\nx\r\n"),
    "a source route": ([b"HELO pc", b"MAIL FROM:<@a.nl,@b.nl:jan@example.nl>"], b"\r\nx\r\n"),
    "an unknown parameter": ([b"EHLO pc", b"MAIL FROM:<jan@example.nl> X-PRIO=1 FOO"], b"\r\nx\r\n"),
    "habits": ([b"EHLO pc", b"RSET", b"NOOP", b"VRFY jan", b"RSET", b"MAIL FROM:<jan@example.nl>"], b"\r\nx\r\n"),
    "a greeting twice": ([b"EHLO pc", b"HELO pc", b"MAIL FROM:<jan@example.nl>"], b"\r\nx\r\n"),
    "undisclosed recipients": ([b"HELO pc", b"MAIL FROM:<>"], b"To: undisclosed-recipients:;\r\n\r\nx\r\n"),
    "no header": ([b"HELO pc", b"MAIL FROM:<jan@example.nl>"], b"Hallo\r\n"),
    "nothing": ([b"HELO pc", b"MAIL FROM:<jan@example.nl>"], b""),
    "two megabytes in a line": ([b"HELO pc", b"MAIL FROM:<jan@example.nl>"], b"\r\n" + b"y" * 2_000_000 + b"\r\n"),
    "AUTH=<>": ([b"EHLO pc", b"MAIL FROM:<jan@example.nl> AUTH=<>"], b"\r\nx\r\n"),
    "RET=HDRS": ([b"EHLO pc", b"MAIL FROM:<jan@example.nl> RET=HDRS ENVID=1"], b"\r\nx\r\n"),
    "BODY=BINARYMIME": ([b"EHLO pc", b"MAIL FROM:<jan@example.nl> BODY=BINARYMIME"], b"\r\nx\r\n"),
    "NOTIFY": ([b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<c@example.com> NOTIFY=NEVER"], b"\r\nx\r\n"),
    "no greeting": ([b"MAIL FROM:<jan@example.nl>"], b"\r\nx\r\n"),
    "bare LF": ([b"HELO pc", b"MAIL FROM:<jan@example.nl>"], b"Subject: x\n\n" + b"y" * 20 + b"\n\r\n"),
    "much bare LF": (
        [b"HELO pc", b"MAIL FROM:<jan@example.nl>"],
        b"Subject: x\n\n" + (b"y" * 79 + b"\n") * 30 + b"\r\n",
    ),
    "one long line": ([b"HELO pc", b"MAIL FROM:<jan@example.nl>"], b"\r\n" + b"y" * 2_000 + b"\r\n"),
    "UTF-8 without asking": (["HELO café".encode(), "MAIL FROM:<josé@example.nl>".encode()], b"\r\n\xe9\r\n"),
}


@pytest.mark.parametrize("case", LEGACY)
@on_both_loops
async def test_what_legacy_clients_do_is_taken(house_of: HouseOf, case: str) -> None:
    commands, content = LEGACY[case]
    async with house_of() as house:
        client = await house.connect()
        await client.reply()
        for command in [*commands, b"RCPT TO:<piet@example.com>"]:
            assert (await client.say(command))[:2] == b"25"
        await client.say(b"DATA")
        client.send(content + b".\r\n")
        assert (await client.reply())[:3] == b"250"
        assert len(await house.entries()) == 1


@on_both_loops
async def test_a_latin_1_address_is_refused_on_purpose_and_the_refusal_told(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        await client.say(b"MAIL FROM:<jan@example.nl>")
        assert (await client.say(b"RCPT TO:<jos\xe9@example.com>"))[:9] == b"553 5.6.7"
        (event,) = house.observed.of(CommandRefused)
        assert (event.verb, event.code, event.text) == ("RCPT", 553, "Address is neither ASCII nor UTF-8")


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n"])
@on_both_loops
async def test_a_false_end_after_bare_lf_is_no_end_and_the_real_one_is(house_of: HouseOf, end: bytes) -> None:
    async with house_of() as house:
        client = await house.client()
        await client.say(*ENVELOPE.splitlines())
        client.send(b"Subject: x\n\nHallo" + end + b"\r\n.\r\n")
        assert (await client.reply())[:3] == b"250"
        assert len(await house.entries()) == 1


# Tricks of open-relay testers, log and command injection


RELAYING = {
    b"<user%victim.example@relay.example.nl>": "user%victim.example@relay.example.nl",
    b"<@relay.example.nl:user@victim.example>": "user@victim.example",
    b'<"victim.example!user"@relay.example.nl>': '"victim.example!user"@relay.example.nl',
    b"<user@[127.0.0.1]>": "user@[127.0.0.1]",
    b"<user@[IPv6:::1]>": "user@[ipv6:::1]",
    b"<user@victim.example.>": "user@victim.example",
    b"<=?utf-8?q?a=0d=0aRCPT_TO=3cx=40y=3e?=@b.example>": "=?utf-8?q?a=0d=0aRCPT_TO=3cx=40y=3e?=@b.example",
    b"<user@victim.example@relay.example.nl>": "",
    b'<"user@victim.example">': "",
    b'<"user%victim.example">': "",
    b"<victim.example!user>": "",
    b"<user%victim.example>": "",
    b"<@relay.example.nl:user@victim.example@third.example>": "",
    b"<user@=?utf-8?q?victim=2eexample?=>": "",
    b"<>": "",
    b"<user@victim.example\0>": "",
    b"<user@victim.example>\r": "user@victim.example",
    b"<user@victim\r.example>": "",
    b"<user@victim.example> <other@third.example>": "",
    b"<us\x1b[2Jer@victim.example>": "",
    "<user@ban\u212a.example>".encode(): "",
    "<user@v\u0130ctim.example>".encode(): "",
    "<user@v\u202ectim.example>".encode(): "",
    b"\t<user@victim.example>\t": "user@victim.example",
}


@pytest.mark.parametrize("path", RELAYING)
@on_both_loops
async def test_no_trick_makes_another_address_of_one(house_of: HouseOf, path: bytes) -> None:
    async with house_of() as house:
        client = await house.client()
        await client.say(b"MAIL FROM:<jan@example.nl>")
        reply = await client.say(b"RCPT TO:" + path)
        if not RELAYING[path]:
            assert reply[:1] == b"5"
            assert path not in reply
        else:
            assert (await client.say(b"DATA"))[:3] == b"354"
            assert (await client.say(MESSAGE + b"."))[:3] == b"250"
            (recipient,) = (await house.entries())[0].submission.envelope.recipients
            assert str(recipient.address) == RELAYING[path]
        for event in house.observed.events:
            assert not set("\r\n\x1b\0") & set(str(event))


@on_both_loops
async def test_every_octet_in_every_command_is_answered(house_of: HouseOf) -> None:
    async with house_of(limits=configured.limits(errors=10**6)) as house:
        client = await house.client()
        count = 0
        for octet in set(range(256)) - {10}:
            one = bytes([octet])
            for word in (
                b"HELO p%bc",
                b"EHLO %b",
                b"MAIL FROM:<j%ban@example.nl>",
                b"RCPT TO:<p%b@example.com>",
                b"V%b",
            ):
                client.send(word.replace(b"%b", one) + b"\r\n")
                count += 1
            client.send(b"RSET\r\n")
            count += 1
        for _ in range(count):
            assert (await client.reply())[:1] in b"25"
        assert await client.say(b"QUIT") == replies.BYE
        assert not house.observed.of(ExceptionCaught)
