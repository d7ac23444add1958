"""Reading what an upstream said: which sentence of the table `remedy` fits.

The texts of providers are those of their own documentation (as far as it has them), the others are ours; where
none is known, stage and code tell enough.
"""

from __future__ import annotations

from relay.mail.outcome import Stage, Trouble
from relay.policy.login import refuses_mechanism

# What is said, in lower case, and the remedy; the first that is found speaks.
_TOKEN_TEXTS = (
    ("aadsts7000222", "token-secret-expired"),
    ("aadsts7000215", "token-secret-wrong"),
    ("aadsts7000218", "token-public-client"),
    ("aadsts700025", "token-not-public"),
    ("aadsts700016", "token-app"),
    ("aadsts700027", "token-certificate"),
    ("aadsts700024", "token-clock"),
    ("aadsts900971", "token-redirect"),
    ("aadsts50059", "token-tenant"),
    ("aadsts90002", "token-tenant"),
    ("invalid_tenant", "token-tenant"),
    ("aadsts65001", "token-consent"),
    ("aadsts70011", "token-scope"),
    ("aadsts1002012", "token-scope"),
    ("invalid_scope", "token-scope"),
    ("aadsts", "token-login"),  # all others of a login: 70043, 700082, 50173, 50076 and more
    ("log in once", "token-login"),
    ("state-key", "token-key"),
    ("clock of this machine", "token-clock"),
    ("invalid jwt", "token-clock"),
    ("unauthorized_client", "token-delegation"),
    ("invalid_client", "token-secret-wrong"),
    ("invalid_grant", "token-login"),
    ("no token", "token-endpoint"),
)
_LOGIN_TEXTS = (
    ("smtpclientauthentication is disabled", "m365-tenant"),
    ("security defaults", "m365-security-defaults"),
    ("did not meet the criteria", "m365-criteria"),
    ("basic authentication is not supported", "m365-no-passwords"),
    ("basic authentication is disabled", "m365-no-passwords"),
    ("application-specific password", "google-password"),
    ("username and password not accepted", "google-password"),
    ("app password", "app-password"),
    ("app-specific password", "app-password"),
    ("authorization code", "app-password"),
)
_AUTH_TEXTS = (  # at AUTH only: elsewhere the same words are about the connection
    *_LOGIN_TEXTS,
    ("starttls", "login-tls"),
    ("encryption required", "login-tls"),
    ("too many", "login-locked"),
    (" locked", "login-locked"),
    ("suspended", "login-locked"),
    ("account is disabled", "login-locked"),
    ("account disabled", "login-locked"),
    ("access denied", "turned-away"),
    ("blacklist", "turned-away"),
    ("blocklist", "turned-away"),
)
_SENDER_TEXTS = (
    ("sendasdenied", "m365-send-as"),
    ("permissions to send as", "m365-send-as"),
    ("bad outbound sender", "m365-blocked"),
    ("not authenticated", "login-missing"),
    ("authentication required", "login-missing"),
    ("from does not match", "sender"),
    ("verified sender", "sender"),
    ("address is not verified", "sender"),
)
_CERTIFICATE_TEXTS = (
    ("not valid yet", "certificate-clock"),
    ("has expired", "certificate-expired"),
    ("self-signed", "certificate-authority"),
    ("unknown authority", "certificate-authority"),
    ("certificate is for", "certificate-name"),
    ("certificate is not for", "certificate-name"),
    ("certificate is not good", "certificate-authority"),
    ("none of those in tls_pin", "certificate-pin"),
)
_CIPHER_TEXTS = tuple(
    (words, "tls-ciphers")
    for words in (
        "handshake failure",
        "cipher",
        "insufficient security",
        "too small",
        "too weak",
        "signature",
        "legacy",
    )
)
_CONNECTION_TEXTS = (
    ("connection refused", "connection-refused"),
    ("unreachable", "no-network"),
    ("no route to host", "no-network"),
)
_THROTTLING = ("too many", "limit", "throttl", "concurrent", "4.7.0")


def certificate_remedy(text: str) -> str:
    """The advice for a certificate that was not accepted; "" when `text`, which is ours, speaks of something else."""
    return _found(text, _CERTIFICATE_TEXTS)


def connection_remedy(stage: Stage, trouble: Trouble, code: int, status: str, text: str) -> str:
    """The advice for an upstream that was set aside, by the stage and what it said."""
    match stage:
        case Stage.DNS:
            return "dns"
        case Stage.CONNECT:
            return "connection-timeout" if trouble is Trouble.TIMEOUT else _found(text, _CONNECTION_TEXTS) or "upstream"
        case Stage.STARTTLS:
            return "no-starttls" if code == 0 else "upstream"
        case Stage.TLS:
            return certificate_remedy(text) or _tls_remedy(text)
        case Stage.AUTH if status in ("5.0.401", "5.0.403"):
            return "endpoint-login"
        case Stage.HTTP if status.startswith("4.0.3"):
            return "endpoint-moved"
        case Stage.HTTP:
            return "throttled" if status == "4.0.429" else "upstream"
        case Stage.AUTH:
            return _login_remedy(code, status, text)
        case Stage.EHLO if code in (500, 502):
            return "no-ehlo"
    if code == 0:
        return "port-and-tls" if stage in (Stage.BANNER, Stage.EHLO) else "upstream"
    said = f"{status} {text}".lower()
    found = _found(text, _LOGIN_TEXTS)
    if found:
        return found
    if any(word in said for word in _THROTTLING):
        return "throttled"
    return "upstream" if code < 500 else "turned-away"


def sender_remedy(code: int, status: str, text: str) -> str:
    """The advice for a sender that was refused."""
    if code == 530 or status == "5.7.57":
        return "login-missing"
    return _found(text, _SENDER_TEXTS) or "sender"


def _login_remedy(code: int, status: str, text: str) -> str:
    if code == 0:
        if found := _found(text, _TOKEN_TEXTS):
            return found
        if "upstream offers" in text or "unencrypted" in text:
            return "mechanism"
        return "login-later" if text.startswith("the upstream") else "secret"
    if code < 500:
        return "login-later"
    found = _found(text, _AUTH_TEXTS)
    if found:
        return found
    if status == "5.7.4" or refuses_mechanism(code, text):
        return "mechanism"
    if "(xoauth2" in text.lower():
        return "m365-token" if status in ("5.7.3", "5.7.139") else "token-refused"
    return "m365-login" if status in ("5.7.3", "5.7.139") else "password"


def _tls_remedy(text: str) -> str:
    if text.startswith("the TLS files"):
        return "tls-files"
    if "wrong version number" in text or "record layer" in text:
        return "port-and-tls"
    return _found(text, _CIPHER_TEXTS) or "tls"


def _found(text: str, table: tuple[tuple[str, str], ...]) -> str:
    lower = text.lower()
    return next((remedy for words, remedy in table if words in lower), "")
