"""Domains beyond ASCII, and the A-labels that say the same in ASCII (IDNA 2008: RFC 5890, RFC 5891).

Upper case, composed letters and the full stops of other scripts are read as mail programs read them (UTS 46). A
label of which nothing but ASCII remains that way has no such form: it would name a domain that nobody judged.
"""

from __future__ import annotations

import re
from functools import lru_cache

_LONGEST = 253  # characters; RFC 1035, section 2.3.4
_STOPS = re.compile("[.\u3002\uff0e\uff61]")


@lru_cache(maxsize=1024)
def a_labels(domain: str) -> str | None:
    """`domain` in ASCII and lower case; None where it has no such form, or no label beyond ASCII."""
    import idna  # late, as few messages need it

    labels = _STOPS.split(domain)
    if len(domain) > _LONGEST or "" in labels or all(map(str.isascii, labels)):
        return None
    written = [label.lower() for label in labels]
    for place, label in enumerate(labels):
        if not label.isascii():
            try:
                mapped = idna.uts46_remap(label, std3_rules=False)
                written[place] = idna.alabel(mapped).decode()
            except idna.IDNAError:
                return None
            if mapped.isascii():
                return None
    whole = ".".join(written)
    return whole if len(whole) <= _LONGEST else None
