"""Our replies, as bytes, built once (RFC 5321, section 4.2.3; enhanced codes RFC 3463)."""

from __future__ import annotations

from relay.errors import StoreUnavailable

LONGEST = 510  # octets of a line, without its end (RFC 5321, section 4.5.3.1.5)

OK = b"250 2.0.0 OK\r\n"
SENDER_OK = b"250 2.1.0 Sender OK\r\n"
RECIPIENT_OK = b"250 2.1.5 Recipient OK\r\n"
START_DATA = b"354 End data with <CRLF>.<CRLF>\r\n"
BYE = b"221 2.0.0 Bye\r\n"
HELP = b"214 2.0.0 https://www.rfc-editor.org/rfc/rfc5321\r\n"
CANNOT_VERIFY = b"252 2.1.5 Send some mail, and we shall see\r\n"
CHUNK_OK = b"250 2.0.0 Chunk OK\r\n"
START_TLS = b"220 2.0.0 Ready to start TLS\r\n"
AUTHENTICATED = b"235 2.7.0 Authenticated\r\n"
ASK_USERNAME = b"334 VXNlcm5hbWU6\r\n"
ASK_PASSWORD = b"334 UGFzc3dvcmQ6\r\n"
ASK_RESPONSE = b"334 \r\n"
ASK_DIGEST = b"334 PDFAcmVsYXk+\r\n"  # <1@relay>, always: no password is checked

SHUTTING_DOWN = b"421 4.3.2 Shutting down\r\n"
TOO_MANY_SESSIONS = b"421 4.7.0 Too many connections\r\n"
TOO_MANY_ERRORS = b"421 4.7.0 Too many errors\r\n"
TOO_MANY_MESSAGES = b"421 4.7.0 Too many messages in one session\r\n"
ABORTED = b"421 4.4.2 The message did not come to its end\r\n"
TOO_SLOW = b"421 4.4.2 Timeout\r\n"
TOO_MANY_AUTH_FAILURES = b"421 4.7.0 Too many authentication failures\r\n"
LOCAL_ERROR = b"451 4.3.0 Local error, try again later\r\n"
STORE_FAILED = b"451 4.3.0 The message could not be kept, try again later\r\n"
STORE_FULL = b"452 4.3.1 Insufficient storage, try again later\r\n"
TOO_MANY_RECIPIENTS = b"452 4.5.3 Too many recipients\r\n"
AUTH_LATER = b"454 4.7.0 Too many authentication failures, try again later\r\n"

LINE_TOO_LONG = b"500 5.5.6 Line too long\r\n"
UNKNOWN = b"500 5.5.2 Command not recognized\r\n"
BAD_SYNTAX = b"501 5.5.4 Syntax error in parameters\r\n"
BAD_BASE64 = b"501 5.5.2 Not base64\r\n"
AUTH_CANCELLED = b"501 5.7.0 Authentication cancelled\r\n"
NOT_IMPLEMENTED = b"502 5.5.1 Command not implemented\r\n"
NO_MAIL = b"503 5.5.1 MAIL first\r\n"
BAD_CHUNK = b"501 5.5.4 Syntax: BDAT octets [LAST]; what follows cannot be told apart\r\n"
NO_RECIPIENT = b"503 5.5.1 RCPT first\r\n"
NESTED_MAIL = b"503 5.5.1 A transaction is open already\r\n"
CHUNKS_BEGAN = b"503 5.5.1 The content began with BDAT already\r\n"
TLS_ALREADY = b"503 5.5.1 TLS is active already\r\n"
AUTHENTICATED_ALREADY = b"503 5.5.1 Already authenticated\r\n"
NO_AUTH_IN_MAIL = b"503 5.5.1 Not during a transaction\r\n"
UNKNOWN_MECHANISM = b"504 5.5.4 Unrecognized authentication mechanism\r\n"
AUTH_REQUIRED = b"530 5.7.0 Authentication required\r\n"
TLS_REQUIRED = b"530 5.7.0 Must issue a STARTTLS command first\r\n"
BAD_CREDENTIALS = b"535 5.7.8 Authentication credentials invalid\r\n"
AUTH_NEEDS_TLS = b"538 5.7.11 Encryption required for authentication\r\n"
BARE_LF = b"550 5.6.0 The message has bare LF line ends; lines end with CRLF\r\n"
BARE_CR = b"550 5.6.0 The message has bare CR; lines end with CRLF\r\n"
BARE_LF_AND_CR = b"550 5.6.0 The message has bare LF and bare CR; lines end with CRLF\r\n"
NO_NULL_RECIPIENT = b"553 5.1.3 The null path is no recipient\r\n"
NO_DOMAIN = b"553 5.1.3 The recipient has no domain\r\n"
TOO_LARGE = b"552 5.3.4 Message too large\r\n"
HEADER_TOO_LARGE = b"552 5.3.4 Header too large\r\n"
NOT_ALLOWED = b"554 5.7.1 Your address is not allowed here\r\n"
NOT_SMTP = b"554 5.5.0 This is SMTP\r\n"


def bare(*, lf: bool, cr: bool) -> bytes:
    """The content has line ends that are none."""
    return BARE_LF_AND_CR if lf and cr else BARE_LF if lf else BARE_CR


def aborted(why: str) -> bytes:
    """The message did not come to its end, by which limit."""
    return ABORTED[:-2] + f": {why}".encode() + b"\r\n" if why else ABORTED


def over_rate(count: int, seconds: float) -> bytes:
    """A client sent more messages than it may."""
    return b"421 4.7.0 Too many messages from your address, at most %d in %d seconds\r\n" % (
        count,
        seconds,
    )


def unkept(error: StoreUnavailable) -> bytes:
    """The store could not keep the message. What only a person can put right is said where a person may read it."""
    if error.reason == "moved":
        return f"451 4.3.0 {error}".encode("ascii", "replace")[:LONGEST] + b"\r\n"
    return STORE_FULL if error.reason == "full" else STORE_FAILED
