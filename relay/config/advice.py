"""What is legal but unwise: warnings, each with its place and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path as FilePath

from relay.config import compile, idle, outside, password, preset
from relay.config.checks import beyond_loopback
from relay.config.model import Config
from relay.config.problems import Finding, Path, below, did_you_mean
from relay.config.secrets import Secret
from relay.config.upstreams import IMPLICIT
from relay.errors import ConfigError, RelayError
from relay.policy.decide import SESSION_CODES

LONGEST_PATIENCE = timedelta(seconds=100)  # the timeout of .NET's SmtpClient, and of much else


def warnings(config: Config) -> list[ConfigError]:
    """All warnings, in the order of the file; each is a ConfigError by form, and none of them an error."""
    parts: tuple[Callable[[Config], Iterable[Finding]], ...] = (
        _hostname,
        _secrets,
        _keys,
        _listeners,
        _upstreams,
        _accounts,
        _senders,
        _patterns,
        _alarms,
        _admin,
    )
    found = [finding for part in parts for finding in part(config)]
    found.sort(key=lambda finding: config.source.line(finding.path) or 0)
    return [config.source.error(finding) for finding in found]


def _hostname(config: Config) -> Iterator[Finding]:
    if "." not in config.hostname:
        told = "EHLO says the address literal, which some providers refuse"
        yield Finding(("hostname",), f"no dot in the host name: {told}", "write the full name, as in relay.example.nl")


def _secrets(config: Config) -> Iterator[Finding]:
    for path, secret in outside.secrets(config):
        if path[0] == "alarms":
            continue  # whoever may read the file may as well know where alarms go
        if secret.kind == "plain" and not (path[0] == "listeners" and secret.reference.startswith(password.PREFIX)):
            better = "a hash made by relay hash" if path[0] == "listeners" else "{credential: NAME} or {file: PATH}"
            yield Finding(path, "the password itself stands in the file", f"better: {better}")
            if path in config.source.commented:
                problem = 'it ends before " #" in this line, as YAML takes that for a comment'
                yield Finding(path, problem, "put quotes around all of it, if # belongs to it")
        if (file := _file(secret)) is not None:
            yield from outside.exposed(path, file)


def _file(secret: Secret) -> FilePath | None:
    try:
        return secret.path() if secret.kind in ("file", "credential") else None
    except RelayError:
        return None


def _keys(config: Config) -> Iterator[Finding]:
    for path, file in outside.files(config):
        if file.private is not None:
            key, private = file.private
            yield from outside.exposed((*path, *key), private)


def _listeners(config: Config) -> Iterator[Finding]:
    for number, listener in config.smtp_listeners.items():
        path: Path = ("listeners", number)
        if listener.auth == "users" and listener.tls == "none" and any(map(beyond_loopback, listener.listen)):
            problem = "without TLS only this machine itself can log in, and users are required"
            yield Finding((*path, "auth"), problem, "write tls: starttls")
        for place, address in enumerate(listener.listen):
            if address.kind == "tcp" and address.port == IMPLICIT and listener.tls != "implicit":
                problem = f"software that uses port {IMPLICIT} begins with TLS, and tls is {listener.tls}"
                yield Finding((*path, "listen", place), problem, "write tls: implicit, or another port")
        if listener.reply == "direct" and listener.patience > LONGEST_PATIENCE:
            problem = "most software gives up before, sends again, and the mail arrives twice"
            yield Finding((*path, "patience"), problem, "stay below its own timeout, as with 20s")
        if listener.tls_profile == "legacy":
            problem = "TLS 1.0 and 1.1 protect little, and whoever is on the way can choose them"
            yield Finding(
                (*path, "tls_profile"), problem, "give software that knows nothing newer a listener of its own"
            )
        if listener.proxy_protocol and "allow" not in listener.model_fields_set:
            problem = (
                "the client that a PROXY header names is judged by allow, and by default that is this machine only"
            )
            yield Finding((*path, "allow"), problem, "name the networks your applications are in")


def _upstreams(config: Config) -> Iterator[Finding]:
    codes, routes = config.session_codes, [route.upstreams for route in config.routes.values()]
    ways_of_codes = {codes.own, codes.vendor} if codes.enabled else set()
    used = ways_of_codes.union(*routes)
    followed = set[str]().union(*[ways[:-1] for ways in routes], ways_of_codes if codes.fallback else ())
    for name, upstream in config.upstreams.items():
        path: Path = ("upstreams", name)
        if name not in used and name != codes.vendor:
            yield Finding(path, "no route leads to this upstream", "name it in routes.default.upstreams")
        yield from below(path, upstream.warnings)
        if name in used and upstream.preset is not None:
            yield from _sender_of(config, (*path, "preset"), preset.preset(upstream.preset))
        if upstream.on_client_error == "next" and name not in followed:
            problem = "no route has an upstream behind this one: what it refuses fails all the same"
            hint = "write on_client_error: fail, or name another in the route"
            yield Finding((*path, "on_client_error"), problem, hint)


def _sender_of(config: Config, path: Path, known: preset.Preset) -> Iterator[Finding]:
    """A provider that lets the account alone send, where nobody's mail is made to come from it.

    Who keeps all senders as they are has decided so.
    """
    decided = any(
        rule.address is not None or (rule.keep and not rule.match.model_fields_set) for rule in config.senders
    )
    problem = {
        "account": "this provider refuses mail that is not from the account, and no rule gives it that address",
        "rewritten": "this provider puts the account into From without a word, and no rule keeps who wrote",
    }.get(known.sender)
    if problem is not None and not decided:
        hint = "add senders: [{address: …}] with the mailbox's address, or [{keep: true}] where all mail is from it"
        yield Finding(path, problem, hint)


def _accounts(config: Config) -> Iterator[Finding]:
    for names in config.accounts.values():
        first = config.upstreams[names[0]]
        for name in names[1:]:
            upstream = config.upstreams[name]
            for key in ("max_connections", "rate", "daily_recipients"):
                if getattr(upstream, key) != getattr(first, key):
                    problem = f"not the same as in upstreams.{names[0]}, which leads to the same account"
                    yield Finding(("upstreams", name, key), problem, "write the same: for both the strictest counts")


def _senders(config: Config) -> Iterator[Finding]:
    telling = {listener.name for listener in config.smtp_listeners.values() if listener.auth == "any"}
    names = [listener.name for listener in config.listeners]
    for number, rule in enumerate(config.senders):
        path: Path = ("senders", number, "match")
        heard = [n for n in names if rule.match.listener is None or any(p.matches(n) for p in rule.match.listener)]
        if not heard:
            wanted = rule.match.listener[0].source if rule.match.listener else ""
            yield Finding((*path, "listener"), "no listener has such a name", did_you_mean(wanted, names))
        if rule.match.user is not None and telling & set(heard):
            problem = "with auth: any a client may call itself anything"
            yield Finding((*path, "user"), problem, "write auth: users where the name decides")
        for name in _rewriting_upstreams(config) if rule.when == "refused" else ():
            problem = f"{name} refuses no sender, it puts its own address into From without a word"
            yield Finding(("senders", number, "when"), problem, "write when: always")
        if rule.hold and rule.match.session_code:
            problem = "a session code that waits for a person expires before"
            yield Finding(("senders", number, "hold"), problem, "write session_code: false")
        is_gate = rule.hold and not rule.keep and rule.address is None
        if not rule.match.model_fields_set and not is_gate and number + 1 < len(config.senders):
            hint = "put it last, or give it a match"
            yield Finding(("senders", number), "this rule matches all mail, so the rules below it never speak", hint)


def _patterns(config: Config) -> Iterator[Finding]:
    for number, rule in enumerate(config.senders):
        yield from idle.findings(("senders", number, "match"), rule.match)
    for number, match in enumerate(config.session_codes.match):
        yield from idle.findings(("session_codes", "match", number), match)


def _rewriting_upstreams(config: Config) -> Iterator[str]:
    for name, upstream in config.upstreams.items():
        if upstream.preset is not None and preset.preset(upstream.preset).sender == "rewritten":
            yield name


def _alarms(config: Config) -> Iterator[Finding]:
    alarms, mail = config.alarms, compile.alarm_mail(config)
    if alarms.to is not None and not alarms.to and "upstream" in alarms.model_fields_set:
        yield Finding(("alarms", "upstream"), "no effect, as alarms.to is empty", "name who gets them")
    if alarms.command and shutil.which(alarms.command[0]) is None:
        yield Finding(("alarms", "command"), "there is no such program here", "write its whole path")
    if mail is None or alarms.command or alarms.webhook is not None:
        return
    where: Path = ("alarms", "to") if alarms.to is not None else ("bounces", "also")
    alone = [name for name in mail.ways if config.upstreams[name].server is not None and not mail.apart([name])]
    if alone:
        problem = (
            f"an alarm about upstream {alone[0]} (its login, its certificate, an outage) has no other way to leave"
        )
        yield Finding(where, problem, "add alarms.command, alarms.webhook, or an upstream with another account")


def _admin(config: Config) -> Iterator[Finding]:
    admin = config.admin
    if admin.listen is not None and beyond_loopback(admin.listen) and "allow" not in admin.model_fields_set:
        yield Finding(("admin", "allow"), "only this machine itself may scrape", "say who else, or listen on 127.0.0.1")
    codes = config.routes.get(SESSION_CODES)
    if codes is not None and not config.session_codes.enabled:
        yield Finding(("routes", SESSION_CODES), "not used, as session_codes.enabled is false")
    elif codes is not None and codes.in_doubt == "hold":
        problem = "a session code is never held: one that got no answer ends as failed, without a second try"
        yield Finding(("routes", SESSION_CODES, "in_doubt"), problem, "write in_doubt: retry")
