"""How an upstream logs in with tokens (`oauth2`): the keys of each provider, and what its section answers for itself.

All of them answer to `files`, `mistakes` and `warnings`. What one kind has no key for is a class variable there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from relay.config.fields import Day, FilePath, Https, Password, setting
from relay.config.files import Authorities, File, Pair, ServiceAccount
from relay.config.problems import Finding, Path
from relay.config.secrets import REFERENCE
from relay.config.section import Section

_ENDS = "The day the client secret ends, as the provider says; warned of 30, 7 and 1 days before."
_AUTHORITIES = "A PEM file that replaces the system's certification authorities for the token endpoint."


class MicrosoftOAuth2(Section):
    """Tokens of Microsoft Entra, for `auth: xoauth2`; `username` is the mailbox.

    client_credentials wants a client_secret, or a certificate; device_code is signed in by `relay auth login`.
    """

    provider: Literal["microsoft"] = Field(description="Who gives the tokens: microsoft, google or generic.")
    grant: Literal["client_credentials", "device_code", "refresh_token"] = setting(
        "client_credentials",
        description="How: client_credentials (the app itself), device_code (a person, once) or refresh_token.",
    )
    tenant: str = Field(min_length=1, max_length=255, description="The tenant: its ID, or a domain of it.")
    client_id: str = Field(min_length=1, max_length=255, description="The application (client) ID.")
    client_secret: Password | None = setting(None, description="The client secret (its value, not its ID).")
    certificate: FilePath | None = setting(
        None, description="Instead of a secret: the certificate that the app registration has, a PEM file."
    )
    key: FilePath | None = setting(None, description="Its private key, where that is not in the same file.")
    refresh_token: Password | None = setting(None, description="With grant refresh_token: the first one.")
    authority: Https = setting(
        "https://login.microsoftonline.com", description="The sign-in host; national clouds have others."
    )
    scope: str | None = setting(
        None, min_length=1, description="The scope asked for; by default that of Exchange Online in the public cloud."
    )
    secret_expires: Day | None = setting(None, description=_ENDS)
    tls_ca: FilePath | None = setting(None, description=_AUTHORITIES)

    token_url: ClassVar[str] = ""
    client_auth: ClassVar[str] = "post"

    @property
    def files(self) -> Iterator[File]:
        yield from _authorities(self.tls_ca)
        if self.certificate is not None:
            yield Pair(("certificate",), self.certificate, ("key",), self.key)

    @property
    def mistakes(self) -> Iterator[Finding]:
        match self.grant:
            case "refresh_token":
                yield from _of_grant(self, needed={"refresh_token": REFERENCE})
            case "device_code":
                idle = ("refresh_token", "client_secret", "certificate", "secret_expires")
                yield from _of_grant(self, idle=idle)
            case "client_credentials":
                yield from _of_grant(self, idle=("refresh_token",))
        certificate, secret = ("certificate",), ("client_secret",)
        if self.certificate is not None and self.client_secret is not None:
            yield Finding(certificate, "impossible beside client_secret", "leave one of them out", (secret,))
        if self.key is not None and self.certificate is None:
            yield Finding(("key",), "a key without its certificate", "add certificate", (certificate,))
        if self.grant == "client_credentials" and self.certificate is None and self.client_secret is None:
            hint = f"{REFERENCE}; or a certificate"
            yield Finding(secret, "missing, as grant is client_credentials", hint, (certificate,))

    @property
    def warnings(self) -> Iterator[Finding]:
        if self.client_secret is not None and self.secret_expires is None:
            problem = "nobody can warn before the client secret ends, as it does not say itself when that is"
            yield Finding(("secret_expires",), problem, "write the day that Microsoft Entra shows for it")
        if "authority" in self.model_fields_set and self.scope is None:
            hint = "national clouds have another: https://outlook.office365.us/.default"
            yield Finding(("scope",), "the scope asked for is that of the public cloud", hint)


class GoogleOAuth2(Section):
    """Tokens of Google, for `auth: xoauth2`; `username` is the mailbox.

    service_account wants the `key`, and domain-wide delegation; refresh_token wants client_id and client_secret, and is
    signed in by `relay auth login`, unless a refresh_token is given.
    """

    provider: Literal["google"] = Field(description="Who gives the tokens: microsoft, google or generic.")
    grant: Literal["service_account", "refresh_token"] = setting(
        "service_account", description="How: service_account (Workspace) or refresh_token (a person, once)."
    )
    key: FilePath | None = setting(None, description="The key of the service account, a JSON file from Google.")
    client_id: str | None = setting(None, min_length=1, max_length=255, description="The ID of the OAuth client.")
    client_secret: Password | None = setting(None, description="The secret of the OAuth client.")
    refresh_token: Password | None = setting(None, description="A refresh token from elsewhere, instead of a login.")
    token_url: Https = setting("https://oauth2.googleapis.com/token", description="The token endpoint.")
    scope: str = setting("https://mail.google.com/", min_length=1, description="The scope asked for.")
    secret_expires: Day | None = setting(None, description=_ENDS)
    tls_ca: FilePath | None = setting(None, description=_AUTHORITIES)

    authority: ClassVar[str] = ""
    tenant: ClassVar[str] = ""
    certificate: ClassVar[None] = None
    client_auth: ClassVar[str] = "post"
    warnings: ClassVar[tuple[Finding, ...]] = ()

    @property
    def files(self) -> Iterator[File]:
        yield from _authorities(self.tls_ca)
        if self.key is not None:
            yield ServiceAccount(("key",), self.key)

    @property
    def mistakes(self) -> Iterator[Finding]:
        match self.grant:
            case "service_account":
                idle = ("client_id", "client_secret", "refresh_token", "secret_expires")
                yield from _of_grant(self, needed={"key": "the JSON file of the service account"}, idle=idle)
            case "refresh_token":
                needed = {"client_id": "that of the OAuth client", "client_secret": REFERENCE}
                yield from _of_grant(self, needed=needed, idle=("key",))


class GenericOAuth2(Section):
    """Tokens of any other provider, for `auth: xoauth2` (RFC 6749, sections 4.4 and 6)."""

    provider: Literal["generic"] = Field(description="Who gives the tokens: microsoft, google or generic.")
    grant: Literal["client_credentials", "refresh_token"] = setting(
        "client_credentials", description="How: client_credentials or refresh_token."
    )
    token_url: Https = Field(description="The token endpoint.")
    client_id: str = Field(min_length=1, max_length=255, description="The client's ID.")
    client_secret: Password | None = setting(None, description="The client's secret.")
    client_auth: Literal["post", "basic"] = setting(
        "post", description="How the secret is sent: post (in the form) or basic (in the header)."
    )
    refresh_token: Password | None = setting(None, description="With grant refresh_token: the first one.")
    scope: str | None = setting(None, min_length=1, description="The scope asked for; by default none is named.")
    secret_expires: Day | None = setting(None, description=_ENDS)
    tls_ca: FilePath | None = setting(None, description=_AUTHORITIES)

    authority: ClassVar[str] = ""
    tenant: ClassVar[str] = ""
    certificate: ClassVar[None] = None
    key: ClassVar[None] = None
    warnings: ClassVar[tuple[Finding, ...]] = ()

    @property
    def files(self) -> Iterator[File]:
        yield from _authorities(self.tls_ca)

    @property
    def mistakes(self) -> Iterator[Finding]:
        match self.grant:
            case "refresh_token":
                yield from _of_grant(self, needed={"refresh_token": REFERENCE})
            case "client_credentials":
                yield from _of_grant(self, needed={"client_secret": REFERENCE}, idle=("refresh_token",))


def _provider(value: object) -> str:
    """The provider as written; what is no text leads to the model that says so."""
    written = value.get("provider", "generic") if isinstance(value, Mapping) else "generic"
    return written if isinstance(written, str) else "generic"


OAuth2 = Annotated[
    Annotated[MicrosoftOAuth2, Tag("microsoft")]
    | Annotated[GoogleOAuth2, Tag("google")]
    | Annotated[GenericOAuth2, Tag("generic")],
    Discriminator(_provider),
]


def _authorities(ca: FilePath | None) -> Iterator[File]:
    if ca is not None:
        yield Authorities(("tls_ca",), ca)


_NOTHING: Mapping[str, str] = {}


def _of_grant(terms: OAuth2, *, needed: Mapping[str, str] = _NOTHING, idle: tuple[str, ...] = ()) -> Iterator[Finding]:
    """The keys that are missing of those which the grant needs, each with a hint; and those that do nothing with it."""
    grant: tuple[Path, ...] = (("grant",),)
    for key, hint in needed.items():
        if getattr(terms, key) is None:
            yield Finding((key,), f"missing, as grant is {terms.grant}", hint, grant)
    for key in idle:
        if getattr(terms, key) is not None:
            yield Finding((key,), f"no effect with grant: {terms.grant}", "leave it out", grant)
