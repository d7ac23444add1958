"""From the configuration to what decisions are made of: frozen policy values, nothing with hands."""

from __future__ import annotations

from relay.config.model import (
    Config,
    Match,
    SenderMatch,
    SenderRule,
    SessionCodeMatch,
    SmtpUpstream,
)
from relay.config.values import BadValue, address
from relay.mail.address import Address
from relay.policy import decide, rules
from relay.policy.decide import DEFAULT, SESSION_CODES
from relay.policy.retry import Schedule
from relay.policy.session_code import SessionCodes


def policy(config: Config) -> decide.Policy:
    """The policy of a configuration that `load` has checked."""
    codes = config.session_codes
    routes = {name: _route(name, config) for name in config.routes if name != SESSION_CODES}
    if codes.enabled:
        routes[SESSION_CODES] = _session_code_route(config)
    return decide.Policy(
        hostname=config.hostname,
        senders=tuple(_rule(rule, number) for number, rule in enumerate(config.senders)),
        routes=routes,
        session_codes=session_codes(config) if codes.enabled else None,
        bounces_from=bounces_from(config),
        bounces_also=config.bounces.also,
        bounces_to=config.bounces.to,
        delay_warning=config.bounces.delay_warning,
    )


def session_codes(config: Config) -> SessionCodes:
    """How session codes are known where they are enabled."""
    codes = config.session_codes
    return SessionCodes(tuple(map(_match, codes.match)), codes.on_expire == "bounce")


def _route(name: str, config: Config) -> decide.Route:
    route = config.routes[name]
    schedule = Schedule(route.retry, route.lifetime)
    return decide.Route(name, route.upstreams, schedule, decide.PRIORITIES[route.priority], route.in_doubt == "hold")


def session_code_ways(config: Config) -> tuple[str, ...]:
    """The upstreams of session codes, where they are enabled: the chosen way first, then the other."""
    codes = config.session_codes
    ways = (codes.own, codes.vendor) if codes.via_own_smtp else (codes.vendor, codes.own)
    return ways if codes.fallback else ways[:1]


def _session_code_route(config: Config) -> decide.Route:
    """Of the two lifetimes the shorter one."""
    codes, route = config.session_codes, config.routes[SESSION_CODES]
    schedule = Schedule(route.retry, min(route.lifetime, codes.lifetime))
    priority = decide.PRIORITIES[route.priority]
    return decide.Route(SESSION_CODES, session_code_ways(config), schedule, priority, route.in_doubt == "hold")


def _rule(rule: SenderRule, number: int) -> rules.SenderRule:
    rewrite = None
    if rule.address is not None:
        rewrite = rules.Rewrite(rule.address, rule.display_name, rule.reply_to, rule.envelope)
    return rules.SenderRule(
        name=rule.name or f"senders[{number}]",
        match=_match(rule.match, all_authors=rule.keep),
        rewrite=rewrite,
        route=rule.route,
        hold=rule.hold,
        when_refused=rule.when == "refused",
        remember=rule.remember,
    )


def _match(match: Match, *, all_authors: bool = False) -> rules.Match:
    codes = match if isinstance(match, SessionCodeMatch) else None
    return rules.Match(
        from_=match.from_,
        envelope_from=match.envelope_from,
        to=match.to,
        subject=match.subject,
        header=tuple(match.header.items()),
        client=match.client,
        listener=match.listener,
        user=match.user,
        session_code=match.session_code if isinstance(match, SenderMatch) else None,
        max_size=codes.max_size if codes else None,
        recipients=codes.recipients if codes else None,
        all_authors=all_authors,
    )


def bounces_from(config: Config) -> Address:
    """As configured, else the first rule's address, else the account of the first upstream, else postmaster."""
    if config.bounces.from_ is not None:
        return config.bounces.from_
    for rule in config.senders:
        if rule.address is not None:
            return rule.address
    for name in dict.fromkeys((*config.routes[DEFAULT].upstreams, *config.upstreams)):
        upstream = config.upstreams[name]
        if isinstance(upstream, SmtpUpstream) and upstream.username is not None:
            try:
                return address(upstream.username)
            except BadValue:
                continue
    return Address("postmaster", config.hostname)
