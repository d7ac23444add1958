"""The demo's mails are what legacy software sends, and the judgement sees what is wrong with a delivery."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from xml.etree import ElementTree

import pytest

from relay.demo import judgement
from relay.demo.mails import MAILBOX, OWN, Mail, all_mails, invoice, payment_run, pdf, reminder
from relay.demo.upstream import Received

NOW = datetime(2026, 11, 23, 21, 0, tzinfo=UTC)


def test_the_pdf_is_one_a_reader_can_open() -> None:
    data = pdf("Factuur")
    start = int(re.findall(rb"startxref\n(\d+)\n", data)[0])
    assert data[start:].startswith(b"xref\n0 6\n")
    for number, place in enumerate(re.findall(rb"(\d{10}) 00000 n ", data), 1):
        assert data[int(place) :].startswith(b"%d 0 obj" % number)
    length = int(re.findall(rb"/Length (\d+)", data)[0])
    assert data.index(b"\nendstream") - data.index(b"stream\n") - len(b"stream\n") == length


def test_the_invoice_carries_the_pdf() -> None:
    message = message_from_bytes(invoice(NOW).content, policy=policy.default)
    (attachment,) = [part for part in message.walk() if part.get_content_type() == "application/pdf"]
    assert zlib.crc32(attachment.get_content()) == zlib.crc32(pdf("Factuur 2026-0417: EUR 1.210,00"))
    assert message["Message-ID"] is None
    assert message["Subject"] == "Factuur 2026-0417 – € 1.210,00"


def test_the_payment_run_is_xml_with_bare_line_feeds() -> None:
    content = payment_run(NOW).content
    assert b"\r" not in content
    assert ElementTree.fromstring(content.partition(b"\n\n")[2]).tag.endswith("Document")


def test_the_reminder_is_no_utf_8() -> None:
    with pytest.raises(UnicodeDecodeError):
        reminder(NOW).content.decode()
    assert "€ 85,00" in reminder(NOW).content.decode("cp1252")


def arrived(mail: Mail) -> Received:
    """The payment run as it should arrive."""
    head, _, body = mail.content.replace(b"\n", b"\r\n").partition(b"\r\n\r\n")
    head = head.replace(
        b"From: Petra Bakker <p.bakker@kantoor.example>",
        b"From: Petra Bakker via Administratie <administratie@kantoor.example>\r\nReply-To: p.bakker@kantoor.example",
    )
    content = b"Received: by relay\r\n" + head + b"\r\n\r\n" + body + b"\r\n"
    return Received(OWN, MAILBOX, mail.recipients, content, "TLSv1.3")


def test_a_mail_that_arrived_as_it_should_has_no_problems_even_in_two_transactions() -> None:
    mail = payment_run(NOW)
    good = arrived(mail)
    assert judgement.problems(mail, [good]) == []
    halves = [replace(good, recipients=(recipient,)) for recipient in mail.recipients]
    assert judgement.problems(mail, halves) == []


def content_with(old: bytes, new: bytes) -> Callable[[Received], Received]:
    return lambda good: replace(good, content=good.content.replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (content_with(b"1210.00", b"1210.01"), "its body was changed"),
        (content_with(b"Betaalrun 2026-11\r\n", b"Betaalrun 2026-12\r\n"), "its subject was changed"),
        (content_with(b"Reply-To", b"X-Reply-To"), "its Reply-To is missing"),
        (content_with(b"<administratie@", b"<p.bakker@"), "its From is"),
        (content_with(b"Petra Bakker via", b"via"), "its author is called via Administratie"),
        (lambda good: replace(good, recipients=good.recipients[:1]), "it arrived for betalingen@bank.example"),
        (lambda good: replace(good, upstream="vendor"), "it left by vendor, not by own"),
        (lambda good: replace(good, reverse_path="p.bakker@kantoor.example"), "its reverse-path is p.bakker"),
        (lambda good: replace(good, tls=""), "it came without TLS"),
    ],
)
def test_what_went_wrong_is_named(spoil: Callable[[Received], Received], problem: str) -> None:
    mail = payment_run(NOW)
    (found,) = judgement.problems(mail, [spoil(arrived(mail))])
    assert problem in found


def test_a_mail_that_arrived_twice_or_never_is_a_problem() -> None:
    mail = payment_run(NOW)
    assert judgement.problems(mail, [arrived(mail)] * 2)
    assert judgement.problems(mail, [])


def test_each_mail_of_the_show_has_a_title_of_its_own() -> None:
    titles = [mail.title for mail in all_mails(NOW)]
    assert len(set(titles)) == len(titles) == 5
