"""Where the pieces meet: configuration values become objects with hands.

Only this file makes concrete stores and transports. What a reload changes is made here again;
`daemon` decides when.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING

from relay.config import compile, model, password, tls, upstreams
from relay.config.secrets import Secret, SecretMissing
from relay.config.settings import of
from relay.config.upstreams import CaptureUpstream, HttpsUpstream, SmtpUpstream
from relay.delivery.account import Accounts, Terms
from relay.delivery.alarm_command import ByCommand
from relay.delivery.alarm_mail import ByMail
from relay.delivery.alarm_way import AlarmWay
from relay.delivery.alarm_webhook import ByWebhook, WebhookTerms
from relay.delivery.long_lines import LongLines
from relay.delivery.recipients import MostRecipients
from relay.delivery.upstream import Upstream, UpstreamLimits
from relay.delivery.worker import House
from relay.errors import BadConfig, ConfigError, RelayError, StoreInUse, StoreUnavailable
from relay.events import Observer
from relay.ingress.pickup import PickupSettings
from relay.ingress.settings import ListenerLimits, ListenerSettings
from relay.observe.metrics import Metrics
from relay.observe.tally import Names
from relay.policy.decide import SESSION_CODES, Policy
from relay.policy.pacing import limits
from relay.queue.model import Recorded
from relay.queue.sqlite.database import SQLITE_VERSION
from relay.queue.sqlite.start import SqliteStore
from relay.queue.store import QueueStore
from relay.transport.capture import CaptureTransport
from relay.transport.port import Transport
from relay.transport.smtp import SmtpSettings, SmtpTransport
from relay.transport.transaction import SmtpTimeouts

if TYPE_CHECKING:
    from relay.transport.oauth2 import OAuth2Terms
    from relay.transport.tokens import TokenSource

LOCK_TRIES = 10  # a tenth of a second apart


def now() -> datetime:
    return datetime.now(UTC)


def recorded(queue: model.Queue) -> Recorded:
    """What the history keeps of finished mail."""
    if queue.history is None:
        return Recorded.NOTHING
    return Recorded.SUBJECT if queue.keeps_subject else Recorded.FATE


async def open_store(config: model.Config, observer: Observer) -> QueueStore:
    """The store named by `queue.store`; raises StoreInUse, OtherLayout or StoreUnavailable, which names the key.

    A command that looks into the queue while no relay runs holds it for a moment, and that is waited for.
    """
    queue, tries = config.queue, 0
    while True:
        try:
            return await SqliteStore.open(
                queue.store.path, observer=observer, min_free=queue.min_free, history=recorded(queue), now=now
            )
        except StoreInUse:
            tries += 1
            if tries == LOCK_TRIES:
                raise
            await asyncio.sleep(0.1)
        except StoreUnavailable as error:
            raise StoreUnavailable(error.reason, f"queue.store: {error}") from None


def token_source(name: str, config: model.Config, *, observer: Observer, state_key: str | None = None) -> TokenSource:
    """Where the tokens of an upstream with `oauth2` come from. Raises RelayError."""
    from relay.transport.token_file import TokenFile  # who logs in with passwords needs none of it
    from relay.transport.tokens import TokenSource

    file = TokenFile(config.queue.store.beside("tokens") / name, state_key or _state_key())
    return TokenSource(name, oauth2_terms(config.upstreams[name]), file, observer=observer, now=now)


def oauth2_terms(settings: upstreams.Upstream) -> OAuth2Terms:
    from relay.transport.oauth2 import OAuth2Terms

    terms = settings.oauth2
    assert terms is not None
    return of(terms, OAuth2Terms, username=settings.mailbox or "", client_id=terms.client_id or "")


def _state_key() -> str | None:
    """The key that kept tokens are encrypted with: the systemd credential of that name, where there is one."""
    try:
        return Secret("credential", "state-key").reveal()
    except SecretMissing:
        return None


def transport(name: str, config: model.Config, *, observer: Observer, state_key: str | None = None) -> Transport:
    """The way out of an upstream. Raises RelayError."""
    settings = config.upstreams[name]
    tokens = None
    if settings.oauth2 is not None:
        tokens = token_source(name, config, observer=observer, state_key=state_key)
    match settings:
        case SmtpUpstream():
            timeouts = of(settings.timeouts, SmtpTimeouts)
            made = of(settings, SmtpSettings, name=name, hostname=config.hostname, timeouts=timeouts)
            return SmtpTransport(made, observer=observer, tokens=tokens)
        case HttpsUpstream():
            return _https_transport(name, settings, observer)
        case CaptureUpstream():
            return CaptureTransport(name, settings.directory)


def hurried(way: SmtpTransport, patience: float, *, login: bool) -> SmtpTransport:
    """The same way for a person, who waits so many seconds for each reply at most; without `login` as far as EHLO."""
    times = way.settings.timeouts
    shorter = {key: min(getattr(times, key), patience) for key in ("connect", "greeting", "command")}
    settings = replace(way.settings, timeouts=replace(times, **shorter))
    if login:
        return SmtpTransport(settings, observer=way.observer, tokens=way.tokens)
    return SmtpTransport(replace(settings, auth="none", username=None, password=None), observer=way.observer)


def alarm_ways(config: model.Config, house: House) -> Sequence[AlarmWay]:
    """Those by which alarms leave: all that the configuration gives."""
    alarms, mail = config.alarms, compile.alarm_mail(config)
    ways: list[AlarmWay] = []
    if mail is not None:
        ways.append(ByMail(mail, house))
    if alarms.command:
        ways.append(ByCommand(alarms.command))
    if alarms.webhook is not None:
        ways.append(ByWebhook(of(alarms.webhook, WebhookTerms)))
    return ways


def terms(config: model.Config, policy: Policy) -> dict[str, Terms]:
    """What each account may do; where upstreams that share one differ, the strictest counts."""
    codes = policy.routes.get(SESSION_CODES)
    found: dict[str, Terms] = {}
    for account, names in config.accounts.items():
        for_codes = codes is not None and any(name in codes.upstreams for name in names)
        settings = [config.upstreams[name] for name in names]
        connections = min([one.max_connections for one in settings])
        daily = min([one.daily_recipients for one in settings if one.daily_recipients is not None], default=None)
        rates = [rate for one in settings for rate in one.rate]
        found[account] = Terms(connections, limits(rates, daily, codes=for_codes), for_codes)
    return found


def upstream(
    name: str,
    config: model.Config,
    *,
    store: QueueStore,
    shared: Accounts,
    recipients: MostRecipients,
    observer: Observer,
    changed: Callable[[], None],
) -> Upstream:
    settings = config.upstreams[name]
    long_lines = None
    if settings.long_lines is not None:
        long_lines = LongLines(name, store, now, always=settings.long_lines == "encode")
    way = transport(name, config, observer=observer)
    made = Upstream(
        way,
        of(settings, UpstreamLimits),
        refusals=settings.refusals,
        account=shared[settings.account or name],
        recipients=recipients,
        observer=observer,
        changed=changed,
        long_lines=long_lines,
    )
    if way.tokens is not None:
        way.tokens.mended = made.try_now
    return made


def _https_transport(name: str, settings: HttpsUpstream, observer: Observer) -> Transport:
    # Only who has such an upstream pays for an HTTP client.
    from relay.transport.exchange import Terms
    from relay.transport.https import HttpsSettings, HttpsTransport

    terms = of(
        settings,
        Terms,
        url=settings.url.text,
        host=settings.url.host,
        template=settings.fields if settings.format == "json" else None,
        headers=tuple(settings.headers.items()),
        total=settings.timeouts.total.total_seconds(),
    )
    secret = settings.proof.reveal if settings.proof is not None else None
    connect = settings.timeouts.connect.total_seconds()
    made = of(settings, HttpsSettings, name=name, port=settings.url.port, terms=terms, secret=secret, connect=connect)
    return HttpsTransport(made, observer=observer)


def listener_settings(index: int, config: model.Config) -> ListenerSettings:
    """What the sessions of an SMTP listener follow; reads its certificate. Raises BadConfig."""
    listener = config.smtp_listeners[index]
    context, certificate = _tls_context(index, config), listener.certificate
    return of(
        listener,
        ListenerSettings,
        hostname=config.hostname,
        tls_context=context,
        verify=partial(_verify, {user.name: user.password for user in listener.users}),
        certificate_ends=tls.certificate_end(context, certificate) if context and certificate else None,
        aliases=compile.aliases(config),
        patience=listener.patience.total_seconds() if listener.reply == "direct" else None,
        limits=of(listener.limits, ListenerLimits),
    )


def pickup_settings(listener: model.PickupListener, config: model.Config) -> PickupSettings:
    """A folder has no limits of its own: a header may be as large as it may be at a door that says nothing of it."""
    usual = of(model.Limits(), ListenerLimits)
    return of(
        listener,
        PickupSettings,
        directory=listener.directory,
        aliases=compile.aliases(config),
        header_size=usual.header_size,
        header_fields=usual.header_fields,
    )


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
        oauth2=[name for name, one in config.upstreams.items() if one.oauth2 is not None],
    )


def metrics(config: model.Config, policy: Policy, version: str) -> Metrics:
    return Metrics(names(config, policy), version=version, sqlite=SQLITE_VERSION)
