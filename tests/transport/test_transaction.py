"""How a transaction ends: stage by fault, against real sockets, pipelined and not, over TLS and not."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.durable import Directory
from relay.mail.address import Address
from relay.mail.envelope import Recipient
from relay.mail.outcome import Deferred, Delivered, Failed, Outcome, Stage, Trouble
from relay.mail.reply import Reply
from relay.queue.content import FileContent
from relay.transport.commands import WHOLE
from relay.transport.port import CALLED_OFF, Delivery
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
from tests.transport.parts import MESSAGE, PATIENT, SOON, connected, request

ONE_BY_ONE = tuple(word for word in KEYWORDS if word != "PIPELINING")
BOTH_WAYS = pytest.mark.parametrize("keywords", [KEYWORDS, ONE_BY_ONE], ids=["pipelined", "one by one"])
STAGES = [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT]
BROKEN: list[tuple[str, Fault, Trouble]] = [
    ("reset", DROP, Trouble.DROPPED),
    ("closed", CLOSE, Trouble.DROPPED),
    ("half a line", half("250 o"), Trouble.DROPPED),
    ("half a reply", half("250-o\r\n"), Trouble.DROPPED),
    ("garbage", "<html>", Trouble.TRANSIENT),
    ("oversized", b"250 " + b"x" * 70_000 + b"\r\n", Trouble.TRANSIENT),
    ("mixed codes", "250-a\r\n550 b", Trouble.TRANSIENT),
    ("NUL", b"250 a\0\r\n", Trouble.TRANSIENT),
    ("a code for something else", "334 go on", Trouble.TRANSIENT),
    ("silence", SILENCE, Trouble.TIMEOUT),
]
PIET, KEES, ANNA = "piet@example.org", "kees@example.org", "anna@example.org"


async def delivered(upstream: ScriptedUpstream, *recipients: str | Recipient, **more: Any) -> Delivery:
    """The end of one transaction on a fresh connection."""
    connection = await connected(upstream)
    delivery = await connection.deliver(request(*recipients, **more))
    await connection.close()
    return delivery


def words(outcomes: tuple[Outcome, ...]) -> list[str]:
    return [type(one).__name__ for one in outcomes]


@BOTH_WAYS
@pytest.mark.parametrize(
    ("stage", "fault", "trouble"),
    [
        pytest.param(stage, *row[1:], id=f"{row[0]}-{stage}")
        for stage in STAGES
        for row in BROKEN
        if not (stage is Stage.DATA and row[1] == "334 go on")  # a 3xx is what DATA is to say
    ],
)
def test_a_line_that_breaks_defers_everybody_and_leaves_doubt_only_after_the_dot(
    run: Run, keywords: tuple[str, ...], stage: Stage, fault: Fault, trouble: Trouble
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            upstream.script(stage, fault)
            short = SOON if fault is SILENCE else 20
            connection = await connected(upstream, timeouts=replace(PATIENT, command=short, data=short, final=short))
            delivery = await connection.deliver(request(PIET, KEES))
            assert delivery.sick is not None
            assert delivery.outcomes == (delivery.sick, delivery.sick)
            sick = delivery.sick
            assert (sick.trouble, sick.upstream_sick) == (trouble, True)
            # A reset may overtake replies that were sent ahead of it in the same round trip.
            overtaken = fault is DROP and keywords is KEYWORDS and stage is not Stage.DOT
            assert sick.stage in STAGES[: STAGES.index(stage) + 1] if overtaken else sick.stage is stage
            assert sick.in_doubt is (stage is Stage.DOT)
            assert sick.reply is None
            assert not connection.usable
            await connection.close()
            await upstream.until(lambda: upstream.open == 0)

    run(scene())


@BOTH_WAYS
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "fault", ["421 4.3.2 going down", then_drop("421 4.3.2 going down")], ids=["421", "421, closed"]
)
def test_421_defers_and_ends_the_connection_wherever_it_comes(
    run: Run, keywords: tuple[str, ...], stage: Stage, fault: Fault
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            upstream.script(stage, fault)
            connection = await connected(upstream)
            delivery = await connection.deliver(request(PIET, KEES))
            reply = Reply(421, "4.3.2", "going down")
            sick = Deferred(stage, Trouble.TRANSIENT, "going down", reply, upstream_sick=True)
            assert delivery == Delivery((sick, sick), sick)
            assert not connection.usable
            await connection.close()

    run(scene())


@BOTH_WAYS
@pytest.mark.parametrize("stage", STAGES)
def test_a_transient_reply_defers_and_a_permanent_one_fails_and_the_connection_lives_on(
    run: Run, keywords: tuple[str, ...], stage: Stage
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            connection = await connected(upstream)
            upstream.script(stage, "451 4.3.0 later")
            delivery = await connection.deliver(request(PIET))
            reply = Reply(451, "4.3.0", "later")
            assert delivery == Delivery((Deferred(stage, Trouble.TRANSIENT, "later", reply),))
            upstream.script(stage, "550 5.7.1 never")
            delivery = await connection.deliver(request(PIET))
            assert delivery == Delivery((Failed(stage, Reply(550, "5.7.1", "never")),))
            delivery = await connection.deliver(request(KEES))
            assert words(delivery.outcomes) == ["Delivered"]
            assert (await upstream.message()).recipients == (KEES,)
            assert len(upstream.messages) == 1
            assert upstream.connections == 1
            await connection.close()

    run(scene())


@BOTH_WAYS
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DOT])
def test_any_2xx_is_success(run: Run, keywords: tuple[str, ...], stage: Stage) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            upstream.script(stage, "252-2.1.5 will try\r\n252 2.1.5 hard")
            assert words((await delivered(upstream)).outcomes) == ["Delivered"]
            assert (await upstream.message()).content == MESSAGE

    run(scene())


@BOTH_WAYS
def test_2xx_to_data_is_not_leave_to_send(run: Run, keywords: tuple[str, ...]) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            upstream.script("data", "250 fine")
            delivery = await delivered(upstream)
            assert delivery.sick is not None
            assert (delivery.sick.stage, delivery.sick.in_doubt) == (Stage.DATA, False)

    run(scene())


@BOTH_WAYS
def test_recipients_that_are_refused_do_not_keep_the_others_from_their_mail(
    run: Run, keywords: tuple[str, ...]
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            upstream.script("rcpt", "450 4.7.1 greylisted", "250 2.1.5 ok", "550 5.1.1 unknown")
            delivery = await delivered(upstream, PIET, KEES, ANNA)
            assert delivery.sick is None
            assert delivery.outcomes == (
                Deferred(Stage.RCPT, Trouble.TRANSIENT, "greylisted", Reply(450, "4.7.1", "greylisted")),
                Delivered(Reply(250, "2.0.0", "queued as 1")),
                Failed(Stage.RCPT, Reply(550, "5.1.1", "unknown")),
            )
            assert (await upstream.message()).recipients == (KEES,)

    run(scene())


@BOTH_WAYS
def test_a_greylisted_recipient_stays_deferred_when_data_is_refused_for_good(
    run: Run, keywords: tuple[str, ...]
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            upstream.script("rcpt", "450 4.7.1 greylisted")
            upstream.script("data", "554 5.7.1 never")
            delivery = await delivered(upstream, PIET, KEES)
            assert words(delivery.outcomes) == ["Deferred", "Failed"]

    run(scene())


@BOTH_WAYS
def test_who_was_refused_for_good_stays_so_when_421_follows(run: Run, keywords: tuple[str, ...]) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            upstream.script("rcpt", "550 5.1.1 unknown", "250 ok", "421 4.3.2 too much")
            delivery = await delivered(upstream, PIET, KEES, ANNA)
            assert words(delivery.outcomes) == ["Failed", "Deferred", "Deferred"]
            assert delivery.sick is not None
            assert delivery.sick.stage is Stage.RCPT

    run(scene())


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT])
def test_data_that_was_taken_with_nobody_to_receive_ends_with_a_lone_dot(run: Run, stage: Stage) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            connection = await connected(upstream)
            upstream.script(stage, "550 5.1.1 no", "550 5.1.1 no")
            upstream.script("data", "354 whatever")
            delivery = await connection.deliver(request(PIET))
            assert delivery == Delivery((Failed(stage, Reply(550, "5.1.1", "no")),))
            upstream.unscript(stage)
            assert words((await connection.deliver(request(KEES))).outcomes) == ["Delivered"]
            assert [one.recipients for one in upstream.messages] == [(KEES,)]
            assert upstream.resets == 0
            await connection.close()

    run(scene())


@BOTH_WAYS
def test_an_envelope_left_behind_is_reset_ahead_of_the_next(run: Run, keywords: tuple[str, ...]) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            connection = await connected(upstream)
            upstream.script("data", "451 4.3.0 later")
            await connection.deliver(request(PIET))
            await connection.deliver(request(KEES))
            await connection.deliver(request(ANNA))
            assert [one.recipients for one in upstream.messages] == [(KEES,), (ANNA,)]
            assert upstream.resets == 1
            upstream.script("rcpt", "550 5.1.1 no")
            await connection.deliver(request(PIET))
            upstream.script("rset", "500 5.5.1 what?")
            delivery = await connection.deliver(request(KEES))
            assert delivery.sick is not None
            assert delivery.outcomes == (delivery.sick,)
            await connection.close()

    run(scene())


def test_the_envelope_goes_out_in_one_write_where_pipelining_is_offered(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            connection = await connected(upstream)
            writes: list[bytes] = []
            connection._transport = _Recording(connection._transport, writes)  # type: ignore[assignment]
            await connection.deliver(request(PIET, KEES))
            assert len(writes) == 2
            assert writes[0].count(b"\r\n") == 4
            assert writes[1] == MESSAGE + b".\r\n"
            await connection.close()

    run(scene())


class _Recording:
    def __init__(self, transport: asyncio.Transport, writes: list[bytes]) -> None:
        self._transport = transport
        self._writes = writes

    def write(self, data: bytes) -> None:
        self._writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


# Parameters


def test_parameters_go_to_an_upstream_that_offers_them(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            message = "A: b\r\n\r\né\r\n".encode()
            asked = Recipient(Address.of(PIET), frozenset({"success", "delay"}), "rfc822;piet@example.org")
            delivery = await delivered(
                upstream,
                asked,
                Recipient(Address.of(KEES), frozenset({"never"})),
                message=message,
                ret="hdrs",
                envid="q1",
            )
            assert delivery.outcomes == (Delivered(Reply(250, "2.0.0", "queued as 1"), reported=True),) * 2
            got = await upstream.message()
            assert got.mail_parameters == (f"SIZE={len(message)}", "BODY=8BITMIME", "RET=HDRS", "ENVID=q1")
            assert got.rcpt_parameters == (
                ("NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;piet@example.org"),
                ("NOTIFY=NEVER",),
            )
            await delivered(upstream)
            assert (await upstream.message(2)).mail_parameters == (f"SIZE={len(MESSAGE)}",)

    run(scene())


def test_an_upstream_that_offers_nothing_gets_no_parameters(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=()) as upstream:
            message = "A: b\r\n\r\né\r\n".encode()
            asked = Recipient(Address.of(PIET), frozenset({"success"}), "rfc822;piet@example.org")
            delivery = await delivered(upstream, asked, message=message, ret="hdrs", smtputf8=True)
            assert delivery.outcomes == (Delivered(Reply(250, "2.0.0", "queued as 1")),)
            got = await upstream.message()
            assert (got.mail_parameters, got.rcpt_parameters) == ((), ((),))
            declared = b"Content-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n"
            assert got.content == b"A: b\r\n" + declared + b"\r\n=C3=A9\r\n"

    run(scene())


def test_the_null_reverse_path_is_sent_as_such(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            await delivered(upstream, reverse_path=None)
            assert (await upstream.message()).reverse_path == ""

    run(scene())


@pytest.mark.parametrize("offered", [True, False])
@pytest.mark.parametrize("where", ["recipient", "reverse-path", "head"])
def test_mail_that_needs_smtputf8_goes_only_where_it_is_offered(run: Run, offered: bool, where: str) -> None:
    async def scene() -> None:
        keywords = tuple(word for word in KEYWORDS if offered or word != "SMTPUTF8")
        async with ScriptedUpstream(keywords=keywords) as upstream:
            recipient = "jürgen@example.org" if where == "recipient" else PIET
            reverse_path = Address.of("jürgen@example.org" if where == "reverse-path" else "jan@example.nl")
            message = "Subject: é\r\n\r\n".encode() if where == "head" else MESSAGE
            delivery = await delivered(upstream, recipient, message=message, smtputf8=True, reverse_path=reverse_path)
            if offered:
                assert words(delivery.outcomes) == ["Delivered"]
                got = await upstream.message()
                assert "SMTPUTF8" in got.mail_parameters
                assert got.recipients == (recipient,)
            elif where == "head":  # a header can be said without
                assert words(delivery.outcomes) == ["Delivered"]
                assert (await upstream.message()).content == b"Subject: =?utf-8?b?w6k=?=\r\n\r\n"
            else:
                (outcome,) = delivery.outcomes
                assert isinstance(outcome, Failed)
                assert (outcome.reply.code, outcome.reply.status) == (550, "5.6.7")
                assert delivery.sick is None
                assert not any(line.startswith("MAIL") for line in upstream.commands)

    run(scene())


def test_a_message_above_the_offered_size_fails_without_being_sent(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=("PIPELINING", "SIZE 20")) as upstream:
            (outcome,) = (await delivered(upstream)).outcomes
            assert isinstance(outcome, Failed)
            assert (outcome.reply.code, outcome.reply.status) == (552, "5.3.4")
            assert not any(line.startswith("MAIL") for line in upstream.commands)

    run(scene())


@pytest.mark.parametrize("local", ["a\r\nRSET", "a\nb", "a\0b", "a\rb", "a\udcffb"])
def test_an_address_that_would_end_its_command_is_never_sent(run: Run, local: str) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            delivery = await delivered(upstream, PIET, f"{local}@example.org", smtputf8=True)
            assert words(delivery.outcomes) == ["Failed", "Failed"]
            assert [line.split()[0] for line in upstream.commands] in (["EHLO"], ["EHLO", "QUIT"])

    run(scene())


# Content


CONTENTS = {
    "empty": b"",
    "a dot": b".",
    "two dots on a line": b"..\r\n",
    "no line end": b"A: b\r\n\r\nhello",
    "a CR at the end": b"A: b\r\n\r\nhello\r",
    "an end of data": b"A: b\r\n\r\n.\r\n.\r\nRSET\r\n",
    "bare line feeds": b"A: b\r\n\r\n\n.\n.\r.\r\n",
    "NUL and 8-bit": b"A: b\r\n\r\n\0\xff\xfe\r\n",
    "a long line": b"A: b\r\n\r\n" + b"x" * 100_000,
    "dots at every edge": b"A: b\r\n\r\n" + b".\r\n" * 300_000,
    "edges moved by one": b"A: b\r\n\r\nx" + b".\r\n" * 300_000,
    "edges moved by two": b"A: b\r\n\r\nxx" + b".\r\n" * 300_000,
}


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kept", ["memory", "file"])
def test_every_byte_arrives_as_it_was(
    run: Run, certificates: Certificates, tmp_path: Path, secured: bool, kept: str
) -> None:
    async def scene() -> None:
        tls = {"tls": "implicit", "certificate": certificates.good} if secured else {}
        async with ScriptedUpstream(**tls) as upstream:  # type: ignore[arg-type]
            connection = await connected(upstream, tls_ca=certificates.ca_path)
            for number, (name, message) in enumerate(CONTENTS.items(), 1):
                content = None
                if kept == "file":
                    path = tmp_path / "spooled"
                    path.write_bytes(message)
                    head = message[: message.find(b"\r\n\r\n") + 4] if b"\r\n\r\n" in message else b""
                    content = FileContent(Directory(path.parent), path.name, len(message), head)
                asked = request(message=message, content=content)
                assert words((await connection.deliver(asked)).outcomes) == ["Delivered"]
                whole = message if message.endswith(b"\r\n") or not message else message + b"\r\n"
                assert (await upstream.message(number)).content == whole, name
            await connection.close()
            assert upstream.connections == 1

    run(scene())


def test_a_new_head_goes_before_the_old_body(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            await delivered(upstream, head=b"From: ander@example.nl\r\n\r\n")
            assert (await upstream.message()).content == b"From: ander@example.nl\r\n\r\nBijgaand.\r\n"

    run(scene())


def test_content_that_ends_before_its_size_is_never_finished_with_a_dot(run: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            path = tmp_path / "spooled"
            path.write_bytes(b"A: b\r\n\r\nshort\r\n")
            connection = await connected(upstream)
            with pytest.raises(OSError, match="ends before its size"):
                await connection.deliver(
                    request(content=FileContent(Directory(path.parent), path.name, 10_000, b"A: b\r\n\r\n"))
                )
            assert not connection.usable
            await connection.close()
            await upstream.until(lambda: upstream.open == 0)
            assert upstream.messages == []

    run(scene())


BIG = b"A: b\r\n\r\n" + b"0123456789abcde\r\n" * 1_500_000


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kept", ["memory", "file"])
@pytest.mark.parametrize("stops_at", ["data", "body"])
def test_an_upstream_that_stops_reading_is_given_up_and_never_gets_the_message(
    run: Run, certificates: Certificates, tmp_path: Path, secured: bool, kept: str, stops_at: str
) -> None:
    async def scene() -> None:
        tls = {"tls": "implicit", "certificate": certificates.good} if secured else {}
        async with ScriptedUpstream(receive_buffer=4096, **tls) as upstream:  # type: ignore[arg-type]
            upstream.script(stops_at, STOP_READING)
            content = None
            if kept == "file":
                (tmp_path / "spooled").write_bytes(BIG)
                content = FileContent(Directory(tmp_path), "spooled", len(BIG), BIG[:8])
            connection = await connected(
                upstream, tls_ca=certificates.ca_path, timeouts=replace(PATIENT, progress=SOON)
            )
            delivery = await connection.deliver(request(message=BIG, content=content))
            assert delivery.sick is not None
            assert (delivery.sick.stage, delivery.sick.trouble) == (Stage.BODY, Trouble.TIMEOUT)
            assert not delivery.sick.in_doubt
            upstream.read_on()
            await upstream.until(lambda: upstream.open == 0)
            assert upstream.messages == []
            assert b"\r\n.\r\n" not in upstream.rest
            await connection.close()

    run(scene())


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("size", [10_000, 40_000, 200_000])
def test_a_message_that_has_not_left_whole_is_not_in_doubt(
    run: Run, certificates: Certificates, secured: bool, size: int
) -> None:
    async def scene() -> None:
        tls = {"tls": "implicit", "certificate": certificates.good} if secured else {}
        async with ScriptedUpstream(receive_buffer=2048, **tls) as upstream:  # type: ignore[arg-type]
            upstream.script("data", STOP_READING)
            connection = await connected(
                upstream, tls_ca=certificates.ca_path, timeouts=replace(PATIENT, progress=SOON, final=SOON)
            )
            # The kernel is to hold little of it.
            connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
            delivery = await connection.deliver(request(message=b"A: b\r\n\r\n" + b"x" * size))
            assert delivery.sick is not None
            assert delivery.sick.trouble is Trouble.TIMEOUT
            if size > 10_000:  # what one write over TLS may hide is not known
                assert delivery.sick.stage is Stage.BODY
            assert delivery.sick.in_doubt is (delivery.sick.stage is Stage.DOT)
            upstream.read_on()
            await upstream.until(lambda: upstream.open == 0)
            assert upstream.messages == []
            await connection.close()

    run(scene())


def test_a_message_given_up_does_not_arrive_from_the_buffers_of_the_kernel(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(receive_buffer=2048) as upstream:
            upstream.script("data", STOP_READING)
            connection = await connected(upstream, timeouts=replace(PATIENT, final=SOON))
            delivery = await connection.deliver(request(message=b"A: b\r\n\r\n" + b"x" * 100_000))
            assert delivery.sick is not None
            assert delivery.sick.stage is Stage.DOT
            assert delivery.sick.in_doubt
            upstream.read_on()
            await upstream.until(lambda: upstream.open == 0)
            assert upstream.messages == []
            await connection.close()

    run(scene())


def test_an_upstream_that_reads_again_in_time_gets_the_message(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(receive_buffer=4096) as upstream:
            stopped = asyncio.Event()

            def stop(_: object) -> Act:
                stopped.set()
                return STOP_READING

            upstream.script("body", stop)
            connection = await connected(upstream)
            task = asyncio.create_task(connection.deliver(request(message=BIG)))
            await stopped.wait()
            upstream.read_on()
            assert words((await task).outcomes) == ["Delivered"]
            assert (await upstream.message()).content == BIG
            await connection.close()

    run(scene())


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_an_upstream_that_reads_slowly_but_steadily_is_not_given_up(
    run: Run, certificates: Certificates, secured: bool
) -> None:
    async def scene() -> None:
        tls = {"tls": "implicit", "certificate": certificates.good} if secured else {}
        async with ScriptedUpstream(receive_buffer=4096, **tls) as upstream:  # type: ignore[arg-type]
            upstream.pause = 0.03  # for each 64 KiB
            message, progress = BIG[: 128 + 64 * 1024 * 90], 0.3
            connection = await connected(
                upstream, tls_ca=certificates.ca_path, timeouts=replace(PATIENT, progress=progress)
            )
            begun = asyncio.get_running_loop().time()
            delivery = await connection.deliver(request(message=message))
            assert words(delivery.outcomes) == ["Delivered"]
            assert asyncio.get_running_loop().time() - begun > 5 * progress
            assert len((await upstream.message()).content) - len(message) in (0, 2)
            await connection.close()

    run(scene())


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("fault", [DROP, CLOSE], ids=["reset", "closed"])
def test_a_connection_that_ends_in_mid_content_leaves_nothing_in_doubt(
    run: Run, certificates: Certificates, secured: bool, fault: Fault
) -> None:
    async def scene() -> None:
        tls = {"tls": "implicit", "certificate": certificates.good} if secured else {}
        async with ScriptedUpstream(receive_buffer=4096, **tls) as upstream:  # type: ignore[arg-type]
            upstream.script("body", fault)
            connection = await connected(upstream, tls_ca=certificates.ca_path)
            delivery = await connection.deliver(request(message=BIG))
            assert delivery.sick is not None
            assert (delivery.sick.stage, delivery.sick.trouble) == (Stage.BODY, Trouble.DROPPED)
            assert not delivery.sick.in_doubt
            await connection.close()

    run(scene())


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("552 5.3.4 too big", "Failed"),
        ("452 4.3.1 full", "Deferred"),
        ("250 ok", "Deferred"),
        ("421 4.3.2 bye", "Deferred"),
    ],
)
@pytest.mark.parametrize("whole", [False, True], ids=["in pieces", "in one write"])
def test_an_answer_in_mid_content_counts_and_ends_the_connection(run: Run, answer: str, word: str, whole: bool) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(receive_buffer=4096) as upstream:

            def answer_and_stop(_: object) -> Act:
                return Act(answer.encode() + b"\r\n", "silence")

            upstream.script("body", answer_and_stop)
            connection = await connected(upstream)
            connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            message = BIG[: WHOLE - 1] if whole else BIG
            (outcome,) = (await connection.deliver(request(message=message))).outcomes
            assert type(outcome).__name__ == word
            assert not isinstance(outcome, Delivered)
            assert outcome.stage is Stage.BODY
            assert not (isinstance(outcome, Deferred) and outcome.in_doubt)
            assert not connection.usable
            await connection.close()

    run(scene())


# Patience, cancelling, the connection between transactions


@BOTH_WAYS
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA])
def test_patience_ends_before_the_content(run: Run, keywords: tuple[str, ...], stage: Stage) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            upstream.script(stage, SILENCE)
            delivery = await delivered(upstream, patience=0.1)
            assert delivery.sick is not None
            assert (delivery.sick.stage, delivery.sick.trouble) == (stage, Trouble.TIMEOUT)
            assert not delivery.sick.in_doubt
            assert "in time" in delivery.sick.text

    run(scene())


def test_patience_does_not_count_once_the_content_is_on_its_way(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            connection = await connected(upstream, timeouts=replace(PATIENT, final=0.6))
            upstream.script("dot", SILENCE)
            delivery = await connection.deliver(request(patience=0.4))
            assert delivery.sick is not None
            assert "within 0.6 s" in delivery.sick.text
            assert delivery.sick.in_doubt
            await connection.close()

    run(scene())


@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.BODY, Stage.DOT])
def test_a_delivery_that_is_cancelled_resets_the_connection(run: Run, stage: Stage) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(receive_buffer=4096) as upstream:
            reached = asyncio.Event()

            def stall(_: object) -> Act:
                reached.set()
                return STOP_READING if stage is Stage.BODY else SILENCE

            upstream.script(stage, stall)
            connection = await connected(upstream)
            message = MESSAGE if stage is Stage.DOT else BIG
            task = asyncio.create_task(connection.deliver(request(message=message)))
            await reached.wait()
            assert connection.past_dot is (stage is Stage.DOT)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not connection.usable
            upstream.read_on()
            await upstream.until(lambda: upstream.open == 0)
            await connection.close()

    run(scene())


@pytest.mark.parametrize("said", [b"", b"421 4.4.2 idle too long\r\n", b"250 what?\r\n"])
def test_an_idle_connection_that_stirs_is_not_used_again(run: Run, said: bytes) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            sessions: list[Any] = []
            upstream.script("mail", sessions.append)
            connection = await connected(upstream)
            await connection.deliver(request())
            assert connection.usable
            if said:
                sessions[0].writer.write(said)
            else:
                sessions[0].writer.close()
            await upstream.until(lambda: upstream.open == 0)
            while connection.usable:
                await asyncio.sleep(0)
            delivery = await connection.deliver(request(PIET, KEES))
            assert words(delivery.outcomes) == ["Deferred", "Deferred"]
            assert delivery.sick is not None
            assert (delivery.sick.trouble, delivery.sick.in_doubt) == (Trouble.DROPPED, False)
            assert len(upstream.messages) == 1
            await connection.close()

    run(scene())


def test_a_goodbye_in_the_same_breath_as_the_250_takes_nothing_back(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            upstream.script("dot", b"250 2.0.0 taken\r\n421 4.3.2 bye\r\n")
            connection = await connected(upstream)
            delivery = await connection.deliver(request())
            assert delivery == Delivery((Delivered(Reply(250, "2.0.0", "taken")),))
            assert not connection.usable
            await connection.close()

    run(scene())


def test_what_makes_no_sense_behind_the_250_takes_nothing_back(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            upstream.script("dot", b"250 2.0.0 taken\r\n<html>\r\n")
            connection = await connected(upstream)
            delivery = await connection.deliver(request())
            assert delivery == Delivery((Delivered(Reply(250, "2.0.0", "taken")),))
            assert not connection.usable
            await connection.close()

    run(scene())


def test_more_replies_than_commands_make_no_outcome(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            upstream.script("mail", b"250 ok\r\n250 again\r\n")
            delivery = await delivered(upstream)
            assert delivery.sick is not None
            assert words(delivery.outcomes) == ["Deferred"]
            assert upstream.messages == []

    run(scene())


@pytest.mark.parametrize("fault", [None, SILENCE, DROP, CLOSE, "500 what?"])
def test_closing_says_goodbye_and_never_hangs(run: Run, fault: Fault | None) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            if fault is not None:
                upstream.script("quit", fault)
            connection = await connected(upstream)
            await connection.close()
            await connection.close()
            assert not connection.usable
            assert upstream.commands[-1] == "QUIT"
            await upstream.until(lambda: upstream.open == 0)

    run(scene())


def test_one_connection_carries_many_messages(run: Run, certificates: Certificates) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(tls="starttls", certificate=certificates.good) as upstream:
            connection = await connected(upstream, tls_ca=certificates.ca_path)
            for _ in range(50):
                assert words((await connection.deliver(request(PIET, KEES))).outcomes) == ["Delivered", "Delivered"]
            assert len(upstream.messages) == 50
            assert upstream.resets == 0
            await connection.close()

    run(scene())


# A message that may go by another way instead


class AGate:
    """Lets pass, or not; remembers when it was asked."""

    def __init__(self, upstream: ScriptedUpstream, opens: bool, contested: bool) -> None:
        self.contested = contested
        self.asked: list[list[str]] = []
        self._upstream = upstream
        self._opens = opens

    async def __call__(self) -> bool:
        self.asked.append([command.partition(" ")[0] for command in self._upstream.commands[1:]])
        return self._opens


@BOTH_WAYS
@pytest.mark.parametrize("contested", [False, True])
def test_a_message_that_may_go_this_way_is_sent_after_the_gate_was_asked(
    run: Run, keywords: tuple[str, ...], contested: bool
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            gate = AGate(upstream, True, contested)
            delivery = await delivered(upstream, PIET, gate=gate)
            assert words(delivery.outcomes) == ["Delivered"]
            assert len(upstream.messages) == 1
            # It is asked before DATA as well where both ways are under way.
            assert gate.asked == [["MAIL", "RCPT"], ["MAIL", "RCPT", "DATA"]][not contested :]

    run(scene())


@BOTH_WAYS
def test_a_message_that_goes_another_way_is_given_up_before_data_and_the_connection_stays(
    run: Run, keywords: tuple[str, ...]
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            upstream.script("rcpt", "250 ok", "550 5.1.1 no such user")
            connection = await connected(upstream)
            delivery = await connection.deliver(request(PIET, KEES, gate=AGate(upstream, False, True)))
            refused = Failed(Stage.RCPT, Reply(550, "5.1.1", "no such user"))
            assert delivery == Delivery((CALLED_OFF, refused))
            assert connection.usable
            assert words((await connection.deliver(request(ANNA))).outcomes) == ["Delivered"]
            await connection.close()
            assert [command.partition(" ")[0] for command in upstream.commands[1:]] == [
                *("MAIL", "RCPT", "RCPT", "RSET", "MAIL", "RCPT", "DATA", "QUIT")
            ]
            (message,) = upstream.messages
            assert message.recipients == (ANNA,)

    run(scene())


@BOTH_WAYS
def test_a_message_that_goes_another_way_once_data_was_said_is_broken_off_before_its_first_octet(
    run: Run, keywords: tuple[str, ...]
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            connection = await connected(upstream)
            delivery = await connection.deliver(request(PIET, gate=AGate(upstream, False, False)))
            assert delivery == Delivery((CALLED_OFF,))
            assert not connection.usable
            await connection.close()
            await upstream.until(lambda: upstream.open == 0)
            assert "DATA" in upstream.commands
            assert (upstream.messages, upstream.rest) == ([], b"")

    run(scene())


@BOTH_WAYS
def test_the_gate_is_not_asked_where_nobody_would_receive_the_message(run: Run, keywords: tuple[str, ...]) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            for contested in (False, True):
                upstream.script("rcpt", "550 5.1.1 no such user")
                gate = AGate(upstream, True, contested)
                assert words((await delivered(upstream, PIET, gate=gate)).outcomes) == ["Failed"]
                assert gate.asked == []

    run(scene())


# The sender question


def test_a_sender_is_asked_about_and_the_next_one_and_mail_go_on(run: Run) -> None:
    async def scenario() -> None:
        refused = "550 5.7.60 not as this sender"
        async with ScriptedUpstream(sender_allowed=lambda path: refused if path == KEES else None) as upstream:
            connection = await connected(upstream)
            assert str(await connection.ask_sender(KEES)) == refused
            assert (await connection.ask_sender(ANNA)).code == 250
            delivery = await connection.deliver(request(PIET))
            assert words(delivery.outcomes) == ["Delivered"]
            await connection.close()
            assert upstream.commands[1:5] == [f"MAIL FROM:<{KEES}>", "RSET", f"MAIL FROM:<{ANNA}>", "RSET"]

    run(scenario())


@pytest.mark.parametrize("fault", [DROP, "421 4.3.2 closing"])
def test_a_sender_question_on_a_line_that_breaks_ends_the_connection(run: Run, fault: Fault) -> None:
    async def scenario() -> None:
        async with ScriptedUpstream() as upstream:
            upstream.script("mail", fault)
            connection = await connected(upstream)
            if fault is DROP:
                with pytest.raises(ConnectionError):
                    await connection.ask_sender(PIET)
            else:
                assert (await connection.ask_sender(PIET)).code == 421
            assert not connection.usable
            with pytest.raises(ConnectionError):
                await connection.ask_sender(PIET)
            await connection.close()

    run(scenario())
