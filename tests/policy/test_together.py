"""Patterns asked together say what each says by itself, and a message is looked at within bounds, whatever it is.

Nothing here is timed: what is counted are the characters that are held against patterns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.author import MOST_AUTHORS
from relay.policy import together
from relay.policy.decide import LARGE_HEAD, LONG, Accept, judge, takes_long
from relay.policy.match import MOST_FIELDS, Matches, View
from relay.policy.pattern import LONGEST, pattern
from relay.policy.rules import Match, Pattern
from relay.policy.together import PROGRAM, Together
from tests.kit import configured
from tests.policy.samples import patterns, policy, submission

SOURCES = (
    "jan@example.nl",
    "JAN@EXAMPLE.NL",
    "*",
    "*@example.nl",
    "*.nl",
    "*ß",
    "j?n@*",
    "*jan*",
    "",
    "/jan/",
    "/^jan@/",
    "/(?i)JAN@example/",
    r"/\bnl$/",
    "/x{0,9}é/",
)


def holding(patterns: Sequence[Pattern], value: str) -> set[str]:
    return set(Together(patterns).holding(value))


@pytest.mark.parametrize("size", [1, 40, PROGRAM])
@given(
    value=st.one_of(st.sampled_from(["jan@example.nl", "Jan@Example.NL", "", "STRASS", "raw \udce9 jan"]), st.text())
)
def test_patterns_asked_together_say_what_each_says_by_itself(size: int, value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "PROGRAM", size)  # one set, or many
        asked = patterns(*SOURCES)
        assert holding(asked, value) == {one.source for one in asked if one.matches(value)}


def test_a_pattern_that_no_set_has_room_for_is_asked_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MEMORY", 1024)
    monkeypatch.setattr(together, "_LEAST", 1024)
    one = pattern("/a.{0,30}b/")
    alone = Together([one])
    assert set(alone.holding("xaxxb")) == {one.source}
    assert alone.weight > Together(patterns("/ab/")).weight
    monkeypatch.undo()
    assert alone.weight > Together([one]).weight  # it costs more than in a set


def test_what_only_has_to_be_compared_weighs_next_to_nothing() -> None:
    addresses = Together(patterns(*[f"user{n}@example.nl" for n in range(4000)]))
    assert addresses.weight == 0
    assert Together(patterns(*[f"*@x{n:04}.example" for n in range(4000)])).weight < 10


@dataclass
class Looked:
    """How many values were asked about, and how many characters RE2 sets went through."""

    values: int = 0
    characters: int = 0


@contextmanager
def looking() -> Iterator[Looked]:
    looked = Looked()
    hold, search = Together.holding, together._searched

    def holding(self: Together, value: str) -> frozenset[str]:
        looked.values += 1
        return hold(self, value)

    def searched(sets: together._Sets, text: str) -> list[str]:
        looked.characters += len(sets) * len(text)
        return search(sets, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Together, "holding", holding)
        patch.setattr(together, "_searched", searched)
        yield looked


def thousand(condition: str, source: str) -> Matches:
    """A thousand rules, each with four patterns; `source` has a place for a number."""
    sources = [patterns(*[source.format(4 * rule + n) for n in range(4)]) for rule in range(1000)]
    if condition == "header":
        return Matches([Match(header=(("x-a", each),)) for each in sources])
    return Matches([replace(Match(), **{condition: each}) for each in sources])


def sets(program: Matches) -> int:
    return program.weight // PROGRAM + 2  # at most, as no pattern here is larger than half a set


HEAD = b"From: jan@example.nl\r\nSubject: x\r\n"
HEADS = {
    "ordinary": HEAD,
    "commas": b"From: " + b"," * 250_000 + b"\r\n",
    "10 200 authors": b"From: " + b",".join(b"u%d@example.nl" % n for n in range(10_200)) + b"\r\n",
    "100 authors": b"From: " + b",".join(b"u%d@example.nl" % n for n in range(100)) + b"\r\n",
    "encoded words": b"From: a@x.nl\r\nSubject: " + b"=?utf-8?b?w6nDqcOp?= " * 10_000 + b"\r\n",
    "1 990 fields": HEAD + b"X-A: w0rd w0rd w0rd\r\n" * 1990,
    "long fields": HEAD + (b"X-A: " + b"w0rd " * 5000 + b"\r\n") * 10,
}


@pytest.mark.parametrize(
    ("head", "condition", "source", "values", "each"),
    [
        ("commas", "from_", "/user{}@x/", 0, 0),
        ("10 200 authors", "from_", "/user{}@x/", 0, 0),
        ("100 authors", "from_", "/user{}@x/", MOST_AUTHORS, 20),
        ("encoded words", "subject", "/factuur{}/", 1, LONGEST),
        ("1 990 fields", "header", "/w{}rdx/", MOST_FIELDS, 14),
        ("long fields", "header", "/w{}rdx/", 10, LONGEST),
        ("ordinary", "to", "/klant{}@x/", 1000, 30),
        ("ordinary", "to", "*klant*{}@x*", 1000, 30),
        ("ordinary", "to", "*@x{}.example", 1000, 0),
        ("ordinary", "listener", "/{}/", 1, 10),
    ],
)
def test_a_thousand_rules_look_at_each_value_once_and_within_bounds(
    head: str, condition: str, source: str, values: int, each: int
) -> None:
    message = submission(HEADS[head] + b"\r\nbody", to=tuple(f"klant{n}@example.org" for n in range(1000)))
    asked = thousand(condition, source)
    with looking() as looked:
        assert asked.first(View(message)) is None
    assert looked.values == values
    assert looked.characters <= values * each * sets(asked)
    with looking() as looked:
        asked.tried(View(message))  # as `explain` shows it
    assert looked.values == values


def test_that_all_authors_match_is_found_with_one_look_at_each() -> None:
    authors = b"From: " + b",".join(b"u%d@example.nl" % n for n in range(100)) + b"\r\n\r\n"
    rules = [configured.rule(f"r{n}", Match(from_=patterns(f"*u{n}@*"), all_authors=True)) for n in range(999)]
    rules.append(configured.rule("all", Match(from_=patterns("/^u.@/", "*u??@example.nl"), all_authors=True)))
    with looking() as looked:
        decision = judge(View(submission(authors)), policy(*rules))
    assert isinstance(decision, Accept)
    assert decision.because == ("all",)
    assert looked.values == 100


def test_what_takes_long_is_known_before_it_is_done() -> None:
    many = tuple(f"klant{n}@example.org" for n in range(1000))
    few, heavy = policy(configured.rule("r", Match(to=patterns("/klant/")))), policy(
        *[configured.rule(f"r{n}", Match(to=patterns(f"/klant.*{n}.*{n}@/"))) for n in range(1000)]
    )  # fmt: skip
    ordinary, large = HEAD + b"\r\n", HEAD + b"X: y\r\n" * (LARGE_HEAD // 6) + b"\r\n"
    assert not takes_long(View(submission(ordinary)), few)
    assert not takes_long(View(submission(ordinary, to=many)), few)
    assert not takes_long(View(submission(ordinary)), heavy)
    assert takes_long(View(submission(ordinary, to=many)), heavy)
    assert takes_long(View(submission(large)), few)
    assert heavy.matches.cost(View(submission(ordinary, to=many))) > LONG


def test_the_cost_of_a_set_is_bounded_by_its_program() -> None:
    """The sets of a configuration are as many as its program needs, so none holds others up for long."""
    made = Together(patterns(*[f"/a.{{0,30}}b{n}/" for n in range(300)]))
    sizes = [re2.compile(f"a.{{0,30}}b{n}").programsize for n in range(300)]
    assert made.weight == sum(sizes)
    assert len(made._raw) == -(-len(sizes) // (PROGRAM // max(sizes)))
