"""Queue IDs: the name of an entry, in log, Received field, Message-ID and every command.

Twelve characters of an alphabet without look-alikes: ten for the microsecond since 2025 (which
lasts until 2060), two of chance. They sort by time of acceptance; the caller never gives the same
microsecond twice, and chance makes two machines differ.
"""

from __future__ import annotations

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32
_EPOCH = 1_735_689_600_000_000  # 2025-01-01T00:00:00Z, in microseconds
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]


def queue_id(microseconds: int, chance: int) -> str:
    """The ID for a Unix time in microseconds and 10 bits of chance; unique while the pair is."""
    value = (microseconds - _EPOCH << 10 | chance & 1023) & (1 << 60) - 1
    return (
        _PAIRS[value >> 50]
        + _PAIRS[value >> 40 & 1023]
        + _PAIRS[value >> 30 & 1023]
        + _PAIRS[value >> 20 & 1023]
        + _PAIRS[value >> 10 & 1023]
        + _PAIRS[value & 1023]
    )
