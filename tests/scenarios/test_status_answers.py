"""`relay status` is always an answer: whatever the provider, the relay, its queue or its file are like."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.events import RecipientDeferred, RecipientDelivered, UpstreamSetAside
from tests.kit.house import JAN, PIET, Site
from tests.kit.upstream import SILENCE
from tests.scenarios.desk import Answer, reachable, relay


def strict(answer: Answer) -> Any:
    """The document, as jq, PHP and Zabbix read it: JSON has no Infinity."""

    def none_of_these(word: str) -> None:
        raise ValueError(word)

    return json.loads(answer.out, parse_constant=none_of_these)


@pytest.mark.asyncio
async def test_while_a_silent_upstream_is_tried_and_left_alone_status_is_the_screen_and_json(site: Site) -> None:
    async with site.upstream(tls="none", users=None) as own:
        own.script("banner", SILENCE, times=None)
        way = site.way_to(own, tls="none", timeouts={"greeting": "1s"})
        site.configure(upstreams={"own": way}, routes={"default": {"retry": "1s"}})
        states = set()
        async with site.house() as house:
            await reachable(site)
            await house.send(JAN, [PIET])
            await house.event(UpstreamSetAside)
            while states < {"being", "tried"}:
                screen, document = await asyncio.gather(relay(site, "status"), relay(site, "status", "--json"))
                assert (screen.code, screen.err, document.code) == (1, "", 1)
                assert screen.lines[0] == "relay 0.1.0 on relay.example.nl: 1 error"
                assert "upstreams.own" in screen.lines[2]
                (upstream,) = strict(document)["status"]["upstreams"]
                assert (upstream["up"], upstream["opens_in"] >= 0) == (False, True)
                state = next(line.split()[1] for line in screen.lines if line.startswith("own "))
                assert state.startswith("down,-")
                states.add(state.split("-")[1])


@pytest.mark.asyncio
async def test_an_outage_of_a_provider_that_delivered_before_needs_nobody_and_says_when_it_is_tried(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, routes={"default": {"retry": "5m"}})
        async with site.house() as house:
            await reachable(site)
            await house.event(RecipientDelivered, queue_id=await house.send(JAN, [PIET]))
            await own.go_down()
            queue_id = await house.send(JAN, [PIET])
            deferred = await house.event(RecipientDeferred, queue_id=queue_id)
            screen, as_json = await asyncio.gather(relay(site, "status"), relay(site, "status", "--json"))
            nagios, health = await asyncio.gather(relay(site, "status", "--nagios"), relay(site, "status", "--health"))
            listed, shown = await asyncio.gather(
                relay(site, "queue", "list", "--json"), relay(site, "queue", "show", queue_id, "--json")
            )
            table = await relay(site, "queue", "list")
    assert (screen.code, as_json.code) == (0, 0)
    assert screen.lines[0] == "relay 0.1.0 on relay.example.nl: 1 warning"
    assert screen.lines[2].startswith("         -> Nothing to do: own took mail until ")
    assert " It is tried again at " in screen.lines[2]
    assert (nagios.code, nagios.out.startswith("WARNING: The upstream own is not used for now")) == (1, True)
    assert (health.code, health.out) == (0, "healthy\n")
    # When it is tried again is said by the upstream, not by the message, which is due now.
    (entry,) = strict(listed)["entries"]
    at, received = datetime.fromisoformat(entry["next_attempt_at"]), datetime.fromisoformat(entry["received_at"])
    others = datetime.fromisoformat(strict(shown)["message"]["listed"]["next_attempt_at"]), deferred.next_attempt_at
    assert all(other is not None and abs(at - other) < timedelta(seconds=2) for other in others)
    assert at - received > timedelta(minutes=1)
    assert "now" not in table.lines[1].split()


@pytest.mark.asyncio
async def test_monitors_hear_of_a_refused_login_and_of_a_relay_that_is_stopped(site: Site) -> None:
    site.set_password("verkeerd")
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            await reachable(site)
            well = await relay(site, "status", "--nagios")
            await house.send(JAN, [PIET])
            await house.event(UpstreamSetAside)
            refused = await relay(site, "status", "--nagios")
            health = await relay(site, "status", "--health")
        stopped, gone = await asyncio.gather(relay(site, "status", "--nagios"), relay(site, "status", "--health"))
    assert (well.code, well.out) == (0, "OK: all is well | pending=0 deferred=0 active=0 held=0\n")
    assert refused.code == 2
    assert refused.out.startswith("CRITICAL: The upstream own refused the login: 535 5.7.8 wrong name or password. | ")
    assert (health.code, health.out) == (0, "healthy\n")  # no restart helps there
    assert (stopped.code, stopped.out) == (2, f"CRITICAL: no relay is running behind {site.control_path}\n")
    assert (gone.code, gone.out) == (1, "stopped\n")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff\xfe\x00\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"version": 1, "status": {',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        b'HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n{"version":1,"status": null}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100_000,
        b'HTTP/1.1 500 -\r\nContent-Length: 26\r\n\r\n{"error": {}, "problem": 1}',
    ],
    ids=["nothing", "noise", "truncated", "chunks", "null", "deep", "an error of another shape"],
)
@pytest.mark.asyncio
async def test_a_relay_that_answers_otherwise_is_reported_in_sentences(site: Site, said: bytes) -> None:
    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    site.configure(upstreams={"own": {"host": "127.0.0.1", "tls": "none"}})
    async with await asyncio.start_unix_server(answered, site.control_path):
        screen, as_json = await asyncio.gather(relay(site, "status"), relay(site, "status", "--json"))
        nagios, health = await asyncio.gather(relay(site, "status", "--nagios"), relay(site, "status", "--health"))
    assert (screen.code, screen.err) == (1, "")
    assert screen.lines[1:] == [
        f"the configuration {site.config_path} is good",
        f"the queue: there is none at {site.queue_path}",
    ]
    assert (as_json.code, strict(as_json)["status"]) == (1, None)
    assert (nagios.code, nagios.out.startswith("CRITICAL: ")) == (2, True)
    assert (health.code, health.out) == (1, "silent\n")


@pytest.mark.asyncio
async def test_a_fault_of_a_command_is_a_sentence_that_quotes_nothing(site: Site) -> None:
    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n{"version":1,"pass":"secret"}')
        writer.close()

    site.configure(upstreams={"own": {"host": "127.0.0.1", "tls": "none"}})
    async with await asyncio.start_unix_server(answered, site.control_path):
        answer = await relay(site, "clients")
    assert (answer.code, answer.out) == (1, "")
    assert re.fullmatch(
        r"relay: this command has a fault of its own: KeyError at clients.py:\d+. Please report this line.\n",
        answer.err,
    )


def _layout(queue: Path) -> None:
    with closing(sqlite3.connect(queue)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _folder(queue: Path) -> None:
    queue.unlink()
    queue.mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda queue: queue.write_bytes(b"\x07" * 40_000), "file is not a database"),
        (_layout, "was written by a newer relay"),
        (_folder, "Is a directory"),
        (lambda queue: queue.unlink(), "there is none at"),
    ],
    ids=["damaged", "of another layout", "a folder", "missing"],
)
@pytest.mark.asyncio
async def test_what_is_wrong_with_the_queue_is_said_where_no_relay_runs(
    site: Site, spoil: Callable[[Path], None], said: str
) -> None:
    site.configure(upstreams={"own": {"host": "127.0.0.1", "tls": "none"}})
    async with site.house():
        pass
    spoil(site.queue_path)
    screen, as_json = await asyncio.gather(relay(site, "status"), relay(site, "status", "--json"))
    assert (screen.code, screen.err, as_json.code) == (3, "", 3)
    assert said in screen.lines[2]
    assert said in strict(as_json)["queue_error"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[" * 20_000, b"upstreams: {own: {", None])
@pytest.mark.asyncio
async def test_what_is_wrong_with_the_file_is_said_where_no_relay_runs(site: Site, content: bytes | None) -> None:
    if content is not None:
        site.config_path.write_bytes(content)
    usual = str(site.folder)  # where the socket lies cannot be read from such a file
    screen = await relay(site, "status", RUNTIME_DIRECTORY=usual)
    as_json = await relay(site, "status", "--json", RUNTIME_DIRECTORY=usual)
    assert (screen.code, screen.err, as_json.code) == (3, "", 3)
    assert screen.lines[1].startswith(f"the configuration is bad: {site.config_path}")
    assert strict(as_json)["configuration"]["problems"]
