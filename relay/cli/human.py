"""Ages, times and sizes as people read and write them."""

from __future__ import annotations

from datetime import datetime, timedelta

from relay.cli.language import say
from relay.config.values import BadValue, duration
from relay.errors import RelayError
from relay.mail.trace import MONTHS
from relay.observe.log_lines import harmless

_LONG_AGO = timedelta(days=180)
_UNITS = ("KiB", "MiB", "GiB", "TiB")


def of_json(text: str) -> datetime:
    """A moment of a document, in local time."""
    return datetime.fromisoformat(text).astimezone()


def age(seconds: float) -> str:
    """ "42s", "12m", "3h 12m", "2d 4h": two units at most, rounded down; a clock that ran back counts as nothing."""
    left = max(int(seconds), 0)
    if left < 60:
        return f"{left}s"
    if left < 3_600:
        return f"{left // 60}m"
    large, small = (86_400, 3_600) if left >= 86_400 else (3_600, 60)
    names = "dh" if large == 86_400 else "hm"
    more = left % large // small
    return f"{left // large}{names[0]}" + (f" {more}{names[1]}" if more else "")


def days_until(end: datetime, now: datetime) -> int:
    """By the calendar: on the first of a month it is two days until the third."""
    return (end.astimezone().date() - now.astimezone().date()).days


def moment(at: datetime, now: datetime | None = None) -> str:
    """ "2026-11-24 08:02:11 CET"; without the date where it is the day of `now`."""
    local = at.astimezone()
    if now is not None and local.date() == now.astimezone().date():
        return f"{local:%H:%M:%S %Z}"
    return f"{local:%Y-%m-%d %H:%M:%S %Z}"


def stamp(at: datetime, width: int | None, now: datetime) -> str:
    """A moment in a table: short and local on a terminal ("08:02:11", "24 Nov 08:02", "2026-11-24" where that is long
    ago), ISO 8601 with offset for a pipe (`width` None)."""
    local, today = at.astimezone(), now.astimezone()
    if width is None:
        return local.isoformat(timespec="seconds")
    if local.date() == today.date():
        return f"{local:%H:%M:%S}"
    return f"{local:%d} {MONTHS[local.month - 1]} {local:%H:%M}" if today - local < _LONG_AGO else f"{local:%Y-%m-%d}"


def octets(number: int) -> str:
    """ "812 B", "1.2 MiB", "312 KiB"."""
    if number < 1024:
        return f"{number} B"
    value, unit = number / 1024, 0
    while value >= 1023.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if value < 9.95 else f"{value:.0f} {_UNITS[unit]}"


def count(number: int, one: str, many: str = "") -> str:
    """ "1 entry", "3 entries"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def counted(number: int, key: str) -> str:
    """The sentence `key` for one, `key` with an "s" behind it for more: "1 error", "3 errors"."""
    return say(key if number == 1 else f"{key}s", count=number)


def since(text: str, now: datetime) -> datetime:
    """The moment that `--since` means: so long ago (90m, 2d), or a local date or time. Raises RelayError."""
    try:
        return now - duration(text.replace(" ", ""))
    except BadValue:
        pass
    try:
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo is not None else found.astimezone()
    except (ValueError, OverflowError, OSError):
        raise RelayError(
            f"--since: {harmless(text[:60])!r} is neither a duration nor a time "
            '(write it like 90m, 2d, 2026-11-01 or "2026-11-01 08:00")'
        ) from None
    if found > now:
        raise RelayError(f"--since: {moment(found)} has not come yet")
    return found
