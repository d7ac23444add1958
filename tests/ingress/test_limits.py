"""What one client may cost."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from relay.ingress.limits import AUTH_TRIES_A_MINUTE, AuthTries, Memory, Sessions
from relay.policy.client import allowed, is_loopback, plain


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
