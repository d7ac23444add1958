"""Alarms by a webhook: the body that each service documents, and one POST of it.

json    our own: version, hostname, cause, severity, since, title, text
slack   an incoming webhook: text, in which & < > are escaped
teams   a workflow "when a webhook request is received": a message with an adaptive card
ntfy    publishing as JSON: posted to the server, with the topic that the configured address ends with
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from relay.delivery.alarm_way import Alarm, NotSent
from relay.errors import RelayError
from relay.observe.situation import Severity
from relay.values import frozen

Format = Literal["json", "slack", "teams", "ntfy"]

_NTFY_LONGEST = 4096  # octets of a message; a longer one becomes an attachment


@frozen
class WebhookTerms:
    """`url` reveals the address, which is a secret, and may raise RelayError. `tls_ca` replaces the system's store."""

    url: Callable[[], str]
    format: Format
    tls_ca: str | None


class ByWebhook:
    """Sends by the webhook of `terms`."""

    name = "webhook"

    def __init__(self, terms: WebhookTerms) -> None:
        self._terms = terms

    async def send(self, alarm: Alarm) -> str:
        from relay.transport import webhook  # only who has one pays for an HTTP client

        terms = self._terms
        try:
            url, document = posted(terms.format, alarm, terms.url())
            await webhook.post(url, document, ca=terms.tls_ca)
        except RelayError as error:
            raise NotSent(str(error)) from None
        return terms.format

    def parts(self) -> tuple[ByWebhook]:
        return (self,)


def posted(format: Format, alarm: Alarm, url: str) -> tuple[str, dict[str, object]]:
    """Where it is posted, and what."""
    match format:
        case "json":
            return url, _json(alarm)
        case "slack":
            return url, {"text": _escaped(f"*{alarm.title}*\n{alarm.text}")}
        case "teams":
            return url, _teams(alarm)
        case "ntfy":
            return _ntfy(alarm, url)


def _json(alarm: Alarm) -> dict[str, object]:
    return {
        "version": 1,
        "hostname": alarm.hostname,
        "cause": alarm.cause,
        "severity": alarm.severity.value,
        "since": alarm.since.isoformat(),
        "title": alarm.title,
        "text": alarm.text,
    }


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _teams(alarm: Alarm) -> dict[str, object]:
    """A RichTextBlock for each line: what a provider said is shown as it is, and not read as Markdown."""
    colour = "Attention" if alarm.severity is Severity.ERROR else "Warning"
    title = {"type": "TextRun", "text": alarm.title, "weight": "Bolder", "size": "Medium", "color": colour}
    runs = [title, *[{"type": "TextRun", "text": line} for line in alarm.text.splitlines() if line]]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [{"type": "RichTextBlock", "inlines": [run]} for run in runs],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _ntfy(alarm: Alarm, url: str) -> tuple[str, dict[str, object]]:
    parts = urlsplit(url)
    folder, _, topic = parts.path.rstrip("/").rpartition("/")
    error = alarm.severity is Severity.ERROR
    document: dict[str, object] = {
        "topic": topic,
        "title": alarm.title,
        "message": alarm.text.encode()[:_NTFY_LONGEST].decode("utf-8", "ignore"),
        "priority": 4 if error else 3,
        "tags": ["rotating_light" if error else "warning"],
    }
    return urlunsplit(parts._replace(path=f"{folder}/")), document
