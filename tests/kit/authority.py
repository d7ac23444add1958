"""An authorisation server: real TLS, real JWTs; it behaves as those of Microsoft and of Google do.

    async with Authority(certificates) as authority:
        authority.clients["the-app"] = "its-secret"
        ...a token for authority.url and authority.tenant, or for authority.token_url...
        authority.script(TOO_MANY, times=1)
        upstream = ScriptedUpstream(tokens=authority.allows)

Grants: client_credentials (secret, or an assertion signed by a certificate in `certificates`), refresh_token (rotated),
device code (`confirm` is the person in the browser), authorization_code with PKCE (`consent` is that person), and the
assertion of a service account in `service_accounts`. `asked` has the forms in order; `tokens` what was given out.
`ahead` turns its clock. Faults come in turn, as with `ScriptedUpstream`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.kit.certificates import Certificates
from tests.kit.ports import port_for

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
GOOGLE = "https://oauth2.googleapis.com/token"  # google-auth says that, wherever it asks
_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Fault:
    """An answer instead of a token, with its "X-Date" as Date. `hang`: none, until the server goes down."""

    status: int = 200
    body: str = ""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False


HTML = Fault(200, "<html><body>Sign in to the hotel's Wi-Fi</body></html>", "text/html")
UNAVAILABLE = Fault(503, '{"error": "temporarily_unavailable"}')
HANG = Fault(hang=True)


def too_many(retry_after: str = "") -> Fault:
    return Fault(429, "slow down", "text/plain", {"Retry-After": retry_after} if retry_after else {})


def redirect(to: str) -> Fault:
    return Fault(302, "", "text/plain", {"Location": to})


def refusal(code: str, text: str, error: str = "invalid_client") -> Fault:
    """As Microsoft writes it: AADSTS with trace and time behind."""
    described = f"{code}: {text} Trace ID: 5f4a Correlation ID: 77aa Timestamp: 2026-11-26 20:00:00Z"
    document = f'{{"error": "{error}", "error_description": "{described}", "error_codes": [1]}}'
    return Fault(401 if error == "invalid_client" else 400, document)


class Authority:
    """See the top of the module."""

    tenant = "7b4e5a4c-7f5c-4a55-9d1a-1f4f6a1d2c3b"

    def __init__(self, certificates: Certificates) -> None:
        self._context = certificates.good.server()
        self.ca = certificates.ca_path
        self.clients: dict[str, str] = {}
        self.certificates: dict[str, list[Any]] = {}
        self.service_accounts: dict[str, Any] = {}
        self.mailboxes: dict[str, set[str]] = {}
        self.refresh_tokens: dict[str, str] = {}  # the mailbox of each
        self.rotates = True
        self.lifetime = 3600
        self.ahead = 0.0
        self.asked: list[dict[str, str]] = []
        self.discoveries = 0
        self.tokens: list[str] = []
        self.longer = 0  # octets that tokens have more than they need
        self.revoked: set[str] = set()
        self.port = port_for(self)
        self._pending: dict[str, str | None] = {}
        self._codes: dict[str, tuple[str, str]] = {}
        self._faults: list[tuple[Fault | Callable[[dict[str, str]], Fault | None], bool]] = []
        self._changed = asyncio.Condition()
        self._end = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Authority:
        await self.come_back()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go_down()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def token_url(self) -> str:
        """That of Google, and of any other."""
        return f"{self.url}/token"

    async def come_back(self) -> None:
        self._end = asyncio.Event()
        app = web.Application()
        app.router.add_get("/{tenant}/v2.0/.well-known/openid-configuration", self._discover)
        app.router.add_post("/{tenant}/oauth2/v2.0/token", self._token)
        app.router.add_post("/{tenant}/oauth2/v2.0/devicecode", self._device_code)
        app.router.add_post("/token", self._token)
        app.on_response_prepare.append(self._dated)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        await web.SockSite(self._runner, listening, ssl_context=self._context).start()

    async def go_down(self) -> None:
        """Connections are refused from here on."""
        self._end.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def script(self, *faults: Fault | Callable[[dict[str, str]], Fault | None], times: int | None = 1) -> None:
        for fault in faults:
            self._faults.extend([(fault, times is None)] * (times or 1))

    def unscript(self) -> None:
        self._faults.clear()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    def allows(self, user: str, token: str) -> bool:
        """Whether `token` opens the mailbox `user`: what an upstream asks."""
        try:
            claims = jwt.decode(
                token,
                _KEY.public_key(),
                algorithms=["RS256"],
                audience="mail",
                options={"verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            return False
        in_time = claims["exp"] > self.now()
        return in_time and token not in self.revoked and user in claims["mailboxes"]

    def now(self) -> float:
        return time.time() + self.ahead

    def confirm(self, mailbox: str) -> None:
        """Somebody types the code in, and signs in."""
        for code in self._pending:
            self._pending[code] = mailbox

    def consent(self, url: str, mailbox: str) -> str:
        """Somebody opens `url` and agrees; where the browser is sent to."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        code = secrets.token_urlsafe(12)
        self._codes[code] = (mailbox, asked["code_challenge"])
        return f"{asked['redirect_uri']}?state={asked['state']}&code={code}&scope=mail"

    # Below: the server

    async def _dated(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = response.headers.pop("X-Date", formatdate(self.now(), usegmt=True))

    async def _discover(self, request: web.Request) -> web.Response:
        self.discoveries += 1
        tenant = request.match_info["tenant"]
        if tenant != self.tenant:
            text = f"AADSTS90002: Tenant '{tenant}' not found."
            return web.json_response({"error": "invalid_tenant", "error_description": text}, status=400)
        base = f"{self.url}/{tenant}"
        return web.json_response(
            {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            }
        )

    async def _device_code(self, request: web.Request) -> web.Response:
        code = secrets.token_urlsafe(12)
        self._pending[code] = None
        shown = {"user_code": "B2K7QX9ML", "verification_uri": "https://microsoft.com/devicelogin"}
        return web.json_response({"device_code": code, **shown, "expires_in": 900, "interval": 1, "message": ""})

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if (header := request.headers.get("Authorization", "")).startswith("Basic "):
            form["client_id"], _, form["client_secret"] = base64.b64decode(header[6:]).decode().partition(":")
        self.asked.append(form)
        async with self._changed:
            self._changed.notify_all()
        fault: Any = None
        if self._faults:
            fault, for_ever = self._faults[0]
            if not for_ever:
                self._faults.pop(0)
            if callable(fault):
                fault = fault(form)
        if fault is not None:
            if fault.hang:
                await self._end.wait()
            return web.Response(
                status=fault.status,
                text=fault.body,
                content_type=fault.content_type,
                headers=fault.headers,
            )
        status, document = self._judge(form)
        return web.json_response(document, status=status)

    def _judge(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        grant, client = form.get("grant_type", ""), form.get("client_id", "")
        if grant == JWT_GRANT:
            return self._service_account(form["assertion"])
        if not self._is_client(client, form):
            text = "AADSTS7000215: Invalid client secret provided. Trace ID: 1"
            return 401, {"error": "invalid_client", "error_description": text}
        match grant:
            case "client_credentials":
                return 200, self._given(self.mailboxes.get(client, set()))
            case "refresh_token":
                mailbox = self.refresh_tokens.get(form["refresh_token"])
                if mailbox is None:
                    text = "AADSTS70043: The refresh token has expired or is invalid due to sign-in frequency checks."
                    return 400, {"error": "invalid_grant", "error_description": text}
                if not self.rotates:
                    return 200, self._given({mailbox})
                del self.refresh_tokens[form["refresh_token"]]
                return 200, self._given({mailbox}, mailbox)
            case "authorization_code":
                mailbox, challenge = self._codes.pop(form["code"])
                digest = hashlib.sha256(form["code_verifier"].encode()).digest()
                if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != challenge:
                    return 400, {"error": "invalid_grant", "error_description": "wrong verifier"}
                return 200, self._given({mailbox}, mailbox)
            case _ if grant == DEVICE_GRANT:
                signed_in = self._pending.get(form["device_code"])
                if signed_in is None:
                    return 400, {"error": "authorization_pending", "error_description": "AADSTS70016: not yet"}
                return 200, self._given({signed_in}, signed_in)
        return 400, {"error": "unsupported_grant_type"}

    def _is_client(self, client: str, form: dict[str, str]) -> bool:
        if "client_assertion" in form:
            return any(self._is_assertion(form["client_assertion"], client, key) for key in self.certificates[client])
        return client in self.clients and self.clients[client] == form.get("client_secret", "")

    def _is_assertion(self, assertion: str, client: str, key: Any) -> bool:
        options: Any = {"verify_aud": False}
        try:
            claims = jwt.decode(assertion, key, algorithms=["PS256", "RS256"], options=options)
        except jwt.InvalidTokenError:
            return False
        return claims["iss"] == claims["sub"] == client and claims["aud"].startswith(self.url)

    def _service_account(self, assertion: str) -> tuple[int, dict[str, Any]]:
        issuer = jwt.decode(assertion, options={"verify_signature": False})["iss"]
        options: Any = {"verify_exp": False, "verify_iat": False}
        try:
            key = self.service_accounts[issuer]
            claims = jwt.decode(assertion, key, algorithms=["RS256"], audience=GOOGLE, options=options)
        except (jwt.InvalidTokenError, KeyError):
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        if not claims["iat"] - 60 <= self.now() <= claims["exp"]:
            text = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
            return 400, {"error": "invalid_grant", "error_description": text}
        if claims["sub"] not in self.mailboxes.get(issuer, set()):
            text = "Client is unauthorized to retrieve access tokens using this method."
            return 401, {"error": "unauthorized_client", "error_description": text}
        return 200, self._given({claims["sub"]})

    def _given(self, mailboxes: set[str], login: str = "") -> dict[str, Any]:
        now = int(self.now())
        claims = {
            "iss": self.url,
            "aud": "mail",
            "iat": now,
            "exp": now + self.lifetime,
            "mailboxes": sorted(mailboxes),
            "jti": secrets.token_hex(4 + self.longer),
        }
        token = jwt.encode(claims, _KEY, algorithm="RS256")
        self.tokens.append(token)
        given: dict[str, Any] = {"token_type": "Bearer", "expires_in": self.lifetime, "access_token": token}
        if login:
            refresh_token = f"refresh-{secrets.token_urlsafe(12)}"
            self.refresh_tokens[refresh_token] = login
            given["refresh_token"] = refresh_token
        return given


def private_key() -> tuple[str, Any]:
    """A key for a service account, as PEM, and its public half."""
    pem = _KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode(), _KEY.public_key()
