"""Where the pieces meet: configuration values become objects with hands.

Only this file makes concrete stores and transports. What a reload changes is made here again;
`daemon` decides when.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from relay.config import accounts, model, password, preset, tls
from relay.config.secrets import Secret, SecretMissing
from relay.delivery.account import Accounts, Terms
from relay.delivery.long_lines import LongLines
from relay.delivery.upstream import Upstream, UpstreamLimits
from relay.errors import BadConfig, ConfigError, RelayError, StoreInUse
from relay.events import Observer
from relay.ingress.pickup import PickupSettings
from relay.ingress.settings import Limits, ListenerSettings
from relay.observe.metrics import Metrics
from relay.observe.tally import Names
from relay.policy.decide import SESSION_CODES, Policy
from relay.policy.pacing import limits
from relay.policy.refusal import HTTP, Table
from relay.queue.sqlite.database import SQLITE_VERSION
from relay.queue.sqlite.start import SqliteStore
from relay.queue.store import QueueStore
from relay.transport.capture import CaptureTransport
from relay.transport.port import Transport
from relay.transport.smtp import SmtpSettings, SmtpTransport
from relay.transport.tls import TlsTerms
from relay.transport.transaction import Timeouts

if TYPE_CHECKING:
    from relay.transport.oauth2 import OAuth2Terms
    from relay.transport.tokens import TokenSource

LOCK_TRIES = 10  # a tenth of a second apart


def now() -> datetime:
    return datetime.now(UTC)


async def open_store(config: model.Config, observer: Observer) -> QueueStore:
    """The store named by `queue.store`; raises StoreInUse, OtherLayout or StoreUnavailable.

    A command that looks into the queue while no relay runs holds it for a moment, and that is waited for.
    """
    queue, tries = config.queue, 0
    while True:
        try:
            return await SqliteStore.open(
                queue.store.path, observer=observer, min_free=queue.min_free, history=queue.history, now=now
            )
        except StoreInUse:
            tries += 1
            if tries == LOCK_TRIES:
                raise
            await asyncio.sleep(0.1)


def token_source(name: str, config: model.Config, *, observer: Observer, state_key: str | None = None) -> TokenSource:
    """Where the tokens of an upstream with `oauth2` come from. Raises RelayError."""
    from relay.transport.token_file import TokenFile  # who logs in with passwords needs none of it
    from relay.transport.tokens import TokenSource

    settings = config.upstreams[name]
    assert isinstance(settings, model.SmtpUpstream)
    file = TokenFile(config.queue.store.beside("tokens") / name, state_key or _state_key())
    return TokenSource(name, oauth2_terms(settings), file, observer=observer, now=now)


def oauth2_terms(settings: model.SmtpUpstream) -> OAuth2Terms:
    from relay.transport.oauth2 import OAuth2Terms

    terms = settings.oauth2
    assert terms is not None
    secret, refresh_token = terms.client_secret, terms.refresh_token
    microsoft = terms if isinstance(terms, model.MicrosoftOAuth2) else None
    return OAuth2Terms(
        provider=terms.provider,
        grant=terms.grant,
        username=settings.username or "",
        client_id=terms.client_id or "",
        client_secret=secret.reveal if secret is not None else None,
        client_auth=terms.client_auth if isinstance(terms, model.GenericOAuth2) else "post",
        refresh_token=refresh_token.reveal if refresh_token is not None else None,
        tenant=microsoft.tenant if microsoft else "",
        authority=microsoft.authority if microsoft else "",
        token_url="" if isinstance(terms, model.MicrosoftOAuth2) else terms.token_url,
        scope=terms.scope,
        certificate=_text(microsoft.certificate) if microsoft else None,
        key=None if isinstance(terms, model.GenericOAuth2) else _text(terms.key),
        ca=_text(terms.tls_ca),
    )


def _state_key() -> str | None:
    """The key that kept tokens are encrypted with: the systemd credential of that name, where there is one."""
    try:
        return Secret("credential", "state-key").reveal()
    except SecretMissing:
        return None


def tokens_of(way: Transport) -> TokenSource | None:
    """Where its tokens come from, if it logs in with any."""
    return way.tokens if isinstance(way, SmtpTransport) else None


def credentials(config: model.Config) -> dict[str, datetime]:
    """When what the relay logs in with ends, by "secret:NAME" or "certificate:NAME"; reads the certificates."""
    ends: dict[str, datetime] = {}
    for name, settings in config.upstreams.items():
        if not isinstance(settings, model.SmtpUpstream):
            continue
        shown = [(settings.tls_certificate, settings.tls_key)]
        terms = settings.oauth2
        if terms is not None and terms.secret_expires is not None:
            day = terms.secret_expires
            ends[f"secret:{name}"] = datetime(day.year, day.month, day.day, tzinfo=UTC)
        if isinstance(terms, model.MicrosoftOAuth2):
            shown.append((terms.certificate, terms.key))
        found = [end for each in shown if (end := _end(*each)) is not None]
        if found:
            ends[f"certificate:{name}"] = min(found)
    return ends


def _end(certificate: Path | None, key: Path | None) -> datetime | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        tls.load_pair(context, certificate, key)
    except (OSError, ssl.SSLError):
        return None  # the transport tells
    return tls.certificate_end(context, certificate)


def oauth2_ends(config: model.Config, ends: dict[str, datetime]) -> dict[str, datetime]:
    """Of those ends, the first of each upstream that logs in with a token."""
    found: dict[str, datetime] = {}
    for what_and_name, end in ends.items():
        name = what_and_name.partition(":")[2]
        settings = config.upstreams[name]
        if isinstance(settings, model.SmtpUpstream) and settings.oauth2 is not None:
            found[name] = min(end, found.get(name, end))
    return found


def transport(name: str, config: model.Config, *, observer: Observer, state_key: str | None = None) -> Transport:
    """The way out of an upstream. Raises RelayError."""
    settings = config.upstreams[name]
    if isinstance(settings, model.CaptureUpstream):
        return CaptureTransport(name, settings.directory)
    if isinstance(settings, model.HttpsUpstream):
        return _https_transport(name, settings, observer)
    tokens = None
    if settings.oauth2 is not None:
        tokens = token_source(name, config, observer=observer, state_key=state_key)
    return SmtpTransport(_smtp_settings(name, settings, config.hostname), observer=observer, tokens=tokens)


def terms(config: model.Config, policy: Policy) -> dict[str, Terms]:
    """What each account may do; where upstreams that share one differ, the strictest counts."""
    codes = policy.routes.get(SESSION_CODES)
    found: dict[str, Terms] = {}
    for account, names in accounts.accounts(config).items():
        for_codes = codes is not None and any(name in codes.upstreams for name in names)
        settings = [config.upstreams[name] for name in names]
        smtp = [one for one in settings if isinstance(one, model.SmtpUpstream)]
        dialled = [one for one in settings if not isinstance(one, model.CaptureUpstream)]
        connections = min([one.max_connections for one in dialled], default=UpstreamLimits().max_connections)
        daily = min([one.daily_recipients for one in smtp if one.daily_recipients is not None], default=None)
        rates = [rate for one in smtp for rate in one.rate]
        found[account] = Terms(connections, limits(rates, daily, codes=for_codes), for_codes)
    return found


def upstream(
    name: str,
    config: model.Config,
    *,
    store: QueueStore,
    shared: Accounts,
    observer: Observer,
    changed: Callable[[], None],
) -> Upstream:
    settings = config.upstreams[name]
    most, refusals, long_lines = UpstreamLimits(), Table(), None
    if isinstance(settings, model.SmtpUpstream):
        most = UpstreamLimits(settings.max_connections, settings.max_recipients)
        refusals = preset.table(settings.preset)
        long_lines = LongLines(name, store, now, always=settings.long_lines == "encode")
    elif isinstance(settings, model.HttpsUpstream):
        most, refusals = UpstreamLimits(settings.max_connections, max_recipients=1), HTTP
    way = transport(name, config, observer=observer)
    made = Upstream(
        way,
        most,
        refusals=refusals,
        account=shared[accounts.account(name, config)],
        observer=observer,
        changed=changed,
        long_lines=long_lines,
    )
    if (source := tokens_of(way)) is not None:
        source.mended = made.try_now
    return made


def _https_transport(name: str, settings: model.HttpsUpstream, observer: Observer) -> Transport:
    # Only who has such an upstream pays for an HTTP client.
    from relay.transport.exchange import Terms
    from relay.transport.https import HttpsSettings, HttpsTransport

    terms = Terms(
        url=settings.url.text,
        host=settings.url.host,
        method=settings.method,
        template=settings.fields if settings.format == "json" else None,
        code_pattern=settings.code_pattern,
        headers=tuple(settings.headers.items()),
        on_client_error=settings.on_client_error,
        total=settings.timeouts.total.total_seconds(),
    )
    made = HttpsSettings(
        name=name,
        port=settings.url.port,
        terms=terms,
        auth=settings.auth,
        username=settings.username,
        secret=settings.proof.reveal if settings.proof is not None else None,
        auth_header=settings.auth_header or "",
        tls=TlsTerms(
            ca=_text(settings.tls_ca), certificate=_text(settings.tls_certificate), key=_text(settings.tls_key)
        ),
        pins=settings.tls_pin,
        link_local=settings.link_local,
        connect=settings.timeouts.connect.total_seconds(),
    )
    return HttpsTransport(made, observer=observer)


def _smtp_settings(name: str, settings: model.SmtpUpstream, hostname: str) -> SmtpSettings:
    times = settings.timeouts
    return SmtpSettings(
        name=name,
        host=settings.host,
        port=settings.port,
        tls=settings.tls,
        tls_verify=settings.tls_verify,
        tls_ca=_text(settings.tls_ca),
        tls_certificate=_text(settings.tls_certificate),
        tls_key=_text(settings.tls_key),
        auth=settings.auth,
        username=settings.username,
        password=settings.password.reveal if settings.password is not None else None,
        cleartext_auth=settings.cleartext_auth,
        hostname=hostname,
        size_limit=settings.max_message_size,
        chunking=settings.chunking,
        timeouts=Timeouts(
            connect=times.connect.total_seconds(),
            greeting=times.greeting.total_seconds(),
            command=times.command.total_seconds(),
            data=times.data.total_seconds(),
            progress=times.progress.total_seconds(),
            final=times.final.total_seconds(),
        ),
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def listener_settings(index: int, config: model.Config) -> ListenerSettings:
    """What the sessions of an SMTP listener follow; reads its certificate. Raises BadConfig."""
    listener = config.smtp_listeners[index]
    limits = listener.limits
    context = _tls_context(index, config)
    return ListenerSettings(
        name=listener.name,
        hostname=config.hostname,
        allow=tuple(listener.allow),
        max_message_size=listener.max_message_size,
        tls=listener.tls,
        tls_context=context,
        require_tls=listener.require_tls,
        auth=listener.auth,
        verify=partial(_verify, {user.name: user.password for user in listener.users}),
        bare_newline=listener.bare_newline,
        complete_addresses=listener.complete_addresses,
        proxy_protocol=listener.proxy_protocol,
        certificate_ends=tls.certificate_end(context, listener.certificate)
        if context and listener.certificate
        else None,
        patience=listener.patience.total_seconds() if listener.reply == "direct" else None,
        limits=Limits(
            sessions=limits.sessions,
            per_client=limits.per_client,
            recipients=limits.recipients,
            header_size=limits.header_size,
            header_fields=limits.header_fields,
            errors=limits.errors,
            messages=limits.messages,
            command=limits.command.total_seconds(),
            data=limits.data.total_seconds(),
            data_rate=limits.data_rate,
            client_rate=limits.client_rate,
        ),
    )


def pickup_settings(listener: model.PickupListener) -> PickupSettings:
    return PickupSettings(listener.name, listener.directory, listener.max_message_size)


def _tls_context(index: int, config: model.Config) -> ssl.SSLContext | None:
    listener = config.smtp_listeners[index]
    if listener.tls == "none" or listener.certificate is None:
        return None
    try:
        context = tls.server_context(listener.tls_profile)
    except RelayError as error:
        where = config.where(("listeners", index, "tls_profile"))
        raise BadConfig((ConfigError(where, str(error), "write tls_profile: modern"),)) from None
    try:
        tls.load_pair(context, listener.certificate, listener.key)
    except (OSError, ssl.SSLError) as error:
        where = config.where(("listeners", index, "certificate"))
        problem = f"the certificate or its key cannot be read: {error.strerror or error}"
        raise BadConfig((ConfigError(where, problem, "both must be PEM and belong together"),)) from None
    return context


def _verify(users: dict[str, Secret], name: str, given: str) -> bool:
    """Whether a user of the listener gave the right password; as slow for an unknown name as for a wrong password."""
    stored = users.get(name)
    return password.matches(stored or _nobody(), given) and stored is not None


@cache
def _nobody() -> Secret:
    """What an unknown name is compared with."""
    return Secret("plain", password.hash_password(secrets.token_urlsafe()))


def names(config: model.Config, policy: Policy) -> Names:
    """What becomes a label value."""
    return Names(
        listeners=[listener.name for listener in config.listeners],
        upstreams=list(config.upstreams),
        routes=list(policy.routes),
        rules=[rule.name for rule in policy.senders],
        oauth2=[name for name, one in config.upstreams.items() if isinstance(one, model.SmtpUpstream) and one.oauth2],
    )


def metrics(config: model.Config, policy: Policy, version: str) -> Metrics:
    return Metrics(names(config, policy), version=version, sqlite=SQLITE_VERSION)
