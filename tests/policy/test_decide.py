"""One message, one route; the first rule that matches speaks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.mail.submission import Submission
from relay.policy.decide import Accept, Reject, decide
from relay.policy.rules import Match
from tests.kit import configured
from tests.policy.samples import ADMINISTRATIE, DEFAULT, SESSION_CODES, SLOW, patterns, policy, submission

KEEP = configured.rule("senders[0]", Match(from_=patterns("noreply@example.nl")), None)
SLOWLY = configured.rule(
    "slowly", Match(from_=patterns("*@example.nl")), configured.rewrite(ADMINISTRATIE), route="slow"
)
ALWAYS = configured.rule("senders[2]", Match(), configured.rewrite(ADMINISTRATIE))
CODES = (
    Match(subject=patterns("nothing")),
    Match(subject=patterns("/sessiecode/"), max_size=1024, recipients=1),
)


def message(author: str, subject: str = "Factuur", **more: object) -> Submission:
    return submission(f"From: {author}\r\nSubject: {subject}\r\n\r\n".encode(), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("author", "expected"),
    [
        ("noreply@example.nl", Accept(DEFAULT, KEEP, False, ("senders[0]",), DEFAULT.schedule.lifetime)),
        ("jan@example.nl", Accept(SLOW, SLOWLY, False, ("slowly",), SLOW.schedule.lifetime)),
        ("jan@elders.nl", Accept(DEFAULT, ALWAYS, False, ("senders[2]",), DEFAULT.schedule.lifetime)),
    ],
)
def test_the_first_rule_that_matches_speaks(author: str, expected: Accept) -> None:
    assert decide(message(author), policy(KEEP, SLOWLY, ALWAYS)) == expected


HOLD = configured.rule("look", Match(from_=patterns("*@example.nl")), None, hold=True)


def test_what_a_rule_holds_goes_on_with_the_first_rule_below_that_matches() -> None:
    assert decide(message("jan@example.nl"), policy(HOLD, KEEP, SLOWLY, ALWAYS)) == Accept(
        SLOW, SLOWLY, False, ("look", "slowly"), SLOW.schedule.lifetime, held_by="look"
    )
    assert decide(message("jan@example.nl"), policy(HOLD, KEEP)) == Accept(
        DEFAULT, HOLD, False, ("look",), DEFAULT.schedule.lifetime, held_by="look"
    )
    assert decide(message("jan@elders.nl"), policy(HOLD, ALWAYS)) == Accept(
        DEFAULT, ALWAYS, False, ("senders[2]",), DEFAULT.schedule.lifetime
    )


def test_a_rule_that_holds_and_says_more_is_the_last_that_is_asked() -> None:
    for rule in (replace(HOLD, keep=True), replace(HOLD, rewrite=SLOWLY.rewrite)):
        assert decide(message("jan@example.nl"), policy(rule, SLOWLY)) == Accept(
            DEFAULT, rule, False, ("look",), DEFAULT.schedule.lifetime, held_by="look"
        )


def test_the_way_out_of_a_rule_that_holds_is_taken_where_the_rule_below_names_none() -> None:
    gate = replace(HOLD, route="slow")
    decision = decide(message("jan@example.nl"), policy(gate, ALWAYS))
    assert isinstance(decision, Accept)
    assert (decision.route, decision.rule) == (SLOW, ALWAYS)


def test_the_first_of_several_rules_that_hold_is_the_one_that_is_named() -> None:
    decision = decide(message("jan@example.nl"), policy(HOLD, replace(HOLD, name="again"), SLOWLY))
    assert isinstance(decision, Accept)
    assert (decision.held_by, decision.rule) == ("look", SLOWLY)
    assert decision.because == ("look", "again", "slowly")


def test_without_a_rule_mail_goes_the_default_way_as_it_is() -> None:
    assert decide(message("jan@elders.nl"), policy(KEEP)) == Accept(DEFAULT, None, False, (), DEFAULT.schedule.lifetime)


def test_a_session_code_goes_its_own_way_and_sender_rules_speak_there_too() -> None:
    decision = decide(message("jan@example.nl", "Uw sessiecode 1234"), policy(KEEP, SLOWLY, session_codes=CODES))
    assert decision == Accept(
        SESSION_CODES, SLOWLY, True, ("session_codes.match[1]", "slowly"), SESSION_CODES.schedule.lifetime
    )


def test_all_conditions_of_an_entry_must_hold_for_a_session_code() -> None:
    two = message("jan@elders.nl", "Uw sessiecode 1234", to=("a@x.nl", "b@y.nl"))
    decision = decide(two, policy(KEEP, session_codes=CODES))
    assert isinstance(decision, Accept)
    assert not decision.session_code
    assert decision.route is DEFAULT


def test_a_rule_can_ask_whether_it_is_a_session_code() -> None:
    only_codes = configured.rule("codes", Match(session_code=True), None)
    no_codes = configured.rule("others", Match(session_code=False), None)
    rules = policy(only_codes, no_codes, session_codes=CODES)
    assert decide(message("jan@x.nl", "sessiecode"), rules).because == ("session_codes.match[1]", "codes")
    assert decide(message("jan@x.nl", "factuur"), rules).because == ("others",)


@pytest.mark.parametrize("name", [b"Received", b"RECEIVED", b"received "])
def test_fifty_received_fields_are_a_loop(name: bytes) -> None:
    fields = name + b": from x by y; Mon, 23 Nov 2026 22:08:05 +0100\r\n"
    decision = decide(submission(fields * 50 + b"\r\n"), policy(ALWAYS))
    assert isinstance(decision, Reject)
    assert (decision.reply.code, decision.reply.status) == (554, "5.4.6")
    assert decision.because == ("loop",)
    assert isinstance(decide(submission(fields * 49 + b"\r\n"), policy(ALWAYS)), Accept)


def test_the_word_received_elsewhere_is_no_loop() -> None:
    chatty = submission(b"Subject: " + b"received " * 200 + b"\r\nX-Received: 1\r\n\r\n")
    assert isinstance(decide(chatty, policy(ALWAYS)), Accept)
