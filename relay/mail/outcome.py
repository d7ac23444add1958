"""The outcome of one recipient in one attempt: Delivered, Deferred or Failed.

What happens to mail is an outcome, not an exception. `Stage` says how far an attempt came.
"""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from relay.mail.reply import Reply
from relay.values import frozen


class Stage(StrEnum):
    """How far an attempt came when it ended (labels of `relay_attempt_failures_total`)."""

    DNS = "dns"
    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    DOT = "dot"
    HTTP = "http"  # a request to an endpoint, and its answer


BEFORE_A_TRANSACTION = frozenset(
    {Stage.DNS, Stage.CONNECT, Stage.BANNER, Stage.EHLO, Stage.STARTTLS, Stage.TLS, Stage.AUTH}
)
"""What fails at these says nothing about the message."""


class Trouble(StrEnum):
    """The kind of failure (label `class` of `relay_attempt_failures_total`)."""

    TRANSIENT = "transient"  # a 4xx, or something that is not SMTP
    PERMANENT = "permanent"  # a 5xx
    TIMEOUT = "timeout"
    DROPPED = "dropped"  # the connection broke


class Refusal(StrEnum):
    """What a reply that is no success speaks of (label `class` of `relay_refusals_total`); `policy.refusal` tells."""

    SENDER = "sender-refused"
    THROTTLED = "throttled"
    QUOTA = "quota"
    AUTH = "auth"
    TOO_MANY = "too-many-recipients"
    RECIPIENT = "recipient-refused"
    CONTENT = "content-refused"
    TOO_LARGE = "too-large"
    LINE_TOO_LONG = "line-too-long"
    MAILBOX_FULL = "mailbox-full"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"


@frozen
class Delivered:
    """The next hop took responsibility. `reported`: it offered DSN and got the DSN parameters."""

    reply: Reply
    reported: bool = False


@frozen
class Deferred:
    """Not now. `in_doubt`: the whole message was sent and no answer came, so it may have been taken.

    `reply` is the upstream's, or None when none was given; `text` then says what happened.
    `upstream_sick`: it need not speak of this message, and another upstream may be asked at once. `refusal`: what the
    reply speaks of, None without a reply, or before anybody asked. `retry_after`: seconds that the upstream asked for.
    """

    stage: Stage
    trouble: Trouble
    text: str
    reply: Reply | None = None
    in_doubt: bool = False
    upstream_sick: bool = False
    refusal: Refusal | None = field(default=None, compare=False)  # it follows from the reply
    retry_after: float | None = None


@frozen
class Failed:
    """Refused for good: a 5xx to MAIL, RCPT, DATA or the content; or nothing can carry it.

    `unasked`: the reply is ours, because this upstream cannot carry the message; another one may. So it is with what an
    endpoint refused, where the configuration leaves that to others. `refusal`: what the reply speaks of, None before
    anybody asked.
    """

    stage: Stage
    reply: Reply
    unasked: bool = False
    refusal: Refusal | None = field(default=None, compare=False)  # it follows from the reply


Outcome = Delivered | Deferred | Failed
