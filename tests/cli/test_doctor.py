"""What `relay doctor` makes of what it saw: domains, and what an upstream said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from relay.cli.doctor import of_domain, of_machine, of_upstream
from relay.cli.doctor.findings import Chapter, Finding, Mark, is_good
from relay.cli.doctor.names import _parts
from relay.cli.doctor.of_domain import Dmarc, Spf, Way
from relay.cli.doctor.see_domain import senders
from relay.config.load import parse
from relay.mail.outcome import Deferred, Stage, Trouble
from relay.mail.reply import Reply
from relay.transport.smtp import Heard
from tests.kit import configured

DOMAIN, TERM = "example.nl", "include:spf.example.com"
GOOD = Spf(("v=spf1 …",), frozenset({TERM, "-all"}), 1)
REJECT = Dmarc(DOMAIN, {"p": "reject"})


def way(**parts: object) -> Way:
    terms: dict[str, object] = {
        "upstream": "own",
        "reverse_domain": DOMAIN,
        "term": TERM,
        "replaced": False,
        "selectors": {"s1": False},
    }
    return Way(**(terms | parts))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "spf", "dmarc", "mark", "told"),
    [
        (way(), GOOD, REJECT, Mark.GOOD, "by SPF (own)"),
        (way(selectors={"s1": True}), GOOD, REJECT, Mark.GOOD, "by DKIM and SPF (own)"),
        (way(reverse_domain="mail.example.nl"), GOOD, REJECT, Mark.GOOD, "by SPF (own)"),
        (way(reverse_domain="a.example.nl"), GOOD, Dmarc(DOMAIN, {"aspf": "s"}), Mark.WARNING, "of a.example.nl"),
        (way(reverse_domain="elders.nl"), GOOD, REJECT, Mark.BAD, "the reverse-path is of elders.nl"),
        (way(replaced=True), GOOD, REJECT, Mark.BAD, "the provider's own reverse-path"),
        (way(replaced=True, selectors={"s1": True}), GOOD, REJECT, Mark.GOOD, "by DKIM (own)"),
        (way(), Spf(()), REJECT, Mark.BAD, "there is no good SPF record"),
        (way(), Spf(()), None, Mark.WARNING, "there is no good SPF record"),
        (way(), Spf(("v=spf1 -all",), frozenset({"-all"})), REJECT, Mark.BAD, f"SPF lacks {TERM}"),
        (way(term=""), GOOD, REJECT, Mark.UNTRIED, "whether SPF names this provider is not known"),
        (way(reverse_domain=None, selectors={}), None, REJECT, Mark.UNTRIED, "the application writes"),
    ],
)
def test_mail_is_aligned_by_dkim_or_by_an_spf_that_speaks_of_the_same_domain(
    one: Way, spf: Spf | None, dmarc: Dmarc | None, mark: Mark, told: str
) -> None:
    found = of_domain.of_alignment(DOMAIN, one, spf, dmarc)
    assert (found.mark, told in found.text) == (mark, True), found


def test_the_policy_of_a_domain_above_is_its_sp() -> None:
    above = Dmarc(DOMAIN, {"p": "reject", "sp": "none"})
    assert of_domain.of_dmarc("mail.example.nl", above).text == "p=none (of example.nl)"
    assert of_domain.of_dmarc(DOMAIN, above).text == "p=reject"


def test_look_ups_are_counted_as_receivers_do() -> None:
    terms = of_domain.spf_terms(
        "v=spf1 +a mx:b.nl -exists:%{i}.x a/24 ip4:1.2.3.4 ?include:c.nl redirect=d.nl all=x ~all"
    )
    assert of_domain.lookups(terms) == 6
    assert of_domain.included(["include:c.nl", "redirect=d.nl", "mx"]) == ["c.nl", "d.nl"]


@pytest.mark.parametrize(
    ("spf", "told"),
    [
        (Spf(("v=spf1 a", "v=spf1 b")), "2 SPF records at example.nl"),
        (Spf(("v=spf1 x",), frozenset({TERM}), 11), "needs 11 look-ups: v=spf1 x"),
        (Spf(()), "no SPF record at example.nl"),
    ],
)
def test_an_spf_record_that_receivers_do_not_heed_is_bad(spf: Spf, told: str) -> None:
    found = [*of_domain.of_spf(DOMAIN, spf, [way()])]
    assert [(one.mark, one.text) for one in found] == [(Mark.BAD, told)]


def test_two_dmarc_records_are_none() -> None:
    assert of_domain.dmarc_tags(["v=DMARC1; p=none", "v=DMARC1; p=reject"]) is None
    assert of_domain.dmarc_tags(["other", "v=DMARC1 ; P = Reject;"]) == {"v": "dmarc1", "p": "reject"}


def test_the_senders_of_a_rule_are_asked_about_at_the_upstreams_of_its_route() -> None:
    config = parse(
        "hostname: r.example.nl\n"
        "upstreams: {own: {host: a.nl}, other: {host: b.nl}}\n"
        "routes: {second: {upstreams: [other]}, default: {upstreams: [own]}}\n"
        "bounces: {from: post@example.nl}\n"
        "senders:\n"
        "  - {match: {from: x@y.nl}, address: a@example.nl, envelope: b@example.nl, route: second}\n"
        "  - {address: c@example.nl, envelope: keep}\n"
    )
    assert senders(config) == {"other": ["a@example.nl", "b@example.nl"], "own": ["c@example.nl", "post@example.nl"]}


# An upstream


def heard(*mechanisms: str, **extensions: str) -> Heard:
    return Heard("TLSv1.3", None, extensions, mechanisms)


def test_what_ehlo_offers_is_held_against_preset_and_configuration() -> None:
    login = configured.smtp(username="a@example.nl", auth="login")
    lacking = [*of_upstream.of_ehlo(login, heard("login"), "m365")]
    assert [(one.mark, "expects AUTH XOAUTH2 as well" in one.text) for one in lacking] == [(Mark.WARNING, True)]
    small = [*of_upstream.of_ehlo(configured.smtp(max_message_size=35_000_000), heard(size="1000000"), None)]
    assert [(one.mark, "max_message_size says 33 MiB" in one.text) for one in small] == [(Mark.WARNING, True)]
    unused = [*of_upstream.of_ehlo(configured.smtp(tls="none"), heard(starttls=""), None)]
    assert [one.mark for one in unused] == [Mark.GOOD, Mark.WARNING]


def test_a_certificate_is_warned_of_two_weeks_before_its_end_and_where_nobody_checks_it() -> None:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    shown = {"notAfter": "Dec  6 00:00:00 2026 GMT", "subjectAltName": (("DNS", "smtp.example.nl"),)}
    soon = of_upstream.of_certificate(configured.smtp(), Heard("TLSv1.3", shown, {}, ()), now)
    assert soon.text == "TLSv1.3 by STARTTLS; certificate good for smtp.example.nl, 10 days left"
    later = of_upstream.of_certificate(configured.smtp(), Heard("TLSv1.3", shown, {}, ()), now - timedelta(days=9))
    unchecked = of_upstream.of_certificate(configured.smtp(tls_verify=False), heard(), now)
    assert [soon.mark, later.mark, unchecked.mark] == [Mark.WARNING, Mark.GOOD, Mark.WARNING]


def test_a_sender_that_is_put_off_is_no_refusal() -> None:
    marks = [of_upstream.of_sender("own", "a@example.nl", Reply(code, "", "x")).mark for code in (250, 451, 550)]
    assert marks == [Mark.GOOD, Mark.WARNING, Mark.BAD]


# The machine, and all of it


def test_mail_that_waits_for_long_is_warned_of() -> None:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    assert of_machine.of_ages(0, None, now).text == "nothing waits"
    assert of_machine.of_ages(2, now - timedelta(hours=3), now).mark is Mark.GOOD
    assert of_machine.of_ages(2, now - timedelta(hours=5), now).text == "2 waiting, the oldest for 5h"
    assert of_machine.of_fsync(0.9).mark is Mark.WARNING


def test_a_clock_that_nobody_can_judge_is_unknown() -> None:
    assert [of_machine.of_kernel_clock(each).mark for each in (True, False, None)] == [
        *(Mark.GOOD, Mark.WARNING, Mark.UNTRIED)
    ]
    assert [of_machine.of_clock(each, "x").mark for each in (-5, 60, -300)] == [Mark.GOOD, Mark.WARNING, Mark.BAD]


def test_only_what_is_bad_is_no_good() -> None:
    for mark in Mark:
        assert is_good([Chapter("x", (Finding(mark, "dns", "y"),))]) is (mark is not Mark.BAD)


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("9.9.9.9", ("9.9.9.9", 53)),
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("2620:fe::fe", ("2620:fe::fe", 53)),
        ("[2620:fe::fe]:54", ("2620:fe::fe", 54)),
        ("[2620:fe::fe]", ("2620:fe::fe", 53)),
    ],
)
def test_a_nameserver_may_have_a_port(written: str, parts: tuple[str, int]) -> None:
    assert _parts(written) == parts


def test_of_several_addresses_each_has_a_line_and_one_that_is_sick_is_a_warning() -> None:
    well = Heard("TLSv1.3", None, {}, ())
    sick = Deferred(Stage.BANNER, Trouble.TRANSIENT, "too busy", Reply(421, "4.3.2", "too busy"), upstream_sick=True)
    away = Deferred(
        Stage.CONNECT, Trouble.TRANSIENT, "no connection to mail.example.nl port 25: Network is unreachable"
    )
    found = [*of_upstream.of_addresses("own", [("192.0.2.1", sick), ("192.0.2.2", well), ("2001:db8::1", away)])]
    assert [(one.mark, one.text) for one in found] == [
        (Mark.WARNING, "192.0.2.1: banner: 421 4.3.2 too busy"),
        (Mark.GOOD, "192.0.2.2"),
        (Mark.UNTRIED, f"2001:db8::1: connect: {away.text}"),
    ]
    assert found[0].remedy is not None
