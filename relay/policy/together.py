"""Patterns that are asked together: one look at a value says which of thousands hold for it.

What only has to be compared is looked up. Expressions go into RE2 sets, each of which searches for all of its own in
one pass over the value, and remembers in bounded memory what it has seen. RE2's time for an octet and its
memory grow with the program at worst, and while one thread makes room in a set others wait for it; so there are several
sets where the program is large. What RE2 cannot put into a set is asked by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import re2

from relay.policy.pattern import LONGEST, Ending, Expression, Glob, Literal
from relay.policy.rules import Pattern

PROGRAM = 8 * 1024  # instructions of a set
MEMORY = 64 * 1024 * 1024  # octets for all sets of a condition
_LEAST = 2 * 1024 * 1024  # octets for a set, however many there are

# How long one may take at worst for an octet, in instructions of a set (a nanosecond or so each).
_BY_ITSELF = 8  # an expression outside of a set, for each instruction
_COMPARED = 8  # endings of one length


class _Set(Protocol):
    def Match(self, text: bytes) -> list[int] | None: ...  # RE2's name


_Sets = tuple[tuple[_Set, tuple[str, ...]], ...]
Searched = Glob | Expression
_NONE: frozenset[str] = frozenset()


class Together:
    """`weight` is what an octet may cost at worst, in instructions of a set; what is looked up costs none."""

    __slots__ = ("_alone", "_endings", "_folded", "_lengths", "_literals", "_raw", "weight")

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        different = tuple({pattern.source: pattern for pattern in patterns}.values())
        self._literals = _by_text([pattern for pattern in different if isinstance(pattern, Literal)])
        self._endings = _by_text([pattern for pattern in different if isinstance(pattern, Ending)])
        self._lengths = tuple(sorted({len(text) for text in self._endings}))
        globs = list(_chunks([pattern for pattern in different if isinstance(pattern, Glob)]))
        expressions = list(_chunks([pattern for pattern in different if isinstance(pattern, Expression)]))
        memory = max(_LEAST, MEMORY // max(1, len(globs) + len(expressions)))
        alone: list[Searched] = []
        self._folded = _sets(globs, memory, alone)
        self._raw = _sets(expressions, memory, alone)
        self._alone = tuple(alone)
        in_sets = sum(pattern.compiled.programsize for chunk in (*globs, *expressions) for pattern in chunk)
        by_themselves = sum(pattern.compiled.programsize for pattern in alone)
        self.weight = in_sets + _BY_ITSELF * by_themselves + _COMPARED * len(self._lengths)

    def holding(self, value: str) -> frozenset[str]:
        """The sources of those that match `value`, of which at most `LONGEST` characters are looked at."""
        value = value[:LONGEST]
        folded = value.casefold()
        found = self._literals.get(folded, _NONE)
        for length in self._lengths:
            found |= self._endings.get(folded[len(folded) - length :], _NONE)
        if self._folded:
            found = found.union(_searched(self._folded, folded))
        if self._raw:
            found = found.union(_searched(self._raw, value))
        if self._alone:
            found = found.union([pattern.source for pattern in self._alone if pattern.matches(value)])
        return found


def _by_text(patterns: Iterable[Literal] | Iterable[Ending]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for pattern in patterns:
        found[pattern.folded] = found.get(pattern.folded, _NONE) | {pattern.source}
    return found


def _searched(sets: _Sets, text: str) -> list[str]:
    octets = text.encode("utf-8", "replace")
    return [sources[number] for one, sources in sets for number in one.Match(octets) or ()]


def _chunks(patterns: Iterable[Searched]) -> Iterator[list[Searched]]:
    """Neighbours of `PROGRAM` instructions together, or one that has more."""
    chunk: list[Searched] = []
    room = PROGRAM
    for pattern in patterns:
        size = pattern.compiled.programsize
        if chunk and size > room:
            yield chunk
            chunk, room = [], PROGRAM
        chunk.append(pattern)
        room -= size
    if chunk:
        yield chunk


def _sets(chunks: Iterable[Sequence[Searched]], memory: int, alone: list[Searched]) -> _Sets:
    """A set of `memory` octets for each of `chunks`; what RE2 has no room for goes to `alone`."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = memory
    made = []
    for chunk in chunks:
        one = re2.Set.SearchSet(options)
        try:
            for pattern in chunk:
                one.Add(pattern.compiled.pattern)
            one.Compile()
        except re2.error:
            alone += chunk
        else:
            made.append((one, tuple([pattern.source for pattern in chunk])))
    return tuple(made)
