"""Authors, as they are really written."""

from __future__ import annotations

from email.utils import getaddresses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.author import LARGEST_FROM, LIMIT, MOST_AUTHORS, Author, authors_of, parse, unambiguous


@pytest.mark.parametrize(
    ("value", "authors"),
    [
        (b"jan@example.nl", [("", "jan@example.nl")]),
        (b"<jan@example.nl>", [("", "jan@example.nl")]),
        (b'"Jan Jansen" <jan@example.nl>', [("Jan Jansen", "jan@example.nl")]),
        (b"Jan Jansen <jan@example.nl>", [("Jan Jansen", "jan@example.nl")]),
        (b"J. Jansen <jan@example.nl>", [("J. Jansen", "jan@example.nl")]),
        (b'"Jan \\"de Boer\\"" <jan@example.nl>', [('Jan "de Boer"', "jan@example.nl")]),
        (b"Jan\r\n <jan@example.nl>", [("Jan", "jan@example.nl")]),
        (b"'jan@example.nl' <jan@example.nl>", [("'jan@example.nl'", "jan@example.nl")]),  # Outlook
        (b"Jan@Example.NL", [("", "Jan@Example.NL")]),
        # Names that are not ASCII
        (b"=?utf-8?Q?B=C3=BCro_Van_'t_Hof?= <jan@example.nl>", [("Büro Van 't Hof", "jan@example.nl")]),
        (b'"=?utf-8?B?QsO8cm8=?=" <jan@example.nl>', [("Büro", "jan@example.nl")]),
        (b"=?utf-8?B?QsO8?=\r\n =?utf-8?B?cm8=?= <jan@example.nl>", [("Büro", "jan@example.nl")]),
        (b"=?utf-8?Q?Hof,_Jan?= <jan@example.nl>", [("Hof, Jan", "jan@example.nl")]),  # a comma left as it is
        (b"=?utf-8?Q?Jan_<jan@evil.nl>?= <jan@example.nl>", [("Jan <jan@evil.nl>", "jan@example.nl")]),
        (b'"B\xfcro Van \'t Hof" <jan@example.nl>', [("Büro Van 't Hof", "jan@example.nl")]),
        (b"B\xfcro <jan@example.nl>", [("Büro", "jan@example.nl")]),
        (b"B\xc3\xbcro <jan@example.nl>", [("Büro", "jan@example.nl")]),
        # Comments
        (b"jan@example.nl (Jan (de) Boer)", [("Jan (de) Boer", "jan@example.nl")]),
        (b"(voor) Jan (na) <jan@example.nl> (achter)", [("Jan", "jan@example.nl")]),
        (b"jan(een)@(twee)example.nl", [("een twee", "jan@example.nl")]),
        (b"Jan <jan(hier)@example.nl>", [("Jan", "jan@example.nl")]),
        (b"jan@example.nl (a\\)b)", [("a\\)b", "jan@example.nl")]),
        # Several
        (b"a@x.nl, B <b@y.nl>", [("", "a@x.nl"), ("B", "b@y.nl")]),
        (b'"Jansen, Jan" <a@x.nl>, b@y.nl', [("Jansen, Jan", "a@x.nl"), ("", "b@y.nl")]),
        (b"a@x.nl; b@y.nl", [("", "a@x.nl"), ("", "b@y.nl")]),  # Outlook's separator
        (b",, a@x.nl,", [("", "a@x.nl")]),
        # Groups
        (b'Groep: a@x.nl, "B, b" <b@y.nl>;', [("", "a@x.nl"), ("B, b", "b@y.nl")]),
        (b"undisclosed-recipients:;", []),
        (b'"De groep": A <a@x.nl>;, c@z.nl', [("A", "a@x.nl"), ("", "c@z.nl")]),
        (b"Afdeling: Inkoop <a@x.nl>", [("Afdeling: Inkoop", "a@x.nl")]),  # no group: nothing ends it
        # Local parts and domains that are seldom seen
        (b'"jan jansen"@example.nl', [("", '"jan jansen"@example.nl')]),
        (b'Jan <"a>b"@example.nl>', [("Jan", '"a>b"@example.nl')]),
        (b'"a@b"@example.nl', [("", '"a@b"@example.nl')]),
        (b"jan . jansen @ example . nl", [("", "jan.jansen@example.nl")]),
        (b"<@een.nl,@twee.nl:jan@example.nl>", [("", "jan@example.nl")]),
        (b"jan@[192.0.2.1]", [("", "jan@[192.0.2.1]")]),
        (b"Jan <jan@[IPv6:2001:db8::1]>", [("Jan", "jan@[IPv6:2001:db8::1]")]),
        ("büro@büro.nl".encode(), [("", "büro@büro.nl")]),
        # Broken
        (b"", []),
        (b"<>", []),
        (b"Jan", [("Jan", None)]),
        (b"<jan>", [("jan", None)]),
        (b"Jan <jan>", [("Jan", None)]),
        (b"Jan <>", [("Jan", None)]),
        (b"Jan jan@example.nl", [("Jan", "jan@example.nl")]),
        (b"Jan <jan@example.nl", [("Jan", "jan@example.nl")]),
        (b'Van "t Hof <jan@example.nl>', [('Van "t Hof', "jan@example.nl")]),
        (b"Jan :-( <jan@example.nl>", [("Jan :-(", "jan@example.nl")]),
        (b"[EXTERN] Jan <jan@example.nl>", [("[EXTERN] Jan", "jan@example.nl")]),
        (b"<<jan@example.nl>>", [("", "jan@example.nl")]),
        (b"jan@example.nl@elders.nl", [("jan@example.nl@elders.nl", None)]),
        (b"b\xfcro@example.nl", [("büro@example.nl", None)]),  # an address has no charset but UTF-8
        (b"jan@", [("jan@", None)]),
        (b"@example.nl", [("@example.nl", None)]),
        (b"Jan <jan@exam ple.nl>", [("Jan", None)]),
        (b"Jan <jan\x00@example.nl>", [("Jan", None)]),
    ],
)
def test_authors_are_found_as_they_are_really_written(value: bytes, authors: list[tuple[str, str | None]]) -> None:
    assert list(map(tuple, parse(value))) == authors


@given(
    st.binary(max_size=120)
    | st.lists(
        st.sampled_from(
            [
                b'"',
                b"<",
                b">",
                b"(",
                b")",
                b",",
                b";",
                b":",
                b"a@b.nl",
                b"\\",
                b" ",
                b"\r\n ",
                b"=?utf-8?q?x?=",
                b"[",
                b"]",
            ]
        )
    ).map(b"".join)
)
def test_reading_never_fails_and_an_address_never_holds_a_line_end(value: bytes) -> None:
    for author in parse(value):
        author.name.encode()
        assert author.address is None or (author.address.count("@") >= 1 and author.address.isprintable())


@pytest.mark.parametrize(
    "value",
    [
        b"(" * 2_000,
        b"(" * 20_000 + b" jan@example.nl",
        b'"\\"' * 20_000,
        b'"x@y.nl "' * 10_001,
        b"a@b.nl, " * 8_000,
        b"=?utf-8?q?x?= " * 8_000,
        b"<" * 20_000,
        b"[a" * 20_000,
        b"a:" * 10_000 + b";" * 10_000,
        b"(\\" * 20_000,
        b"()" * 20_000,
        b"a@" * 20_000,
        b"a," * 20_000 + b" <a@b.nl>",
        b"a, " * 20_000,
        b"<a@b.nl>" * 10_000,
        b"<a> " * 10_000,
        b"x" + b" " * 40_000 + b"y a@b.nl",
        b"a@b.nl " * 10_000,
        b"&lt;" * 10_000 + b"@",
    ],
    ids=lambda value: repr(value[:8]),
)
def test_hostile_values_are_read_in_linear_time_and_without_recursion(value: bytes) -> None:
    assert isinstance(parse(value), tuple)


def test_a_number_that_is_no_character_hides_no_address_and_stops_nobody() -> None:
    digits = b"9" * 5_000
    assert authors_of([b"&#" + digits + b";"]) == (Author(f"&#{digits.decode()}", None),)
    assert authors_of([b"&#" + digits + b"; &lt;jan&#64;x.nl&gt;"]) == (Author("\ufffd", "jan@x.nl"),)


def test_there_is_an_end_to_the_addresses_of_one_value() -> None:
    assert len(parse(b"a@b.nl, " * 8_000)) == 8_000
    assert len(parse(b"a@b.nl, " * 20_000)) == LIMIT


@pytest.mark.parametrize(
    ("value", "mailboxes"),
    [
        (b"jan@example.nl", 1),
        (b" <jan@example.nl> ", 1),
        (b'"Jansen, Jan" <jan@example.nl>', 1),
        (b"Jan P. de Boer <jan@example.nl> (thuis)", 1),
        (b"jan@example.nl (Jan)", 1),
        (b"=?utf-8?Q?B=C3=BCro?=\r\n =?utf-8?Q?x?= <jan@example.nl>", 1),
        ("Büro <büro@büro.nl>".encode(), 1),
        (b'"B\xfcro" <jan@[IPv6:2001:db8::1]>', 1),
        (b"jan@example.nl, Piet <piet@example.nl>", 2),
        # Another reader could find somebody else
        (b"<ceo@victim.nl> <jan@example.nl>", 0),
        (b"[<ceo@victim.nl>] <jan@example.nl>", 0),
        (b"<ceo@victim.nl>( <jan@example.nl>", 0),
        (b"ceo@victim.nl <jan@example.nl>", 0),
        (b"jan@example.nl <>", 0),
        (b"<jan@example.nl>, <>", 0),
        (b"jan@example.nl,", 0),
        (b",jan@example.nl", 0),
        (b"x:<jan@example.nl>;", 0),
        (b"jan@example.nl;", 0),
        (b"<@victim.nl:jan@example.nl>", 0),
        (b"<jan@example.nl> Jan", 0),
        (b"<jan@example.nl", 0),
        (b"jan@example.nl>", 0),
        (b"jan . jansen@example.nl", 0),
        (b"jan@example.nl (<ceo@victim.nl>)", 0),
        (b"jan@example.nl (a (b) c)", 0),
        (b'"Jan <jan@example.nl>', 0),
        (b"=?utf-8?Q?Hof,_Jan?= <jan@example.nl>", 0),
        (b"jan@example.nl\x00", 0),
        (b"Jan\x00 <jan@example.nl>", 0),
        (b"jan@example.nl=?utf-8?q?=3Cceo=40victim.nl=3E?=", 0),
        (b"=?utf-8?q?ceo=40victim.nl=3C?=@example.nl", 0),
        ("\u202ejan@example.nl".encode(), 0),
        ("Jan <jan@example.nl\u200b>".encode(), 0),
        ("jan@example.nl\u2028".encode(), 0),
        (b"<jan@example.nl\xa0>", 0),
        (b"Jan", 0),
        (b"", 0),
    ],
)
def test_only_what_every_reader_reads_alike_can_be_read_in_one_way(value: bytes, mailboxes: int) -> None:
    assert unambiguous(value) == mailboxes


_PIECES = [
    b"jan@x.nl",
    b"<piet@y.nl>",
    b'"a, b"',
    b"Jan",
    b"(c)",
    b"(",
    b")",
    b",",
    b" ",
    b"<",
    b">",
    b":",
    b";",
    b'"',
    b"\\",
]


@given(st.lists(st.sampled_from(_PIECES), max_size=8).map(b"".join))
def test_where_a_value_can_be_read_in_one_way_the_standard_library_finds_the_same_addresses(value: bytes) -> None:
    if count := unambiguous(value):
        ours = [author.address for author in parse(value)]
        assert len(ours) == count
        assert [address for _, address in getaddresses([value.decode()])] == ours


def test_a_from_that_nobody_writes_has_no_authors() -> None:
    assert len(authors_of([b"a@x.nl, " * 49 + b"a@x.nl", b"b@x.nl, " * 49 + b"b@x.nl"])) == MOST_AUTHORS
    assert authors_of([b"a@x.nl, " * 100 + b"a@x.nl"]) == ()
    assert authors_of([b"," * LARGEST_FROM, b"a@x.nl"]) == ()
    assert authors_of([b"," * 999 + b"a@x.nl"]) == authors_of([b"," * 500, b"a@x.nl," + b";" * 499]) != ()
    assert authors_of([b"," * 500, b"a@x.nl," + b";" * 500]) == ()
