"""The messages of the soak: mostly 4 KiB, one of a hundred 300 KiB, and one of 25 MB every half minute.

A message says its number in the envelope (`RCPT TO:<nNUMBER@...>`) and in its last line, so that the upstream knows
it, and knows that it came whole, without keeping it.
"""

from __future__ import annotations

from collections.abc import Iterator

LINE = b"Regel van de factuur, met bedrag en omschrijving: 1.250,00 EUR, te voldoen.\r\n"
SMALL, MIDDLE, LARGE = 4 * 1024, 300 * 1024, 25_000_000
LARGE_EVERY = 30  # seconds
PIECE = 256 * 1024

_BODY = LINE * (LARGE // len(LINE))


def size(number: int, per_second: int) -> int:
    """Octets of that message's body."""
    if number % (LARGE_EVERY * per_second) == LARGE_EVERY * per_second // 2:
        return LARGE
    return MIDDLE if number % 100 == 99 else SMALL


def envelope(number: int) -> bytes:
    return b"MAIL FROM:<jan@example.nl>\r\nRCPT TO:<n%d@example.org>\r\nDATA\r\n" % number


def number_of(recipient: bytes) -> int:
    """That of a RCPT command; -1 where it is none of ours."""
    digits = recipient.partition(b"<n")[2].partition(b"@")[0]
    return int(digits) if digits.isdigit() else -1


def last_line(number: int) -> bytes:
    return b"This is the end of number %d." % number


def pieces(number: int, octets: int) -> Iterator[bytes]:
    """The content, dot included, in pieces of at most `PIECE` and a bit."""
    head = b"From: Jan <jan@example.nl>\r\nTo: n%d@example.org\r\nSubject: Factuur %d\r\n\r\n" % (number, number)
    octets -= octets % len(LINE)
    end = last_line(number) + b"\r\n.\r\n"
    if octets <= PIECE:
        yield head + _BODY[:octets] + end
        return
    yield head
    with memoryview(_BODY) as body:
        for offset in range(0, octets, PIECE):
            yield bytes(body[offset : min(offset + PIECE, octets)])
    yield end
