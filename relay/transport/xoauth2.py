"""XOAUTH2 on the wire: what is sent, and what the upstream says of a token that it does not take.

Where a token is refused, Google (and Microsoft at times) answers first with 334 and a JSON document in base64: its
status and scope say why. An empty line then brings the final reply.
"""

from __future__ import annotations

import base64
import binascii

from relay import figures
from relay.mail.reply import Reply, sanitise

MARK = "(XOAUTH2"
"""Stands in the text of every refusal of a token, so that who reads it knows that no password was refused."""
_LONGEST = 120


def initial_response(username: str, token: str) -> bytes:
    return base64.b64encode(f"user={username}\x01auth=Bearer {token}\x01\x01".encode())


def told(challenge: bytes, token: str) -> str:
    """What the text of a 334 says, as "status 400, scope https://mail.google.com/", without the token; "" where it
    says nothing."""
    try:
        document = figures.json_of(base64.b64decode(challenge.strip(), validate=True))
    except binascii.Error:
        return ""
    if not isinstance(document, dict):
        return ""
    parts = [f"{key} {document[key]}" for key in ("status", "schemes", "scope") if isinstance(document.get(key), str)]
    return sanitise(", ".join(parts).replace(token, "[secret]"), _LONGEST)


def marked(reply: Reply, said: str) -> Reply:
    """The final reply, with what the 334 said behind it."""
    told_of = f"{MARK}: {said})" if said else f"{MARK})"
    return Reply(reply.code, reply.status, sanitise(f"{reply.text} {told_of}".strip()))
