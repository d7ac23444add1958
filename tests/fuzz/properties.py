"""What holds for any octets at all: one function for each place where octets of a stranger are read.

Each takes octets and raises AssertionError, or whatever a bug raises. They are deterministic, and fast enough
to be asked some thousand times a second.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

from relay.ingress import quirks
from relay.ingress.chunks import ChunkReader
from relay.ingress.data import ContentReader
from relay.ingress.limits import Memory
from relay.ingress.transaction import Transaction
from relay.mail import author, header, path
from relay.mail.content import normalise
from relay.mail.header import Header
from tests.fuzz.conversation import anything_said, one_message

IN_MEMORY = 48  # so that there are spool files
LIMIT = 4096
MANY_CRS = b"\r" * 9
MODES = ("normalize", "reject", "accept-lf-dot")
REPLY = re.compile(rb"[245][0-9]{2} [245]\.[0-9]{1,3}\.[0-9]{1,3} [ -~]{1,500}\r\n")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def any_path(argument: bytes) -> None:
    """An argument of MAIL or RCPT is an address that can be said again, or refused with one clean line."""
    with suppress(path.PathError):
        _sound(path.parse(argument))
    transaction = Transaction(complete="relay.example.nl")
    for said_first in (
        transaction.mail(argument, largest=lambda: LIMIT),
        transaction.mail(b"FROM:<>", largest=lambda: LIMIT),
    ):
        assert REPLY.fullmatch(said_first)
    reply = transaction.rcpt(argument, most=2)
    assert REPLY.fullmatch(reply)
    assert len(transaction.recipients) == (reply[:1] == b"2")
    envelope = transaction.envelope()
    for text in (envelope.envid, *[recipient.orcpt for recipient in envelope.recipients]):
        assert text is None or re.fullmatch(r"[!-~]+", text)


def _sound(found: path.Path) -> None:
    if found.address is not None:
        said = str(found.address)
        assert not CONTROL.search(said)
        assert "<" not in said
        assert path.parse(b"TO:<" + said.encode() + b">").address == found.address
    for keyword, value in found.parameters:
        assert re.fullmatch(r"[A-Z0-9][A-Z0-9_-]*", keyword)
        assert value is None or not re.search(rb"[\x00-\x20\x7f]", value)


def any_header(block: bytes) -> None:
    """A header is written as it was read, its values are one line each, and its authors are addresses or none."""
    head = block[: header.split(block)]
    parsed = Header.parse(head)
    assert parsed.to_bytes() == head
    assert Header.parse(block).to_bytes() == block
    assert Header.parse(block).fields == parsed.fields
    assert header.split(head) == len(head)
    for name, raw in parsed.fields:
        value = header.value((name, raw))
        assert b"\n" not in value
        assert b"\r" not in value
        for mailbox in author.parse(raw[raw.index(b":") + 1 :]):
            assert mailbox.address is None or not CONTROL.search(mailbox.address)
    assert not CONTROL.search(quirks.software(head))
    quirks.of_head(head, size=len(block))


def any_content(octets: bytes) -> None:
    """Behind 354: however the network cuts it, it ends at the same place, as the same content, with nothing bare in it.

    The first two octets say how it is cut and read; the end of the data is put behind the others.
    """
    mode, steps, wire = _told(octets)
    wire += b"\r\n.\r\n"
    whole, end = _read_data(wire, [len(wire)], mode)
    parts, same_end = _read_data(wire, steps(len(wire)), mode)
    assert end == same_end == _end(wire, mode)
    _agree(whole, parts, wire)
    if whole is None:
        return
    _clean(whole)
    sent = whole.replace(b"\r\n.", b"\r\n..")
    sent = b"." + sent if whole.startswith(b".") else sent
    if len(sent) > LIMIT:  # line ends have made it larger than this reader takes
        return
    for reads in MODES:
        assert _read_data(sent + b".\r\n", [LIMIT], reads) == (whole, len(sent) + 3), "the next hop reads another"


def any_chunks(octets: bytes) -> None:
    """BDAT: wherever chunks begin, and however the network cuts them, the content is the same, and all there was."""
    mode, steps, wire = _told(octets)
    whole = _read_chunks(wire, [len(wire)], [len(wire) + 1], mode)
    _agree(whole, _read_chunks(wire, list(steps(len(wire))), steps(len(wire)), mode), wire)
    if whole is not None:
        _clean(whole)
        assert whole == normalise(wire if wire.endswith(b"\n") or not wire else wire + b"\r\n", header_first=True)


def _agree(whole: bytes | None, parts: bytes | None, wire: bytes) -> None:
    """Both the same, with two exceptions that are meant.

    A run of CR that fills half the memory is cut within. And where a header ends may be unclear for longer than
    octets may be kept, which is refused; it is clear with the line end behind that of the last field.
    """
    if MANY_CRS in wire:
        return
    if whole is None or parts is not None:
        assert whole == parts
    elif wire.startswith(whole[:IN_MEMORY]):
        end = header.split(whole)
        end -= 2 * whole.endswith(b"\r\n\r\n", 0, end)
        second = whole.find(b"\r\n", whole.find(b"\r\n", end) + 2)
        assert len(wire) > IN_MEMORY - 8
        assert second < 0 or second > IN_MEMORY - 8


def _told(octets: bytes) -> tuple[str, Callable[[int], Iterator[int]], bytes]:
    first, second = octets[0] if octets else 0, octets[1] if len(octets) > 1 else 0
    return MODES[first % 3], partial(_steps, first // 3 + 1, second % 16), octets[2:]


def _steps(first: int, growth: int, octets: int) -> Iterator[int]:
    while octets > 0:
        yield first
        octets -= first
        first = (first * 5 + growth) % 61 + 1


def _end(wire: bytes, mode: str) -> int:
    """Where the data ends, as the RFC has it; with "accept-lf-dot" also at LF.LF before any CRLF."""
    ends = [3] if wire.startswith(b".\r\n") else []
    ends.append(wire.index(b"\r\n.\r\n") + 5)
    if mode == "accept-lf-dot":
        before = wire[: wire.index(b"\r\n")]
        ends += [2] if wire.startswith(b".\n") else []
        ends += [before.index(b"\n.\n") + 3] if b"\n.\n" in before else []
    return min(ends)


def _clean(content: bytes) -> None:
    without = content.replace(b"\r\n", b"")
    assert b"\r" not in without
    assert b"\n" not in without
    assert not content or content.endswith(b"\r\n")


def _read_data(wire: bytes, steps: Iterable[int], mode: str) -> tuple[bytes | None, int]:
    """The content, or None where it is refused; and where it ended."""
    memory = Memory()
    reader = ContentReader(limit=LIMIT, in_memory=IN_MEMORY, memory=memory, bare_newline=mode)
    spooled, begin = b"", 0
    for step in [*steps, len(wire)]:
        reader.feed(wire[begin : begin + step])
        begin = min(len(wire), begin + step)
        spooled += reader.take()
        assert memory.used >= 0
        if reader.ended:
            break
    assert reader.ended
    return _content(reader, spooled, memory, mode), begin - len(reader.leftover)


def _read_chunks(wire: bytes, sizes: Iterable[int], steps: Iterable[int], mode: str) -> bytes | None:
    memory = Memory()
    reader = ChunkReader(limit=LIMIT, in_memory=IN_MEMORY, memory=memory, bare_newline=mode)
    cuts = iter(steps)
    spooled, begin = b"", 0
    for size in [*sizes, 0]:
        chunk = wire[begin : begin + size]
        begin += len(chunk)
        reader.begin(len(chunk), last=begin == len(wire))
        while not reader.ended:
            step = next(cuts, 64)
            piece, chunk = chunk[:step], chunk[step:]
            reader.feed(piece)
            spooled += reader.take()
            assert not reader.leftover
        if reader.whole:
            break
    assert reader.whole
    return _content(reader, spooled, memory, mode)


def _content(reader: ContentReader, spooled: bytes, memory: Memory, mode: str) -> bytes | None:
    """The whole content; None where a session would refuse it."""
    content, head = spooled + reader.rest, reader.head
    refused = reader.too_large or reader.header_too_long or len(head) > IN_MEMORY - 8
    refused = refused or (mode == "reject" and (reader.bare_lf or reader.bare_cr))
    if not refused:
        assert reader.size == len(content)
        assert head == content[: header.split(content)]
    reader.abandon()
    assert memory.used == 0
    return None if refused else content


PROPERTIES: dict[str, Callable[[bytes], None]] = {
    "path": any_path,
    "header": any_header,
    "data": any_content,
    "bdat": any_chunks,
    "message": one_message,
    "session": anything_said,
}
