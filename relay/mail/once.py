"""Fields that may stand only once (RFC 5322, section 3.6), in a header that has them more often: providers refuse it.

The first one stays, as most readers show that. Recipients are joined, so that none is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from relay.mail.header import Field
from relay.mail.signature import signed

ONCE = frozenset(
    {b"date", b"from", b"sender", b"reply-to", b"to", b"cc", b"message-id", b"in-reply-to", b"references", b"subject"}
)
_JOINED = frozenset({b"to", b"cc"})
_AROUND = b", \t\r\n"


def each_once(fields: Sequence[Field]) -> tuple[tuple[Field, ...], tuple[str, ...], int]:
    """The fields, those of `ONCE` once each; the names of those that stood more often, in order; and how many
    DKIM-Signatures that broke, which are removed."""
    counts = Counter([name for name, _ in fields if name in ONCE])
    repeated = [name for name, count in counts.items() if count > 1]
    kept: list[Field] = []
    seen, broken = set[bytes](), 0
    for field in fields:
        name, raw = field
        if name == b"dkim-signature" and not signed(field).isdisjoint(repeated):
            broken += 1
        elif name not in repeated:
            kept.append(field)
        elif name not in seen:
            seen.add(name)
            kept.append((name, _joined([one for other, one in fields if other == name]) if name in _JOINED else raw))
    return tuple(kept), tuple([name.decode() for name in repeated]), broken


def _joined(raws: list[bytes]) -> bytes:
    """One field of several complete ones, with their folds as they came."""
    first, *others = [raw for raw in raws if raw.partition(b":")[2].strip(_AROUND)] or raws[:1]
    behind = [raw.partition(b":")[2].strip(_AROUND) for raw in others]
    return b",\r\n ".join([first.rstrip(_AROUND), *behind]) + b"\r\n"
