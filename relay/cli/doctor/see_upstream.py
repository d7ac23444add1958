"""Looking at one upstream: a connection as mail would make it, without mail."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from relay import wiring
from relay.cli.doctor import of_upstream
from relay.cli.doctor.findings import Chapter, Finding, bad, untried
from relay.cli.reach import Nobody
from relay.config.model import Config, HttpsUpstream, SmtpUpstream
from relay.errors import RelayError
from relay.events import Event, UpstreamConnected
from relay.mail.outcome import Deferred
from relay.observe.trouble import Answer
from relay.transport.smtp import SmtpTransport
from relay.transport.transaction import SmtpConnection

_PATIENCE = timedelta(seconds=20)  # for each reply: a person waits


async def look(
    name: str, config: Config, senders: Iterable[str], *, aside: Answer | None, state_key: str | None
) -> Chapter:
    """`senders`: the addresses to ask about. `aside`: what the running relay heard at AUTH, if that is not to be
    tried again."""
    settings = config.upstreams[name]
    if isinstance(settings, HttpsUpstream):
        return Chapter(f"{name}: {settings.url.where}", tuple(await _endpoint(name, settings, config)))
    if not isinstance(settings, SmtpUpstream):
        return Chapter(name, (untried("upstream", f"type: {settings.type} is not looked at"),))
    title = f"{name}: {settings.host} port {settings.port}"
    try:
        return Chapter(title, tuple(await _looked(name, _hurried(config, name), senders, aside, state_key)))
    except RelayError as error:
        return Chapter(title, (bad("upstream", str(error), "check"),))


class _Certificate:
    """An observer that hears until when the certificate of a connection is good."""

    ends: datetime | None = None

    def observe(self, event: Event) -> None:
        if isinstance(event, UpstreamConnected):
            self.ends = event.certificate_expires


async def _endpoint(name: str, settings: HttpsUpstream, config: Config) -> list[Finding]:
    certificate = _Certificate()
    outcome = await wiring.transport(name, config, observer=certificate).connect()
    stopped = outcome if isinstance(outcome, Deferred) else None
    if not isinstance(outcome, Deferred):
        await outcome.close()
    return list(of_upstream.of_endpoint(name, settings, certificate.ends, stopped, datetime.now(UTC)))


async def _looked(
    name: str, config: Config, senders: Iterable[str], aside: Answer | None, state_key: str | None
) -> list[Finding]:
    settings = config.upstreams[name]
    assert isinstance(settings, SmtpUpstream)
    found = _ends(name, config)
    way = wiring.transport(name, config, observer=Nobody(), state_key=state_key)
    assert isinstance(way, SmtpTransport)
    login = aside is None
    if way.tokens is not None:
        token = await way.tokens.get(fresh=True)
        if isinstance(token, Deferred):
            found.append(of_upstream.of_stop(name, token, "token"))
            login = False
        else:
            ends = datetime.fromtimestamp(token.expires_at, UTC)
            found.append(of_upstream.of_token(way.tokens.terms.username, ends))
    if not login:
        anonymous = {"auth": "none", "username": None, "password": None, "oauth2": None}
        config = _changed(config, name, settings.model_copy(update=anonymous))
        way = wiring.transport(name, config, observer=Nobody())
        assert isinstance(way, SmtpTransport)
    outcome = await way.connect()
    stopped = outcome if isinstance(outcome, Deferred) else None
    found += of_upstream.of_way(name, settings, way.heard, stopped)
    if isinstance(outcome, Deferred):
        return found
    try:
        if login:
            found.append(of_upstream.of_login(settings))
            found += await _senders(name, outcome, senders)
        elif aside is not None:
            found.append(of_upstream.of_login_aside(name, aside))
        else:
            found.append(untried("auth", "not tried without a token"))
    finally:
        await outcome.close()
    return found


async def _senders(name: str, connection: SmtpConnection, senders: Iterable[str]) -> list[Finding]:
    found = []
    for address in senders:
        try:
            found.append(of_upstream.of_sender(name, address, await connection.ask_sender(address)))
        except ConnectionError as error:
            found.append(untried("sender", f"{address}: {error}"))
            break
    return found or [untried("sender", "no sender rule names an address")]


def _ends(name: str, config: Config) -> list[Finding]:
    now = datetime.now(UTC)
    ends = wiring.credentials(config)
    return [
        of_upstream.of_end(name, what, ends[f"{what}:{name}"], now)
        for what in ("secret", "certificate")
        if f"{what}:{name}" in ends
    ]


def _hurried(config: Config, name: str) -> Config:
    """The same, with as much patience as a person has."""
    settings = config.upstreams[name]
    assert isinstance(settings, SmtpUpstream)
    times = settings.timeouts
    shorter = {key: min(getattr(times, key), _PATIENCE) for key in ("connect", "greeting", "command")}
    return _changed(config, name, settings.model_copy(update={"timeouts": times.model_copy(update=shorter)}))


def _changed(config: Config, name: str, settings: SmtpUpstream) -> Config:
    return config.model_copy(update={"upstreams": {**config.upstreams, name: settings}})


async def clock_of(config: Config) -> tuple[float, str] | None:
    """How far this machine's clock is ahead of one of those that it depends on, and whose that is."""
    import asyncio
    from urllib.parse import urlsplit

    from relay.transport.token_http import TokenHttp

    for settings in config.upstreams.values():
        if not isinstance(settings, SmtpUpstream) or settings.oauth2 is None:
            continue
        with contextlib.suppress(RelayError):
            terms = wiring.oauth2_terms(settings)
            url = terms.authority or terms.token_url
            ahead = await asyncio.to_thread(TokenHttp(terms.tls_ca).ahead, url)
            if ahead is not None:
                return ahead, urlsplit(url).hostname or url
    return None
