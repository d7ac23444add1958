"""The header as bytes: what is read can be written again, and a change touches nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.header import Header, folded, split, unfold, value

SYSTEM_NET_MAIL = (
    b"MIME-Version: 1.0\r\n"
    b'From: "Jan Jansen" <jan@example.nl>\r\n'
    b"To: klant@example.com\r\n"
    b"Date: 23 Nov 2026 22:08:00 +0100\r\n"
    b"Subject: =?utf-8?Q?Factuur_B=C3=BCro?=\r\n"
    b"Content-Type: multipart/mixed;\r\n"
    b" boundary=--boundary_0_12345678\r\n"
    b"\r\n"
)
# Bytes of which headers, and things that are nearly headers, are made.
PIECES = st.sampled_from(
    [
        b"From",
        b"X",
        b":",
        b" ",
        b"\t",
        b"\r\n",
        b"\n",
        b"\r",
        b"\x00",
        b"\xfc",
        b"a@b.nl",
        b"\r\n ",
        b"\r\n\r\n",
        b"(",
        b'"',
    ]
)
HEADERISH = st.lists(PIECES, max_size=40).map(b"".join) | st.binary(max_size=200)


@given(HEADERISH)
def test_what_is_parsed_is_written_again_byte_for_byte(raw: bytes) -> None:
    assert Header.parse(raw).to_bytes() == raw


@given(HEADERISH)
def test_split_and_parse_agree_on_where_the_header_ends(raw: bytes) -> None:
    head = raw[: split(raw)]
    parsed = Header.parse(head)
    assert parsed.rest in (b"", b"\r\n", b"\n")
    assert parsed.fields == Header.parse(raw).fields
    assert split(head) == len(head)


@given(HEADERISH, st.integers(0, 50), st.sampled_from([b"X: y\r\n", b"From: a@b.nl\r\n more\r\n"]))
def test_replacing_one_field_changes_no_other_byte(raw: bytes, pick: int, new: bytes) -> None:
    header = Header.parse(raw)
    if not header.fields:
        return
    index = pick % len(header.fields)
    start = sum(len(field[1]) for field in header.fields[:index])
    end = start + len(header.fields[index][1])
    assert header.replace(header.fields[index], new).to_bytes() == raw[:start] + new + raw[end:]


@given(HEADERISH)
def test_deleting_changes_no_other_byte(raw: bytes) -> None:
    header = Header.parse(raw)
    expected = b"".join(field for name, field in header.fields if name != b"from") + header.rest
    assert header.delete({b"from"}).to_bytes() == expected


@pytest.mark.parametrize(
    ("content", "length"),
    [
        (SYSTEM_NET_MAIL + b"body\r\n", len(SYSTEM_NET_MAIL)),
        (b"\r\nbody\r\n", 2),
        (b"", 0),
        (b"just text\r\n", 0),
        (b"From jan@example.nl Mon Nov 23 2026\r\nSubject: x\r\n\r\n", 0),
        (b" fold first: x\r\n\r\n", 0),
        (b"Subject: x\r\nhello world\r\n", 12),
        (b"Subject: x\r\nhello: world\r\n\r\nbody", 28),
        (b"Subject : obsolete\r\n\r\nbody", 22),
        (b"Sub ject: no name\r\n\r\n", 0),
        (b": no name\r\n\r\n", 0),
        (b"Subject: x\r\n\tfold\r\n \r\n\r\nbody", 24),
        (b"Subject: x", 10),
        (b"Subject: x\r\n.\r\n\r\n", 12),
        (b"Onderwerp\xfc: x\r\n\r\n", 0),
    ],
)
def test_the_header_is_the_longest_run_of_fields_and_the_empty_line_behind_it(content: bytes, length: int) -> None:
    assert split(content) == length


def test_fields_are_found_by_name_whatever_their_case() -> None:
    header = Header.parse(b"Received: 1\r\nFROM: a@b.nl\r\nreceived : 2\r\n\r\n")
    assert header.count(b"received") == 2
    assert [value(field) for field in header.all(b"received")] == [b"1", b"2"]
    assert header.first(b"from") == (b"from", b"FROM: a@b.nl\r\n")
    assert header.first(b"to") is None
    assert header.count(b"to") == 0


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b" one\r\n two\r\n", b"one two"),
        (b"\r\n one\r\n\ttwo \r\n", b"one\ttwo"),
        (b" bare\nline\rends\r\n", b"bare line ends"),
        (b" nul\x00 stays\r\n", b"nul\x00 stays"),
        (b"", b""),
    ],
)
def test_a_value_is_one_line(raw: bytes, expected: bytes) -> None:
    assert unfold(raw) == expected


def test_a_replacement_must_be_one_field() -> None:
    header = Header.parse(SYSTEM_NET_MAIL)
    subject = header.first(b"subject")
    assert subject is not None
    for bad in (b"", b"no field\r\n", b"A: b\r\nBcc: c@d.nl\r\n", b"A: b\r\n\r\n", b"A: b", b"A: b\n"):
        with pytest.raises(ValueError, match="one header field"):
            header.replace(subject, bad)
    with pytest.raises(ValueError, match="no such field"):
        header.replace((b"subject", b"Subject: another\r\n"), b"A: b\r\n")


def test_of_two_equal_fields_only_the_one_that_is_meant_is_replaced() -> None:
    header = Header.parse(b"A: 1\r\nA: 1\r\n\r\n")
    assert header.replace(header.fields[1], b"A: 2\r\n").to_bytes() == b"A: 1\r\nA: 2\r\n\r\n"


@pytest.mark.parametrize(
    "block",
    [
        b"a:b\r\n" * 100_000 + b"\r\n",
        b"a:b\r\n" + b" x\r\n" * 100_000 + b"\r\n",
        b"a" * 1_000_000,
        b"a" + b" " * 1_000_000,
        b"\n" * 1_000_000,
        b"a:\n" * 300_000,
    ],
    ids=["fields", "folds", "no colon", "blanks", "empty lines", "bare line feeds"],
)
def test_hostile_headers_are_read_in_one_pass(block: bytes) -> None:
    assert Header.parse(block).to_bytes() == block
    assert split(block) <= len(block)


def test_a_long_list_is_folded_and_unfolds_to_itself() -> None:
    words = [b"jan%d@example.nl," % number for number in range(50)]
    field = folded(b"Reply-To", words)
    assert all(len(line) <= 78 for line in field.split(b"\r\n"))
    assert value((b"reply-to", field)) == b" ".join(words)
    assert split(field) == len(field)
