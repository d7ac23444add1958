"""What a report promises to who reads it, person or program."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.durable import Directory
from relay.mail import dsn
from relay.mail.address import Address
from relay.mail.content import MemoryContent
from relay.mail.dsn_text import Action, Fate, duration
from relay.mail.envelope import Envelope, Recipient
from relay.mail.outcome import Refusal
from relay.mail.reply import Reply
from relay.queue.content import FileContent
from relay.texts.language import BOTH, texts_in
from tests.kit.extent import examples

ACCEPTED = datetime(2026, 11, 23, 21, 0, 0, tzinfo=UTC)
NOW = ACCEPTED + timedelta(days=5, minutes=3)
HEAD = (
    b"From: Jan <jan@klant.example>\r\nTo: piet@ergens.example\r\nSubject: Factuur 2026-001\r\n"
    b"Message-ID: <abc@klant.example>\r\n\r\n"
)
BODY = b"Geachte heer,\r\n"
NO_SUCH_USER = Reply(550, "5.1.1", "No such user <piet@ergens.example> here")


def fate(
    address: str = "piet@ergens.example",
    action: Action = Action.FAILED,
    reply: Reply | None = NO_SUCH_USER,
    orcpt: str | None = None,
    **more: Any,
) -> Fate:
    return Fate(Recipient(Address.of(address), orcpt=orcpt), action, "own", reply, **more)


def report(
    *fates: Fate, head: bytes = HEAD, body: bytes = BODY, session_code: bool = False, attempts: int = 1, **envelope: Any
) -> bytes:
    original = dsn.Original(
        queue_id="7QK3AAAAAAAA",
        envelope=Envelope(Address.of("jan@klant.example"), (), **envelope),
        received_at=ACCEPTED,
        attempts=attempts,
        content=MemoryContent(head + body, len(head)),
        session_code=session_code,
    )
    return build(original, *(fates or (fate(),)))


def build(original: dsn.Original, *fates: Fate, reader: str = "jan@klant.example", **more: Any) -> bytes:
    return dsn.build(
        original,
        fates,
        queue_id="7QK3BBBBBBBB",
        hostname="relay.example.nl",
        author=Address.of("administratie@example.nl"),
        readers=more.pop("readers", [Address.of(reader)]),
        now=NOW,
        languages=texts_in,
        **more,
    )


def for_others(
    *fates: Fate, reverse_path: str | None = "jan@klant.example", head: bytes = HEAD, session_code: bool = False
) -> bytes:
    """The report that the readers of `bounces.also` get, of a message that asked for RET=FULL."""
    path = None if reverse_path is None else Address.of(reverse_path)
    content = MemoryContent(head + BODY, len(head))
    original = dsn.Original("7QK3AAAAAAAA", Envelope(path, (), ret="full"), ACCEPTED, 3, content, session_code)
    readers = [Address.of("beheer@example.nl"), Address.of("it@example.nl")]
    return build(original, *(fates or (fate(),)), readers=readers, to_sender=False)


def parsed(data: bytes) -> EmailMessage:
    message = message_from_bytes(data, policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def parts(data: bytes) -> list[Message]:
    """The three parts, as the tolerant parser of the standard library sees them."""
    message = message_from_bytes(data)
    found = message.get_payload()
    assert isinstance(found, list)
    assert len(found) == 3, [part.get_content_type() for part in found if isinstance(part, Message)]
    return [part for part in found if isinstance(part, Message)]


def words(data: bytes) -> str:
    payload = parts(data)[0].get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


def blocks(data: bytes) -> list[Message]:
    found = parts(data)[1].get_payload()
    assert isinstance(found, list)
    return [block for block in found if isinstance(block, Message)]


def returned_header(data: bytes) -> bytes:
    payload = parts(data)[2].get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


def test_a_report_is_a_multipart_report_that_answers_the_message_and_is_marked_as_automatic() -> None:
    message = parsed(report())
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in message.iter_parts()] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["From"] == "Mail Delivery System <administratie@example.nl>"
    assert message["To"] == "<jan@klant.example>" or message["To"] == "jan@klant.example"
    assert message["Message-ID"] == "<7QK3BBBBBBBB.report@relay.example.nl>"
    assert message["In-Reply-To"] == message["References"] == "<abc@klant.example>"
    assert message["Subject"] == "Niet bezorgd / Not delivered: Factuur 2026-001"
    assert message["Date"].datetime == NOW


def test_a_person_reads_in_two_languages_what_happened_to_whom_and_what_to_do() -> None:
    text = words(report(attempts=14))
    assert text.index("niet bezorgd") < text.index("not delivered")
    assert text.count("piet@ergens.example") >= 2
    assert text.index("Dit adres bestaat niet.") < text.index("This address does not exist.")
    assert text.count("mailserver: 550 5.1.1 No such user <piet@ergens.example> here") == 1
    assert text.count("mail server: 550 5.1.1 No such user <piet@ergens.example> here") == 1
    assert "(own)" not in text
    assert "controleer het e-mailadres" in text
    assert "check the recipient's e-mail address" in text
    assert "14 pogingen gedaan, in 5 dagen" in text
    assert "14 attempts were made within 5 days" in text
    assert "niet nog eens geprobeerd" in text
    assert "will not be tried again" in text
    assert "Onderwerp: Factuur 2026-001" in text
    assert "7QK3AAAAAAAA" in text


@pytest.mark.parametrize(
    ("reply", "advice"),
    [
        (Reply(550, "5.1.10", "Recipient not found"), "e-mailadres van de ontvanger"),
        (Reply(552, "5.2.2", "mailbox full"), "is vol"),
        (Reply(552, "", "too big"), "te groot"),
        (Reply(550, "5.7.60", "SMTP; Client does not have permissions to send as this sender"), "staat dit bericht"),
        (Reply(554, "", "no"), "stuur deze melding door"),
        (Reply(550, "5.6.7", "needs SMTPUTF8"), "gebruik een e-mailadres zonder zulke letters"),
        (Reply(550, "5.6.7", "needs SMTPUTF8"), "use an e-mail address without such letters"),
        (Reply(554, "5.6.3", "it is signed"), "verstuur het zonder ondertekening"),
        (Reply(554, "5.6.3", "it is signed"), "send it without a signature"),
    ],
)
def test_the_advice_fits_the_status(reply: Reply, advice: str) -> None:
    assert advice in words(report(fate(reply=reply)))


@pytest.mark.parametrize(
    ("reply", "refusal", "dutch", "english"),
    [
        (NO_SUCH_USER, Refusal.RECIPIENT, "Dit adres bestaat niet.", "This address does not exist."),
        (Reply(550, "", "User unknown"), Refusal.RECIPIENT, "Dit adres bestaat niet.", "This address does not exist."),
        (Reply(550, "5.1.2", "no"), Refusal.RECIPIENT, "Het domein van dit adres bestaat niet.", "The domain of this"),
        (
            Reply(550, "5.7.1", "no"),
            Refusal.RECIPIENT,
            "neemt geen mail aan voor dit adres",
            "accepts no mail for this",
        ),
        (Reply(554, "5.7.1", "spam"), Refusal.CONTENT, "weigert de inhoud", "refuses what is in the message"),
        (Reply(552, "5.2.2", "quota"), Refusal.MAILBOX_FULL, "De mailbox van de ontvanger is vol.", "mailbox is full."),
        (Reply(550, "5.7.60", "no"), Refusal.SENDER, "weigert jan@klant.example als afzender", "refuses jan@klant"),
    ],
)
def test_what_happened_is_said_in_both_languages_before_the_words_of_the_provider(
    reply: Reply, refusal: Refusal, dutch: str, english: str
) -> None:
    text = words(report(fate(reply=reply, refusal=refusal)))
    for happened, answer in ((dutch, "Antwoord van de mailserver: 55"), (english, "Answer of the mail server: 55")):
        assert text.index(happened) < text.index(answer)


def test_the_sender_that_was_refused_is_named_as_it_left() -> None:
    original = dsn.Original(
        "7QK3AAAAAAAA", Envelope(Address.of("a@x.example"), ()), ACCEPTED, 1, MemoryContent(HEAD, len(HEAD))
    )
    refused = fate(reply=Reply(554, "5.2.252", "SendAsDenied"), refusal=Refusal.SENDER)
    assert "weigert jan@klant.example als afzender" in words(build(original, refused))
    assert "weigert b@x.example als afzender" in words(build(original, refused, refused=Address.of("b@x.example")))


def test_a_program_reads_envelope_status_and_diagnosis() -> None:
    recipient = fate(orcpt="rfc822;piet+2Bx@ergens.example")
    message, first, second = blocks(
        report(recipient, fate("kees@x.example", reply=Reply(554, "", "no")), envid="a+3Db")
    )
    assert message["Reporting-MTA"] == "dns; relay.example.nl"
    assert message["Original-Envelope-Id"] == "a=b"
    assert message["Arrival-Date"] == "Mon, 23 Nov 2026 21:00:00 +0000"
    assert first["Original-Recipient"] == "rfc822;piet+x@ergens.example"
    assert first["Final-Recipient"] == "rfc822; piet@ergens.example"
    assert (first["Action"], first["Status"]) == ("failed", "5.1.1")
    assert first["Remote-MTA"] == "x-upstream; own"
    assert first["Diagnostic-Code"].replace("\r\n", "").replace("\n", "") == (
        "smtp; 550 5.1.1 No such user <piet@ergens.example> here"
    )
    assert first["Last-Attempt-Date"] == "Sat, 28 Nov 2026 21:03:00 +0000"
    assert (second["Final-Recipient"], second["Status"]) == ("rfc822; kees@x.example", "5.0.0")


def test_expired_mail_has_failed_and_tells_what_the_last_attempt_said() -> None:
    silent = fate(reply=None, text="connection refused", expired=True)
    data = report(silent, attempts=9)
    block = blocks(data)[1]
    assert (block["Action"], block["Status"]) == ("failed", "4.4.7")
    assert block["Diagnostic-Code"] == "x-relay; connection refused"
    assert "Geen antwoord van de mailserver: connection refused" in words(data)
    assert "nam het bericht niet op tijd aan" in words(data)


def test_what_was_not_tried_now_has_no_time_of_an_attempt() -> None:
    data = report(Fate(Recipient(Address.of("a@x.example")), Action.FAILED, "", None, "451 later", expired=True))
    block = blocks(data)[1]
    assert (block["Last-Attempt-Date"], block["Remote-MTA"]) == (None, None)
    assert block["Diagnostic-Code"] == "x-relay; 451 later"


def test_what_an_administrator_returned_says_so_and_quotes_nobody() -> None:
    data = report(Fate(Recipient(Address.of("piet@ergens.example")), Action.FAILED, "", returned=True), attempts=3)
    block = blocks(data)[1]
    assert (block["Action"], block["Status"]) == ("failed", "5.7.0")
    assert set(block.keys()) == {"Final-Recipient", "Action", "Status"}
    text = words(data)
    assert "    Teruggestuurd door de beheerder van deze mailrelay." in text.splitlines()
    assert "    Returned by the administrator of this relay." in text.splitlines()
    assert "vraag uw beheerder waarom" in text
    assert "ask your administrator why" in text
    assert "Geen antwoord" not in text
    assert str(parsed(data)["Subject"]) == "Niet bezorgd / Not delivered: Factuur 2026-001"


def test_delayed_mail_tells_the_last_reply_and_until_when_it_is_tried_and_asks_for_nothing() -> None:
    later = Reply(450, "4.2.1", "mailbox busy")
    data = report(fate(action=Action.DELAYED, reply=later, retry_until=NOW + timedelta(hours=2)), attempts=9)
    block = blocks(data)[1]
    assert (block["Action"], block["Status"]) == ("delayed", "4.2.1")
    assert block["Diagnostic-Code"] == "smtp; 450 4.2.1 mailbox busy"
    assert block["Will-Retry-Until"] == "Sat, 28 Nov 2026 23:03:00 +0000"
    text = words(data)
    assert text.count(": 450 4.2.1 mailbox busy") == 2
    assert "U hoeft niets te doen" in text
    assert "Het wordt geprobeerd tot: 28-11-2026 23:03:00 +0000" in text
    assert "You need not do anything" in text
    assert "It is tried until: 28-11-2026 23:03:00 +0000" in text
    assert "What you can do" not in text
    assert parsed(data)["Auto-Submitted"] == "auto-replied"


def test_only_delayed_mail_is_said_to_be_tried_again() -> None:
    data = report(fate("a@x.example"), fate("b@x.example", Action.DELAYED, None, retry_until=NOW))
    failed, delayed = blocks(data)[1:]
    assert failed["Will-Retry-Until"] is None
    assert delayed["Will-Retry-Until"] is not None
    assert words(data).count("tried until") == 1


@pytest.mark.parametrize(
    ("action", "reply", "title", "status"),
    [
        (Action.RELAYED, Reply(250, "", "OK"), "Doorgegeven", "2.0.0"),
        (Action.DELAYED, None, "Nog niet bezorgd", "4.0.0"),
        (Action.DELAYED, Reply(450, "4.2.0", "later"), "Nog niet bezorgd", "4.2.0"),
    ],
)
def test_handed_on_and_delayed_mail_is_told_as_such(
    action: Action, reply: Reply | None, title: str, status: str
) -> None:
    data = report(fate(action=action, reply=reply))
    assert str(parsed(data)["Subject"]).startswith(title)
    assert (blocks(data)[1]["Action"], blocks(data)[1]["Status"]) == (action.value, status)
    assert "opnieuw als de oorzaak" not in words(data)


def test_a_failure_gives_the_title_when_others_were_handed_on() -> None:
    data = report(fate("a@x.example", Action.RELAYED, Reply(250, "2.0.0", "OK")), fate("b@x.example"))
    assert str(parsed(data)["Subject"]).startswith("Niet bezorgd")
    assert [block["Action"] for block in blocks(data)[1:]] == ["relayed", "failed"]


def test_the_header_comes_back_byte_for_byte_and_the_body_does_not() -> None:
    data = report()
    assert returned_header(data).strip() == HEAD.strip()
    assert b"Geachte" not in data


def test_a_header_in_windows_1252_comes_back_byte_for_byte_in_seven_bits() -> None:
    head = b"From: Ren\xe9 <rene@klant.example>\r\nSubject: Herinnering caf\xe9\r\nX-Long: " + b"x" * 1500 + b"\r\n\r\n"
    data = report(head=head)
    assert data.isascii()
    assert returned_header(data).strip() == head.strip()
    assert parsed(data)["Subject"] == "Niet bezorgd / Not delivered: Herinnering café"


def test_a_subject_in_encoded_words_is_read_as_a_person_reads_it() -> None:
    head = b"Subject: =?utf-8?q?Factuur_=E2=82=AC_12?=\r\n =?iso-8859-1?q?=2C_voldaan?=\r\n\r\n"
    assert parsed(report(head=head))["Subject"] == "Niet bezorgd / Not delivered: Factuur € 12, voldaan"


@pytest.mark.parametrize(
    "subject", [b"=?nonsense?q?x?=", b"=?utf-8?b?!!!!!?=", b"=?utf-8?q?=0D=0ABcc:_x@y?=", b"=?=?=?"]
)
def test_a_hostile_subject_gives_a_report_all_the_same(subject: bytes) -> None:
    message = parsed(report(head=b"Subject: " + subject + b"\r\n\r\n"))
    assert "Bcc" not in message
    assert str(message["Subject"]).startswith("Niet bezorgd / Not delivered")


def test_the_whole_message_comes_back_where_it_was_asked_for() -> None:
    data = report(ret="full")
    part = parts(data)[2]
    assert part.get_content_type() == "message/rfc822"
    assert HEAD + BODY in data


@pytest.mark.parametrize("action", [Action.DELAYED, Action.RELAYED])
def test_a_message_that_did_not_fail_comes_back_as_its_header_whatever_was_asked_for(action: Action) -> None:
    data = report(fate(action=action, reply=Reply(250, "2.0.0", "OK")), ret="full")
    assert parts(data)[2].get_content_type() == "text/rfc822-headers"
    assert b"Geachte" not in data


def test_other_readers_are_told_whose_message_it_was_and_not_what_the_sender_can_do() -> None:
    data = for_others()
    text = words(data)
    assert "Een bericht van jan@klant.example is niet bezorgd bij:" in text
    assert "A message from jan@klant.example was not delivered to:" in text
    assert "Uw bericht" not in text
    assert "Your message" not in text
    assert "Wat u kunt doen" not in text
    assert "verstuur het bericht opnieuw" not in text
    assert text.count("(own): 550 5.1.1 No such user <piet@ergens.example> here") == 2
    assert text.count("relay queue show 7QK3AAAAAAAA (relay.example.nl)") == 2
    assert [reader.addr_spec for reader in parsed(data)["To"].addresses] == ["beheer@example.nl", "it@example.nl"]
    assert parsed(data)["Auto-Submitted"] == "auto-replied"


def test_other_readers_get_the_header_and_never_more() -> None:
    data = for_others()
    assert returned_header(data).strip() == HEAD.strip()
    assert b"Geachte" not in data


def test_other_readers_are_told_of_mail_without_a_sender() -> None:
    assert "A message from <> was not delivered to:" in words(for_others(reverse_path=None))


def test_other_readers_see_of_a_session_code_neither_subject_nor_text() -> None:
    head = b"From: noreply@muis.example\r\nSubject: Uw sessiecode is\r\n 482913\r\nThread-Topic: 482913\r\n\r\n"
    data = for_others(fate(reply=Reply(554, "5.7.1", "rejected: 482913")), head=head, session_code=True)
    for form in (data, words(data).encode(), returned_header(data)):
        assert b"482913" not in form
        assert b"sessiecode" not in form.lower()
        assert b"Geachte" not in form
    assert b"noreply@muis.example" in returned_header(data)


def test_an_eight_bit_message_comes_back_marked_as_such() -> None:
    data = report(body=b"caf\xe9\r\n", ret="full")
    message = message_from_bytes(data)
    assert message["Content-Transfer-Encoding"] == "8bit"
    assert parts(data)[2]["Content-Transfer-Encoding"] == "8bit"
    assert b"caf\xe9\r\n" in data


@pytest.mark.parametrize("body", [b"x" * dsn.FULL_LIMIT, b"x" * 2000 + b"\r\n", b"a\0b\r\n"])
def test_what_is_large_or_cannot_travel_comes_back_as_its_header(body: bytes) -> None:
    data = report(body=body, ret="full")
    assert parts(data)[2].get_content_type() == "text/rfc822-headers"


def test_content_in_a_file_is_not_read(tmp_path: Any) -> None:
    content = FileContent(Directory(tmp_path), "missing", len(HEAD) + 9, HEAD)
    envelope = Envelope(Address.of("jan@klant.example"), (), ret="full")
    original = dsn.Original("7QK3AAAAAAAA", envelope, ACCEPTED, 1, content)
    assert returned_header(build(original, fate())).strip() == HEAD.strip()


def test_a_report_about_a_session_code_holds_codes_and_neither_subject_nor_text() -> None:
    head = (
        b"From: iMUIS <noreply@muis.example>\r\nSubject: Uw sessiecode is\r\n 482913\r\nThread-Topic: 482913\r\n"
        b"X-Original-Subject: 482913\r\nMessage-ID: <abc@muis.example>\r\n\r\n"
    )
    refused = fate(reply=Reply(554, "5.7.1", "rejected: Uw sessiecode is 482913"))
    silent = fate("b@x.example", reply=None, text="lost after 482913", expired=True)
    data = report(refused, silent, head=head, body=b"Code: 482913\r\n", session_code=True, ret="full")
    for form in (data, words(data).encode(), returned_header(data)):
        assert b"482913" not in form
        assert b"sessiecode" not in form.lower()
    assert "554 5.7.1" in words(data)
    assert b"noreply@muis.example" in returned_header(data)
    assert blocks(data)[1]["Diagnostic-Code"] == "smtp; 554 5.7.1"
    assert blocks(data)[2]["Diagnostic-Code"] is None


def test_a_header_that_guesses_the_boundary_opens_no_part() -> None:
    guess = b"--=_7QK3BBBBBBBB_0_\r\nContent-Type: text/html\r\n\r\n<b>\r\n--=_7QK3BBBBBBBB_1_--\r\n"
    data = report(head=HEAD[:-2] + b"X: y\r\n\r\n", body=guess, ret="full")
    assert len(parts(data)) == 3


def test_an_answer_without_a_space_does_not_make_a_line_too_long_to_send() -> None:
    data = report(fate(reply=Reply(550, "5.1.1", "x" * 1020)))
    assert max(map(len, data.split(b"\r\n"))) <= 998
    assert "x" * 1000 in words(data)


def test_an_address_beyond_ascii_is_named_in_seven_bits_for_programs() -> None:
    block = blocks(report(fate("jörg@müller.example")))[1]
    assert block["Final-Recipient"] == "utf-8; j\\x{F6}rg@m\\x{FC}ller.example"


def test_an_address_of_which_only_the_domain_is_beyond_ascii_is_named_by_its_a_labels() -> None:
    head = "From: jan@bücher.example\r\nTo: jan@müller.example\r\n\r\n".encode()
    original = dsn.Original("7QK3AAAAAAAA", Envelope(None, ()), ACCEPTED, 1, MemoryContent(head, len(head)))
    data = build(original, fate("jan@müller.example"), reader="jan@bücher.example")
    assert data.isascii()
    assert b"\r\nTo: <jan@xn--bcher-kva.example>\r\n" in data
    assert blocks(data)[1]["Final-Recipient"] == "rfc822; jan@xn--mller-kva.example"
    assert "jan@müller.example" in words(data)
    assert returned_header(data).startswith(head[:-2])


def test_a_long_address_is_in_one_piece() -> None:
    address = "x" * 256 + "@" + ".".join(["y" * 63] * 3 + ["z" * 63])
    assert blocks(report(fate(address)))[1]["Final-Recipient"].split() == ["rfc822;", address]


def test_a_reader_whose_address_needs_quotes_gets_them() -> None:
    original = dsn.Original("7QK3AAAAAAAA", Envelope(None, ()), ACCEPTED, 1, MemoryContent(HEAD, len(HEAD)))
    data = build(original, fate(), reader="a>b, <c@x.example")
    assert b'\r\nTo: <"a>b, <c"@x.example>\r\n' in data


def test_durations_are_said_in_their_largest_unit() -> None:
    said = [
        duration(time, texts_in(language))
        for time in (timedelta(0), timedelta(minutes=1), timedelta(hours=30))
        for language in BOTH
    ]
    assert said == ["0 seconden", "0 seconds", "1 minuut", "1 minute", "1 dag", "1 day"]


hostile = st.text(
    st.sampled_from(list('abc 019<>@.:;,=?_-+\\"\r\n\t\0é€\udce9=\x85\u2028')) | st.characters(), max_size=80
)
lines = st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b"")), max_size=6)


@examples(150)
@given(
    local=hostile,
    reply=hostile,
    fields=lines,
    body=lines,
    envid=hostile,
    full=st.booleans(),
    code=st.booleans(),
    others=st.booleans(),
)
def test_nothing_from_outside_begins_a_line_a_field_or_a_part(
    local: str, reply: str, fields: list[bytes], body: list[bytes], envid: str, full: bool, code: bool, others: bool
) -> None:
    head = b"".join(b"X: " + line + b"\r\n" for line in fields) + b"Subject: " + b" ".join(fields) + b"\r\n\r\n"
    refused = Reply(550, "5.1.1", reply.replace("\r", "").replace("\n", ""))
    original = dsn.Original(
        "7QK3AAAAAAAA",
        Envelope(Address(local, "x.example"), (), ret="full" if full else None, envid=envid),
        ACCEPTED,
        1,
        MemoryContent(head + b"\r\n".join(body), len(head)),
        code,
    )
    victim = Fate(Recipient(Address(local, "x.example"), orcpt=envid), Action.FAILED, "own", refused)
    unanswered = Fate(Recipient(Address.of("b@x.example")), Action.FAILED, "own", None, reply, expired=True)
    data = build(original, victim, unanswered, to_sender=not others)
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", data)
    assert max(map(len, data.split(b"\r\n"))) <= 998
    own_header = data.split(b"\r\n\r\n", 1)[0]
    assert own_header.isascii()
    names = [line.split(b":")[0] for line in own_header.split(b"\r\n") if not line.startswith((b" ", b"\t"))]
    assert names == [
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Auto-Submitted", b"MIME-Version", b"Content-Type",
        b"Content-Transfer-Encoding",
    ]  # fmt: skip
    returned = parts(data)[2]
    if not full or code or others:
        assert data.isascii()
        assert returned.get_content_type() == "text/rfc822-headers"
    if not code and (others or not full):
        assert returned_header(data).strip(b"\r\n") == head.strip(b"\r\n")
    first, second = blocks(data)[1:]
    assert set(first.keys()) <= {
        "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code",
        "Last-Attempt-Date",
    }  # fmt: skip
    assert first["Status"] == "5.1.1"
    assert second["Status"] == "4.4.7"
