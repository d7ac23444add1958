"""Looking at one upstream: a connection as mail would make it, without mail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from relay import wiring
from relay.cli.doctor import of_upstream
from relay.cli.doctor.findings import Chapter, Finding, bad, untried
from relay.cli.language import say
from relay.config import outside
from relay.config.model import Config
from relay.errors import RelayError
from relay.events import Event, UpstreamConnected
from relay.mail.outcome import Deferred
from relay.observe.situation import Answer
from relay.transport.smtp import SmtpTransport
from relay.transport.transaction import SmtpConnection

if TYPE_CHECKING:
    from relay.admin.desk import Desk
    from relay.admin.documents import Document

_PATIENCE = 20.0  # seconds, for each reply: a person waits


async def look(
    name: str,
    config: Config,
    senders: Iterable[str],
    *,
    aside: Answer | None,
    state_key: str | None,
    lender: Desk | None,
) -> Chapter:
    """`senders`: the addresses to ask about. `aside`: what the running relay heard at AUTH, if that is not to be
    tried again. `lender`: the running relay, which lends one of its connections there."""
    settings = config.upstreams[name]
    if settings.server is None:
        return Chapter(name, (untried("upstream", say("finding.not-looked", type=settings.type)),))
    if lender is None:
        return await _look(name, config, senders, aside=aside, state_key=state_key)
    async with _borrowed(lender, name) as refusal:
        if refusal:
            return Chapter(f"{name}: {settings.where}", (untried("upstream", refusal),))
        return await _look(name, config, senders, aside=aside, state_key=state_key)


@contextlib.asynccontextmanager
async def _borrowed(lender: Desk, name: str) -> AsyncIterator[str]:
    """A connection of the running relay, for the block, so that the provider counts none too many; else why not."""
    told = lender.stream("/v1/lend", upstream=name)
    try:
        refusal = await asyncio.to_thread(lambda: _refusal(told))
        yield refusal
    finally:
        told.close()


def _refusal(told: Iterator[Document]) -> str:
    try:
        if next(told)["progress"]["lent"]:
            return ""
        return say("finding.none-lent")
    except RelayError as error:
        return say("finding.not-lent", why=error)


async def _look(
    name: str, config: Config, senders: Iterable[str], *, aside: Answer | None, state_key: str | None
) -> Chapter:
    settings = config.upstreams[name]
    assert settings.server is not None
    host, port = settings.server
    title, certificate = say("finding.upstream", name=name, host=host, port=port), _Certificate()
    try:
        way = wiring.transport(name, config, observer=certificate, state_key=state_key)
        if isinstance(way, SmtpTransport):
            found = await _smtp(way, senders, aside, known=settings.preset)
            return Chapter(title, (*_ends(name, config), *found))
        title = f"{name}: {settings.where}"
        outcome = await way.connect()
        stopped = outcome if isinstance(outcome, Deferred) else None
        if not isinstance(outcome, Deferred):
            await outcome.close()
        return Chapter(
            title, tuple(of_upstream.of_endpoint(name, host, port, certificate.ends, stopped, datetime.now(UTC)))
        )
    except RelayError as error:
        return Chapter(title, (bad("upstream", str(error), "check"),))


class _Certificate:
    """An observer that hears until when the certificate of a connection is good."""

    ends: datetime | None = None

    def observe(self, event: Event) -> None:
        if isinstance(event, UpstreamConnected):
            self.ends = event.certificate_expires


async def _smtp(
    way: SmtpTransport, senders: Iterable[str], aside: Answer | None, *, known: str | None
) -> list[Finding]:
    """`known` is the preset, where there is one."""
    found, name, tokens, login = [], way.name, way.tokens, aside is None
    if tokens is not None:
        token = await tokens.get(fresh=True)
        if isinstance(token, Deferred):
            found.append(of_upstream.of_stop(name, token, "token"))
            login = False
        else:
            ends = datetime.fromtimestamp(token.expires_at, UTC)
            found.append(of_upstream.of_token(tokens.terms.username, ends))
    way = wiring.hurried(way, _PATIENCE, login=login)
    outcome = await way.connect()
    stopped = outcome if isinstance(outcome, Deferred) else None
    found += of_upstream.of_way(way.settings, way.heard, stopped, known)
    inside: list[Finding] = []
    if not isinstance(outcome, Deferred):
        try:
            if login:
                inside = [of_upstream.of_login(way.settings), *await _senders(name, outcome, senders)]
            elif aside is not None:
                inside = [of_upstream.of_login_aside(name, aside)]
            else:
                inside = [untried("auth", say("finding.auth-no-token"))]
        finally:
            await outcome.close()
    # After that, as there is one connection at a time.
    return [*found, *of_upstream.of_addresses(name, [seen async for seen in way.look_at_each()]), *inside]


async def _senders(name: str, connection: SmtpConnection, senders: Iterable[str]) -> list[Finding]:
    found = []
    for address in senders:
        try:
            found.append(of_upstream.of_sender(name, address, await connection.ask_sender(address)))
        except ConnectionError as error:
            found.append(untried("sender", f"{address}: {error}"))
            break
    return found or [untried("sender", say("finding.sender-none"))]


def _ends(name: str, config: Config) -> list[Finding]:
    now = datetime.now(UTC)
    ends = outside.credentials(config)
    return [
        of_upstream.of_end(name, what, ends[f"{what}:{name}"], now)
        for what in ("secret", "certificate")
        if f"{what}:{name}" in ends
    ]


async def clock_of(config: Config) -> tuple[float, str] | None:
    """How far this machine's clock is ahead of one of those that it depends on, and whose that is."""
    import asyncio
    from urllib.parse import urlsplit

    from relay.transport.token_http import TokenHttp

    for settings in config.upstreams.values():
        if settings.oauth2 is None:
            continue
        with contextlib.suppress(RelayError):
            terms = wiring.oauth2_terms(settings)
            url = terms.authority or terms.token_url
            ahead = await asyncio.to_thread(TokenHttp(terms.tls_ca).ahead, url)
            if ahead is not None:
                return ahead, urlsplit(url).hostname or url
    return None
