from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relay.transport.stuffing import START, end_of_data, stuff

LINES = st.lists(st.sampled_from([b"\r", b"\n", b".", b"x", b"\r\n", b"\r\n."]), max_size=30).map(b"".join)


def on_the_wire(pieces: list[bytes]) -> bytes:
    before, sent = START, b""
    for piece in pieces:
        sent += stuff(piece, before)
        before = (before + piece)[-2:]
    return sent + end_of_data(before)


@given(LINES, st.lists(st.integers(0, 60), max_size=5))
def test_content_cut_anywhere_goes_out_as_if_it_were_whole(content: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    pieces = [content[a:b] for a, b in pairwise(places)]
    assert on_the_wire(pieces) == on_the_wire([content])


@given(LINES)
def test_what_goes_out_ends_once_and_comes_back_as_it_was(content: bytes) -> None:
    stream = b"\r\n" + on_the_wire([content])
    assert stream.find(b"\r\n.\r\n") == len(stream) - 5
    back = stream[:-3].replace(b"\r\n.", b"\r\n")[2:]
    assert back == (content if content.endswith(b"\r\n") or not content else content + b"\r\n")
