"""Content on the wire: dot-stuffing and the end of the data (RFC 5321, section 4.5.2).

A line begins after CRLF and nowhere else: content is kept with CRLF line ends, so that a bare LF or CR,
should one come this far, is neither stuffed nor taken for a line's end.
"""

from __future__ import annotations

START = b"\r\n"


def stuff(piece: bytes, before: bytes) -> bytes:
    """`piece` with a dot before every dot that begins a line.

    `before` is the two octets sent ahead of the piece (fewer, if there were fewer); `START` at the start.
    """
    stuffed = piece.replace(b"\r\n.", b"\r\n..")
    if before == b"\r\n" and piece[:1] == b".":
        return b"." + stuffed
    if before[-1:] == b"\r" and piece[:2] == b"\n.":
        return b"\n." + stuffed[1:]
    return stuffed


def end_of_data(before: bytes) -> bytes:
    """What ends the data behind these last two octets: the dot, on a line of its own."""
    return b".\r\n" if before == b"\r\n" else b"\r\n.\r\n"
