"""What no single key can tell: names that lead nowhere, keys that exclude or need each other.

Each function yields findings; all of them together are told at once.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from relay.config.model import Conditions, Config, SenderRuleSection, SmtpListener
from relay.config.problems import Finding, Path, below, did_you_mean, quoted
from relay.config.values import ListenAddress, is_loopback
from relay.policy.decide import SESSION_CODES

MOST_RULES = 1_000
MOST_PATTERNS = 4_000

_WIDEST = {4: 8, 6: 32}


def findings(config: Config) -> list[Finding]:
    """All impossible combinations, in the order of the file's parts."""
    parts: tuple[Callable[[Config], Iterable[Finding]], ...] = (
        _listeners,
        _addresses,
        _folders,
        _upstreams,
        _routes,
        _senders,
        _session_codes,
        _matching,
        _bounces,
    )
    return [finding for part in parts for finding in part(config)]


def beyond_loopback(address: ListenAddress) -> bool:
    """True where others than this machine can connect; Unix sockets cannot, sockets of systemd are not judged."""
    return address.kind == "tcp" and not is_loopback(address.host)


def _listeners(config: Config) -> Iterator[Finding]:
    yield from _twice(((("listeners", n, "name"), each.name) for n, each in enumerate(config.listeners)), "listener")
    for number, listener in config.smtp_listeners.items():
        yield from _door(("listeners", number), listener)


def _door(path: Path, listener: SmtpListener) -> Iterator[Finding]:
    given = listener.model_fields_set
    if "allow" not in given and any(map(beyond_loopback, listener.listen)):
        yield Finding(
            (*path, "allow"),
            "missing, and this listener can be reached from beyond this machine",
            "say who may connect, as in allow: [192.168.1.0/24]",
            ((*path, "listen"),),
        )
    whose = {"allow": "name the networks your applications are in", "proxy_protocol": "name your load balancers"}
    for key, hint in whose.items():
        for number, network in enumerate(getattr(listener, key)):
            if network.prefixlen < _WIDEST[network.version]:
                widest = f"/{_WIDEST[4]} (v4) or /{_WIDEST[6]} (v6)"
                yield Finding((*path, key, number), f"a network wider than {widest}", hint)
        if key in given and getattr(listener, key) and all(address.kind == "unix" for address in listener.listen):
            looked_at: tuple[Path, ...] = ((*path, "listen"),)
            yield Finding(
                (*path, key), "no effect on a Unix socket, which is of this machine", "leave it out", looked_at
            )
    if "patience" in given and listener.reply != "direct":
        yield Finding((*path, "patience"), "no effect with reply: queued", "write reply: direct", ((*path, "reply"),))
    yield from _tls(path, listener)
    users: Path = (*path, "users")
    if listener.auth == "users" and not listener.users:
        yield Finding(
            users, "auth is users, and there are none", "add users: [{name: …, password: …}]", ((*path, "auth"),)
        )
    if listener.auth != "users" and listener.users:
        yield Finding(users, f"no effect with auth: {listener.auth}", "write auth: users", ((*path, "auth"),))
    yield from _twice((((*users, n, "name"), user.name) for n, user in enumerate(listener.users)), "user", tell=False)


def _tls(path: Path, listener: SmtpListener) -> Iterator[Finding]:
    tls: Path = (*path, "tls")
    for key, value in (("certificate", listener.certificate), ("key", listener.key)):
        if listener.tls != "none" and value is None:
            yield Finding((*path, key), f"missing, as tls is {listener.tls}", "name a PEM file", (tls,))
        if listener.tls == "none" and value is not None:
            yield Finding((*path, key), "no effect with tls: none", "write tls: starttls or tls: implicit", (tls,))
    if listener.require_tls and listener.tls == "none":
        yield Finding(
            (*path, "require_tls"), "impossible with tls: none", "write tls: starttls or tls: implicit", (tls,)
        )
    if listener.tls_profile != "modern" and listener.tls == "none":
        yield Finding(
            (*path, "tls_profile"), "no effect with tls: none", "write tls: starttls or tls: implicit", (tls,)
        )


def _addresses(config: Config) -> Iterator[Finding]:
    """No two doors at one place; an address that stands for all others takes their port as well."""
    admin = config.admin
    own: list[tuple[Path, ListenAddress, str]] = [
        (("admin", "socket"), ListenAddress("unix", str(admin.socket)), "admin.socket")
    ]
    if admin.listen is not None:
        own.append((("admin", "listen"), admin.listen, "admin.listen"))
    listeners: list[tuple[Path, ListenAddress, str]] = [
        (("listeners", number, "listen", place), address, f"listener {quoted(listener.name)}")
        for number, listener in config.smtp_listeners.items()
        for place, address in enumerate(listener.listen)
    ]
    given = [each for each in own if each[0][-1] in admin.model_fields_set]
    places = [*(each for each in own if each not in given), *listeners, *given]  # a finding is at a key of the file
    for number, (path, address, _) in enumerate(places):
        taken = [(other, name) for other, there, name in places[:number] if same_place(address, there)]
        if taken:
            other, name = taken[0]
            hint = "choose another path" if address.kind == "unix" else "choose another port"
            yield Finding(path, f"{name} has this address already", hint, (other,))


def same_place(one: ListenAddress, other: ListenAddress) -> bool:
    """True where the two cannot be listened on at once."""
    if one.kind != other.kind or one.port != other.port or (one.kind == "tcp" and one.port == 0):
        return False
    if one.host == other.host:
        return True
    a, b = one.ip, other.ip
    return a is not None and b is not None and a.version == b.version and (a.is_unspecified or b.is_unspecified)


def _folders(config: Config) -> Iterator[Finding]:
    """No two listeners take files from one folder, and none from a folder that the relay itself writes into."""
    written: dict[str, Path] = {
        os.path.normpath(upstream.directory): ("upstreams", name, "directory")
        for name, upstream in config.upstreams.items()
        if upstream.directory is not None
    }
    read: dict[str, Path] = {}
    for number, listener in config.pickup_listeners.items():
        path: Path = ("listeners", number, "directory")
        folder = os.path.normpath(listener.directory)
        if folder in written:
            problem = "the relay itself writes into this folder: mail would go round in circles"
            yield Finding(path, problem, "choose another folder", (written[folder],))
        if folder in read:
            problem = "another listener takes files from this folder already"
            yield Finding(path, problem, "choose another folder", (read[folder],))
        read[folder] = path


def _upstreams(config: Config) -> Iterator[Finding]:
    listeners = config.smtp_listeners.values()
    own_ports = {address.port for listener in listeners for address in listener.listen if address.kind == "tcp"}
    for name, upstream in config.upstreams.items():
        path: Path = ("upstreams", name)
        yield from below(path, upstream.mistakes)
        if upstream.local_port in own_ports:
            looked_at: tuple[Path, ...] = ((*path, "tls"), (*path, "port"), ("listeners",))
            yield Finding((*path, "host"), "this is the relay itself: mail would go round in circles", "", looked_at)


def _routes(config: Config) -> Iterator[Finding]:
    for name, route in config.routes.items():
        path: Path = ("routes", name, "upstreams")
        if not route.upstreams and name != SESSION_CODES:
            yield Finding(path, "must not be empty", did_you_mean("", config.upstreams))
        for number, upstream in enumerate(route.upstreams):
            if upstream in route.upstreams[:number]:
                yield Finding(path, f"upstream {quoted(upstream)} is named twice")
            else:
                yield from _exists(path, "upstream", upstream, config.upstreams)


def _senders(config: Config) -> Iterator[Finding]:
    names = [rule.name or f"senders[{n}]" for n, rule in enumerate(config.senders)]
    yield from _twice(((("senders", n, "name"), name) for n, name in enumerate(names)), "rule")
    for number, rule in enumerate(config.senders):
        path: Path = ("senders", number)
        yield from _effect(path, rule)
        if rule.route == SESSION_CODES:
            yield Finding((*path, "route"), "this route is for session codes only", "name another route")
        elif rule.route is not None:
            yield from _exists((*path, "route"), "route", rule.route, set(config.routes) - {SESSION_CODES})


def _effect(path: Path, rule: SenderRuleSection) -> Iterator[Finding]:
    if not rule.keep and not rule.hold and rule.address is None:
        hint = "add address: …, keep: true or hold: true"
        looked_at = ((*path, "address"), (*path, "keep"), (*path, "hold"))
        yield Finding(path, "the rule does nothing: no address, no keep and no hold", hint, looked_at)
    if rule.hold and not rule.keep and rule.address is None:
        for key in ("when", "remember", "display_name", "reply_to", "envelope"):
            if key in rule.model_fields_set:
                yield Finding((*path, key), "no effect without an address", "add address: …", ((*path, "address"),))
    if rule.keep:
        for key in ("address", "when", "remember", "display_name", "reply_to", "envelope"):
            if key in rule.model_fields_set:
                yield Finding((*path, key), "impossible with keep: true", "leave one of them out", ((*path, "keep"),))

    elif rule.address is not None and rule.when != "refused" and "remember" in rule.model_fields_set:
        hint = "write when: refused, or leave it out"
        yield Finding((*path, "remember"), "no effect with when: always", hint, ((*path, "when"),))


def _bounces(config: Config) -> Iterator[Finding]:
    also = config.bounces.also
    for number, address in enumerate(also):
        if address in also[:number]:
            yield Finding(("bounces", "also", number), "this address stands here twice", "remove one")


def _session_codes(config: Config) -> Iterator[Finding]:
    codes = config.session_codes
    path: Path = ("session_codes",)
    own_only = codes.via_own_smtp and not codes.fallback
    for key, name in (("own", codes.own), ("vendor", codes.vendor)):
        given = key in codes.model_fields_set
        needed = codes.enabled and not (key == "vendor" and own_only)
        if (given or needed) and name not in config.upstreams:
            hint = did_you_mean(name, config.upstreams)
            if key == "vendor" and not given:
                hint = "name it, or write via_own_smtp: true and fallback: false"
            yield Finding((*path, key), f"no upstream named {quoted(name)}", hint, (("upstreams",), (*path, "enabled")))
    if codes.enabled and codes.own == codes.vendor and not own_only:
        yield Finding((*path, "vendor"), "the same upstream as own", "", ((*path, "own"),))
    if codes.enabled:
        for upstream in config.routes[SESSION_CODES].upstreams:
            if upstream in config.upstreams and upstream not in (codes.own, codes.vendor):
                problem = f"session codes do not go by upstream {quoted(upstream)}"
                looked_at = ((*path, "own"), (*path, "vendor"))
                hint = "their ways are session_codes.own and session_codes.vendor"
                yield Finding(("routes", SESSION_CODES, "upstreams"), problem, hint, looked_at)


def _matching(config: Config) -> Iterator[Finding]:
    """Every message is held against all of them, and that has to end soon."""
    yield from _many(("senders",), [rule.match for rule in config.senders])
    yield from _many(("session_codes", "match"), config.session_codes.match)


def _many(path: Path, matches: Sequence[Conditions]) -> Iterator[Finding]:
    rules, patterns = len(matches), sum(map(_patterns, matches))
    if rules > MOST_RULES:
        yield Finding(path, f"{rules} rules; there can be {MOST_RULES} at most", "a rule may name many addresses")
    if patterns > MOST_PATTERNS:
        hint = "one pattern may stand for many addresses, such as *@example.nl"
        yield Finding(path, f"{patterns} patterns; there can be {MOST_PATTERNS} at most", hint)


def _patterns(match: Conditions) -> int:
    """How many there are, networks among them."""
    asked = (match.from_, match.envelope_from, match.to, match.subject, match.client, match.listener, match.user)
    return sum(len(patterns) for patterns in (*asked, *match.header.values()) if patterns is not None)


def _exists(path: Path, kind: str, name: str, known: Iterable[str]) -> Iterator[Finding]:
    names = list(known)
    if name not in names:
        looked_at: tuple[Path, ...] = ((f"{kind}s",),)
        yield Finding(path, f"no {kind} named {quoted(name)}", did_you_mean(name, names), looked_at)


def _twice(named: Iterable[tuple[Path, str]], kind: str, *, tell: bool = True) -> Iterator[Finding]:
    seen: Counter[str] = Counter()
    for path, name in named:
        seen[name] += 1
        if seen[name] > 1:
            yield Finding(path, f"a second {kind} named {quoted(name)}" if tell else f"a second {kind} of this name")
