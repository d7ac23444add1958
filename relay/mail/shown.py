"""HTML as a person reads it: the text between its tags, in lines."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_UNSEEN = frozenset({"script", "style", "title", "template"})
_LINES = re.compile(
    "address|article|aside|blockquote|br|dd|div|dl|dt|footer|form|h[1-6]|header|hr|li|main|nav|ol|p|pre|section|table"
    "|td|th|tr|ul"
)
_BLANKS = re.compile(r"\s+")


def text_of(html: str) -> str:
    """The text of `html`, a line for each block and cell, each with its line end; "" where nothing is to be read."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = [_BLANKS.sub(" ", line).strip() for line in "".join(reader.found).split("\0")]
    return "".join([line + "\n" for line in lines if line])


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []  # NUL: a new line
        self._unseen = ""  # the element that hides what is in it

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  # as the parser calls it
        if not self._unseen and tag in _UNSEEN:
            self._unseen = tag
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == self._unseen:
            self._unseen = ""
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.found.append(data.replace("\0", ""))

    def _break(self, tag: str) -> None:
        if _LINES.fullmatch(tag):
            self.found.append("\0")
