"""Which size limit counts where several upstreams may carry a message."""

from __future__ import annotations

from collections.abc import Iterable


def largest(limits: Iterable[int | None]) -> int | None:
    """The largest of the upstreams' limits: what is beyond it none of them can carry. None where the limit of one is
    not known, or there is none: it may carry anything."""
    known = list(limits)
    return None if None in known else max([limit for limit in known if limit is not None], default=None)
