"""The explanation tells what deciding and rendering did, and never a session code."""

from __future__ import annotations

from relay.mail.header import Header
from relay.policy.decide import decide
from relay.policy.explain import NOT_SHOWN, explain
from relay.policy.rules import Match
from tests.kit import configured
from tests.policy.samples import ADMINISTRATIE, patterns, policy, submission

KEEP = configured.rule("senders[0]", Match(from_=patterns("noreply@example.nl")), None)
SLOWLY = configured.rule(
    "slowly", Match(from_=patterns("jan@*"), to=patterns("*")), configured.rewrite(ADMINISTRATIE), route="slow"
)
ALWAYS = configured.rule("senders[2]", Match(), None)
CODES = (Match(subject=patterns("/sessiecode/")),)
INVOICE = submission(b"From: Jan <jan@example.nl>\r\nSubject: Factuur 7\r\n\r\n")
CODE = submission(
    b"From: jan@example.nl\r\nSubject: Uw sessiecode\r\n 123456\r\nTHREAD-Topic: 123456\r\nX-Mailer: iMUIS\r\n\r\n"
)


def test_every_rule_is_tried_and_the_first_that_holds_speaks() -> None:
    told = explain(INVOICE, policy(KEEP, SLOWLY, ALWAYS))
    assert [(rule.rule.name, rule.held, rule.spoke) for rule in told.rules] == [
        ("senders[0]", False, False),
        ("slowly", True, True),
        ("senders[2]", True, False),
    ]
    assert [(condition.name, condition.held) for condition in told.rules[1].conditions] == [
        ("from", True),
        ("to", True),
    ]
    assert told.rules[0].conditions[0].found == ("jan@example.nl",)
    assert (told.route, told.upstreams, told.because) == ("slow", ("other", "own"), ("slowly",))
    assert (told.session_code, told.session_codes, told.rejected) == (None, (), None)
    assert told.rendered is not None
    assert told.rendered.from_after == b"Jan <administratie@example.nl>"
    assert told.before.to_bytes() == INVOICE.head
    assert told.after.to_bytes() == told.rendered.head


def test_a_session_code_is_named_by_its_entry_and_not_shown() -> None:
    told = explain(CODE, policy(SLOWLY, session_codes=CODES))
    assert told.session_code == "session_codes.match[0]"
    assert told.session_codes[0].conditions[0].found == (NOT_SHOWN,)
    assert told.session_codes[0].held
    assert told.upstreams == ("vendor", "own")
    assert told.because == ("session_codes.match[0]", "slowly")
    for header in (told.before, told.after):
        assert b"123456" not in header.to_bytes()
        assert b"X-Mailer: iMUIS\r\n" in header.to_bytes()
        assert Header.parse(header.to_bytes()) == header
    assert "123456" not in repr((told.rules, told.session_codes, told.before, told.after))


def test_a_code_in_a_header_condition_is_not_shown_either() -> None:
    rule = configured.rule("x", Match(header=(("thread-topic", patterns("*")),)), None)
    told = explain(CODE, policy(rule, session_codes=CODES))
    assert told.rules[0].conditions[0].found == (NOT_SHOWN,)
    assert told.rules[0].spoke


def test_an_entry_that_does_not_match_is_told_too() -> None:
    told = explain(INVOICE, policy(KEEP, session_codes=CODES))
    assert told.session_code is None
    assert told.session_codes[0].conditions[0].found == ("Factuur 7",)
    assert not told.session_codes[0].held
    assert told.route == "default"


def test_a_loop_is_explained_as_the_rejection_it_is() -> None:
    looping = submission(b"Received: x\r\n" * 50 + b"\r\n")
    told = explain(looping, policy(ALWAYS))
    assert told.rejected is not None
    assert told.rejected.code == 554
    assert (told.because, told.route, told.rendered) == (("loop",), None, None)


def test_the_explanation_is_the_decision() -> None:
    rules = policy(KEEP, SLOWLY, ALWAYS, session_codes=CODES)
    for asked in (INVOICE, CODE):
        assert explain(asked, rules).because == decide(asked, rules).because
