"""This machine: disk, clock, and what waits."""

from __future__ import annotations

from datetime import datetime, timedelta

from relay.cli.doctor.findings import Finding, bad, good, untried, warning
from relay.cli.human import age, octets
from relay.cli.language import say

CLOCK_BAD, CLOCK_ODD = 120.0, 30.0  # seconds; a token is not taken when it is a few minutes off
SLOW = 0.25  # seconds for an fsync
OLD = timedelta(hours=4)


def of_clock(ahead: float, host: str) -> Finding:
    """`ahead`: seconds, of the clock at `host`, which said so just now."""
    if abs(ahead) <= CLOCK_ODD:
        return good("clock", say("finding.clock-as", host=host, seconds=f"{CLOCK_ODD:.0f}"))
    told = say("finding.clock-ahead" if ahead > 0 else "finding.clock-behind", age=age(abs(ahead)), host=host)
    return (bad if abs(ahead) > CLOCK_BAD else warning)("clock", told, "clock")


def of_kernel_clock(synchronised: bool | None) -> Finding:
    """What the kernel says of NTP; None: it says nothing."""
    if synchronised is None:
        return untried("clock", say("finding.clock-unknown"))
    if synchronised:
        return good("clock", say("finding.clock-synchronised"))
    return warning("clock", say("finding.clock-unsynchronised"), "clock")


def of_disk(free: int, min_free: int, folder: str) -> Finding:
    values = {"free": octets(free), "least": octets(min_free)}
    if free < min_free:
        return bad("disk", say("finding.disk-low", **values), "disk", folder=folder)
    if free < 2 * min_free:
        return warning("disk", say("finding.disk-soon", **values), "disk", folder=folder)
    return good("disk", say("finding.disk", **values))


def of_fsync(seconds: float) -> Finding:
    told = say("finding.flushed", time=f"{seconds * 1000:.0f}")
    return warning("queue", told, "slow-disk") if seconds > SLOW else good("queue", told)


def of_ages(waiting: int, oldest: datetime | None, now: datetime) -> Finding:
    if not waiting:
        return good("mail", say("finding.mail-none"))
    waits = now - oldest if oldest is not None else timedelta()
    told = say("finding.mail", count=waiting, age=age(waits.total_seconds()))
    return warning("mail", told, "old-mail") if waits > OLD else good("mail", told)
