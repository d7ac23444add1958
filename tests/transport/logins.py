"""How servers offer AUTH, and how they refuse it: what is known of them from public reports and documentation.

`LOGINS`: the mechanism is refused, and the next one has its turn. `NO_OTHER`: it is not, and no password is tried
twice.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Login:
    """`offered`: the lines of EHLO about AUTH. `reply` is to the first that is tried; `then` is the mechanism that
    follows, "" for none. `remedy` is that of this reply, where it stays the last."""

    offered: tuple[str, ...]
    tried: str
    reply: str
    then: str
    remedy: str
    known_from: str

    def __str__(self) -> str:
        return f"{self.tried}: {self.reply}"


def _refused(offered: str, tried: str, reply: str, then: str, known_from: str, remedy: str = "mechanism") -> Login:
    return Login(tuple(offered.split("|")), tried, reply, then, remedy, known_from)


def _stays(offered: str, tried: str, reply: str, remedy: str, known_from: str) -> Login:
    return Login(tuple(offered.split("|")), tried, reply, "", remedy, known_from)


_INVALID = "535 5.7.8 Error: authentication failed: Invalid authentication mechanism"

LOGINS = (
    _refused("AUTH LOGIN PLAIN", "PLAIN", "504 5.7.4 Unrecognized authentication type", "LOGIN", "Exchange, M365"),
    _refused("AUTH PLAIN LOGIN", "PLAIN", "504 5.7.4 Unsupported authentication mechanism", "LOGIN", "go-smtp servers"),
    _refused("AUTH PLAIN LOGIN", "PLAIN", "504 5.3.3 AUTH mechanism PLAIN not available", "LOGIN", "sendmail"),
    _refused("AUTH LOGIN PLAIN", "PLAIN", "504 Unknown mechanism <PLAIN>", "LOGIN", "once#12"),
    _refused(
        "AUTH LOGIN PLAIN|AUTH=LOGIN",
        "PLAIN",
        "504 PLAIN authentication is not permitted by this server.",
        "LOGIN",
        "MailEnable (enough_mail#53)",
    ),
    _refused("AUTH LOGIN PLAIN", "PLAIN", '502 Command "AUTH PLAIN" not implemented', "LOGIN", "nodemailer#832"),
    _refused("AUTH PLAIN LOGIN", "PLAIN", "502 Invalid/unsupported command", "LOGIN", "Postal (postal#250)"),
    _refused("AUTH PLAIN LOGIN", "PLAIN", "501 Could not do Unknown AUTH", "LOGIN", "Zoho (dma#50)"),
    _refused("AUTH LOGIN PLAIN", "PLAIN", "500 5.3.3 Unrecognized command", "LOGIN", "Exchange behind a firewall"),
    _refused("AUTH PLAIN CRAM-MD5", "PLAIN", "500 Error: command not recognized", "CRAM-MD5", "mailproxy#2"),
    _refused("AUTH PLAIN LOGIN", "PLAIN", "503 AUTH command used when not advertised", "LOGIN", "Exim"),
    _refused("AUTH PLAIN LOGIN", "PLAIN", "503 5.5.1 Error: authentication not enabled", "LOGIN", "Postfix, E-Post"),
    _refused("AUTH PLAIN LOGIN", "PLAIN", "500 5.5.2 Line too long", "LOGIN", "a short command line at a gateway"),
    _refused("AUTH PLAIN LOGIN", "PLAIN", "501 5.5.4 Syntax: AUTH mechanism", "LOGIN", "Postfix, an initial response"),
    _refused("AUTH PLAIN LOGIN", "PLAIN", "501 5.5.2 Cannot decode response", "LOGIN", "Google's wording"),
    _refused("AUTH LOGIN CRAM-MD5", "LOGIN", "534 5.7.9 Authentication mechanism is too weak", "CRAM-MD5", "RFC 4954"),
    _refused("AUTH PLAIN CRAM-MD5", "PLAIN", "534 5.7.9 Please use another mechanism", "CRAM-MD5", "RFC 4954"),
    _refused("AUTH LOGIN CRAM-MD5", "LOGIN", _INVALID, "CRAM-MD5", "Postfix with Dovecot (dma#50, listmonk#1750)"),
    _refused("AUTH PLAIN|AUTH LOGIN", "PLAIN", f"{_INVALID}: 'PLAIN'", "LOGIN", "Postfix (Tieba-Cloud-Sign#295)"),
    _refused(
        "AUTH PLAIN CRAM-MD5",
        "PLAIN",
        "535 5.7.8 Error: authentication failed: no mechanism available",
        "CRAM-MD5",
        "Cyrus SASL (greenlight#2422)",
    ),
    _refused("AUTH=PLAIN LOGIN", "PLAIN", "535 5.7.3 Unsupported authentication mechanism", "LOGIN", "old style offer"),
    _refused("AUTH PLAIN LOGIN", "PLAIN", "535 5.7.8 AUTH PLAIN is disabled here", "LOGIN", "Haraka plug-ins"),
    _refused("AUTH LOGIN CRAM-MD5", "LOGIN", "535 LOGIN not supported", "CRAM-MD5", "appliances that shout"),
    _refused("AUTH PLAIN LOGIN", "PLAIN", "535 Authentication type not supported", "LOGIN", "hMailServer plug-ins"),
    _refused("AUTH PLAIN LOGIN", "PLAIN", "535 5.7.4 Unrecognized authentication type", "LOGIN", "Exchange hybrid"),
    _refused(
        "AUTH PLAIN CRAM-MD5", "PLAIN", "535 5.7.8 Plaintext authentication not allowed", "CRAM-MD5", "Dovecot policy"
    ),
    _refused("AUTH CRAM-MD5 LOGIN", "LOGIN", "535 auth method is not enabled", "CRAM-MD5", "CommuniGate"),
    _refused(
        "AUTH GSSAPI NTLM LOGIN PLAIN", "PLAIN", "504 5.7.4 Unrecognized authentication type", "LOGIN", "Exchange 2016"
    ),
    _refused("auth plain login", "PLAIN", "504 Unrecognised authentication type", "LOGIN", "MailEnable, lower case"),
    # A mechanism and nothing else to try: the remedy is what counts.
    _refused("AUTH LOGIN", "LOGIN", "504 5.7.4 Unrecognized authentication type", "", "M365 without passwords"),
    _refused("AUTH PLAIN", "PLAIN", _INVALID, "", "Proton (dokuwiki-plugin-smtp#65)"),
    _refused("AUTH LOGIN", "LOGIN", "502 5.5.1 AUTH not available", "", "sendmail without SASL"),
)

_ALL = "AUTH PLAIN LOGIN CRAM-MD5"
NO_OTHER = (
    _stays(_ALL, "PLAIN", "535 Incorrect authentication data", "password", "Exim"),
    _stays(_ALL, "PLAIN", "535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6", "password", "Postfix with Cyrus"),
    _stays(_ALL, "PLAIN", "535 5.7.8 Error: authentication failed: (reason unavailable)", "password", "Postfix 3.8"),
    _stays("AUTH LOGIN", "LOGIN", "535 5.7.0 Invalid login or password", "password", "Brevo (borgbackupserver#16)"),
    _stays("AUTH LOGIN CRAM-MD5", "LOGIN", "535 5.7.8 Login failed", "password", "webmail hosts"),
    _stays("AUTH LOGIN CRAM-MD5", "LOGIN", "535 LOGIN FAILED", "password", "appliances that shout"),
    _stays(_ALL, "PLAIN", "535 5.7.8 SASL PLAIN authentication failed: authentication failure", "password", "Cyrus"),
    _stays(_ALL, "PLAIN", "535 5.7.0 authentication rejected: your password is too simple", "password", "Tiscali"),
    _stays(_ALL, "PLAIN", "535 authorization failed (#5.7.0)", "password", "qmail"),
    _stays("AUTH LOGIN PLAIN", "PLAIN", "535 5.7.8 Username and Password not accepted", "google-password", "Google"),
    _stays(
        "AUTH LOGIN PLAIN", "PLAIN",
        "535 Login Fail. Please enter your authorization code to login", "app-password", "QQ (yapi#2219)",
    ),
    _stays("AUTH LOGIN PLAIN", "PLAIN", "535 5.7.8 Error: need app password", "app-password", "mail.ru, Yandex"),
    _stays(
        "AUTH LOGIN XOAUTH2 CRAM-MD5", "LOGIN",
        "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", "m365-no-passwords",
        "Outlook.com (mailR#107)",
    ),
    _stays(
        "AUTH PLAIN LOGIN XOAUTH2", "PLAIN", "535 5.7.0 (#AUTH005) Too many bad auth attempts.", "login-locked", "Yahoo"
    ),
    _stays(
        _ALL, "PLAIN", "535 auth failed (this user authenticate too many times)", "login-locked", "nodemailer#1350"
    ),
    _stays(_ALL, "PLAIN", "535 5.7.8 Account is locked", "login-locked", "hosting panels"),
    _stays("AUTH LOGIN CRAM-MD5", "LOGIN", "535 LOGIN failed: this account is disabled", "login-locked", "IceWarp"),
    _stays(_ALL, "PLAIN", "454 4.7.0 Temporary authentication failure", "login-later", "RFC 4954, Postfix"),
    _stays(
        _ALL, "PLAIN", "454 4.7.0 Temporary authentication failure: Connection lost to authentication server",
        "login-later", "Postfix (docker-mailserver#3891)",
    ),
    _stays(_ALL, "PLAIN", "530 5.7.0 Must issue a STARTTLS command first", "login-tls", "Postfix, Google"),
    _stays(_ALL, "PLAIN", "538 5.7.11 Encryption required for requested authentication mechanism", "login-tls",
           "RFC 2554"),
    _stays(_ALL, "PLAIN", "553 5.3.0 Auth failure", "password", "Naver (simplesmtp#7)"),
    _stays(_ALL, "PLAIN", "550 5.7.1 Access denied, your IP is on a blocklist", "turned-away", "hosting panels"),
)  # fmt: skip
