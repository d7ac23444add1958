from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.reply import Reply
from relay.transport.offers import Offers
from relay.transport.replies import LONGEST, ReplyReader, reply_of

GOOD = [
    (b"250 2.1.5 ok\r\n", Reply(250, "2.1.5", "ok")),
    (b"250\r\n", Reply(250, "", "")),
    (b"250 ok\n", Reply(250, "", "ok")),
    (b"550-5.7.1 we do not\r\n550 5.7.1 know you\r\n", Reply(550, "5.7.1", "we do not know you")),
    (b"550-no\r\n550 5.7.1 never\r\n", Reply(550, "5.7.1", "no never")),
    (b"550 4.7.1 odd class\r\n", Reply(550, "", "4.7.1 odd class")),
    (b"450 4.7.1\r\n", Reply(450, "4.7.1", "")),
    (b"250 caf\xe9 \xc3\xa9\r\n", Reply(250, "", "caf\ufffd é")),
    (b"550 \x1b[31mred\x7f\r\n", Reply(550, "", "?[31mred?")),
    (b"550 \xed\xa0\x80\r\n", Reply(550, "", "\ufffd\ufffd\ufffd")),
]
BAD = [
    b"hello\r\n",
    b"2_5 x\r\n",
    b" 25 x\r\n",
    b"25\r\n",
    b"+25 x\r\n",
    b"150 x\r\n",
    b"600 x\r\n",
    b"250x\r\n",
    b"250-a\r\n550 b\r\n",
    b"250 a\0b\r\n",
    b"\xb2\xb5\xb0 x\r\n",
    b"\r\n",
    b"250 " + b"x" * LONGEST + b"\r\n",
    b"x" * (LONGEST + 1),
    b"250-x\r\n" * (LONGEST // 5 + 1),
]


@pytest.mark.parametrize(("raw", "reply"), GOOD)
def test_a_reply_is_read_as_code_status_and_one_printable_line(raw: bytes, reply: Reply) -> None:
    assert [reply_of(one) for one in ReplyReader().feed(raw)] == [reply]


@pytest.mark.parametrize(("raw", "reply"), GOOD)
def test_a_reply_reads_the_same_byte_by_byte(raw: bytes, reply: Reply) -> None:
    reader = ReplyReader()
    replies = [one for n in range(len(raw)) for one in reader.feed(raw[n : n + 1])]
    assert [reply_of(one) for one in replies] == [reply]
    assert reader.clean


@pytest.mark.parametrize("raw", BAD, ids=range(len(BAD)))
def test_what_is_no_reply_is_not_taken_for_one(raw: bytes) -> None:
    reader = ReplyReader()
    assert reader.feed(b"250 ok\r\n" + raw + b"250 ok\r\n") == [b"250 ok"]
    assert reader.broken
    assert not reader.clean
    assert reader.feed(b"250 ok\r\n") == []


def test_half_a_reply_is_pending() -> None:
    reader = ReplyReader()
    assert reader.feed(b"250-a\r\n") == []
    assert not reader.clean
    assert reader.feed(b"250 b") == []
    assert reader.feed(b"\r\n250 c") == [b"250-a\n250 b"]
    assert not reader.clean


@given(st.binary(max_size=200))
def test_no_text_of_an_upstream_makes_a_reply_that_cannot_be_stored(text: bytes) -> None:
    for raw in ReplyReader().feed(b"550 " + text + b"\r\n"):
        reply = reply_of(raw)
        reply.text.encode()
        assert reply.text.isprintable()


@given(st.lists(st.sampled_from([raw for raw, _ in GOOD]), min_size=1), st.data())
def test_where_the_stream_is_cut_does_not_matter(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cut = data.draw(st.integers(0, len(stream)))
    reader = ReplyReader()
    assert reader.feed(stream[:cut]) + reader.feed(stream[cut:]) == ReplyReader().feed(stream)


def test_a_size_that_is_no_number_is_no_limit() -> None:
    assert Offers.of({"size": "²"}).size == 0
    assert Offers.of({"size": ""}).size == 0
    assert Offers.of({"size": "1000"}).size == 1000
    assert Offers.of({}).size is None
