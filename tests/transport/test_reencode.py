"""What an upstream without 8BITMIME, or one that wants no long lines, gets to see."""

from __future__ import annotations

import asyncio
import email
import random
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from relay.durable import Directory
from relay.mail.outcome import Delivered, Failed, Stage
from relay.queue.content import FileContent
from relay.transport.port import Delivery, Reencoding
from tests.kit.upstream import KEYWORDS, ScriptedUpstream
from tests.transport.conftest import Run
from tests.transport.parts import MESSAGE, connected, request

NARROW = tuple(word for word in KEYWORDS if word not in ("8BITMIME", "SMTPUTF8"))
HEAD = b"From: Jos\xe9 <jose@example.nl>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=cp1252\r\n\r\n"
SIGNED = b"Content-Type: multipart/signed; boundary=x\r\n\r\n--x\r\n\r\nCaf\xe9\r\n--x--\r\n"
MIB = 1024 * 1024


async def delivered(upstream: ScriptedUpstream, **more: Any) -> Delivery:
    connection = await connected(upstream)
    delivery = await connection.deliver(request(**more))
    await connection.close()
    return delivery


def spooled(folder: Path, content: bytes) -> FileContent:
    path = folder / "content.eml"
    path.write_bytes(content)
    return FileContent(Directory(path.parent), path.name, len(content), content[: content.index(b"\r\n\r\n") + 4])


@pytest.mark.parametrize("keywords", [NARROW, ("PIPELINING",), ()])
def test_without_8bitmime_a_message_goes_in_seven_bits_and_its_size_is_told_exactly(
    run: Run, keywords: tuple[str, ...]
) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=keywords) as upstream:
            signature = b"DKIM-Signature: v=1; d=example.nl; h=from; bh=x; b=y\r\n"
            delivery = await delivered(upstream, message=signature + HEAD + b"Caf\xe9\r\n.\xe9\r\n")
            assert isinstance(delivery.outcomes[0], Delivered)
            assert delivery.reencoding == Reencoding("no 8BITMIME", 1, 1)
            got = await upstream.message()
            assert got.content == (
                b"From: =?utf-8?b?Sm9zw6k=?= <jose@example.nl>\r\nMIME-Version: 1.0\r\n"
                b"Content-Type: text/plain; charset=cp1252\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
                b"Caf=E9\r\n.=E9\r\n"
            )
            size = (f"SIZE={len(got.content)}",) if keywords == NARROW else ()
            assert got.mail_parameters == size

    run(scene())


def test_with_8bitmime_nothing_changes(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            message = HEAD + b"Caf\xe9\r\n"
            assert (await delivered(upstream, message=message)).reencoding is None
            got = await upstream.message()
            assert got.content == message
            assert "BODY=8BITMIME" in got.mail_parameters

    run(scene())


@pytest.mark.parametrize("large", [False, True])
def test_a_message_in_ascii_goes_as_it_is_and_is_not_walked(
    run: Run, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        if not large:
            monkeypatch.delattr("relay.transport.reencode.Survey")
        async with ScriptedUpstream(keywords=NARROW) as upstream:
            message = MESSAGE + b"tekst\r\n" * 100_000 * large
            content = {"content": spooled(tmp_path, message)} if large else {"message": message}
            delivery = await delivered(upstream, **content)
            assert delivery.reencoding is None
            assert (await upstream.message()).content == message

    run(scene())


def test_what_asked_for_smtputf8_and_is_ascii_once_encoded_needs_it_no_more(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=NARROW) as upstream:
            (outcome,) = (await delivered(upstream, message=b"Subject: Caf\xe9\r\n\r\nx\r\n", smtputf8=True)).outcomes
            assert isinstance(outcome, Delivered)
            assert (await upstream.message()).content == b"Subject: =?utf-8?b?Q2Fmw6k=?=\r\n\r\nx\r\n"

    run(scene())


def test_what_may_not_be_converted_fails_without_being_sent_and_the_connection_goes_on(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=NARROW) as upstream:
            connection = await connected(upstream)
            delivery = await connection.deliver(request("piet@example.org", "kees@example.org", message=SIGNED))
            for outcome in delivery.outcomes:
                assert isinstance(outcome, Failed)
                assert (outcome.stage, outcome.reply.code, outcome.reply.status) == (Stage.MAIL, 554, "5.6.3")
                assert outcome.unasked
                assert "8-bit" in outcome.reply.text
                assert "signed" in outcome.reply.text
            assert len(delivery.outcomes) == 2
            assert not any(line.startswith("MAIL") for line in upstream.commands)
            assert isinstance((await connection.deliver(request())).outcomes[0], Delivered)
            await connection.close()

    run(scene())


def test_what_grows_beyond_the_upstreams_size_fails_without_being_sent(run: Run) -> None:
    async def scene() -> None:
        message = HEAD + b"\xe9" * 70 + b"\r\n"
        async with ScriptedUpstream(keywords=("PIPELINING", f"SIZE {len(message) + 50}")) as upstream:
            (outcome,) = (await delivered(upstream, message=message)).outcomes
            assert isinstance(outcome, Failed)
            assert (outcome.reply.code, outcome.unasked) == (552, True)

    run(scene())


def test_a_long_line_goes_as_it_is_unless_that_is_not_wanted(run: Run) -> None:
    async def scene() -> None:
        async with ScriptedUpstream() as upstream:
            message = HEAD + b"Caf\xe9 " * 400 + b"\r\n"
            await delivered(upstream, message=message)
            assert (await upstream.message(1)).content == message
            delivery = await delivered(upstream, message=message, encode_long_lines=True)
            assert delivery.reencoding == Reencoding("long lines", 1, 0)
            got = (await upstream.message(2)).content
            assert max(map(len, got.split(b"\r\n"))) <= 76
            assert got.startswith(HEAD[:-2])
            assert email.message_from_bytes(got).get_payload(decode=True) == message[len(HEAD) :]
            assert (await delivered(upstream, message=HEAD + b"\xe9\r\n", encode_long_lines=True)).reencoding is None

    run(scene())


def test_where_smtputf8_is_missing_and_lines_are_too_long_both_are_seen_to(run: Run) -> None:
    async def scene() -> None:
        keywords = tuple(word for word in KEYWORDS if word != "SMTPUTF8")
        async with ScriptedUpstream(keywords=keywords) as upstream:
            message = "To: Jörg <jan@münchen.example>\r\nSubject: é\r\n\r\n".encode() + b"woord \xe9 " * 400 + b"\r\n"
            for asked, name in ((False, "Jörg".encode()), (True, b"=?utf-8?b?SsO2cmc=?=")):
                delivery = await delivered(upstream, message=message, encode_long_lines=True, smtputf8=asked)
                assert delivery.reencoding == Reencoding("no SMTPUTF8 and long lines", 1, 0)
                got = (await upstream.message(1 + asked)).content
                assert got.startswith(b"To: " + name + b" <jan@xn--mnchen-3ya.example>\r\n")
                assert max(map(len, got.split(b"\r\n"))) <= 76
                assert email.message_from_bytes(got).get_payload(decode=True) == message.partition(b"\r\n\r\n")[2]
            small = await delivered(upstream, message=message[: message.index(b"woord")])
            assert small.reencoding == Reencoding("no SMTPUTF8", 0, 0)

    run(scene())


def test_only_a_small_message_is_reencoded_on_the_loop(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from relay.transport import reencode

    threads: list[bool] = []
    fitted = reencode._fitted

    def watched(*given: Any) -> Any:
        threads.append(threading.current_thread() is not threading.main_thread())
        return fitted(*given)

    monkeypatch.setattr(reencode, "_fitted", watched)

    async def scene() -> None:
        async with ScriptedUpstream(keywords=NARROW) as upstream:
            for lines in (1_000, 10_000):
                delivery = await delivered(upstream, message=HEAD + b"Caf\xe9\r\n" * lines)
                assert delivery.reencoding == Reencoding("no 8BITMIME", 1, 0)

    run(scene())
    assert threads == [False, True]


def large(octets: int) -> tuple[bytes, bytes]:
    """A message with a text and a file, and the file."""
    chance = random.Random(8)
    attached = chance.randbytes(MIB).replace(b"\n", b"\r").replace(b"\r", b"\r\n") * (octets // MIB)
    top = b"From: Jos\xe9 <jan@example.nl>\r\nContent-Type: multipart/mixed; boundary=grens\r\n\r\n"
    text = b"--grens\r\nContent-Type: text/plain\r\n\r\n" + b"Caf\xe9 = 5\r\n" * 20_000
    file = b"\r\n--grens\r\nContent-Type: application/zip\r\nContent-Transfer-Encoding: binary\r\n\r\n" + attached
    return top + text + file + b"\r\n--grens--\r\n", attached


def test_a_large_file_streams_in_bounded_memory_while_the_loop_goes_on(run: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        message, attached = large(24 * MIB)
        content = spooled(tmp_path, message)
        async with ScriptedUpstream(keywords=("PIPELINING", "SIZE 60000000")) as upstream:
            connection = await connected(upstream)
            delivering = asyncio.create_task(connection.deliver(request(content=content)))
            late = 0.0
            while not delivering.done():
                before = time.thread_time()  # what other processes have of the machine does not count
                await asyncio.wait([delivering], timeout=0.01)
                late = max(late, time.thread_time() - before)
            delivery = await delivering
            assert isinstance(delivery.outcomes[0], Delivered), delivery
            assert delivery.reencoding == Reencoding("no 8BITMIME", 2, 0)
            got = await upstream.message()
            assert got.mail_parameters == (f"SIZE={len(got.content)}",)
            assert got.content.isascii()
            text, file = email.message_from_bytes(got.content).get_payload()
            assert text.get_payload(decode=True) == b"Caf\xe9 = 5\r\n" * 20_000
            assert file.get_payload(decode=True) == attached
            assert late < 1.0  # the upstream of this test has its part in it
            await connection.close()

    run(scene())


@pytest.mark.asyncio
async def test_the_memory_it_takes_does_not_grow_with_the_message(tmp_path: Path) -> None:
    from relay.transport.letters import Fitting
    from relay.transport.offers import Offers
    from relay.transport.reencode import acceptable

    peaks = []
    for octets in (4 * MIB, 16 * MIB):
        content = spooled(tmp_path, large(octets)[0])
        tracemalloc.start()
        fitting = await acceptable(request(content=content), Offers())
        assert isinstance(fitting, Fitting)
        body, offset = fitting.request.content, 0
        while offset < body.size:
            offset += len(body.read(offset, 256 * 1024))
        assert offset == body.size
        assert body.read(offset, 1) == b""
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 6 * MIB


def test_content_that_cannot_be_read_is_an_error_of_ours_and_ends_the_connection(run: Run, tmp_path: Path) -> None:
    async def scene() -> None:
        async with ScriptedUpstream(keywords=NARROW) as upstream:
            connection = await connected(upstream)
            content = FileContent(Directory(tmp_path), "gone.eml", 1000, HEAD)
            with pytest.raises(OSError, match="gone"):
                await connection.deliver(request(content=content))
            assert not connection.usable
            await connection.close()

    run(scene())
