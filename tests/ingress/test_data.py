"""The content reader: what is on the wire, and what becomes of it however the network cuts it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.ingress.data import HEADER_WHEN_SCARCE, WHEN_SCARCE, ContentReader
from relay.ingress.limits import Memory
from relay.mail import header
from tests.kit.extent import examples

KIB = 1024
LIMIT = 50 * KIB * KIB
HEAD = b"From: jan@example.nl\r\nSubject: Factuur\r\n\r\n"

# What is on the wire, the end of the data included; the content; the header block.
CASES: dict[str, tuple[bytes, bytes, bytes]] = {
    "a plain message": (HEAD + b"Hallo\r\n.\r\n", HEAD + b"Hallo\r\n", HEAD),
    "no content": (b".\r\n", b"", b""),
    "an empty line": (b"\r\n.\r\n", b"\r\n", b"\r\n"),
    "a header alone": (b"A: b\r\n.\r\n", b"A: b\r\n", b"A: b\r\n"),
    "a header and its empty line": (b"A: b\r\n\r\n.\r\n", b"A: b\r\n\r\n", b"A: b\r\n\r\n"),
    "no header": (b"\r\nHallo\r\n.\r\n", b"\r\nHallo\r\n", b"\r\n"),
    "a first line that is no field": (b"Hallo\r\nA: b\r\n.\r\n", b"Hallo\r\nA: b\r\n", b""),
    "a line that is no field ends the header": (b"A: b\r\nHallo\r\n\r\n.\r\n", b"A: b\r\nHallo\r\n\r\n", b"A: b\r\n"),
    # Dots
    "a stuffed dot": (b"\r\n..\r\n.\r\n", b"\r\n.\r\n", b"\r\n"),
    "a stuffed first dot": (b"..\r\n.\r\n", b".\r\n", b""),
    "an unstuffed first dot": (b".A: b\r\n.\r\n", b"A: b\r\n", b"A: b\r\n"),
    "a forgotten stuffing": (b"\r\n.Hallo\r\n.\r\n", b"\r\nHallo\r\n", b"\r\n"),
    "dots elsewhere": (b"\r\na.b ..\r\n .\r\n.\r\n", b"\r\na.b ..\r\n .\r\n", b"\r\n"),
    "two stuffed lines": (b"\r\n..\r\n...\r\n.\r\n", b"\r\n.\r\n..\r\n", b"\r\n"),
    "stuffed after a bare LF, before any CRLF": (b"a\n\n..c\n...\r\n.\r\n", b"a\r\n\r\n.c\r\n..\r\n", b""),
    "not stuffed after a bare LF once a CRLF came": (b"\r\nc\n..d\r\n.\r\n", b"\r\nc\r\n..d\r\n", b"\r\n"),
    # Line ends
    "bare LF everywhere": (b"A: b\n\nHallo\n\r\n.\r\n", b"A: b\r\n\r\nHallo\r\n\r\n", b"A: b\r\n\r\n"),
    "a bare CR in the header": (b"A: b\rc\r\n\r\nx\r\n.\r\n", b"A: b c\r\n\r\nx\r\n", b"A: b c\r\n\r\n"),
    "a bare CR in the body": (b"A: b\r\n\r\nx\ry\r\n.\r\n", b"A: b\r\n\r\nx\r\ny\r\n", b"A: b\r\n\r\n"),
    "a bare CR in a body without header": (b"no field\rx\r\n.\r\n", b"no field\r\nx\r\n", b""),
    "CR CR LF": (b"A: b\r\r\n\r\r\nx\r\r\r\n.\r\n", b"A: b\r\n\r\nx\r\n", b"A: b\r\n\r\n"),
    "LF CR": (b"A: b\n\r\n\rx\r\n.\r\n", b"A: b\r\n\r\n\r\nx\r\n", b"A: b\r\n\r\n"),
    "CR only": (b"A: b\rC: d\r\n.\r\n", b"A: b C: d\r\n", b"A: b C: d\r\n"),
    "a dot after CR CR LF": (b"\r\r\n..\r\r\n.\r\n", b"\r\n.\r\n", b"\r\n"),
    # Smuggling: none of these ends the data
    "LF.LF": (b"\r\na\n.\nMAIL\r\n.\r\n", b"\r\na\r\n.\r\nMAIL\r\n", b"\r\n"),
    "LF.CR": (b"\r\na\n.\rMAIL\r\n.\r\n", b"\r\na\r\n.\r\nMAIL\r\n", b"\r\n"),
    "CR.LF": (b"\r\na\r.\nMAIL\r\n.\r\n", b"\r\na\r\n.\r\nMAIL\r\n", b"\r\n"),
    "CR.CR": (b"\r\na\r.\rMAIL\r\n.\r\n", b"\r\na\r\n.\r\nMAIL\r\n", b"\r\n"),
    "LF.CRLF": (b"\r\na\n.\r\nMAIL\r\n.\r\n", b"\r\na\r\n.\r\nMAIL\r\n", b"\r\n"),
    "CR.CRLF": (b"\r\na\r.\r\nMAIL\r\n.\r\n", b"\r\na\r\n.\r\nMAIL\r\n", b"\r\n"),
    "CRLF NUL.CRLF": (b"\r\na\r\n\0.\r\nMAIL\r\n.\r\n", b"\r\na\r\n\0.\r\nMAIL\r\n", b"\r\n"),
    "CRLF.CRCRLF": (b"\r\na\r\n.\r\r\nMAIL\r\n.\r\n", b"\r\na\r\n\r\nMAIL\r\n", b"\r\n"),
    "CRCRLF.CRCRLF": (b"\r\na\r\r\n.\r\r\nMAIL\r\n.\r\n", b"\r\na\r\n\r\nMAIL\r\n", b"\r\n"),
    "CRLF.LF": (b"\r\na\r\n.\nMAIL\r\n.\r\n", b"\r\na\r\n\r\nMAIL\r\n", b"\r\n"),
    "CRLF.CR": (b"\r\na\r\n.\rMAIL\r\n.\r\n", b"\r\na\r\n\r\nMAIL\r\n", b"\r\n"),
    "CRLF.NUL CRLF": (b"\r\na\r\n.\0\r\nMAIL\r\n.\r\n", b"\r\na\r\n\0\r\nMAIL\r\n", b"\r\n"),
    "LF.LF before any CRLF": (b"a\n.\nMAIL\n\r\n.\r\n", b"a\r\n\r\nMAIL\r\n\r\n", b""),
    "dot LF first": (b".\nMAIL\r\n.\r\n", b"\r\nMAIL\r\n", b"\r\n"),
    "dot CR first": (b".\rMAIL\r\n.\r\n", b"\r\nMAIL\r\n", b"\r\n"),
}  # fmt: skip


@dataclass
class Got:
    """What came of one message."""

    content: bytes
    head: bytes
    leftover: bytes
    size: int
    spilled: bool
    too_large: bool
    seen: set[str]  # what was tolerated


def read(
    wire: bytes,
    *cuts: int,
    limit: int = LIMIT,
    in_memory: int = 256 * KIB,
    memory: Memory | None = None,
    bare_newline: str = "normalize",
) -> Got:
    """Feed `wire`, cut at `cuts`; what arrives after the end is left over, as the session has it."""
    memory = memory or Memory()
    before = memory.used
    reader = ContentReader(limit=limit, in_memory=in_memory, memory=memory, bare_newline=bare_newline)
    spooled = b""
    borders = [0, *sorted(cuts), len(wire)]
    for begin, end in pairwise(borders):
        reader.feed(wire[begin:end])
        if reader.pieces:
            spooled += reader.take()
        if reader.ended:
            break
        assert memory.used >= before
    assert reader.ended
    spooled += reader.take()
    leftover = reader.leftover + wire[end:]
    seen = {name for name in ("bare_lf", "bare_cr", "long_line", "lf_dot") if getattr(reader, name)}
    got = Got(spooled + reader.rest, reader.head, leftover, reader.size, reader.spilled, reader.too_large, seen)
    reader.abandon()
    reader.abandon()
    assert memory.used == before
    return got


def scarce_memory() -> Memory:
    memory = Memory(0)
    memory.used = 1
    return memory


@pytest.mark.parametrize("case", CASES)
def test_a_message_is_read(case: str) -> None:
    wire, content, head = CASES[case]
    got = read(wire + b"NOOP\r\n")
    assert got.content == content
    assert got.head == head
    assert got.leftover == b"NOOP\r\n"
    assert got.size == len(content)


@pytest.mark.parametrize("case", CASES)
def test_a_message_is_the_same_octet_by_octet(case: str) -> None:
    wire, content, head = CASES[case]
    wire += b".\r\n\r\n.\r\n"
    got = read(wire, *range(1, len(wire)))
    assert (got.content, got.head, got.leftover) == (content, head, b".\r\n\r\n.\r\n")


@pytest.mark.parametrize("case", CASES)
def test_only_the_last_of_all_dots_ends_the_data(case: str) -> None:
    """No prefix of the wire is complete."""
    wire = CASES[case][0]
    for length in range(len(wire)):
        memory = Memory()
        reader = ContentReader(limit=LIMIT, in_memory=256 * KIB, memory=memory, bare_newline="normalize")
        reader.feed(wire[:length])
        assert not reader.ended
        assert memory.used == length
        reader.abandon()
        assert memory.used == 0


OCTETS = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n", b"a", b"B: c", b" ", b":", b"\0", b"\xe9"]), max_size=60
).map(b"".join)


def model(wire: bytes) -> bytes:
    """The rules once more, an octet at a time; `wire` has no end of the data."""
    lines = []  # (line without its end, whether a dot in front of the next line is stuffing)
    unstuff, seen, line = True, False, b""
    for index, octet in enumerate(wire):
        if octet == 0x0A:
            seen = seen or wire[index - 1 : index] == b"\r"
            lines.append((line.rstrip(b"\r"), unstuff))
            line, unstuff = b"", not seen or wire[index - 1 : index] == b"\r"
        else:
            line += wire[index : index + 1]
    lines.append((line, unstuff))
    text = b"\n".join([line[1:] if stuffed and line[:1] == b"." else line for line, stuffed in lines])
    body = header.split(text)
    return (text[:body].replace(b"\r", b" ") + text[body:].replace(b"\r", b"\n")).replace(b"\n", b"\r\n")


def without_end(body: bytes) -> bool:
    return b"\r\n.\r\n" not in b"\r\n" + body + b"\r\n"


@examples(400)
@given(OCTETS.filter(without_end), st.data())
def test_cuts_of_the_network_make_no_difference(body: bytes, data: st.DataObject) -> None:
    wire = body + b"\r\n.\r\nQUIT\r\n"
    whole = read(wire)
    assert whole.leftover == b"QUIT\r\n"
    assert whole.content == model(body + b"\r\n")
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=8))
    assert read(wire, *cuts) == whole
    left_of_crlf = whole.content.replace(b"\r\n", b"")
    assert b"\r" not in left_of_crlf
    assert b"\n" not in left_of_crlf


@examples(400)
@given(OCTETS, OCTETS.filter(without_end), st.integers(24, 80), st.data())
@example(b"", b"a" * 200, 24, None)
@example(b"", b"\r" * 100 + b"\n.b", 24, None)
@example(b"", b"x\n" * 20 + b".\r" + b"y" * 40, 24, None)
@example(b"", b"\ra\rb\r\nc" * 10, 24, None)
def test_what_goes_to_a_spool_file_is_what_would_have_stayed_in_memory(
    front: bytes, body: bytes, in_memory: int, data: st.DataObject | None
) -> None:
    """With headers that fit, and runs of CR shorter than the bound in memory."""
    front = front.replace(b"\r\n.", b"\r\n")[: in_memory // 2]
    wire = b"A: b\r\n\r\n" + front + body + b"\r\n" + b"z" * 3 * in_memory + b"\r\n.\r\nQUIT\r\n"
    whole = read(wire)
    if whole.leftover != b"QUIT\r\n" or b"\r" * (in_memory // 2) in wire:
        return
    cuts = (
        range(1, len(wire), 7)
        if data is None
        else data.draw(st.lists(st.integers(0, len(wire)), min_size=4, max_size=40))
    )
    for memory in (Memory(), scarce_memory()):
        spilled = read(wire, *cuts, in_memory=in_memory, memory=memory)
        assert (spilled.content, spilled.head, spilled.leftover) == (whole.content, whole.head, b"QUIT\r\n")
        assert spilled.size == len(whole.content)


STUFFED = st.lists(st.sampled_from([b"", b"a", b"Hallo", b"..", b"...", b"..a", b".a", b"x" * 30]), max_size=40)


@examples(200)
@given(STUFFED, st.integers(40, 200), st.data())
@example([b"..a"] * 20, 45, None)
@example([b"a", b".."] * 20, 60, None)
def test_how_the_network_cuts_bare_line_feeds_makes_no_difference_where_content_goes_to_a_file(
    lines: list[bytes], in_memory: int, data: st.DataObject | None
) -> None:
    body = b"A: b\n\n" + b"".join([line + b"\n" for line in lines]) + b"..z\n" * (in_memory // 2)
    wire = body + b"\r\n.\r\nQUIT\r\n"
    cuts = (
        range(1, len(wire), 7)
        if data is None
        else data.draw(st.lists(st.integers(0, len(wire)), min_size=4, max_size=40))
    )
    got = read(wire, *cuts, in_memory=in_memory)
    assert got.content == model(body + b"\r\n") == read(wire).content
    assert got.leftover == b"QUIT\r\n"


def test_a_large_message_is_spilled_and_a_small_one_is_not() -> None:
    small = HEAD + b"x" * 70 + b"\r\n.\r\n"
    large = HEAD + (b"x" * 70 + b"\r\n") * 8_000 + b".\r\n"
    assert not read(small, 10, 20).spilled
    got = read(large, *range(0, len(large), 64 * KIB))
    assert got.spilled
    assert got.content == large[:-3]
    assert got.head == HEAD


def test_a_message_goes_to_a_spool_file_early_when_all_together_hold_too_much() -> None:
    wire = HEAD + (b"x" * 70 + b"\r\n") * 1_000 + b".\r\n"
    cuts = range(0, len(wire), KIB)
    assert not read(wire, *cuts).spilled
    got = read(wire, *cuts, memory=scarce_memory())
    assert got.spilled
    assert got.content == wire[:-3]


@pytest.mark.parametrize("step", [1, 3, 7, 1_000, 10_000])
@pytest.mark.parametrize("more", [0, 1])
def test_the_limit_is_met_to_the_octet_however_the_data_comes(step: int, more: int) -> None:
    limit = 1_000
    content = HEAD + b"x" * (limit - len(HEAD) - 2 + more) + b"\r\n"
    wire = content + b".\r\nQUIT\r\n"
    got = read(wire, *range(step, len(wire), step), limit=limit)
    assert got.too_large == bool(more)
    assert got.content == (b"" if more else content)
    assert got.leftover == b"QUIT\r\n"


@given(st.lists(st.integers(0, 3_000), max_size=20))
@example(list(range(1, 3_000)))
def test_the_end_of_a_message_that_is_too_large_is_found_and_no_other(cuts: list[int]) -> None:
    traps = b"a.\r\nb\n.\r\n c\r.\r\n d" * 100
    wire = HEAD + traps + b"\r\n.\r\nQUIT\r\n"
    got = read(wire, *cuts, limit=200)
    assert got.too_large
    assert got.leftover == b"QUIT\r\n"


def test_a_message_that_is_too_large_is_hopeless_beyond_twice_the_limit() -> None:
    memory = Memory()
    reader = ContentReader(limit=1_000, in_memory=300, memory=memory, bare_newline="normalize")
    reader.feed(HEAD)
    for _ in range(19):
        reader.feed(b"x" * 98 + b"\r\n")
        assert not reader.hopeless
    assert reader.too_large
    assert memory.used <= 4 + len(HEAD)  # the header was taken before it was too large
    reader.feed(b"x" * 100)
    assert reader.hopeless
    reader.abandon()
    assert memory.used == 0


@pytest.mark.parametrize("step", [1, 100, 5_000])
def test_a_header_too_long_is_told_and_read_to_the_end(step: int) -> None:
    memory = Memory()
    reader = ContentReader(limit=LIMIT, in_memory=400, memory=memory, bare_newline="normalize")
    wire = b"A: b\r\n" * 400 + b"\r\nHallo.\r\n.\r\nQUIT\r\n"
    for begin in range(0, len(wire), step):
        reader.feed(wire[begin : begin + step])
        assert memory.used <= 400 + step
        if reader.ended:
            break
    assert reader.ended
    assert reader.header_too_long or len(reader.head) > 400  # where all came at once the session sees it
    reader.abandon()
    assert memory.used == 0


@pytest.mark.parametrize(("length", "refused"), [(HEADER_WHEN_SCARCE // 2, False), (HEADER_WHEN_SCARCE * 2, True)])
@pytest.mark.parametrize("step", [1_000, 10**6])
def test_while_memory_is_scarce_a_very_long_header_is_put_off(length: int, refused: bool, step: int) -> None:
    memory = scarce_memory()
    reader = ContentReader(limit=LIMIT, in_memory=1024 * KIB, memory=memory, bare_newline="normalize")
    wire = b"A: b\r\n" * (length // 6) + b"\r\n" + (b"x" * 70 + b"\r\n") * 2_000
    for begin in range(0, len(wire), step):
        reader.feed(wire[begin : begin + step])
        assert not refused or memory.used <= 1 + HEADER_WHEN_SCARCE + step
    assert reader.no_room == refused
    assert reader.spilled != refused
    assert len(wire) > WHEN_SCARCE
    reader.feed(b".\r\nQUIT\r\n")
    assert reader.ended
    assert reader.leftover == b"QUIT\r\n"
    reader.abandon()
    assert memory.used == 1


def test_what_is_dropped_is_read_to_its_end_and_costs_nothing() -> None:
    memory = Memory()
    reader = ContentReader(limit=LIMIT, in_memory=300, memory=memory, bare_newline="normalize")
    reader.feed(HEAD + b"x" * 1_000)
    assert reader.queued
    reader.drop()
    reader.feed(b"x" * 100_000)
    assert not reader.pieces
    assert memory.used <= 4 + len(HEAD)
    reader.feed(b"\r\n.\r\nQUIT\r\n")
    assert reader.ended
    assert reader.leftover == b"QUIT\r\n"
    assert reader.rest == b""
    reader.abandon()
    assert memory.used == 0


def test_a_message_counts_until_it_is_kept() -> None:
    memory = Memory()
    reader = ContentReader(limit=LIMIT, in_memory=256 * KIB, memory=memory, bare_newline="normalize")
    reader.feed(HEAD + b"Hallo\r\n.\r\nMAIL FROM:<a@b.nl>\r\n")
    assert memory.used == reader.size == len(HEAD) + 7
    reader.abandon()
    assert memory.used == 0


@pytest.mark.parametrize("step", [64 * KIB, 10**7])
@pytest.mark.parametrize(
    ("body", "content"),
    [
        (b"x" * 2_000_000, b"x" * 2_000_000),
        (b"\n" * 500_000, b"\r\n" * 500_000),
        (b"." * 500_000, b"." * 499_999),
        (b"\r\n..", b"\r\n."),
        ((b"x" * 60 + b"\n") * 20_000, (b"x" * 60 + b"\r\n") * 20_000),
        (b"x\r" * 300_000, b"x\r\n" * 299_999 + b"x"),
        (b"\r\n.x" * 100_000, b"\r\nx" * 100_000),
        (b"\r\r\n" * 100_000 + b"x", b"\r\n" * 100_000 + b"x"),
    ],
    ids=[
        "one line",
        "LF",
        "dots",
        "a dot",
        "LF lines",
        "CR lines",
        "stuffed lines",
        "CRCRLF",
    ],
)
def test_large_and_odd_content_is_read_in_linear_time(body: bytes, content: bytes, step: int) -> None:
    wire = b"A: b\r\n\r\n" + body + b"\r\n.\r\n"
    got = read(wire, *range(step, len(wire), step))
    assert got.content == b"A: b\r\n\r\n" + content + b"\r\n"


@pytest.mark.parametrize("step", [64 * KIB, 10**7])
@pytest.mark.parametrize("head", [b"A: b\r\n\r\n", b""])
def test_a_megabyte_of_cr_is_read_in_linear_time(head: bytes, step: int) -> None:
    wire = head + b"\r" * 1_000_000 + b"x\r\n.\r\n"
    got = read(wire, *range(step, len(wire), step))
    assert got.content == head + b"\r\n" * 1_000_000 + b"x\r\n"


def test_octet_by_octet_is_linear_as_well() -> None:
    """A reader that looked at all it holds at each octet would touch 10^11 octets here."""
    wire = HEAD + (b"x" * 98 + b"\r\n") * 4_000 + b".\r\n"
    for memory in (Memory(), scarce_memory()):
        got = read(wire, *range(len(wire)), memory=memory)
        assert got.content == wire[:-3]
    long_header = b"A: " + b"x" * 200_000 + b"\r\n\r\n.\r\n"
    assert read(long_header, *range(len(long_header))).head == long_header[:-3]


# What is told of the content


@pytest.mark.parametrize(
    ("wire", "seen"),
    [
        (HEAD + b"Hallo\r\n.\r\n", set()),
        (b".\r\n", set()),
        (HEAD + b"..\r\n...\r\n.\r\n", set()),
        (HEAD + b"Hallo\n\r\n.\r\n", {"bare_lf"}),
        (b"A: b\n\nHallo\n\r\n.\r\n", {"bare_lf"}),
        (HEAD + b"Hal\rlo\r\n.\r\n", {"bare_cr"}),
        (HEAD + b"Hallo\r\r\n.\r\n", {"bare_cr"}),
        (HEAD + b"a\nb\rc\r\n.\r\n", {"bare_lf", "bare_cr"}),
        (HEAD + b"x" * 998 + b"\r\n.\r\n", set()),
        (HEAD + b"x" * 999 + b"\r\n.\r\n", {"long_line"}),
        (b"A: " + b"x" * 996 + b"\r\n\r\n.\r\n", {"long_line"}),
        (HEAD + b"x\r\n" * 500 + b"x" * 999 + b"\r\n" + b"x\r\n" * 500 + b".\r\n", {"long_line"}),
        (HEAD + b"." * 999 + b"\r\n.\r\n", set()),  # the first is stuffing
    ],
)
def test_bare_and_long_lines_are_told(wire: bytes, seen: set[str]) -> None:
    assert read(wire).seen == seen
    assert read(wire, *range(1, len(wire))).seen == seen


@examples(200)
@given(st.lists(st.sampled_from([0, 1, 100, 900, 990, 998, 999, 1_500]), max_size=30), st.data())
def test_a_long_line_is_found_wherever_the_spool_file_is_cut(lengths: list[int], data: st.DataObject) -> None:
    wire = b"A: b\r\n\r\n" + b"".join([b"x" * length + b"\r\n" for length in lengths]) + b".\r\n"
    expected = {"long_line"} if max(lengths, default=0) > 998 else set[str]()
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=40))
    assert read(wire, *cuts).seen == expected
    assert read(wire, *cuts, in_memory=data.draw(st.integers(30, 3_000))).seen == expected


# A listener that rejects bare line ends, and one that lets LF.LF end the data


@pytest.mark.parametrize("body", [b"x\n" * 50_000, b"x" * 90_000 + b"\r" + b"x" * 90_000])
def test_content_that_will_be_rejected_for_its_line_ends_is_not_kept_but_read_to_its_end(body: bytes) -> None:
    memory = Memory()
    reader = ContentReader(limit=LIMIT, in_memory=30_000, memory=memory, bare_newline="reject")
    wire = HEAD + body + b"\r\n.\r\nQUIT\r\n"
    for begin in range(0, len(wire), 1_000):
        reader.feed(wire[begin : begin + 1_000])
    assert reader.ended
    assert reader.bare_lf or reader.bare_cr
    assert reader.rest == b""
    assert memory.used < 31_000
    reader.abandon()
    assert memory.used == 0


LF_DOT: dict[str, tuple[bytes, bytes, bytes]] = {
    "LF.LF": (b"A: b\n\nHallo\n.\nQUIT\n", b"A: b\r\n\r\nHallo\r\n", b"QUIT\n"),
    "nothing": (b".\nQUIT\n", b"", b"QUIT\n"),
    "one empty line": (b"\n.\nQUIT\n", b"\r\n", b"QUIT\n"),
    "stuffed lines": (b"A: b\n\n..\n...\n.\n.\n", b"A: b\r\n\r\n.\r\n..\r\n", b".\n"),
    "a CRLF behind it": (b"A: b\n\nx\n.\nMAIL\r\n.\r\n", b"A: b\r\n\r\nx\r\n", b"MAIL\r\n.\r\n"),
    "not once a CRLF came": (b"A: b\r\n\r\nx\n.\nMAIL\r\n.\r\nQ", b"A: b\r\n\r\nx\r\n.\r\nMAIL\r\n", b"Q"),
    "not LF.CRLF": (b"A: b\n\nx\n.\r\nMAIL\n.\n\r\n.\r\nQ", b"A: b\r\n\r\nx\r\n\r\nMAIL\r\n.\r\n\r\n", b"Q"),
    "not LF.CR": (b"A: b\n\nx\n.\rMAIL\n.\nQ", b"A: b\r\n\r\nx\r\n\r\nMAIL\r\n", b"Q"),
    "not CR.LF": (b"A: b\n\nx\r.\nMAIL\n.\nQ", b"A: b\r\n\r\nx\r\n.\r\nMAIL\r\n", b"Q"),
    "not CRLF.LF": (b"A: b\n\nx\r\n.\nMAIL\r\n.\r\nQ", b"A: b\r\n\r\nx\r\n\r\nMAIL\r\n", b"Q"),
    "CRLF.CRLF": (b"A: b\r\n\r\nx\r\n.\r\nQ", b"A: b\r\n\r\nx\r\n", b"Q"),
}


@pytest.mark.parametrize("case", LF_DOT)
def test_lf_dot_lf_ends_the_data_only_where_it_may_and_no_crlf_came(case: str) -> None:
    wire, content, leftover = LF_DOT[case]
    whole = read(wire, bare_newline="accept-lf-dot")
    assert (whole.content, whole.leftover, whole.size) == (content, leftover, len(content))
    assert ("lf_dot" in whole.seen) == (b"\r\n" not in wire[: len(wire) - len(leftover)])
    assert read(wire, *range(1, len(wire)), bare_newline="accept-lf-dot") == whole
    large = wire.replace(b"x", b"x" * 500, 1)
    spilled = read(large, *range(1, len(large)), in_memory=40, bare_newline="accept-lf-dot")
    assert spilled.content == content.replace(b"x", b"x" * 500, 1)
    assert spilled.leftover == leftover


@examples(400)
@given(OCTETS, st.data())
def test_where_lf_dot_ends_the_data_does_not_depend_on_the_network(body: bytes, data: st.DataObject) -> None:
    wire = body + b"\n.\n\r\n.\r\n"
    whole = read(wire, bare_newline="accept-lf-dot")
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=8))
    assert read(wire, *cuts, bare_newline="accept-lf-dot") == whole
    taken = wire[: len(wire) - len(whole.leftover)]
    assert taken.endswith((b"\n.\n", b"\r\n.\r\n")) or taken in (b".\n", b".\r\n")
    if "lf_dot" in whole.seen:
        assert b"\r\n" not in taken


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("step", [1, 7, 5_000])
def test_the_limit_is_met_to_the_octet_with_lf_dot_as_well(more: int, step: int) -> None:
    wire = b"A: b\n\n" + b"x" * (993 + more) + b"\n.\nQUIT\n"
    got = read(wire, *range(step, len(wire), step), limit=1_000, bare_newline="accept-lf-dot")
    assert got.too_large == bool(more)
    assert got.leftover == b"QUIT\n"
