"""A message as it leaves: the sender that the rule wants, and not a byte else."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from email.utils import getaddresses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.address import Address
from relay.mail.author import parse, unambiguous
from relay.mail.header import Header, split, value
from relay.mail.submission import Submission
from relay.policy.decide import Accept, Policy, decide
from relay.policy.rewriting import Rendered, _without_at, render
from relay.policy.rules import Match
from tests.kit import configured
from tests.policy.samples import ADMINISTRATIE, policy, rewriting, submission

RECEIVED = (
    b"Received: from pc ([127.0.0.1])\r\n by relay.example.nl with ESMTP id 7QK3ABCDEFGH\r\n"
    b" for <klant@example.com>; Mon, 23 Nov 2026 21:08:05 +0000\r\n"
)
DATED = b"Date: Mon, 23 Nov 2026 22:08:00 +0100\r\nMessage-ID: <1@x.nl>\r\n"
KEEP = policy(configured.rule("keep", Match(), None))
REPLY_JAN = b"Reply-To: Jan <jan@example.nl>\r\n"


def leave(content: bytes | Submission, rules: Policy, **more: object) -> Rendered:
    """What becomes of `content` by `rules`."""
    asked = content if isinstance(content, Submission) else submission(content, **more)  # type: ignore[arg-type]
    accept = decide(asked, rules)
    assert isinstance(accept, Accept)
    return render(asked, accept, rules)


def values(rendered: Rendered, name: bytes) -> list[bytes]:
    header = Header.parse(rendered.head)
    assert header.rest == b"\r\n"
    return [value(field) for field in header.all(name)]


# Who is the author


@pytest.mark.parametrize(
    ("raw", "after", "reply_to"),
    [
        # As .NET, Outlook and others write it
        (b'"Jan Jansen" <jan@example.nl>', b"Jan Jansen <A>", b"Jan Jansen <jan@example.nl>"),
        (b"jan@example.nl", b"jan <A>", b"jan@example.nl"),
        (b"Jan <jan@example.nl>", b"Jan <A>", b"Jan <jan@example.nl>"),
        (b'"Jansen, Jan" <jan@example.nl>', b'"Jansen, Jan" <A>', b'"Jansen, Jan" <jan@example.nl>'),
        (b"jan@example.nl (Jan Jansen)", b"Jan Jansen <A>", b"Jan Jansen <jan@example.nl>"),
        (b"\r\n Jan\r\n\t<jan@example.nl>", b"Jan <A>", b"Jan <jan@example.nl>"),
        # A name that is not ASCII, in any form, leaves as encoded words
        (
            b"=?utf-8?Q?B=C3=BCro_Van_'t_Hof?= <jan@example.nl>",
            b"=?utf-8?b?QsO8cm8gVmFuICd0IEhvZg==?= <A>",
            b"=?utf-8?b?QsO8cm8gVmFuICd0IEhvZg==?= <jan@example.nl>",
        ),
        (
            b'"B\xfcro Van \'t Hof" <jan@example.nl>',
            b"=?utf-8?b?QsO8cm8gVmFuICd0IEhvZg==?= <A>",
            b"=?utf-8?b?QsO8cm8gVmFuICd0IEhvZg==?= <jan@example.nl>",
        ),
        (
            "Büro Van 't Hof <jan@example.nl>".encode(),
            b"=?utf-8?b?QsO8cm8gVmFuICd0IEhvZg==?= <A>",
            b"=?utf-8?b?QsO8cm8gVmFuICd0IEhvZg==?= <jan@example.nl>",
        ),
        # An @ in a display name makes some upstreams refuse
        (b'"jan@example.nl" <jan@example.nl>', b'"jan at example.nl" <A>',
         b'"jan at example.nl" <jan@example.nl>'),
        (b'"Jan @ Bedrijf" <jan@example.nl>', b"Jan at Bedrijf <A>", b"Jan at Bedrijf <jan@example.nl>"),
        # Local parts
        (b'"jan jansen"@example.nl', b"jan jansen <A>", b'"jan jansen"@example.nl'),
        (b'"jan@thuis"@example.nl', b"jan at thuis <A>", b'"jan@thuis"@example.nl'),
        # Several authors: one From, all of them in Reply-To
        (b"Jan <jan@example.nl>, piet@example.nl", b"Jan <A>", b"Jan <jan@example.nl>, piet@example.nl"),
        (b"Groep: jan@example.nl, Piet <piet@example.nl>;", b"jan <A>", b"jan@example.nl, Piet <piet@example.nl>"),
        (b"jan@example.nl, jan@example.nl", b"jan <A>", b"jan@example.nl"),
        (b"Jan, piet@example.nl", b"piet <A>", b"piet@example.nl"),
        (b"administratie@example.nl, jan@example.nl", b"administratie <A>",
         b"administratie@example.nl, jan@example.nl"),
        # An obsolete route
        (b"<@een.nl,@twee.nl:jan@example.nl>", b"jan <A>", b"jan@example.nl"),
        # Nothing gets out of its line
        (b"=?utf-8?q?Jan=0D=0ABcc:_x@y.nl?= <jan@example.nl>", b'"Jan Bcc: x at y.nl" <A>',
         b'"Jan Bcc: x at y.nl" <jan@example.nl>'),
        (b"=?utf-8?q?Jan_<x=40y.nl>?= <jan@example.nl>", b'"Jan <x at y.nl>" <A>',
         b'"Jan <x at y.nl>" <jan@example.nl>'),
        (b"{address} <jan@example.nl>", b"{address} <A>", b"{address} <jan@example.nl>"),
    ],
)  # fmt: skip
def test_the_rules_address_becomes_the_one_author(raw: bytes, after: bytes, reply_to: bytes | None) -> None:
    rendered = leave(b"To: k@x.nl\r\nFrom: " + raw + b"\r\nSubject: x\r\n" + DATED + b"\r\n", rewriting())
    expected = after.replace(b"<A>", b"<administratie@example.nl>")
    assert values(rendered, b"from") == [b"administratie@example.nl" if after == b"A" else expected]
    assert values(rendered, b"reply-to") == ([] if reply_to is None else [reply_to])
    assert rendered.reply_to == reply_to
    assert rendered.result == "rewritten"
    assert rendered.from_after == values(rendered, b"from")[0]
    assert rendered.from_before == values(rendered, b"x-original-from")[0]
    assert rendered.reverse_path == ADMINISTRATIE
    assert not rendered.smtputf8


@pytest.mark.parametrize(
    ("raw", "after", "person"),
    [
        (b"Jan", b"Jan <A>", b"Jan <P>"),
        (b"Jan <jan>", b"Jan <A>", b"Jan <P>"),
        (b"undisclosed-recipients:;", b"A", b"P"),
        (b"", b"A", b"P"),
        (
            b"b\xfcro@example.nl",
            b"=?utf-8?q?b=C3=BCro_at_example=2Enl?= <A>",
            b"=?utf-8?q?b=C3=BCro_at_example=2Enl?= <P>",
        ),
    ],
)
def test_where_from_has_no_usable_address_sender_says_who_wrote_else_the_reverse_path(
    raw: bytes, after: bytes, person: bytes
) -> None:
    content = b"From: " + raw + b"\r\n" + DATED + b"\r\n"
    nobody = leave(content, rewriting(), reverse_path=None)
    assert values(nobody, b"from") == [
        after.replace(b"<A>", b"<administratie@example.nl>").replace(b"A", b"administratie@example.nl", after == b"A")
    ]
    assert values(nobody, b"reply-to") == []
    for sender, address in ((b"", b"piet@example.nl"), (b"Sender: klaas@example.nl\r\n", b"klaas@example.nl")):
        rendered = leave(sender + content, rewriting(), reverse_path="piet@example.nl")
        (reply_to,) = values(rendered, b"reply-to")
        assert reply_to == person.replace(b"<P>", b"<" + address + b">").replace(b"P", address, person == b"P")
        assert values(rendered, b"sender") == []
        assert values(rendered, b"x-original-from") == [raw]
        (author,) = parse(values(rendered, b"from")[0])
        assert author.address == "administratie@example.nl"
        assert author.name


def test_all_else_is_not_touched_by_a_byte() -> None:
    before = b"mime-version : 1.0\r\nX-Odd:no blank\r\nX-Raw: B\xfcro \x00\r\nX-Fold:\r\n\t  a \r\n b\r\n"
    after = b"Subject: =?utf-8?Q?B=C3=BCro?=\r\n" + DATED + b"X-Empty:\r\nContent-Type: text/plain\r\n"
    rendered = leave(before + b'from: "Jan" <jan@example.nl>\r\n' + after + b"\r\nbody", rewriting())
    assert rendered.head == (
        RECEIVED
        + before
        + b"From: Jan <administratie@example.nl>\r\n"
        + b'X-Original-From: "Jan" <jan@example.nl>\r\n'
        + REPLY_JAN
        + after
        + b"\r\n"
    )


def test_the_original_value_is_kept_raw_and_unfolded() -> None:
    rendered = leave(b'From: "B\xfcro"\r\n\t<jan@example.nl>,\r\n  x@y.nl (x)\r\n\r\n', rewriting())
    assert b'\r\nX-Original-From: "B\xfcro"\t<jan@example.nl>,  x@y.nl (x)\r\n' in rendered.head


def test_an_original_value_too_long_for_a_line_is_folded_and_still_the_same() -> None:
    raw = b", ".join(b"jan%d@example.nl" % number for number in range(100))
    rendered = leave(b"From: " + raw.replace(b", ", b",\r\n ") + b"\r\n\r\n", rewriting())
    assert all(len(line) <= 998 for line in rendered.head.split(b"\r\n"))
    assert values(rendered, b"x-original-from") == [raw]
    assert values(rendered, b"reply-to") == [raw]


@pytest.mark.parametrize(
    ("template", "raw", "expected"),
    [
        ("{name} via Administratie", b"Jan <jan@example.nl>", "Jan via Administratie"),
        ("{name} via Administratie", b"jan@example.nl", "jan via Administratie"),
        ("{name} via Administratie", b"", "via Administratie"),
        ("Administratie", b"Jan <jan@example.nl>", "Administratie"),
        ("{name} ({address})", b"Jan <jan@Example.NL>", "Jan (jan@Example.NL)"),
        ("{local} / {domain}", b"Jan <jan@Example.NL>", "jan / example.nl"),
        ("{local}", b"Jan", ""),
        ("", b"Jan <jan@example.nl>", "Jan"),
        ("{name}", b"<jan>", "jan"),
        ("{naam}", b"Jan <jan@example.nl>", "{naam}"),
        ("Büro {name}", b"=?utf-8?q?J=C3=A4n?= <jan@example.nl>", "Büro Jän"),
    ],
)
def test_the_display_name_follows_the_template(template: str, raw: bytes, expected: str) -> None:
    rendered = leave(b"From: " + raw + b"\r\n\r\n", rewriting(template), reverse_path=None)
    (author,) = parse(values(rendered, b"from")[0])
    assert author == (expected, "administratie@example.nl")
    assert rendered.head.isascii()


@pytest.mark.parametrize(
    ("rules", "content", "author"),
    [
        (policy(), b"From: Jan <jan@example.nl>, els@example.nl\r\n" + DATED + b"\r\n", "jan@example.nl"),
        (policy(), b"Subject: nobody\r\n\r\n", "jan@example.nl"),
        (policy(), b"From: nobody\r\n\r\n", ""),
        (KEEP, b"From: Els <els@example.nl>\r\n\r\n", "els@example.nl"),
        (rewriting(), b"From: Jan <jan@example.nl>\r\n" + DATED + b"\r\n", str(ADMINISTRATIE)),
        (rewriting(), b"\r\n", str(ADMINISTRATIE)),
    ],
)
def test_as_whom_it_leaves_and_its_message_id_are_known(rules: Policy, content: bytes, author: str) -> None:
    rendered = leave(content, rules)
    assert rendered.author == author
    assert author.encode() in b"".join(values(rendered, b"from"))
    assert [rendered.message_id] == [raw for _, raw in Header.parse(rendered.head).all(b"message-id")]


def test_a_message_without_from_gets_one() -> None:
    rendered = leave(b"Subject: x\r\n" + DATED + b"\r\n", rewriting("{name}"), reverse_path=None)
    assert rendered.head == RECEIVED + b"From: administratie@example.nl\r\nSubject: x\r\n" + DATED + b"\r\n"
    assert (rendered.from_before, rendered.from_after) == (b"", b"administratie@example.nl")
    assert rendered.result == "rewritten"


@pytest.mark.parametrize("rules", [KEEP, policy()], ids=["keep", "no rule"])
@pytest.mark.parametrize("written", [b"", b"From:\r\n", b"From: \r\nfrom :\r\n"])
def test_without_a_rule_the_reverse_path_is_the_author_of_a_message_without_from_else_who_writes_our_notifications(
    rules: Policy, written: bytes
) -> None:
    for path, author in (("jan@example.nl", b"jan@example.nl"), (None, str(rules.bounces_from).encode())):
        rendered = leave(written + b"Sender: piet@example.nl\r\n" + DATED + b"\r\n", rules, reverse_path=path)
        kept = b"Sender: piet@example.nl\r\n" + DATED
        assert rendered.head == RECEIVED + b"From: " + author + b"\r\n" + kept + b"\r\n"
        assert rendered.from_after == author


def test_two_from_fields_become_one_and_nobody_is_forgotten() -> None:
    rendered = leave(
        b"From: Jan <jan@example.nl>\r\nTo: k@x.nl\r\nFROM: piet@example.nl\r\n" + DATED + b"\r\n", rewriting()
    )
    assert rendered.head == (
        RECEIVED
        + b"From: Jan <administratie@example.nl>\r\n"
        + b"X-Original-From: Jan <jan@example.nl>\r\n"
        + b"X-Original-From: piet@example.nl\r\n"
        + b"Reply-To: Jan <jan@example.nl>, piet@example.nl\r\n"
        + b"To: k@x.nl\r\n"
        + DATED
        + b"\r\n"
    )


# Where the author already is who the rule wants


@pytest.mark.parametrize(
    ("raw", "template"),
    [
        (b"administratie@example.nl", None),
        (b"<Administratie@EXAMPLE.nl>", "{name}"),
        (b'"Administratie"\r\n <administratie@example.nl>', None),
        (b'"Administratie" <administratie@example.nl>', "Administratie"),
        (b'"B\xfcro" <administratie@example.nl>', None),
        (b"=?utf-8?q?B=C3=BCro?= <administratie@example.nl>", "Büro"),
    ],
)
def test_from_stays_as_it_came_where_the_rule_would_say_the_same(raw: bytes, template: str | None) -> None:
    kept = b"DKIM-Signature: v=1; h=from:sender; b=x\r\nSender: Administratie@example.nl\r\n"
    kept += b"From: " + raw + b"\r\n" + DATED
    rendered = leave(kept + b"\r\n", rewriting(template))
    assert rendered.head == RECEIVED + kept + b"\r\n"
    assert rendered.reverse_path == ADMINISTRATIE
    assert rendered.result == "rewritten"  # the reverse-path
    assert leave(kept + b"\r\n", rewriting(template), reverse_path=str(ADMINISTRATIE)).result == "unchanged"


@pytest.mark.parametrize(
    "raw",
    [
        b"<ceo@victim.nl> <administratie@example.nl>",
        b"[<ceo@victim.nl>] <administratie@example.nl>",
        b"<ceo@victim.nl>( <administratie@example.nl>",
        b"<administratie@example.nl>, <>",
        b"x:<administratie@example.nl>;",
        b'"<ceo@victim.nl>" <administratie@example.nl>',
        b"=?utf-8?q?=3Cceo=40victim=2Enl=3E?= <administratie@example.nl>",
    ],
)
def test_a_from_that_reads_otherwise_elsewhere_is_rewritten_although_it_names_the_address(raw: bytes) -> None:
    rendered = leave(b"From: " + raw + b"\r\n" + DATED + b"\r\n", rewriting(None))
    header = Header.parse(rendered.head)
    assert [unambiguous(value(field)) for field in header.all(b"from")] == [1]
    assert [value(field) for field in header.all(b"x-original-from")] == [raw]


@pytest.mark.parametrize(
    "field",
    [
        b"From : administratie@example.nl",
        b"From\t:<administratie@example.nl>",
        b"From: administratie@example.nl\x0c",
        b"From:\x0b<administratie@example.nl>",
    ],
)
def test_a_field_that_is_no_from_to_some_readers_is_written_anew(field: bytes) -> None:
    rendered = leave(field + b"\r\n" + DATED + b"\r\n", rewriting(None))
    header = Header.parse(rendered.head)
    (author,) = header.all(b"from")
    assert author[1].startswith(b"From: ")
    assert [one.address for one in parse(value(author))] == ["administratie@example.nl"]
    assert len(header.all(b"x-original-from")) == 1


def test_an_author_whose_address_has_a_letter_like_one_of_the_rules_is_another() -> None:
    kantoor = Address.of("kantoor@example.nl")
    raw = "\u212aantoor@example.nl".encode()
    rendered = leave(b"From: " + raw + b"\r\n" + DATED + b"\r\n", rewriting(None, address=kantoor))
    assert [value(field) for field in Header.parse(rendered.head).all(b"x-original-from")] == [raw]


def test_a_from_beyond_its_bound_is_kept_as_it_was_and_names_nobody() -> None:
    raw = b"From: jan@x.nl" + b",\r\n u@x.nl" * 4000 + b"\r\n"
    header = Header.parse(leave(raw + DATED + b"\r\n", rewriting(None), reverse_path=None).head)
    assert value(header.all(b"from")[0]) == b"administratie@example.nl"
    assert header.all(b"reply-to") == []
    assert b"".join(value(header.all(b"x-original-from")[0]).split()) == b"jan@x.nl" + b",u@x.nl" * 4000


def test_a_reply_to_beyond_the_bound_stays_as_it_came() -> None:
    replies = b"Reply-To: a@x.nl" + b",\r\n b@x.nl" * 4000 + b"\r\n"
    assert replies in leave(b"From: jan@x.nl\r\n" + replies + DATED + b"\r\n", rewriting(None)).head


@pytest.mark.parametrize(
    ("raw", "template", "expected"),
    [
        (b"Jan <administratie@example.nl>", "Administratie", b"Administratie <administratie@example.nl>"),
        (b"administratie@example.nl", "Administratie", b"Administratie <administratie@example.nl>"),
        (b'"a@b" <administratie@example.nl>', None, b"a at b <administratie@example.nl>"),
    ],
)
def test_another_name_is_still_given_but_needs_no_reply_to(raw: bytes, template: str | None, expected: bytes) -> None:
    rendered = leave(b"From: " + raw + b"\r\n\r\n", rewriting(template))
    assert values(rendered, b"from") == [expected]
    assert values(rendered, b"x-original-from") == [raw]
    assert values(rendered, b"reply-to") == []


# Replies and receipts


def test_a_reply_to_of_the_message_stays() -> None:
    rendered = leave(b"Reply-To: Piet <piet@x.nl>\r\nFrom: jan@example.nl\r\n\r\n", rewriting())
    assert values(rendered, b"reply-to") == [b"Piet <piet@x.nl>"]
    assert rendered.reply_to == b"Piet <piet@x.nl>"


@pytest.mark.parametrize("empty", [b"Reply-To:\r\n", b"Reply-To: nobody\r\n"])
def test_a_reply_to_that_leads_nowhere_counts_as_none(empty: bytes) -> None:
    rendered = leave(empty + b"From: Jan <jan@example.nl>\r\n\r\n", rewriting())
    assert values(rendered, b"reply-to") == [b"Jan <jan@example.nl>"]


def test_reply_to_keep_adds_none() -> None:
    rendered = leave(b"From: jan@example.nl\r\n\r\n", rewriting(reply_to="keep"))
    assert values(rendered, b"reply-to") == []
    assert rendered.reply_to is None


@pytest.mark.parametrize("there", [b"", b"Reply-To: piet@x.nl\r\n", b"Reply-To: a@x.nl\r\nReply-To: b@x.nl\r\n"])
@pytest.mark.parametrize("author", [b"jan@example.nl", b"administratie@example.nl"])
def test_a_reply_to_of_the_rule_takes_the_place_of_any_other(there: bytes, author: bytes) -> None:
    rendered = leave(there + b"From: " + author + b"\r\n\r\n", rewriting(reply_to=Address.of("info@example.nl")))
    assert values(rendered, b"reply-to") == [b"info@example.nl"]
    assert rendered.result == "rewritten"


@pytest.mark.parametrize(
    ("fields", "rules", "expected"),
    [
        (b"", rewriting(), b"jan@example.nl"),
        (b"Reply-To: Piet <piet@x.nl>\r\n", rewriting(), b"piet@x.nl"),
        (b"", rewriting(reply_to=Address.of("info@example.nl")), b"info@example.nl"),
        (b"", rewriting(reply_to="keep"), b"other@example.nl"),
    ],
)
@pytest.mark.parametrize("name", [b"Disposition-Notification-To", b"Return-Receipt-To"])
def test_receipts_reach_the_person_who_reads_replies(
    name: bytes, fields: bytes, rules: Policy, expected: bytes
) -> None:
    rendered = leave(fields + b"From: Jan <jan@example.nl>\r\n" + name + b": other@example.nl\r\n\r\n", rules)
    assert values(rendered, name.lower()) == [expected]


def test_a_receipt_that_already_goes_to_that_person_is_left_as_it_came() -> None:
    field = b'disposition-notification-to:  "Jan"  <jan@example.nl>\r\n'
    assert field in leave(field + b"From: Jan <jan@example.nl>\r\n\r\n", rewriting()).head


def test_the_sender_field_goes_only_when_from_is_rewritten() -> None:
    content = b"Sender: secretaris@example.nl\r\nFrom: jan@example.nl\r\n\r\n"
    assert values(leave(content, rewriting()), b"sender") == []
    assert values(leave(content, KEEP), b"sender") == [b"secretaris@example.nl"]


@pytest.mark.parametrize(
    "sender",
    [b"root@e379890e3f75", b"Root <root@example.nl>", b"", b"administratie@example.nl, root@x.nl",
     b"<root@x.nl> <administratie@example.nl>"],
)  # fmt: skip
def test_a_sender_with_another_address_goes_although_from_is_right_already(sender: bytes) -> None:
    broken = b"DKIM-Signature: v=1; h=from:sender; b=1\r\n"
    kept = b"DKIM-Signature: v=1; h=from:to; b=2\r\nFrom: Beheer <administratie@example.nl>\r\n" + DATED
    content = broken + b"Sender: " + sender + b"\r\n" + kept + b"\r\n"
    rendered = leave(content, rewriting(None), reverse_path=str(ADMINISTRATIE))
    assert rendered.head == RECEIVED + kept + b"\r\n"
    assert (rendered.result, rendered.signatures_removed) == ("rewritten", 1)


# Signatures


def test_signatures_that_the_rewriting_breaks_are_removed_and_counted() -> None:
    signed = b"DKIM-Signature: v=1; h=From : To\r\n :Subject; b=abc\r\nDKIM-Signature: v=1; b=x\r\n"
    rendered = leave(signed + b"From: jan@example.nl\r\n\r\n", rewriting())
    assert values(rendered, b"dkim-signature") == []
    assert rendered.signatures_removed == 2
    assert leave(signed + b"From: jan@example.nl\r\n\r\n", KEEP).signatures_removed == 0


def test_a_new_reply_to_breaks_only_a_signature_that_covers_it() -> None:
    signed = b"DKIM-Signature: v=1; h=from:\r\n\tReply-To; b=1\r\nDKIM-Signature: v=1; h=from:to; b=2\r\n"
    content = signed + b"From: administratie@example.nl\r\n\r\n"
    rendered = leave(content, rewriting(reply_to=Address.of("info@example.nl")))
    assert values(rendered, b"dkim-signature") == [b"v=1; h=from:to; b=2"]
    assert rendered.signatures_removed == 1


# The envelope


@pytest.mark.parametrize(
    ("envelope", "before", "after"),
    [
        ("address", "jan@example.nl", "administratie@example.nl"),
        ("keep", "jan@example.nl", "jan@example.nl"),
        (Address.of("bounces@example.nl"), "jan@example.nl", "bounces@example.nl"),
        ("address", None, None),
        (Address.of("bounces@example.nl"), None, None),
    ],
)
def test_the_reverse_path_follows_the_rule_and_a_null_one_stays_null(
    envelope: str | Address, before: str | None, after: str | None
) -> None:
    rendered = leave(b"From: jan@example.nl\r\n\r\n", rewriting(envelope=envelope), reverse_path=before)
    assert (None if rendered.reverse_path is None else str(rendered.reverse_path)) == after
    assert values(rendered, b"from") == [b"jan <administratie@example.nl>"]


@pytest.mark.parametrize(
    ("content", "rules", "needed"),
    [
        (b"From: B\xfcro <jan@example.nl>\r\n\r\n", rewriting(), False),
        ("From: büro@example.nl\r\n\r\n".encode(), rewriting(), True),  # in Reply-To
        ("From: büro@example.nl\r\n\r\n".encode(), rewriting(reply_to="keep"), False),
        (b"From: jan@example.nl\r\n\r\n", rewriting(address=Address.of("büro@example.nl")), True),
        (b"From: jan@example.nl\r\n\r\n", rewriting(envelope=Address.of("büro@example.nl")), True),
        (b"From: B\xfcro <jan@example.nl>\r\n\r\n", KEEP, False),
    ],
)
def test_only_an_address_needs_smtputf8(content: bytes, rules: Policy, needed: bool) -> None:
    assert leave(content, rules).smtputf8 is needed
    assert leave(content, rules, smtputf8=True).smtputf8


@pytest.mark.parametrize("domain", ["münchen.example", "xn--mnchen-3ya.example", "MÜNCHEN.example"])
def test_what_a_rule_writes_of_a_domain_beyond_ascii_are_its_a_labels(domain: str) -> None:
    rendered = leave(f"From: Jan <jan@{domain}>\r\n{DATED.decode()}\r\n".encode(), rewriting())
    assert values(rendered, b"reply-to") == [b"Jan <jan@xn--mnchen-3ya.example>"]
    assert values(rendered, b"x-original-from") == [f"Jan <jan@{domain}>".encode()]
    assert not rendered.smtputf8


@pytest.mark.parametrize("author", ["Administratie <administratie@büro.example>", "administratie@XN--BRO-HOA.example"])
def test_an_author_who_is_the_rules_address_in_other_letters_stays(author: str) -> None:
    rules = rewriting(address=Address.of("administratie@xn--bro-hoa.example"))
    rendered = leave(f"From: {author}\r\n{DATED.decode()}\r\n".encode(), rules)
    assert values(rendered, b"from") == [author.encode()]
    assert (rendered.reply_to, values(rendered, b"x-original-from")) == (None, [])


def test_a_long_original_value_without_blanks_is_folded_behind_its_commas() -> None:
    raw = b",".join(b"jan%d@example.nl" % number for number in range(100))
    rendered = leave(b"From: " + raw + b"\r\n\r\n", rewriting())
    assert all(len(line) <= 998 for line in rendered.head.split(b"\r\n"))
    assert parse(values(rendered, b"x-original-from")[0]) == parse(raw)


# With or without a rule


TWICE = (
    b"From: jan@example.nl\r\nFrom: piet@example.nl\r\nTo: a@b.nl\r\nSubject: 1\r\nTo: c@d.nl\r\nSubject: 2\r\n" + DATED
)


def test_fields_that_stand_twice_leave_once_where_the_listener_says_so_and_no_author_is_forgotten() -> None:
    rules = replace(rewriting(), repair_duplicates=frozenset({"legacy"}))
    rendered = leave(TWICE + b"\r\n", rules)
    assert rendered.repeated == ("to", "subject")
    assert values(rendered, b"to") == [b"a@b.nl, c@d.nl"]
    assert values(rendered, b"subject") == [b"1"]
    assert values(rendered, b"reply-to") == [b"jan@example.nl, piet@example.nl"]
    unruled = leave(TWICE + b"\r\n", replace(policy(), repair_duplicates=frozenset({"legacy"})))
    assert unruled.repeated == ("from", "to", "subject")
    assert values(unruled, b"from") == [b"jan@example.nl"]
    for others in (frozenset[str](), frozenset({"office"})):
        assert leave(TWICE + b"\r\n", replace(policy(), repair_duplicates=others)).head == RECEIVED + TWICE + b"\r\n"


def test_received_is_short_where_the_listener_says_so() -> None:
    for short in (frozenset({"legacy"}), frozenset({"office"})):
        (received,) = values(
            leave(b"From: jan@example.nl\r\n\r\n", replace(policy(), short_received=short)), b"received"
        )
        assert received.startswith(b"by relay" if "legacy" in short else b"from pc")


@pytest.mark.parametrize("rules", [KEEP, policy()], ids=["keep", "no rule"])
def test_without_rewriting_only_the_trace_is_new(rules: Policy) -> None:
    content = b"From: a@x.nl\r\nFrom: b@x.nl\r\nSender : c@x.nl\r\n" + DATED + b"\r\nbody"
    rendered = leave(content, rules)
    assert rendered.head == RECEIVED + content[: split(content)]
    assert rendered.reverse_path == Address.of("jan@example.nl")
    assert rendered.result == ("unchanged" if rules is KEEP else None)
    assert rendered.from_before == rendered.from_after == b"a@x.nl, b@x.nl"


@pytest.mark.parametrize("rules", [KEEP, policy(), rewriting()], ids=["keep", "no rule", "rewriting"])
def test_what_must_not_leave_does_not_leave(rules: Policy) -> None:
    secret = (
        b"Bcc: geheim@x.nl\r\nRESENT-BCC: ook@x.nl\r\n geheim@y.nl\r\nReturn-Path: <pad@x.nl>\r\nBcc : nog@x.nl\r\n"
    )
    rendered = leave(secret + b"From: jan@example.nl\r\n\r\n", rules)
    for word in (b"geheim", b"ook@", b"pad@", b"nog@"):
        assert word not in rendered.head


@pytest.mark.parametrize(
    ("fields", "new"),
    [
        (DATED, b""),
        (b"Date: x\r\n", b"Message-ID: <7QK3ABCDEFGH@relay.example.nl>\r\n"),
        (b"MESSAGE-ID: <1@x.nl>\r\n", b"Date: Mon, 23 Nov 2026 21:08:05 +0000\r\n"),
    ],
)
def test_date_and_message_id_are_added_only_where_they_are_missing(fields: bytes, new: bytes) -> None:
    fields += b"From: jan@example.nl\r\n"
    assert leave(fields + b"\r\n", policy()).head == RECEIVED + new + fields + b"\r\n"


@pytest.mark.parametrize(
    "body", [b"From jan@x.nl Mon Nov 23\r\nSubject: x\r\n\r\n", b" a fold\r\n", b"plain text\r\n", b""]
)
def test_a_message_whose_first_line_is_no_field_gets_ours_and_an_empty_line(body: bytes) -> None:
    rendered = leave(body, rewriting(), reverse_path=None)
    assert rendered.body_offset == 0
    header = Header.parse(rendered.head)
    assert [name for name, _ in header.fields] == [b"received", b"date", b"message-id", b"from"]
    assert header.rest == b"\r\n"
    assert split(rendered.head + body) == len(rendered.head)


@pytest.mark.parametrize("end", [b"", b"no field\r\n", b"."])
def test_a_header_that_nothing_ends_gets_its_empty_line(end: bytes) -> None:
    content = b"From: jan@example.nl\r\n" + DATED + end
    rendered = leave(content, policy())
    assert rendered.head + content[rendered.body_offset :] == RECEIVED + content[: rendered.body_offset] + b"\r\n" + end


def test_a_last_field_without_a_line_end_gets_one() -> None:
    assert leave(DATED + b"From: jan@example.nl", policy()).head == RECEIVED + DATED + b"From: jan@example.nl\r\n\r\n"
    rendered = leave(DATED + b"From: Jan <jan@example.nl>", rewriting())
    assert rendered.head.endswith(REPLY_JAN + b"\r\n")


# Laws

NASTY = st.lists(
    st.sampled_from(
        [b'"', b"<", b">", b"(", b")", b",", b";", b":", b"a@b.nl", b"\\", b" ", b"\r\n ", b"\r", b"\n", b"\x00",
         b"\xfc", b"=?utf-8?q?=0D=0ABcc:_x?=", b"=?utf-8?b?DQpCY2M6IHg=?=", b"Jan",
         "é".encode(), b"{name}", b"[", b"]", b"@"]
    ),
    max_size=25,
).map(b"".join)  # fmt: skip


@given(NASTY, NASTY, st.sampled_from([None, "", "{name} via X", "{address} {local} {domain}", "Büro"]))
def test_no_value_of_a_message_can_write_a_field(author: bytes, reply: bytes, template: str | None) -> None:
    content = b"Subject: x\r\nFrom: " + author + b"\r\nReply-To: " + reply + b"\r\n" + DATED + b"\r\n"
    content = content.replace(b"\r\n\r\n", b"\r\n", content.count(b"\r\n\r\n") - 1)
    asked = submission(content)
    before = Header.parse(asked.head)
    header = Header.parse(leave(asked, rewriting(template)).head)
    assert header.rest == b"\r\n"
    assert header.count(b"from") == 1
    ours = {b"received", b"from", b"x-original-from", b"reply-to", b"date", b"message-id"}
    untouched = [field for field in header.fields if field[0] not in ours]
    assert untouched == [field for field in before.fields if field[0] not in ours | {b"bcc", b"sender"}]
    (written,) = parse(value(header.all(b"from")[0]))
    assert written.address == "administratie@example.nl"
    parsed = email.message_from_bytes(header.to_bytes(), policy=email.policy.compat32)
    assert [address for _, address in getaddresses([str(parsed["From"])])] == ["administratie@example.nl"]


@given(NASTY)
def test_new_fields_are_ascii_unless_an_address_is_not(author: bytes) -> None:
    rendered = leave(b"From: " + author + b"\r\n" + DATED + b"\r\n", rewriting())
    header = Header.parse(rendered.head)
    for name, raw in header.fields:
        if name in (b"from", b"reply-to", b"received") and raw not in author + b"\r\n":
            assert raw.isascii() or rendered.smtputf8


@pytest.mark.parametrize(
    "author",
    [
        b"a@b.nl, " * 8_000,
        b"(" * 2_000,
        b"=?utf-8?q?=C3=BC?= " * 8_000 + b"<a@b.nl>",
        b"Jan " * 30_000 + b"<a@b.nl>",
        b"x" * 100_000,
    ],
    ids=["addresses", "parentheses", "words", "name", "one word"],
)
def test_a_hostile_author_is_rewritten_like_any_other(author: bytes) -> None:
    rendered = leave(b"From: " + author + b"\r\n\r\n", rewriting("{name} via X"))
    assert len(values(rendered, b"from")) == 1


@pytest.mark.parametrize("blanks", [" " * 2_000_000, "\t \u3000" * 700_000])
def test_blanks_in_a_name_are_looked_at_once(blanks: str) -> None:
    assert _without_at(f"x{blanks}y") == f"x{blanks}y"
    assert _without_at(f"x{blanks}@{blanks}y") == "x at y"


def test_a_hostile_number_of_fields_is_rewritten_like_any_other() -> None:
    rendered = leave(b"X: y\r\n" * 100_000 + b"From: jan@example.nl\r\n\r\n", rewriting())
    assert values(rendered, b"from") == [b"jan <administratie@example.nl>"]
