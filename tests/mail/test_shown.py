"""HTML as a person reads it."""

from __future__ import annotations

import pytest

from relay.mail.shown import text_of


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>Uw code is <b>9</b>13557</p>", "Uw code is 913557\n"),
        ("<td>a</td><td>b</td><br/>c", "a\nb\nc\n"),
        ("<title>t</title><style>p{a>b}</style><script>if (a<b) {'</p>'}</script>x", "x\n"),
        ("<TITLE/>x<title >y</titles></title\n>z", "xz\n"),
        ("a<template>b<p>c</p></template>d", "a\nd\n"),
        ("a<!-- > b -->c<!-->d<![if !mso]>e<?xml?>f<!DOCTYPE html>g", "acdefg\n"),
        ("""<a title="a > b" href='>'>x</a><p title=it's>y""", "x\ny\n"),
        ("1 < 2 &lt;3&gt; &amp;&copy;&#65;&#x42; &#0;\0&nbsp;x", "1 < 2 <3> &©AB \ufffd x\n"),
        ("x<p title='never closes> y", "x\n"),
        ("x<!-- never closes > y", "x\n"),
        ("&#" + "9" * 5_000 + ";x", "\ufffdx\n"),
        ("", ""),
    ],
)
def test_what_is_read_is_the_text_between_the_tags_in_lines(html: str, text: str) -> None:
    assert text_of(html) == text


@pytest.mark.parametrize(
    "piece",
    [
        "<a ",
        "<a b=",
        '<a b="',
        "<a/",
        "<!--",
        "<!-- --",
        "<![",
        "<?",
        "</",
        "<x y",
        "<title>",
        "<title/>",
        "<style =",
        "&#9",
    ],
)
@pytest.mark.parametrize("begin", ["", "<a", "<title>"])
def test_hostile_html_is_read_in_linear_time(begin: str, piece: str) -> None:
    assert len(text_of(begin + piece * 200_000)) <= 200_001 * len(piece)
