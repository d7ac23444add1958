"""How tokens are had: Microsoft by msal, Google by google-auth, any other by the grant itself (RFC 6749).

The one door of both libraries, which are imported when a token is first needed. All of it blocks, and belongs on a
thread. What goes wrong is a `TokenTrouble`; nothing here logs, and no text holds a secret.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

from relay import figures
from relay.durable import read_regular
from relay.errors import RelayError
from relay.mail.reply import sanitise
from relay.transport.token_http import TokenHttp, TokenTrouble
from relay.values import frozen

Reveal = Callable[[], str]

APP_SCOPE = "https://outlook.office365.com/.default"
DELEGATED_SCOPE = "https://outlook.office.com/SMTP.Send"
GOOGLE_CONSENT = "https://accounts.google.com/o/oauth2/v2/auth"
LOOPBACK = "http://127.0.0.1:1/"
"""Nobody listens there: the browser's address bar keeps the URL, and a person pastes it."""
_LIFETIME = 3600  # seconds of a token whose lifetime nobody knows
LOGIN_NEEDED = "log in once: relay auth login"


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth2Terms:
    """Where the tokens of one upstream come from. Secrets are revealed at each use, and may raise RelayError.

    `certificate`, `key` and `tls_ca` are paths of PEM files; Google's `key` is that of a JSON file.
    """

    provider: Literal["microsoft", "google", "generic"]
    grant: Literal["client_credentials", "device_code", "refresh_token", "service_account"]
    username: str
    client_id: str
    client_secret: Reveal | None = field(repr=False)
    client_auth: Literal["post", "basic"]
    refresh_token: Reveal | None = field(repr=False)
    tenant: str
    authority: str
    token_url: str
    scope: str | None
    certificate: str | None
    key: str | None
    tls_ca: str | None

    @property
    def identity(self) -> str:
        """What a kept token belongs to."""
        parts = (self.provider, self.grant, self.username, self.client_id, self.tenant, self.authority)
        return digest(json.dumps([*parts, self.token_url, self.scope, self.key]))

    @property
    def delegated(self) -> bool:
        """True where a person stands behind it, and a refresh token is spent."""
        return self.grant in ("device_code", "refresh_token")

    @property
    def scopes(self) -> str:
        if self.scope is not None or self.provider != "microsoft":
            return self.scope or ""
        return DELEGATED_SCOPE if self.delegated else APP_SCOPE


@frozen
class Fetched:
    """A fresh token, good for `lifetime` seconds; and the refresh token to use from now on, "" where there is none."""

    access_token: str = field(repr=False)
    lifetime: float
    refresh_token: str = field(default="", repr=False)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def fetch(terms: OAuth2Terms, refresh_token: str, now: Callable[[], float] = time.time) -> Fetched:
    """A new token. `refresh_token` is what delegated grants spend. Raises TokenTrouble or RelayError."""
    if terms.delegated and not refresh_token:
        raise TokenTrouble(f"there is no refresh token of {terms.username}: {LOGIN_NEEDED}", permanent=True)
    http = TokenHttp(terms.tls_ca, secrets=(refresh_token,), now=now)
    with _translated(terms, http):
        match terms.provider:
            case "microsoft":
                return _microsoft(terms, refresh_token, http)
            case "google":
                return _google(terms, refresh_token, http)
            case "generic":
                return _generic(terms, refresh_token, http)


@contextlib.contextmanager
def _translated(terms: OAuth2Terms, http: TokenHttp) -> Iterator[None]:
    """What the libraries raise, as a trouble; what they log, they log for nobody."""
    for name in ("msal", "google.auth", "google.oauth2"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    except RelayError:
        raise
    except Exception as error:  # noqa: BLE001  # what foreign code raises has no common base, and may quote a token
        trouble = _buried(error)
        if trouble is not None:
            raise trouble from None
        raise TokenTrouble(f"no token: {type(error).__name__} in the library of {terms.provider}{http.skew}") from None


def _buried(error: BaseException | None) -> TokenTrouble | None:
    """Libraries wrap what their HTTP client raised."""
    while error is not None:
        if isinstance(error, TokenTrouble):
            return error
        error = error.__cause__ or error.__context__
    return None


# Microsoft


def _microsoft(terms: OAuth2Terms, refresh_token: str, http: TokenHttp) -> Fetched:
    app = _app(terms, http)
    scopes = terms.scopes.split()
    if terms.delegated:
        got = app.acquire_token_by_refresh_token(refresh_token, scopes)
    else:
        got = app.acquire_token_for_client(scopes)
    return _fetched(terms, got, refresh_token, http)


def _app(terms: OAuth2Terms, http: TokenHttp) -> Any:
    import msal

    credential: object = None
    if terms.client_secret is not None:
        credential = terms.client_secret()
        http.hide(str(credential))
    elif terms.certificate is not None:
        credential = {
            "private_key": _pem(terms.key or terms.certificate, "PRIVATE KEY"),
            "public_certificate": _pem(terms.certificate, "CERTIFICATE"),
        }
    kind = msal.PublicClientApplication if credential is None else msal.ConfidentialClientApplication
    return kind(
        terms.client_id,
        client_credential=credential,
        authority=f"{terms.authority}/{terms.tenant}",
        http_client=http,
        instance_discovery=False,  # the authority is the administrator's word
    )


def _pem(path: str, kind: str) -> str:
    """The first block of that kind in a PEM file, which may hold others."""
    try:
        text = read_regular(path).decode("ascii")
    except OSError as error:
        raise RelayError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        text = ""
    start = text.find("-----BEGIN ")
    while start >= 0:
        label, _, _ = text[start + 11 :].partition("-----")
        end = text.find(f"-----END {label}-----", start)
        if end < 0:
            break
        end += len(f"-----END {label}-----")
        if label.endswith(kind):
            return text[start:end] + "\n"
        start = text.find("-----BEGIN ", end)
    raise RelayError(f"{path} has no {kind.lower()} in PEM form")


@frozen
class DeviceLogin:
    """A login that a person finishes in a browser: `url` and `code` to show, until `expires_in` seconds have gone."""

    url: str
    code: str
    expires_in: float
    finish: Callable[[], Fetched | None] = field(repr=False)
    """One look whether it is done; None: not yet. Raises TokenTrouble."""
    interval: float = 5.0


def device_login(terms: OAuth2Terms) -> DeviceLogin:
    """Begin a login by device code at Microsoft. Raises TokenTrouble."""
    http = TokenHttp(terms.tls_ca, lenient=True)
    host = urlsplit(terms.authority).hostname or ""
    with _translated(terms, http):
        app = _app(terms, http)
        flow = app.initiate_device_flow(terms.scopes.split())
    if "user_code" not in flow:
        raise http.refusal(host, flow)
    http.hide(str(flow.get("device_code", "")))

    def finish() -> Fetched | None:
        with _translated(terms, http):
            got = app.acquire_token_by_device_flow(flow, exit_condition=lambda _: True)
        if got.get("error") in ("authorization_pending", "slow_down"):
            return None
        if "error" in got:
            raise http.refusal(host, got)
        return _fetched(terms, got, "", http)

    return DeviceLogin(
        url=sanitise(str(flow["verification_uri"]), 200),
        code=sanitise(str(flow["user_code"]), 40),
        expires_in=flow.get("expires_in", 900),
        finish=finish,
        interval=min(flow.get("interval", 5), 60),
    )


# Google


def _google(terms: OAuth2Terms, refresh_token: str, http: TokenHttp) -> Fetched:
    if terms.grant == "service_account":
        from google.oauth2 import service_account

        credentials: Any = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
            _service_account(terms), scopes=terms.scopes.split(), subject=terms.username
        )
    else:
        from google.oauth2 import credentials as user

        secret = terms.client_secret() if terms.client_secret is not None else ""
        http.hide(secret)
        credentials = user.Credentials(  # type: ignore[no-untyped-call]
            None,
            refresh_token=refresh_token,
            token_uri=terms.token_url,
            client_id=terms.client_id,
            client_secret=secret,
        )
    credentials.refresh(http)
    # It counts from the clock of this machine, and leaves the zone out.
    expiry = credentials.expiry
    left = (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds() if expiry is not None else _LIFETIME
    got = {"access_token": credentials.token, "expires_in": left}
    return _fetched(terms, got | {"refresh_token": getattr(credentials, "refresh_token", None)}, refresh_token, http)


def _service_account(terms: OAuth2Terms) -> dict[str, Any]:
    """What stands in its key file; the token endpoint is that of the configuration."""
    try:
        info = figures.json_of(read_regular(terms.key or ""))
    except OSError as error:
        raise RelayError(f"{terms.key} cannot be read: {error.strerror}") from None
    if not isinstance(info, dict):
        raise RelayError(f"{terms.key} is not the key of a service account")
    return {**info, "token_uri": terms.token_url}


@frozen
class BrowserLogin:
    """A login whose end a person pastes: the URL that the browser was sent to."""

    url: str
    finish: Callable[[str], Fetched] = field(repr=False)
    """Takes the pasted URL. Raises TokenTrouble."""


def browser_login(terms: OAuth2Terms) -> BrowserLogin:
    """Begin a login at Google (RFC 8252, section 7.3, with PKCE), for a client of the kind "desktop app"."""
    state, verifier = secrets.token_urlsafe(16), secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "client_id": terms.client_id,
        "redirect_uri": LOOPBACK,
        "response_type": "code",
        "scope": terms.scopes,
        "access_type": "offline",
        "prompt": "consent",  # only then is there a refresh token every time
        "login_hint": terms.username,
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }

    def finish(pasted: str) -> Fetched:
        parameters = {name: values[0] for name, values in parse_qs(urlsplit(pasted.strip()).query).items()}
        if "error" in parameters:
            raise TokenTrouble(f"Google says {sanitise(parameters['error'], 60)}", permanent=True)
        if "code" not in parameters:
            raise TokenTrouble("there is no code in that: paste the whole address, with all behind the question mark")
        if not secrets.compare_digest(parameters.get("state", "").encode(), state.encode()):
            raise TokenTrouble("that address belongs to another login: begin again")
        secret = terms.client_secret() if terms.client_secret is not None else ""
        http = TokenHttp(terms.tls_ca, secrets=(secret, parameters["code"], verifier))
        form = {
            "grant_type": "authorization_code",
            "code": parameters["code"],
            "redirect_uri": LOOPBACK,
            "client_id": terms.client_id,
            "client_secret": secret,
            "code_verifier": verifier,
        }
        fetched = _fetched(terms, http.post(terms.token_url, form).json(), "", http)
        if not fetched.refresh_token:
            raise TokenTrouble("Google gave no refresh token: remove the app's access to the account, and begin again")
        return fetched

    return BrowserLogin(f"{GOOGLE_CONSENT}?{urlencode(asked)}", finish)


# Any other


def _generic(terms: OAuth2Terms, refresh_token: str, http: TokenHttp) -> Fetched:
    form: dict[str, str] = {"grant_type": terms.grant}
    headers: dict[str, str] = {}
    if terms.delegated:
        form["refresh_token"] = refresh_token
    if terms.scopes:
        form["scope"] = terms.scopes
    secret = terms.client_secret() if terms.client_secret is not None else ""
    http.hide(secret)
    if secret and terms.client_auth == "basic":
        # RFC 6749, section 2.3.1: both are encoded like a form first.
        pair = f"{quote_plus(terms.client_id)}:{quote_plus(secret)}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    else:
        form |= {"client_id": terms.client_id} | ({"client_secret": secret} if secret else {})
    return _fetched(terms, http.post(terms.token_url, form, headers).json(), refresh_token, http)


def _fetched(terms: OAuth2Terms, got: dict[str, Any], refresh_token: str, http: TokenHttp) -> Fetched:
    """The token in the answer of an endpoint (RFC 6749, section 5.1)."""
    host = urlsplit(terms.authority or terms.token_url).hostname or ""
    if "error" in got:
        raise http.refusal(host, got)
    token, lifetime = got.get("access_token"), figures.lifetime(got.get("expires_in")) or _LIFETIME
    if not isinstance(token, str) or not (token.isascii() and token.isprintable()) or not token:
        raise TokenTrouble(f"no token from {host}: there is none in its answer")
    rotated = got.get("refresh_token")
    return Fetched(token, lifetime, rotated if isinstance(rotated, str) and rotated else refresh_token)
