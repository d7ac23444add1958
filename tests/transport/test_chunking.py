"""A message in one write with its envelope: what arrives, what is in doubt, and who is not sent it this way."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.events import ChunkingGivenUp
from relay.mail.content import MemoryContent
from relay.mail.outcome import Deferred, Delivered, Failed, Stage, Trouble
from relay.mail.reply import Reply
from relay.transport.chunking import FRESH, in_one_write
from relay.transport.commands import WHOLE
from relay.transport.port import Delivery, DeliveryRequest
from relay.transport.smtp import SmtpTransport
from relay.transport.stuffing import START, end_of_data, stuff
from relay.transport.transaction import WHOLE_OVER_TLS, SmtpConnection
from tests.kit.certificates import Certificates
from tests.kit.upstream import (
    CLOSE,
    DROP,
    KEYWORDS,
    SILENCE,
    STOP_READING,
    Act,
    Fault,
    ScriptedUpstream,
    half,
    then_drop,
)
from tests.transport.conftest import Run
from tests.transport.parts import MESSAGE, PATIENT, SOON, Seen, connected, request, transport_to
from tests.transport.test_transaction import ANNA, CONTENTS, KEES, PIET, AGate, words

CHUNKING = (*KEYWORDS, "CHUNKING")


def at_once(*recipients: str, **more: Any) -> DeliveryRequest:
    return request(*recipients, **{"at_once": True, **more})


def verbs(upstream: ScriptedUpstream) -> list[str]:
    return [command.partition(" ")[0] for command in upstream.commands[1:]]


class Line:
    """A transport to an upstream that offers CHUNKING, and what it told."""

    def __init__(self, upstream: ScriptedUpstream, **settings: Any) -> None:
        self.seen = Seen()
        self.transport: SmtpTransport = transport_to(upstream, self.seen, **settings)

    @property
    def given_up(self) -> list[str]:
        return [event.why for event in self.seen.events if isinstance(event, ChunkingGivenUp)]

    async def connection(self) -> SmtpConnection:
        connection = await self.transport.connect()
        assert isinstance(connection, SmtpConnection), connection
        return connection


def scene(run: Run, play: Callable[[ScriptedUpstream, Line], Any], **settings: Any) -> None:
    async def main() -> None:
        async with ScriptedUpstream(keywords=CHUNKING) as upstream:
            await play(upstream, Line(upstream, **settings))

    run(main())


# What arrives


@pytest.mark.parametrize("apart", [False, True], ids=["in one packet", "octet by octet"])
def test_a_message_takes_one_write_and_one_round_trip(run: Run, apart: bool) -> None:
    """This upstream says nothing before it has everything."""
    expected = b"BDAT %d LAST\r\n%bEHLO relay.example.nl\r\n" % (len(MESSAGE), MESSAGE)
    offers = b"250-upstream.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING\r\n"
    replies = b"250 sender\r\n250-a\r\n250 recipient\r\n250 2.0.0 taken\r\n" + offers

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 upstream.example\r\n")
        await reader.readline()
        writer.write(offers)
        for _ in range(2):
            assert (await reader.readline()).startswith(b"MAIL FROM:<jan@example.nl>")
            assert (await reader.readline()).startswith(b"RCPT TO:<piet@example.org>")
            assert await reader.readexactly(len(expected)) == expected
            for piece in [bytes([octet]) for octet in replies] if apart else [replies]:
                writer.write(piece)
                await asyncio.sleep(0)
        await reader.readline()  # QUIT
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(speak, "127.0.0.1")
        async with server:
            upstream = ScriptedUpstream()
            upstream.port = server.sockets[0].getsockname()[1]
            connection = await connected(upstream)
            for _ in range(2):
                delivery = await connection.deliver(at_once())
                assert delivery == Delivery((Delivered(Reply(250, "2.0.0", "taken")),))
            assert connection.usable
            await connection.close()

    run(main())


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_every_byte_arrives_as_by_data(run: Run, certificates: Certificates, secured: bool) -> None:
    async def main() -> None:
        tls = {"tls": "implicit", "certificate": certificates.good} if secured else {}
        most = WHOLE_OVER_TLS if secured else WHOLE
        whole = 0
        async with ScriptedUpstream(keywords=CHUNKING, **tls) as upstream:  # type: ignore[arg-type]
            connection = await connected(upstream, tls_ca=certificates.ca_path)
            for name, message in CONTENTS.items():
                for once in (False, True):
                    delivery = await connection.deliver(request(message=message, at_once=once))
                    assert words(delivery.outcomes) == ["Delivered"]
                by_data, by_chunk = upstream.messages[-2:]
                assert by_chunk.content == by_data.content, name
                whole += len(message) < most - 1024
                assert upstream.chunks == whole, name
            await connection.close()
            assert upstream.connections == 1
            assert whole >= 8

    run(main())


ODD = st.lists(st.sampled_from([b".", b"\r", b"\n", b"\r\n", b"\r\n.", b"\0", b"\xff", b"a", b": "]), max_size=12)


@example(head=b"..\r", body=b"\n")
@example(head=b"", body=b"")
@given(head=ODD.map(b"".join), body=ODD.map(b"".join))
def test_a_chunk_is_what_data_would_bring(head: bytes, body: bytes) -> None:
    asked = replace(request(content=MemoryContent(b"x" + body, 0)), head=head, body_offset=1)
    data = in_one_write([b"MAIL\r\n", b"RCPT\r\n"], asked, b"EHLO\r\n")
    assert data is not None
    commands, _, rest = data.partition(b" LAST\r\n")
    chunk, hello = rest[:-6], rest[-6:]
    assert hello == b"EHLO\r\n"
    start, _, size = commands.rpartition(b"BDAT ")
    assert (start, int(size)) == (b"MAIL\r\nRCPT\r\n", len(chunk))
    message = head + body
    by_data = stuff(message, START) + end_of_data(message[-2:] if message else START)
    content, _, rest = (START + by_data).partition(b"\r\n.\r\n")
    assert rest == b""
    assert START + chunk == (content + b"\r\n").replace(b"\r\n.", b"\r\n")


# Outcomes


BROKEN: list[tuple[str, Fault, Trouble]] = [
    ("reset", DROP, Trouble.DROPPED),
    ("closed", CLOSE, Trouble.DROPPED),
    ("half a reply", half("250-o\r\n"), Trouble.DROPPED),
    ("garbage", "<html>", Trouble.TRANSIENT),
    ("mixed codes", "250-a\r\n550 b", Trouble.TRANSIENT),
    ("a code for something else", "334 go on", Trouble.TRANSIENT),
    ("silence", SILENCE, Trouble.TIMEOUT),
]


@pytest.mark.parametrize(
    ("stage", "fault", "trouble"),
    [pytest.param(stage, *row[1:], id=f"{row[0]}-{stage}") for stage in ("mail", "rcpt", "dot") for row in BROKEN],
)
def test_a_line_that_breaks_after_the_one_write_leaves_everybody_in_doubt(
    run: Run, stage: str, fault: Fault, trouble: Trouble
) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        upstream.script(stage, fault)
        connection = await line.connection()
        delivery = await connection.deliver(at_once(PIET, KEES))
        assert delivery.sick is not None
        assert delivery.outcomes == (delivery.sick, delivery.sick)
        assert (delivery.sick.trouble, delivery.sick.in_doubt) == (trouble, True)
        assert delivery.sick.reply is None
        if fault is not DROP:  # which may overtake the replies ahead of it
            assert delivery.sick.stage == stage
        assert not connection.usable
        await connection.close()
        await upstream.until(lambda: upstream.open == 0)

    times = {"command": 20.0, "final": 20.0}
    if fault is SILENCE:
        times = {"command": 20.0, "final": SOON} if stage == "dot" else {"command": SOON, "final": 20.0}
    scene(run, play, timeouts=replace(PATIENT, **times))


@pytest.mark.parametrize("end", [CLOSE, SILENCE, "<html>", "250-a\r\n550 b"], ids=str)
@pytest.mark.parametrize("stage", ["mail", "rcpt"])
def test_what_was_refused_before_the_line_broke_was_not_taken(run: Run, stage: str, end: Fault) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        if stage == "mail":
            upstream.script("mail", "550 5.1.8 no")
        upstream.script("rcpt", "550 5.1.8 no", "550 5.1.8 no")
        upstream.script("dot", end)
        connection = await line.connection()
        delivery = await connection.deliver(at_once(PIET, KEES))
        refused = Failed(Stage(stage), Reply(550, "5.1.8", "no"))
        assert delivery.outcomes == (refused, refused)
        assert delivery.sick is not None
        assert not delivery.sick.in_doubt
        assert not connection.usable
        await connection.close()

    scene(run, play, timeouts=replace(PATIENT, command=SOON, final=SOON))


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DOT])
@pytest.mark.parametrize("fault", ["421 4.3.2 bye", then_drop("421 4.3.2 bye")], ids=["421", "421, closed"])
def test_421_says_that_nothing_was_taken(run: Run, stage: Stage, fault: Fault) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        upstream.script(stage, fault)
        connection = await line.connection()
        sick = Deferred(stage, Trouble.TRANSIENT, "bye", Reply(421, "4.3.2", "bye"), upstream_sick=True)
        assert await connection.deliver(at_once(PIET, KEES)) == Delivery((sick, sick), sick)
        assert not connection.usable
        await connection.close()
        assert line.given_up == []

    scene(run, play)


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DOT])
def test_a_refusal_is_the_outcome_and_the_next_message_goes_behind_rset(run: Run, stage: Stage) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        connection = await line.connection()
        upstream.script(stage, "451 4.3.0 later")
        delivery = await connection.deliver(at_once())
        reply = Reply(451, "4.3.0", "later")
        assert delivery == Delivery((Deferred(stage, Trouble.TRANSIENT, "later", reply),))
        # RSET wants its answer before the content, so this one goes step by step.
        assert words((await connection.deliver(at_once())).outcomes) == ["Delivered"]
        upstream.script(stage, "550 5.7.1 never")
        assert await connection.deliver(at_once()) == Delivery((Failed(stage, Reply(550, "5.7.1", "never")),))
        assert words((await connection.deliver(at_once())).outcomes) == ["Delivered"]
        assert words((await connection.deliver(at_once())).outcomes) == ["Delivered"]
        await connection.close()
        whole, one_by_one = ["MAIL", "RCPT", "BDAT", "EHLO"], ["RSET", "MAIL", "RCPT", "DATA"]
        assert verbs(upstream) == [*whole, *one_by_one, *whole, *one_by_one, *whole, "QUIT"]
        assert len(upstream.messages) == 3
        assert line.given_up == []

    scene(run, play)


def test_recipients_that_are_refused_do_not_keep_the_others_from_their_mail(run: Run) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        connection = await line.connection()
        for said, last in (
            ("250 2.0.0 ok", Delivered(Reply(250, "2.0.0", "ok"))),
            ("554 5.6.0 no", Failed(Stage.DOT, Reply(554, "5.6.0", "no"))),
        ):
            upstream.script("rcpt", "450 4.7.1 greylisted", "250 2.1.5 ok", "550 5.1.1 unknown")
            upstream.script("dot", said)
            delivery = await connection.deliver(at_once(PIET, KEES, ANNA))
            assert delivery == Delivery(
                (
                    Deferred(Stage.RCPT, Trouble.TRANSIENT, "greylisted", Reply(450, "4.7.1", "greylisted")),
                    last,
                    Failed(Stage.RCPT, Reply(550, "5.1.1", "unknown")),
                )
            )
        assert [one.recipients for one in upstream.messages] == [(KEES,)]
        assert upstream.chunks == 2
        await connection.close()

    scene(run, play)


def test_who_was_refused_stays_so_when_the_answer_to_the_rest_is_lost(run: Run) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        upstream.script("rcpt", "550 5.1.1 unknown", "250 ok")
        upstream.script("dot", CLOSE)
        delivery = await (await line.connection()).deliver(at_once(PIET, KEES))
        assert words(delivery.outcomes) == ["Failed", "Deferred"]
        assert delivery.sick is not None
        assert delivery.sick.in_doubt

    scene(run, play)


@pytest.mark.parametrize("answer", ["250 whatever", "503 5.5.1 what for?", "554 no valid recipients"])
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT])
def test_what_is_said_to_a_message_with_nobody_to_receive_it_says_nothing(run: Run, stage: Stage, answer: str) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        connection = await line.connection()
        upstream.script(stage, "550 5.1.1 no")
        upstream.script("dot", answer)
        assert await connection.deliver(at_once()) == Delivery((Failed(stage, Reply(550, "5.1.1", "no")),))
        assert words((await connection.deliver(at_once(KEES))).outcomes) == ["Delivered"]
        assert [one.recipients for one in upstream.messages] == [(KEES,)]
        assert upstream.resets == 1
        await connection.close()
        assert line.given_up == []

    scene(run, play)


def test_a_reply_that_makes_no_sense_leaves_nothing_in_doubt_when_the_message_was_refused(run: Run) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        upstream.script("mail", "334 go on")
        upstream.script("dot", "554 5.6.0 no")
        delivery = await (await line.connection()).deliver(at_once())
        assert delivery.sick is not None
        assert (delivery.sick.stage, delivery.sick.in_doubt) == (Stage.MAIL, False)

    scene(run, play)


def test_more_than_was_asked_for_takes_nothing_back(run: Run) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        upstream.script("dot", b"250 2.0.0 ok\r\n<html>")
        connection = await line.connection()
        assert await connection.deliver(at_once()) == Delivery((Delivered(Reply(250, "2.0.0", "ok")),))
        assert not connection.usable
        assert line.given_up == []

    scene(run, play)


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_a_message_that_has_not_left_whole_is_not_in_doubt(run: Run, certificates: Certificates, secured: bool) -> None:
    async def main() -> None:
        tls = {"tls": "implicit", "certificate": certificates.good} if secured else {}
        async with ScriptedUpstream(keywords=CHUNKING, receive_buffer=2048, **tls) as upstream:  # type: ignore[arg-type]
            upstream.script("ehlo", STOP_READING)
            line = Line(upstream, tls_ca=certificates.ca_path, timeouts=replace(PATIENT, progress=SOON, command=SOON))
            connection = await line.connection()
            connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
            # Over TLS, 16 KiB may be held unseen: what is larger goes step by step, and has not begun.
            delivery = await connection.deliver(
                at_once(message=b"A: b\r\n\r\n" + b"x" * (20_000 if secured else 200_000))
            )
            assert delivery.sick is not None
            assert (delivery.sick.stage, delivery.sick.trouble) == (
                Stage.MAIL if secured else Stage.BODY,
                Trouble.TIMEOUT,
            )
            assert not delivery.sick.in_doubt
            upstream.read_on()
            await upstream.until(lambda: upstream.open == 0)
            assert upstream.messages == []
            await connection.close()

    run(main())


def test_a_message_that_found_the_connection_gone_has_not_begun(run: Run) -> None:
    """The reset had come, and nobody had looked: so another connection may be tried at once."""
    go = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def speak() -> None:
        peer, _ = listening.accept()
        with peer:
            peer.sendall(b"220 upstream.example\r\n")
            peer.recv(1024)
            peer.sendall(b"250-upstream.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
            go.wait(20)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def main() -> None:
        upstream = ScriptedUpstream()
        upstream.port = listening.getsockname()[1]
        speaker = threading.Thread(target=speak)
        speaker.start()
        line = Line(upstream)
        connection = await line.connection()
        go.set()
        speaker.join()  # and the loop has no turn before the write
        delivery = await connection.deliver(at_once())
        assert delivery.sick is not None
        assert (delivery.sick.stage, delivery.sick.trouble) == (Stage.MAIL, Trouble.DROPPED)
        assert not delivery.sick.in_doubt
        assert line.given_up == []
        await connection.close()

    with listening:
        run(main())


def test_a_message_given_up_does_not_arrive_from_the_buffers_of_the_kernel(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(keywords=CHUNKING, receive_buffer=2048) as upstream:
            upstream.script("ehlo", STOP_READING)
            connection = await connected(upstream, timeouts=replace(PATIENT, command=SOON))
            delivery = await connection.deliver(at_once(message=b"A: b\r\n\r\n" + b"x" * 100_000))
            assert delivery.sick is not None
            assert (delivery.sick.stage, delivery.sick.in_doubt) == (Stage.MAIL, True)
            upstream.read_on()
            await upstream.until(lambda: upstream.open == 0)
            assert upstream.messages == []
            await connection.close()

    run(main())


def test_a_refusal_in_mid_content_ends_the_connection(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(keywords=CHUNKING, receive_buffer=2048) as upstream:
            upstream.script("body", Act(b"552 5.3.4 too much\r\n", "stop-reading"))
            connection = await connected(upstream)
            connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
            delivery = await connection.deliver(at_once(message=b"A: b\r\n\r\n" + b"x" * 250_000))
            assert delivery == Delivery((Failed(Stage.DOT, Reply(552, "5.3.4", "too much")),))
            assert not connection.usable
            await connection.close()

    run(main())


def test_a_message_that_is_taken_before_it_has_left_was_not_taken(run: Run) -> None:
    """The upstream gives a reply too many, and it is not the one to BDAT."""

    async def main() -> None:
        async with ScriptedUpstream(keywords=CHUNKING, receive_buffer=2048) as upstream:
            upstream.script("body", Act(b"250 2.0.0 ok\r\n", "stop-reading"))
            line = Line(upstream)
            connection = await line.connection()
            connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
            delivery = await connection.deliver(at_once(message=b"A: b\r\n\r\n" + b"x" * 250_000))
            assert delivery.sick is not None
            assert (delivery.sick.stage, delivery.sick.in_doubt) == (Stage.BODY, False)
            assert not connection.usable
            assert line.given_up == ["a message that was sent by BDAT was answered before it had left whole"]
            await connection.close()

    run(main())


def test_a_message_that_was_taken_and_refused_in_one_breath_is_in_doubt(run: Run) -> None:
    """Which of the two replies speaks of it, nobody knows: here it is the second."""

    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        upstream.script("rcpt", b"250 ok\r\n250 ok again\r\n")
        upstream.script("dot", "554 5.6.0 no")
        delivery = await (await line.connection()).deliver(at_once())
        assert delivery.sick is not None
        assert (delivery.sick.stage, delivery.sick.in_doubt) == (Stage.DOT, True)
        assert upstream.messages == []
        assert line.given_up == ["a message that was sent by BDAT was answered, with a refusal behind that"]

    scene(run, play)


def test_a_delivery_that_is_cancelled_resets_the_connection(run: Run) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        upstream.script("dot", SILENCE)
        connection = await line.connection()
        task = asyncio.create_task(connection.deliver(at_once()))
        await upstream.until(lambda: upstream.chunks == 1)
        assert connection.past_dot
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not connection.usable
        await upstream.until(lambda: upstream.open == 0)

    scene(run, play)


# An upstream that does not do it well


@pytest.mark.parametrize("code", [500, 501, 502, 503, 504])
def test_an_upstream_that_does_not_know_bdat_gets_the_message_by_data_next_time(run: Run, code: int) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        upstream.script("bdat", f"{code} 5.5.1 what?", times=None)
        beside = await line.connection()
        connection = await line.connection()
        delivery = await connection.deliver(at_once(PIET, KEES))
        outcome = Deferred(Stage.DOT, Trouble.TRANSIENT, f"the upstream answered BDAT with {code}")
        assert delivery == Delivery((outcome, outcome))
        assert not connection.usable
        assert line.given_up == [f"it offered CHUNKING, and answered BDAT with {code}"]
        for other in (beside, await line.connection()):
            assert words((await other.deliver(at_once())).outcomes) == ["Delivered"]
            await other.close()
        assert upstream.chunks == 0
        assert len(line.given_up) == 1
        # After a reload it may have learned it.
        upstream.unscript("bdat")
        line.transport.reload()
        assert words((await (await line.connection()).deliver(at_once())).outcomes) == ["Delivered"]
        assert upstream.chunks == 1

    scene(run, play)


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT])
def test_an_upstream_that_takes_a_refused_message_for_commands_gets_no_more_that_way(run: Run, stage: Stage) -> None:
    """Each line of the message has an answer there: in the same packet as the refusal, or later."""

    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        upstream.script("bdat", "503 5.5.1 not now")
        upstream.script(stage, "550 5.1.1 no")
        connection = await line.connection()
        delivery = await connection.deliver(at_once())
        assert delivery == Delivery((Failed(stage, Reply(550, "5.1.1", "no")),))
        await upstream.until(lambda: "Bijgaand." in upstream.commands or upstream.open == 0)
        # The next one finds out, where the answers had not come yet.
        await connection.deliver(at_once())
        assert line.given_up == ["it read a message that it had refused as commands"]
        assert upstream.messages == []

    scene(run, play)


@pytest.mark.parametrize("fault", [SILENCE, CLOSE, "<html>"], ids=["silence", "closed", "garbage"])
def test_an_upstream_that_breaks_at_its_first_message_gets_no_more_that_way(run: Run, fault: Fault) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        upstream.script("dot", fault)
        await (await line.connection()).deliver(at_once())
        assert line.given_up == ["a message that was sent by BDAT was not answered, and none was taken before"]
        assert words((await (await line.connection()).deliver(at_once())).outcomes) == ["Delivered"]
        assert verbs(upstream)[-1] == "DATA"

    scene(run, play, timeouts=replace(PATIENT, final=SOON))


def test_an_upstream_that_took_one_may_break_at_another(run: Run) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        assert words((await (await line.connection()).deliver(at_once())).outcomes) == ["Delivered"]
        upstream.script("dot", CLOSE)
        await (await line.connection()).deliver(at_once())
        assert words((await (await line.connection()).deliver(at_once())).outcomes) == ["Delivered"]
        assert upstream.chunks == 3
        assert line.given_up == []

    scene(run, play)


# Who is not sent it this way


@pytest.mark.parametrize(
    "terms",
    [
        {"at_once": False},
        {"patience": 5.0},
        {"message": MESSAGE + b"x" * WHOLE},
        {"message": MESSAGE + b"x" * (WHOLE - len(MESSAGE))},
        {"message": MESSAGE + b"Rcpt To:<piet@example.org>\r\n"},
        {"message": b"Subject: RCPT TO:<piet@example.org>\r\n\r\nhello\r\n"},
    ],
    ids=[
        "not asked for",
        "patience",
        "large",
        "large with its envelope",
        "a body that speaks SMTP",
        "a header that speaks SMTP",
    ],
)
def test_what_may_not_go_at_once_goes_by_data(run: Run, terms: dict[str, Any]) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        connection = await line.connection()
        assert words((await connection.deliver(at_once(**terms))).outcomes) == ["Delivered"]
        assert verbs(upstream) == ["MAIL", "RCPT", "DATA"]
        await connection.close()

    scene(run, play)


def test_a_message_that_may_go_another_way_waits_for_its_gate(run: Run) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        gate = AGate(upstream, True, False)
        assert words((await (await line.connection()).deliver(at_once(gate=gate))).outcomes) == ["Delivered"]
        assert gate.asked == [["MAIL", "RCPT", "DATA"]]

    scene(run, play)


def test_an_upstream_that_was_silent_for_a_while_is_asked_first(run: Run) -> None:
    """It may have closed the connection: then nothing is to be in doubt."""

    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        connection = await line.connection()
        connection._heard -= FRESH
        for last in (["RCPT", "DATA"], ["BDAT", "EHLO"]):
            assert words((await connection.deliver(at_once())).outcomes) == ["Delivered"]
            assert verbs(upstream)[-2:] == last
        connection._heard -= FRESH
        assert await connection.refresh()
        assert words((await connection.deliver(at_once())).outcomes) == ["Delivered"]
        assert verbs(upstream)[-2:] == ["BDAT", "EHLO"]
        await connection.close()

    scene(run, play)


@pytest.mark.parametrize("missing", ["PIPELINING", "CHUNKING"])
def test_an_upstream_has_to_offer_both(run: Run, missing: str) -> None:
    async def main() -> None:
        async with ScriptedUpstream(keywords=tuple(word for word in CHUNKING if word != missing)) as upstream:
            connection = await connected(upstream)
            assert words((await connection.deliver(at_once())).outcomes) == ["Delivered"]
            assert verbs(upstream)[-1] == "DATA"
            await connection.close()

    run(main())


def test_the_configuration_can_forbid_it(run: Run) -> None:
    async def play(upstream: ScriptedUpstream, line: Line) -> None:
        for _ in range(2):
            assert words((await (await line.connection()).deliver(at_once())).outcomes) == ["Delivered"]
            line.transport.reload()
        assert upstream.chunks == 0

    scene(run, play, chunking=False)


def test_a_message_that_cannot_be_taken_as_it_is_goes_at_once_when_re_encoded(run: Run) -> None:
    async def main() -> None:
        keywords = tuple(word for word in CHUNKING if word not in ("8BITMIME", "SMTPUTF8"))
        async with ScriptedUpstream(keywords=keywords) as upstream:
            connection = await connected(upstream)
            message = MESSAGE.replace(b"\r\n\r\n", b"\r\nMIME-Version: 1.0\r\n\r\n") + b"caf\xc3\xa9\r\n"
            delivery = await connection.deliver(at_once(message=message))
            assert words(delivery.outcomes) == ["Delivered"]
            assert delivery.reencoding is not None
            assert upstream.chunks == 1
            assert (await upstream.message()).content.isascii()
            await connection.close()

    run(main())
