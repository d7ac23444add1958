"""The path grammar of MAIL and RCPT (RFC 5321, section 4.1.2), tolerant of what applications send.

Taken beside the standard's forms: spaces around the colon and inside the brackets, missing brackets,
a display name before the brackets, source routes (dropped, RFC 5321, appendix C), a trailing dot of the
domain, dots anywhere in a local part, UTF-8 without SMTPUTF8. Encoded words are never decoded, and quotes
protect neither `<` nor `>`: what is no address after these tolerances is refused, so that nobody reads
another address than we do. Each tolerance is told as a quirk.
"""

from __future__ import annotations

import re
from functools import lru_cache

from relay.mail.address import Address
from relay.mail.quirk import Quirk
from relay.mail.reply import Reply
from relay.values import frozen

LONGEST_LOCAL = 256  # octets; RFC 5321, section 4.5.3.1.1 has 64, which VERP, SRS and those of Exchange exceed
LONGEST_DOMAIN = 255
_REMEMBERED = 256  # octets; a longer argument is rare, and remembering many would cost memory

_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff-]+"
_QUOTED = rb'"(?:[ !#-;=?-\[\]-~\x80-\xff]|\\[ -;=?-~])*"'
_LABELS = rb"[A-Za-z0-9_\x80-\xff-]+(?:\.[A-Za-z0-9_\x80-\xff-]+)*"
_LITERAL = rb"\[[A-Za-z0-9:.]+\]"
_DOMAIN = rb"@(" + _LABELS + rb"|" + _LITERAL + rb")\.?"
_MAILBOX = re.compile(rb"(" + _ATOM + rb"|" + _QUOTED + rb"(?=@))(?:" + _DOMAIN + rb")?")
_ROUTE = re.compile(rb"@" + _LABELS + rb"(?:,@" + _LABELS + rb")*:")
_PREFIX = re.compile(rb"(?:FROM|TO)[ \t]*:[ \t]*", re.IGNORECASE)
_NO_SPACE = re.compile(rb"(?:FROM|TO):[^ \t]", re.IGNORECASE)
_DISPLAY_NAME = re.compile(rb'(?:"[^"<>]*"[ \t]*|[^"<>@]*)(?=<)')
_BARE = re.compile(rb'(?:"(?:[^"\\]|\\.)*"|[^ \t"])+')
_KEYWORD = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_-]*")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class PathError(ValueError):
    """No path: the reply that says so."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(reply.text)


@frozen
class Path:
    """What stood behind MAIL or RCPT. `address` None is the null reverse-path `<>`.

    `parameters` are (KEYWORD, value or None) in order, values as bytes exactly as sent. `quirks`: what was
    tolerated in it (an address beyond ASCII is none by itself: the transaction knows of SMTPUTF8).
    """

    address: Address | None
    parameters: tuple[tuple[str, bytes | None], ...] = ()
    quirks: frozenset[Quirk] = frozenset()


def parse(argument: bytes) -> Path:
    """The path and the parameters of `FROM:<a@b> SIZE=1` or `TO:<a@b>`; raises PathError.

    Remembered, since applications send the same few paths all day.
    """
    return _remembered(argument) if len(argument) <= _REMEMBERED else _parse(argument)


def _parse(argument: bytes) -> Path:
    prefix = _PREFIX.match(argument)
    if prefix is None or _CONTROL.search(argument):
        raise PathError(_NO_PATH)
    rest = argument[prefix.end() :].strip(b" \t")
    if not rest:
        raise PathError(Reply(501, "5.1.7" if argument[:1] in b"fF" else "5.1.3", "An address is missing"))
    quirks = set[Quirk]()
    if not _NO_SPACE.match(argument):
        quirks.add(Quirk.SPACE_IN_PATH)
    mailbox, parameters = _cut(rest, quirks)
    return Path(_mailbox(mailbox, quirks), _parameters(parameters), frozenset(quirks))


_remembered = lru_cache(maxsize=4096)(_parse)


def _cut(rest: bytes, quirks: set[Quirk]) -> tuple[bytes, bytes]:
    """The text of the mailbox, and of the parameters behind it."""
    if b"<" in rest:
        name = _DISPLAY_NAME.match(rest)
        start = name.end() if name else 0
        if rest[start : start + 1] == b"<":
            inside, closed, behind = rest[start + 1 :].partition(b">")
            if not closed:
                raise PathError(_BAD_SYNTAX)
            if start:
                quirks.add(Quirk.NAME_IN_PATH)
            mailbox = inside.strip(b" \t")
            if mailbox != inside:
                quirks.add(Quirk.SPACE_IN_PATH)
            return mailbox, behind
    bare = _BARE.match(rest)
    if bare is None:
        raise PathError(_BAD_SYNTAX)
    quirks.add(Quirk.NO_BRACKETS)
    return bare.group(), rest[bare.end() :]


def _mailbox(text: bytes, quirks: set[Quirk]) -> Address | None:
    if not text:
        return None
    route = _ROUTE.match(text)
    if route:
        text = text[route.end() :]
        quirks.add(Quirk.SOURCE_ROUTE)
    match = _MAILBOX.fullmatch(text)
    if match is None:
        raise PathError(_BAD_SYNTAX)
    local, domain = match.group(1), match.group(2) or b""
    if len(local) > LONGEST_LOCAL or len(domain) > LONGEST_DOMAIN:
        raise PathError(Reply(501, "5.1.3", "Address too long"))
    try:
        address = Address(local.decode(), _folded(domain.decode()))
    except UnicodeDecodeError:
        raise PathError(Reply(553, "5.6.7", "Address is neither ASCII nor UTF-8")) from None
    if not (address.local.isprintable() and address.domain.isprintable()):  # UTF-8 has blanks and controls as well
        raise PathError(_BAD_SYNTAX)
    if domain and text.endswith(b"."):
        quirks.add(Quirk.TRAILING_DOT)
    if local[:1] != b'"' and (b".." in local or local[:1] == b"." or local[-1:] == b"."):
        quirks.add(Quirk.DOTS_IN_LOCAL_PART)
    return address


def _folded(domain: str) -> str:
    """`domain` in lower case. A letter beyond ASCII whose lower case is ASCII (U+212A, the Kelvin sign, is a "k") is
    refused: no domain has it (RFC 5892), and it would make another domain of this one."""
    lower = domain.lower()
    if not domain.isascii() and ("\u212a" in domain or "\u0130" in domain):
        raise PathError(_BAD_SYNTAX)
    return lower


def _parameters(text: bytes) -> tuple[tuple[str, bytes | None], ...]:
    if not text.strip():
        return ()
    found: list[tuple[str, bytes | None]] = []
    for word in text.split():
        key, equals, value = word.partition(b"=")
        if not _KEYWORD.fullmatch(key):
            raise PathError(_BAD_PARAMETER)
        found.append((key.decode("ascii").upper(), value if equals else None))
    return tuple(found)


_NO_PATH = Reply(501, "5.5.4", "Syntax: MAIL FROM:<address> or RCPT TO:<address>")
_BAD_SYNTAX = Reply(553, "5.1.3", "Address syntax")
_BAD_PARAMETER = Reply(501, "5.5.4", "Syntax error in parameters")
