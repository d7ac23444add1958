"""AUTH at the door: PLAIN and LOGIN (RFC 4954, RFC 4616), tolerant in case and order.

CRAM-MD5 (RFC 2195) is there only where no password is checked: for that it would have to be kept readable.

The dialogue is a coroutine over three things the session lends it; it never logs or keeps a password.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable

from relay.ingress import replies
from relay.values import frozen

_OFFERED = {"any": b"PLAIN LOGIN CRAM-MD5", "users": b"PLAIN LOGIN"}


@frozen
class Tried:
    """How an AUTH ended: the reply, the name that was told, and ok, bad or error."""

    reply: bytes
    result: str
    user: str = ""
    mechanism: str = "other"


def offered(auth: str) -> bytes:
    """The mechanisms of a listener whose `auth` is "any" or "users"."""
    return _OFFERED[auth]


class _Stop(Exception):
    def __init__(self, reply: bytes) -> None:
        self.reply = reply


async def authenticate(
    argument: bytes,
    ask: Callable[[bytes], Awaitable[bytes | None]],
    verify: Callable[[str, str], bool] | None,
) -> Tried:
    """Carry out `AUTH argument`. `ask` sends a challenge and gives the client's line, None at its end.

    `verify` None: every name and password is right (`auth: any`). It runs on a thread, since hashing
    a password is made to be slow.
    """
    words = argument.split(None, 1)
    mechanism = words[0].upper() if words else b""
    initial = words[1].strip() if len(words) > 1 else None
    name = mechanism.decode("ascii", "replace").lower()
    try:
        if mechanism == b"PLAIN":
            answer = _decode(initial) if initial is not None else await _asked(ask, replies.ASK_RESPONSE)
            user, password = _plain(answer)
        elif mechanism == b"LOGIN":
            user = _text(_decode(initial) if initial is not None else await _asked(ask, replies.ASK_USERNAME))
            password = _text(await _asked(ask, replies.ASK_PASSWORD))
        elif mechanism == b"CRAM-MD5" and verify is None:
            answered = _text(await _asked(ask, replies.ASK_DIGEST))
            user, password = answered.rpartition(" ")[0] or answered, ""
        else:
            return Tried(replies.UNKNOWN_MECHANISM, "error")
    except _Stop as stop:
        return Tried(stop.reply, "error", mechanism=name)
    if verify is None or await asyncio.to_thread(verify, user, password):
        return Tried(replies.AUTHENTICATED, "ok", user, name)
    return Tried(replies.BAD_CREDENTIALS, "bad", user, name)


async def _asked(ask: Callable[[bytes], Awaitable[bytes | None]], challenge: bytes) -> bytes:
    line = await ask(challenge)
    if line is None or line.strip() == b"*":
        raise _Stop(replies.AUTH_CANCELLED)
    return _decode(line.strip())


def _decode(text: bytes) -> bytes:
    if text == b"=":  # an empty initial response (RFC 4954, section 4)
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise _Stop(replies.BAD_BASE64) from None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace").rstrip("\x00")


def _plain(answer: bytes) -> tuple[str, str]:
    parts = answer.split(b"\x00")
    if len(parts) != 3:
        raise _Stop(replies.BAD_SYNTAX)
    return _text(parts[1]), _text(parts[2])
