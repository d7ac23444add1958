"""What a summary promises to who reads it, person or program."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from relay.mail import summary
from relay.mail.address import Address
from relay.mail.dsn_text import Action, Fate
from relay.mail.envelope import Recipient
from relay.mail.reply import Reply
from relay.mail.summary_line import Line, of_text, to_text
from relay.texts.language import texts_in

ACCEPTED = datetime(2026, 11, 23, 21, 0, 0, tzinfo=UTC)
NOW = ACCEPTED + timedelta(hours=1)
PIET, KLAAS = (Recipient(Address.of(f"{name}@example.org")) for name in ("piet", "klaas"))
REFUSED = Fate(PIET, Action.FAILED, "own", Reply(550, "5.1.1", "No such user"))
SILENT = Fate(KLAAS, Action.DELAYED, "own", None, "connection timed out", retry_until=ACCEPTED + timedelta(days=5))
INVOICE = Line("7QK3AAAAAAAA", ACCEPTED, ACCEPTED + timedelta(seconds=2), (REFUSED,), "Factuur 2026-001 café")


def built(*lines: Line) -> EmailMessage:
    data = summary.build(
        lines,
        queue_id="7QK3ZZZZZZZZ",
        hostname="relay.example.nl",
        author=Address.of("administratie@example.nl"),
        reader=Address.of("jan@example.nl"),
        now=NOW,
        languages=texts_in,
    )
    assert data.isascii()
    assert max(map(len, data.split(b"\r\n"))) <= 998
    return cast("EmailMessage", message_from_bytes(data, policy=policy.default))


def words(message: EmailMessage) -> str:
    return str(cast("list[EmailMessage]", message.get_payload())[0].get_content()).replace("\r\n", "\n")


def blocks(message: EmailMessage) -> list[Message]:
    return cast("list[Message]", cast("list[EmailMessage]", message.get_payload())[1].get_payload())


def test_an_accountant_reads_which_messages_why_and_what_to_do_in_both_languages() -> None:
    told = built(INVOICE, replace(INVOICE, queue_id="7QK3BBBBBBBB", subject="Factuur 2026-002"))
    assert told["Subject"] == "Overzicht: 2 berichten niet bezorgd / Summary: 2 messages not delivered"
    text = words(told)
    assert "Berichten die niet bezorgd zijn: 2." in text
    assert "Messages that were not delivered: 2." in text
    assert "verstuur het opnieuw als de oorzaak weg is" in text
    assert "send it again when the cause is gone" in text
    assert text.count("piet@example.org") == 2
    assert "1.   Onderwerp / Subject: Factuur 2026-001 café\n" in text
    assert "2.   Onderwerp / Subject: Factuur 2026-002\n" in text
    assert "Aangenomen / Accepted: 23-11-2026 21:00:00 +0000" in text
    assert "Dit adres bestaat niet. / This address does not exist." in text
    assert "mail server: 550 5.1.1 No such user" in text
    assert "Kenmerk / Reference: 7QK3AAAAAAAA" in text
    assert "Afzender" not in text


def test_a_program_reads_it_as_a_report_whose_blocks_say_which_message() -> None:
    told = built(INVOICE, Line("7QK3BBBBBBBB", ACCEPTED, NOW, (REFUSED, SILENT)))
    assert told.get_content_type() == "multipart/report"
    assert told.get_param("report-type") == "delivery-status"
    assert told["Auto-Submitted"] == "auto-replied"
    assert told["Message-ID"] == "<7QK3ZZZZZZZZ.summary@relay.example.nl>"
    message, *recipients = blocks(told)
    assert message["Reporting-MTA"] == "dns; relay.example.nl"
    assert [(one["X-Queue-ID"], one["Final-Recipient"], one["Action"], one["Status"]) for one in recipients] == [
        ("7QK3AAAAAAAA", "rfc822; piet@example.org", "failed", "5.1.1"),
        ("7QK3BBBBBBBB", "rfc822; piet@example.org", "failed", "5.1.1"),
        ("7QK3BBBBBBBB", "rfc822; klaas@example.org", "delayed", "4.0.0"),
    ]
    assert recipients[-1]["Will-Retry-Until"] == "Sat, 28 Nov 2026 21:00:00 +0000"


def test_what_still_waits_is_told_apart_from_what_was_given_up() -> None:
    both = built(Line("A", ACCEPTED, NOW, (REFUSED,)), Line("B", ACCEPTED, NOW, (SILENT,)))
    assert "niet of nog niet bezorgd / Summary: 2 messages not or not yet delivered" in both["Subject"]
    waits = built(Line("B", ACCEPTED, NOW, (SILENT,)))
    assert waits["Subject"] == "Overzicht: 1 bericht nog niet bezorgd / Summary: 1 message not yet delivered"
    assert "wordt vanzelf opnieuw geprobeerd" in words(waits)
    assert "verstuur het opnieuw" not in words(waits)
    assert "Nog niet bezorgd / Not yet delivered: klaas@example.org" in words(waits)


def test_others_than_the_sender_read_whose_message_it_was() -> None:
    assert "Afzender / Sender: jan@example.nl" in words(built(replace(INVOICE, sender="jan@example.nl")))


def test_of_a_session_code_there_are_codes_and_no_subject() -> None:
    quoting = Reply(550, "5.7.1", "your code 482913 is refused")
    line = Line("7QK3AAAAAAAA", ACCEPTED, NOW, (replace(REFUSED, reply=quoting),), session_code=True)
    assert "482913" not in built(line).as_string()
    assert "550 5.7.1" in words(built(line))


TEXTS = st.text(max_size=40)
FATES = st.builds(
    Fate,
    st.builds(Recipient, st.builds(Address, TEXTS, TEXTS), orcpt=st.none() | st.just("rfc822;jan@example.nl")),
    st.sampled_from(Action),
    TEXTS,
    st.none() | st.builds(Reply, st.integers(200, 599), TEXTS, TEXTS.map(lambda text: "".join(text.split()))),
    TEXTS,
    st.booleans(),
    st.booleans(),
    st.none() | st.just(NOW),
)


@given(st.lists(FATES, max_size=3), TEXTS, TEXTS)
def test_nothing_that_is_shown_can_begin_a_line_or_a_part(fates: list[Fate], subject: str, sender: str) -> None:
    told = built(Line("7QK3AAAAAAAA", ACCEPTED, NOW, tuple(fates), subject, sender))
    assert len(cast("list[Message]", told.get_payload())) == 2
    assert len(blocks(told)) == 1 + len(fates)
    assert sum(line.startswith("1.") for line in words(told).split("\n")) == 1


@given(st.lists(FATES, max_size=3))
def test_a_line_comes_back_as_it_was_kept(fates: list[Fate]) -> None:
    line = Line("7QK3AAAAAAAA", ACCEPTED, NOW, tuple(fates), "Factuur café", "jan@example.nl", session_code=True)
    assert of_text(line.queue_id, line.at, to_text(line)) == line


def test_a_line_that_makes_no_sense_is_told_of_by_its_queue_id() -> None:
    for text in ("", "{}", "[]", "null", '{"received_at": 1}', to_text(INVOICE).replace("failed", "eaten")):
        line = of_text("7QK3AAAAAAAA", NOW, text)
        assert line == Line("7QK3AAAAAAAA", NOW, NOW, ())
        assert "Kenmerk / Reference: 7QK3AAAAAAAA" in words(built(line))
