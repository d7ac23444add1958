"""Text in header fields: what Dutch business software writes comes out as people wrote it."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail import encoding
from relay.mail.encoding import decode, encode_phrase, text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Factuur 2026-0001", "Factuur 2026-0001"),
        (b"=?utf-8?Q?B=C3=BCro_Van_'t_Hof?=", "Büro Van 't Hof"),
        (b"=?UTF-8?B?QsO8cm8=?=", "Büro"),
        (b"=?utf-8?B?QsO8cm8?=", "Büro"),  # padding forgotten
        (b"=?iso-8859-1?Q?B=FCro?=", "Büro"),
        (b"=?iso-8859-1?Q?=80_100?=", "€ 100"),  # Windows software calls its own charset Latin-1
        (b"=?iso-8859-15?Q?=A4_100?=", "€ 100"),
        (b"=?windows-1252?Q?=80_100?=", "€ 100"),
        (b"=?utf-8*nl?Q?B=C3=BCro?=", "Büro"),  # RFC 2231, section 5
        (b"=?utf-8?q?B=C3?=\r\n =?utf-8?q?=BCro?=", "Büro"),  # a character cut in two
        (b"=?utf-8?q?een?= =?utf-8?q?_twee?=", "een twee"),
        (b"=?utf-8?q?een?=  =?iso-8859-1?q?=FC?=", "eenü"),
        (b"=?utf-8?q?een?= en =?utf-8?q?twee?=", "een en twee"),
        (b"Re: =?utf-8?q?sessiecode?=", "Re: sessiecode"),
        (b"=?utf-8?Q?met spatie?=", "met spatie"),
        (b"Factuur\r\n van Jan", "Factuur van Jan"),
        (b"B\xfcro", "Büro"),
        (b"B\xc3\xbcro", "Büro"),
        (b"B\xfcro =?utf-8?q?B=C3=BCro?=", "Büro Büro"),
        (b"=?klingon?q?x?=", "=?klingon?q?x?="),
        (b"=?klingon?q?x?= =?utf-8?q?y?=", "=?klingon?q?x?= y"),
        (b"=?idna?q?xn--bro-hoa?=", "=?idna?q?xn--bro-hoa?="),  # a codec, but no charset
        (b"=?utf-8?b?abcde?=", "=?utf-8?b?abcde?="),
        (b"=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
        (b"=?utf-8?q?half", "=?utf-8?q?half"),
        (b"=?utf-8?q??=", ""),
        (b"=?utf-8?q?=FC?=", "ü"),  # it says UTF-8 and is not
        (b"=?gb2312?B?1tC5+g==?=", "中国"),
        (b"nul\x00", "nul\x00"),
        (b"", ""),
    ],
)
def test_a_value_is_decoded_as_readers_of_mail_do(value: bytes, expected: str) -> None:
    assert decode(value) == expected


def test_every_charset_in_the_table_exists() -> None:
    for codec in set(encoding._CHARSETS.values()):
        assert codecs.lookup(codec).name
        assert isinstance(b"\xff\x80=+".decode(codec, "replace"), str)


@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from([b"=?", b"?=", b"utf-8", b"?q?", b"?b?", b"=FC", b" "])).map(b"".join)
)
def test_decoding_never_fails_and_never_gives_what_cannot_be_encoded(value: bytes) -> None:
    decode(value).encode()
    text(value).encode()


@given(st.text(max_size=300))
def test_an_encoded_name_is_ascii_and_cannot_end_its_line(name: str) -> None:
    phrase = encode_phrase(name)
    assert phrase.isascii()
    plain = phrase.replace(b"\r\n ", b"")
    assert not any(octet < 0x20 or octet == 0x7F for octet in plain)
    assert all(len(line) <= 78 for line in phrase.split(b"\r\n"))
    assert all(line.strip() for line in phrase.split(b"\r\n")) or not phrase


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=200).map(str.strip))
def test_a_name_that_is_encoded_and_decoded_is_the_same_name(name: str) -> None:
    phrase = encode_phrase(name)
    if phrase.startswith(b'"'):
        phrase = phrase[1:-1].replace(b"\\\\", b"\x00").replace(b"\\", b"").replace(b"\x00", b"\\")
    assert decode(phrase) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Jan Jansen", b"Jan Jansen"),
        ("Van 't Hof", b"Van 't Hof"),
        ("J. Jansen", b'"J. Jansen"'),
        ("Jansen, Jan", b'"Jansen, Jan"'),
        ('Jan "de Boer" \\', b'"Jan \\"de Boer\\" \\\\"'),
        ("Büro", b"=?utf-8?b?QsO8cm8=?="),
        ("Büro Van Hof", b"=?utf-8?q?B=C3=BCro_Van_Hof?="),
        ("東京", b"=?utf-8?b?5p2x5Lqs?="),
        ("=?utf-8?q?x?=", b"=?utf-8?b?PT91dGYtOD9xP3g/PQ==?="),
        ("Jan\r\nBcc: iedereen@example.nl", b'"Jan Bcc: iedereen@example.nl"'),
        ("Jan\x00\x1b[31m", b'"Jan [31m"'),
        ("\ud800", b""),
        ("  ", b""),
    ],
)
def test_a_name_is_written_in_the_plainest_form_that_carries_it(name: str, expected: bytes) -> None:
    assert encode_phrase(name) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"=?utf-8?q?x?= " * 20_000,
        b"=?" * 100_000,
        b"=?a?q?" * 50_000,
        b"=?utf-8?q?" + b"a" * 300_000,
        b"=?utf-8?b?" * 30_000 + b"?=",
        b"=?utf-8?q?x?=" + b" " * 200_000 + b"=?utf-8?q?x?=",
        b"".join(b"=?charset-%d?q?x?= " % number for number in range(8_000)),
    ],
    ids=["words", "openings", "halves", "long", "nested", "blanks", "unknown charsets"],
)
def test_hostile_values_are_decoded_in_linear_time(value: bytes) -> None:
    assert isinstance(decode(value), str)
