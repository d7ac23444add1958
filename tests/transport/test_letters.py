"""What an upstream without SMTPUTF8 gets of addresses and headers beyond ASCII; and one that has it, where nothing
needs it. The first tests are a table: what is to leave, as what it leaves, and what stays as it came."""

from __future__ import annotations

from email.utils import getaddresses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.address import Address
from relay.mail.author import parse
from relay.mail.domain import a_labels
from relay.mail.envelope import Recipient
from relay.mail.header import Header, value
from relay.mail.narrow import header_in_ascii, in_ascii, in_short_lines
from relay.mail.outcome import Delivered, Failed
from relay.mail.reply import Reply
from relay.transport.letters import NEEDS_SMTPUTF8, Fitting, fit_envelope
from relay.transport.offers import Offers
from relay.transport.port import Delivery, DeliveryRequest
from tests.kit.extent import examples
from tests.transport.parts import request

PLAIN, UTF8, OLD = Offers(eightbit=True), Offers(eightbit=True, smtputf8=True), Offers()
TAKEN = Delivered(Reply(250, "2.0.0", "ok"))


def asked(
    *recipients: str, reverse_path: str | None = "jan@example.nl", head: str = "From: j@x.nl\r\n\r\n"
) -> DeliveryRequest:
    path = None if reverse_path is None else Address.of(reverse_path)
    return request(*recipients, message=head.encode(), reverse_path=path, smtputf8=True)


# The envelope


@pytest.mark.parametrize(
    ("domain", "written"),
    [
        # As the registries have them (RFC 5891); the last but two letters are of the deviation table of UTS 46
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("www.bücher.example", "www.xn--bcher-kva.example"),
        ("MÜNCHEN.EXAMPLE", "xn--mnchen-3ya.example"),
        ("mu\u0308nchen.example", "xn--mnchen-3ya.example"),  # composed by two, as macOS writes it
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),  # the full stop of Japanese keyboards
        ("हिन्दी.example", "xn--j2bd4cyah0f.example"),
        ("_dmarc.münchen.example", "_dmarc.xn--mnchen-3ya.example"),  # no host, and seen
        ("straße.example", "xn--strae-oqa.example"),
        ("βόλος.example", "xn--nxasmm1c.example"),
        # Counter-examples: no domain, or another one
        ("☃.example", None),
        ("i❤.example", None),
        ("ｇmail.example", None),
        ("example。com", None),
        ("\u212aelvin.example", None),
        ("-ä.example", None),
        ("ü" * 60 + ".example", None),
        ("ä..example", None),
        ("ä.", None),
        ("example.nl", None),
    ],
)
def test_a_domain_beyond_ascii_has_one_form_in_ascii_or_none(domain: str, written: str | None) -> None:
    assert a_labels(domain) == written


@pytest.mark.parametrize(
    ("offers", "envelope", "left"),
    [
        (PLAIN, asked("jan@münchen.example"), ["jan@xn--mnchen-3ya.example"]),
        (OLD, asked("jan@münchen.example"), ["jan@xn--mnchen-3ya.example"]),
        (PLAIN, asked('"jan de vries"@münchen.example'), ['"jan de vries"@xn--mnchen-3ya.example']),
        (PLAIN, asked("a@b.nl", "jörg@b.nl", "c@ü.nl", "d@☃.nl"), ["a@b.nl", None, "c@xn--tda.nl", None]),
        (PLAIN, asked("a@b.nl", reverse_path="jan@ü.nl"), ["a@b.nl"]),
        (PLAIN, asked("a@b.nl", reverse_path=None), ["a@b.nl"]),
        (PLAIN, asked("a@b.nl", head="Subject: é\r\n\r\n"), ["a@b.nl"]),
        # Nothing needs SMTPUTF8
        (UTF8, asked("a@b.nl", "c@ü.nl"), ["a@b.nl", "c@xn--tda.nl"]),
    ],
)
def test_without_smtputf8_domains_go_as_a_labels_and_whom_that_does_not_reach_fails_alone(
    offers: Offers, envelope: DeliveryRequest, left: list[str | None]
) -> None:
    fitting = fit_envelope(envelope, offers)
    assert isinstance(fitting, Fitting)
    sent = fitting.request
    assert [str(recipient.address) for recipient in sent.recipients] == [one for one in left if one is not None]
    assert sent.reverse_path is None or sent.reverse_path.is_ascii
    assert not sent.smtputf8
    told = fitting.whole(Delivery((TAKEN,) * len(sent.recipients))).outcomes
    assert [outcome == TAKEN for outcome in told] == [one is not None for one in left]
    assert all(outcome.reply == NEEDS_SMTPUTF8 and outcome.unasked for outcome in told if isinstance(outcome, Failed))


@pytest.mark.parametrize(
    "envelope",
    [
        asked("jörg@b.nl", "c@ü.nl"),
        asked("c@ü.nl", reverse_path="jörg@b.nl"),
        asked("c@☃.nl"),
        asked("a@b.nl", head="Subject: é\r\n\r\n"),
    ],
)
def test_where_something_needs_smtputf8_and_it_is_offered_all_goes_as_it_came(envelope: DeliveryRequest) -> None:
    fitting = fit_envelope(envelope, UTF8)
    assert isinstance(fitting, Fitting)
    assert fitting.request is envelope


@pytest.mark.parametrize("envelope", [asked("jörg@b.nl"), asked("a@b.nl", "c@ü.nl", reverse_path="jörg@b.nl")])
def test_where_nobody_can_be_asked_for_nothing_is_sent(envelope: DeliveryRequest) -> None:
    assert fit_envelope(envelope, PLAIN) == NEEDS_SMTPUTF8


LETTERS = st.sampled_from("abz019-_.+üßéж例ﬁ☃\u0308\u200d。\u212a")
PARTS = st.text(LETTERS, min_size=1, max_size=12)
ADDRESSES = st.builds(Address, PARTS, PARTS)


@given(st.lists(ADDRESSES, min_size=1, max_size=6), ADDRESSES | st.none(), st.sampled_from([PLAIN, UTF8, OLD]))
def test_what_is_not_asked_for_with_smtputf8_is_in_ascii_and_means_the_same(
    to: list[Address], reverse_path: Address | None, offers: Offers
) -> None:
    envelope = request(
        *[Recipient(one) for one in to], reverse_path=reverse_path, smtputf8=True, places=tuple(range(len(to)))
    )
    fitting = fit_envelope(envelope, offers)
    if isinstance(fitting, Reply):
        assert not offers.smtputf8
        return
    sent = fitting.request
    if sent.smtputf8:
        assert offers.smtputf8
        assert sent == envelope
        return
    assert sent.places == fitting.places
    assert (sent.reverse_path is None) is (reverse_path is None)
    for place, recipient in zip(fitting.places, sent.recipients, strict=True):
        assert recipient.address.is_ascii
        assert (recipient.address.local, recipient.address.domain) == (
            to[place].local,
            a_labels(to[place].domain) or to[place].domain,
        )
    assert all(one.in_ascii is None for place, one in enumerate(to) if place not in fitting.places)


@given(st.text(max_size=300))
def test_any_text_at_all_has_a_form_in_ascii_or_none(text: str) -> None:
    written = a_labels(text)
    assert written is None or (written.isascii() and "xn--" in written and len(written) <= 253)


# The header


@pytest.mark.parametrize(
    ("before", "domains", "all_of_it"),
    [
        ("To: jan@münchen.example", "To: jan@xn--mnchen-3ya.example", None),
        ("to :\r\n <jan@münchen.example>,\r\n\tx@y.nl", "to :\r\n <jan@xn--mnchen-3ya.example>,\r\n\tx@y.nl", None),
        (
            "From: Jörg <jan@münchen.example>",
            "From: Jörg <jan@xn--mnchen-3ya.example>",
            "From: =?utf-8?b?SsO2cmc=?= <jan@xn--mnchen-3ya.example>",
        ),
        ("Cc: vrienden: jan@ü.nl, piet@ü.nl;", "Cc: vrienden: jan@xn--tda.nl, piet@xn--tda.nl;", None),
        ("Cc: jan@ü.nl (thuis)", "Cc: jan@xn--tda.nl (thuis)", None),
        ('To: "jan de vries"@ü.nl', 'To: "jan de vries"@xn--tda.nl', None),
        ("Reply-To: <jan@ü.nl>", "Reply-To: <jan@xn--tda.nl>", None),
        ("Sender: jan@ü.nl", "Sender: jan@xn--tda.nl", None),
        ("Resent-From: jan@ü.nl", "Resent-From: jan@xn--tda.nl", None),
        ("Disposition-Notification-To: jan@ü.nl", "Disposition-Notification-To: jan@xn--tda.nl", None),
        ("Return-Receipt-To: jan@ü.nl", "Return-Receipt-To: jan@xn--tda.nl", None),
        ("Errors-To: jan@ü.nl", "Errors-To: jan@xn--tda.nl", None),
        (
            "X-Original-From: Jörg <jan@ü.nl>",
            "X-Original-From: Jörg <jan@xn--tda.nl>",
            "X-Original-From: =?utf-8?b?SsO2cmc=?= <jan@xn--tda.nl>",
        ),
        ("Subject: één", "Subject: één", "Subject: =?utf-8?b?w6nDqW4=?="),
        # Counter-examples: names, comments, text, other fields, and what has no form in ASCII
        ('To: "jan@ü.nl" <jan@x.nl>', 'To: "jan@ü.nl" <jan@x.nl>', "To: =?utf-8?b?amFuQMO8Lm5s?= <jan@x.nl>"),
        ("To: jan@x.nl (was jan@ü.nl)", "To: jan@x.nl (was jan@ü.nl)", None),
        ("To: jörg@x.nl", "To: jörg@x.nl", None),
        ("To: jörg@ü.nl", "To: jörg@xn--tda.nl", None),
        (
            'To: jörg@x.nl, "Zoë" <z@x.nl>',
            'To: jörg@x.nl, "Zoë" <z@x.nl>',
            "To: jörg@x.nl, =?utf-8?b?Wm/Dqw==?= <z@x.nl>",
        ),
        ("To: jan@☃.nl", "To: jan@☃.nl", None),
        ("To: Groep é: jan@x.nl;", "To: Groep é: jan@x.nl;", None),
        ("Subject: mail jan@ü.nl", "Subject: mail jan@ü.nl", "Subject: =?utf-8?b?bWFpbCBqYW5Aw7wubmw=?="),
        ("X-Klant: jan@ü.nl", "X-Klant: jan@ü.nl", None),
        ("Message-ID: <1@ü.nl>", "Message-ID: <1@ü.nl>", None),
        ("To: jan@xn--tda.nl", "To: jan@xn--tda.nl", None),
    ],
)  # fmt: skip
def test_domains_in_a_header_become_a_labels_and_text_only_where_that_is_wanted(
    before: str, domains: str, all_of_it: str | None
) -> None:
    head = f"Received: x\r\n{before}\r\n\r\n".encode()
    for texts, after in ((False, domains), (True, all_of_it or domains)):
        assert header_in_ascii(head, texts=texts) == (f"Received: x\r\n{after}\r\n\r\n".encode(), 0)


def test_octets_that_are_no_utf_8_stay_where_only_domains_are_looked_at() -> None:
    head = b"From: J\xf6rg <jan@m\xfcnchen.example>\r\nSubject: \xe9\r\n\r\n"
    assert header_in_ascii(head, texts=False) == (head, 0)


def test_a_signature_over_what_changed_is_removed_and_another_stays() -> None:
    signature = b"DKIM-Signature: v=1; d=example.nl; h=%b; bh=x; b=y\r\n"
    head = signature % b"from:to" + signature % b"subject" + "To: jan@ü.nl\r\n\r\n".encode()
    assert header_in_ascii(head, texts=False) == (signature % b"subject" + b"To: jan@xn--tda.nl\r\n\r\n", 1)


NAMES = st.text(st.sampled_from("Jan dVörié,;:@\"\\()'.<>"), max_size=14)
MAILBOXES = st.tuples(
    NAMES,
    st.sampled_from(["jan", "o'neil+x", '"a b"', "x.y"]),
    st.sampled_from(["x.nl", "ü.nl", "MÜNCHEN.example", "例え.テスト"]),
)


def mailbox(name: str, local: str, domain: str) -> str:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}" <{local}@{domain}>' if name else f"{local}@{domain}"


@examples(300)
@given(st.lists(MAILBOXES, min_size=1, max_size=40), st.sampled_from([",", ", ", ",\r\n\t"]), st.booleans())
def test_a_list_of_addresses_in_ascii_names_the_same_mailboxes(
    mailboxes: list[tuple[str, str, str]], between: str, texts: bool
) -> None:
    field = ("To: " + between.join(mailbox(*one) for one in mailboxes) + "\r\n").encode()
    narrow, _ = header_in_ascii(field + b"\r\n", texts=texts)
    (after,) = Header.parse(in_short_lines(narrow[:-2])).fields
    assert all(len(line) <= 998 for line in after[1].split(b"\r\n"))
    read = parse(value(after))
    assert [one.address for one in read] == [f"{local}@{a_labels(domain) or domain}" for _, local, domain in mailboxes]
    assert [one.name for one in read] == [name.strip() for name, *_ in mailboxes]
    assert after[1].isascii() or not texts


# Long lines


def folded(field: str) -> list[str]:
    return in_short_lines(field.encode() + b"\r\n").decode().split("\r\n")[:-1]


WIDE = "x" * 600


@pytest.mark.parametrize(
    ("field", "lines"),
    [
        # Behind commas, and nowhere else
        (f"To: {WIDE}@a.nl,{WIDE}@b.nl", [f"To: {WIDE}@a.nl,", f" {WIDE}@b.nl"]),
        (f"Cc: Groep:{WIDE}@a.nl,{WIDE}@b.nl;", [f"Cc: Groep:{WIDE}@a.nl,", f" {WIDE}@b.nl;"]),
        (f"reply-to:{WIDE}@a.nl,{WIDE}@b.nl", [f"reply-to:{WIDE}@a.nl,", f" {WIDE}@b.nl"]),
        (f"To: a@b.nl,\r\n {WIDE}@a.nl,{WIDE}@b.nl", ["To: a@b.nl,", f" {WIDE}@a.nl,", f" {WIDE}@b.nl"]),
        (f"To: {WIDE}@a.nl, {WIDE}@b.nl", [f"To: {WIDE}@a.nl,", f" {WIDE}@b.nl"]),
        (f'To: "a,b"<{WIDE}@a.nl>,"c,d"<{WIDE}@b.nl>', [f'To: "a,b"<{WIDE}@a.nl>,', f' "c,d"<{WIDE}@b.nl>']),
        # Between identifiers
        (f"References: <{WIDE}@a><{WIDE}@b>", [f"References: <{WIDE}@a>", f" <{WIDE}@b>"]),
        (f"In-Reply-To: <{WIDE}@a>,<{WIDE}@b>", [f"In-Reply-To: <{WIDE}@a>,", f" <{WIDE}@b>"]),
        # Before blanks, as ever
        (f"X-Any: {WIDE} {WIDE}", [f"X-Any: {WIDE}", f" {WIDE}"]),
        # Counter-examples: nothing else ends a line
        (f'To: "{WIDE},{WIDE}" <a@b.nl>', [f'To: "{WIDE},{WIDE}"', " <a@b.nl>"]),
        (f"To: ({WIDE},{WIDE}) a@b.nl", [f"To: ({WIDE},{WIDE})", " a@b.nl"]),
        (f"To: =?utf-8?q?{WIDE},{WIDE}?= <a@b.nl>", [f"To: =?utf-8?q?{WIDE},{WIDE}?=", " <a@b.nl>"]),
        (f"To: <@{WIDE},@{WIDE}:a@b.nl>", [f"To: <@{WIDE},@{WIDE}:a@b.nl>"]),
        (f'To: "{WIDE}@a.nl,{WIDE}@b.nl', [f'To: "{WIDE}@a.nl,{WIDE}@b.nl']),
        (f"To: (((a)b)c) {WIDE}@a.nl,{WIDE}@b.nl", ["To: (((a)b)c)", f" {WIDE}@a.nl,{WIDE}@b.nl"]),
        (f"Subject: {WIDE},{WIDE}", [f"Subject: {WIDE},{WIDE}"]),
        (f'References: <"{WIDE}><{WIDE}"@a>', [f'References: <"{WIDE}><{WIDE}"@a>']),
        (f"To: {WIDE * 2}@a.nl,b@c.nl", [f"To: {WIDE * 2}@a.nl,", " b@c.nl"]),
        (f"To: {WIDE}@a.nl,b@c.nl", [f"To: {WIDE}@a.nl,b@c.nl"]),
        (f"To:{' ' * 1200}a@b.nl", [f"To:{' ' * 1200}a@b.nl"]),
        (f"X: a{' ' * 1200}b{' ' * 1200}", ["X: a", f"{' ' * 1200}b{' ' * 1200}"]),
    ],
)  # fmt: skip
def test_a_long_field_is_folded_where_a_reader_finds_the_same(field: str, lines: list[str]) -> None:
    assert folded(field) == lines


LISTS = st.lists(
    st.sampled_from(
        ["a@b.nl", "x" * 90 + "@example.nl", '"Jansen, Jan" <jan@x.nl>', "Jan <jan@x.nl>", "=?utf-8?q?a,b?= <c@d.nl>",
         "(a, b) c@d.nl", "e@f.nl (g, (h, i))", "<@a.nl,@b.nl:c@d.nl>", "Groep: a@b.nl,c@d.nl;", '"a\\",b"@c.nl',
         "jan@[192.0.2.1]", "y" * 400 + "@example.nl"]
    ),
    max_size=120,
)  # fmt: skip


@examples(300)
@given(LISTS, st.sampled_from([",", ", ", ",  ", ",\r\n ", ",\t"]), st.sampled_from(["To: ", "cc:", "Reply-To:   "]))
def test_folding_changes_no_list_of_addresses(words: list[str], between: str, name: str) -> None:
    field = (name + between.join(words) + "\r\n").encode()
    done = in_short_lines(field)
    lines = done.split(b"\r\n")[:-1]
    assert all(len(line) <= 998 for line in lines)
    assert all(line.strip() for line in lines)
    (before,), (after,) = Header.parse(field).fields, Header.parse(done).fields
    assert parse(value(after)) == parse(value(before))
    assert getaddresses([value(after).decode()]) == getaddresses([value(before).decode()])
    assert in_short_lines(done) == done


NASTY = st.lists(
    st.sampled_from(
        ['"', "<", ">", "(", ")", ",", ";", ":", "\\", " ", "\r\n ", "[", "]", "=?q?q?", "?=", "a@b.nl", "é", "@ü.nl",
         "x" * 300]
    ),
    max_size=30,
).map("".join)  # fmt: skip


@given(st.sampled_from(["To", "References", "Subject", "X"]), NASTY)
def test_no_value_makes_another_field_or_a_line_of_blanks(name: str, text: str) -> None:
    field = f"{name}:{text}\r\n".encode()
    if not all(line.strip() for line in field.split(b"\r\n")[:-1]):
        return
    for done in (in_short_lines(field), in_ascii(field), in_short_lines(in_ascii(field))):
        assert len(Header.parse(done).fields) == 1
        assert not Header.parse(done).rest
        assert all(line.strip() for line in done.split(b"\r\n")[:-1])
    bare = in_short_lines(field).replace(b"\r\n ", b"").replace(b" ", b"")
    assert bare == field.replace(b"\r\n ", b"").replace(b" ", b"")
