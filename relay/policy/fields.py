"""A message as fields, for a vendor that takes JSON: what stands in it, put into a template of the configuration.

The one place where the standard `email` package reads a message. It is neither quick nor safe with what is hostile:
so never more than `LARGEST` octets, on a thread, and whatever it raises is `Unfit`.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, a2b_qp
from collections.abc import Mapping
from email import message_from_bytes
from email.message import Message
from typing import cast

from relay.mail import author, encoding
from relay.mail.header import Header, value
from relay.mail.shown import text_of
from relay.policy.pattern import CodePattern

LARGEST = 50 * 1024
# The package's time grows with the square of the depth, and of the parameters of a part.
_MOST_NESTED = 100
_LONGEST_FIELD = 4 * 1024  # octets
_FIELDS = re.compile(rb"^content-(?:type|disposition)[ \t]*+:.*+(?:\n[ \t].*+)*", re.IGNORECASE | re.MULTILINE)

PLACEHOLDERS = ("recipient", "sender", "subject", "text", "html", "code", "message_id", "queue_id")
DEFAULT: Mapping[str, str] = {name: "{" + name + "}" for name in PLACEHOLDERS}
"""The template where the configuration has none: each field under its own name."""

# What software writes for programs that show no HTML, in place of what is in it.
_NOTICE = re.compile(r"\bhtml\b|browser|mail[ -]?(?:client|reader|program)", re.IGNORECASE)
_LONGEST_NOTICE = 1000  # characters
_COMMENT = re.compile(r"\([^()]*\)")
_WORD = re.compile(r"[\w-]+")
_NO_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]+")
_SOFT_BREAK = re.compile(rb"=[ \t]+(?=\r?\n|\Z)")

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")

_READ = ("text/plain", "text/html")

Template = None | bool | int | float | str | tuple["Template", ...] | Mapping[str, "Template"]
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class Unfit(Exception):
    """The message cannot be put into fields. Holds nothing of it."""


def placeholders(template: Template) -> set[str]:
    """What stands in braces anywhere in `template`."""
    if isinstance(template, str):
        return set(_PLACEHOLDER.findall(template))
    if isinstance(template, Mapping):
        return set().union(*map(placeholders, template.values()))
    return set().union(*map(placeholders, template)) if isinstance(template, tuple) else set()


def is_template(text: str) -> bool:
    """Whether the braces in `text` are those of placeholders that exist."""
    rest = _PLACEHOLDER.sub(lambda found: "" if found[1] in PLACEHOLDERS else found[0], text)
    return "{" not in rest and "}" not in rest


def filled(template: Template, fields: Mapping[str, str | None]) -> Json:
    """`template` with `fields` in it. What is one placeholder and nothing else is null where there is no such field."""
    if isinstance(template, str):
        alone = _PLACEHOLDER.fullmatch(template)
        if alone is not None:
            return fields[alone[1]]
        return _PLACEHOLDER.sub(lambda found: fields[found[1]] or "", template)
    if isinstance(template, Mapping):
        return {key: filled(below, fields) for key, below in template.items()}
    return [filled(below, fields) for below in template] if isinstance(template, tuple) else template


def fields_of(
    message: bytes, *, recipient: str, queue_id: str, code_pattern: CodePattern | None
) -> dict[str, str | None]:
    """The fields of `message`, as it leaves. The code is looked for in the text, or, where there is none, in that of
    the HTML; by a pattern with "<", in the HTML as it is written.

    Raises Unfit.
    """
    if len(message) > LARGEST or message.lower().count(b"multipart/") > _MOST_NESTED:
        raise Unfit
    if any(len(field) > _LONGEST_FIELD for field in _FIELDS.findall(message)):
        raise Unfit
    header = Header.parse(message)
    try:
        text, html = _bodies(message_from_bytes(message))
        shown = "" if html is None else text_of(html)
    except Exception:  # noqa: BLE001  # the package has raised all sorts of things, RecursionError among them
        raise Unfit from None
    if text is not None and shown and _is_shown_instead(text, shown, code_pattern):
        text = shown
    code = None
    if code_pattern is not None:
        code = code_pattern.code(shown if text is None else text)
        if code is None and html is not None and "<" in code_pattern.source:
            code = code_pattern.code(html)
    return {
        "recipient": _clean(recipient),
        "sender": _sender(header),
        "subject": _first(header, b"subject"),
        "text": text,
        "html": html,
        "code": code,
        "message_id": _first(header, b"message-id"),
        "queue_id": queue_id,
    }


def _sender(header: Header) -> str | None:
    """The address of the first author."""
    found = (one.address for one in author.authors_of([value(field) for field in header.all(b"from")]))
    return next((_clean(address) for address in found if address), None)


def _first(header: Header, name: bytes) -> str | None:
    field = header.first(name)
    return None if field is None else _clean(encoding.decode(value(field)))


def _is_shown_instead(text: str, shown: str, code_pattern: CodePattern | None) -> bool:
    """Whether a reader is to see what the HTML has (`shown`): the text is empty, has no code where that has one, or is
    a notice that there is HTML."""
    if not text.strip():
        return True
    if code_pattern is not None and code_pattern.code(text) is None and code_pattern.code(shown) is not None:
        return True
    has_code = re.search(r"\d{4}", text) if code_pattern is None else code_pattern.code(text)
    return not has_code and len(text) <= _LONGEST_NOTICE and _NOTICE.search(text) is not None


def _bodies(message: Message) -> tuple[str | None, str | None]:
    """The first plain text and the first HTML that are no attachments, whatever they are nested in; one that is not
    empty, if there is one."""
    found: dict[str, str] = {}
    waiting = [message]
    while waiting and not all(found.get(kind, "").strip() for kind in _READ):
        part = waiting.pop()
        if part.is_multipart():
            if part.get_content_maintype() == "multipart":
                waiting += reversed(cast("list[Message]", part.get_payload()))
            continue
        kind = part.get_content_type()
        if kind in _READ and part.get_content_disposition() != "attachment" and not found.get(kind, "").strip():
            found[kind] = _clean(encoding.in_charset(_decoded(part), part.get_content_charset("us-ascii")))
    return found.get("text/plain"), found.get("text/html")


def _decoded(part: Message) -> bytes:
    """The body of `part` without its transfer encoding, also where that is named with blanks, comments or parameters
    (RFC 2045, section 6.1), and what does not belong there stands in it."""
    named = _WORD.search(_COMMENT.sub(" ", str(part.get("Content-Transfer-Encoding", ""))).lower())
    raw = part.get_payload()
    assert isinstance(raw, str)
    octets = raw.encode("utf-8", "surrogateescape")
    match named[0].replace("-", "") if named else "":
        case "base64":
            octets = _NO_BASE64.sub(b"", octets).partition(b"=")[0]
            return a2b_base64(octets[: len(octets) - (len(octets) % 4 == 1)] + b"==")
        case "quotedprintable":
            return a2b_qp(_SOFT_BREAK.sub(b"=", octets))
    decoded = part.get_payload(decode=True)
    assert isinstance(decoded, bytes)
    return decoded


def _clean(text: str) -> str:
    """Well-formed, and with the line ends of JSON's world."""
    return text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
