"""Which size limit counts where several upstreams may carry a message."""

from __future__ import annotations

from collections.abc import Iterable


def largest(limits: Iterable[int | None]) -> int | None:
    """The largest of the upstreams' limits: what is beyond it none of them can carry. None where the limit of one is
    not known, or there is none: it may carry anything."""
    known: int | None = None
    for limit in limits:  # asked at every message
        if limit is None:
            return None
        if known is None or limit > known:
            known = limit
    return known
