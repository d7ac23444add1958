"""Paths as applications send them, and as attackers do."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.mail.path import LONGEST_DOMAIN, LONGEST_LOCAL, PathError, parse
from relay.mail.quirk import Quirk

ACCEPTED = [
    # The standard's forms
    (b"FROM:<jan@example.nl>", "jan@example.nl"),
    (b"TO:<jan@example.nl>", "jan@example.nl"),
    (b"TO:<postmaster>", "postmaster"),
    (b"TO:<Postmaster@Example.NL>", "Postmaster@example.nl"),
    (b"FROM:<!#$%&'*+/=?^_`{|}~-@example.nl>", "!#$%&'*+/=?^_`{|}~-@example.nl"),
    (b'FROM:<"jan de vries"@example.nl>', '"jan de vries"@example.nl'),
    (b'FROM:<"jan\\"piet"@example.nl>', '"jan\\"piet"@example.nl'),
    (b'FROM:<"jan@piet"@example.nl>', '"jan@piet"@example.nl'),
    (b'FROM:<""@example.nl>', '""@example.nl'),
    (b"FROM:<jan@[192.0.2.1]>", "jan@[192.0.2.1]"),
    (b"FROM:<jan@[IPv6:2001:DB8::1]>", "jan@[ipv6:2001:db8::1]"),
    # Source routes, dropped
    (b"TO:<@relay.example:jan@example.nl>", "jan@example.nl"),
    (b"TO:<@one.example,@two.example:jan@example.nl>", "jan@example.nl"),
    # Tolerances
    (b"from:<jan@example.nl>", "jan@example.nl"),
    (b"FROM: <jan@example.nl>", "jan@example.nl"),
    (b"FROM :<jan@example.nl>", "jan@example.nl"),
    (b"FROM\t:\t<jan@example.nl>", "jan@example.nl"),
    (b"FROM:< jan@example.nl >", "jan@example.nl"),
    (b"FROM:<\tjan@example.nl\t>", "jan@example.nl"),
    (b"FROM:<jan@example.nl>   ", "jan@example.nl"),
    (b"FROM:jan@example.nl", "jan@example.nl"),
    (b"FROM: jan@example.nl ", "jan@example.nl"),
    (b'FROM:"jan de vries"@example.nl', '"jan de vries"@example.nl'),
    (b"FROM:Jan <jan@example.nl>", "jan@example.nl"),
    (b"FROM:Jan de Vries <jan@example.nl>", "jan@example.nl"),
    (b'FROM:"Jan de Vries" <jan@example.nl>', "jan@example.nl"),
    (b'FROM:"jan@elders.nl" <jan@example.nl>', "jan@example.nl"),
    (b"FROM:<jan@example.nl.>", "jan@example.nl"),
    (b"FROM:<jan..de.vries.@example.nl>", "jan..de.vries.@example.nl"),
    (b"FROM:<.jan@example.nl>", ".jan@example.nl"),
    (b"FROM:<jan@my_server>", "jan@my_server"),
    (b"FROM:<jan@localhost>", "jan@localhost"),
    (b"FROM:<jan>", "jan"),
    ("FROM:<josé@example.nl>".encode(), "josé@example.nl"),
    ("FROM:<jan@CAFÉ.example>".encode(), "jan@café.example"),
    # Forms of third-party relaying: one local part, for the upstream to judge
    (b"TO:<user%victim.example@relay.example>", "user%victim.example@relay.example"),
    (b'TO:<"victim.example!user"@relay.example>', '"victim.example!user"@relay.example'),
    (b"TO:<user@[127.0.0.1]>", "user@[127.0.0.1]"),
    # Encoded words are never decoded
    (b"FROM:<=?utf-8?q?jan?=@example.nl>", "=?utf-8?q?jan?=@example.nl"),
    (b"FROM:<=?utf-8?q?a=0d=0aRCPT_TO=3cx=40y=3e?=@example.nl>", "=?utf-8?q?a=0d=0aRCPT_TO=3cx=40y=3e?=@example.nl"),
]

REFUSED = [
    b"",
    b"FROM",
    b"FROM:",
    b"FROM:   ",
    b"<jan@example.nl>",
    b"FROM<jan@example.nl>",
    b"FOR:<jan@example.nl>",
    b"FROM:<jan@example.nl",
    b"FROM:jan@example.nl>",
    b"FROM:<<jan@example.nl>>",
    b"FROM:<jan@>",
    b"FROM:<@example.nl>",
    b"FROM:<jan@example..nl>",
    b"FROM:<jan@.example.nl>",
    b"FROM:<jan@example.nl..>",
    b"FROM:<jan@exam ple.nl>",
    b"FROM:<jan de vries@example.nl>",
    b"FROM:<jan@[192.0.2.1>",
    b"FROM:<jan@[]>",
    b"FROM:<jan@example.nl,piet@example.nl>",
    b"FROM:<jan@example.nl;piet@example.nl>",
    b"FROM:<jan(comment)@example.nl>",
    b"FROM:<jan@example.nl(comment)>",
    b"FROM:<mailto:jan@example.nl>",
    # Two readings
    b"TO:<user@victim.example@relay.example>",
    b"TO:<@relay.example:user@victim.example@relay.example>",
    b"TO:<@relay.example:>",
    b"TO:<@relay.example:@victim.example:user@third.example>",
    b'TO:<"user@victim.example">',
    b'TO:<"user%victim.example">',
    b'TO:"user@victim.example"',
    b"FROM:jan@example.nl <piet@example.com>",
    b'FROM:"Jan <jan@example.nl>" <piet@example.com>',
    b"FROM:<jan@example.nl> <piet@example.com>",
    b"FROM:<jan@example.nl>, <piet@example.com>",
    b'FROM:<"jan>piet"@example.nl>',
    b'FROM:<"jan<piet"@example.nl>',
    b'FROM:<"jan\\>"@example.nl>',
    b'FROM:<"jan"piet@example.nl>',
    b'FROM:<jan"piet"@example.nl>',
    b'FROM:<"jan@example.nl>',
    b"FROM:<jan\\@example.nl>",
    b"FROM:<jan@=?utf-8?q?example=2enl?=>",
    b"FROM:<=?utf-8?q?a?= <x@example.nl>",
    # Octets that are no text
    b"FROM:<jan\x00@example.nl>",
    b"FROM:<jan\x07@example.nl>",
    b"FROM:<jan\r@example.nl>",
    b"FROM:<jan\n@example.nl>",
    b"FROM:<jan@example.nl\r>",
    b"FROM:<jan@example.nl>\r\nRCPT TO:<piet@example.com>",
    b"FROM:<jan@example.nl> X=\x00",
    b'FROM:<"jan\r\nRCPT TO:"@example.nl>',
    b'FROM:<"jan\x1b[2J"@example.nl>',
    b'FROM:<"jan\tpiet"@example.nl>',
    b"FROM:<jan\x7f@example.nl>",
    b"FROM:<jos\xe9@example.nl>",
    b"FROM:<jan@\xff.nl>",
    "FROM:<jan\u0085@example.nl>".encode(),
    "FROM:<jan\u2028@example.nl>".encode(),
    "FROM:<jan\u00a0piet@example.nl>".encode(),
    "FROM:<jan@example\u202e.nl>".encode(),
    b"FROM:<jan\xed\xa0\x80@example.nl>",
    # Letters beyond ASCII that lower case would make ASCII, and another domain
    "FROM:<jan@ban\u212a.example>".encode(),
    "FROM:<jan@\u0130ng.example>".encode(),
    # Lengths
    b"FROM:<" + b"a" * (LONGEST_LOCAL + 1) + b"@example.nl>",
    b"FROM:<jan@" + b"a" * (LONGEST_DOMAIN + 1) + b">",
    # Parameters
    b"FROM:<jan@example.nl> =1",
    b"FROM:<jan@example.nl> (comment)",
    b"FROM:<jan@example.nl> S\xefZE=1",
]


@pytest.mark.parametrize(("argument", "address"), ACCEPTED)
def test_what_applications_send_is_read(argument: bytes, address: str) -> None:
    found = parse(argument)
    assert str(found.address) == address
    assert found.parameters == ()


@pytest.mark.parametrize(
    ("argument", "quirks"),
    [
        (b"FROM:<jan@example.nl> SIZE=1", set()),
        (b"FROM:<>", set()),
        (b"FROM:<jan@example.nl>  ", set()),
        (b'FROM:<"jan..de vries."@example.nl>', set()),
        (b"FROM: <jan@example.nl>", {Quirk.SPACE_IN_PATH}),
        (b"FROM :<jan@example.nl>", {Quirk.SPACE_IN_PATH}),
        (b"FROM:<jan@example.nl\t>", {Quirk.SPACE_IN_PATH}),
        (b"FROM:jan@example.nl", {Quirk.NO_BRACKETS}),
        (b"FROM:Jan<jan@example.nl>", {Quirk.NAME_IN_PATH}),
        (b"FROM:<@a.nl:jan@example.nl>", {Quirk.SOURCE_ROUTE}),
        (b"FROM:<jan@example.nl.>", {Quirk.TRAILING_DOT}),
        (b"FROM:<jan.@example.nl>", {Quirk.DOTS_IN_LOCAL_PART}),
        (b"FROM:<.jan@example.nl>", {Quirk.DOTS_IN_LOCAL_PART}),
        (b"FROM:<jan..vries@example.nl>", {Quirk.DOTS_IN_LOCAL_PART}),
        (b"FROM:<jan.>", {Quirk.DOTS_IN_LOCAL_PART}),
    ],
)
def test_what_is_tolerated_is_told(argument: bytes, quirks: set[Quirk]) -> None:
    assert parse(argument).quirks == quirks


@pytest.mark.parametrize("argument", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused_for_good(argument: bytes) -> None:
    with pytest.raises(PathError) as caught:
        parse(argument)
    assert 500 <= caught.value.reply.code < 600
    assert caught.value.reply.to_bytes().endswith(b"\r\n")


@pytest.mark.parametrize("argument", [b"FROM:<>", b"FROM: < >", b"from:<> SIZE=10"])
def test_the_null_reverse_path_is_none(argument: bytes) -> None:
    assert parse(argument).address is None


def test_the_longest_address_is_taken() -> None:
    local, domain = b"a" * LONGEST_LOCAL, b"b" * LONGEST_DOMAIN
    assert str(parse(b"TO:<" + local + b"@" + domain + b">").address) == (local + b"@" + domain).decode()
    assert LONGEST_LOCAL >= 256  # as the addresses of Exchange (IMCEAEX-…) and SRS over VERP have it


@pytest.mark.parametrize(
    ("argument", "parameters"),
    [
        (b"FROM:<a@b.nl> SIZE=100", (("SIZE", b"100"),)),
        (b"FROM:<a@b.nl> size=100 body=8BitMime", (("SIZE", b"100"), ("BODY", b"8BitMime"))),
        (b"FROM:a@b.nl SIZE=100", (("SIZE", b"100"),)),
        (b"FROM:<a@b.nl>\tSIZE=100", (("SIZE", b"100"),)),
        (b"FROM:<a@b.nl>SIZE=100", (("SIZE", b"100"),)),
        (b"FROM:<a@b.nl> SMTPUTF8", (("SMTPUTF8", None),)),
        (b"FROM:<a@b.nl> AUTH=<>", (("AUTH", b"<>"),)),
        (b"FROM:<a@b.nl> RET=HDRS ENVID=QQ314159", (("RET", b"HDRS"), ("ENVID", b"QQ314159"))),
        (b"TO:<a@b.nl> NOTIFY=NEVER", (("NOTIFY", b"NEVER"),)),
        (b"TO:<a@b.nl> ORCPT=rfc822;Jan+2BPiet@b.nl", (("ORCPT", b"rfc822;Jan+2BPiet@b.nl"),)),
        (b"FROM:<a@b.nl> X-VENDOR_THING=1=2 X=", (("X-VENDOR_THING", b"1=2"), ("X", b""))),
    ],
)
def test_parameters_are_kept_as_they_were_sent(
    argument: bytes, parameters: tuple[tuple[str, bytes | None], ...]
) -> None:
    assert parse(argument).parameters == parameters


MARKS = [bytes([octet]) for octet in b'<>"\\@.,: \t[]\0\r\n\xe9']
WORDS = [b"FROM:", b"jan", b"example.nl", b"=?utf-8?q?", b"SIZE=1", b"\xc2\x85", "é".encode()]
PIECES = st.sampled_from(MARKS + WORDS)
ARGUMENTS = st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=12).map(b"".join)).flatmap(
    lambda rest: st.sampled_from([rest, b"FROM:" + rest, b"FROM:<" + rest + b">", b"TO:<" + rest + b"@example.nl>"])
)


@given(ARGUMENTS)
@example(b'FROM:<"a b"@c>')
def test_any_octets_are_an_address_without_traps_or_a_path_error(argument: bytes) -> None:
    try:
        address = parse(argument).address
    except PathError:
        return
    if address is None:
        return
    text = str(address)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)
    assert "<" not in text
    assert ">" not in text
    assert " " not in address.domain
    assert " " not in address.local or (address.local[0] == address.local[-1] == '"')
    assert "@" not in address.domain
    assert "@" not in address.local or address.local[0] == '"'
    assert address.domain == address.domain.lower()
    # Whoever reads what we write reads the same.
    assert parse(b"TO:<" + text.encode() + b">").address == address


@pytest.mark.parametrize(
    "fill", [b" ", b'"', b"\\", b'\\"', b'"a" ', b"<", b">", b"@", b"@a,", b"a.", b".", b"(", b"=?", b"\t<"]
)
@pytest.mark.parametrize(
    "frame", [b"FROM:%b", b"FROM:<%b>", b'FROM:"%b"<a@b>', b"FROM:<@%b:a@b>", b'FROM:"%b', b"FROM:<a@b> %b"]
)
def test_hostile_arguments_cost_linear_time(fill: bytes, frame: bytes) -> None:
    """A pattern that backtracks would not come to an end within the limit of the run."""
    argument = frame % (fill * (1_000_000 // len(fill)))
    try:
        parse(argument)
    except PathError:
        pass
