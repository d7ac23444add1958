"""Authors: the mailboxes of From, Sender, Reply-To and the like (RFC 5322, section 3.4), as they are really written.

Tolerant: groups, comments, quoted local parts, encoded words (also with commas in them), folds,
raw octets, obsolete routes, semicolons between mailboxes, quotes and brackets that never close.
Iterative and linear: nothing recurses, and after `LIMIT` mailboxes the rest is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from relay.mail.encoding import decode, text, unquoted
from relay.mail.header import Field, unfold, value

LIMIT = 10_240  # mailboxes of one value
MOST_AUTHORS = 100  # of a message, in all its From fields
LARGEST_FROM = 16 * 1024  # octets of them
_CACHED = 1024  # octets; longer values are rare and would only fill the cache

# What nearly all software writes, in one match: "Jan" <jan@example.nl>, Jan <jan@example.nl>, jan@example.nl.
_DOT_ATOM = rb"[\w!#$%&'*+/=?^`{|}~.-]{1,64}+@[\w.-]{1,255}+"
_SIMPLE = re.compile(
    rb'(?:(?:"([^"\\=]*+)"|([\w !#$%&\'*+/^`{|}~.-]*+)) ?<(' + _DOT_ATOM + rb")>|(" + _DOT_ATOM + rb"))\Z"
)
# One token. Encoded words come first, since some software leaves commas and brackets in them; a domain
# literal keeps its colons.
_TEXT = rb'[^ \t"(<>,;:\[]|\[[^\[\] \t"(<>,;]*+\]?'
_TOKEN = re.compile(
    rb"(?P<blank>[ \t]++)"
    rb"|(?P<text>=\?[^?\s]++\?[bBqQ]\?[^?\s]*+\?=|(?:" + _TEXT + rb")+)"
    rb'|(?P<quoted>"[^"\\]*+(?:\\.[^"\\]*+)*")'
    rb'|(?P<special>[(<>,;:"])',
    re.DOTALL,
)
_IN_COMMENT = re.compile(rb"[()]|\\.", re.DOTALL)
_ADDRESS = re.compile(
    r'(?:[^\s\x00-\x20\x7f-\x9f"(),:;<>@\[\\\]]{1,256}|"(?:[^"\\\x00-\x1f\x7f-\x9f]|\\[ -~]){1,256}")'
    r"@(?:[^\s\x00-,/:-@\[-^`{-\x9f]{1,255}|\[[0-9A-Za-z:.-]{1,64}\])\Z"
)

# What RFC 5322, section 3.4, calls a mailbox, and nothing that another reader could take for another one: no comment
# in a comment, no bracket or @ in it, no route, no group. Dots in a name and octets beyond ASCII are read alike by all.
_COMMENTS = rb"(?:[ \t]|\((?:[^()\\<>@\x00-\x08\x0a-\x1f\x7f]|\\[ -;=?A-~])*+\))*+"
_NAME_WORD = rb'(?:[\w!#$%&\'*+/=?^`{|}~.\x80-\xff-]++|"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*+")'
_ATOM = rb"[\w!#$%&'*+/=?^`{|}~\x80-\xff-]++"
_ADDR_SPEC = (
    rb"(?:" + _ATOM + rb"(?:\." + _ATOM + rb')*+|"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*+")'
    rb"@(?:" + _ATOM + rb"(?:\." + _ATOM + rb")*+|\[[0-9A-Za-z:.-]++\])"
)
_MAILBOX = re.compile(
    _COMMENTS + rb"(?:" + _ADDR_SPEC + rb"|(?:" + _NAME_WORD + _COMMENTS + rb")*+<" + _ADDR_SPEC + rb">)" + _COMMENTS
)


class Author(NamedTuple):
    """`name` is decoded, "" if there is none. `address` is a usable address as it was written, or None."""

    name: str
    address: str | None


def parse(value: bytes) -> tuple[Author, ...]:
    """The mailboxes of an address-list value, in order; those of groups among them.

    An old-style comment `jan@example.nl (Jan)` is a name. A mailbox without a usable address keeps
    what is written as its name.
    """
    return _cached(value) if len(value) <= _CACHED else _parse(value)


def _parse(value: bytes) -> tuple[Author, ...]:
    value = unfold(value)
    simple = _SIMPLE.match(value)
    if simple:
        quoted, plain, address, bare = simple.groups()
        return (Author(text(quoted or plain or b"").strip(), (address or bare).decode("ascii")),)
    return tuple(_Reader(value).mailboxes())


_cached = lru_cache(maxsize=256)(_parse)


def authors_of(values: Sequence[bytes]) -> tuple[Author, ...]:
    """The mailboxes of all From `values` of a message, in order.

    There are none where they take more than `LARGEST_FROM` octets or are more than `MOST_AUTHORS`: nobody writes
    that, and reading it for each rule would keep others waiting.
    """
    if sum(map(len, values)) > LARGEST_FROM:
        return ()
    found = tuple([author for value in values for author in parse(value)])
    return found if len(found) <= MOST_AUTHORS else ()


def unambiguous(value: bytes) -> int:
    """How many mailboxes an address-list value has, where every reader finds the same ones in it; else 0.

    The value has to be a mailbox-list of RFC 5322, section 3.4, without obsolete forms and groups, and at most
    `LARGEST_FROM` octets long.
    """
    if len(value) > LARGEST_FROM:
        return 0
    value = unfold(value)
    position = count = 0
    while mailbox := _MAILBOX.match(value, position):
        count += 1
        position = mailbox.end()
        if position == len(value):
            return count
        if value[position : position + 1] != b",":
            break
        position += 1
    return 0


def plain(fields: Sequence[Field]) -> int:
    """How many mailboxes `fields` (From, Sender) name, where every reader finds the same ones in each of them; else 0.

    A blank before the colon is obsolete: there are readers to whom that is another field, or none.
    """
    counts = [unambiguous(value(field)) if field[1][len(field[0])] == 0x3A else 0 for field in fields]
    return sum(counts) if all(counts) else 0


class _Reader:
    """Reads one value from left to right; the words since the last separator are the mailbox under way."""

    def __init__(self, value: bytes) -> None:
        self._value = value
        self._last_semicolon = value.rfind(b";")
        self._found: list[Author] = []
        self._clear()

    def _clear(self) -> None:
        self._words: list[tuple[bytes, bytes]] = []  # as written, and without quotes
        self._comments: list[bytes] = []
        self._angle: list[bytes] | None = None  # what stands between < and >
        self._in_angle = False

    def mailboxes(self) -> list[Author]:
        value, position, length = self._value, 0, len(self._value)
        comments_close = True
        while position < length and len(self._found) < LIMIT:
            token = _TOKEN.match(value, position)
            assert token is not None  # every octet begins a token
            position = token.end()
            written = token[0]
            if token.lastgroup == "special":
                if written == b"(" and comments_close:
                    end = _end_of_comment(value, position)
                    comments_close = end > 0
                    if comments_close:
                        self._comments.append(value[position : end - 1])
                        position = end
                        continue
                elif written == b'"':
                    # It never closes: no quote behind it does, so the rest is read without quotes.
                    value = value[:position] + value[position:].replace(b'"', b"'")
                self._special(written, position)
            elif token.lastgroup == "blank":
                self._word(b" ", b" ")
            elif token.lastgroup == "quoted":
                self._word(written, unquoted(written))
            else:
                self._word(written, written)
        self._end()
        return self._found

    def _word(self, written: bytes, plain: bytes) -> None:
        if self._in_angle and self._angle is not None:
            self._angle.append(written)
        else:
            self._words.append((written, plain))

    def _special(self, written: bytes, position: int) -> None:
        if written in b",;":
            # In an obsolete route `<@one,@two:jan@example.nl>` a comma separates nothing.
            if written == b"," and self._in_angle and self._angle and self._angle[0].startswith(b"@"):
                self._angle.append(written)
            else:
                self._end()
        elif written == b"<":
            self._angle, self._in_angle = [], True
        elif written == b">" and self._angle is not None:
            self._in_angle = False
        elif written == b":" and not self._in_angle and self._angle is None and position <= self._last_semicolon:
            self._clear()  # the name of a group; without a semicolon to end it, a colon is a colon
        else:
            self._word(written, written)

    def _end(self) -> None:
        """The mailbox under way is complete."""
        name = decode(b"".join([plain for _, plain in self._words])).strip()
        comment = decode(b" ".join(self._comments)).strip()
        if self._angle is not None:
            written = _joined(self._angle)
            address = _address(written)
            self._add(name or comment or ("" if address else decode(written)), address)
        else:
            address = _address(_joined([written for written, _ in self._words]))
            if address:
                self._add(comment, address)
            elif name or comment:
                self._add(*self._without_brackets(name or comment))
        self._clear()

    def _without_brackets(self, name: str) -> Author:
        """`Jan jan@example.nl`, as some software writes it: the first word that is an address."""
        for place, (written, _) in enumerate(self._words):
            address = _address(written) if b"@" in written else None
            if address:
                rest = self._words[:place] + self._words[place + 1 :]
                return Author(decode(b"".join([plain for _, plain in rest])).strip(), address)
        return Author(name, None)

    def _add(self, name: str, address: str | None) -> None:
        if name or address:
            self._found.append(Author(name, address))


def _end_of_comment(value: bytes, position: int) -> int:
    """Behind the parenthesis that closes the comment begun before `position`; 0 if none does. Comments nest."""
    depth = 1
    for mark in _IN_COMMENT.finditer(value, position):
        if mark[0] == b"(":
            depth += 1
        elif mark[0] == b")":
            depth -= 1
            if depth == 0:
                return mark.end()
    return 0


def _joined(words: list[bytes]) -> bytes:
    """Words of an address, without the blanks that may stand around its dots and its @ (RFC 5322, section 4.4)."""
    kept: list[bytes] = []
    for word in words:
        if word == b" " and (not kept or kept[-1][-1:] in b".@:,"):
            continue
        if kept and kept[-1] == b" " and word[:1] in b".@:,":
            kept.pop()
        kept.append(word)
    return b"".join(kept).rstrip(b" ")


def _address(written: bytes) -> str | None:
    """The address in `written` without its route, or None if no mail could be sent to it."""
    if written.startswith(b"@"):
        written = written.partition(b":")[2]
    try:
        address = written.decode()
    except UnicodeDecodeError:
        return None  # RFC 6532 allows UTF-8 and nothing else
    return address if _ADDRESS.match(address) else None
