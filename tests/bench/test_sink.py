"""The sink of the benchmarks takes what a server would take, and counts what came."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.build import Programs, build
from bench.sink import Offers, Sink

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="the sink is built by gcc")

ENVELOPE = b"MAIL FROM:<jan@example.nl>\r\nRCPT TO:<piet@example.org>\r\n"
CONTENT = b"From: relay@example.nl\r\nSubject: Factuur\r\n\r\nBijgaand.\r\n"
ANSWERED = [b"250 2.1.0 Ok", b"250 2.1.5 Ok"]
TAKEN = b"250 2.0.0 Ok: queued"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return build(tmp_path_factory.mktemp("programs"))


class Talk:
    """Octets in, lines out."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), 20)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._sock.makefile("rb")

    def say(self, octets: bytes, *, piece: int | None = None) -> None:
        for start in range(0, len(octets), piece or len(octets)):
            self._sock.sendall(octets[start : start + (piece or len(octets))])

    def hear(self, lines: int) -> list[bytes]:
        return [self._lines.readline().rstrip() for _ in range(lines)]

    def close(self) -> None:
        self._lines.close()
        self._sock.close()


@contextmanager
def talking(programs: Programs, folder: Path, offers: Offers = Offers()) -> Iterator[tuple[Talk, Sink]]:  # noqa: B008
    with Sink(programs, folder / "counters", offers, "relay@example.nl") as sink:
        talk = Talk(sink.port)
        try:
            assert talk.hear(1) == [b"220 sink ESMTP"]
            yield talk, sink
        finally:
            talk.close()


@pytest.mark.parametrize("piece", [1, 2, 3, 7, None])
def test_a_message_by_data_ends_at_its_dot_however_it_is_cut(
    programs: Programs, tmp_path: Path, piece: int | None
) -> None:
    content = CONTENT + b"..\r\n.x\r\n\r.\r\n\r\n\n.\n\r\r\n"
    with talking(programs, tmp_path) as (talk, sink):
        talk.say(ENVELOPE + b"DATA\r\n")
        assert talk.hear(3) == [*ANSWERED, b"354 End data with <CR><LF>.<CR><LF>"]
        talk.say(content + b".\r\nQUIT\r\n", piece=piece)
        assert talk.hear(2) == [TAKEN, b"221 2.0.0 Bye"]
        seen = sink.read()
        assert (seen.messages, seen.expected, seen.chunked) == (1, 1, 0)
        assert seen.octets == len(content) + len(b".\r\n")


@pytest.mark.parametrize("piece", [1, 5, None])
def test_many_messages_by_bdat_may_come_in_one_write(programs: Programs, tmp_path: Path, piece: int | None) -> None:
    with talking(programs, tmp_path) as (talk, sink):
        one = ENVELOPE + b"BDAT %d LAST\r\n" % len(CONTENT) + CONTENT
        unchanged = ENVELOPE + b"BDAT 22 LAST\r\nFrom: jan@example.nl\r\n"
        talk.say(one * 5 + unchanged, piece=piece)
        assert talk.hear(18) == [*ANSWERED, TAKEN] * 6
        seen = sink.read()
        assert (seen.messages, seen.expected, seen.chunked, seen.octets) == (6, 5, 6, 5 * len(CONTENT) + 22)


def test_a_message_may_come_in_chunks_and_end_with_an_empty_one(programs: Programs, tmp_path: Path) -> None:
    with talking(programs, tmp_path) as (talk, sink):
        chunks = b"BDAT 10\r\n" + CONTENT[:10] + b"BDAT %d\r\n" % (len(CONTENT) - 10) + CONTENT[10:]
        talk.say(ENVELOPE + chunks + b"BDAT 0 LAST\r\n")
        assert talk.hear(5) == [*ANSWERED, b"250 2.0.0 Ok: chunk", b"250 2.0.0 Ok: chunk", TAKEN]
        seen = sink.read()
        assert (seen.messages, seen.expected, seen.chunked, seen.octets) == (1, 1, 1, len(CONTENT))


def test_a_chunk_without_recipients_is_read_and_refused(programs: Programs, tmp_path: Path) -> None:
    with talking(programs, tmp_path) as (talk, sink):
        talk.say(b"MAIL FROM:<>\r\nBDAT 12 LAST\r\nQUIT\r\nQUIT\r\nRSET\r\n" + ENVELOPE + b"BDAT 0 LAST\r\n")
        assert talk.hear(3) == [ANSWERED[0], b"503 5.5.1 No valid recipients", b"250 2.0.0 Ok"]
        assert talk.hear(3) == [*ANSWERED, TAKEN]
        assert sink.read().messages == 1


def test_what_is_not_offered_is_not_taken(programs: Programs, tmp_path: Path) -> None:
    with talking(programs, tmp_path, Offers(chunking=False)) as (talk, sink):
        talk.say(b"EHLO jan\r\n" + ENVELOPE + b"BDAT 0 LAST\r\nSTARTTLS\r\n")
        offered = [b"250-sink", b"250-PIPELINING", b"250-SIZE 104857600", b"250-8BITMIME", b"250-ENHANCEDSTATUSCODES"]
        assert talk.hear(6) == [*offered, b"250 SMTPUTF8"]
        assert talk.hear(4) == [*ANSWERED, b"500 5.5.2 What?", b"500 5.5.2 What?"]
        assert sink.read().messages == 0


def test_what_is_said_to_a_distant_sink_arrives_in_order(programs: Programs, tmp_path: Path) -> None:
    with talking(programs, tmp_path, Offers(travel=1000)) as (talk, sink):
        content = CONTENT + b"Regel van de factuur.\r\n" * 50_000
        talk.say(ENVELOPE + b"BDAT %d LAST\r\n" % len(content) + content + b"NOOP\r\n")
        assert talk.hear(4) == [*ANSWERED, TAKEN, b"250 2.0.0 Ok"]
        seen = sink.read()
        assert (seen.messages, seen.expected, seen.octets) == (1, 1, len(content))
