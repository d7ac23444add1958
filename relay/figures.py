"""Figures from outside: what others say that a lifetime, a moment, a number or a document is.

Each of them is read once, where it enters, by a function here. What comes out fits every page, metric, command and
file; what cannot be such a figure is None.
"""

from __future__ import annotations

import json
import math
import re
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

DAY = 86_400
_LATEST = 253_370_764_800.0  # the year 9999 begins: with a day or a zone more it is a date still
_LARGEST = 1e300
_WRITTEN = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?")


def number(value: object) -> float | None:
    """A finite number, which may be written in digits; at most 1e300, above or below 0."""
    if isinstance(value, str) and _WRITTEN.fullmatch(value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value < math.inf:
        return None
    return float(max(-_LARGEST, min(value, _LARGEST)))


def lifetime(value: object) -> int | None:
    """Whole seconds, one at least and a day at most, of a number above 0."""
    found = number(value)
    return max(1, int(min(found, DAY))) if found is not None and found > 0 else None


def moment(value: object) -> float | None:
    """A Unix time that is a date in every zone."""
    found = number(value)
    return found if found is not None and 0 <= found <= _LATEST else None


def date(text: str) -> datetime | None:
    """The moment of a Date field (RFC 9110, section 5.6.7); one without a zone is of UTC."""
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    seconds = moment(found.timestamp())
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def certificate_end(not_after: object) -> datetime | None:
    """The moment of what `getpeercert` has under "notAfter"."""
    try:
        seconds = moment(ssl.cert_time_to_seconds(str(not_after)))
    except (ValueError, OverflowError):
        return None
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def count(text: str, most: int) -> int | None:
    """A number in digits, `most` at most."""
    found = int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None
    return None if found is None or found > most else found


def json_of(text: str | bytes) -> Any:
    """What JSON says, however deep or large its numbers are; JSON's null is None as well."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
