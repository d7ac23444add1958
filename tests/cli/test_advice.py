"""What `relay queue show` advises about what upstreams said."""

from __future__ import annotations

from typing import Any

import pytest

from relay.cli.advice import key_of, remedies
from relay.config.load import parse
from relay.config.model import Config
from relay.mail.outcome import Refusal
from relay.texts.language import texts_in

DENIED = "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException"


def config(language: str = "en") -> Config:
    return parse(f"language: {language}\nupstreams:\n  own: {{preset: m365, username: a@x.nl, password: geheim}}\n")


def to(reply: str, state: str = "failed", upstream: str = "own") -> dict[str, Any]:
    return {"address": "piet@example.com", "state": state, "reply": reply, "upstream": upstream, "ended_at": None}


@pytest.mark.parametrize("refusal", Refusal)
def test_every_class_of_refusal_has_a_remedy_in_both_languages(refusal: Refusal) -> None:
    english, dutch = (texts_in(language)(key_of(refusal), name="own") for language in ("en", "nl"))
    assert english != dutch


@pytest.mark.parametrize("language", ["en", "nl"])
def test_each_thing_an_upstream_spoke_of_is_advised_about_once(language: str) -> None:
    recipients = [
        to(DENIED),
        to(DENIED),
        to("451 4.7.1 Greylisted", "deferred"),
        to("550 5.1.1 no such user"),
        to("250 2.0.0 OK", "delivered"),
        to("no connection to smtp.office365.com port 587: refused", "deferred"),
        to("550 5.1.1 no such user", upstream=""),
    ]
    found = list(remedies(recipients, config(language)))
    expected = ("remedy.sender", "refusal.temporary", "refusal.recipient-refused")
    assert found == [texts_in(language)(key, name="own") for key in expected]


def test_codes_alone_and_upstreams_that_are_gone_are_advised_about_as_well() -> None:
    assert len(list(remedies([to("550"), to("450 4.2.1"), to("552 5.2.2", upstream="gone")], config()))) == 3
