"""What the refusal of a login is about: the mechanism of AUTH, or who logs in (RFC 4954, sections 4 and 6).

Many servers refuse a mechanism that they offer. Another one can help then; after a password that was refused it
would only bring the account nearer to being locked.
"""

from __future__ import annotations

import re

_CODES = frozenset((500, 501, 502, 503, 504, 534))
# What a mechanism is called. PLAIN and LOGIN in capitals: "Login failed" is about who logs in.
_NAMED = re.compile(
    r"\b(?:PLAIN|LOGIN)\b|(?i:\bmechanisms?\b|\bauth(?:entication)? (?:type|method|scheme)\b|\bplain ?text auth"
    r"|\bcram-md5\b|\bauth (?:plain|login)\b)"
)
_UNKNOWN = re.compile(
    r"\bnot (?:\w+ )?(?:supported|available|implemented|offered)\b|\bun(?:supported|available|recogni[sz]ed)\b"
    r"|\b(?:no|invalid) (?:\w+ )?mechanism|\btoo weak\b",
    re.IGNORECASE,
)
_UNWANTED = re.compile(
    r"\bnot (?:\w+ )?(?:allowed|permitted|accepted|enabled|recogni[sz]ed|valid)\b|\bdis(?:abled|allowed)\b"
    r"|\bunknown\b|\b(?:bad|invalid|wrong) auth|\bforbidden\b|\brefused\b|\brejected\b",
    re.IGNORECASE,
)
_WHO = re.compile(r"\b(?:accounts?|users?|usernames?|mailbox|passwords?|credentials?)\b", re.IGNORECASE)


def refuses_mechanism(code: int, text: str) -> bool:
    """Whether a reply to AUTH refuses the mechanism for its own sake; a 535 does where its text says so."""
    if code != 535:
        return code in _CODES
    if not _NAMED.search(text):
        return False
    return bool(_UNKNOWN.search(text) or (_UNWANTED.search(text) and not _WHO.search(text)))
