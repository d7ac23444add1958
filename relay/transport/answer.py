"""What the answer of an HTTPS endpoint means for a recipient. The status alone decides:

    2xx                             delivered
    401, 403                        the login is refused: deferred, and the upstream set aside
    408, 425                        deferred
    429                             deferred, and all mail waits a moment, as long as Retry-After asks for
    5xx                             deferred, and the upstream set aside, at least as long as that
    other 4xx                       failed; with `on_client_error: next` only where no other upstream takes it
    whatever else, redirects too    deferred, and the upstream set aside

All who read replies know those of SMTP, so an answer becomes one: 250, 450, 550 or 535, with the status of HTTP as the
last part of the enhanced one, "550 5.0.422".

The text of an answer may quote the message, so it goes with the outcome of the recipient, and is kept for ordinary
mail only; what is said of the upstream as a whole has no word of it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Literal

from relay import figures
from relay.mail.outcome import Deferred, Delivered, Failed, Stage, Trouble
from relay.mail.reply import Reply, sanitise
from relay.transport.port import Delivery
from relay.values import frozen

OnClientError = Literal["fail", "next"]

_LATER = (408, 425, 429)
_SAID = 300  # characters


@frozen
class Answer:
    """`body` is what was read of it, "" unless it is JSON; `date` the endpoint's clock."""

    status: int
    retry_after: str = ""
    date: str = ""
    body: str = ""


def delivery(answer: Answer, *, on_client_error: OnClientError, now: datetime) -> Delivery:
    """The end of a transaction with one recipient that was answered so."""
    status = answer.status
    words = f"HTTP {status} {HTTPStatus(status).phrase if status in _KNOWN else ''}".rstrip()
    said = _said(answer.body)
    text = sanitise(f"{words}: {said}" if said else words)
    if 200 <= status < 300:
        return Delivery((Delivered(Reply(250, f"2.0.{status}", text)),))
    if status in (401, 403):
        reply = Reply(535, f"5.0.{status}", words)
        sick = Deferred(Stage.AUTH, Trouble.PERMANENT, words, reply, upstream_sick=True)
        return Delivery((sick,), sick)
    if 400 <= status < 500 and status not in _LATER:
        reply = Reply(552, "5.3.4", text) if status == 413 else Reply(550, f"5.0.{status}", text)
        return Delivery((Failed(Stage.HTTP, reply, unasked=on_client_error == "next"),))
    after = asked_pause(answer.retry_after, answer.date, now) if status == 429 or status >= 500 else None
    reply = Reply(450, f"4.0.{status}", text)
    outcome = Deferred(Stage.HTTP, Trouble.TRANSIENT, text, reply, retry_after=after)
    if status in (408, 425):
        return Delivery((outcome,))
    if 300 <= status < 400:
        words = f"{words}: redirects are not followed"
    outcome = replace(outcome, upstream_sick=True)
    return Delivery((outcome,), replace(outcome, text=words, reply=replace(reply, text=words)))


_KNOWN = frozenset(map(int, HTTPStatus))


def asked_pause(text: str, date: str, now: datetime) -> float | None:
    """The seconds of Retry-After (RFC 9110, section 10.2.3), a day at most; a date in it is by the clock of `date`."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), figures.DAY)
    when = figures.date(text)
    if when is None:
        return None
    return min(max(0.0, (when - (figures.date(date) or now)).total_seconds()), figures.DAY)


def _said(body: str) -> str:
    """The sentence in an answer of JSON, as most endpoints have one (RFC 9457 among them), or ""."""
    found = figures.json_of(body)
    for _ in range(2):
        if isinstance(found, dict):
            found = next((found[key] for key in ("detail", "message", "error") if key in found), None)
    return sanitise(found, _SAID) if isinstance(found, str) else ""
