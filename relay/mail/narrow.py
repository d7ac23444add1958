"""Header fields made to fit a narrow way: ASCII, and lines of at most 998 octets. Only where that is safe.

Raw 8-bit octets become encoded words (RFC 2047) in fields that are text, and in display names where the whole field is
a plain list of mailboxes with ASCII addresses. Anywhere else (parameters, comments, groups, fields nobody knows) an
encoded word would mean something else or nothing, so the octets stay. Lines are folded at white space, which
unfolding gives back as it was; where there is none, the line stays.
"""

from __future__ import annotations

import re

from relay.mail.encoding import decode, encode_phrase, unquoted
from relay.mail.header import folded, unfold
from relay.mail.mime import name_of

LONGEST = 998
_TEXTS = frozenset({b"subject", b"comments", b"content-description"})
_MAILBOXES = frozenset(
    {b"from", b"sender", b"reply-to", b"to", b"cc"}
    | {b"resent-from", b"resent-sender", b"resent-reply-to", b"resent-to", b"resent-cc"}
)
_DOT_ATOM = rb"[\w!#$%&'*+/=?^`{|}~.-]++@[\w.-]++"
_MAILBOX = re.compile(
    rb'[ \t]*+(?:(?P<phrase>"[^"\\]*+(?:\\.[^"\\]*+)*"|[^"<>()\[\]:;,@\\]*+)<(?P<address>' + _DOT_ATOM + rb")>"
    rb"|(?P<bare>" + _DOT_ATOM + rb"))[ \t]*+(?:,|\Z)"
)
# Before white space that stands between two words.
_PLACE = re.compile(rb"(?<=[^ \t])(?=[ \t]++[^ \t\r\n])")


def in_ascii(field: bytes) -> bytes:
    """`field`, one complete field, in ASCII where that is safe; else as it came."""
    if field.isascii():
        return field
    kind = name_of(field)
    if kind not in _TEXTS and kind not in _MAILBOXES:
        return field
    name, _, raw = field.partition(b":")
    if kind in _TEXTS:
        return name + b": " + encode_phrase(decode(raw)) + b"\r\n"
    words = _mailboxes(unfold(raw))
    return folded(name.rstrip(), words) if words else field


def _mailboxes(value: bytes) -> list[bytes]:
    """The words of a plain list of mailboxes, in ASCII; nothing where it is anything else."""
    words: list[bytes] = []
    at = 0
    while at < len(value):
        found = _MAILBOX.match(value, at)
        if found is None:
            return []
        at = found.end()
        phrase = (found["phrase"] or b"").strip()
        if phrase and not phrase.isascii():
            plain = unquoted(phrase) if phrase[:1] == b'"' else phrase
            phrase = encode_phrase(decode(plain))
        address = found["bare"] or b"<" + found["address"] + b">"
        words += [phrase, address] if phrase else [address]
        words[-1] += b","
    if words and not value.endswith(b","):
        words[-1] = words[-1][:-1]
    return words


def in_short_lines(field: bytes) -> bytes:
    """`field` with lines over 998 octets folded, where they have white space."""
    if len(field) <= LONGEST:
        return field
    lines = field.split(b"\r\n")
    if max(map(len, lines)) <= LONGEST:
        return field
    return b"\r\n".join([piece for line in lines for piece in _pieces(line)])


def _pieces(line: bytes) -> list[bytes]:
    """`line` in pieces of at most 998 octets, as far as there are places to cut; none leaves the name alone."""
    if len(line) <= LONGEST:
        return [line]
    begin, place, first = 0, 0, line.find(b":") + 1
    pieces: list[bytes] = []
    for found in _PLACE.finditer(line):
        at = found.start()
        if at <= first:
            continue
        if at - begin > LONGEST and place > begin:
            pieces.append(line[begin:place])
            begin = place
        place = at
    if len(line) - begin > LONGEST and place > begin:
        pieces.append(line[begin:place])
        begin = place
    return [*pieces, line[begin:]]
