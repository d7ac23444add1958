"""Received, Date and Message-ID."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail import trace
from relay.mail.address import Address
from relay.mail.envelope import Envelope, Recipient
from relay.mail.header import Header
from relay.mail.submission import Peer, Submission

AT = datetime(2026, 11, 23, 22, 8, 5, 999_999, timezone(timedelta(hours=1)))


def submission(peer: Peer, *recipients: str) -> Submission:
    everybody = tuple(Recipient(Address.of(text)) for text in recipients)
    return Submission("7QK3ABCDEFGH", Envelope(None, everybody), b"", 0, peer, "legacy", AT)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (
            Peer("127.0.0.1", "PC-JAN", "ESMTP"),
            b"Received: from PC-JAN ([127.0.0.1])\r\n by relay.example.nl with ESMTP id 7QK3ABCDEFGH\r\n"
            b" for <klant@example.com>; Mon, 23 Nov 2026 22:08:05 +0100\r\n",
        ),
        (
            Peer("2001:db8::1", "[IPv6:2001:db8::1]", "ESMTPSA", "TLSv1.3 TLS_AES_256_GCM_SHA384", "jan"),
            b"Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n"
            b" by relay.example.nl with ESMTPSA id 7QK3ABCDEFGH\r\n"
            b" (using TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
            b" for <klant@example.com>; Mon, 23 Nov 2026 22:08:05 +0100\r\n",
        ),
        (
            Peer("127.0.0.1"),
            b"Received: from [127.0.0.1] ([127.0.0.1])\r\n by relay.example.nl with SMTP id 7QK3ABCDEFGH\r\n"
            b" for <klant@example.com>; Mon, 23 Nov 2026 22:08:05 +0100\r\n",
        ),
        (
            Peer("unix", "localhost"),
            b"Received: from localhost\r\n by relay.example.nl with SMTP id 7QK3ABCDEFGH\r\n"
            b" for <klant@example.com>; Mon, 23 Nov 2026 22:08:05 +0100\r\n",
        ),
        (
            Peer(""),
            b"Received: by relay.example.nl id 7QK3ABCDEFGH\r\n"
            b" for <klant@example.com>; Mon, 23 Nov 2026 22:08:05 +0100\r\n",
        ),
    ],
)
def test_the_received_field_says_who_brought_the_message_and_how(peer: Peer, expected: bytes) -> None:
    assert trace.received(submission(peer, "klant@example.com"), "relay.example.nl") == expected


@pytest.mark.parametrize(
    ("peer", "middle"),
    [
        (Peer("192.168.1.20", "PC-VAN-JAN", "ESMTP"), b" with ESMTP id 7QK3ABCDEFGH\r\n"),
        (Peer("2001:db8::1", "pc", "ESMTPS", "TLSv1.3 X"), b" with ESMTPS id 7QK3ABCDEFGH\r\n (using TLSv1.3 X)\r\n"),
        (Peer("unix", "localhost"), b" with SMTP id 7QK3ABCDEFGH\r\n"),
        (Peer("pickup"), b" id 7QK3ABCDEFGH\r\n"),
    ],
)
def test_a_short_received_field_tells_nothing_of_the_client(peer: Peer, middle: bytes) -> None:
    assert trace.received(submission(peer, "k@example.com"), "relay.example.nl", short=True) == (
        b"Received: by relay.example.nl" + middle + b" for <k@example.com>; Mon, 23 Nov 2026 22:08:05 +0100\r\n"
    )


@pytest.mark.parametrize(
    "recipients", [(), ("a@x.nl", "b@y.nl"), ("büro@example.nl",), ('"a\r\nX: y"@x.nl',), ("postmaster",)]
)
def test_recipients_are_named_only_where_there_is_one_that_can_be_written(recipients: tuple[str, ...]) -> None:
    field = trace.received(submission(Peer("127.0.0.1", "pc"), *recipients), "relay.example.nl")
    assert b" for " not in field
    assert field.isascii()


@given(st.text(max_size=400), st.text(max_size=400))
def test_a_client_cannot_write_into_the_received_field(helo: str, tls: str) -> None:
    field = trace.received(submission(Peer("127.0.0.1", helo, "ESMTPS", tls)), "relay.example.nl")
    assert field.isascii()
    assert len(Header.parse(field).fields) == 1
    assert not Header.parse(field).rest
    assert all(len(line) <= 998 for line in field.split(b"\r\n"))
    assert field.count(b"(") == field.count(b")") <= 2
    assert field.count(b";") == 1


@given(st.integers(0, 4_000_000_000), st.integers(-14 * 60, 14 * 60))
def test_a_date_is_read_by_others_as_the_same_moment(seconds: int, offset: int) -> None:
    # Fixed offsets: in the hour that a clock repeats, equal moments of named zones do not compare equal.
    moment = datetime.fromtimestamp(seconds, timezone(timedelta(minutes=offset)))
    assert parsedate_to_datetime(trace.date(moment).decode()) == moment


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2026, 3, 1, 9, 5, 0, tzinfo=UTC), b"Sun, 1 Mar 2026 09:05:00 +0000"),
        (
            datetime(2026, 3, 1, 9, 5, 0, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
            b"Sun, 1 Mar 2026 09:05:00 -0330",
        ),
    ],
)
def test_dates_are_written_as_rfc_5322_has_them(moment: datetime, expected: bytes) -> None:
    assert trace.date(moment) == expected


def test_one_moment_in_two_zones_is_two_dates() -> None:
    assert trace.date(AT).endswith(b"22:08:05 +0100")
    assert trace.date(AT.astimezone(UTC)).endswith(b"21:08:05 +0000")


def test_a_date_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        trace.date(AT.replace(tzinfo=None))


def test_a_message_id_comes_from_queue_id_and_hostname() -> None:
    assert trace.message_id("7QK3ABCDEFGH", "relay.example.nl") == b"<7QK3ABCDEFGH@relay.example.nl>"
