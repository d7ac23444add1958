"""Fields of messages as legacy software writes them, and templates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.policy.fields import DEFAULT, LARGEST, Template, Unfit, fields_of, filled, is_template, placeholders
from relay.policy.pattern import code_pattern

CODE = code_pattern(r"/code:?\s+(\d{6})/")


def fields(message: bytes) -> dict[str, str | None]:
    return fields_of(message, recipient="piet@example.org", queue_id="7QK3", code_pattern=CODE)


ALTERNATIVE = b"""\
From: =?utf-8?q?Jan_Jansen?= via Relay <relay@Example.NL>\r
Subject: =?iso-8859-1?q?caf=E9?=\r
 =?iso-8859-1?q?_4?=\r
MIME-Version: 1.0\r
Content-Type: multipart/mixed; boundary=a\r
\r
--a\r
Content-Type: multipart/alternative; boundary=b\r
\r
--b\r
Content-Type: text/html; charset=utf-8\r
Content-Transfer-Encoding: base64\r
\r
PGI+Y29kZTwvYj4=\r
--b\r
Content-Type: text/plain; charset=windows-1252\r
Content-Transfer-Encoding: quoted-printable\r
\r
De code: 112233, caf=E9 =80\r
--b--\r
--a\r
Content-Type: text/plain\r
Content-Disposition: attachment; filename=code.txt\r
\r
code: 999999\r
--a--\r
"""


def test_the_first_text_of_each_kind_is_found_wherever_it_stands_and_decoded() -> None:
    assert fields(ALTERNATIVE) == {
        "recipient": "piet@example.org",
        "sender": "relay@Example.NL",
        "subject": "café 4",
        "text": "De code: 112233, café €",
        "html": "<b>code</b>",
        "code": "112233",
        "message_id": None,
        "queue_id": "7QK3",
    }


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"Subject: x\r\n\r\ncaf\xe9 \x80\r\n", "café €\n"),
        (b"Subject: x\r\n\r\ncaf\xc3\xa9\r\n", "café\n"),
        (b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\n\xe9\x80", "é€"),
        (b"Content-Type: text/plain; charset=x-unknown\r\n\r\n\xe9", "é"),
        (b"Content-Type: text/plain; charset=idna\r\n\r\na", "a"),
        (b"Content-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64\r\n\r\naABvAGkA", "hoi"),
        (b"Content-Transfer-Encoding: base64\r\n\r\n!!!", ""),
        (b"no header at all", "no header at all"),
        (b"", ""),
        (b"Content-Type: text/html\r\n\r\n<p>", None),
        (b"Content-Type: application/pdf\r\n\r\n%PDF", None),
        (b"Content-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\ncode: 123456", None),
        (b"Content-Type: multipart/mixed\r\n\r\n--a\r\n\r\nhoi", None),
    ],
)
def test_the_text_is_what_a_person_would_read(message: bytes, text: str | None) -> None:
    assert fields(message)["text"] == text


def test_the_code_is_looked_for_in_the_html_where_there_is_no_text() -> None:
    assert fields(b"Content-Type: text/html\r\n\r\n<p>code 445566</p>")["code"] == "445566"
    assert fields(b"Subject: code 445566\r\n\r\nhoi")["code"] is None
    assert fields_of(b"\r\ncode 1", recipient="", queue_id="", code_pattern=None)["code"] is None


SIX = code_pattern(r"/\b([0-9]{6})\b/")
CASE = (Path(__file__).parent.parent / "cases/code-in-base64-with-a-blank/message.eml").read_bytes()


@pytest.mark.parametrize(
    "named",
    [b"base64 ", b"BASE64", b"base64;", b"base64 (text)", b" (text) base64", b"base64; x=y", b"Base-64", b"\tbase64\t"],
)  # fmt: skip
def test_a_code_is_found_however_its_transfer_encoding_is_written(named: bytes) -> None:
    message = CASE.replace(b"base64 \r\n", named + b"\r\n")
    found = fields_of(message, recipient="", queue_id="", code_pattern=SIX)
    assert (found["text"], found["code"]) == ("Uw code is 913557\n", "913557")


@pytest.mark.parametrize(
    ("named", "body", "text"),
    [
        (b"quoted-printable ", b"Uw code is 913=\r\n557\r\n", "Uw code is 913557\n"),
        (b"Quoted-Printable;", b"Uw code is 913=  \r\n557=20\r\n", "Uw code is 913557 \n"),
        (b"base64", b"VXcgY29kZSBpcyA5MTM1NTcNCg", "Uw code is 913557\n"),
        (b"base64", b"VXcgY29k\r\n ZSBpcyA5 MTM1NTcNCg==\r\n-- \r\nDisclaimer\r\n", "Uw code is 913557\n"),
        (b"base64", b"VXcgY29kZSBpcyA5MTM1NTcNCgAB\r\nA", "Uw code is 913557\n\x00\x01"),
        (b"base64", b"VXcg\r\nY=29kZ", "Uw "),
        (b"8bit (nothing)", b"Uw code is 913557\r\n", "Uw code is 913557\n"),
        (b"x-own", b"Uw code is 913557\r\n", "Uw code is 913557\n"),
    ],
)
def test_a_body_is_decoded_although_it_is_sloppy(named: bytes, body: bytes, text: str) -> None:
    assert fields(b"Content-Transfer-Encoding: " + named + b"\r\n\r\n" + body)["text"] == text


def both(text: bytes, html: bytes) -> bytes:
    parts = b"--b\r\nContent-Type: text/plain\r\n\r\n%b\r\n--b\r\nContent-Type: text/html\r\n\r\n%b\r\n--b--\r\n"
    return b"Content-Type: multipart/alternative; boundary=b\r\n\r\n" + parts % (text, html)


STYLED = b"<style>p{color:#123456}</style><title>000000</title><p>Uw code:<br><b>913</b><i>557</i><!-- 222222 --></p>"


@pytest.mark.parametrize(
    "text", [b"", b" \r\n", b"Your mail client does not show HTML.", b"Bekijk dit bericht in uw browser"]
)
def test_text_and_code_are_those_of_the_html_where_the_text_is_empty_or_a_notice(text: bytes) -> None:
    for pattern in (SIX, None):
        found = fields_of(both(text, STYLED), recipient="", queue_id="", code_pattern=pattern)
        assert found["text"] == "Uw code:\n913557\n"
        assert found["code"] == ("913557" if pattern else None)


@pytest.mark.parametrize(
    ("text", "code"),
    [(b"Nieuwe aanmelding met uw browser. Code: 445566", "445566"), (b"Geen code hier, en geen notitie", None)],
)
def test_a_text_with_the_code_or_a_text_without_any_is_the_text(text: bytes, code: str | None) -> None:
    html = STYLED if code else b"<p>niets</p>"
    found = fields_of(both(text, html), recipient="", queue_id="", code_pattern=SIX)
    assert (found["text"], found["code"]) == (text.decode(), code)


def test_colours_and_links_hold_no_code() -> None:
    html = b"Content-Type: text/html\r\n\r\n<a style='color:#123456' href='https://x.nl/654321'>Klik</a>"
    assert fields_of(html, recipient="", queue_id="", code_pattern=SIX)["code"] is None
    tagged = code_pattern(r"/<b>([0-9]{6})</")
    html = b"Content-Type: text/html\r\n\r\n<p>111111 <b>913557</b>"
    assert fields_of(html, recipient="", queue_id="", code_pattern=tagged)["code"] == "913557"


def test_who_sends_is_the_first_author_with_an_address() -> None:
    assert fields(b"From: nobody, Jan <jan@example.nl>, piet@example.nl\r\n\r\n")["sender"] == "jan@example.nl"
    assert fields(b"Subject: x\r\n\r\n")["sender"] is None


@pytest.mark.parametrize(
    "message",
    [
        b"Subject: x\r\n\r\n" + b"x" * LARGEST,
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(200)),
        b'content-type : text/plain; x="\r\n ' + b";" * 5_000 + b"\r\n\r\n",
        b"Subject: x\r\nContent-Disposition: inline" + b";\r\n x" * 1_000 + b"\r\n\r\n",
    ],
)
def test_a_message_that_is_too_large_or_too_deep_is_unfit(message: bytes) -> None:
    with pytest.raises(Unfit) as caught:
        fields(message)
    assert str(caught.value) == ""


def test_whatever_the_package_raises_the_message_is_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: bytes) -> None:
        raise RecursionError("code 112233")

    monkeypatch.setattr("relay.policy.fields.message_from_bytes", broken)
    with pytest.raises(Unfit) as caught:
        fields(b"\r\ncode 112233")
    assert "112233" not in repr(caught.value)
    assert caught.value.__suppress_context__


@given(st.binary(max_size=2_000) | st.lists(st.sampled_from(ALTERNATIVE.splitlines(True))).map(b"".join))
def test_any_octets_become_json_or_are_unfit(message: bytes) -> None:
    try:
        found = fields(message)
    except Unfit:
        return
    made = json.dumps(filled(DEFAULT, found), ensure_ascii=False).encode()
    assert json.loads(made) == found


TEMPLATE: Template = {"to": ("{recipient}", {"name": "{html}"}), "t": "{subject}: {code}{html}", "n": 1.5, "b": True}


def test_a_template_is_filled_in_and_what_is_missing_is_null_alone_and_nothing_within_text() -> None:
    found = {"recipient": "{code}", "html": None, "subject": "é", "code": "1"}
    assert filled(TEMPLATE, found) == {"to": ["{code}", {"name": None}], "t": "é: 1", "n": 1.5, "b": True}
    assert placeholders(TEMPLATE) == {"recipient", "html", "subject", "code"}


@pytest.mark.parametrize(
    ("text", "good"),
    [("{code}", True), ("a {code}{html} b", True), ("", True), ("{cod}", False), ("{", False), ("{{code}}", False)],
)
def test_braces_are_those_of_placeholders(text: str, good: bool) -> None:
    assert is_template(text) is good
