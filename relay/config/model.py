"""What may stand in the configuration file: each key with its type, its default and one sentence.

Defaults are written as people write them, and stand nowhere else. The ways out are in `upstreams`, and how they log
in with tokens in `logins`. What depends on more than one key is judged in `checks`, what lies outside the file in
`outside`, what is unwise in `advice`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cache
from typing import Annotated, Literal

from pydantic import Discriminator, Field, PrivateAttr, Tag, model_validator

from relay.config import values
from relay.config.fields import (
    AliasName,
    Count,
    Duration,
    EnvelopeSender,
    FilePath,
    HeaderName,
    HostName,
    Listens,
    MailAddress,
    MailAddresses,
    Name,
    Networks,
    Page,
    Password,
    Patterns,
    PositiveSize,
    Rate,
    ReplyTo,
    Retry,
    RuleName,
    Size,
    SocketPath,
    Store,
    Template,
    WebhookUrl,
    setting,
)
from relay.config.files import File, Pair, of_tls
from relay.config.preset import filled_in
from relay.config.problems import Path, Source
from relay.config.section import Section, type_of
from relay.config.upstreams import Upstream
from relay.policy.decide import DEFAULT, SESSION_CODES

# What stands at more than one place below.
_LARGEST = "50MiB"
_OWN, _VENDOR = "own", "vendor"
_RECEIVED = setting(
    "full", description="Our Received field: full, or short: without the name and the address of the client."
)
_REPAIR_DUPLICATES = setting(
    False, description="Of a field that stands twice and may not, the first leaves; To and Cc are joined."
)
_FOR_CODES = {"retry": "2s, 5s, 10s*5, 30s", "priority": "high"}


@cache
def _fqdn() -> str:
    """This machine's name; DNS is asked only where the name has no dot."""
    for ask in (socket.gethostname, socket.getfqdn):
        name = ask()
        try:
            if "." in values.host_name(name) and not name.startswith("localhost"):
                return values.host_name(name)
        except values.BadValue:
            continue
    try:
        return values.host_name(socket.gethostname())
    except values.BadValue:
        return "localhost"


def _queue_file() -> str:
    folder = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return f"sqlite:{folder or '/var/lib/relay'}/queue.db"


def _admin_socket() -> str:
    folder = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return f"{folder or '/run/relay'}/admin.sock"


class User(Section):
    """Somebody who may log in at a listener."""

    name: str = Field(min_length=1, max_length=255, description="The name the application logs in with.")
    password: Password = Field(description="Its password, as a reference or as a hash made by `relay hash`.")


class Limits(Section):
    """What clients of one listener may use."""

    sessions: Count = setting(2_000, description="Sessions at the same time.")
    per_client: Count = setting(500, description="Sessions at the same time from one address.")
    recipients: Count = setting(1_000, description="Recipients of one message.")
    header_size: PositiveSize = setting("256KiB", description="The size of a message's header.")
    header_fields: Count = setting(2_000, description="Fields in a message's header.")
    errors: Count = setting(20, description="Errors in one session before it is closed.")
    messages: Count | None = setting(None, description="Messages in one session; null: no limit.")
    command: Duration = setting("5m", description="How long the next complete command may take to come.")
    data: Duration = setting(
        "5m",
        description="How long a client may be silent while it sends a message; all pauses together: four times that.",
    )
    data_rate: Size = setting(
        "100B",
        description="How much of a message must come in a second, on average, from its second minute on; pauses above "
        "10 s are not counted; a slower one ends the session (421). 0B: any pace will do.",
    )
    client_rate: Rate | None = setting(
        None, description="Messages from one address, over all of its sessions, as in 100/min; null: no limit."
    )


class SmtpListener(Section):
    """A door: where applications hand in their mail by SMTP."""

    name: Name = setting("legacy", description="Its name in log, metrics and rules.")
    type: Literal["smtp"] = setting("smtp", description="The kind of listener: smtp or pickup (a folder).")
    listen: Listens = setting(
        ("127.0.0.1:25", "[::1]:25"),
        description='Where it listens: "host:port", "[v6]:port", "unix:/path" or "systemd:NAME", one or a list.',
    )
    allow: Networks = setting(
        ("127.0.0.0/8", "::1"),
        description="Who may connect: addresses and networks; required beyond loopback, not asked on Unix sockets.",
    )
    tls: Literal["none", "starttls", "implicit"] = setting(
        "none", description="TLS at this door: none, starttls (offered) or implicit."
    )
    tls_profile: Literal["modern", "legacy"] = setting(
        "modern", description="modern: TLS 1.2 and later; legacy: 1.0, 1.1 and their ciphers as well, for old software."
    )
    certificate: FilePath | None = setting(None, description="The certificate and its chain, a PEM file.")
    key: FilePath | None = setting(None, description="The private key of the certificate, a PEM file.")
    require_tls: bool = setting(False, description="Mail is taken inside TLS only.")
    auth: Literal["none", "any", "users"] = setting(
        "none", description="AUTH: none, any (offered, everything is right) or users (required)."
    )
    users: tuple[User, ...] = setting((), description="Who may log in, with auth: users.")
    max_message_size: PositiveSize = setting(_LARGEST, description="The largest message that is taken.")
    bare_newline: Literal["normalize", "reject", "accept-lf-dot"] = setting(
        "normalize",
        description="A bare line feed: normalize (becomes CRLF), reject, or accept-lf-dot (LF.LF ends a message, too).",
    )
    complete_addresses: bool = setting(
        False, description='An address without a domain gets the hostname: "jan" becomes jan@hostname.'
    )
    received: Literal["full", "short"] = _RECEIVED
    repair_duplicates: bool = _REPAIR_DUPLICATES
    proxy_protocol: Networks = setting(
        (),
        description="Load balancers whose PROXY header (v1, v2) counts; allow then judges the client that it names.",
    )
    reply: Literal["queued", "direct"] = setting(
        "queued",
        description="queued: 250 once the mail is kept; direct: the application waits for the upstream's own answer.",
    )
    patience: Duration = setting(
        "20s", description="How long it waits with reply: direct; then the mail is kept, and 250 is said."
    )
    limits: Limits = setting(Limits, description="What clients of this door may use.")

    @property
    def files(self) -> Iterator[Pair]:
        """Those that it points at."""
        if self.certificate is not None and self.key is not None:
            yield Pair(("certificate",), self.certificate, ("key",), self.key)

    @property
    def listen_is_default(self) -> bool:
        """True where the file names no address: a family that the machine lacks is then left out."""
        return "listen" not in self.model_fields_set


class PickupListener(Section):
    """A folder: each .eml file that is put into it becomes a message."""

    name: Name = setting("pickup", description="Its name in log, metrics and rules.")
    type: Literal["pickup"] = Field(description="The kind of listener: smtp or pickup (a folder).")
    directory: FilePath = Field(
        description="The folder that .eml files are taken from; made at the start (0770) where it is missing."
    )
    max_message_size: PositiveSize = setting(_LARGEST, description="The largest message that is taken.")
    dots: Literal["auto", "doubled", "plain"] = setting(
        "auto",
        description="Dots at the beginning of a line: doubled (as .NET Framework does; one is taken away, and a last"
        " line that is one dot), plain, or auto (doubled where every such line has two).",
    )
    received: Literal["full", "short"] = _RECEIVED
    repair_duplicates: bool = _REPAIR_DUPLICATES


Listener = Annotated[
    Annotated[SmtpListener, Tag("smtp")] | Annotated[PickupListener, Tag("pickup")], Discriminator(type_of)
]


class RouteSection(Section):
    __doc__ = f"""A name that leads to upstreams, with a schedule.

    `default` always exists, and so does `session-codes` where session codes are enabled: there the default of
    `retry` is {_FOR_CODES["retry"]} and that of `priority` is {_FOR_CODES["priority"]}.
    """

    upstreams: tuple[str, ...] = setting(
        (),
        description="The upstreams to try, in this order; by default all, without the vendor's.",
    )
    retry: Retry = setting(
        "1m, 5m*2, 15m, 1h*3, 4h",
        description="The pauses between attempts; 5m*2 is twice, and the last one repeats.",
    )
    lifetime: Duration = setting("5d", description="How long a message is tried before it expires.")
    priority: Literal["high", "normal", "low"] = setting(
        "normal", description="Which mail goes first: high, normal, low."
    )
    in_doubt: Literal["retry", "hold"] = setting(
        "retry",
        description="Mail without an answer after its end: retry (it may arrive twice) or hold (for a person); "
        "a session code is not held, it ends as failed.",
    )


class Conditions(Section):
    """Conditions; all must hold, and a list is "any of"."""

    from_: Patterns | None = setting(None, alias="from", description="The bare address of any author.")
    envelope_from: Patterns | None = setting(None, description='The reverse-path; "<>" is the null one.')
    to: Patterns | None = setting(None, description="Any recipient of the envelope.")
    subject: Patterns | None = setting(None, description="The subject, unfolded and decoded.")
    header: dict[HeaderName, Patterns] = setting(
        {}, description="The raw, unfolded value of a header field, by its name."
    )
    client: Networks | None = setting(None, description="The address of the client, or its network.")
    listener: Patterns | None = setting(None, description="The name of the listener.")
    user: Patterns | None = setting(None, description="The name the client logged in with.")


class SenderMatch(Conditions):
    """Conditions of a sender rule."""

    session_code: bool | None = setting(None, description="Whether the message is a session code.")


class SessionCodeMatch(Conditions):
    """Conditions that tell a session code."""

    max_size: PositiveSize | None = setting(None, description="The message is at most this large.")
    recipients: Count | None = setting(None, description="It has at most so many recipients.")


class SenderRuleSection(Section):
    """A sender rule; the first that matches speaks."""

    name: RuleName | None = setting(None, description="Its name in log and metrics; by default senders[N].")
    match: SenderMatch = setting(SenderMatch, description="Conditions; without any, the rule applies to all mail.")
    keep: bool = setting(False, description="The sender stays as it is; match.from must hold for all authors.")
    hold: bool = setting(
        False,
        description="What matches is kept in the queue until a person releases it; then the rules below apply "
        "(or this one, with an address or keep).",
    )
    address: MailAddress | None = setting(None, description="The address that becomes the author.")
    when: Literal["always", "refused"] = setting(
        "always", description="always, or refused: only after the upstream refused the original sender."
    )
    remember: Duration = setting(
        "1d", description="With when: refused: how long a refusal is known before the original sender is tried again."
    )
    display_name: Template | None = setting(
        None, description="The author's display name, from {name} {address} {local} {domain}; by default {name}."
    )
    reply_to: ReplyTo = setting(
        "original",
        description="original (added if the message has no Reply-To), keep, or an address.",
    )
    envelope: EnvelopeSender = setting("address", description="The reverse-path: address, keep, or an address.")
    route: str | None = setting(None, description="The way out for this sender.")


class SessionCodesSection(Section):
    """How session codes are known, and which way they go."""

    enabled: bool = setting(False, description="Session codes are known and go ahead of all other mail.")
    via_own_smtp: bool = setting(
        False, description="Which way is first: true for the own server, false for the vendor's."
    )
    own: str = setting(_OWN, description="The upstream of the own server.")
    vendor: str = setting(_VENDOR, description="The upstream of the vendor.")
    fallback: bool = setting(True, description="The other way is taken when the chosen one is down.")
    lifetime: Duration = setting("10m", description="How long a code is worth sending.")
    on_expire: Literal["bounce", "drop"] = setting(
        "bounce", description="What becomes of a code that is too late: bounce (the sender is told) or drop."
    )
    match: tuple[SessionCodeMatch, ...] = setting(
        ({"subject": r"/(?i)\b(sessie|inlog|verificatie)code\b/", "max_size": "50KiB"},),
        min_length=1,
        description="What is a session code: any entry with all of its conditions.",
    )


class History(Section):
    """What is known of finished mail."""

    keep: Duration = setting("14d", description="How long.")
    subject: bool = setting(
        False, description="The subject as well, so that `relay queue find --subject` finds it; of no session code."
    )


def _history_as(value: object) -> str:
    return "a mapping" if isinstance(value, Mapping | History) else "a duration"


class Queue(Section):
    """Where mail is kept until somebody else has taken it."""

    store: Store = setting(
        _queue_file,
        description="The database, sqlite:PATH; by default $STATE_DIRECTORY/queue.db where systemd sets it.",
    )
    min_free: Size = setting("200MiB", description="Below this much free space mail is refused with 452.")
    history: Annotated[
        Annotated[Duration | None, Tag("a duration")] | Annotated[History, Tag("a mapping")], Discriminator(_history_as)
    ] = setting(
        "14d", description="How long it is known what became of finished mail, without its content; null: not at all."
    )

    @property
    def remembered(self) -> timedelta:
        """How long what became of finished mail is known."""
        history = self.history.keep if isinstance(self.history, History) else self.history
        return history or timedelta()

    @property
    def keeps_subject(self) -> bool:
        return isinstance(self.history, History) and self.history.subject


class Bounces(Section):
    """Who hears what could not be delivered."""

    to: Literal["sender", "address", "both"] = setting(
        "sender",
        description="Who receives bounces: sender (the reverse-path), address (of the sender rule that applied, "
        "else the sender) or both; nobody where the reverse-path is null.",
    )
    also: MailAddresses = setting(
        (), description="Who else receives bounces, and the alarms unless alarms.to says who: addresses, one or a list."
    )
    from_: MailAddress | None = setting(
        None,
        alias="from",
        description="The From address of bounces; by default the address of the first sender rule, else the account, "
        "else postmaster.",
    )
    delay_warning: Duration | None = setting(
        None, description="How long mail waits before its sender is told so; null: only who asked for it (after 4h)."
    )


class Webhook(Section):
    """Where alarms are posted to, by HTTPS."""

    url: WebhookUrl = Field(
        description="Its address, which is a secret: https://…, {credential: NAME} or {file: PATH}."
    )
    format: Literal["json", "slack", "teams", "ntfy"] = setting(
        "json", description="What is posted: json (our own), or what slack, teams (a workflow) or ntfy want."
    )
    tls_ca: FilePath | None = setting(
        None, description="A PEM file that replaces the system's certification authorities for it."
    )

    @property
    def files(self) -> Iterator[File]:
        return of_tls(self.tls_ca, None, None)


class AlarmsSection(Section):
    """Who is informed when something needs a person; all ways that are given are used."""

    to: MailAddresses | None = setting(
        None, description="Who gets them by mail: addresses, one or a list; [] is nobody. Default: bounces.also."
    )
    upstream: str | None = setting(
        None,
        description="The upstream that carries them first; by default one that works, and is not what it is about.",
    )
    command: tuple[str, ...] = setting(
        (),
        description="A program with its arguments, run without a shell; the text is on stdin, RELAY_CAUSE and "
        "RELAY_SEVERITY are set.",
    )
    webhook: Webhook | None = setting(None, description="A service that shows them.")


class Admin(Section):
    """For who watches and who operates."""

    listen: Page | None = setting(
        "127.0.0.1:9125", description="Where /metrics, /healthz and /readyz are; null: nowhere."
    )
    allow: Networks = setting(("127.0.0.0/8", "::1"), description="Who may scrape.")
    socket: SocketPath = setting(
        _admin_socket,
        description="The Unix socket of the commands; by default $RUNTIME_DIRECTORY/admin.sock where systemd sets it.",
    )


class Log(Section):
    """The log, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", description="debug, info, warning or error.")
    format: Literal["text", "json"] = setting("text", description="text or json.")


class Config(Section):
    """The configuration of the relay."""

    hostname: HostName = setting(
        _fqdn, description="The relay's name in EHLO, Received and Message-ID; by default the FQDN."
    )
    language: Literal["en", "nl"] = setting(
        "en",
        description="The language of all that commands, page and alarms say to people: en or nl; bounces have both.",
    )
    listeners: tuple[Listener, ...] = setting(
        lambda: (SmtpListener(),), min_length=1, description="The doors for applications."
    )
    upstreams: dict[Name, Upstream] = Field(min_length=1, description="The ways out, by name.")
    routes: dict[Name, RouteSection] = setting({}, description="Names that lead to upstreams, with a schedule each.")
    senders: tuple[SenderRuleSection, ...] = setting((), description="Sender rules; the first that matches applies.")
    session_codes: SessionCodesSection = setting(SessionCodesSection, description="One-time codes for logging in.")
    queue: Queue = setting(Queue, description="Where mail is kept.")
    bounces: Bounces = setting(Bounces, description="Who hears what could not be delivered.")
    alarms: AlarmsSection = setting(AlarmsSection, description="Who is informed when something needs a person.")
    aliases: dict[AliasName, Annotated[MailAddresses, Field(min_length=1)]] = setting(
        {},
        description="Recipients without a domain, or at the hostname, and who gets their mail instead: an address or "
        "several, one step. ORCPT keeps the original.",
    )
    admin: Admin = setting(Admin, description="Metrics, health and commands.")
    log: Log = setting(Log, description="What is logged, and how.")

    _source: Source = PrivateAttr(default_factory=Source)

    def where(self, path: Path) -> str:
        """Where a key stands: "config.yaml:14: routes.default.upstreams"."""
        return self._source.where(path)

    @property
    def smtp_listeners(self) -> Mapping[int, SmtpListener]:
        """The listeners that speak SMTP, by their place in the file."""
        return {place: one for place, one in enumerate(self.listeners) if isinstance(one, SmtpListener)}

    @property
    def pickup_listeners(self) -> Mapping[int, PickupListener]:
        """The folders that files are taken from, by their place in the file."""
        return {place: one for place, one in enumerate(self.listeners) if isinstance(one, PickupListener)}

    @property
    def accounts(self) -> Mapping[str, list[str]]:
        """The accounts at providers, each with the names of its upstreams, in the order of the file."""
        found: dict[str, list[str]] = {}
        for name, upstream in self.upstreams.items():
            found.setdefault(upstream.account or name, []).append(name)
        return found

    @property
    def source(self) -> Source:
        return self._source

    def read_from(self, source: Source) -> Config:
        """The same configuration, knowing the file it was read from."""
        self._source = source
        return self

    @model_validator(mode="before")
    @classmethod
    def _defaults_that_depend_on_others(cls, written: object) -> object:
        """What presets fill in; and the routes `default` and, with session codes, `session-codes`."""
        if not isinstance(written, dict):
            return written
        routes, codes, upstreams = (written.get(key, {}) for key in ("routes", "session_codes", "upstreams"))
        if not all(isinstance(part, dict) for part in (routes, codes, upstreams)):
            return written
        upstreams = {name: filled_in(upstream) for name, upstream in upstreams.items()}
        vendor, own = codes.get("vendor", _VENDOR), codes.get("own", _OWN)
        ways = tuple(name for name in upstreams if name != vendor or name == own) or tuple(upstreams)
        complete = {DEFAULT: {}, **routes}
        if codes.get("enabled") is True:
            complete.setdefault(SESSION_CODES, {})
        for name, route in complete.items():
            if isinstance(route, dict) and name == SESSION_CODES:
                complete[name] = {**_FOR_CODES, **route}
            elif isinstance(route, dict):
                complete[name] = {"upstreams": ways, **route}
        return {**written, "upstreams": upstreams, "routes": complete} if upstreams else {**written, "routes": complete}
