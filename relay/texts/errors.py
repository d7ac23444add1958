"""What is wrong, in Dutch.

Its English stands where it is found, beside the condition; some of it is that of a library. So a sentence is looked up
as it is said, in `errors.nl.toml`, where `<name>` stands for anything.
"""

from __future__ import annotations

import re
from functools import cache

from relay.texts.language import read

_VALUE = re.compile(r"<[a-z]+>")


def in_dutch(sentence: str) -> str:
    """The sentence in Dutch; as it is where nobody has translated it."""
    whole, patterns = _read()
    if sentence in whole:
        return whole[sentence]
    for pattern, dutch in patterns:
        if found := pattern.fullmatch(sentence):
            return _filled(dutch, found.groupdict())
    return sentence


def _filled(dutch: str, values: dict[str, str]) -> str:
    return _VALUE.sub(lambda name: in_dutch(values[name[0][1:-1]]), dutch)


@cache
def _read() -> tuple[dict[str, str], list[tuple[re.Pattern[str], str]]]:
    """The sentences without values, and those with, the longest first."""
    lines = read("errors.nl.toml")
    whole = {english: dutch for english, dutch in lines.items() if not _VALUE.search(english)}
    open_ = sorted(lines.keys() - whole.keys(), key=lambda english: len(_VALUE.sub("", english)), reverse=True)
    return whole, [(_pattern(english), lines[english]) for english in open_]


def _pattern(english: str) -> re.Pattern[str]:
    names = [name[1:-1] for name in _VALUE.findall(english)]
    parts = [re.escape(part) for part in _VALUE.split(english)]
    values = [f"(?P<{name}>.+)" for name in names]
    return re.compile("".join(part for pair in zip(parts, [*values, ""], strict=True) for part in pair), re.DOTALL)
