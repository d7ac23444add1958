"""Findings: one thing that was looked at, how it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from relay.texts.language import Sentence
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
    remedy: Sentence | None = None


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
    """`remedy` is the name of one in the table `doctor`; `values` stand in its braces."""
    return Finding(Mark.BAD, part, text, Sentence(f"doctor.{remedy}", values))


def warning(part: str, text: str, remedy: str, **values: str) -> Finding:
    return Finding(Mark.WARNING, part, text, Sentence(f"doctor.{remedy}", values))
