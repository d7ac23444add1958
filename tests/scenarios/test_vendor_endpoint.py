"""Session codes by a vendor's HTTPS endpoint, the own SMTP server behind it, through the whole relay."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.daemon import look
from relay.events import (
    AttemptEnded,
    NotificationQueued,
    RecipientDeferred,
    RecipientDelivered,
    RecipientFailed,
    UpstreamRestored,
    UpstreamSetAside,
    UpstreamThrottled,
)
from relay.mail.outcome import Delivered, Stage
from relay.transport.exchange import HttpsConnection
from tests.kit.endpoint import Endpoint, answer, hangs_up, raw, says
from tests.kit.files import contents
from tests.kit.house import JAN, PATIENCE, PIET, RunningHouse, Site, free_port, mail, send
from tests.kit.process import Process
from tests.kit.upstream import ScriptedUpstream
from tests.scenarios.desk import relay
from tests.transport.parts import request

ROOT = Path(__file__).parents[2]
CODE = "913557"
SUBJECT = f"Uw inlogcode {CODE}"
CODE_MAIL = mail(SUBJECT, body=f"De code is {CODE}. Deel hem met niemand.\r\n".encode())
KEES = "kees@example.org"
SECRET = "Zo-geheim-8"


def way_to(site: Site, url: str, **settings: Any) -> dict[str, Any]:
    return {
        "type": "https",
        "url": url,
        "auth": "hmac-sha256",
        "secret": {"file": str(site.password_path)},
        "tls_ca": site.certificates.ca_path,
        "code_pattern": r"/\b([0-9]{6})\b/",
        **settings,
    }


def configure(
    site: Site, own: ScriptedUpstream, url: str, codes: dict[str, Any] | None = None, **settings: Any
) -> None:
    site.configure(
        upstreams={"own": site.way_to(own), "vendor": way_to(site, url, **settings)},
        routes={"default": {"retry": "1s"}, "session-codes": {"retry": "1s"}},
        session_codes={"enabled": True, **(codes or {})},
        log={"level": "debug"},
    )


async def delivered(house: RunningHouse, *to: str) -> RecipientDelivered:
    queue_id = await house.send(JAN, to or (PIET,), CODE_MAIL)
    return await house.event(RecipientDelivered, queue_id=queue_id)


@pytest.mark.asyncio
async def test_a_code_leaves_by_the_endpoint_and_other_mail_by_the_own_server(site: Site) -> None:
    async with site.upstream() as own, Endpoint(site.certificates.good) as vendor:
        configure(site, own, vendor.url)
        async with site.house() as house:
            event = await delivered(house)
            assert (event.upstream, event.attempt, event.status, event.text) == ("vendor", 1, "2.0.202", "")
            ordinary = await house.send(JAN, [PIET])
            assert (await house.event(RecipientDelivered, queue_id=ordinary)).upstream == "own"
            snapshot = await look.snapshot(house.relay)
            (shown,) = [one for one in snapshot.upstreams if one.name == "vendor"]
            assert (shown.type, shown.where, shown.up) == ("https", f"127.0.0.1:{vendor.port}", True)
    (asked,) = vendor.requests
    assert asked.key == event.queue_id
    assert (asked.json["recipient"], asked.json["code"], asked.json["queue_id"]) == (PIET, CODE, event.queue_id)


@pytest.mark.asyncio
async def test_a_sender_rule_speaks_on_this_way_as_well(site: Site) -> None:
    async with site.upstream() as own, Endpoint(site.certificates.good) as vendor:
        configure(site, own, vendor.url)
        site.configuration["senders"] = [{"address": "noreply@example.nl"}]
        site.write()
        async with site.house() as house:
            await delivered(house)
    assert vendor.requests[0].json["sender"] == "noreply@example.nl"


@pytest.mark.asyncio
async def test_each_recipient_has_a_request_a_key_and_a_fate_of_its_own(site: Site) -> None:
    async with site.upstream() as own, Endpoint(site.certificates.good) as vendor:
        vendor.script(answer(202), answer(408), answer(422), answer(408))
        configure(site, own, vendor.url, {"fallback": False})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET, KEES, "x@example.org"], CODE_MAIL)
            await house.event(RecipientDelivered, queue_id=queue_id, recipient=PIET)
            await house.event(RecipientFailed, queue_id=queue_id, recipient="x@example.org", status="5.0.422")
            await house.event(RecipientDelivered, queue_id=queue_id, recipient=KEES, attempt=3)
    asked = [(one.json["recipient"], one.key) for one in vendor.requests]
    assert asked == [
        (PIET, queue_id),
        (KEES, f"{queue_id}-2"),
        ("x@example.org", f"{queue_id}-3"),
        (KEES, f"{queue_id}-2"),
        (KEES, f"{queue_id}-2"),
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [500, 502, 503, 429, 408, 401, 302])
async def test_a_code_takes_the_own_server_at_once_when_the_endpoint_does_not_take_it(site: Site, status: int) -> None:
    async with site.upstream() as own, Endpoint(site.certificates.good) as vendor:
        vendor.always(answer(status, {"Retry-After": "60", "Location": "https://127.0.0.1:1/"}))
        configure(site, own, vendor.url)
        async with site.house() as house:
            event = await delivered(house)
            assert (event.upstream, event.attempt) == ("own", 1)
            stage = Stage.AUTH if status == 401 else Stage.HTTP
            assert house.seen.all(AttemptEnded)[0].stage is stage
            if status == 429:  # it asks for less, and is well
                throttled = await house.event(UpstreamThrottled, upstream="vendor")
                assert (throttled.status, throttled.seconds) == ("4.0.429", 60)
                assert (await delivered(house)).upstream == "own"
            elif status != 408:
                aside = await house.event(UpstreamSetAside, upstream="vendor")
                assert (aside.stage, aside.status[4:]) == (stage, str(status))
                if status not in (401, 302):
                    assert aside.seconds == 60
                # And the next one does not even ask.
                assert (await delivered(house)).upstream == "own"
    assert len(vendor.requests) == 1


@pytest.mark.asyncio
async def test_an_endpoint_that_is_down_costs_a_code_nothing_and_is_used_again_when_it_is_back(site: Site) -> None:
    async with site.upstream() as own:
        vendor = Endpoint(site.certificates.good)
        async with vendor:
            port = vendor.port
        configure(site, own, vendor.url)
        async with site.house() as house:
            assert (await delivered(house)).upstream == "own"
            async with vendor:
                assert vendor.port == port
                while not house.seen.all(UpstreamRestored):
                    await delivered(house)
            assert house.seen.all(RecipientDelivered)[-1].upstream == "vendor"


@pytest.mark.asyncio
@pytest.mark.parametrize(("on_client_error", "way"), [("fail", None), ("next", "own")])
async def test_a_code_that_the_endpoint_refuses_fails_or_goes_the_other_way_as_configured(
    site: Site, on_client_error: str, way: str | None
) -> None:
    async with site.upstream() as own, Endpoint(site.certificates.good) as vendor:
        vendor.always(says(422, {"detail": f"{SUBJECT} is no good"}))
        configure(site, own, vendor.url, on_client_error=on_client_error)
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET], CODE_MAIL)
            if way is not None:
                assert (await house.event(RecipientDelivered, queue_id=queue_id)).upstream == way
                assert house.seen.all(UpstreamSetAside) == []
            else:
                failed = await house.event(RecipientFailed, queue_id=queue_id)
                assert (failed.stage, failed.code, failed.status, failed.text) == (Stage.HTTP, 550, "5.0.422", "")
                notification = await house.event(NotificationQueued, about=queue_id)
                await house.event(RecipientDelivered, queue_id=notification.queue_id)
                assert CODE.encode() not in own.messages[0].content


@pytest.mark.asyncio
async def test_a_code_in_doubt_is_repeated_with_its_key_and_goes_no_other_way(site: Site) -> None:
    async with site.upstream() as own, Endpoint(site.certificates.good) as vendor:
        vendor.script(vendor.hangs())
        configure(site, own, vendor.url, timeouts={"total": "1s"})
        async with site.house() as house:
            event = await delivered(house)
            assert (event.upstream, event.attempt) == ("vendor", 2)
            assert house.seen.all(RecipientDeferred)[0].in_doubt
    assert [asked.key for asked in vendor.requests] == [event.queue_id] * 2
    assert own.messages == []


@pytest.mark.asyncio
async def test_an_idle_connection_that_the_endpoint_ended_delays_nothing(site: Site) -> None:
    async with site.upstream() as own, Endpoint(site.certificates.good) as vendor:
        vendor.script(answer(202), hangs_up)
        configure(site, own, vendor.url)
        async with site.house() as house:
            await delivered(house)
            event = await delivered(house)
            assert (event.upstream, event.attempt) == ("vendor", 1)
            assert house.seen.all(UpstreamSetAside) == []
    assert [asked.key for asked in vendor.requests][1:] == [event.queue_id] * 2


@pytest.mark.asyncio
async def test_nothing_of_a_code_is_in_events_metrics_or_files(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    told = {"detail": f"{SUBJECT} is odd", "code": CODE}
    async with site.upstream() as own, Endpoint(site.certificates.good) as vendor:
        vendor.script(says(408, told), says(425, told), says(503, told), says(401, told), says(202, told))
        configure(site, own, vendor.url, {"fallback": False})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET], CODE_MAIL)
            await house.event(UpstreamSetAside, stage=Stage.AUTH)
            event = await house.event(RecipientDelivered, queue_id=queue_id)
            assert (event.upstream, event.status, event.text) == ("vendor", "2.0.202", "")
            view = await house.relay.store.view()
            exposition, _ = house.relay.metrics.exposition("", (view.messages, view.oldest, view.bytes))
            assert b'stage="http"' in exposition
            snapshot = repr(await look.snapshot(house.relay))
            async with asyncio.timeout(PATIENCE):
                while [path for path, octets in contents(site.folder) if secret_in(octets)]:
                    await asyncio.sleep(0.05)
    assert len(vendor.requests) == 5
    for text in (*map(repr, house.seen.events), caplog.text, snapshot, exposition.decode()):
        assert not secret_in(text.encode())
        assert SECRET not in text


@pytest.mark.asyncio
async def test_nothing_of_a_code_is_in_the_log_at_any_level(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    told = {"detail": f"{SUBJECT} is odd", "code": CODE}
    async with site.upstream() as own, Endpoint(site.certificates.good) as vendor:
        garbage = raw(f"{CODE} {SUBJECT}\r\nX: {CODE}\r\n\r\n".encode())
        cookie = answer(503, {"Set-Cookie": f"{CODE}={CODE}; expires={CODE}"})
        vendor.script(says(408, told), garbage, cookie, says(401, told), says(202, told))
        configure(site, own, vendor.url, {"fallback": False})
        port = free_port()
        site.configuration["listeners"] = [{"name": "legacy", "listen": f"127.0.0.1:{port}"}]
        site.configuration["log"] = {"level": "debug", "format": "json"}
        site.write()
        async with Process.serving(site) as process:
            queue_id = await send(port, JAN, [PIET], CODE_MAIL)
            await process.line("delivered", queue_id=queue_id, upstream="vendor")
            assert len(process.all("upstream_set_aside")) == 3
            process.signal(signal.SIGTERM)
            assert await process.ended() == 0
    assert len(vendor.requests) == 5
    assert [line for line in process.lines if secret_in(line.encode()) or SECRET in line] == []


def secret_in(text: bytes) -> bool:
    return CODE.encode() in text or b"inlogcode" in text


@asynccontextmanager
async def the_example(site: Site) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """docs/examples/vendor_endpoint.py as a process of its own, and its URL."""
    certificate = site.folder / "vendor.pem"
    certificate.write_bytes(site.certificates.good.pem)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", str(ROOT / "docs" / "examples" / "vendor_endpoint.py")),
        *(str(certificate), str(site.password_path), str(site.folder / "keys.db"), "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            line = (await process.stderr.readline()).decode()
        assert line.startswith("listening on port "), line
        yield f"https://127.0.0.1:{line.split()[-1]}/v1/messages", process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.asyncio
async def test_the_example_that_the_contract_shows_takes_a_code_once(site: Site) -> None:
    async with site.upstream() as own, the_example(site) as (url, process):
        configure(site, own, url, on_client_error="next")
        async with site.house() as house:
            event = await delivered(house, PIET, KEES)
            await house.event(RecipientDelivered, queue_id=event.queue_id, recipient=KEES)
            assert {one.upstream for one in house.seen.all(RecipientDelivered)} == {"vendor"}
            assert process.stdout is not None
            assert await process.stdout.readline() == f"{PIET} {CODE}\n".encode()
            assert await process.stdout.readline() == f"{KEES} {CODE}\n".encode()
            # What has no code is refused there, and goes by the own server.
            without = await house.send(JAN, [PIET], mail("Uw inlogcode", body=b"Vraag hem op.\r\n"))
            assert (await house.event(RecipientDelivered, queue_id=without)).upstream == "own"
            # The same key is the same message, and the signature is looked at.
            connection = await house.relay.upstreams["vendor"].transport.connect()
            assert isinstance(connection, HttpsConnection)
            for _ in range(2):
                again = request(KEES, message=CODE_MAIL, queue_id="TWICE")
                assert [type(one) for one in (await connection.deliver(again)).outcomes] == [Delivered]
            await connection.close()
            assert await process.stdout.readline() == f"{KEES} {CODE}\n".encode()
            site.set_password("wrong")
            await house.relay.reload()
            queue_id = await house.send(JAN, [PIET], CODE_MAIL)
            aside = await house.event(UpstreamSetAside, upstream="vendor")
            assert (aside.stage, aside.code, aside.status) == (Stage.AUTH, 535, "5.0.401")
            assert (await house.event(RecipientDelivered, queue_id=queue_id)).upstream == "own"
        process.kill()
        assert await process.stdout.read() == b""


SERVED = """
import asyncio, json, sys, urllib.request
from pathlib import Path
from relay.admin.client import asked
from relay.config.load import load
from relay.daemon.main import running

def status_of(socket):
    with asked(socket, "GET", "/v1/status", None, 60.0) as answer:
        return answer.status

async def served(path):
    config = load(path)
    async with running(config, path=path) as house:
        await house.pages.opened.wait()
        with await asyncio.to_thread(urllib.request.urlopen, f"http://{config.admin.listen}/metrics") as page:
            assert page.status == 200
        assert await asyncio.to_thread(status_of, config.admin.socket) == 200
    print(json.dumps(sorted({"aiohttp", "h11", "aiosmtplib"} & set(sys.modules))))

asyncio.run(served(Path(sys.argv[1])))
"""


def test_a_relay_that_serves_mail_and_metrics_without_an_endpoint_loads_no_http_client_for_one(site: Site) -> None:
    site.configure(
        upstreams={"own": {"host": "127.0.0.1", "port": free_port(), "tls": "none"}},
        admin={"listen": f"127.0.0.1:{free_port()}", "socket": str(site.control_path)},
    )
    run = [sys.executable, "-c", SERVED, str(site.config_path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == ["aiosmtplib", "h11"]


@pytest.mark.asyncio
async def test_the_doctor_looks_at_an_endpoint_as_far_as_tls_and_sends_nothing(site: Site) -> None:
    async with site.upstream() as own, Endpoint(site.certificates.good) as vendor:
        configure(site, own, vendor.url)
        answer = await relay(site, "doctor")
        assert f"vendor: 127.0.0.1:{vendor.port}" in answer.out
        assert "certificate good for 127.0.0.1" in answer.out
        assert "checks it with a message" in answer.out
        assert vendor.connections == 1
        configure(site, own, vendor.url, tls_pin="47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
        answer = await relay(site, "doctor")
        assert answer.code == 1
        assert "the upstream's key is none of those in tls_pin" in answer.out
    assert vendor.requests == []
