"""Replies about long lines are told from others by their words."""

from __future__ import annotations

import pytest

from relay.config.preset import table
from relay.mail.outcome import Refusal, Stage
from relay.mail.reply import Reply
from relay.policy.size import largest


def is_line_too_long(reply: Reply) -> bool:
    return table(None).tell(Stage.DOT, reply).refusal is Refusal.LINE_TOO_LONG


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        (500, "5.2.3", "line too long"),
        (500, "", "Line too long (see RFC5321 4.5.3.1.6)"),
        (550, "5.6.0", "lines longer than 990 characters"),
        (552, "5.3.4", "Line too long"),
        (552, "", "max line length exceeded"),
        (550, "", "maximum allowed line length is 998 octets, got 1500"),
        (552, "", "message has lines too long for transport"),
        (554, "5.6.0", "Message contains long lines, please resubmit"),
        (500, "5.5.6", "Error: line exceeds limit"),
        (451, "4.6.0", "Too long line in DATA"),
    ],
)
def test_a_reply_about_a_long_line_is_one(code: int, status: str, text: str) -> None:
    assert is_line_too_long(Reply(code, status, text))


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        (552, "5.3.4", "Message size exceeds fixed limit"),
        (552, "5.2.2", "over quota"),
        (550, "5.7.1", "blocked, see https://example.org/online-limits"),
        (554, "5.6.0", "Message contains bare LF"),
        (550, "5.4.5", "Daily user sending limit exceeded"),
    ],
)
def test_any_other_reply_is_none(code: int, status: str, text: str) -> None:
    assert not is_line_too_long(Reply(code, status, text))


def test_the_largest_upstream_counts_and_one_without_a_known_limit_may_carry_anything() -> None:
    assert largest([10, 30, 20]) == 30
    assert largest([10, None]) is None
    assert largest([]) is None
