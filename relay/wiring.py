"""Where the pieces meet: configuration values become objects with hands.

Only this file names concrete stores and transports. What a reload changes is made here again;
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

from relay.config import accounts, model, password, preset, tls
from relay.config.secrets import Secret
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
from relay.policy.refusal import Table
from relay.queue.sqlite import SQLITE_VERSION, SqliteStore
from relay.queue.store import QueueStore
from relay.transport.capture import CaptureTransport
from relay.transport.port import Transport
from relay.transport.smtp import SmtpSettings, SmtpTransport
from relay.transport.transaction import Timeouts

LOCK_TRIES = 10  # a tenth of a second apart


def now() -> datetime:
    return datetime.now(UTC)


async def open_store(config: model.Config, observer: Observer) -> SqliteStore:
    """The store named by `queue.store`; raises StoreInUse, StoreTooNew or StoreUnavailable.

    A command that looks into the queue while no relay runs holds it for a moment, and that is waited for.
    """
    queue, tries = config.queue, 0
    while True:
        try:
            return await SqliteStore.open(
                queue.store, observer=observer, min_free=queue.min_free, history=queue.history, now=now
            )
        except StoreInUse:
            tries += 1
            if tries == LOCK_TRIES:
                raise
            await asyncio.sleep(0.1)


def terms(config: model.Config, policy: Policy) -> dict[str, Terms]:
    """What each account may do; where upstreams that share one differ, the strictest counts."""
    codes = policy.routes.get(SESSION_CODES)
    found: dict[str, Terms] = {}
    for account, names in accounts.accounts(config).items():
        for_codes = codes is not None and any(name in codes.upstreams for name in names)
        settings = [config.upstreams[name] for name in names]
        smtp = [one for one in settings if isinstance(one, model.SmtpUpstream)]
        connections = min([one.max_connections for one in smtp], default=UpstreamLimits().max_connections)
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
    transport: Transport
    long_lines = None
    if isinstance(settings, model.CaptureUpstream):
        transport = CaptureTransport(name, settings.directory)
        most, refusals = UpstreamLimits(), Table()
    else:
        transport = SmtpTransport(_smtp_settings(name, settings, config.hostname), observer=observer)
        most = UpstreamLimits(settings.max_connections, _most_recipients(settings))
        refusals = preset.table(settings.preset)
        long_lines = LongLines(name, store, now, always=settings.long_lines == "encode")
    return Upstream(
        transport,
        most,
        refusals=refusals,
        account=shared[accounts.account(name, config)],
        observer=observer,
        changed=changed,
        long_lines=long_lines,
    )


def _most_recipients(settings: model.SmtpUpstream) -> int:
    """Of one transaction: never more than may leave on one day."""
    daily = limits((), settings.daily_recipients, codes=True)
    return min([settings.max_recipients, *(limit.most(session_code=False) for limit in daily)])


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
        context.load_cert_chain(listener.certificate, listener.key)
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
    )


def metrics(config: model.Config, policy: Policy, version: str) -> Metrics:
    return Metrics(names(config, policy), version=version, sqlite=SQLITE_VERSION)
