"""A rate: so many in so much time."""

from __future__ import annotations

from relay.values import frozen


@frozen
class Rate:
    """At most `count` within any `seconds`."""

    count: int
    seconds: float
