"""Looking at the domains that mail is sent from, in DNS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from relay.cli.doctor import of_domain
from relay.cli.doctor.findings import Chapter, Finding, untried, warning
from relay.cli.doctor.names import DnsSilent
from relay.cli.doctor.of_domain import Dmarc, Spf, Way
from relay.cli.language import say
from relay.config.model import Config
from relay.config.preset import preset
from relay.errors import RelayError
from relay.mail.address import Address
from relay.policy.decide import DEFAULT

_LEAST_LABELS = 2  # above these are no domains of anybody
_MOST_INCLUDED = 30  # records of SPF that are followed


class Asked(Protocol):
    """Whom we ask for TXT records: `names.Names`."""

    async def texts(self, name: str) -> tuple[str, ...]: ...


def senders(config: Config) -> dict[str, list[str]]:
    """The configured addresses that mail leaves with, by the upstream that may see them."""
    found: dict[str, list[str]] = {}
    for author, reverse, upstream in _ways(config):
        for address in (author, reverse):
            if isinstance(address, Address) and str(address) not in found.setdefault(upstream, []):
                found[upstream].append(str(address))
    return found


def _ways(config: Config) -> Iterator[tuple[Address, Address | None, str]]:
    """From, reverse-path and upstream, each as configured; no reverse-path where it is the application's, or null."""
    for rule in config.senders:
        if rule.address is not None:
            reverse = {"address": rule.address, "keep": None}.get(str(rule.envelope), rule.envelope)
            for name in _upstreams(config, rule.route):
                yield rule.address, reverse if isinstance(reverse, Address) else None, name
    if config.bounces.from_ is not None:
        for name in _upstreams(config, None):
            yield config.bounces.from_, None, name


def _upstreams(config: Config, route: str | None) -> tuple[str, ...]:
    return config.routes[route or DEFAULT].upstreams


async def look(config: Config, open_names: Callable[[], Asked]) -> list[Chapter]:
    """A chapter for each domain in a From that is configured."""
    domains: dict[str, list[Way]] = {}
    for author, reverse, name in _ways(config):
        settings = config.upstreams[name]
        if settings.dkim_selectors is None or not author.domain:
            continue
        known = preset(settings.preset) if settings.preset is not None else None
        way = Way(
            upstream=name,
            reverse_domain=reverse.domain if reverse is not None else None,
            term=known.spf if known is not None else "",
            replaced=known.own_reverse_path if known is not None else False,
            selectors=dict.fromkeys(settings.dkim_selectors, False),
        )
        ways = domains.setdefault(author.domain, [])
        if way not in ways and not (reverse is None and any(one.upstream == name for one in ways)):
            ways.append(way)
    if not domains:
        return []
    try:
        names = open_names()
    except RelayError as error:
        return [Chapter(say("finding.domains"), (untried("dns", str(error)),))]
    return [
        Chapter(say("finding.domain", domain=domain), tuple(await _looked(domain, ways, names)))
        for domain, ways in domains.items()
    ]


async def _looked(domain: str, ways: list[Way], names: Asked) -> list[Finding]:
    try:
        dmarc = await _dmarc(domain, names)
        ways = [replace(way, selectors=await _selectors(way, domain, names)) for way in ways]
        reverses = dict.fromkeys(way.reverse_domain for way in ways if way.reverse_domain is not None)
        spf = {reverse: await _spf(reverse, names) for reverse in reverses}
    except DnsSilent as error:
        return [warning("dns", str(error), "dns-silent")]
    found: list[Finding] = []
    for reverse, seen in spf.items():
        found += of_domain.of_spf(reverse, seen, [way for way in ways if way.reverse_domain == reverse])
    by_upstream = {way.upstream: way for way in ways}
    found += of_domain.of_dkim(domain, [*by_upstream.values()])
    found.append(of_domain.of_dmarc(domain, dmarc))
    for way in ways:
        found.append(of_domain.of_alignment(domain, way, spf.get(way.reverse_domain or ""), dmarc))
    return found


async def _dmarc(domain: str, names: Asked) -> Dmarc | None:
    """The record of the domain, or of the nearest above it that has one."""
    labels = domain.split(".")
    for number in range(max(len(labels) - _LEAST_LABELS, 0) + 1):
        above = ".".join(labels[number:])
        tags = of_domain.dmarc_tags(await names.texts(f"_dmarc.{above}"))
        if tags is not None:
            return Dmarc(above, tags)
    return None


async def _selectors(way: Way, domain: str, names: Asked) -> dict[str, bool]:
    found = {}
    for selector in way.selectors:
        texts = await names.texts(f"{selector}._domainkey.{domain}")
        # "p=" with nothing behind it is a key that was revoked.
        parts = [part.replace(" ", "") for text in texts for part in text.split(";")]
        found[selector] = any(part.startswith("p=") and len(part) > 2 for part in parts)
    return found


async def _spf(domain: str, names: Asked) -> Spf:
    records = of_domain.spf_records(await names.texts(domain))
    if len(records) != 1:
        return Spf(records)
    terms = of_domain.spf_terms(records[0])
    found, count = set(terms), of_domain.lookups(terms)
    waiting, seen = of_domain.included(terms), {domain}
    while waiting and len(seen) < _MOST_INCLUDED:
        each = waiting.pop(0)
        if each in seen or "%" in each:  # a macro depends on the message
            continue
        seen.add(each)
        below = of_domain.spf_records(await names.texts(each))
        more = of_domain.spf_terms(below[0]) if below else []
        found.update(more)
        count += of_domain.lookups(more)
        waiting += of_domain.included(more)
    return Spf(records, frozenset(found), count)
