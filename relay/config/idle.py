"""Patterns that can match nothing: what a rule is written with, and what it is held against, have not the same form.

Such a rule is legal, and it never speaks; the mail leaves with another sender, and nothing says why. Only patterns
without a doubt are reported: a glob that holds for no value of its condition, and no expression between slashes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from relay.config.model import Conditions
from relay.config.problems import Finding, Path
from relay.policy.rules import Pattern

_ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[bBqQ]?", re.ASCII)
_TWO = re.compile(r"@[^@,;\s]*[,;\s]+[^@]*@")
_SOME_TEXT = "*"  # stands for anything, an @ as well


def findings(path: Path, match: Conditions) -> Iterator[Finding]:
    """What is to be reported of the conditions at `path`."""
    for key, patterns, reason in (
        ("from", match.from_, _no_author),
        ("envelope_from", match.envelope_from, _no_path),
        ("to", match.to, _no_path),
        ("subject", match.subject, _not_decoded),
    ):
        yield from _reported((*path, key), patterns or (), reason)
    for name, patterns in match.header.items():
        yield from _reported((*path, "header", name), patterns, _never_so_long)


_Reason = Callable[[str], tuple[str, str] | None]


def _reported(path: Path, patterns: tuple[Pattern, ...], reason: _Reason) -> Iterator[Finding]:
    for pattern in patterns:
        if not _is_expression(pattern.source) and (found := reason(pattern.source)) is not None:
            problem, hint = found
            yield Finding(path, f'"{pattern.source}" matches nothing: {problem}', hint)


def _is_expression(source: str) -> bool:
    return len(source) > 1 and source.startswith("/") and source.endswith("/")


def _no_path(source: str) -> tuple[str, str] | None:
    """In an envelope an address may be a local part alone (`postmaster`), and none at all is <>."""
    alone = "@" not in source and "." not in source
    return None if alone or source == "<>" else _no_author(source)


def _no_author(source: str) -> tuple[str, str] | None:
    """Why no address is so: it is LOCAL-PART@DOMAIN, without brackets, names or blanks."""
    if _TWO.search(source):
        return "a comma or a blank makes no list", f"write a list: [{', '.join(_quoted(source))}]"
    if "<" in source or ">" in source:
        inside = re.search(r"<([^<>@]+@[^<>@]+)>", source)
        hint = f"did you mean {inside[1]}?" if inside else "write the bare address"
        return "the bare address is compared, without brackets and name", hint
    local, at, domain = source.rpartition("@")
    if not at:
        if _SOME_TEXT in source:
            return None
        hint = f"did you mean *@{source}?" if "." in source else "write an address, or one with * in it"
        return "an address is LOCAL-PART@DOMAIN", hint
    if not local:
        return "an address has something before its @", f"did you mean *{source}?"
    if not domain:
        return "an address has a domain behind its @", f"did you mean {source}*?"
    if source.strip() != source or (" " in domain) or domain.endswith("."):
        return "an address has no blanks around it and no dot at its end", f"did you mean {source.strip().rstrip('.')}?"
    return None


def _quoted(source: str) -> list[str]:
    return [f'"{one}"' for one in re.split(r"[,;\s]+", source) if one]


def _not_decoded(source: str) -> tuple[str, str] | None:
    if _ENCODED_WORD.search(source):
        return "a subject is compared decoded, without encoded words", "write the words as a reader sees them"
    return _never_so_long(source)


def _never_so_long(source: str) -> tuple[str, str] | None:
    if "\n" in source or "\r" in source:
        return "a value is compared in one line", "write a blank where the line is folded"
    if source.strip() != source:
        return "a value is compared without blanks around it", f'did you mean "{source.strip()}"?'
    return None
