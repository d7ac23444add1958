"""A message of our own: readable by anybody, marked as automatic, and no value begins a line of it."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage

from relay.mail import notice
from relay.mail.address import Address

NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)


def built(subject: str = "[relay relay.example.nl] Schijf bijna vol", text: str = "Goedemorgen\n") -> bytes:
    return notice.build(
        subject,
        text,
        queue_id="7QK3BBBBBBBB",
        hostname="relay.example.nl",
        author=Address.of("administratie@example.nl"),
        readers=(Address.of("admin@example.nl"), Address("jan smit", "example.nl")),
        now=NOW,
    )


def read(data: bytes) -> EmailMessage:
    message = message_from_bytes(data, policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert message.defects == []
    return message


def test_a_notice_is_a_plain_message_that_is_marked_as_automatic() -> None:
    message = read(built(text="Schijf vol: ruim op.\n\n----\n\nDisk full: beëindig …\n"))
    assert message["From"] == "Mail relay <administratie@example.nl>"
    assert message["To"] == 'admin@example.nl, "jan smit"@example.nl'
    assert message["Subject"] == "[relay relay.example.nl] Schijf bijna vol"
    assert message["Date"].datetime == NOW
    assert message["Message-ID"] == "<7QK3BBBBBBBB@relay.example.nl>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "text/plain"
    assert message.get_content().replace("\r\n", "\n") == "Schijf vol: ruim op.\n\n----\n\nDisk full: beëindig …\n"


def test_a_notice_is_7_bit_with_crlf_and_short_lines() -> None:
    data = built("€" * 200, "é" * 3000 + "\n.\n")
    assert data.isascii()
    assert data.count(b"\n") == data.count(b"\r\n") == data.count(b"\r")
    assert max(map(len, data.split(b"\r\n"))) <= 78
    assert read(data)["Subject"] == "€" * 200


def test_a_subject_cannot_begin_a_field() -> None:
    message = read(built("vol\r\nBcc: boef@example.com\x00"))
    assert message["Subject"] == "vol  Bcc: boef@example.com?"
    assert message["Bcc"] is None
