"""From the configuration to what decisions are made of: frozen policy values, nothing with hands."""

from __future__ import annotations

from datetime import timedelta

from relay.config.model import Conditions, Config, RouteSection, SenderRuleSection
from relay.config.settings import of
from relay.config.values import BadValue, plain_address
from relay.mail.address import Address
from relay.mail.aliases import Aliases
from relay.policy.alarms import AlarmMail
from relay.policy.decide import DEFAULT, PRIORITIES, SESSION_CODES, Policy, Route
from relay.policy.retry import Schedule
from relay.policy.rules import Match, Rewrite, SenderRule
from relay.policy.session_code import SessionCodes
from relay.texts.language import texts_in


def policy(config: Config) -> Policy:
    """The policy of a configuration that `load` has checked."""
    codes = config.session_codes
    routes = {
        name: _route(name, route, route.upstreams, route.lifetime)
        for name, route in config.routes.items()
        if name != SESSION_CODES
    }
    if codes.enabled:
        route = config.routes[SESSION_CODES]
        lifetime = min(route.lifetime, codes.lifetime)
        routes[SESSION_CODES] = _route(SESSION_CODES, route, session_code_ways(config), lifetime)
    return Policy(
        hostname=config.hostname,
        senders=tuple(_rule(rule, number) for number, rule in enumerate(config.senders)),
        routes=routes,
        session_codes=session_codes(config) if codes.enabled else None,
        bounces_from=bounces_from(config),
        bounces_also=config.bounces.also,
        bounces_to=config.bounces.to,
        delay_warning=config.bounces.delay_warning,
        short_received=frozenset(one.name for one in config.listeners if one.received == "short"),
        repair_duplicates=frozenset(one.name for one in config.listeners if one.repair_duplicates),
        languages=texts_in,
    )


def alarm_mail(config: Config) -> AlarmMail | None:
    """Who reads alarms, and by which upstreams they come; None where nobody does.

    The one that `alarms` names is asked first, then those of the route "default", then the others. An endpoint of a
    vendor takes session codes, and a folder reaches nobody: neither is asked unless it is named.
    """
    alarms = config.alarms
    readers = config.bounces.also if alarms.to is None else alarms.to
    if not readers:
        return None
    named = () if alarms.upstream is None else (alarms.upstream,)
    others = [name for name, upstream in config.upstreams.items() if upstream.type not in ("https", "capture")]
    ways = dict.fromkeys((*named, *config.routes[DEFAULT].upstreams, *others))
    accounts = {name: upstream.account or name for name, upstream in config.upstreams.items()}
    return AlarmMail(readers, tuple(ways), accounts)


def aliases(config: Config) -> Aliases | None:
    """Who stands for whom, None where nobody does."""
    if not config.aliases:
        return None
    return Aliases(config.hostname, {name.lower(): targets for name, targets in config.aliases.items()})


def session_codes(config: Config) -> SessionCodes:
    """How session codes are known where they are enabled."""
    codes = config.session_codes
    return SessionCodes(tuple(map(_match, codes.match)), bounce_on_expiry=codes.on_expire == "bounce")


def session_code_ways(config: Config) -> tuple[str, ...]:
    """The upstreams of session codes, where they are enabled: the chosen way first, then the other."""
    codes = config.session_codes
    ways = (codes.own, codes.vendor) if codes.via_own_smtp else (codes.vendor, codes.own)
    return ways if codes.fallback else ways[:1]


def _route(name: str, route: RouteSection, upstreams: tuple[str, ...], lifetime: timedelta) -> Route:
    schedule = Schedule(route.retry, lifetime)
    return Route(name, upstreams, schedule, PRIORITIES[route.priority], route.in_doubt == "hold")


def _rule(rule: SenderRuleSection, number: int) -> SenderRule:
    return of(
        rule,
        SenderRule,
        name=rule.name or f"senders[{number}]",
        match=_match(rule.match, all_authors=rule.keep),
        rewrite=of(rule, Rewrite) if rule.address is not None else None,
        when_refused=rule.when == "refused",
    )


def _match(conditions: Conditions, *, all_authors: bool = False) -> Match:
    return of(conditions, Match, header=tuple(conditions.header.items()), all_authors=all_authors)


def bounces_from(config: Config) -> Address:
    """As configured, else the first rule's address, else the account of the first upstream, else postmaster."""
    if config.bounces.from_ is not None:
        return config.bounces.from_
    for rule in config.senders:
        if rule.address is not None:
            return rule.address
    for name in dict.fromkeys((*config.routes[DEFAULT].upstreams, *config.upstreams)):
        upstream = config.upstreams[name]
        if upstream.mailbox is not None:
            try:
                return plain_address(upstream.mailbox)
            except BadValue:
                continue
    return Address("postmaster", config.hostname)
