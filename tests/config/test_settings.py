"""From the sections of the file to the settings of those who follow them: each key arrives, and has one default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay import wiring
from relay.config import logins, model, upstreams
from relay.config.load import parse
from relay.config.reference import parts
from relay.config.section import Section
from relay.config.settings import of
from relay.delivery.alarm_webhook import WebhookTerms
from relay.delivery.upstream import UpstreamLimits
from relay.ingress.pickup import PickupSettings
from relay.ingress.settings import ListenerLimits, ListenerSettings
from relay.policy.decide import Policy, Route
from relay.policy.rules import Match, Rewrite, SenderRule
from relay.policy.session_code import SessionCodes
from relay.transport.exchange import Terms
from relay.transport.https import HttpsSettings
from relay.transport.oauth2 import OAuth2Terms
from relay.transport.smtp import SmtpSettings
from relay.transport.transaction import SmtpTimeouts
from tests.kit import configured

FOLLOWED: Mapping[type[Section], tuple[type[Any], ...]] = {
    model.SmtpListener: (ListenerSettings,),
    model.Limits: (ListenerLimits,),
    model.PickupListener: (PickupSettings,),
    upstreams.SmtpUpstream: (SmtpSettings, UpstreamLimits),
    upstreams.Timeouts: (SmtpTimeouts,),
    upstreams.HttpsUpstream: (HttpsSettings, Terms, UpstreamLimits),
    upstreams.HttpsTimeouts: (HttpsSettings, Terms),
    upstreams.CaptureUpstream: (UpstreamLimits,),
    logins.MicrosoftOAuth2: (OAuth2Terms,),
    logins.GoogleOAuth2: (OAuth2Terms,),
    logins.GenericOAuth2: (OAuth2Terms,),
    model.RouteSection: (Route,),
    model.SenderMatch: (Match,),
    model.SessionCodeMatch: (Match,),
    model.SenderRuleSection: (SenderRule, Rewrite),
    model.SessionCodesSection: (SessionCodes,),
    model.Webhook: (WebhookTerms,),
    model.Config: (Policy,),
}
"""The settings that a section becomes."""

READ_AS_THEY_ARE = {model.User, model.Queue, model.History, model.Bounces, model.AlarmsSection, model.Admin, model.Log}
"""Sections of which nobody has settings: `wiring`, `compile` and `daemon` read them key by key."""

ELSEWHERE: Mapping[type[Section], Mapping[str, str]] = {
    model.SmtpListener: {
        "type": "which section this is",
        "listen": "the sockets, which `daemon.doors` opens",
        "certificate": "in tls_context",
        "key": "in tls_context",
        "tls_profile": "in tls_context",
        "users": "in verify",
        "reply": "patience is None unless it is direct",
        "received": "in the policy",
        "repair_duplicates": "in the policy",
    },
    model.PickupListener: {
        "type": "which section this is",
        "received": "in the policy",
        "repair_duplicates": "in the policy",
    },
    upstreams.SmtpUpstream: {
        "type": "which section this is",
        "preset": "filled in; and in the table of refusals",
        "domain": "filled in to host, by the preset",
        "region": "filled in to host, by the preset",
        "oauth2": "the token source",
        "rate": "the pace of the account",
        "daily_recipients": "the pace of the account",
        "long_lines": "LongLines",
        "dkim_selectors": "relay doctor",
    },
    upstreams.HttpsUpstream: {
        "type": "which section this is",
        "format": "template is None with mime",
        "fields": "template",
        "password": "secret, as auth says",
        "token": "secret, as auth says",
        "timeouts": "a section",
    },
    upstreams.CaptureUpstream: {"type": "which section this is", "directory": "what CaptureTransport is made of"},
    logins.MicrosoftOAuth2: {"secret_expires": "outside.credentials"},
    logins.GoogleOAuth2: {"secret_expires": "outside.credentials"},
    logins.GenericOAuth2: {"secret_expires": "outside.credentials"},
    model.RouteSection: {
        "retry": "in the schedule",
        "lifetime": "in the schedule",
        "in_doubt": "hold_in_doubt",
    },
    model.SenderRuleSection: {"when": "when_refused"},
    model.SessionCodesSection: {
        "enabled": "whether there are any",
        "via_own_smtp": "the upstreams of their route",
        "own": "the upstreams of their route",
        "vendor": "the upstreams of their route",
        "fallback": "the upstreams of their route",
        "lifetime": "the schedule of their route",
        "on_expire": "bounce_on_expiry",
    },
    model.Config: {
        "language": "whoever writes sentences",
        "listeners": "a section",
        "upstreams": "a section",
        "queue": "a section",
        "bounces": "a section",
        "aliases": "at the listeners",
        "alarms": "a section",
        "admin": "a section",
        "log": "a section",
    },
}
"""Keys that arrive under another name, or in something else that is made of them."""

SECTIONS = {part.model for part in parts()}


@pytest.mark.parametrize("section", sorted(SECTIONS - READ_AS_THEY_ARE, key=lambda each: each.__name__))
def test_each_key_reaches_a_setting_of_its_name_or_is_known_to_arrive_elsewhere(section: type[Section]) -> None:
    arrived = {field.name for kind in FOLLOWED[section] for field in fields(kind)}
    elsewhere = ELSEWHERE.get(section, {}).keys()
    assert section.model_fields.keys() - arrived == elsewhere
    assert not arrived & elsewhere


@pytest.mark.parametrize("section", FOLLOWED)
def test_no_settings_have_a_default_of_their_own_for_what_has_a_key(section: type[Section]) -> None:
    kinds = [kind for kind in FOLLOWED[section] if kind is not Match]  # there None is: not asked
    given = {
        field.name
        for kind in kinds
        for field in fields(kind)
        if field.default is not MISSING or field.default_factory is not MISSING
    }
    assert not given & section.model_fields.keys()


def test_what_is_copied_is_plain() -> None:
    written = "{host: a.nl, username: jan, password: geheim, tls_ca: /ca.pem, timeouts: {final: 1m30s}}"
    own = parse(f"upstreams:\n  own: {written}\n").upstreams["own"]
    assert isinstance(own, upstreams.SmtpUpstream)
    made = of(own, SmtpSettings, name="own", hostname="h.nl", timeouts=of(own.timeouts, SmtpTimeouts))
    assert made.timeouts.final == 90.0
    assert made.tls_ca == "/ca.pem"
    assert made.password is not None
    assert made.password() == "geheim"
    assert "geheim" not in repr(made)


def test_what_is_given_beside_a_section_comes_before_it() -> None:
    rule = configured.LEAST.senders[0]
    made = of(rule, SenderRule, name="x", match=Match(), rewrite=None, when_refused=False, remember=timedelta(days=2))
    assert (made.name, made.remember) == ("x", timedelta(days=2))


def test_a_setting_that_nobody_gives_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="hostname"):
        of(configured.OWN, SmtpSettings, name="own", timeouts=configured.timeouts())


def test_the_header_of_a_file_that_is_picked_up_may_be_as_large_as_at_a_door(tmp_path: Path) -> None:
    folder = f"listeners: [{{type: pickup, directory: {tmp_path}}}]\nupstreams: {{own: {{host: a.nl}}}}\n"
    config = parse(folder)
    (listener,) = config.pickup_listeners.values()
    made, usual = wiring.pickup_settings(listener, config), model.Limits()
    assert (made.header_size, made.header_fields) == (usual.header_size, usual.header_fields)
    assert made.directory == tmp_path
