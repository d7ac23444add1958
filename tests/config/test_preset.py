"""Presets: every one is a good upstream, says where it comes from, and can be overridden."""

from __future__ import annotations

import pytest

from relay.config import preset
from relay.config.advice import warnings
from relay.config.load import parse
from relay.config.model import Config
from relay.config.upstreams import SmtpUpstream
from relay.errors import BadConfig

WANTED = {
    *("m365", "m365-connector", "m365-hve", "azure-acs", "outlook.com", "gmail", "google-relay", "ses", "sendgrid"),
    *("mailgun", "postmark", "brevo", "mailjet", "zoho", "transip", "kpn", "ziggo", "hostnet", "one.com", "strato"),
    *("zeelandnet", "proximus", "combell", "telenet", "ovh", "ionos"),
}
LOGIN = "username: a@example.nl, password: {file: /etc/relay/own-password}"
TOKEN = "provider: microsoft, grant: device_code, tenant: consumers, client_id: x"
XOAUTH2 = f"username: a@example.nl, oauth2: {{{TOKEN}}}"


def written(name: str, more: str = "") -> str:
    known = preset.preset(name)
    keys = [f"preset: {name}", *(f"{key}: example.nl" for key in known.parameters), *([more] if more else [])]
    return f"hostname: relay.example.nl\nupstreams:\n  own: {{{', '.join(keys)}}}\n"


def upstream(text: str) -> SmtpUpstream:
    own = parse(text).upstreams["own"]
    assert isinstance(own, SmtpUpstream)
    return own


def test_all_providers_of_the_list_are_there() -> None:
    assert set(preset.names()) == WANTED


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_preset_fills_in_a_whole_upstream_and_warns_of_nothing(name: str) -> None:
    known = preset.preset(name)
    login = {"none": "", "xoauth2": XOAUTH2}.get(known.upstream.get("auth", ""), LOGIN)
    rules = "senders: [{address: a@example.nl}]\n" if known.sender in ("account", "rewritten") else ""
    config: Config = parse(written(name, login) + rules)
    own = config.upstreams["own"]
    assert isinstance(own, SmtpUpstream)
    assert "{" not in own.host
    assert own.port == known.upstream["port"]
    assert own.tls == known.upstream["tls"]
    assert [str(warning) for warning in warnings(config)] == []


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_preset_says_where_it_comes_from_and_when_that_was_looked_at(name: str) -> None:
    known = preset.preset(name)
    assert known.sources
    assert all(source.startswith("https://") for source in known.sources)
    assert known.title
    assert len(preset.table(name).lines) >= len(preset.table(None).lines)


def test_what_the_file_says_goes_before_the_preset() -> None:
    own = upstream(written("m365", f"port: 25, max_connections: 2, {LOGIN}"))
    assert (own.host, own.port, own.max_connections, own.auth) == ("smtp.office365.com", 25, 2, "login")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("preset: m365-connector, domain: bakker.example.nl", "bakker-example-nl.mail.protection.outlook.com"),
        (f"preset: ses, region: eu-west-1, {LOGIN}", "email-smtp.eu-west-1.amazonaws.com"),
        ("preset: m365-connector, host: mx.example.nl", "mx.example.nl"),
    ],
)
def test_parameters_make_the_host(text: str, host: str) -> None:
    assert upstream(f"upstreams:\n  own: {{{text}}}\n").host == host


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("preset: m356", 'upstreams.own.preset: no preset named "m356" (did you mean "m365"?)'),
        (f"preset: ses, {LOGIN}", "upstreams.own.region: missing, as preset: ses needs it"),
        ("preset: m365-connector", "upstreams.own.domain: missing, as preset: m365-connector needs it"),
        (
            f"preset: transip, region: nl, {LOGIN}",
            "upstreams.own.region: preset: transip does not need it (leave it out)",
        ),
        (
            "host: smtp.example.nl, domain: example.nl",
            "upstreams.own.domain: no effect without a preset (leave it out)",
        ),
        ("preset: m365", "upstreams.own.auth: login needs username and password"),
    ],
)
def test_what_a_preset_lacks_or_does_not_know_is_an_error(text: str, problem: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse(f"upstreams:\n  own: {{{text}}}\n")
    assert any(problem in str(error) for error in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (f"preset: m365, auth: plain, {LOGIN}", 'takes login and xoauth2 only: it answers "504 5.7.4 Unrecognized'),
        (f"preset: m365, max_connections: 9, {LOGIN}", "takes 3 connections, and refuses more"),
        (
            f"preset: transip, host: smtp.example.nl, {LOGIN}",
            "not that of preset: transip, which is smtp.transip.email (remove host",
        ),
    ],
)
def test_what_contradicts_a_preset_is_warned_of(text: str, warning: str) -> None:
    config = parse(f"hostname: r.example.nl\nupstreams:\n  own: {{{text}}}\n")
    assert any(warning in str(each) for each in warnings(config)), warnings(config)


def test_a_provider_that_rewrites_by_itself_refuses_nobody_and_a_rule_that_waits_for_that_is_warned_of() -> None:
    text = written("gmail", LOGIN) + "senders:\n  - {address: a@example.nl, when: refused}\n"
    assert any("refuses no sender" in str(each) for each in warnings(parse(text)))
