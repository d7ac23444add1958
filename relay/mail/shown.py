"""HTML as a person reads it: the text between its tags, in lines.

Read in linear time, whatever it is: what opens and never closes goes on to the end, as in a browser. (Python's own
parser looks for its end again and again.)
"""

from __future__ import annotations

import re

from relay.mail.encoding import unescaped

# Behind a tag's name a quote is one only behind an equals sign. Nothing is tried twice but the name of an element that
# is all text, and where that is closed at once.
_REST = r"""(?:[^>=]++|=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))?+)*+"""
_MARKUP = re.compile(
    r"<!--(?:-?>|.*?(?:--!?>|\Z))"
    r"|<(?P<unseen>script|style|title)(?=[\s/>])" + _REST + r"(?<!/)(?:>|\Z).*?(?=</(?P=unseen)[\s/>]|\Z)"
    r"|<(?P<end>/?)(?P<tag>[a-z][^\s/>]*+)" + _REST + r"(?:>|\Z)"
    r"|<[!?/][^>]*+(?:>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_LINES = re.compile(
    "address|article|aside|blockquote|br|dd|div|dl|dt|footer|form|h[1-6]|header|hr|li|main|nav|ol|p|pre|section|table"
    "|td|th|tr|ul"
)
_BLANKS = re.compile(r"\s+")


def text_of(html: str) -> str:
    """The text of `html`, a line for each block and cell, each with its line end; "" where nothing is to be read."""
    html = html.replace("\0", "")
    found: list[str] = []  # NUL: a new line
    at, is_seen = 0, True
    for markup in _MARKUP.finditer(html):
        if is_seen:
            found.append(unescaped(html[at : markup.start()]))
        at, tag = markup.end(), (markup["tag"] or "").lower()
        if tag == "template":
            is_seen = bool(markup["end"])
        elif _LINES.fullmatch(tag):
            found.append("\0")
    if is_seen:
        found.append(unescaped(html[at:]))
    lines = [_BLANKS.sub(" ", line).strip() for line in "".join(found).split("\0")]
    return "".join([line + "\n" for line in lines if line])
