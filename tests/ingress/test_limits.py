"""What one client may cost."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.ingress import replies
from relay.ingress.limits import AUTH_TRIES_A_MINUTE, SPOOLING_IN_ALL, AuthTries, ClientRates, Memory, Sessions
from relay.ingress.transaction import Transaction
from relay.policy.client import allowed, is_loopback, plain
from relay.policy.rate import Rate


def test_sessions_are_bounded_in_all_and_for_each_client() -> None:
    sessions = Sessions()
    entered = [sessions.enter("a", most=3, most_per_client=2) for _ in range(3)]
    assert entered == [True, True, False]
    assert sessions.enter("b", most=3, most_per_client=2)
    assert not sessions.enter("c", most=3, most_per_client=2)
    sessions.leave("a")
    assert sessions.enter("c", most=3, most_per_client=2)
    for client in ("a", "b", "c"):
        sessions.leave(client)
    assert sessions.total == 0
    assert not sessions._by_client


def test_the_twenty_first_failure_within_a_minute_is_refused_before_it_is_tried() -> None:
    tries = AuthTries()
    for second in range(AUTH_TRIES_A_MINUTE):
        assert not tries.refuses("a", float(second))
        tries.failed("a", float(second))
    assert tries.refuses("a", 20.0)
    assert not tries.refuses("b", 20.0)
    assert tries.refuses("a", 60.0)
    assert not tries.refuses("a", 61.0)  # the first is forgotten
    assert not tries.refuses("a", 200.0)
    assert not tries._failures


def test_only_so_many_addresses_are_remembered() -> None:
    tries = AuthTries()
    tries.REMEMBERED = 3  # type: ignore[misc]
    for client in ("a", "b", "a", "c", "d"):
        tries.failed(client, 0.0)
    assert set(tries._failures) == {"a", "c", "d"}


def test_nobody_reads_on_while_the_disk_is_behind_and_memory_scarce() -> None:
    memory, told = Memory(most=10), list[str]()
    memory.used = SPOOLING_IN_ALL + 20
    memory.spooling = SPOOLING_IN_ALL + 1
    assert memory.crowded
    memory.wait(lambda: told.append("read on"))
    memory.spooled(2)
    assert not memory.crowded
    assert told == []  # some more has to go first, so that who reads on may read on for a while
    memory.spooled(memory.spooling)
    memory.spooled(0)
    assert told == ["read on"]


def test_memory_is_scarce_beyond_its_bound() -> None:
    memory = Memory(10)
    memory.used = 10
    assert not memory.scarce
    memory.used = 11
    assert memory.scarce


@pytest.mark.parametrize(
    ("address", "folded"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:0:1", "::ffff:0:1"),
    ],
)
def test_addresses_have_one_form(address: str, folded: str) -> None:
    assert plain(address) == folded


NETWORKS = (ip_network("127.0.0.0/8"), ip_network("2001:db8::/32"))


@pytest.mark.parametrize(
    ("client", "expected"),
    [("127.9.9.9", True), ("128.0.0.1", False), ("2001:db8:1::1", True), ("::1", False), ("local", False), ("", False)],
)
def test_clients_are_allowed_by_network(client: str, expected: bool) -> None:
    assert allowed(client, NETWORKS) is expected


@pytest.mark.parametrize(
    ("client", "expected"), [("127.0.0.1", True), ("::1", True), ("192.0.2.1", False), ("local", True), ("", False)]
)
def test_loopback_is_known(client: str, expected: bool) -> None:
    assert is_loopback(client) is expected


def test_messages_beyond_the_rate_of_a_client_are_refused_until_the_window_has_moved_on() -> None:
    rates, rate = ClientRates(), Rate(3, 60.0)
    assert [rates.take("a", rate, 100.0 + second) for second in range(4)] == [True, True, True, False]
    assert rates.take("b", rate, 104.0)
    assert not rates.take("a", rate, 159.9)
    assert rates.take("a", rate, 170.0)


@given(
    st.lists(st.floats(0, 30), max_size=200), st.integers(1, 20), st.sampled_from([0.5, 1.0, 60.0]), st.floats(0, 10**6)
)
def test_never_more_than_the_rate_comes_within_any_window(
    gaps: list[float], count: int, seconds: float, now: float
) -> None:
    rates, rate = ClientRates(), Rate(count, seconds)
    taken = list[float]()
    for gap in gaps:
        now += gap
        if rates.take("a", rate, now):
            taken.append(now)
        else:
            assert sum(now - moment <= seconds * 17 / 16 + 1e-6 for moment in taken) >= count  # not refused for nothing
    for moment in taken:
        assert sum(moment <= other < moment + seconds - 1e-6 for other in taken) <= count


def test_a_rate_that_is_changed_counts_from_then_on() -> None:
    rates = ClientRates()
    assert rates.take("a", Rate(1, 1.0), 1_000.0)
    assert not rates.take("a", Rate(1, 1.0), 1_000.5)
    assert rates.take("a", Rate(1, 3600.0), 1_000.6)
    assert not rates.take("a", Rate(1, 3600.0), 1_001.0)


def test_the_rates_of_only_so_many_addresses_are_remembered() -> None:
    rates, rate = ClientRates(), Rate(1, 60.0)
    for number in range(ClientRates.REMEMBERED + 10):
        assert rates.take(f"client {number}", rate, 1.0)
    assert len(rates._slots) == ClientRates.REMEMBERED
    assert not rates.take(f"client {number}", rate, 2.0)
    assert rates.take("client 0", rate, 2.0)  # forgotten
    for second in range(1_000):
        rates.take("busy", Rate(10**6, 60.0), float(second))
    assert len(rates._slots["busy"]) <= ClientRates.SLOTS + 1


def test_envelopes_are_bounded_in_all_and_each_may_have_a_hundred_recipients_all_the_same() -> None:
    memory = Memory(most_envelopes=100_000)
    many, few = Transaction(memory=memory), Transaction(memory=memory)
    argument = b"TO:<a-rather-long-local-part.%d@department.example.com>"
    for transaction in (many, few):
        assert transaction.mail(b"FROM:<>", largest=lambda: 1) == replies.SENDER_OK
    taken = 0
    while many.rcpt(argument % taken, most=1000) == replies.RECIPIENT_OK:
        taken += 1
    assert 300 < taken < 1000
    assert {few.rcpt(argument % number, most=1000) for number in range(100)} == {replies.RECIPIENT_OK}
    assert many.rcpt(argument % taken, most=1000) == replies.TOO_MANY_RECIPIENTS
    many.reset()
    assert few.rcpt(argument % 100, most=1000) == replies.RECIPIENT_OK
    few.reset()
    assert memory.envelopes == 0
