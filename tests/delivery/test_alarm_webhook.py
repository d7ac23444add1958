"""Alarms by a webhook: each body is one that the service documents, and what the service says is what is reported.

The validators are written from the documentation: Slack's incoming webhooks and its formatting of text; the schema of
adaptive cards (1.5) and what a workflow of Teams takes; ntfy's publishing as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from relay.delivery.alarm_way import Alarm, NotSent
from relay.delivery.alarm_webhook import ByWebhook, WebhookTerms, posted
from relay.observe.situation import Severity
from relay.transport import webhook
from tests.delivery.test_alarm_mail import ALARM
from tests.kit.certificates import Certificates
from tests.kit.endpoint import Endpoint, answer, raw

ODD = replace(
    ALARM,
    title='[relay r] "Login" <refused> by own & others',
    text="What is wrong: 535 <!channel> *no* [click](http://x.example) & <b>.\n\nSince: 1\n" + "é" * 6000 + "\n",
)
WARNING = replace(ALARM, severity=Severity.WARNING)


def slack(document: Any, alarm: Alarm) -> None:
    """An object with `text`: at most 40 000 characters, in which only entities and escapes have & < >."""
    assert set(document) == {"text"}
    text = document["text"]
    assert isinstance(text, str)
    assert 0 < len(text) <= 40_000
    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", text)
    plain = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert plain == f"*{alarm.title}*\n{alarm.text}"


# Required and allowed properties of the elements that are used, from the schema of adaptive cards.
CARD = {"$schema", "type", "version", "body"}
RICH_TEXT_BLOCK = {"type", "inlines", "horizontalAlignment", "id", "spacing", "separator", "height", "isVisible"}
TEXT_RUN = {"type", "text", "color", "size", "weight", "italic", "strikethrough", "highlight", "isSubtle", "fontType"}
COLOURS = {"default", "dark", "light", "accent", "good", "warning", "attention"}
SIZES = {"default", "small", "medium", "large", "extralarge"}
WEIGHTS = {"default", "lighter", "bolder"}


def teams(document: Any, alarm: Alarm) -> None:
    """A message with one attachment, an adaptive card that Teams can show; at most 28 KB."""
    assert len(json.dumps(document, ensure_ascii=False).encode()) <= 28 * 1024
    assert set(document) == {"type", "attachments"}
    assert document["type"] == "message"
    (attachment,) = document["attachments"]
    assert set(attachment) == {"contentType", "contentUrl", "content"}
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert attachment["contentUrl"] is None
    card = attachment["content"]
    assert set(card) == CARD
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert card["$schema"] == "http://adaptivecards.io/schemas/adaptive-card.json"
    lines = []
    for block in card["body"]:
        assert {"type", "inlines"} <= set(block) <= RICH_TEXT_BLOCK
        assert block["type"] == "RichTextBlock"
        (run,) = block["inlines"]
        assert {"type", "text"} <= set(run) <= TEXT_RUN
        assert run["type"] == "TextRun"
        assert isinstance(run["text"], str)
        assert run.get("color", "default").lower() in COLOURS
        assert run.get("size", "default").lower() in SIZES
        assert run.get("weight", "default").lower() in WEIGHTS
        lines.append(run["text"])
    assert lines == [alarm.title, *[line for line in alarm.text.splitlines() if line]]


def ntfy(document: Any, alarm: Alarm) -> None:
    """`topic` is required; a message of more than 4 096 octets would become an attachment."""
    assert {"topic"} <= set(document) <= {"topic", "title", "message", "priority", "tags", "click", "markdown", "icon"}
    assert re.fullmatch("[-_A-Za-z0-9]{1,64}", document["topic"])
    assert document["topic"] == "kantoor-alarm"
    assert document["title"] == alarm.title
    assert 0 < len(document["message"].encode()) <= 4096
    assert alarm.text.startswith(document["message"])
    assert document["priority"] == (4 if alarm.severity is Severity.ERROR else 3)
    assert all(isinstance(tag, str) for tag in document["tags"])


def ours(document: Any, alarm: Alarm) -> None:
    assert document == {
        "version": 1,
        "hostname": "relay.example.nl",
        "cause": "auth-refused:own",
        "severity": alarm.severity,
        "since": "2026-03-02T12:00:00+00:00",
        "title": alarm.title,
        "text": alarm.text,
    }


VALIDATORS: dict[Any, Callable[[Any, Alarm], None]] = {"json": ours, "slack": slack, "teams": teams, "ntfy": ntfy}


@pytest.mark.parametrize("alarm", [ALARM, WARNING, ODD], ids=["error", "warning", "odd"])
@pytest.mark.parametrize("format", VALIDATORS)
def test_a_body_is_what_the_service_documents(format: Any, alarm: Alarm) -> None:
    _, document = posted(format, alarm, "https://ntfy.example.nl/kantoor-alarm")
    VALIDATORS[format](json.loads(json.dumps(document)), alarm)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://ntfy.sh/kantoor-alarm", "https://ntfy.sh/"),
        ("https://host:8443/ntfy/kantoor-alarm/?auth=abc", "https://host:8443/ntfy/?auth=abc"),
    ],
)
def test_ntfy_is_asked_at_its_root_with_the_topic_in_the_body(written: str, url: str) -> None:
    where, document = posted("ntfy", ALARM, written)
    assert (where, document["topic"]) == (url, "kantoor-alarm")


# Over the wire


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def by_webhook(endpoint: Endpoint, certificates: Certificates, format: Any = "json", ca: str = "") -> ByWebhook:
    return ByWebhook(WebhookTerms(lambda: f"{endpoint.url}/geheim", format, ca or str(certificates.ca_path)))


async def why(way: ByWebhook) -> str:
    with pytest.raises(NotSent) as failed:
        await way.send(ALARM)
    assert "geheim" not in str(failed.value)
    return str(failed.value)


@pytest.mark.asyncio
@pytest.mark.parametrize("format", VALIDATORS)
async def test_one_post_is_made_and_its_status_is_the_answer(certificates: Certificates, format: Any) -> None:
    async with Endpoint(certificates.good) as endpoint:
        assert await by_webhook(endpoint, certificates, format).send(ALARM) == format
        (request,) = endpoint.requests
    assert request.method == "POST"
    assert request.path == ("/v1/messages/" if format == "ntfy" else "/v1/messages/geheim")
    assert request.headers["Content-Type"] == "application/json; charset=utf-8"
    assert "Cookie" not in request.headers


@pytest.mark.asyncio
async def test_what_the_service_refuses_is_reported_and_no_redirect_is_followed(certificates: Certificates) -> None:
    async with Endpoint(certificates.good) as endpoint:
        way = by_webhook(endpoint, certificates)
        endpoint.script(
            answer(404, text="no_service\n" + "x" * 100_000), answer(302, {"Location": "https://x.example/"})
        )
        assert (await why(way)).startswith("it answered 404: no_service xxx")
        assert await why(way) == "it answered 302"
        endpoint.script(raw(b"garbage\r\n\r\n"))
        assert (await why(way)).startswith("no answer in HTTP")
        endpoint.script(raw(b""))
        assert (await why(way)).startswith("no answer in HTTP")
        assert len(endpoint.requests) == 4


@pytest.mark.asyncio
async def test_a_service_that_is_silent_has_its_time(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "PATIENCE", 0.2)
    async with Endpoint(certificates.good) as endpoint:

        async def silent(_: web.Request) -> web.StreamResponse:
            await endpoint.release.wait()
            return web.Response()

        endpoint.always(silent)
        assert await why(by_webhook(endpoint, certificates)) == "no answer within 0.2 s"


@pytest.mark.asyncio
async def test_nobody_there_and_a_certificate_that_is_not_good_are_said(certificates: Certificates) -> None:
    async with Endpoint(certificates.expired) as endpoint:
        assert await why(by_webhook(endpoint, certificates)) == "the webhook's certificate has expired"
    assert (await why(by_webhook(endpoint, certificates))).startswith("no connection: ")
    assert await why(by_webhook(endpoint, certificates, ca="/nothing")) == (
        "tls_ca cannot be used: No such file or directory"
    )


@pytest.mark.asyncio
async def test_an_address_that_cannot_be_read_is_said() -> None:
    from relay.config.secrets import Secret

    way = ByWebhook(WebhookTerms(Secret("env", "NOBODY_SET_THIS").reveal, "json", None))
    assert await why(way) == "environment variable NOBODY_SET_THIS is not set"
    way = ByWebhook(WebhookTerms(lambda: "http://hooks.example.nl/geheim", "json", None))
    assert await why(way) == "its address is no https URL"
