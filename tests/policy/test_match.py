"""Conditions: all of them must hold, any pattern of each."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from relay.mail.submission import Peer
from relay.policy.match import Condition, Matches, View
from relay.policy.rules import Match
from tests.policy.samples import patterns, submission

MESSAGE = submission(
    b'From: "Jan" <Jan@Example.NL>, piet@example.nl\r\n'
    b"Subject: =?utf-8?Q?Uw_sessie?=\r\n =?utf-8?Q?code_123456?=\r\n"
    b"X-Mailer: iMUIS\r\n"
    b"X-Folded: een\r\n twee\r\n"
    b"X-Encoded: =?utf-8?q?x?=\r\n"
    b"X-Twice: een\r\nX-Twice: twee\r\n"
    b"\r\nbody",
    reverse_path="bounce@Example.NL",
    to=("klant@example.com", "kopie@example.org"),
    peer=Peer("192.0.2.7", "pc", "ESMTPA", user="jan"),
)


def matches(match: Match, view: View) -> bool:
    return Matches([match]).first(view) == 0


def tried(match: Match, view: View) -> list[Condition]:
    return list(Matches([match]).tried(view)[0])


SILENT = submission(b"\r\nbody", reverse_path=None, peer=Peer("unix"))


@pytest.mark.parametrize(
    "match",
    [
        Match(),
        Match(from_=patterns("jan@example.nl")),
        Match(from_=patterns("nobody@example.nl", "piet@*")),
        Match(from_=patterns("/^Jan@example\\.nl$/")),
        Match(envelope_from=patterns("bounce@example.nl")),
        Match(to=patterns("kopie@*")),
        Match(subject=patterns("/sessiecode \\d{6}$/")),
        Match(subject=patterns("uw sessiecode*")),
        Match(header=(("x-mailer", patterns("imuis")),)),
        Match(header=(("x-folded", patterns("een twee")),)),
        Match(header=(("x-encoded", patterns("=?utf-8?q?x?=")),)),
        Match(header=(("x-twice", patterns("twee")), ("x-mailer", patterns("*")))),
        Match(client=(ip_network("192.0.2.0/24"),)),
        Match(client=(ip_network("::1/128"), ip_network("192.0.2.7/32"))),
        Match(listener=patterns("legacy")),
        Match(user=patterns("jan")),
        Match(session_code=False),
        Match(max_size=MESSAGE.size),
        Match(recipients=2),
        Match(from_=patterns("jan@*"), to=patterns("klant@*"), user=patterns("jan"), recipients=5),
    ],
)
def test_these_conditions_hold(match: Match) -> None:
    assert matches(match, View(MESSAGE))
    assert all(condition.held for condition in tried(match, View(MESSAGE)))


@pytest.mark.parametrize(
    "match",
    [
        Match(from_=patterns("bounce@example.nl")),
        Match(from_=patterns("Jan")),
        Match(envelope_from=patterns("jan@example.nl")),
        Match(envelope_from=patterns("<>")),
        Match(to=patterns("klant")),
        Match(subject=patterns("sessiecode")),
        Match(header=(("x-mailer", patterns("outlook")),)),
        Match(header=(("x-none", patterns("*")),)),
        Match(header=(("x-mailer", patterns("imuis")), ("x-none", patterns("*")))),
        Match(client=(ip_network("10.0.0.0/8"), ip_network("::/0"))),
        Match(listener=patterns("other")),
        Match(user=patterns("piet")),
        Match(session_code=True),
        Match(max_size=MESSAGE.size - 1),
        Match(recipients=1),
        Match(from_=patterns("jan@*"), to=patterns("nobody@*")),
    ],
)
def test_these_conditions_do_not_hold(match: Match) -> None:
    assert not matches(match, View(MESSAGE))
    assert not all(condition.held for condition in tried(match, View(MESSAGE)))


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        (Match(envelope_from=patterns("<>")), True),
        (Match(envelope_from=patterns("*@example.nl")), False),
        (Match(from_=patterns("*")), False),
        (Match(subject=patterns("*")), True),
        (Match(user=patterns("*")), False),
        (Match(client=(ip_network("0.0.0.0/0"), ip_network("::/0"))), False),
    ],
)
def test_what_is_not_there_matches_only_where_nothing_is_asked(match: Match, holds: bool) -> None:
    assert matches(match, View(SILENT)) is holds
    assert all(condition.held for condition in tried(match, View(SILENT))) is holds


def test_authors_of_two_from_fields_all_count() -> None:
    two = submission(b"From: a@example.nl\r\nFrom: b@example.nl\r\n\r\n")
    assert View(two).from_ == ("a@example.nl", "b@example.nl")


def test_a_raw_windows_1252_subject_is_text() -> None:
    assert View(submission(b"Subject: B\xfcro\r\n\r\n")).subject == "Büro"


def test_every_condition_is_told_with_what_was_there() -> None:
    match = Match(
        from_=patterns("nobody@example.nl"),
        header=(("x-twice", patterns("twee")),),
        client=(ip_network("10.0.0.0/8"), ip_network("192.0.2.7/32")),
        session_code=True,
        max_size=10,
        recipients=2,
    )
    assert [tuple(condition) for condition in tried(match, View(MESSAGE))] == [
        ("from", ("nobody@example.nl",), ("Jan@example.nl", "piet@example.nl"), False),
        ("header.x-twice", ("twee",), ("een", "twee"), True),
        ("client", ("10.0.0.0/8", "192.0.2.7"), ("192.0.2.7",), True),
        ("session_code", ("true",), ("false",), False),
        ("max_size", ("10 octets",), (f"{MESSAGE.size} octets",), False),
        ("recipients", ("2",), ("2",), True),
    ]


@pytest.mark.parametrize(
    ("head", "held"),
    [
        (b"From: Jan <jan@example.nl>\r\n", True),
        (b"From: jan@example.nl, piet@example.nl\r\n", True),
        (b"From: jan@example.nl\r\nFrom: piet@example.nl\r\n", True),
        (b"From: ceo@victim.nl, jan@example.nl\r\n", False),
        (b"From: jan@example.nl\r\nFrom: ceo@victim.nl\r\n", False),
        (b"From: <ceo@victim.nl> <jan@example.nl>\r\n", False),
        (b"From: jan@example.nl, Piet\r\n", False),
        (b"From: x:jan@example.nl;\r\n", False),
        (b"From: jan@example.nl, ceo@victim.nl!\r\n", False),
        (b"From: jan@example.nl, <\xffceo@victim.nl>\r\n", False),
        (b'From: jan@example.nl, "%b"@victim.nl\r\n' % (b"x" * 300), False),
        (b"From : jan@example.nl\r\n", False),
        (b"From: jan@example.nl\x0b\r\n", False),
        (b"From:\r\n", False),
        (b"Subject: x\r\n", False),
    ],
)
def test_a_rule_that_keeps_asks_for_all_authors_in_a_from_that_reads_in_one_way(head: bytes, held: bool) -> None:
    keeps = Match(from_=patterns("*@example.nl"), all_authors=True)
    view = View(submission(head + b"\r\nbody"))
    assert matches(keeps, view) is held
    assert [condition.held for condition in tried(keeps, view)] == [held]


@pytest.mark.parametrize("author", ["bo\u017fs@example.nl", "bo\u00df@example.nl", "boss@ban\u212a.example"])
@pytest.mark.parametrize(
    "written", ["boss@example.nl", "boss@bank.example", r"/(?i)^boss@(example\.nl|bank\.example)$/"]
)
def test_an_author_whose_letters_only_look_like_those_of_a_rule_that_keeps_is_another(
    author: str, written: str
) -> None:
    keeps = Match(from_=patterns(written), all_authors=True)
    assert not matches(keeps, View(submission(f"From: {author}\r\n\r\n".encode())))


def test_an_author_with_other_letters_than_those_of_ascii_is_kept_by_the_domain() -> None:
    keeps = Match(from_=patterns("*@example.nl"), all_authors=True)
    assert matches(keeps, View(submission("From: Stra\u00dfe <stra\u00dfe@EXAMPLE.nl>\r\n\r\n".encode())))
