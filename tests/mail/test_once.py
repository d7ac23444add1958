"""Fields that may stand only once, where they stand more often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.author import parse
from relay.mail.header import Header, value
from relay.mail.once import ONCE, each_once


def once(text: str) -> tuple[str, tuple[str, ...], int]:
    fields, names, broken = each_once(Header.parse(text.encode()).fields)
    return b"".join([raw for _, raw in fields]).decode(), names, broken


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ("Subject: a\r\nTo: b@c.nl\r\nSUBJECT : d\r\n", "Subject: a\r\nTo: b@c.nl\r\n", ("subject",)),
        ("Date: 1\r\nX: y\r\ndate: 2\r\nDate: 3\r\n", "Date: 1\r\nX: y\r\n", ("date",)),
        ("From: a@b.nl\r\nFrom: c@d.nl\r\n", "From: a@b.nl\r\n", ("from",)),
        ("To: a@b.nl\r\nTo: c@d.nl\r\n", "To: a@b.nl,\r\n c@d.nl\r\n", ("to",)),
        ("cc: a@b.nl,\r\n e@f.nl,\r\nCc:\r\n c@d.nl\r\n", "cc: a@b.nl,\r\n e@f.nl,\r\n c@d.nl\r\n", ("cc",)),
        ("To:\r\nTo: c@d.nl\r\nTo: ,\r\n", "To: c@d.nl\r\n", ("to",)),
        ("To: \r\nTo:\r\n", "To:\r\n", ("to",)),
        ("To: Groep: a@b.nl;\r\nTo: c@d.nl\r\n", "To: Groep: a@b.nl;,\r\n c@d.nl\r\n", ("to",)),
        # Counter-examples: what may stand more often, and what stands once
        ("Received: a\r\nReceived: b\r\nX: y\r\nX: z\r\n", "Received: a\r\nReceived: b\r\nX: y\r\nX: z\r\n", ()),
        ("Resent-To: a@b.nl\r\nTo: c@d.nl\r\nResent-To: e@f.nl\r\n", None, ()),
        ("Comments: a\r\nComments: b\r\nKeywords: c\r\nKeywords: d\r\n", None, ()),
        ("To: a@b.nl\r\n To: c@d.nl\r\n", None, ()),
    ],
)  # fmt: skip
def test_the_first_stays_and_recipients_are_joined(before: str, after: str | None, names: tuple[str, ...]) -> None:
    assert once(before) == (before if after is None else after, names, 0)


def test_a_signature_over_what_was_removed_is_removed_and_counted() -> None:
    signatures = [f"DKIM-Signature: v=1; h={names}; b=x\r\n" for names in ("from:Subject", "from:to")]
    assert once("".join(signatures) + "Subject: a\r\nSubject: b\r\n") == (
        signatures[1] + "Subject: a\r\n",
        ("subject",),
        1,
    )


LINES = st.lists(
    st.tuples(
        st.sampled_from(["To", "CC", "cc ", "From", "Subject", "Date", "X-A", "Received"]),
        st.lists(st.sampled_from(["a@b.nl", "Jan <c@d.nl>", '"e, f" <g@h.nl>', ""]), max_size=3).map(",\r\n ".join),
    ),
    max_size=12,
)


@given(LINES)
def test_nobody_is_left_out_and_nothing_else_changes(lines: list[tuple[str, str]]) -> None:
    before = Header.parse("".join(f"{name}: {text}\r\n" for name, text in lines).encode())
    fields, _, _ = each_once(before.fields)
    after = Header.parse(b"".join([raw for _, raw in fields]))
    assert after.fields == fields
    assert not after.rest
    for name in ONCE:
        assert after.count(name) == min(1, before.count(name))
    for name in (b"to", b"cc"):
        there = [one for field in before.all(name) for one in parse(value(field))]
        assert [one for field in after.all(name) for one in parse(value(field))] == there
    others = [field for field in before.fields if field[0] not in (b"to", b"cc")]
    kept = [field for field in after.fields if field[0] not in (b"to", b"cc")]
    assert kept == [
        one for n, one in enumerate(others) if one[0] not in ONCE or one[0] not in [o[0] for o in others[:n]]
    ]
