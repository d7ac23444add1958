"""Settings as the configuration makes them of a file that says next to nothing, with what a test has to say besides.

Their defaults are those of the sections (`relay.config.model`, `upstreams` and `logins`), which are nowhere else.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from relay.config import compile, logins, model, upstreams
from relay.config.load import parse
from relay.config.settings import of
from relay.delivery.upstream import UpstreamLimits
from relay.ingress.pickup import PickupSettings
from relay.ingress.settings import ListenerLimits, ListenerSettings
from relay.mail.address import Address
from relay.policy.decide import Policy, Route
from relay.policy.retry import Schedule
from relay.policy.rules import Match, Rewrite, SenderRule
from relay.policy.session_code import SessionCodes
from relay.transport.exchange import Terms
from relay.transport.https import HttpsSettings
from relay.transport.oauth2 import OAuth2Terms
from relay.transport.smtp import SmtpSettings
from relay.transport.transaction import SmtpTimeouts

HOSTNAME = "relay.example.nl"
LEAST = parse(
    f"hostname: {HOSTNAME}\nupstreams:\n  own: {{host: smtp.example.nl}}\nsenders:\n- {{address: a@example.nl}}\n"
)
POLICY = compile.policy(LEAST)
OWN = LEAST.upstreams["own"]
DOOR = LEAST.smtp_listeners[0]
_TOKENS = {
    "microsoft": logins.MicrosoftOAuth2(provider="microsoft", tenant="tenant", client_id="client"),
    "google": logins.GoogleOAuth2(provider="google"),
    "generic": logins.GenericOAuth2(provider="generic", token_url="https://login.example.com", client_id="client"),
}


def limits(**changed: Any) -> ListenerLimits:
    return replace(of(DOOR.limits, ListenerLimits), **changed)


def listener(**changed: Any) -> ListenerSettings:
    beside = {
        "hostname": HOSTNAME,
        "tls_context": None,
        "verify": None,
        "certificate_ends": None,
        "patience": None,
        "aliases": None,
    }
    return replace(of(DOOR, ListenerSettings, limits=limits(), **beside), **changed)


def pickup(directory: Path, **changed: Any) -> PickupSettings:
    section = model.PickupListener(type="pickup", directory=str(directory))
    usual = limits()
    made = of(
        section,
        PickupSettings,
        directory=directory,
        aliases=None,
        header_size=usual.header_size,
        header_fields=usual.header_fields,
    )
    return replace(made, **changed)


def timeouts() -> SmtpTimeouts:
    return of(OWN.timeouts, SmtpTimeouts)


def smtp(**changed: Any) -> SmtpSettings:
    return replace(of(OWN, SmtpSettings, name="own", hostname=HOSTNAME, timeouts=timeouts()), **changed)


def https(terms: dict[str, Any], **changed: Any) -> HttpsSettings:
    """`terms`: what is to be asked otherwise."""
    section = upstreams.HttpsUpstream(type="https", url="https://localhost/")
    usual = of(
        section,
        Terms,
        url=section.url.text,
        host=section.url.host,
        template=section.fields,
        headers=(),
        total=section.timeouts.total.total_seconds(),
    )
    beside = {"secret": None, "connect": section.timeouts.connect.total_seconds()}
    made = of(section, HttpsSettings, name="vendor", port=section.url.port, terms=replace(usual, **terms), **beside)
    return replace(made, **changed)


def tokens(provider: str, **changed: Any) -> OAuth2Terms:
    section = _TOKENS[provider]
    return replace(of(section, OAuth2Terms, username="", client_id=section.client_id or ""), **changed)


def upstream_limits(**changed: int) -> UpstreamLimits:
    return replace(of(OWN, UpstreamLimits), **changed)


def route(name: str, upstreams: tuple[str, ...], schedule: Schedule, **changed: Any) -> Route:
    return replace(POLICY.routes["default"], name=name, upstreams=upstreams, schedule=schedule, **changed)


def rule(name: str, match: Match | None = None, rewrite: Rewrite | None = None, **changed: Any) -> SenderRule:
    return replace(POLICY.senders[0], name=name, match=match or Match(), rewrite=rewrite, **changed)


def rewrite(address: Address, **changed: Any) -> Rewrite:
    usual = POLICY.senders[0].rewrite
    assert usual is not None
    return replace(usual, address=address, **changed)


def session_codes(*match: Match, bounce_on_expiry: bool | None = None) -> SessionCodes:
    usual = compile.session_codes(LEAST)
    return SessionCodes(match, usual.bounce_on_expiry if bounce_on_expiry is None else bounce_on_expiry)


def policy(**changed: Any) -> Policy:
    """Without sender rules."""
    return replace(POLICY, **{"senders": (), **changed})
