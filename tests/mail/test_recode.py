"""Re-encoding changes the way a message is written, never what it says."""

from __future__ import annotations

import email
import random
import time
from email.message import Message

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.mail import mime
from relay.mail.header import unfold
from relay.mail.recode import Plan, Recoder, Survey, Terms
from relay.mail.transfer import LineLengths, QuotedPrintable
from tests.kit.extent import examples

SEVEN = Terms(bodies=True, headers=True)
SHORT = Terms(long_lines=True)
ALL = Terms(bodies=True, headers=True, long_lines=True)
SIGNATURE = b"DKIM-Signature: v=1; d=example.nl; h=from:subject; bh=x; b=y\r\n"


def survey(content: bytes, terms: Terms = SEVEN, size: int = 1 << 20) -> Plan:
    first = Survey(terms)
    for piece in cut(content, size):
        first.feed(piece)
    return first.end()


def recode(content: bytes, terms: Terms = SEVEN, size: int = 1 << 20) -> bytes:
    plan = survey(content, terms, size)
    assert not plan.refusal, plan.refusal
    return written(content, plan, size)[0]


def written(content: bytes, plan: Plan, size: int = 1 << 20) -> tuple[bytes, int]:
    second = Recoder(plan)
    done = b"".join([second.feed(piece) for piece in cut(content, size)]) + second.end()
    return done, second.signatures_removed


def cut(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


def crlf(text: bytes) -> bytes:
    return text.replace(b"\n", b"\r\n")


def refusal(content: bytes, terms: Terms = SEVEN) -> str:
    return survey(content, terms).refusal


def said(content: bytes) -> list[tuple[int, str, object]]:
    """What a reader makes of it: each part's depth, type and decoded octets."""

    def walk(part: Message, depth: int) -> list[tuple[int, str, object]]:
        if part.is_multipart():
            inside = [one for child in part.get_payload() for one in walk(child, depth + 1)]  # type: ignore[arg-type]
            return [(depth, part.get_content_type(), None), *inside]
        octets = part.get_payload(decode=True)
        assert isinstance(octets, bytes)
        return [(depth, part.get_content_type(), octets)]

    return walk(email.message_from_bytes(content), 0)


# What leaves


def test_text_becomes_quoted_printable() -> None:
    message = crlf(
        b"From: jan@example.nl\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
        b"Content-Transfer-Encoding: 8bit\n\nCaf\xc3\xa9 = \xe2\x82\xac 5 \n.\nlast"
    )
    assert recode(message) == crlf(
        b"From: jan@example.nl\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
        b"Content-Transfer-Encoding: quoted-printable\n\nCaf=C3=A9 =3D =E2=82=AC 5=20\n=2E\nlast"
    )


def test_a_message_without_mime_is_declared_with_no_guess_at_its_charset() -> None:
    message = crlf(b"From: jan@example.nl\n\nCaf\xe9\n")
    assert recode(message) == crlf(
        b"From: jan@example.nl\nContent-Transfer-Encoding: quoted-printable\nMIME-Version: 1.0\n\nCaf=E9\n"
    )


MIXED = crlf(
    b'From: jan@example.nl\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="a b"\n'
    b"Content-Transfer-Encoding: 8bit\n\npreamble\n"
    b"--a b\nContent-Type: text/plain\nContent-Transfer-Encoding: 8bit\n\nplain = plain\n"
    b"--a b\nContent-Type: image/png\nContent-Transfer-Encoding: binary\nContent-Disposition: inline\n\n"
    b"\x89PNG\x00 \r\n.\n"
    b"--a b  \n\nCaf\xe9\n"
    b"--a b--\nepilogue\n"
)


def test_only_the_parts_that_need_it_change_and_what_contains_them_is_declared_7bit() -> None:
    assert recode(MIXED) == crlf(
        b'From: jan@example.nl\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="a b"\n'
        b"Content-Transfer-Encoding: 7bit\n\npreamble\n"
        b"--a b\nContent-Type: text/plain\nContent-Transfer-Encoding: 8bit\n\nplain = plain\n"
        b"--a b\nContent-Type: image/png\nContent-Transfer-Encoding: base64\nContent-Disposition: inline\n\n"
        b"iVBORwAgDQ0KLg==\n"
        b"--a b  \nContent-Transfer-Encoding: quoted-printable\n\nCaf=E9\n"
        b"--a b--\nepilogue\n"
    )


def test_an_attached_message_is_never_encoded_itself_but_its_text_is() -> None:
    message = crlf(
        b"Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: message/rfc822\n"
        b"Content-Transfer-Encoding: 8bit\n\nFrom: piet@example.org\nSubject: Caf\xe9\n\nCaf\xe9\n--x--\n"
    )
    assert recode(message) == crlf(
        b"Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: message/rfc822\n"
        b"Content-Transfer-Encoding: 7bit\n\nFrom: piet@example.org\nSubject: =?utf-8?b?Q2Fmw6k=?=\n"
        b"Content-Transfer-Encoding: quoted-printable\nMIME-Version: 1.0\n\nCaf=E9\n--x--\n"
    )


def test_raw_octets_in_what_claims_to_be_quoted_printable_are_quoted() -> None:
    message = crlf(b"Content-Transfer-Encoding: Quoted-Printable\n\nCaf\xe9 =3D caf=E9 =\nend\n")
    assert recode(message) == crlf(
        b"Content-Transfer-Encoding: quoted-printable\nMIME-Version: 1.0\n\nCaf=E9 =3D caf=E9 end\n"
    )


def test_8bit_octets_around_the_parts_which_nobody_is_shown_do_not_go_out() -> None:
    message = crlf(b"Content-Type: multipart/mixed; boundary=x\n\nvoor\xe9\n--x\n\ntext\n--x--\nna\xe9\n")
    assert recode(message) == message.replace(b"\xe9", b"?")


def test_a_multipart_without_any_delimiter_is_text() -> None:
    message = crlf(b"Content-Type: multipart/mixed; boundary=x\n\nCaf\xe9\n--y\n")
    assert recode(message).endswith(crlf(b"quoted-printable\nMIME-Version: 1.0\n\nCaf=E9\n--y\n"))
    assert said(recode(message))[0][2] == said(message)[0][2]


@pytest.mark.parametrize(
    ("inside", "why"),
    [
        (b"Content-Type: multipart/signed; boundary=y\n\n--y\n\nCaf\xe9\n--y--\n", "signed"),
        (b"Content-Type: multipart/encrypted; boundary=y\n\n--y\n\n\xe9\n--y--\n", "encrypted"),
        (b"Content-Transfer-Encoding: x-uuencode\n\nbegin 644 \xe9\n", "encoding of its own"),
        (b"Content-Transfer-Encoding: base64\n\nQ2Fm\xe9\n", "base64"),
        (b"Content-Type: message/delivery-status\n\nReporting-MTA: dns;\xe9\n", "delivery-status"),
        (b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n\xe9\n", "attached message"),
        (b"Content-Type: multipart/mixed; boundary*0=y\n\n--y\n\n\xe9\n--y--\n", "boundary"),
    ],
)
def test_what_may_not_be_changed_makes_the_message_impossible_and_only_where_it_would_have_to_be(
    inside: bytes, why: str
) -> None:
    message = crlf(b"Content-Type: multipart/mixed; boundary=x\n\n--x\n" + inside + b"--x\n\nCaf\xe9\n--x--\n")
    assert why in refusal(message)
    harmless = message.replace(b"\xe9", b"e", 1)
    assert refusal(harmless) == ""
    assert crlf(inside.replace(b"\xe9", b"e")) in recode(harmless)


def test_structure_that_nobody_writes_by_accident_is_refused_in_bounded_memory() -> None:
    deep = b"".join(b"Content-Type: multipart/mixed; boundary=%d\n\n--%d\n" % (n, n) for n in range(300))
    assert "nested" in refusal(crlf(deep + b"\n\xe9\n"))
    assert "parts" in refusal(
        crlf(b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n\na\n" * 10_001 + b"\xe9\n")
    )
    assert "header" in refusal(
        crlf(b"Content-Type: multipart/mixed; boundary=x\n\n--x\nA: " + b"b" * (1 << 21) + b"\xe9")
    )
    assert recode(crlf(deep + b"\ne\n")) == crlf(deep + b"\ne\n")


def test_the_header_of_a_part_may_have_many_lines_but_not_any_number_and_the_parts_behind_it_are_found() -> None:
    def message(folds: int) -> bytes:
        top = b"Content-Type: multipart/mixed; boundary=x\n\n--x\nA: \n"
        return crlf(top + b" b\n" * folds + b"\n\xe9\n--x\n\n\xe9\n--x--\n")

    assert survey(message(1990)).parts == 2
    long = message(2010)
    for size in (7, 1 << 20):
        assert "header" in survey(long, size=size).refusal
    harmless = long.replace(b"\xe9", b"e", 1)
    assert recode(harmless) == harmless.replace(
        b"\r\n\r\n\xe9", b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=E9"
    )


def test_reading_the_fields_of_a_header_takes_time_in_proportion_to_it() -> None:
    def seconds(folds: int) -> float:
        raw = b"A: b\r\n" + b" c\r\n" * folds
        times = []
        for _ in range(3):
            began = time.process_time()
            assert len(mime.fields(raw)[0]) == 1
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(320_000) < 40 * seconds(20_000)  # 16 times as long; each fold copied anew would make it 256


# Header fields


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Subject: Caf\xe9", b"Subject: =?utf-8?b?Q2Fmw6k=?="),
        (b"Subject: Caf\xc3\xa9", b"Subject: =?utf-8?b?Q2Fmw6k=?="),
        (b"comments: a\r\n caf\xe9", b"comments: =?utf-8?b?YSBjYWbDqQ==?="),
        (b"From: Jos\xe9 <jose@example.nl>", b"From: =?utf-8?b?Sm9zw6k=?= <jose@example.nl>"),
        (b'To: "Jos\xe9, de"<j@example.nl>,Piet <p@x.nl>, k@x.nl', None),
        (b"To: jos\xc3\xa9@example.nl", b"To: jos\xc3\xa9@example.nl"),
        (b"To: vrienden: Jos\xe9 <j@example.nl>;", b"To: vrienden: Jos\xe9 <j@example.nl>;"),
        (b"To: j@example.nl (Jos\xe9)", b"To: j@example.nl (Jos\xe9)"),
        (b"X-Afdeling: Caf\xe9", b"X-Afdeling: Caf\xe9"),
        (
            b'Content-Disposition: attachment; filename="f\xe9.pdf"',
            b'Content-Disposition: attachment; filename="f\xe9.pdf"',
        ),
    ],
)
def test_raw_octets_in_a_header_field_become_encoded_words_where_that_is_safe_and_else_stay(
    before: bytes, after: bytes | None
) -> None:
    if after is None:
        after = b"To: =?utf-8?b?Sm9zw6ksIGRl?= <j@example.nl>, Piet <p@x.nl>, k@x.nl"
    assert recode(before + b"\r\n\r\ntext\r\n") == after + b"\r\n\r\ntext\r\n"


def test_signatures_that_break_are_removed_and_counted_and_others_stay() -> None:
    body = SIGNATURE + b"Subject: x\r\n\r\nCaf\xe9\r\n"
    done, removed = written(body, survey(body))
    assert (b"DKIM" in done, removed) == (False, 1)
    subject = SIGNATURE + b"Subject: caf\xe9\r\n\r\ntext\r\n"
    assert written(subject, survey(subject))[1] == 1
    comments = SIGNATURE + b"Comments: caf\xe9\r\n\r\ntext\r\n"
    assert written(comments, survey(comments))[1] == 0


# Long lines


def test_a_long_line_makes_its_part_quoted_printable_or_base64_and_no_other() -> None:
    line = b"woord " * 200
    message = crlf(
        b"Content-Type: multipart/mixed; boundary=x\nContent-Transfer-Encoding: 8bit\n\n"
        b"--x\n\nCaf\xe9\n--x\nContent-Type: text/html\n\n" + line + b"\n"
        b"--x\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n" + b"QUJD" * 300 + b"\n--x--\n"
    )
    done = recode(message, SHORT)
    assert max(map(len, done.split(b"\r\n"))) <= 76
    assert (
        b"8bit\r\n\r\n--x\r\n\r\nCaf\xe9\r\n--x\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted" in done
    )
    assert said(done) == said(message)


def test_a_long_line_under_a_signature_is_refused() -> None:
    assert "signed" in refusal(b"Content-Type: multipart/signed; boundary=x\r\n\r\n" + b"a" * 999, SHORT)


def test_a_long_header_line_is_folded_where_it_has_white_space() -> None:
    field = b"References: " + b" ".join([b"<%d@example.nl>" % n for n in range(200)])
    done = recode(field + b"\r\nX: " + b"y" * 1200 + b"\r\n\r\ntext\r\n", SHORT)
    lines = done.split(b"\r\n")
    assert [len(line) <= 998 for line in lines] == [True, True, True, True, False, True, True, True] or max(
        map(len, lines[:-5])
    ) <= 998
    assert unfold(b"\r\n".join(lines[:-4])) == field
    assert lines[-4] == b"X: " + b"y" * 1200


@given(st.lists(st.integers(990, 1005) | st.integers(0, 3000), max_size=6), st.integers(1, 1100), st.booleans())
def test_lines_are_measured_without_their_end_however_they_come(lengths: list[int], size: int, ended: bool) -> None:
    content = b"\r\n".join([b"a" * length for length in lengths]) + (b"\r\n" if ended else b"")
    lines = LineLengths()
    for piece in cut(content, size):
        lines.feed(piece)
    assert lines.found == any(length > 998 for length in lengths)


# Laws

BOUNDARIES = (b"x", b"xx", b"x--", b"=_y")
TEXT = st.lists(
    st.sampled_from(
        [
            b"Caf\xe9",
            b"tekst",
            b"a=b",
            b"=E9",
            b"trailing \t",
            b".",
            b"--x",
            b"--xx--",
            b"--",
            b"-",
            b"",
            b"\xc3\xa9" * 90,
            b"w " * 700,
            b"From x",
            b"\x00\xff",
            b"--x ",
            b"Q2Fm",
            b"==",
            b"a: b",
        ]
    ),
    max_size=6,
).map(b"\r\n".join)
TYPES = [
    b"text/plain; charset=utf-8",
    b"text/html",
    b"application/pdf",
    b"image/png; name=x",
    b"rubbish",
    b"message/rfc822",
    b"multipart/mixed",
    b"Multipart/Digest ",
    b"multipart/alternative",
]
HEADER = st.lists(
    st.sampled_from(
        [
            b"Content-Transfer-Encoding: 8bit",
            b"Content-Transfer-Encoding: quoted-printable",
            b"Subject: a\r\n b",
            b"Content-Transfer-Encoding: binary",
            b"MIME-Version: 1.0",
            b"X-A: caf\xe9",
            b"Content-Disposition: inline",
        ]
    ),
    max_size=3,
)


@st.composite
def entities(draw: st.DrawFn, depth: int = 3) -> bytes:
    kind = draw(st.sampled_from(TYPES) | st.none())
    header = [line + b"\r\n" for line in draw(HEADER)]
    multipart = kind is not None and kind.lower().startswith(b"multipart")
    if multipart and any(b"quoted" in line for line in header):
        header = []
    if kind is not None and kind.startswith(b"message"):
        header = [line for line in header if b"quoted" not in line]
        body = draw(entities(depth - 1)) if depth else b"A: b\r\n\r\n" + draw(TEXT)
    elif multipart:
        boundary = draw(st.sampled_from(BOUNDARIES))
        named = draw(st.sampled_from([b'; boundary="%b"' % boundary, b";\r\n\tBOUNDARY=%b" % boundary, b"; a=b", b""]))
        kind = (kind or b"") + named
        body = draw(TEXT)
        for _ in range(draw(st.integers(0, 3)) if depth else 0):
            body += b"\r\n--" + boundary + b"\r\n" + draw(entities(depth - 1))
        body += draw(
            st.sampled_from([b"", b"\r\n--" + boundary + b"--", b"\r\n--" + boundary + b"--\r\n" + draw(TEXT)])
        )
    else:
        body = draw(TEXT)
    if kind is not None:
        header.insert(draw(st.integers(0, len(header))), b"Content-Type: " + kind + b"\r\n")
    return b"".join(header) + b"\r\n" + body


messages = entities().map(lambda entity: b"From: jan@example.nl\r\n" + entity)


DIGEST = b"From: jan@example.nl\r\nContent-Type: multipart/digest; boundary=x\r\n\r\n--x\r\nCaf\xe9"
TWINS = (
    b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
    b"Caf\xe9\r\n--x\r\n\r\nCaf\xe9\r\n--x--\r\n"
)


@examples(600)
@given(messages, st.sampled_from([SEVEN, SHORT, ALL]), st.sampled_from([1, 7, 64, 1 << 20]))
@example(DIGEST, SEVEN, 1)
@example(TWINS, SEVEN, 1)
def test_every_part_decodes_to_what_it_was(content: bytes, terms: Terms, size: int) -> None:
    plan = survey(content, terms)
    assert survey(content, terms, size) == plan
    if plan.refusal:
        return
    done, _ = written(content, plan)
    assert written(content, plan, size)[0] == done
    if not plan.changes:
        assert done == content
    before, after = said(content), said(done)
    # A text that ends the message may get the line end that the wire would give it.
    assert [(depth, kind) for depth, kind, _ in after] == [(depth, kind) for depth, kind, _ in before]
    assert [octets for *_, octets in after] == [octets for *_, octets in before]
    if terms.bodies:
        assert done.replace(b"caf\xe9", b"").isascii()  # fields that nobody knows stay
    if terms.long_lines:
        assert not survey(done, terms).parts


@given(messages.map(lambda content: content.decode("latin-1").encode("ascii", "replace")))
def test_a_7bit_message_is_left_alone(content: bytes) -> None:
    assert survey(content) == survey(content, SEVEN)
    assert not survey(content).changes
    assert recode(content) == content


@examples(300)
@given(st.binary(max_size=300) | messages, st.integers(1, 40))
@example(b"Content-Type: multipart/x; boundary=x\r\n\r\n--x\r\n--x--\r\n--x", 3)
def test_the_walk_gives_back_every_octet_of_anything(content: bytes, size: int) -> None:
    walker = mime.Walker()
    events = [event for piece in cut(content, size) for event in list(walker.feed(piece))] + list(walker.end())
    assert b"".join([event.raw if isinstance(event, mime.Head) else event.data for event in events]) == content


@pytest.mark.parametrize("before", [65_534, 65_535, 65_536, 65_537, 131_072])
@pytest.mark.parametrize("encoding", [b"8bit", b"quoted-printable"])
@pytest.mark.parametrize("size", [1_000, 65_536, 65_537, 1 << 20])
def test_a_line_without_end_is_written_in_stretches_that_nobody_can_tell(
    before: int, encoding: bytes, size: int
) -> None:
    head = b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n"
    message = head + b"\xe9" + b"a" * (before - 1) + b"\r\n" + b"=E9=3D" * 40_000 + b"\xe9\r\nend\r\n"
    done = recode(message, size=size)
    assert done == recode(message)
    assert said(done) == said(message)
    assert max(map(len, done.split(b"\r\n"))) <= 76


def test_a_line_end_that_comes_in_two_is_one() -> None:
    whole, halves = QuotedPrintable(), QuotedPrintable()
    line = b"a" * 65_536
    assert halves.feed(line + b"\r") + halves.feed(b"\n") == whole.feed(line + b"\r\n")


def test_what_is_base64_to_the_end_of_the_message_ends_with_a_line_end() -> None:
    done = recode(b"Content-Type: image/png\r\n\r\n\xff\xd8\r\n")
    assert done.endswith(b"base64\r\nMIME-Version: 1.0\r\n\r\n/9gNCg==\r\n")


def test_octets_that_cannot_be_anything_else_survive_base64() -> None:
    octets = random.Random(8).randbytes(200_000)
    message = b"Content-Type: application/octet-stream\r\n\r\n" + octets
    assert said(recode(message))[0][2] == octets
