"""Authors: the mailboxes of From, Sender, Reply-To and the like (RFC 5322, section 3.4), as they are really written.

Tolerant: groups, comments, quoted local parts, encoded words (also with commas in them), folds,
raw octets, obsolete routes, semicolons between mailboxes, quotes and brackets that never close. Words without an
address that stand before a mailbox belong to its name, since much software quotes no comma, but for `Jan, a@b.nl`; an
address may stand in quotes, in square brackets or behind `mailto:`.
Iterative and linear: nothing recurses, and after `LIMIT` mailboxes the rest is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from relay.mail.encoding import decode, text, unescaped, unquoted
from relay.mail.header import Field, unfold, value

LIMIT = 10_240  # mailboxes of one value
MOST_AUTHORS = 100  # of a message, in all its From fields
LARGEST_FROM = 16 * 1024  # octets of them
_MOST_SEPARATORS = 1_000  # commas and semicolons of them, those in names included
_CACHED = 1024  # octets; longer values are rare and would only fill the cache

# What nearly all software writes, in one match: "Jan" <jan@example.nl>, Jan <jan@example.nl>, jan@example.nl.
_DOT_ATOM = rb"[\w!#$%&'*+/=?^`{|}~.-]{1,64}+@[\w.-]{1,255}+(?<!\.)"
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
_UNSEEN = "\u200b\u200e\u200f\u202a-\u202e\u2060\ufeff"  # copied with an address from web pages, and part of none
_ADDRESS = re.compile(
    r'(?:[^\s\x00-\x20\x7f-\x9f"(),:;<>@\[\\\]' + _UNSEEN + r']{1,256}|"(?:[^"\\\x00-\x1f\x7f-\x9f]|\\[ -~]){1,256}")'
    r"@(?:[^\s\x00-,/:-@\[-^`{-\x9f" + _UNSEEN + r"]{1,255}(?<!\.)|\[[0-9A-Za-z:.-]{1,64}\])\Z"
)
_STRAY = re.compile(f"[{_UNSEEN}]+")
_LINK = re.compile(r"(?:mailto|smtp):", re.IGNORECASE)  # a link, and the type of an address as Exchange writes it
_BETWEEN = " \t,;:|/<>[(\"'-"  # a name and its address
_LOOSE = re.compile(r'[^\s"(),:;<>\[\]?]++')

# What RFC 5322, section 3.4, calls a mailbox, and nothing that another reader could take for another one: no comment in
# a comment, no bracket or @ in it, no route, no group. Dots in a name and letters beyond ASCII are read alike by all.
_COMMENTS = rb"(?:[ \t]|\((?:[^()\\<>@\x00-\x08\x0a-\x1f\x7f]|\\[ -;=?A-~])*+\))*+"
_NAME_WORD = rb'(?:[\w!#$%&\'*+/=?^`{|}~.\x80-\xff-]++|"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*+")'
_ATOM = rb"[\w!#$%&'*+/=?^`{|}~\x80-\xff-]++"
_ADDR_SPEC = (
    rb"(?:" + _ATOM + rb"(?:\." + _ATOM + rb')*+|"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*+")'
    rb"@(?:" + _ATOM + rb"(?:\." + _ATOM + rb")*+|\[[0-9A-Za-z:.-]++\])"
)
_MAILBOX = re.compile(
    _COMMENTS
    + rb"(?:(?P<bare>"
    + _ADDR_SPEC
    + rb")|(?:"
    + _NAME_WORD
    + _COMMENTS
    + rb")*+<(?P<angle>"
    + _ADDR_SPEC
    + rb")>)"
    + _COMMENTS
)


class Author(NamedTuple):
    """`name` is decoded, "" if there is none. `address` is a usable address as it was written, or None."""

    name: str
    address: str | None


def parse(value: bytes, *, local: bool = False) -> tuple[Author, ...]:
    """The mailboxes of an address-list value, in order; those of groups among them.

    An old-style comment `jan@example.nl (Jan)` is a name. A mailbox without a usable address keeps
    what is written as its name. `local`: a word alone may name a mailbox of this machine, as in `Beheer <root>` or
    `root (admin@example.nl)`, and is the name of a mailbox without an address then.
    """
    return _cached(value, local) if len(value) <= _CACHED else _parse(value, local)


def _parse(value: bytes, local: bool) -> tuple[Author, ...]:
    value = unfold(value)
    simple = _SIMPLE.match(value)
    if simple:
        quoted, plain, address, bare = simple.groups()
        return (Author(text(quoted or plain or b"").strip(), (address or bare).decode("ascii")),)
    return tuple(_Reader(value, local=local).mailboxes())


_cached = lru_cache(maxsize=256)(_parse)


def authors_of(values: Sequence[bytes]) -> tuple[Author, ...]:
    """The mailboxes of all From `values` of a message, in order.

    Where none of them has a usable address, those that a reader of the message would see in them: within encoded
    words, quotes, or what was escaped for HTML. There are none where they are more than `MOST_AUTHORS`, or cannot be
    `read_at_once`.
    """
    if not read_at_once(values):
        return ()
    found = tuple([author for value in values for author in parse(value)])
    if found and not (found[0].address or any(author.address for author in found)):
        found = tuple([author for value in values for author in _seen(unescaped(decode(value)))]) or found
    return found if len(found) <= MOST_AUTHORS else ()


def read_at_once(values: Sequence[bytes]) -> bool:
    """Whether others have to wait no longer than they should while these values are read. Nobody writes larger ones, or
    more commas."""
    octets = sum(map(len, values))
    return octets <= _MOST_SEPARATORS or (
        octets <= LARGEST_FROM and sum([one.count(b",") + one.count(b";") for one in values]) <= _MOST_SEPARATORS
    )


def _seen(shown: str) -> list[Author]:
    """The addresses in ASCII that stand anywhere in a text, each with what stands before it as its name."""
    found: list[Author] = []
    end = 0
    for word in _LOOSE.finditer(shown):
        address = _address(word[0].encode()) if "@" in word[0] and word[0].isascii() else None
        if address:
            found.append(Author(_name(shown[end : word.start()]), address))
            end = word.end()
    return found


def _name(written: str) -> str:
    """A name that stood before an address, without what stood between them."""
    name = written.rstrip(_BETWEEN)
    if written[len(name) :].startswith(":"):
        name = name[:-6] if name.lower().endswith("mailto") else name[:-4] if name.lower().endswith("smtp") else name
    return name.rstrip(_BETWEEN).strip(" \t,;:<>\"'])")


def unambiguous(value: bytes) -> int:
    """How many mailboxes an address-list value has, where every reader finds the same ones in it; else 0.

    The value has to be a mailbox-list of RFC 5322, section 3.4, without obsolete forms and groups, and at most
    `LARGEST_FROM` octets long.
    """
    if len(value) > LARGEST_FROM:
        return 0
    value = unfold(value)
    position = count = 0
    while (mailbox := _MAILBOX.match(value, position)) and _is_read_alike(mailbox["bare"] or mailbox["angle"]):
        count += 1
        position = mailbox.end()
        if position == len(value):
            return count
        if value[position : position + 1] != b",":
            break
        position += 1
    return 0


def _is_read_alike(address: bytes) -> bool:
    """Whether nothing in it is invisible, and nothing may be decoded."""
    try:
        return b"=?" not in address and _ADDRESS.match(address.decode()) is not None
    except UnicodeDecodeError:
        return False


def plain(fields: Sequence[Field]) -> int:
    """How many mailboxes `fields` (From, Sender) name, where every reader finds the same ones in each of them; else 0.

    A blank before the colon is obsolete: there are readers to whom that is another field, or none.
    """
    counts = [unambiguous(value(field)) if field[1][len(field[0])] == 0x3A else 0 for field in fields]
    return sum(counts) if all(counts) else 0


class _Reader:
    """Reads one value from left to right; the words since the last mailbox are the one under way.

    Behind a separator they may be words of a name still, so they are kept until an address comes, or none.
    """

    def __init__(self, value: bytes, *, local: bool) -> None:
        self._value = value
        self._local = local
        self._last_semicolon = value.rfind(b";")
        self._found: list[Author] = []
        self._clear()

    def _clear(self) -> None:
        self._words: list[tuple[bytes, bytes]] = []  # as written, and without quotes
        self._pieces: list[int] = []  # where separators stand in them
        self._comments: list[bytes] = []
        self._angle: list[bytes] | None = None  # what stands between < and >
        self._in_angle = False
        self._again: str | None = None  # the address in brackets right before

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
        return self._found[:LIMIT]

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
            elif self._angle is None and "@" not in _text(self._piece):
                self._pieces.append(len(self._words))
                self._words.append((written, written))
            else:
                self._end()
        elif written == b"<":
            self._open()
        elif written == b">" and self._angle is not None:
            self._in_angle = False
        elif written == b":" and not self._in_angle and self._angle is None and position <= self._last_semicolon:
            # What stands before it is the name of a group; without a semicolon to end it, a colon is a colon.
            del self._words[self._begin :], self._comments[:]
            self._end()
        else:
            self._word(written, written)

    @property
    def _begin(self) -> int:
        """Where the words behind the last separator begin."""
        return self._pieces[-1] + 1 if self._pieces else 0

    @property
    def _piece(self) -> list[tuple[bytes, bytes]]:
        return self._words[self._begin :]

    def _open(self) -> None:
        """A bracket opens: behind another one, which is a mailbox by itself, or had something else in it."""
        if self._angle is not None and not self._in_angle:
            before = _address(_joined(self._angle))
            if before:
                self._end()
                self._again = before
            else:
                self._words += [(word, word) for word in self._angle]
        self._angle, self._in_angle = [], True

    def _end(self) -> None:
        """The mailbox under way is complete."""
        comment = decode(b" ".join(self._comments)).strip()
        if self._angle is not None:
            self._end_of_angle(_joined(self._angle), comment)
        else:
            address = _address(_joined([written for written, _ in self._piece]))
            if address:  # without a name: what stands before it may be a mailbox of its own
                del self._words[self._begin :]
                if self._pieces:
                    self._words.pop()
                    self._pieces.pop()
                    self._apart("")
                self._add(comment, address)
            elif "@" in _text(self._piece):
                self._without_brackets(_text(self._words[: self._begin]), self._piece, comment)
            elif not self._local and (address := _address(_joined([b" ".join(self._comments)]))):
                self._add(_text(self._words), address)
            else:
                self._apart(comment)
        self._clear()

    def _end_of_angle(self, written: bytes, comment: str) -> None:
        name, address = _text(self._words), _address(written)
        if address:
            if name or comment or address != self._again:
                self._add(name or comment, address)
        elif b"@" in written or "@" not in name:
            is_local = self._local and b" " not in written
            self._add((is_local and decode(written)) or name or comment or decode(written), None)
        else:  # `jan@example.nl <Jan>`
            self._without_brackets("", [*self._words, (b" ", b" "), (written, written)], comment)

    def _apart(self, comment: str) -> None:
        """No address came: each piece is a mailbox without one."""
        begin = 0
        for end in [*self._pieces, len(self._words)]:
            self._add(_text(self._words[begin:end]) or (comment if not self._pieces else ""), None)
            begin = end + 1

    def _without_brackets(self, name: str, words: list[tuple[bytes, bytes]], comment: str) -> None:
        """`Jan jan@example.nl`, as some software writes it: each word that is an address is one, with the words before
        it, or all others where it is the only one."""
        found = [
            (place, address)
            for place, (written, plain) in enumerate(words)
            if b"@" in written and (address := _address(plain))
        ]
        if not found:
            self._add(", ".join(filter(None, [name, _text(words)])) or comment, None)
        begin = 0
        for place, address in found:
            own = words[begin:place] + (words[place + 1 :] if len(found) == 1 else [])
            self._add(", ".join(filter(None, [name, _name(_text(own))])), address)
            name, begin = "", place + 1

    def _add(self, name: str, address: str | None) -> None:
        if name or address:
            self._found.append(Author(name, address))


def _text(words: list[tuple[bytes, bytes]]) -> str:
    """Words as a name, without separators around it; a semicolon behind it may end `&quot;`. What is quoted is none."""
    begin, end = 0, len(words)
    while begin < end and not words[begin][0].strip(b" \t,;"):
        begin += 1
    while end > begin and not words[end - 1][0].strip(b" \t,"):
        end -= 1
    return decode(b"".join([plain for _, plain in words[begin:end]])).strip(" \t")


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
    if _ADDRESS.match(address):
        return address
    address = _STRAY.sub("", address).strip()
    if address[:1] + address[-1:] in ("''", "[]"):
        address = address[1:-1]
    if link := _LINK.match(address):
        address = address[link.end() :].partition("?")[0]
    address = address.rstrip(".")
    return address if _ADDRESS.match(address) else None
