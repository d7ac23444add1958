"""How much may leave now: so many within any time so long, of transactions or of recipients.

Uses are kept in grains, sixty to a window. A grain counts as a whole until its last moment has left the window, and a
little longer, for what arrives at the other end later than it left here. So there is no window of real time in
which more leaves than allowed, at the price of one in thirty at most.

Times are seconds of any clock that does not go back; what is written down says ages instead (`aged`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from relay.policy.rate import Rate
from relay.values import frozen

GRAINS = 60
MARGIN = 1.0  # seconds, or a grain where that is less
DAY = 86_400.0
HOUR = 3_600.0

Uses = tuple[tuple[float, int], ...]
"""(until, count), oldest first: so many, none of them later than `until`."""


@frozen
class Limit:
    """At most `count` within any `seconds`, `kept` of them for session codes; of transactions, or of recipients."""

    count: int
    seconds: float
    of_recipients: bool = False
    kept: int = 0

    def most(self, *, session_code: bool) -> int:
        return self.count if session_code else self.count - self.kept

    @property
    def lasts(self) -> float:
        """Seconds for which a grain counts after its last moment."""
        return self.seconds + min(self.grain, MARGIN)

    @property
    def grain(self) -> float:
        return self.seconds / GRAINS


def limits(rates: Sequence[Rate], daily_recipients: int | None, *, codes: bool) -> tuple[Limit, ...]:
    """The limits of an account, the strictest for each length. `codes`: session codes go this way as well.

    For them a fifth of each rate is kept, and a fiftieth of the day's recipients: at least one, where there are two.
    """
    counts: dict[float, int] = {}
    for rate in rates:
        counts[rate.seconds] = min(rate.count, counts.get(rate.seconds, rate.count))
    made = [Limit(count, seconds, False, _kept(count, 5) if codes else 0) for seconds, count in counts.items()]
    if daily_recipients is not None:
        made.append(Limit(daily_recipients, DAY, True, _kept(daily_recipients, 50) if codes else 0))
    return tuple(made)


def _kept(count: int, share: int) -> int:
    return min(max(1, count // share), count - 1)


def used(limit: Limit, uses: Uses, now: float) -> int:
    """How many count at `now`."""
    return sum([count for until, count in uses if until + limit.lasts > now])


def free(limit: Limit, uses: Uses, now: float, *, session_code: bool) -> int:
    """How many more may leave at `now`."""
    return limit.most(session_code=session_code) - used(limit, uses, now)


def noted(limit: Limit, uses: Uses, now: float, count: int) -> Uses:
    """`uses` with `count` more at `now`, without what does not count any more."""
    if uses and uses[-1][0] >= now:
        until, before = uses[-1]
        return (*uses[:-1], (until, before + count))
    oldest = now - limit.lasts
    return (*[use for use in uses if use[0] > oldest], (now + limit.grain, count))


def opens_in(limit: Limit, uses: Uses, now: float, wanted: int, *, session_code: bool) -> float:
    """Seconds until `wanted` (no more than the limit has) may leave; 0 now."""
    missing = wanted - free(limit, uses, now, session_code=session_code)
    if missing <= 0:
        return 0.0
    for until, count in uses:
        leaves = until + limit.lasts
        if leaves > now:
            missing -= count
            if missing <= 0:
                return leaves - now
    return limit.lasts


def clears_in(limits_and_uses: Sequence[tuple[Limit, Uses]], now: float) -> float | None:
    """After the upstream said that its quota is used up: seconds until some of it comes back, as far as we know.

    None when what left here does not explain it: others use the account too, or nobody told us the limit.
    """
    known = [
        opens_in(limit, uses, now, free(limit, uses, now, session_code=True) + 1, session_code=True)
        for limit, uses in limits_and_uses
        if limit.seconds >= HOUR and 2 * used(limit, uses, now) >= limit.count
    ]
    return min(known, default=None)


def aged(uses: Uses, now: float) -> list[list[int]]:
    """`uses` as ages at `now`, in milliseconds, never too old; negative for what is still to come."""
    return [[math.floor((now - until) * 1000), count] for until, count in uses]


def dated(ages: Sequence[Sequence[float]], now: float, elapsed: float) -> Uses:
    """What `aged` told `elapsed` seconds ago, on a clock that says `now`."""
    return tuple(sorted((now - elapsed - age / 1000, int(count)) for age, count in ages))
