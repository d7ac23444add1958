"""Globs and expressions: what they match, and that none of them can stop the loop."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.policy.pattern import LONGEST, pattern


@pytest.mark.parametrize(
    ("source", "value", "expected"),
    [
        ("jan@example.nl", "Jan@Example.NL", True),
        ("jan@example.nl", "jan@example.nl.evil", False),
        ("JAN@example.nl", "jan@example.nl", True),
        ("", "", True),
        ("", "x", False),
        ("<>", "<>", True),
        ("*", "", True),
        ("*@example.nl", "jan@EXAMPLE.nl", True),
        ("*@example.nl", "jan@sub.example.nl", False),
        ("jan*", "janneke@example.nl", True),
        ("j?n@*", "jün@example.nl", True),
        ("a?c", "abbc", False),
        ("a.c", "abc", False),
        ("a[b]c", "a[B]c", True),
        ("*factuur*", "Uw\nFACTUUR is er", True),
        ("straße", "STRASSE", True),
        ("/code/", "Uw code: 1", True),
        ("/code/", "Uw CODE: 1", False),
        ("/(?i)code/", "Uw CODE: 1", True),
        ("/^jan@/", "jan@example.nl", True),
        ("/a/b/", "xa/bx", True),
        (r"/\bcode\b/", "sessiecode", False),
        ("/caf./", "café", True),
        ("/a/", "raw \udce9 bytes: a", True),
        ("*x?", "\udce9x\udce9", True),
    ],
)
def test_a_pattern_matches_as_it_is_written(source: str, value: str, expected: bool) -> None:
    made = pattern(source)
    assert made.matches(value) is expected
    assert made.source == source
    assert made == pattern(source)


@pytest.mark.parametrize(
    "source", ["/", "/a", "//", "/(/", "/(?=a)/", r"/(a)\1/", "/(a{1000}){1000}/", "x" * 2001, "*\udce9*"]
)
def test_what_is_no_pattern_is_told_in_a_sentence_that_does_not_quote_it(
    source: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"expression|characters") as caught:
        pattern(source)
    assert len(source) < 4 or source[1:-1] not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_the_longest_part_of_a_value_that_counts() -> None:
    assert pattern("/x/").matches(" " * (LONGEST - 1) + "x")
    assert not pattern("/x/").matches(" " * LONGEST + "x")
    assert not pattern("*x").matches(" " * LONGEST + "x")


def test_no_pattern_takes_more_than_linear_time() -> None:
    # Each of these would keep a backtracking engine busy for longer than the sun shines.
    for source in ("/^(a+)+$/", "/(a|a)*b/", "*a" * 500 + "b", "/(.*)(.*)(.*)(.*)(.*)[0-9]/"):
        assert not pattern(source).matches("a" * (LONGEST - 1) + "!")


@given(st.text(alphabet="aB*?.", max_size=8), st.text(alphabet="abB.", max_size=8))
def test_a_glob_means_what_it_means_in_a_shell(source: str, value: str) -> None:
    assert pattern(source).matches(value) == fnmatch.fnmatchcase(value.casefold(), source.casefold())
