"""A domain that mail is sent from, as receivers see it: SPF (RFC 7208), DKIM (RFC 6376), DMARC (RFC 7489)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from relay.cli.doctor.findings import Finding, bad, good, untried, warning
from relay.values import frozen

MOST_LOOKUPS = 10  # RFC 7208, section 4.6.4
_LOOKED_UP = ("include:", "a", "mx", "ptr", "exists:", "redirect=")


@frozen
class Spf:
    """The SPF records at a domain, the terms of the first with those of all it includes, and how many look-ups that
    costs a receiver."""

    records: tuple[str, ...]
    terms: frozenset[str] = frozenset()
    lookups: int = 0


@frozen
class Dmarc:
    """A record, and the domain that it stands at: this one, or one above it."""

    domain: str
    tags: Mapping[str, str]


@frozen
class Way:
    """How mail with a From of this domain leaves by one upstream.

    `reverse_domain`: of the reverse-path, None where it is whatever the application wrote. `term`: what SPF must have,
    "" where that is not known. `replaced`: the provider puts in a reverse-path of its own.
    `selectors`: those it signs with, and whether each is in DNS.
    """

    upstream: str
    reverse_domain: str | None
    term: str
    replaced: bool
    selectors: Mapping[str, bool]


def spf_records(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(text for text in texts if text.lower() == "v=spf1" or text.lower().startswith("v=spf1 "))


def spf_terms(record: str) -> list[str]:
    """The terms, in lower case and without what "+" says anyhow."""
    return [term.lower().removeprefix("+") for term in record.split()[1:]]


def included(terms: Sequence[str]) -> list[str]:
    """The domains whose records count as well."""
    return [term.partition(mark)[2] for term in terms for mark in ("include:", "redirect=") if term.startswith(mark)]


def lookups(terms: Sequence[str]) -> int:
    """How many of them a receiver has to look up."""
    bare = [term.lstrip("-~?") for term in terms]
    return sum(
        any(term.startswith(mark) for mark in _LOOKED_UP if mark[-1] in ":=")
        or term.partition(":")[0].partition("/")[0] in _LOOKED_UP
        for term in bare
    )


def dmarc_tags(texts: Sequence[str]) -> dict[str, str] | None:
    """The tags of the one DMARC record among `texts`; None where there is none, or more than one."""
    found = [text for text in texts if text.lower().replace(" ", "").startswith("v=dmarc1")]
    if len(found) != 1:
        return None
    pairs = (part.partition("=") for part in found[0].split(";") if "=" in part)
    return {name.strip().lower(): value.strip().lower() for name, _, value in pairs}


def has_term(spf: Spf, term: str) -> bool:
    """Whether `term`, an include, is there; a redirect to the same domain will do as well."""
    return term in spf.terms or term.replace("include:", "redirect=", 1) in spf.terms


def of_spf(domain: str, spf: Spf, ways: Sequence[Way]) -> Iterator[Finding]:
    """`ways`: those whose reverse-path is of `domain`."""
    wanted = sorted({way.term for way in ways if way.term and not way.replaced})
    if not spf.records:
        if all(way.replaced for way in ways):
            yield good("spf", f"none at {domain}; the provider's own reverse-path has one")
        else:
            term = " ".join(wanted) or "include:…"
            yield bad("spf", f"no SPF record at {domain}", "spf-missing", domain=domain, term=term)
        return
    if len(spf.records) > 1:
        yield bad("spf", f"{len(spf.records)} SPF records at {domain}", "spf-many")
        return
    missing = [term for term in wanted if not has_term(spf, term)]
    if spf.lookups > MOST_LOOKUPS:
        yield bad("spf", f"needs {spf.lookups} look-ups: {spf.records[0]}", "spf-lookups")
    for term in missing:
        yield bad("spf", f"lacks {term}: {spf.records[0]}", "spf-term", term=term)
    if not missing and spf.lookups <= MOST_LOOKUPS:
        yield good("spf", spf.records[0])


def of_dkim(domain: str, ways: Sequence[Way]) -> Iterator[Finding]:
    for way in ways:
        there = [name for name, found in way.selectors.items() if found]
        if there:
            yield good("dkim", f"{', '.join(there)} ({way.upstream})")
        elif way.selectors:
            told = f"none of {', '.join(way.selectors)} is in DNS ({way.upstream})"
            yield warning("dkim", told, "dkim-missing", domain=domain)
        else:
            yield untried("dkim", f"no selectors are known of {way.upstream}: name them in dkim_selectors")


def of_dmarc(domain: str, found: Dmarc | None) -> Finding:
    if found is None:
        return warning("dmarc", f"no DMARC record at _dmarc.{domain}", "dmarc-missing", domain=domain)
    above = "" if found.domain == domain else f" (of {found.domain})"
    return good("dmarc", f"p={_policy(found, domain)}{above}")


def of_alignment(domain: str, way: Way, spf: Spf | None, dmarc: Dmarc | None) -> Finding:
    """Whether a receiver finds that From and what was proven belong together. `spf`: of the reverse-path's domain."""
    by = []
    unknown = not way.selectors
    if any(way.selectors.values()):
        by.append("DKIM")
    if way.reverse_domain is None:
        told = "SPF speaks of the sender that the application writes"
        unknown = True
    elif way.replaced:
        told = "the provider's own reverse-path is of another domain"
    elif not _aligned(domain, way.reverse_domain, dmarc):
        told = f"the reverse-path is of {way.reverse_domain}"
    elif spf is None or len(spf.records) != 1 or spf.lookups > MOST_LOOKUPS:
        told = "there is no good SPF record"
    elif way.term and not has_term(spf, way.term):
        told = f"SPF lacks {way.term}"
    elif way.term:
        by.append("SPF")
        told = ""
    else:
        unknown = True
        told = "whether SPF names this provider is not known"
    if by:
        return good("aligned", f"by {' and '.join(by)} ({way.upstream})" + (f"; {told}" if told else ""))
    if unknown:
        return untried("aligned", f"not known ({way.upstream}): {told}; no DKIM selectors are known")
    told = f"not by DKIM, and not by SPF ({way.upstream}): {told}"
    strict = dmarc is not None and _policy(dmarc, domain) != "none"
    return (bad if strict else warning)("aligned", told, "not-aligned", domain=domain)


def _policy(dmarc: Dmarc, domain: str) -> str:
    own = dmarc.tags.get("p", "none")
    return own if dmarc.domain == domain else dmarc.tags.get("sp", own)


def _aligned(domain: str, reverse: str, dmarc: Dmarc | None) -> bool:
    """The same organisation, as far as DNS tells: one is below the other, or both are below the record's domain."""
    if domain == reverse or dmarc is None or dmarc.tags.get("aspf") == "s":
        return domain == reverse or (dmarc is None and _below(domain, reverse))
    return _below(domain, reverse) or _below(dmarc.domain, reverse)


def _below(one: str, other: str) -> bool:
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")
