"""Header fields made to fit a narrow way: ASCII, and lines of at most 998 octets. Only where that is safe.

Domains beyond ASCII become A-labels in fields of addresses. Raw 8-bit octets become encoded words (RFC 2047) in fields
that are text, and in display names where the whole field is a plain list of mailboxes. Anywhere else (parameters,
comments, groups, local parts, fields nobody knows) an encoded word would mean something else or nothing, so the octets
stay. Lines are folded at white space, which unfolding gives back as it was, behind the commas between addresses, and
between the identifiers of References; where there is none of these, the line stays.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right

from relay.mail.domain import a_labels
from relay.mail.encoding import decode, encode_phrase, unquoted
from relay.mail.header import folded, unfold
from relay.mail.mime import fields, name_of
from relay.mail.signature import without_broken

LONGEST = 998
_TEXTS = frozenset({b"subject", b"comments", b"content-description"})
_MAILBOXES = frozenset(
    {b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"x-original-from", b"return-path", b"errors-to"}
    | {b"resent-from", b"resent-sender", b"resent-reply-to", b"resent-to", b"resent-cc", b"resent-bcc"}
    | {b"disposition-notification-to", b"return-receipt-to", b"mail-followup-to", b"mail-reply-to"}
)
_IDENTIFIERS = frozenset({b"references", b"in-reply-to"})
# What has an end is one word, whatever is in it; a comment may have comments in it.
_QUOTED = rb'"[^"\\]*+(?:\\.[^"\\]*+)*"'
_COMMENT = rb"\([^()\\]*+(?:(?:\\.|\([^()\\]*+(?:\\.[^()\\]*+)*\))[^()\\]*+)*\)"
_WORD = _QUOTED + rb"|" + _COMMENT + rb"|<[^<>]*+>|\[[^\[\]]*+\]|=\?[^?\s]++\?[bBqQ]\?[^?\s]*+\?="
_ADDRESS = rb"(?:[\w!#$%&'*+/=?^`{|}~.\x80-\xff-]++|" + _QUOTED + rb")@(?:[\w.\x80-\xff-]++|\[[\w:.]++\])"
_MAILBOX = re.compile(
    rb"[ \t]*+(?:(?P<phrase>" + _QUOTED + rb"[ \t]*+|[^\"<>()\[\]:;,@\\]*+)<(?P<address>" + _ADDRESS + rb")>"
    rb"|(?P<bare>" + _ADDRESS + rb"))[ \t]*+(?:,|\Z)",
    re.DOTALL,
)
_DOMAIN = re.compile(rb"@([\w.-]*+[\x80-\xff][\w.\x80-\xff-]*+)")
_OF_ADDRESS = re.compile(_QUOTED + rb"|" + _COMMENT + rb"|" + _DOMAIN.pattern + rb'|(?P<endless>["(].*)', re.DOTALL)
# Places where a line may end: before white space between two words, behind a comma between two addresses, between two
# identifiers. Behind what has no end, nobody knows what a comma means.
_BLANK = re.compile(rb"(?<=[^ \t\r\n])(?=[ \t]++[^ \t\r\n])")
_COMMA = re.compile(_WORD + rb'|(?P<place>,(?=[^ \t\r\n]))|(?P<endless>["(<\[])', re.DOTALL)
_IDENTIFIER = re.compile(rb'<(?:[^<>"\s]|"[^"\r\n]*+")*>,?(?=<)')


def header_in_ascii(head: bytes, *, texts: bool) -> tuple[bytes, int]:
    """The header block `head` with its domains as A-labels, and, where `texts` are wanted so as well, in ASCII as far
    as that is safe; and how many signatures that broke, which are removed."""
    before, end = fields(head)
    after = [in_ascii(field) if texts else domains_in_ascii(field) for field in before]
    changed = {name_of(old) for old, new in zip(before, after, strict=True) if old != new}
    kept = without_broken(after, changed)
    return b"".join(kept) + end, len(after) - len(kept)


def domains_in_ascii(field: bytes) -> bytes:
    """`field`, one complete field, with the domains of its addresses as A-labels where they have such a form."""
    return field if field.isascii() or name_of(field) not in _MAILBOXES else _OF_ADDRESS.sub(_replaced, field)


def _replaced(found: re.Match[bytes]) -> bytes:
    return _DOMAIN.sub(_a_labels, found[0]) if found["endless"] else _a_labels(found)


def _a_labels(found: re.Match[bytes]) -> bytes:
    try:
        written = a_labels(found[1].decode()) if found[1] else None
    except UnicodeDecodeError:
        written = None
    return found[0] if written is None else b"@" + written.encode()


def in_ascii(field: bytes) -> bytes:
    """`field`, one complete field, in ASCII where that is safe; else as it came."""
    field = domains_in_ascii(field)
    kind = name_of(field)
    if field.isascii() or (kind not in _TEXTS and kind not in _MAILBOXES):
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
    """`field` with lines over 998 octets folded, where there are places for it."""
    if len(field) <= LONGEST:
        return field
    lines = field.split(b"\r\n")
    if max(map(len, lines)) <= LONGEST:
        return field
    places, pieces, begin = _places(field), [], 0
    for line in lines:
        end = begin + len(line)
        here = places[bisect_right(places, (begin,)) : bisect_left(places, (end,))] if len(line) > LONGEST else ()
        lead, last = b"", (begin, b"")
        for place in (*here, (end, b"")):
            if len(lead) + place[0] - begin > LONGEST and last[0] > begin:
                pieces.append(lead + field[begin : last[0]])
                begin, lead = last
            last = place
        pieces.append(lead + field[begin:end])
        begin = end + len(b"\r\n")
    return b"\r\n".join(pieces)


def _places(field: bytes) -> list[tuple[int, bytes]]:
    """Where a line may end, in order, each with the blank that the next one begins with if it has none."""
    kind, value = name_of(field), field.find(b":") + 1  # a name alone is no line
    places = [(found.start(), b"") for found in _BLANK.finditer(field, value + 1)]
    if kind in _MAILBOXES:
        for found in _COMMA.finditer(field, value):
            if found["endless"]:
                break
            if found["place"]:
                places.append((found.end(), b" "))
    elif kind in _IDENTIFIERS:
        places += [(found.end(), b" ") for found in _IDENTIFIER.finditer(field, value)]
    return sorted(places)
