"""From the configuration to what accounts may do."""

from __future__ import annotations

from relay import wiring
from relay.config import compile
from relay.config.load import parse
from relay.delivery.account import Terms
from relay.policy.pacing import DAY, Limit

START = "hostname: relay.example.nl\nupstreams:\n"
LOGIN = "username: u@example.nl, password: {env: A}"


def terms(text: str) -> dict[str, Terms]:
    config = parse(text)
    return wiring.terms(config, compile.policy(config))


def test_of_upstreams_that_share_an_account_the_strictest_of_each_limit_counts() -> None:
    text = (
        f"{START}  own: {{host: A.nl, {LOGIN}, rate: [30/min, 400/h], max_connections: 2}}\n"
        f"  b: {{host: a.nl, {LOGIN}, rate: 20/min, daily_recipients: 500}}\n"
        "  c: {host: a.nl}\n"
    )
    assert terms(text) == {
        "u@example.nl@a.nl:587": Terms(
            2, (Limit(20, 60.0), Limit(400, 3600.0), Limit(500, DAY, of_recipients=True)), codes=False
        ),
        "@a.nl:587": Terms(3, (), codes=False),
    }


def test_where_session_codes_go_something_is_kept_for_them() -> None:
    text = (
        f"{START}  own: {{host: a.nl, {LOGIN}, preset: m365}}\n  vendor: {{host: v.nl, rate: 10/min}}\n"
        "  other: {host: o.nl, rate: 10/min}\nsession_codes: {enabled: true, vendor: vendor}\n"
    )
    found = terms(text)
    own, vendor, other = found["u@example.nl@a.nl:587"], found["@v.nl:587"], found["@o.nl:587"]
    assert own.limits == (Limit(30, 60.0, kept=6), Limit(10_000, DAY, of_recipients=True, kept=200))
    assert vendor.limits == (Limit(10, 60.0, kept=2),)
    assert other.limits == (Limit(10, 60.0),)
    assert (own.codes, vendor.codes, other.codes) == (True, True, False)
