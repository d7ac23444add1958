"""This machine: disk, clock, and what waits."""

from __future__ import annotations

from datetime import datetime, timedelta

from relay.cli.doctor.findings import Finding, bad, good, untried, warning
from relay.cli.human import age, octets

CLOCK_BAD, CLOCK_ODD = 120.0, 30.0  # seconds; a token is not taken when it is a few minutes off
SLOW = 0.25  # seconds for an fsync
OLD = timedelta(hours=4)


def of_clock(ahead: float, host: str) -> Finding:
    """`ahead`: seconds, of the clock at `host`, which said so just now."""
    if abs(ahead) <= CLOCK_ODD:
        return good("clock", f"as that of {host}, within {CLOCK_ODD:.0f} s")
    told = f"the clock of this machine is {age(abs(ahead))} {'ahead' if ahead > 0 else 'behind'} ({host})"
    return (bad if abs(ahead) > CLOCK_BAD else warning)("clock", told, "clock")


def of_kernel_clock(synchronised: bool | None) -> Finding:
    """What the kernel says of NTP; None: it says nothing."""
    if synchronised is None:
        return untried("clock", "unknown: no upstream has a clock to compare with, and the kernel does not tell")
    if synchronised:
        return good("clock", "synchronised, says the kernel")
    return warning("clock", "nothing keeps it right (the kernel says: not synchronised)", "clock")


def of_disk(free: int, min_free: int, folder: str) -> Finding:
    left = f"{octets(free)} free"
    if free < min_free:
        told = f"disk nearly full: {left}, less than queue.min_free ({octets(min_free)})"
        return bad("disk", told, "disk", folder=folder)
    if free < 2 * min_free:
        return warning("disk", f"{left}; below {octets(min_free)} mail is refused", "disk", folder=folder)
    return good("disk", f"{left}; queue.min_free is {octets(min_free)}")


def of_fsync(seconds: float) -> Finding:
    told = f"written and flushed in {seconds * 1000:.0f} ms"
    return warning("queue", told, "slow-disk") if seconds > SLOW else good("queue", told)


def of_ages(waiting: int, oldest: datetime | None, now: datetime) -> Finding:
    if not waiting:
        return good("mail", "nothing waits")
    waits = now - oldest if oldest is not None else timedelta()
    told = f"{waiting} waiting, the oldest for {age(waits.total_seconds())}"
    return warning("mail", told, "old-mail") if waits > OLD else good("mail", told)
