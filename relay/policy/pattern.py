"""Patterns: globs and RE2 expressions, compiled once. Those of all rules are asked together (`together`).

A glob (`*` any text, `?` any character) is held against the whole value, whatever the case. `/…/` is an
RE2 expression, searched for, case-sensitive unless it says `(?i)`. Both take time linear in the value, so
no pattern can stop the loop; at most 2 000 characters of a value are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Protocol

import re2

from relay.policy.rules import Pattern
from relay.values import frozen

LONGEST = 2_000

# What other expressions have, and what to do without it.
_NOT_IN_RE2 = {
    r"\(\?<?[=!]": "it has no lookahead and no lookbehind; write exceptions in a rule above this one",
    r"\\[1-9]|\(\?P=": "it has no references to a group; write the text out",
    r"[*+?}]\+|\(\?>": "it has no possessive repetition and no atomic group; write + and (?:…)",
    r"\\Z": r"it has no \Z; write \z",
}
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # RE2 would write the expression to stderr


class _Compiled(Protocol):
    """What is used of a compiled RE2 expression; `programsize` counts the instructions it was made into."""

    groups: int
    pattern: str
    programsize: int

    def search(self, text: str) -> Mapping[int, str | None] | None: ...


@frozen
class Literal:
    """A glob without wildcards: the comparison of the hot path."""

    source: str
    folded: str = field(repr=False, compare=False)

    def matches(self, value: str) -> bool:
        return value[:LONGEST].casefold() == self.folded


@frozen
class Ending:
    """A glob such as `*@example.nl`, the most frequent one with a wildcard."""

    source: str
    folded: str = field(repr=False, compare=False)

    def matches(self, value: str) -> bool:
        return value[:LONGEST].casefold().endswith(self.folded)


@frozen
class Glob:
    """Any other glob; `compiled` expects a folded value."""

    source: str
    compiled: _Compiled = field(repr=False, compare=False)

    def matches(self, value: str) -> bool:
        return _found(self.compiled, value[:LONGEST].casefold())


@frozen
class Expression:
    """An RE2 expression between slashes."""

    source: str
    compiled: _Compiled = field(repr=False, compare=False)

    def matches(self, value: str) -> bool:
        return _found(self.compiled, value[:LONGEST])


@frozen
class CodePattern:
    """Where a session code stands in a text: what group 1 of an RE2 expression matches, the first time."""

    source: str
    compiled: _Compiled = field(repr=False, compare=False)

    def code(self, text: str) -> str | None:
        """The code, or None; all of `text`, which is well-formed, is looked at."""
        found = self.compiled.search(text)
        return found[1] if found is not None else None


def code_pattern(source: str) -> CodePattern:
    """The expression written as `source`, between slashes. Raises ValueError with a sentence that does not quote it."""
    if not source.startswith("/"):
        raise ValueError("an expression stands between slashes here")
    made = _expression(source)
    if made.compiled.groups < 1:
        raise ValueError("the expression has no group: put the code itself into parentheses")
    return CodePattern(source, made.compiled)


def pattern(source: str) -> Pattern:
    """The pattern written as `source`. Raises ValueError with a sentence that does not quote it."""
    if len(source) > LONGEST:
        raise ValueError(f"a pattern has at most {LONGEST} characters")
    if any("\ud800" <= character <= "\udfff" for character in source):
        raise ValueError("the pattern holds characters that are no text")
    if source.startswith("/"):
        return _expression(source)
    folded = source.casefold()
    if "*" not in folded and "?" not in folded:
        return Literal(source, folded)
    rest = folded[1:]
    if folded[0] == "*" and "*" not in rest and "?" not in rest:
        return Ending(source, rest)
    return Glob(source, _compile("(?s)^" + "".join(map(_glob_character, folded)) + r"\z"))


def _expression(source: str) -> Expression:
    if len(source) < 2 or not source.endswith("/"):
        raise ValueError('a pattern that begins with "/" is an expression and must end with "/" as well')
    inside = source[1:-1]
    if not inside:
        raise ValueError("the expression between the slashes is empty and would match everything")
    return Expression(source, _compile(inside))


def _glob_character(character: str) -> str:
    return {"*": ".*", "?": "."}.get(character) or str(re2.escape(character))


def _compile(expression: str) -> _Compiled:
    try:
        compiled: _Compiled = re2.compile(expression, _OPTIONS)
    except re2.error as error:
        reason = error.args[0] if error.args else b""
        said = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        known = [sentence for form, sentence in _NOT_IN_RE2.items() if re.search(form, expression)]
        # RE2 quotes the offending part behind a colon.
        raise ValueError(f"not an RE2 expression: {known[0] if known else said.partition(':')[0]}") from None
    return compiled


def _found(compiled: _Compiled, value: str) -> bool:
    try:
        return compiled.search(value) is not None
    except UnicodeEncodeError:  # raw bytes of a header arrive as surrogates
        return compiled.search(value.encode("utf-8", "replace").decode()) is not None
