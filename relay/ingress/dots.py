"""Dots at the beginning of a line, which some software doubles in a file as SMTP has it (RFC 5321, section 4.5.2).

System.Net.Mail of .NET Framework does so, since the SMTP service of IIS takes one away again; such a file may end with
a line that is one dot. Others, .NET 5 among them, do not double. All work on content, or on the octets of a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SINGLE = re.compile(rb"[\r\n]\.(?=[^.])")
_LAST = re.compile(rb"[\r\n]\.(?:\r*\n|\r)\Z")


def doubled(pieces: Iterable[bytes]) -> bool:
    """Whether all lines of a file that begin with a dot have two of them, but for a last one that has nothing else."""
    single, end = 0, b"\n"
    for piece in pieces:
        single += len(_SINGLE.findall(end[-2:] + piece))
        end = (end + piece)[-8:]
    return single == (1 if _LAST.search(end) else 0)


class Undoubling:
    """Takes one dot away from each line that begins with two, and a last line that is one dot, however the content is
    cut into pieces."""

    def __init__(self) -> None:
        self._held = b""  # a line that is one dot, and may be the last
        self._fresh = True  # what comes next begins a line

    def undouble(self, content: bytes, *, last: bool) -> bytes:
        """Take the next piece of content, and whether it is the last; what is returned is the content that is sure."""
        text, self._held = self._held + content, b""
        line = text.rfind(b"\n", 0, max(0, len(text) - 1)) + 1
        if text[line:] in (b".", b".\r\n") and (line or self._fresh):
            text, self._held = text[:line], b"" if last else text[line:]
        if self._fresh and text.startswith(b".."):
            text = text[1:]
        if text:
            self._fresh = text.endswith(b"\n")
        return text.replace(b"\n..", b"\n.")
