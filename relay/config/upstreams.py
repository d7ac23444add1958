"""The ways out: the keys of each kind of upstream, and what its section answers for itself.

Whoever has an upstream of the configuration asks its section, and need not know of what kind it is:

    where           where it leads to, for people
    server          host and port that are connected to; None where nothing is
    account         the account at a provider, which upstreams may share; None: one of its own
    mailbox         the account that mail is sent from, where that is one
    stages          those of a connection, as far as a login, by the words of `mail.outcome.Stage`
    refusals        how its replies are to be read
    files           those that it points at
    watched         the certificates that it logs in with, whose end is warned of
    local_port      the port of an SMTP server on this machine, where it leads to one
    mistakes        what its keys, together, cannot mean (`checks`)
    warnings        what is legal but unwise (`advice`)

So are the keys that not all kinds have. A class variable stands for what a kind has no key for:

    directory, on_client_error, max_connections, max_recipients
    long_lines, dkim_selectors, local_port                          `_NoSmtp` has them
    preset, oauth2, account, mailbox, stages, watched               `_NoLogin`
    rate, daily_recipients                                          `_NoPace`

Paths count from the section.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Discriminator, Field, Tag

from relay.config import password, preset
from relay.config.fields import (
    Count,
    Duration,
    Expression,
    FilePath,
    HostName,
    HttpHeader,
    HttpHeaders,
    JsonTemplate,
    Name,
    Password,
    Pins,
    PositiveSize,
    PresetName,
    Rates,
    UpstreamHost,
    Url,
    setting,
)
from relay.config.files import File, Folder, Pair, of_tls
from relay.config.logins import OAuth2
from relay.config.preset import Preset
from relay.config.problems import Finding, Path, below
from relay.config.secrets import REFERENCE, Secret
from relay.config.section import Section, type_of
from relay.config.values import is_loopback
from relay.policy import fields as policy_fields
from relay.policy.fields import placeholders
from relay.policy.link_local import is_link_local
from relay.policy.refusal import HTTP, Table

# Where servers expect TLS with the first octet, and where after STARTTLS.
IMPLICIT = 465
_STARTTLS = (25, 587, 2525)

# What more than one kind has, as a default or once and for all.
_CONNECTIONS = 3
_RECIPIENTS = 100
_FAIL: Final = "fail"


class Timeouts(Section):
    """How long an upstream may take."""

    connect: Duration = setting("15s", description="To connect.")
    greeting: Duration = setting("60s", description="For banner, EHLO, TLS and AUTH, each.")
    command: Duration = setting("5m", description="For the reply to a command.")
    data: Duration = setting("2m", description="For the reply to DATA.")
    progress: Duration = setting("3m", description="While no octet of a message can be sent.")
    final: Duration = setting("10m", description="For the reply after the final dot.")


def _default_port(fields: Mapping[str, Any]) -> int:
    return {"starttls": 587, "implicit": 465}.get(fields.get("tls", ""), 25)


def _default_auth(fields: Mapping[str, Any]) -> str:
    if fields.get("oauth2") is not None:
        return "xoauth2"
    return "auto" if fields.get("username") is not None else "none"


class SmtpUpstream(Section):
    """A way out: the SMTP server of a provider."""

    type: Literal["smtp"] = setting("smtp", description="The kind of upstream: smtp, https or capture.")
    preset: PresetName | None = setting(
        None, description="A provider that is known: it fills in what is left out here, and reads its refusals."
    )
    domain: HostName | None = setting(None, description="For a preset that needs it: your domain there.")
    region: Name | None = setting(None, description="For a preset that needs it: the region of the account.")
    host: UpstreamHost = Field(
        description="The name or the address of the server; of a name, up to three addresses are tried in one attempt."
    )
    tls: Literal["starttls", "implicit", "none"] = setting(
        "starttls", description="TLS: starttls (required), implicit or none."
    )
    port: int = setting(
        _default_port,
        ge=1,
        le=65_535,
        description="The port; by default 587 with starttls, 465 with implicit, 25 with none.",
    )
    tls_verify: bool = setting(True, description="The certificate must be valid for the host; false is warned of.")
    tls_ca: FilePath | None = setting(
        None, description="A PEM file that replaces the system's certification authorities for this upstream."
    )
    tls_certificate: FilePath | None = setting(None, description="A client certificate, a PEM file.")
    tls_key: FilePath | None = setting(None, description="Its private key, where that is not in the same file.")
    tls_profile: Literal["modern", "legacy"] = setting(
        "modern",
        description="modern: TLS 1.2 and later; legacy: old cipher suites and short keys, 1.0 and 1.1 as well, for an "
        "old server.",
    )
    username: str | None = setting(
        None,
        min_length=1,
        max_length=1_024,
        repr=False,
        description="The account to log in with; with oauth2, the mailbox.",
    )
    password: Password | None = setting(
        None, description="Its password: {credential: NAME}, {file: PATH} or {env: NAME}; a bare string is warned of."
    )
    oauth2: OAuth2 | None = setting(None, description="Where the tokens of auth xoauth2 come from.")
    auth: Literal["none", "auto", "plain", "login", "cram-md5", "xoauth2"] = setting(
        _default_auth,
        description="How to log in; auto, the default with a username: the first offered of PLAIN, LOGIN, CRAM-MD5, "
        "and the next one where that one itself is refused; xoauth2, the default with oauth2: a token.",
    )
    cleartext_auth: bool = setting(False, description="Log in although tls is none and the host is not this machine.")
    max_connections: Count = setting(_CONNECTIONS, description="Connections at the same time.")
    rate: Rates = setting(
        (),
        description="Transactions, as in 30/min or [30/min, 500/h]: mail waits; a fifth is kept for session codes.",
    )
    daily_recipients: Count | None = setting(
        None, description="Recipients in any 24 hours, over which mail waits; null: no limit."
    )
    max_message_size: PositiveSize | None = setting(
        None, description="The largest message it takes, where EHLO does not say or was not heard yet."
    )
    max_recipients: Count = setting(_RECIPIENTS, description="Recipients in one transaction; more are split.")
    long_lines: Literal["keep", "encode"] = setting(
        "keep",
        description="Lines over 998 octets: keep (until the server refuses them) or encode (their part is re-encoded).",
    )
    chunking: bool = setting(
        True,
        description="A message goes in one write with its envelope (BDAT) where the server offers that; false: never.",
    )
    dkim_selectors: tuple[Name, ...] = setting(
        (), description="The selectors that it signs with by DKIM, for `relay doctor`, which looks them up in DNS."
    )
    timeouts: Timeouts = setting(Timeouts, description="How long the server may take.")

    directory: ClassVar[None] = None
    on_client_error: ClassVar[str] = _FAIL

    @property
    def where(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def server(self) -> tuple[str, int] | None:
        return self.host, self.port

    @property
    def account(self) -> str | None:
        return f"{self.username or ''}@{self.host.lower()}:{self.port}"

    @property
    def mailbox(self) -> str | None:
        return self.username

    @property
    def stages(self) -> tuple[str, ...]:
        match self.tls:
            case "implicit":
                return ("dns", "connect", "tls", "banner", "ehlo", "auth")
            case "starttls":
                return ("dns", "connect", "banner", "ehlo", "starttls", "tls", "auth")
            case "none":
                return ("dns", "connect", "banner", "ehlo", "auth")

    @property
    def local_port(self) -> int | None:
        return self.port if is_loopback(self.host) else None

    @property
    def refusals(self) -> Table:
        return preset.table(self.preset)

    @property
    def files(self) -> Iterator[File]:
        return of_tls(self.tls_ca, self.tls_certificate, self.tls_key)

    @property
    def watched(self) -> list[Pair]:
        shown = [*self.files, *(self.oauth2.files if self.oauth2 is not None else ())]
        return [file for file in shown if isinstance(file, Pair)]

    @property
    def mistakes(self) -> Iterator[Finding]:
        yield from self._parameters()
        yield from self._login()
        tls: tuple[Path, ...] = (("tls",),)
        if self.tls == "none":
            for key in ("tls_ca", "tls_certificate", "tls_key"):
                if getattr(self, key) is not None:
                    hint = "write tls: starttls or tls: implicit"
                    yield Finding((key,), "no effect with tls: none", hint, tls)
            if self.tls_profile != "modern":
                yield Finding(("tls_profile",), "no effect with tls: none", "write tls: starttls or tls: implicit", tls)
        else:
            yield from _client_certificate(self.tls_certificate, self.tls_key)

    def _parameters(self) -> Iterator[Finding]:
        """The keys that some presets need, and others know nothing of."""
        needed = preset.preset(self.preset).parameters if self.preset is not None else {}
        looked_at: tuple[Path, ...] = (("preset",),)
        for name, sentence in needed.items():
            if getattr(self, name) is None and self.host == preset.NO_HOST:
                yield Finding((name,), f"missing, as preset: {self.preset} needs it", sentence, looked_at)
        for name in ("domain", "region"):
            if getattr(self, name) is not None and name not in needed:
                problem = f"preset: {self.preset} does not need it" if self.preset else "no effect without a preset"
                yield Finding((name,), problem, "leave it out", looked_at)

    def _login(self) -> Iterator[Finding]:
        username, secret, auth = ("username",), ("password",), ("auth",)
        if self._in_the_clear:
            looked_at = (auth, ("host",), ("cleartext_auth",), username)
            problem = "none would send the password readably over the network"
            yield Finding(("tls",), problem, "write tls: starttls, or cleartext_auth: true", looked_at)
        if self.oauth2 is not None or self.auth == "xoauth2":
            yield from self._token()
            return
        if self.username is not None and self.password is None:
            yield Finding(secret, "missing, as there is a username", REFERENCE, (username,))
        if self.password is not None and self.username is None:
            yield Finding(username, "missing, as there is a password", "", (secret,))
        if self.username is None and self.password is None and self.auth != "none":
            yield Finding(auth, f"{self.auth} needs username and password", "", (username, secret))
        if self.password is not None:
            yield from _no_hash(secret, self.password, "the password itself is needed here")

    @property
    def _in_the_clear(self) -> bool:
        unprotected = self.tls == "none" and not self.cleartext_auth and not is_loopback(self.host)
        return unprotected and self.auth != "none"

    def _token(self) -> Iterator[Finding]:
        """Logging in with a token: what it wants, and what has no place beside it."""
        auth, oauth2 = ("auth",), ("oauth2",)
        if self.oauth2 is None:
            yield Finding(oauth2, "missing, as auth is xoauth2", "add oauth2: {provider: …}", (auth,))
            return
        if self.auth != "xoauth2":
            yield Finding(oauth2, f"no effect with auth: {self.auth}", "write auth: xoauth2", (auth,))
        if self.username is None:
            yield Finding(("username",), "missing: the mailbox that mail is sent from", "", (oauth2,))
        if self.password is not None:
            yield Finding(("password",), "no effect with oauth2", "leave it out", (oauth2,))
        yield from below(oauth2, self.oauth2.mistakes)

    @property
    def warnings(self) -> Iterator[Finding]:
        if self.tls != "none" and not self.tls_verify:
            problem = "anybody on the way can pretend to be this server, and read mail and password"
            yield Finding(("tls_verify",), problem, "name its authority with tls_ca instead")
        if self.tls_profile == "legacy":
            problem = "old cipher suites protect little: who records the connection may read mail and password later"
            yield Finding(("tls_profile",), problem, "leave it out once the server knows TLS 1.2 with newer ones")
        known = preset.preset(self.preset) if self.preset is not None else None
        yield from self._unlike(known) if known is not None else self._other_tls()
        token_of_mailbox = self.oauth2 is not None and self.oauth2.provider != "generic"
        if "@" not in (self.username or "@") and (token_of_mailbox or (known is not None and known.login == "address")):
            problem = "no domain in it: this provider wants the whole address of the mailbox"
            yield Finding(("username",), problem, "write it like relay@example.nl")
        if self.oauth2 is not None:
            yield from below(("oauth2",), self.oauth2.warnings)
        if self.username is not None and self.auth == "none":
            yield Finding(("auth",), "there is a username, and it is not used", "leave auth out")
        if self.tls == "none" and self.auth != "none" and not is_loopback(self.host):
            problem = "the password goes readably over the network"
            yield Finding(("cleartext_auth",), problem, "write tls: starttls")

    def _other_tls(self) -> Iterator[Finding]:
        """A port where servers expect TLS at another moment, so that both sides would wait."""
        if self.port == IMPLICIT and self.tls != "implicit":
            problem = f"port {self.port} is for tls: implicit, and tls is {self.tls}"
            yield Finding(("port",), problem, "write tls: implicit, or port: 587")
        if self.port in _STARTTLS and self.tls == "implicit":
            problem = f"port {self.port} is for tls: starttls, and tls is implicit"
            yield Finding(("port",), problem, "write tls: starttls, or port: 465")

    def _unlike(self, known: Preset) -> Iterator[Finding]:
        """What the provider is known to take otherwise."""
        if known.mechanisms and self.auth not in ("none", "auto", *known.mechanisms):
            offered = " and ".join(known.mechanisms)
            reply = f': it answers "{known.no_plain}"' if known.no_plain and self.auth == "plain" else ""
            yield Finding(("auth",), f"{known.title} takes {offered} only{reply}", "leave auth out")
        for key in ("host", "port", "tls"):
            filled = known.upstream.get(key)
            if key != "host" and (self.port, self.tls) in known.also_at:
                continue
            if filled is not None and "{" not in str(filled) and getattr(self, key) != filled:
                problem = f"not that of preset: {self.preset}, which is {filled}"
                yield Finding((key,), problem, f"remove {key}, unless the provider gave you this one")
        most = known.upstream.get("max_connections")
        if most is not None and self.max_connections > most:
            problem = f"{known.title} takes {most} connections, and refuses more"
            yield Finding(("max_connections",), problem, "leave it out")


# What each way of auth needs; all else has no effect with it.
_PROOFS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "bearer": ("token",),
    "basic": ("username", "password"),
    "header": ("auth_header", "token"),
    "hmac-sha256": ("secret",),
}


class HttpsTimeouts(Section):
    """How long an endpoint may take."""

    connect: Duration = setting("5s", description="To connect, TLS included.")
    total: Duration = setting("30s", description="From the beginning of a request to the status of its answer.")


class _NoSmtp(Section):
    """A way out that speaks no SMTP: lines go as they are, and no receiver judges by DNS who sent."""

    long_lines: ClassVar[None] = None
    dkim_selectors: ClassVar[None] = None
    local_port: ClassVar[None] = None


class _NoLogin(Section):
    """A way out without a login at a provider."""

    preset: ClassVar[None] = None
    oauth2: ClassVar[None] = None
    account: ClassVar[None] = None
    mailbox: ClassVar[None] = None
    stages: ClassVar[tuple[str, ...]] = ()
    watched: ClassVar[tuple[Pair, ...]] = ()


class _NoPace(Section):
    """A way out that takes whatever comes."""

    rate: ClassVar[Rates] = ()
    daily_recipients: ClassVar[None] = None


class HttpsUpstream(_NoSmtp, _NoLogin, _NoPace):
    """A way out: the HTTPS endpoint of a vendor (docs/vendor-endpoint.md); one request for each recipient."""

    type: Literal["https"] = Field(description="The kind of upstream: smtp, https or capture.")
    url: Url = Field(description="The endpoint; nothing else is ever asked, so redirects are not followed.")
    method: Literal["POST", "PUT"] = setting("POST", description="The method of a request: POST or PUT.")
    format: Literal["json", "mime"] = setting(
        "json", description="What is sent: json (fields of the message, at most 50 KiB of it) or mime (the message)."
    )
    fields: JsonTemplate = setting(
        dict(policy_fields.DEFAULT),
        description="The JSON, from {recipient} {sender} {subject} {text} {html} {code} {message_id} {queue_id}.",
    )
    code_pattern: Expression | None = setting(
        None, description="Where {code} stands in the text: group 1 of an RE2 expression between slashes."
    )
    headers: HttpHeaders = setting({}, description="Header fields that go with each request, and are no secrets.")
    auth: Literal["none", "bearer", "basic", "header", "hmac-sha256"] = setting(
        "none", description="How a request proves who sends it: none, bearer, basic, header or hmac-sha256 (signed)."
    )
    username: str | None = setting(
        None, min_length=1, max_length=1_024, repr=False, description="The account, with auth: basic."
    )
    password: Password | None = setting(
        None, description="Its password, as {credential: NAME}, {file: PATH} or {env: NAME}."
    )
    token: Password | None = setting(
        None, description="What auth: bearer sends, or auth: header in the field auth_header; a reference as well."
    )
    auth_header: HttpHeader | None = setting(None, description="The header field of auth: header, such as X-Api-Key.")
    secret: Password | None = setting(None, description="What auth: hmac-sha256 signs with; a reference as well.")
    tls_ca: FilePath | None = setting(
        None, description="A PEM file that replaces the system's certification authorities for this upstream."
    )
    tls_certificate: FilePath | None = setting(None, description="A client certificate, a PEM file.")
    tls_key: FilePath | None = setting(None, description="Its private key, where that is not in the same file.")
    tls_pin: Pins = setting((), description="Keys that the certificate may have, besides being valid; none: any key.")
    link_local: bool = setting(
        False,
        description="The endpoint may have an address of the link (169.254.0.0/16, fe80::/10) or of cloud metadata.",
    )
    on_client_error: Literal["fail", "next"] = setting(
        _FAIL,
        description="A refusal (4xx): fail (the recipient fails) or next (only where no other upstream of the route"
        " takes it).",
    )
    max_connections: Count = setting(_CONNECTIONS, description="Connections at the same time.")
    timeouts: HttpsTimeouts = setting(HttpsTimeouts, description="How long the endpoint may take.")

    directory: ClassVar[None] = None
    max_recipients: ClassVar[int] = 1
    refusals: ClassVar[Table] = HTTP

    @property
    def where(self) -> str:
        return self.url.where

    @property
    def server(self) -> tuple[str, int] | None:
        return self.url.host, self.url.port

    @property
    def files(self) -> Iterator[File]:
        return of_tls(self.tls_ca, self.tls_certificate, self.tls_key)

    @property
    def proof(self) -> Password | None:
        """The secret that `auth` needs."""
        return {"bearer": self.token, "header": self.token, "basic": self.password, "hmac-sha256": self.secret}.get(
            self.auth
        )

    @property
    def mistakes(self) -> Iterator[Finding]:
        yield from _client_certificate(self.tls_certificate, self.tls_key)
        yield from self._proofs()
        yield from self._placeholders()
        try:
            forbidden = not self.link_local and is_link_local(self.url.host)
        except ValueError:
            forbidden = False  # a name: judged when it is looked up
        if forbidden:
            problem = "an address of the link or of a cloud's metadata"
            yield Finding(("url",), problem, "if it is meant, write link_local: true", (("link_local",),))

    def _proofs(self) -> Iterator[Finding]:
        auth: Path = ("auth",)
        needed = _PROOFS[self.auth]
        for key in ("username", "password", "auth_header", "token", "secret"):
            given = getattr(self, key)
            if key in needed and given is None:
                yield Finding((key,), f"missing, as auth is {self.auth}", "", (auth,))
            if given is not None and key not in needed:
                ways = " or ".join(way for way, keys in _PROOFS.items() if key in keys)
                yield Finding((key,), f"no effect with auth: {self.auth}", f"write auth: {ways}", (auth,))
            if isinstance(given, Secret):
                yield from _no_hash((key,), given, "the secret itself is needed here")
        if ":" in (self.username or ""):
            yield Finding(("username",), "a colon, which a username of auth: basic cannot have")

    def _placeholders(self) -> Iterator[Finding]:
        if self.format == "mime":
            for key in ("fields", "code_pattern"):
                if key in self.model_fields_set:
                    written = (("auth",), ("format",))
                    yield Finding((key,), "no effect with format: mime", "write format: json", written)
            return
        asked = "code" in placeholders(self.fields)
        if self.code_pattern is not None and not asked:
            yield Finding(("code_pattern",), "no effect, as fields has no {code}", "", (("fields",),))
        if self.code_pattern is None and asked and "fields" in self.model_fields_set:
            hint = r"say where the code stands, as in '/\b([0-9]{6})\b/'"
            yield Finding(("code_pattern",), "missing, as fields has {code}", hint, (("fields",),))

    @property
    def warnings(self) -> Iterator[Finding]:
        if self.auth == "none" and self.tls_certificate is None:
            problem = "the endpoint cannot know who sends, and may take mail from anybody"
            yield Finding(("auth",), problem, "write auth: hmac-sha256 or bearer, or name a tls_certificate")


class CaptureUpstream(_NoSmtp, _NoLogin, _NoPace):
    """A way out that ends here: each message becomes a file."""

    type: Literal["capture"] = Field(description="The kind of upstream: smtp, https or capture.")
    directory: FilePath = Field(description="The folder that the .eml files are written into.")

    max_connections: ClassVar[int] = _CONNECTIONS
    max_recipients: ClassVar[int] = _RECIPIENTS
    server: ClassVar[None] = None
    refusals: ClassVar[Table] = Table()
    on_client_error: ClassVar[str] = _FAIL
    mistakes: ClassVar[tuple[Finding, ...]] = ()
    warnings: ClassVar[tuple[Finding, ...]] = ()

    @property
    def where(self) -> str:
        return str(self.directory)

    @property
    def files(self) -> Iterator[File]:
        yield Folder(("directory",), self.directory)


Upstream = Annotated[
    Annotated[SmtpUpstream, Tag("smtp")]
    | Annotated[HttpsUpstream, Tag("https")]
    | Annotated[CaptureUpstream, Tag("capture")],
    Discriminator(type_of),
]


def _client_certificate(certificate: FilePath | None, key: FilePath | None) -> Iterator[Finding]:
    if key is not None and certificate is None:
        missing: Path = ("tls_certificate",)
        yield Finding(("tls_key",), "a key without its certificate", "add tls_certificate", (missing,))


def _no_hash(path: Path, secret: Secret, hint: str) -> Iterator[Finding]:
    if secret.kind == "plain" and secret.reference.startswith(password.PREFIX):
        yield Finding(path, "a hash cannot be used to log in", hint)
