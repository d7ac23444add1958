"""A client that is set to what this listener does not offer: in words for the log, with what to change."""

from __future__ import annotations

NO_AUTH = "switch the login off in the client, or write auth: any for this listener"
NO_STARTTLS = "switch TLS off in the client, or write tls: starttls (and certificate, key) for this listener"
_OFFERS = {"a login": "auth: any", "TLS": "tls: starttls"}
TLS_HANDSHAKE = 0x16  # the first octet of a client that begins TLS (RFC 8446, section 5.1)


def of_auth_in_clear(tls: str) -> str:
    """A login where none is taken unencrypted; `tls` is what the listener is set to."""
    return (
        "switch STARTTLS on in the client" if tls == "starttls" else "without TLS only this machine itself may log in"
    )


def of_leaving(auth: str, tls: str) -> str:
    """It greeted and left; "" where the listener offers all that a client may insist on."""
    missing = [words for words, offered in (("a login", auth != "none"), ("TLS", tls != "none")) if not offered]
    if not missing:
        return ""
    wanted, offers = " or ".join(missing), " and ".join([_OFFERS[words] for words in missing])
    return (
        f"it greeted and left without handing in mail; if it insists on {wanted}, which is not offered here: switch "
        f"that off in the client, or write {offers} for this listener"
    )


def of_early_tls(tls: str) -> str:
    """TLS began on a port that speaks SMTP in clear; `tls` is what the listener is set to."""
    instead = "STARTTLS" if tls == "starttls" else "no TLS"
    return f"the client began TLS at once: set it to {instead}, or write tls: implicit for a listener of its own"


def of_handshake(error: str) -> str:
    """What to do about a handshake that failed; "" where OpenSSL's words do not say."""
    for words, cure in _HANDSHAKES:
        if words in error:
            return cure
    return ""


_SPEAKS_CLEAR = "the client began without TLS: switch it on there, or write tls: starttls or tls: none for the listener"
_TOO_OLD = "the client knows old TLS only: write tls_profile: legacy for a listener of its own"
_HANDSHAKES = (
    ("WRONG_VERSION_NUMBER", _SPEAKS_CLEAR),
    ("HTTP_REQUEST", _SPEAKS_CLEAR),
    ("RECORD_LAYER_FAILURE", _SPEAKS_CLEAR),
    ("UNSUPPORTED_PROTOCOL", _TOO_OLD),
    ("VERSION_TOO_LOW", _TOO_OLD),
    ("NO_SHARED_CIPHER", _TOO_OLD),
    ("UNKNOWN_CA", "the client does not trust the certificate: give it one of an authority that the client knows"),
    (
        "BAD_CERTIFICATE",
        "the client does not like the certificate: its name must be the one that the client connects to",
    ),
)
