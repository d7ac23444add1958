"""Why a file is no YAML, in the words of who wrote it: which line has to be changed, and how. No line of it is quoted.

The parser reports where it could not go on: often a line too late, and for a quote that is left open the file's end.
What is found here is the line that a person has to change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relay.config.problems import Path

_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # as YAML counts lines
_ODD_BLANK = re.compile(r"[ \t]*[^\S \t]|[ \t]*[\u200b\u2060\ufeff]")
_ITEM = re.compile(r"\s*-(\s|$)")
_COMMENT = re.compile(r"\s#")
_INDENT = "indent with spaces only, keys of one section in the same column"
_QUOTE = 'put quotes around the whole value, as in "…"'


class Unreadable(Exception):
    """The file ends here, in `line` (0: nowhere in it), at or below `path`: what follows would be guesswork."""

    def __init__(self, line: int, problem: str, hint: str = "", path: Path = ()) -> None:
        self.line, self.problem, self.hint, self.path = line, problem, hint, path
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text that was read: the key that it belongs to, its first and last line, and whether it stands in quotes."""

    path: Path
    line: int
    end: int
    quoted: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """Where the parser stopped, and what it reports; lines count from 1, columns from 0.

    `while_`: what it was reading, since the line `begin`. `path`: the key whose value was to come. `before`: the key
    whose value is complete. `last`: the text before.
    """

    problem: str
    line: int
    column: int
    while_: str
    begin: int
    path: Path
    before: Path
    last: Scalar | None


def why(stop: Stop, text: str) -> Unreadable:
    """What the person who wrote `text` has to change. Where that is not known: what the parser reports."""
    lines = _BREAK.split(text)
    here = lines[stop.line - 1] if stop.line <= len(lines) else ""
    last = stop.last
    for number, line in enumerate(lines[: stop.line], 1):
        if _ODD_BLANK.match(line):
            return Unreadable(number, "the blanks before the key are no spaces, as in text from a web page", _INDENT)
    if "quoted scalar" in stop.while_ and "end of stream" in stop.problem:
        return Unreadable(stop.begin, "a quote is opened here and never closed", _closing(lines, stop.begin), stop.path)
    if last is not None and last.quoted and last.end > last.line:
        return Unreadable(
            last.line, "a quote is opened here and not closed in this line", _closing(lines, last.line), last.path
        )
    if here[stop.column : stop.column + 1] == "\t" or "tab character" in stop.problem:
        return Unreadable(stop.line, "a tab stands in the indentation", _INDENT, stop.path)
    match stop.problem:
        case "could not find expected ':'":
            return _no_colon(stop.begin, stop.path)
        case "mapping values are not allowed in this context":
            return _second_colon(stop, lines)
        case "found unknown escape character" | "did not find expected hexdecimal number":
            problem = "a backslash within double quotes has a meaning of its own"
            return Unreadable(stop.line, problem, "write '…' instead of \"…\"", stop.path)
        case "block sequence entries are not allowed in this context":
            hint = 'write [a, b], or each item in a line of its own that begins with "- "'
            return Unreadable(stop.line, "a list begins behind its key, in the same line", hint, stop.path)
        case "did not find expected ',' or '}'" | "did not find expected ',' or ']'":
            return _within_brackets(stop, lines)
        case "did not find expected key" | "did not find expected '-' indicator":
            return _out_of_place(stop, here)
        case "did not find expected <document start>":
            return Unreadable(stop.line, "what stands here belongs to no key", "write keys, as in upstreams:")
        case (
            "found character that cannot start any token"
            | "did not find expected alphabetic or numeric character"
            | "did not find expected comment or line break"
            | "did not find expected node content"
        ):
            return special(stop.line, stop.path)
    return Unreadable(stop.line, f"not YAML: {stop.problem}", _QUOTE, stop.path)


def special(line: int, path: Path) -> Unreadable:
    """A value that begins with a character that YAML keeps for itself."""
    return Unreadable(line, "a value that begins with @ * & % ! | > [ { , or ` has to stand in quotes", _QUOTE, path)


def _closing(lines: list[str], number: int) -> str:
    if re.search("[“”„‟‘’‚´]", lines[number - 1]):
        return "close it with the quote that it begins with: typographic quotes are part of the value"
    return "close it with the quote that it begins with"


def _no_colon(line: int, path: Path) -> Unreadable:
    return Unreadable(
        line, "key and value are not separated", "write a colon and a blank between them: key: value", path
    )


def _second_colon(stop: Stop, lines: list[str]) -> Unreadable:
    last = stop.last
    if last is None or last.line == stop.line:
        problem = 'a value that holds ": " has to stand in quotes'
        return Unreadable(stop.line, problem, _QUOTE, stop.before)
    if re.search(r":( |\t|$)", lines[last.line - 1]):
        return Unreadable(stop.line, "this line is indented deeper than the key above it", _INDENT, last.path[:-1])
    return _no_colon(last.line, last.path)


def _within_brackets(stop: Stop, lines: list[str]) -> Unreadable:
    close = stop.problem[-2]
    for number in range(stop.begin, min(stop.line, len(lines)) + 1):
        if _COMMENT.search(lines[number - 1]):
            problem = f'what stands behind " #" is a comment, the closing {close} as well'
            return Unreadable(number, problem, "quote the value that holds it", stop.path)
    last = stop.last
    if stop.line > stop.begin:
        return Unreadable(
            stop.begin,
            f"a bracket is opened here and not closed with {close}",
            f"write {close}, or quotes around a value that begins with it",
            stop.path,
        )
    if last is not None and last.line == stop.line and not last.quoted:
        problem = "a comma is missing here, or quotes around a value"
        return Unreadable(stop.line, problem, "write {key: value, key: value}, or [a, b]", stop.path)
    return special(stop.line, stop.path)


def _out_of_place(stop: Stop, here: str) -> Unreadable:
    """Something stands where a key, or an item of a list, has to begin."""
    before = here[: stop.column].rstrip()
    if before and here[stop.column : stop.column + 1] in tuple("]}"):
        return Unreadable(stop.line, "a bracket is closed that is not open", "remove it", stop.path)
    if before.endswith(("]", "}")):
        return Unreadable(stop.line, "text stands behind a closing bracket", _QUOTE, stop.before)
    if before.endswith(("'", '"')):
        hint = "put other quotes around the whole value, ' or \""
        return Unreadable(stop.line, "text stands behind a closing quote", hint, stop.before)
    if "-" in stop.problem:
        hint = 'write it in the column of the text behind "- "'
        return Unreadable(stop.line, "this line belongs to no item of the list above it", hint, stop.path)
    if _ITEM.match(here):
        problem = "an item of a list, where keys are"
        return Unreadable(stop.line, problem, 'write the key of the list above it; all "- " in one column', stop.path)
    return Unreadable(stop.line, "the indentation of this line is that of no key above it", _INDENT, stop.path)
