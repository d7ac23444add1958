"""The path grammar of MAIL and RCPT (RFC 5321, section 4.1.2), tolerant of what applications send.

Taken beside the standard's forms: spaces around the colon and inside the brackets, missing brackets,
a display name before the brackets, source routes (dropped, RFC 5321, appendix C), a trailing dot of the
domain, dots anywhere in a local part, UTF-8 without SMTPUTF8. Encoded words are never decoded: what is
no address after these tolerances is refused, so that nobody reads another address than we do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from relay.mail.address import Address
from relay.mail.reply import Reply

LONGEST_LOCAL = 128  # octets; RFC 5321, section 4.5.3.1.1 has 64, which VERP addresses exceed
LONGEST_DOMAIN = 255

_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff-]+"
_QUOTED = rb'"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*"'
_LABELS = rb"[A-Za-z0-9_\x80-\xff-]+(?:\.[A-Za-z0-9_\x80-\xff-]+)*"
_LITERAL = rb"\[[A-Za-z0-9:.]+\]"
_MAILBOX = re.compile(rb"(" + _ATOM + rb"|" + _QUOTED + rb")(?:@(" + _LABELS + rb"|" + _LITERAL + rb")\.?)?")
_ROUTE = re.compile(rb"@" + _LABELS + rb"(?:,@" + _LABELS + rb")*:")
_PREFIX = re.compile(rb"(?:FROM|TO)[ \t]*:[ \t]*", re.IGNORECASE)
_DISPLAY_NAME = re.compile(rb'(?:"[^"<>]*"[ \t]*|[^"<>@]*)(?=<)')
_BARE = re.compile(rb'(?:"(?:[^"\\]|\\.)*"|[^ \t"])+')


class PathError(ValueError):
    """No path: the reply that says so."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(reply.text)


@dataclass(frozen=True, slots=True)
class Path:
    """What stood behind MAIL or RCPT. `address` None is the null reverse-path `<>`.

    `parameters` are (KEYWORD, value or None) in order, values as bytes exactly as sent.
    """

    address: Address | None
    parameters: tuple[tuple[str, bytes | None], ...] = ()


@lru_cache(maxsize=4096)
def parse(argument: bytes) -> Path:
    """The path and the parameters of `FROM:<a@b> SIZE=1` or `TO:<a@b>`; raises PathError.

    Remembered, since applications send the same few paths all day.
    """
    prefix = _PREFIX.match(argument)
    if prefix is None:
        raise PathError(Reply(501, "5.5.4", "Syntax: MAIL FROM:<address> or RCPT TO:<address>"))
    rest = argument[prefix.end() :].strip(b" \t")
    if not rest:
        raise PathError(Reply(501, "5.1.7" if argument[:1] in b"fF" else "5.1.3", "An address is missing"))
    mailbox, parameters = _cut(rest)
    return Path(_mailbox(mailbox), _parameters(parameters))


def _cut(rest: bytes) -> tuple[bytes, bytes]:
    """The text of the mailbox, and of the parameters behind it."""
    if b"<" in rest:
        name = _DISPLAY_NAME.match(rest)
        start = name.end() if name else 0
        if rest[start : start + 1] == b"<":
            end = _closing_bracket(rest, start + 1)
            return rest[start + 1 : end].strip(b" \t"), rest[end + 1 :]
    bare = _BARE.match(rest)
    if bare is None:
        raise PathError(_BAD_SYNTAX)
    return bare.group(), rest[bare.end() :]


def _closing_bracket(rest: bytes, start: int) -> int:
    """Where the `>` stands that closes the path; one inside a quoted local part does not count."""
    quoted = escaped = False
    for index in range(start, len(rest)):
        byte = rest[index]
        if escaped:
            escaped = False
        elif quoted and byte == 0x5C:
            escaped = True
        elif byte == 0x22:
            quoted = not quoted
        elif byte == 0x3E and not quoted:
            return index
    raise PathError(_BAD_SYNTAX)


def _mailbox(text: bytes) -> Address | None:
    if not text:
        return None
    route = _ROUTE.match(text)
    if route:
        text = text[route.end() :]
    match = _MAILBOX.fullmatch(text)
    if match is None:
        raise PathError(_BAD_SYNTAX)
    local, domain = match.group(1), match.group(2) or b""
    if len(local) > LONGEST_LOCAL or len(domain) > LONGEST_DOMAIN:
        raise PathError(Reply(501, "5.1.3", "Address too long"))
    try:
        return Address(local.decode(), domain.decode().lower())
    except UnicodeDecodeError:
        raise PathError(Reply(553, "5.6.7", "Address is neither ASCII nor UTF-8")) from None


def _parameters(text: bytes) -> tuple[tuple[str, bytes | None], ...]:
    if not text.strip():
        return ()
    found: list[tuple[str, bytes | None]] = []
    for word in text.split():
        key, equals, value = word.partition(b"=")
        found.append((key.decode("ascii", "replace").upper(), value if equals else None))
    return tuple(found)


_BAD_SYNTAX = Reply(553, "5.1.3", "Address syntax")
