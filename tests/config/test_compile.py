"""From the configuration to policy values."""

from __future__ import annotations

from datetime import timedelta

import pytest

from relay.config.compile import policy
from relay.config.load import parse
from relay.mail.address import Address
from relay.policy.decide import PRIORITIES
from relay.policy.rules import Rewrite

LEAST = "hostname: relay.example.nl\nupstreams:\n  own: {host: a.nl}\n"
BOTH = LEAST + "  vendor: {host: v.nl}\n"


def test_the_default_route_and_its_schedule_always_exist() -> None:
    made = policy(parse(LEAST))
    assert list(made.routes) == ["default"]
    route = made.routes["default"]
    assert (route.upstreams, route.priority) == (("own",), PRIORITIES["normal"])
    assert route.schedule.intervals[:3] == (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=5))
    assert route.schedule.lifetime == timedelta(days=5)
    assert made.session_codes is None


def test_a_rule_without_a_name_is_known_by_its_place() -> None:
    text = "senders:\n  - {name: first, keep: true}\n"
    text += "  - {address: a@b.nl, display_name: '{name}', envelope: keep, route: default}\n"
    first, second = policy(parse(LEAST + text)).senders
    assert (first.name, first.rewrite, first.route) == ("first", None, None)
    assert (second.name, second.route) == ("senders[1]", "default")
    assert second.rewrite == Rewrite(Address("a", "b.nl"), "{name}", "original", "keep")


@pytest.mark.parametrize(
    ("written", "rewritten"),
    [("hold: true", False), ("hold: true, keep: true", False), ("hold: true, address: a@b.nl", True)],
)
def test_a_rule_that_holds_says_what_becomes_of_the_sender_afterwards(written: str, rewritten: bool) -> None:
    (rule,) = policy(parse(f"{LEAST}senders: [{{{written}, route: default}}]\n")).senders
    assert (rule.hold, rule.rewrite is not None, rule.route) == (True, rewritten, "default")
    (rule,) = policy(parse(f"{LEAST}senders: [{{address: a@b.nl}}]\n")).senders
    assert not rule.hold


def test_who_else_reads_bounces_and_when_senders_are_warned() -> None:
    made = policy(parse(LEAST))
    assert (made.bounces_also, made.delay_warning) == ((), None)
    made = policy(parse(LEAST + "bounces: {also: beheer@example.nl, delay_warning: 4h}\n"))
    assert (made.bounces_also, made.delay_warning) == ((Address("beheer", "example.nl"),), timedelta(hours=4))
    made = policy(parse(LEAST + "bounces: {also: [a@b.nl, c@d.nl]}\n"))
    assert made.bounces_also == (Address("a", "b.nl"), Address("c", "d.nl"))


def test_the_conditions_of_a_rule_are_compiled() -> None:
    text = (
        "senders:\n  - keep: true\n    match: {from: ['*@a.nl', b@a.nl], envelope_from: '<>', to: x,"
        " subject: '/(?i)y/', header: {X-Mailer: [a, b]}, client: [10.0.0.0/8], listener: legacy,"
        " user: u, session_code: false}\n"
    )
    match = policy(parse(LEAST + text)).senders[0].match
    assert match.from_ is not None
    assert [pattern.source for pattern in match.from_] == ["*@a.nl", "b@a.nl"]
    assert match.from_[0].matches("Jan@A.nl")
    assert [(name, len(patterns)) for name, patterns in match.header] == [("x-mailer", 2)]
    assert match.session_code is False
    assert (match.max_size, match.recipients, match.all_authors) == (None, None, True)
    assert not policy(parse(LEAST + "senders: [{match: {from: x}, address: a@b.nl}]\n")).senders[0].match.all_authors


@pytest.mark.parametrize(
    ("written", "upstreams"),
    [
        ("enabled: true", ("vendor", "own")),
        ("enabled: true, via_own_smtp: true", ("own", "vendor")),
        ("enabled: true, fallback: false", ("vendor",)),
        ("enabled: true, via_own_smtp: true, fallback: false", ("own",)),
    ],
)
def test_session_codes_go_the_chosen_way_first(written: str, upstreams: tuple[str, ...]) -> None:
    made = policy(
        parse(f"{BOTH}session_codes: {{{written}}}\nroutes:\n  session-codes: {{upstreams: [own, vendor]}}\n")
    )
    route = made.routes["session-codes"]
    assert route.upstreams == upstreams
    assert route.priority == PRIORITIES["high"]
    assert [each.total_seconds() for each in route.schedule.intervals] == [2, 5, 10, 10, 10, 10, 10, 30]
    assert route.schedule.lifetime == timedelta(minutes=10)
    assert made.session_codes is not None
    assert made.session_codes.bounce_on_expiry
    (entry,) = made.session_codes.match
    assert entry.max_size == 50 * 2**10
    assert entry.subject is not None
    assert entry.subject[0].matches("Uw Sessiecode: 1234")
    assert made.routes["default"].upstreams == ("own",)


def test_the_vendor_may_be_left_out_where_nothing_goes_there() -> None:
    made = policy(
        parse(LEAST + "session_codes: {enabled: true, via_own_smtp: true, fallback: false, on_expire: drop}\n")
    )
    assert made.routes["session-codes"].upstreams == ("own",)
    assert made.session_codes is not None
    assert not made.session_codes.bounce_on_expiry


@pytest.mark.parametrize(("route", "minutes"), [("2m", 2), ("1h", 10)])
def test_the_shorter_lifetime_of_session_codes_wins(route: str, minutes: int) -> None:
    text = (
        f"session_codes: {{enabled: true}}\nroutes:\n  session-codes: {{lifetime: {route}, retry: 1s, priority: low}}\n"
    )
    made = policy(parse(BOTH + text)).routes["session-codes"]
    assert made.schedule.lifetime == timedelta(minutes=minutes)
    assert (made.schedule.intervals, made.priority) == ((timedelta(seconds=1),), PRIORITIES["low"])


@pytest.mark.parametrize(
    ("text", "author"),
    [
        ("bounces: {from: bounce@example.nl}\nsenders: [{address: a@example.nl}]\n", "bounce@example.nl"),
        ("senders: [{keep: true, match: {from: x}}, {address: a@example.nl}]\n", "a@example.nl"),
        ("", "u@example.nl"),
    ],
)
def test_notifications_come_from_who_may_send(text: str, author: str) -> None:
    account = (
        "hostname: relay.example.nl\nupstreams:\n  own: {host: a.nl, username: u@example.nl, password: {env: A}}\n"
    )
    assert str(policy(parse(account + text)).bounces_from) == author


def test_without_anybody_else_notifications_come_from_the_postmaster() -> None:
    assert str(policy(parse(LEAST)).bounces_from) == "postmaster@relay.example.nl"
    named = "hostname: relay.example.nl\nupstreams:\n  own: {host: a.nl, username: account, password: {env: A}}\n"
    assert str(policy(parse(named)).bounces_from) == "postmaster@relay.example.nl"
