"""Strange and hostile peers, one kind after another and all at once, while mail flows: each costs what docs/bounds.md
says, and none of them raises an alarm."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.events import RecipientDelivered, UpstreamSetAside
from tests.kit.authority import Authority, Fault
from tests.kit.flood import Flood
from tests.kit.house import JAN, PATIENCE, PIET, RunningHouse, Site, free_port, mail, send
from tests.kit.process import Process
from tests.scenarios.desk import reachable, relay

STRANGER = "127.0.0.9"  # not in `allow`


def posted(body: bytes, *fields: bytes, target: bytes = b"/v1/queue/act") -> bytes:
    head = (b"POST " + target + b" HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(body), *fields, b"", b"")
    return b"\r\n".join(head) + body


def asked(target: bytes, *fields: bytes, method: bytes = b"GET") -> bytes:
    return b"\r\n".join((method + b" " + target + b" HTTP/1.1", *(fields or (b"Host: x",)), b"", b""))


CHUNKED = (b"Host: x", b"Transfer-Encoding: chunked")
REQUESTS = [
    posted(b"\x1f\x8b" + bytes(8), b"Content-Encoding: gzip"),
    posted(b"\x1f\x8b" + bytes(8), b"Content-Encoding: gzip", target=b"/"),
    posted(b"x" * 30, b"Content-Encoding: br, deflate, zstd", target=b"/metrics"),
    asked(b"/v1/queue/act", *CHUNKED, method=b"POST") + b"-5\r\nhello\r\n0\r\n\r\n",
    asked(b"/v1/queue/act", *CHUNKED, method=b"POST") + b"zz\r\n",
    asked(b"/v1/queue/act", *CHUNKED, method=b"POST") + b"f" * 400 + b"\r\n",
    asked(b"/v1/queue/act", *CHUNKED, method=b"POST") + b"2;" + b"a" * 9000 + b"\r\n{}\r\n0\r\n\r\n",
    asked(b"/v1/queue/act", *CHUNKED, method=b"POST") + b"2\r\n{}XX0\r\n\r\n",
    asked(b"/v1/queue/act", *CHUNKED, method=b"POST") + b"2\r\n{}\r\n0\r\n" + b"A: b\r\n" * 3000 + b"\r\n",
    asked(b"/metrics", *CHUNKED, b"Content-Length: 5") + b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    asked(b"/metrics", b"Host: x", b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    asked(b"/metrics", b"Host: x", b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n",
    asked(b"/metrics", b"Host: x", b"Transfer-Encoding : chunked") + b"0\r\n\r\n",
    asked(b"/metrics", b"Host: x", b"Content-Length: 5", b"Content-Length: 6") + b"hello!",
    asked(b"/metrics", b"Host: x", b"Content-Length: +5") + b"hello",
    asked(b"/metrics", b"Host: x", b"Content-Length: " + b"9" * 19),
    asked(b"/metrics", b"Host: x", b"Content-Length: " + b"9" * 5000),
    asked(b"/v1/queue/act", b"Host: x", b"Content-Length: " + b"9" * 19, method=b"POST") + b"{}",
    asked(b"/metrics", b"Host: x", b"Content-Length: 1e3"),
    asked(b"/v1/queue/act", b"Host: x", b"Content-Length: 2", b"Expect: 100-continue", method=b"POST"),
    asked(b"/metrics", b"Host: x", b"Content-Length: 2", b"Expect: 200-ok", method=b"POST"),
    asked(b"/metrics", b"Host: x", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    asked(b"/metrics", b"Host: x", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMA"),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    asked(b"example.nl:443", method=b"CONNECT"),
    asked(b"*", method=b"OPTIONS"),
    asked(b"/\0metrics"),
    asked(b"/%00%ff%fe"),
    asked(b"/%ud800/\xf0\x9f\x98\x80"),
    asked(b"/m\xe9trics?a=\xff"),
    asked(b"http://[::1/metrics"),
    asked(b"http://[v9.x]:99999999/metrics"),
    asked(b"//" + b"/" * 4000),
    asked(b"/metrics?" + b"a=b&" * 1500),
    asked(b"/v1/queue?after=" + b"9" * 400),
    asked(b"/v1/queue?limit=-1"),
    asked(b"/v1/queue?limit=1e999"),
    asked(b"/v1/queue?limit=%D9%A3"),
    asked(b"/v1/queue?after=999999999999999999&limit=999999999999999999"),
    asked(b"/v1/queue?state=%00&since=99999-01-01T00:00:00Z"),
    asked(b"/v1/queue?since=0001-01-01T00:00:00%2B23:59"),
    asked(b"/v1/queue?since=9999-12-31T23:59:59-23:59"),
    asked(b"/v1/queue/find?to=" + b"%F0" * 900),
    asked(b"/v1/queue/find?to=**************a&from=*_%25"),
    asked(b"/v1/queue/%2e%2e%2f%2e%2e%2fetc%2fpasswd"),
    asked(b"/v1/queue/" + b"0" * 7000),
    asked(b"/v1/queue/%ED%A0%80"),
    asked(b"/metrics", b"Host: x", b"Host: y"),
    asked(b"/metrics", b"Host: \xff\xfe"),
    asked(b"/metrics", b"Host:"),
    asked(b"/metrics", b"X: y"),
    asked(b"/metrics", b"Host: x", b"Accept: " + b"a/b;q=1e999," * 600),
    asked(b"/metrics", b"Host: x", b"Accept: application/openmetrics-text;version=nan;q=-1,\xff\xff;q=;,;;=;"),
    asked(b"/metrics", b"Host: x", b" folded: a", b"\tmore"),
    asked(b"/metrics", b"Host: x\0y"),
    b"GET /metrics HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET /metrics\r\n\r\n",
    b"GET  /metrics  HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /metrics HTTP/1.1\nHost: x\n\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(507),
    b"EHLO x\r\nMAIL FROM:<>\r\n\r\n",
    b"\0" * 20_000,
    b"\r\n" * 20_000,
    b"a" * 100_000,
    asked(b"/metrics") * 500,
    asked(b"/v1/status") * 500,
    asked(b"/v1/queue/act", method=b"BREW"),
]  # fmt: skip
BODIES = [
    b"", b"null", b"[]", b"1e999", b"NaN", b"-Infinity", b"9" * 5000, b"\xff\xfe{}", b"\xef\xbb\xbf{}", b'"\\ud800"',
    b"[" * 60_000, b'{"a":' * 12_000, b"{}" * 100, b"{", b'{"verb": 1e999}', b'{"verb": NaN, "ids": NaN}',
    b'{"verb": "retry", "ids": 1e999}', b'{"verb": "retry", "ids": [9223372036854775808, -1, null, true]}',
    b'{"verb": "retry", "ids": ["\\ud800"]}', b'{"verb": "retry", "ids": ["\\u0000"]}',
    b'{"verb": "\\ud800", "ids": []}',
    b'{"verb": "retry", "ids": [""]}', b'{"verb": "retry", "ids": [' + b'"a",' * 15_000 + b'"b"]}',
    b'{"verb": "retry", "ids": ["' + b"a" * 60_000 + b'"]}', b'{"verb": "retry", "all": {"since": 1e999}}',
    b'{"verb": "retry", "all": {"since": "0001-01-01T00:00:00+23:59"}}', b'{"verb": "retry", "all": {"to": "\\ud800"}}',
    b'{"verb": "retry", "all": {"since": "9999-12-31T23:59:59.999999-23:59"}}',
    b'{"verb": "retry", "all": {"to": NaN}}',
    b'{"verb": "reroute", "route": "\\ud800", "ids": []}', b'{"verb": "reroute", "route": NaN, "ids": []}',
    b'{"verb": "retry", "all": {"\\ud800": 1}}', b'{"\\ud800": 1}', b'{"verb": "retry", "ids": [], "all": {}}',
    b'{"verb": "retry", "all": ' + b'{"all":' * 900 + b"1" + b"}" * 900 + b"}",
    b'{"file": "\\u0000"}', b'{"file": "\\ud800"}', b'{"file": "/"}', b'{"file": "/' + b"a" * 300 + b'"}',
    b'{"file": 1e999}', b'{"file": ""}', b'{"file": "relative"}', b'{"file": "/dev/null/x"}',
    b'{"file": "/proc/self/x"}',
    b'{"senders": ["\\ud800"], "upstream": "\\ud800"}', b'{"senders": [1e999]}', b'{"senders": "x", "upstream": NaN}',
    b'{"upstream": "own", "author": "\\ud800@x"}', b'{"upstream": "\\ud800", "author": "a@b"}',
    b'{"upstream": "own", "author": "' + b"a" * 60_000 + b'"}',
    b'{"upstream": "own", "author": "\\u0000", "reverse_path": NaN}',
]  # fmt: skip
ORDERS = (b"/v1/queue/act", b"/v1/queue/backup", b"/v1/senders/forget", b"/v1/senders/pin", b"/v1/reload")


class Attack:
    def __init__(self, where: tuple[str, int, str] | Path) -> None:
        self.where = where

    async def connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.where, Path):
            return await asyncio.open_unix_connection(self.where)
        host, port, local = self.where
        return await asyncio.open_connection(host, port, local_addr=(local, 0))

    async def say(self, octets: bytes, ending: str) -> bytes:
        """Say `octets`, and then read some of the answer or the whole, close one side before that, or both sides."""
        try:
            reader, writer = await self.connection()
        except OSError:
            return b""
        answer = b""
        try:
            writer.write(octets)
            if ending == "close":
                await writer.drain()
            elif ending == "reset":
                await reader.read(100)
            else:
                if ending == "half":
                    writer.write_eof()
                async with asyncio.timeout(PATIENCE):
                    answer = await (reader.read() if ending == "whole" else reader.read(1 << 16))
        except OSError:
            pass
        finally:
            if ending == "reset":
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()
        return answer


@asynccontextmanager
async def watched(site: Site) -> AsyncIterator[tuple[RunningHouse, list[Attack]]]:
    """A relay with a page and a socket, and who attacks both; in the end it has nothing to say of that."""
    port = free_port()
    async with site.upstream() as own:
        admin = {"listen": f"127.0.0.1:{port}", "allow": ["127.0.0.1"], "socket": str(site.control_path)}
        site.configure(upstreams={"own": site.way_to(own)}, admin=admin)
        async with site.house() as house:
            await house.send(JAN, [PIET])
            yield (
                house,
                [
                    Attack(("127.0.0.1", port, "127.0.0.1")),
                    Attack(("127.0.0.1", port, STRANGER)),
                    Attack(site.control_path),
                ],
            )
            await house.send(JAN, [PIET])
            await house.empty()
            assert len(own.messages) == house.ledger.delivered
            status = await relay(site, "status")
            assert (status.code, status.err) == (0, ""), status.out


@pytest.mark.asyncio
@pytest.mark.parametrize("ending", ["read", "half", "close", "reset"])
async def test_no_request_raises_an_alarm(site: Site, ending: str) -> None:
    async with watched(site) as (_, attacks):
        for octets in REQUESTS:
            for attack in attacks:
                answer = await attack.say(octets, ending)
                assert b" 500 " not in answer[:20], (octets[:200], answer)


@pytest.mark.asyncio
async def test_no_order_raises_an_alarm(site: Site) -> None:
    async with watched(site) as (_, (*_, attack)):
        for order in ORDERS:
            for body in BODIES:
                answer = await attack.say(posted(body, b"Connection: close", target=order), "read")
                assert answer, (order, body[:200])
                assert b" 500 " not in answer[:20], (order, body[:200], answer)


MOST = 32 + 8 + 32  # of peers in `allow`, of others, on the socket
MAIL = 24  # what mail itself may take: sessions, connections, files


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "octets",
    [b"", b"GET /met", posted(b"12345")[:-1], asked(b"/metrics") * 100],
    ids=["silent", "half a request", "half a body", "never reads"],
)
async def test_peers_that_say_nothing_or_never_read_cost_a_bounded_number_of_descriptors(
    site: Site, octets: bytes
) -> None:
    port, page = free_port(), free_port()
    async with site.upstream() as own:
        site.configure(
            upstreams={"own": site.way_to(own)},
            listeners=[{"name": "legacy", "listen": f"127.0.0.1:{port}"}],
            admin={"listen": f"127.0.0.1:{page}", "allow": ["127.0.0.1"], "socket": str(site.control_path)},
            log={"format": "json"},
        )
        async with Process.serving(site) as process:
            await send(port, JAN, [PIET])
            await own.message(1)
            await reachable(site)
            before = descriptors(process.pid)
            attacks = [Attack(("127.0.0.1", page, host)) for host in ("127.0.0.1", STRANGER)]
            attacks.append(Attack(site.control_path))
            held = []
            for number in range(100):
                for attack in attacks:
                    _, writer = await attack.connection()
                    writer.write(octets)
                    writer.transport.pause_reading()  # type: ignore[attr-defined]
                    held.append(writer)
                if number % 20 == 0:
                    await send(port, JAN, [PIET])
                    assert descriptors(process.pid) <= before + MOST + MAIL
            await own.message(6)
            status = await relay(site, "status")
            assert (status.code, status.err) == (0, ""), status.out
            assert process.all("exception") == []
            for writer in held:
                writer.transport.abort()


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


# Those whom the relay asks

INTERIM = b"HTTP/1.1 100 \r\n\r\n"
BODY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"


def vendor(site: Site, port: int) -> dict[str, Any]:
    url = f"https://127.0.0.1:{port}/v1"
    return {"type": "https", "url": url, "auth": "none", "tls_ca": site.certificates.ca_path}


def tokens(site: Site, token_url: str, host: str, port: int) -> dict[str, Any]:
    oauth2 = {"provider": "generic", "token_url": token_url, "client_id": "x", "tls_ca": site.certificates.ca_path}
    secret = {"client_secret": {"file": str(site.password_path)}}
    way = {"host": host, "port": port, "tls": "starttls", "tls_ca": site.certificates.ca_path}
    return {**way, "auth": "xoauth2", "username": JAN, "oauth2": oauth2 | secret}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("who", "attack"),
    [
        ("vendor", {"piece": INTERIM}),
        ("vendor", {"piece": b"a: b\r\n", "first": b"HTTP/1.1 500 x\r\n"}),
        ("vendor", {"piece": b"x", "first": b"HTTP/1.1 500 x\r\n\r\n"}),
        ("tokens", {"piece": INTERIM}),
        ("tokens", {"piece": b"a: b\r\n", "first": b"HTTP/1.1 200 OK\r\n"}),
        ("tokens", {"piece": b"[", "first": BODY}),
        ("smtp", {"piece": b"220-x\r\n", "after": b""}),
        ("smtp", {"piece": b"x", "first": b"220 x\r\n250-SIZE ", "after": b""}),
        ("smtp", {"piece": b"250-SIZE 5\r\n", "first": b"220 x\r\n", "after": b""}),
    ],
    ids=lambda value: value if isinstance(value, str) else value["piece"].decode().strip(),
)
async def test_mail_goes_on_beside_a_peer_that_answers_without_end(
    site: Site, who: str, attack: dict[str, Any]
) -> None:
    certificate = None if who == "smtp" else site.certificates.good
    async with site.upstream() as own, Flood(certificate=certificate, **attack) as flood:
        ways = {
            "vendor": lambda: vendor(site, flood.port),
            "tokens": lambda: tokens(site, f"https://127.0.0.1:{flood.port}/t", own.host, own.port),
            "smtp": lambda: {"host": "127.0.0.1", "port": flood.port, "tls": "none"},
        }
        site.configure(
            upstreams={"own": site.way_to(own), "flood": ways[who]()},
            routes={"default": {"upstreams": ["own"]}, "flood": {"upstreams": ["flood"], "retry": "1s"}},
            senders=[{"match": {"subject": "*flood*"}, "keep": True, "route": "flood"}],
        )
        async with site.house() as house:
            await house.send(JAN, [PIET], mail("flood"))
            await house.event(UpstreamSetAside, upstream="flood")
            for number in range(3):
                queue_id = await house.send(JAN, [PIET], mail(f"Factuur {number}"))
                await house.event(RecipientDelivered, queue_id=queue_id, upstream="own")
            await flood.left()
            assert house.ledger.delivered == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("lifetime", ["1e999", "NaN", "1000000000000000000", "9007199254740991", "-1"])
async def test_a_token_that_lasts_for_ever_is_a_token_and_every_page_and_command_has_it(
    site: Site, lifetime: str
) -> None:
    page = free_port()

    def everybody(_: str, token: str) -> bool:
        return token == "tok123"

    async with Authority(site.certificates) as entra, site.upstream(tokens=everybody) as own:
        entra.script(Fault(200, f'{{"access_token": "tok123", "expires_in": {lifetime}}}'), times=None)
        site.configure(
            upstreams={"own": tokens(site, entra.token_url, own.host, own.port)},
            admin={"listen": f"127.0.0.1:{page}", "socket": str(site.control_path)},
        )
        for _ in range(2):  # and after a restart
            async with site.house() as house:
                await house.send(JAN, [PIET])
                await house.empty()
                attack = Attack(("127.0.0.1", page, "127.0.0.1"))
                seen = await attack.say(asked(b"/metrics", b"Host: x", b"Connection: close"), "whole")
                assert b'relay_oauth_token_expiry_timestamp_seconds{upstream="own"} 1.' in seen
                for words in (("status",), ("auth", "status"), ("auth", "status", "--json"), ("auth", "test", "own")):
                    answer = await relay(site, *words)
                    assert (answer.code, answer.err) == (0, ""), answer
        assert len(own.messages) == 2
