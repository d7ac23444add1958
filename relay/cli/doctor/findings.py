"""Findings: one thing that was looked at, how it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from relay.cli.doctor.prescriptions import PRESCRIPTIONS
from relay.observe.sentences import Words
from relay.values import frozen


class Mark(StrEnum):
    """BAD keeps mail from leaving or arriving, or will; WARNING is unwise; UNTRIED: nobody looked, or can know."""

    GOOD = "good"
    BAD = "bad"
    WARNING = "warning"
    UNTRIED = "untried"


@frozen
class Finding:
    """`part` is one word, as "tls"; `text` says how it is, `remedy` what to do, where there is something."""

    mark: Mark
    part: str
    text: str
    remedy: Words | None = None


@frozen
class Chapter:
    """What was found about one upstream, one domain, or this machine."""

    title: str
    findings: tuple[Finding, ...]


def is_good(chapters: Iterable[Chapter]) -> bool:
    """Whether nothing is bad."""
    return all(finding.mark is not Mark.BAD for chapter in chapters for finding in chapter.findings)


def good(part: str, text: str) -> Finding:
    return Finding(Mark.GOOD, part, text)


def untried(part: str, text: str) -> Finding:
    return Finding(Mark.UNTRIED, part, text)


def bad(part: str, text: str, remedy: str, **values: str) -> Finding:
    """`remedy` is the name of one in `prescriptions`; `values` stand in its braces."""
    return Finding(Mark.BAD, part, text, prescribed(remedy, **values))


def warning(part: str, text: str, remedy: str, **values: str) -> Finding:
    return Finding(Mark.WARNING, part, text, prescribed(remedy, **values))


def prescribed(remedy: str, **values: str) -> Words:
    return filled(PRESCRIPTIONS[remedy], **values)


def filled(words: Words, **values: str) -> Words:
    """`words` with values in their braces."""
    return Words(words.en.format_map(values), words.nl.format_map(values))
