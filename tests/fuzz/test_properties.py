"""Any octets, in the suite: a few hundred of each kind. `fuzz/` asks the same for as long as one likes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.properties import PROPERTIES
from tests.fuzz.words import WORDS
from tests.kit.extent import examples

ANY = st.lists(st.sampled_from(WORDS) | st.binary(max_size=6), max_size=30).map(b"".join)
HOW = st.binary(min_size=2, max_size=2)


def holds(name: str, octets: bytes) -> None:
    PROPERTIES[name](octets)


@given(st.sampled_from([b"FROM:", b"TO:", b"FROM:<", b"TO:<", b""]), ANY)
@example(b"TO:<", b"a@b> X=\x01")
def test_any_path_is_an_address_or_a_clean_refusal(front: bytes, octets: bytes) -> None:
    holds("path", front + octets)


@given(ANY)
def test_any_header_is_read_and_written_as_it_came(octets: bytes) -> None:
    holds("header", octets)


@pytest.mark.parametrize("name", ["data", "bdat"])
@examples(300)
@given(how=HOW, octets=ANY)
def test_cuts_change_no_content(name: str, how: bytes, octets: bytes) -> None:
    holds(name, how + octets)


@examples(100)
@given(step=st.binary(min_size=1, max_size=1), octets=ANY)
@example(step=b"\x01", octets=b"\r\nx\n.\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<x@example.com>\r\nDATA\r\ny")
def test_content_is_one_message_and_never_two(step: bytes, octets: bytes) -> None:
    holds("message", step + octets)


@examples(100)
@given(step=st.binary(min_size=1, max_size=1), octets=ANY)
def test_whatever_is_said_is_answered_in_smtp(step: bytes, octets: bytes) -> None:
    holds("session", step + octets)


@pytest.mark.parametrize("check", PROPERTIES.values(), ids=PROPERTIES)
def test_nothing_at_all_is_something_as_well(check: Callable[[bytes], None]) -> None:
    check(b"")
