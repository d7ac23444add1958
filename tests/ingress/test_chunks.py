"""The reader of chunks: octets by count, whatever is in them, and however the network cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.ingress.chunks import ChunkReader
from relay.ingress.limits import Memory
from relay.mail import header
from tests.ingress.test_data import HEAD, OCTETS
from tests.kit.extent import examples

LIMIT = 10**7


def read(chunks: list[bytes], step: int = 10**6, *, in_memory: int = 10**6, behind: bytes = b"QUIT\r\n") -> ChunkReader:
    """All of `chunks`, the last one as such; `spooled + rest` is in `rest`."""
    memory = Memory()
    reader = ChunkReader(limit=LIMIT, in_memory=in_memory, memory=memory, bare_newline="normalize")
    spooled = b""
    for number, chunk in enumerate(chunks):
        wire = chunk + behind
        reader.begin(len(chunk), last=number == len(chunks) - 1)
        position = 0
        while not reader.ended:
            reader.feed(wire[position : position + step])
            position += step
            if reader.pieces:
                spooled += reader.take()
        assert reader.leftover + wire[position:] == behind
    assert reader.whole
    reader.abandon()
    assert memory.used == 0
    reader.rest = spooled + reader.take() + reader.rest
    return reader


@pytest.mark.parametrize(
    ("chunks", "content"),
    [
        ([HEAD + b"Hallo\r\n"], HEAD + b"Hallo\r\n"),
        ([HEAD, b"Hal", b"lo\r\n"], HEAD + b"Hallo\r\n"),
        ([HEAD + b"Hallo\r\n", b""], HEAD + b"Hallo\r\n"),
        ([b""], b""),
        ([b"", b""], b""),
        ([HEAD + b"a\r", b"\nb\r\n"], HEAD + b"a\r\nb\r\n"),
        # No dot means anything
        ([HEAD + b".\r\n..\r\n.a\r\n"], HEAD + b".\r\n..\r\n.a\r\n"),
        ([HEAD + b"\r\n.\r\nMAIL\r\n"], HEAD + b"\r\n.\r\nMAIL\r\n"),
        ([b".\r\n"], b".\r\n"),
        # Line ends, as with DATA
        ([b"A: b\n\nx\n.\ny\n"], b"A: b\r\n\r\nx\r\n.\r\ny\r\n"),
        ([b"A: b\rc\r\n\r\nx\ry\r\n"], b"A: b c\r\n\r\nx\r\ny\r\n"),
        # The last line gets an end
        ([HEAD + b"Hallo"], HEAD + b"Hallo\r\n"),
        ([HEAD + b"Hallo", b""], HEAD + b"Hallo\r\n"),
        ([b"A: b"], b"A: b\r\n"),
        ([HEAD + b"Hallo\n"], HEAD + b"Hallo\r\n"),
        ([HEAD + b"Hallo\r"], HEAD + b"Hallo\r\n"),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 10**6])
def test_chunks_are_read(chunks: list[bytes], content: bytes, step: int) -> None:
    reader = read(chunks, step)
    assert reader.rest == content
    assert reader.head == content[: header.split(content)]
    assert reader.size == len(content)


@examples(300)
@given(st.lists(OCTETS, min_size=1, max_size=5), st.integers(1, 30))
def test_where_chunks_begin_makes_no_difference(chunks: list[bytes], step: int) -> None:
    whole = read([b"".join(chunks)])
    parts = read(chunks, step)
    assert (parts.rest, parts.head, parts.size) == (whole.rest, whole.head, whole.size)
    front = b"A: b\r\n\r\n"
    plain = read([front + b"".join(chunks) + b"z" * 300])
    spilled = read([front, *chunks, b"z" * 300], step, in_memory=200)
    assert spilled.spilled
    assert (spilled.rest, spilled.head, spilled.size) == (plain.rest, plain.head, plain.size)


@pytest.mark.parametrize("before", [0, 600])
def test_a_chunk_that_is_too_large_is_known_by_its_number_and_costs_nothing(before: int) -> None:
    memory = Memory()
    reader = ChunkReader(limit=1_000, in_memory=10_000, memory=memory, bare_newline="normalize")
    reader.begin(before, last=False)
    reader.feed(b"x" * before)
    reader.begin(1_001 - before, last=True)
    assert reader.too_large
    for _ in range(1_000 - before):
        reader.feed(b"x")
        assert memory.used <= 600
    assert not reader.ended
    reader.feed(b"xQUIT\r\n")
    assert reader.whole
    assert not reader.hopeless
    assert (reader.rest, reader.leftover) == (b"", b"QUIT\r\n")
    reader.abandon()
    assert memory.used == 0


def test_the_limit_is_met_to_the_octet() -> None:
    memory = Memory()
    reader = ChunkReader(limit=1_000, in_memory=10_000, memory=memory, bare_newline="normalize")
    reader.begin(400, last=False)
    reader.feed(b"x" * 400)
    reader.begin(600, last=True)
    reader.feed(b"x" * 598 + b"\r\n")
    assert not reader.too_large
    assert reader.size == 1_000
    reader.abandon()
    assert memory.used == 0
