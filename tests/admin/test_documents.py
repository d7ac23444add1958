"""The shape of the documents: what a script may rely on."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from relay.admin import documents
from relay.admin.errors import AmbiguousId, NoSuchEntry, NoSuchRoute, NotPossible, Refused, by_problem
from relay.admin.queue import Order, Report
from relay.errors import RelayError, StoreUnavailable
from relay.queue.listing import Acted, Addressee, Did, Listed, Place, Saved, Shown, Tried, Verb
from relay.queue.model import Kind
from tests.admin.house import CLIENT, SNAPSHOT
from tests.queue.mail import NOON

LISTED = Listed(
    key=7,
    queue_id="7QK3ABCDEFGH",
    place=Place.DEFERRED,
    kind=Kind.MAIL,
    route="default",
    size=512,
    attempts=2,
    received_at=NOON,
    next_attempt_at=datetime(2026, 3, 2, 14, 0, tzinfo=timezone(timedelta(hours=1))),
    expires_at=None,
    ended_at=None,
    listener="legacy",
    client="192.0.2.7",
    user=None,
    reverse_path="",
    recipients=(Addressee("piet@example.com", "pending", "451 4.7.1 later", "own", None),),
    session_code=False,
)
SHOWN = Shown(
    listed=LISTED,
    because=("default",),
    helo="imuis",
    protocol="ESMTP",
    tls=None,
    envid=None,
    head=b"From: J\xc3\xbcrgen <jan@example.nl>\r\nSubject: code\r\n\t 123456\r\nX-A: \x1b[2J\r\n\r\n",
    tries=(Tried(1, NOON, "piet@example.com", "own", "451 4.7.1 later"),),
)


@pytest.mark.asyncio
async def test_an_entry_has_the_fields_of_the_value() -> None:
    assert json.loads(await documents.listing((LISTED,), next=7)) == {
        "version": 1,
        "entries": [
            {
                "key": 7,
                "queue_id": "7QK3ABCDEFGH",
                "place": "deferred",
                "kind": "mail",
                "route": "default",
                "size": 512,
                "attempts": 2,
                "received_at": "2026-03-02T12:00:00+00:00",
                "next_attempt_at": "2026-03-02T13:00:00+00:00",
                "expires_at": None,
                "ended_at": None,
                "listener": "legacy",
                "client": "192.0.2.7",
                "user": None,
                "reverse_path": "",
                "recipients": [
                    {
                        "address": "piet@example.com",
                        "state": "pending",
                        "reply": "451 4.7.1 later",
                        "upstream": "own",
                        "ended_at": None,
                    }
                ],
                "session_code": False,
                "wish": "",
                "damage": "",
                "left_as": None,
                "message_id": None,
                "subject": None,
            }
        ],
        "next": 7,
    }
    assert json.loads(await documents.listing((), more=False)) == {"version": 1, "entries": [], "more": False}


def test_a_message_is_shown_with_its_header_as_text() -> None:
    document = documents.message(SHOWN)["message"]
    assert document["head"] == "From: Jürgen <jan@example.nl>\nSubject: code\n  123456\nX-A: \\x1b[2J"
    assert document["listed"]["queue_id"] == "7QK3ABCDEFGH"
    assert document["tries"] == [
        {
            "attempt": 1,
            "at": "2026-03-02T12:00:00+00:00",
            "address": "piet@example.com",
            "upstream": "own",
            "reply": "451 4.7.1 later",
        }
    ]


def test_a_header_that_is_not_utf_8_is_shown_all_the_same() -> None:
    document = documents.message(replace(SHOWN, head=b"Subject: B\xfcro \x85\r\n\r\n"))
    assert document["message"]["head"] == "Subject: Büro \\x85"
    assert documents.message(replace(SHOWN, head=b""))["message"]["head"] == ""


def test_the_code_of_a_session_code_stands_in_no_document() -> None:
    head = (
        b"From: jan@example.nl\r\nSubject: Uw code is\r\n 123456\r\nThread-Topic: 123456\r\nSUBJECT : 123456\r\n"
        b"Keywords: 123456\r\nDate: Mon, 2 Mar 2026 12:00:00 +0000\r\n\r\n"
    )
    document = documents.message(replace(SHOWN, listed=replace(LISTED, session_code=True), head=head))
    assert document["message"]["head"] == "From: jan@example.nl\nDate: Mon, 2 Mar 2026 12:00:00 +0000"
    assert "123456" not in json.dumps(document)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Büro “x” 日本", "Büro “x” 日本"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\u202eb", "a\\u202eb"),
        ("one\r\ntwo", "one\\r\\ntwo"),
        ("\udcff", "\\udcff"),
        ("", ""),
    ],
)
def test_no_text_of_a_stranger_commands_a_terminal(text: str, shown: str) -> None:
    assert documents.printable(text) == shown


def test_what_became_of_an_order_is_counted() -> None:
    results = (Acted("7QK3ABCDEFGH", Did.DONE), Acted("7QK4ABCDEFGH", Did.IMPOSSIBLE, "it is held"))
    counts = dict.fromkeys(Did, 0) | {Did.DONE: 1, Did.IMPOSSIBLE: 1}
    done = Report(Order(Verb.REROUTE, "archive"), counts, results)
    words = {"done": 1, "after-attempt": 0, "nothing": 0, "impossible": 1, "unknown": 0}
    assert documents.report(done) == {
        "version": 1,
        "verb": "reroute",
        "route": "archive",
        "of": 2,
        "counts": words,
        "results": [
            {"queue_id": "7QK3ABCDEFGH", "did": "done", "why": ""},
            {"queue_id": "7QK4ABCDEFGH", "did": "impossible", "why": "it is held"},
        ],
    }
    assert documents.progress(done) == {"version": 1, "progress": {"of": 2, "counts": words}}


def test_the_other_documents() -> None:
    assert documents.backup(Path("/backup/queue.db"), Saved(entries=3, octets=1024, left_out=1)) == {
        "version": 1,
        "backup": {"file": "/backup/queue.db", "entries": 3, "octets": 1024, "left_out": 1},
    }
    status = documents.status(SNAPSHOT)
    assert status["version"] == 1
    assert status["status"]["version"] == "1.2.3"
    assert status["status"]["codes"]["enabled"] is False
    (client,) = documents.clients([CLIENT])["clients"]
    assert client["quirks"] == {"bare-lf": 3}
    assert client["software"] == "iMUIS\\x1b[2J"
    json.dumps(status)


@pytest.mark.parametrize(
    "error",
    [
        Refused("a"),
        NoSuchEntry("b"),
        AmbiguousId("c"),
        NoSuchRoute("d"),
        NotPossible("e"),
        StoreUnavailable("full", "f"),
    ],
)
def test_an_error_comes_back_as_what_it_was(error: RelayError) -> None:
    document = documents.error(error)
    again = by_problem(document["problem"], document["error"])
    assert (type(again), str(again)) == (type(error), str(error))


def test_an_error_of_a_later_relay_is_an_error_all_the_same() -> None:
    assert type(by_problem("not-yet-known", "a")) is RelayError
    assert type(by_problem(None, "a")) is RelayError
