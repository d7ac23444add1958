"""The header of a message, as bytes that stay what they are (RFC 5322, section 2.2).

A field is a name of printable ASCII, a colon, and everything to the end of its last folded
line. The header is the longest run of fields at the start of the content; the empty line right
behind it belongs to it. Nothing is decoded or re-serialised: `Header.parse(raw).to_bytes() == raw`
for any bytes, and a change touches the bytes of the changed field only. One pass over the bytes,
in linear time and without recursion, whatever they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from relay.values import frozen

# There is one way to read a header, so nothing is ever tried twice: single characters are possessive, and behind
# a repeated group nothing can fail. (Possessive groups match wrongly before Python 3.11.5, cpython#106052.) White
# space before the colon is obsolete, and still seen (RFC 5322, section 4.5).
_FIELD = rb"[!-9;-~]++[ \t]*+:.*+(?:\n[ \t].*+)*\n?"
_HEAD = re.compile(rb"(?:" + _FIELD + rb")*(?:\r?\n)?")
# The second alternative takes all that is left, so that every octet is in exactly one match.
_FIELDS = re.compile(rb"(([!-9;-~]++)[ \t]*+:.*+(?:\n[ \t].*+)*\n?)|((?s:.++))")
_FOLD = re.compile(rb"\r?\n(?=[ \t])")


def split(content: bytes) -> int:
    """The length of the header at the start of `content`, with the empty line that ends it.

    A line that is no field ends the header before it, without an empty line. If the first line is
    no field (mbox `From `, a fold, plain text), the header is empty: 0. `content` may be a prefix
    that is known to hold the whole header.
    """
    match = _HEAD.match(content)
    return match.end() if match else 0


# One field: its name in lower case, and all of it as it came: name, colon, value, folding, line end.
# A plain pair, because a header is read for every message and a pair costs a third of an object.
Field = tuple[bytes, bytes]


def value(field: Field) -> bytes:
    """The value of a field, unfolded, otherwise raw, without white space around it."""
    raw = field[1]
    return unfold(raw[raw.index(b":") + 1 :])


def unfold(raw: bytes) -> bytes:
    """`raw` in one line (RFC 5322, section 2.2.3): folds are undone; stray line ends become spaces."""
    raw = raw.strip(b" \t\r\n")
    if raw.find(b"\n") >= 0:
        raw = _FOLD.sub(b"", raw).replace(b"\n", b" ")
    return raw.replace(b"\r", b" ")


def folded(name: bytes, words: Sequence[bytes]) -> bytes:
    """A complete field of `words`, one at least: a space between them, or a fold where a line would pass 78 octets."""
    lines = [name + b": " + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) < 78:
            lines[-1] += b" " + word
        else:
            lines.append(b" " + word)
    return b"\r\n".join([*lines, b""])


@frozen
class Header:
    """The fields of a header, and `rest`: what follows the last one (the empty line, or nothing)."""

    fields: tuple[Field, ...]
    rest: bytes = b"\r\n"

    @classmethod
    def parse(cls, block: bytes) -> Header:
        """The header `block`, as `split` delimits it; of any other bytes, the fields at their start."""
        found = _FIELDS.findall(block)
        rest = found.pop()[2] if found and found[-1][2] else b""
        return cls(tuple([(name.lower(), raw) for raw, name, _ in found]), rest)

    def to_bytes(self) -> bytes:
        return b"".join([raw for _, raw in self.fields]) + self.rest

    def all(self, name: bytes) -> list[Field]:
        """The fields called `name` (in lower case), from the top."""
        return [field for field in self.fields if field[0] == name]

    def first(self, name: bytes) -> Field | None:
        for field in self.fields:
            if field[0] == name:
                return field
        return None

    def count(self, name: bytes) -> int:
        return sum([field[0] == name for field in self.fields])

    def delete(self, names: Collection[bytes]) -> Header:
        """Without any field whose name is among `names` (in lower case)."""
        return Header(tuple([field for field in self.fields if field[0] not in names]), self.rest)

    def replace(self, field: Field, raw: bytes) -> Header:
        """With `raw`, one complete field, in the place of `field` (that very one, not one like it).

        Raises ValueError if `field` is not here, or `raw` is not exactly one field.
        """
        for place, candidate in enumerate(self.fields):
            if candidate is field:
                return Header((*self.fields[:place], _one(raw), *self.fields[place + 1 :]), self.rest)
        raise ValueError("no such field in this header")


def _one(raw: bytes) -> Field:
    fields, rest = Header.parse(raw).fields, Header.parse(raw).rest
    if len(fields) != 1 or rest or not raw.endswith(b"\r\n"):
        raise ValueError("not exactly one header field")
    return fields[0]
