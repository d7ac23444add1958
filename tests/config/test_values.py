"""Durations, sizes, retry lists, addresses and networks as people write them."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config import values
from relay.config.values import BadValue, ListenAddress
from relay.mail.address import Address
from relay.policy.rate import Rate


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("5d", 432_000), ("1d1h1m1s", 90_061)]
)
def test_a_duration_is_the_sum_of_its_units(text: str, seconds: int) -> None:
    assert values.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "5 m", "m", "30m1h", "1h1h", "-5m", "1.5h", "5M", "0s", "99999d", "٥m", "5m\n"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        values.duration(text)


@pytest.mark.parametrize(
    ("text", "octets"), [("50MiB", 50 * 2**20), ("10MB", 10**7), ("0B", 0), ("1kB", 1000), ("2TiB", 2**41)]
)
def test_a_size_counts_in_the_unit_that_is_written(text: str, octets: int) -> None:
    assert values.size(text) == octets


@pytest.mark.parametrize("text", ["", "50", "50M", "50mib", "1.5MiB", "-1MB", "1 MB", "MiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        values.size(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("3/s", Rate(3, 1)), ("30/min", Rate(30, 60)), ("500/h", Rate(500, 3_600)), ("10000/d", Rate(10_000, 86_400))],
)
def test_a_rate_is_so_many_in_so_much_time(text: str, rate: Rate) -> None:
    assert values.rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "30", "30/m", "30/minute", "0/min", "-1/s", "1.5/s", "30 / min", "/s", "٣/s", "1/s\n"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        values.rate(text)


def test_a_retry_list_is_written_out() -> None:
    minutes = [interval.total_seconds() / 60 for interval in values.retry("1m, 5m*2,15m , 1h * 3, 4h")]
    assert minutes == [1, 5, 5, 15, 60, 60, 60, 240]


@pytest.mark.parametrize("text", ["", ",", "1m,", "1m 5m", "5m*0", "5m*", "5m*-1", "5m*2*2", "*2", "1s*1000, 1s"])
def test_what_is_no_retry_list_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        values.retry(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:25", ListenAddress("tcp", "127.0.0.1", 25)),
        ("[::1]:587", ListenAddress("tcp", "::1", 587)),
        ("[0:0::1]:0", ListenAddress("tcp", "::1", 0)),
        ("LocalHost:25", ListenAddress("tcp", "localhost", 25)),
        ("systemd:relay.socket", ListenAddress("systemd", "relay.socket")),
        ("unix:/run/relay/smtp.sock", ListenAddress("unix", "/run/relay/smtp.sock")),
    ],
)
def test_an_address_to_listen_on_is_host_and_port_a_path_or_sockets_of_systemd(
    text: str, address: ListenAddress
) -> None:
    assert values.listen_address(text) == address
    assert values.listen_address(str(address)) == address


def test_v4_mapped_networks_mean_the_v4_network() -> None:
    assert values.network("::ffff:10.1.0.0/112") == ip_network("10.1.0.0/16")
    assert values.network("::ffff:0:0/96") == ip_network("0.0.0.0/0")
    assert values.network("::/0") == ip_network("::/0")


@pytest.mark.parametrize(
    "text", ["jan@example.nl", "o'neil+x@sub.example.nl", '"a b"@example.nl', "jan@[192.0.2.1]", "é@exämple.nl"]
)
def test_a_bare_address_is_kept_as_it_is(text: str) -> None:
    assert str(values.address(text)) == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("jan@example.nl", "jan@example.nl"),
        ("jan@münchen.example", "jan@xn--mnchen-3ya.example"),
        ("Jan@MU\u0308NCHEN.example", "Jan@xn--mnchen-3ya.example"),
        ("jan@हिन्दी.example", "jan@xn--j2bd4cyah0f.example"),
        ("é@example.nl", None),
        ("é@münchen.example", None),
        ("jan@☃.example", None),
        ("jan@ｇmail.example", None),
        ("Jan <jan@münchen.example>", None),
    ],
)
def test_an_address_of_ours_is_one_that_every_provider_takes(text: str, plain: str | None) -> None:
    if plain is None:
        with pytest.raises(BadValue):
            values.plain_address(text)
    else:
        assert str(values.plain_address(text)) == plain


def test_the_domain_of_an_address_is_folded() -> None:
    assert values.address("Jan@Example.NL") == Address("Jan", "example.nl")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jan",
        "@example.nl",
        "jan@",
        "a b@example.nl",
        "<jan@example.nl>",
        "a@b@c.nl",
        "a..b@c.nl",
        "a@b..c",
        "a@-b.nl",
        "a@b.nl\r\nBcc: x@y.nl",
    ],
)
def test_what_is_no_bare_address_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        values.address(text)


def test_loopback_is_known_in_all_its_forms() -> None:
    assert all(map(values.is_loopback, ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "localhost", "LOCALHOST"]))
    assert not any(map(values.is_loopback, ["0.0.0.0", "::", "10.0.0.1", "localhost.example.nl"]))


@given(st.text(max_size=40), st.sampled_from(["", "☃"]))
def test_any_text_is_a_value_or_a_sentence_that_does_not_repeat_it(text: str, mark: str) -> None:
    parsers = (values.duration, values.size, values.retry, values.listen_address, values.network, values.address)
    for parse in (*parsers, values.rate, values.host_name, values.upstream_host):
        said = ""
        try:
            parse(text + mark)
        except BadValue as bad:
            said = f"{bad.problem} {bad.hint}"
        assert "☃" not in said


@pytest.mark.parametrize(
    ("written", "host", "port", "where"),
    [
        ("https://codes.vendor.example/v1?a=1%20", "codes.vendor.example", 443, "codes.vendor.example"),
        ("https://Codes.Vendor.Example:8443", "codes.vendor.example", 8443, "codes.vendor.example:8443"),
        ("https://[2001:db8::1]:8443/x", "2001:db8::1", 8443, "[2001:db8::1]:8443"),
        ("https://127.0.0.1/", "127.0.0.1", 443, "127.0.0.1"),
    ],
)
def test_a_url_keeps_its_text_and_knows_where_it_leads(written: str, host: str, port: int, where: str) -> None:
    found = values.url(written)
    assert (found.text, found.host, found.port, found.where) == (written, host, port, where)
