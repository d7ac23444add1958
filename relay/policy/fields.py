"""A message as fields, for a vendor that takes JSON: what stands in it, put into a template of the configuration.

The one place where the standard `email` package reads a message. It is neither quick nor safe with what is hostile:
so never more than `LARGEST` octets, on a thread, and whatever it raises is `Unfit`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email import message_from_bytes
from email.message import Message
from typing import cast

from relay.mail import author, encoding
from relay.mail.header import Header, value
from relay.policy.pattern import CodePattern

LARGEST = 50 * 1024
_MOST_NESTED = 100  # the package's time grows with the square of the depth

PLACEHOLDERS = ("recipient", "sender", "subject", "text", "html", "code", "message_id", "queue_id")
DEFAULT: Mapping[str, str] = {name: "{" + name + "}" for name in PLACEHOLDERS}
"""The template where the configuration has none: each field under its own name."""

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")

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
    """The fields of `message`, as it leaves. The code is looked for in the text, or, where there is none, in the HTML.

    Raises Unfit.
    """
    if len(message) > LARGEST or message.lower().count(b"multipart/") > _MOST_NESTED:
        raise Unfit
    header = Header.parse(message)
    try:
        text, html = _bodies(message_from_bytes(message))
    except Exception:  # noqa: BLE001  # the package has raised all sorts of things, RecursionError among them
        raise Unfit from None
    searched = text if text is not None else html
    return {
        "recipient": _clean(recipient),
        "sender": _sender(header),
        "subject": _first(header, b"subject"),
        "text": text,
        "html": html,
        "code": code_pattern.code(searched) if code_pattern is not None and searched is not None else None,
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


def _bodies(message: Message) -> tuple[str | None, str | None]:
    """The first plain text and the first HTML that are no attachments, whatever they are nested in."""
    found: dict[str, str] = {}
    waiting = [message]
    while waiting and len(found) < 2:
        part = waiting.pop()
        if part.is_multipart():
            if part.get_content_maintype() == "multipart":
                waiting += reversed(cast("list[Message]", part.get_payload()))
            continue
        kind = part.get_content_type()
        if kind in ("text/plain", "text/html") and part.get_content_disposition() != "attachment":
            raw = part.get_payload(decode=True)
            assert isinstance(raw, bytes)
            found.setdefault(kind, _clean(encoding.in_charset(raw, part.get_content_charset("us-ascii"))))
    return found.get("text/plain"), found.get("text/html")


def _clean(text: str) -> str:
    """Well-formed, and with the line ends of JSON's world."""
    return text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
