"""Which replies say that a line of the content was too long (RFC 5321, section 4.5.3.1.6).

Codes and statuses tell nothing here (500, 550, 552, 554; 5.2.3, 5.3.4, 5.5.6, 5.6.0 were seen), the words do.
"""

from __future__ import annotations

import re
from datetime import timedelta

from relay.mail.reply import Reply

REMEMBERED = timedelta(days=30)
"""How long it counts that an upstream once refused a line for its length."""

_WORDS = re.compile(
    r"\blines?\b.{0,40}?(?:\btoo[ -]long|\blonger than|\blength|\blimit|\bexceed)"
    r"|\b(?:too[ -]long|maximum|max\.?|exceed\w*)\b.{0,20}?\blines?\b|\blong lines?\b|\bline-?length",
    re.IGNORECASE,
)


def is_line_too_long(reply: Reply) -> bool:
    """True when `reply`, given to the content, refuses it for the length of a line."""
    return reply.code >= 400 and reply.code != 421 and _WORDS.search(reply.text) is not None
