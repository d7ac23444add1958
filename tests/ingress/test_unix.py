"""Unix sockets at the door: who comes through one is on this machine, and the file goes with the listener."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_network
from pathlib import Path

from relay.events import ConnectionAccepted, MessageQueued
from relay.ingress.listener import Listener
from relay.ingress.ports import open_port, open_unix
from tests.ingress.house import Client, HouseOf, on_both_loops
from tests.kit import configured
from tests.kit.certificates import Certificates

NOBODY = (ip_network("203.0.113.7/32"),)


async def connect(path: Path) -> Client:
    return Client(*await asyncio.open_unix_connection(str(path)))


@on_both_loops
async def test_mail_through_a_unix_socket_is_local(house_of: HouseOf, tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    async with house_of(allow=NOBODY) as house:  # the file's mode says who may come, not `allow`
        listener = Listener(house.door, [open_unix(str(path))])
        await listener.start()
        client = await connect(path)
        assert (await client.reply())[:4] == b"220 "
        await client.say(b"EHLO pc.example.nl")
        assert (await client.mail())[:3] == b"250"
        assert [event.client for event in house.observed.of(ConnectionAccepted)] == ["local"]
        assert [event.client for event in house.observed.of(MessageQueued)] == ["local"]
        assert (await house.entries())[0].submission.peer.address == "local"
        await client.close()
        await listener.close()
        assert not path.exists()


@on_both_loops
async def test_a_unix_socket_counts_as_this_machine_for_auth(house_of: HouseOf, tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    async with house_of(allow=NOBODY, auth="users", verify=lambda name, password: password == "juist") as house:
        listener = Listener(house.door, [open_unix(str(path))])
        await listener.start()
        client = await connect(path)
        await client.reply()
        assert b"AUTH PLAIN" in await client.say(b"EHLO pc.example.nl")
        assert (await client.say(b"AUTH PLAIN AGphbgBqdWlzdA=="))[:3] == b"235"
        await client.close()
        await listener.close()


@on_both_loops
async def test_no_proxy_header_counts_on_a_unix_socket(house_of: HouseOf, tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    async with house_of(proxy_protocol=(ip_network("0.0.0.0/0"), ip_network("::/0"))) as house:
        listener = Listener(house.door, [open_unix(str(path))])
        await listener.start()
        client = await connect(path)
        assert (await client.reply())[:4] == b"220 "
        assert (await client.say(b"PROXY TCP4 203.0.113.7 192.0.2.1 1 25"))[:3] == b"500"
        await client.close()
        await listener.close()


@on_both_loops
async def test_tls_works_on_a_unix_socket(house_of: HouseOf, tmp_path: Path, certificates: Certificates) -> None:
    path = tmp_path / "smtp.sock"
    async with house_of(tls="starttls", tls_context=certificates.good.server()) as house:
        listener = Listener(house.door, [open_unix(str(path))])
        await listener.start()
        client = await connect(path)
        await client.reply()
        assert (await client.say(b"STARTTLS"))[:3] == b"220"
        await client.start_tls(ssl.create_default_context(cafile=certificates.ca_path))
        assert (await client.say(b"EHLO pc.example.nl"))[:3] == b"250"
        assert (await client.mail())[:3] == b"250"
        await client.close()
        await listener.close()


@on_both_loops
async def test_idle_clients_hear_421_when_the_listener_closes_and_content_finishes(
    house_of: HouseOf, tmp_path: Path
) -> None:
    path = tmp_path / "smtp.sock"
    async with house_of() as house:
        listener = Listener(house.door, [open_unix(str(path))])
        await listener.start()
        idle, busy = await connect(path), await connect(path)
        await idle.reply()
        await busy.reply()
        await busy.say(b"HELO pc")
        assert (await busy.say(b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<piet@example.com>", b"DATA"))[:3] == b"354"
        closing = asyncio.create_task(listener.close())
        assert (await idle.reply())[:3] == b"421"
        assert not path.exists()
        busy.send(b"Subject: x\r\n\r\nHallo\r\n.\r\n")
        assert (await busy.reply())[:3] == b"250"
        await closing
        await idle.close()
        await busy.close()


@on_both_loops
async def test_limits_for_each_client_take_all_local_ones_together(house_of: HouseOf, tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    async with house_of(limits=configured.limits(per_client=1)) as house:
        listener = Listener(house.door, [open_unix(str(path))])
        await listener.start()
        first, second = await connect(path), await connect(path)
        assert (await first.reply())[:3] == b"220"
        assert (await second.reply())[:3] == b"421"
        await first.close()
        await second.close()
        await listener.close()


@on_both_loops
async def test_a_listener_tells_its_sockets_as_people_write_them(house_of: HouseOf, tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    async with house_of() as house:
        listener = Listener(house.door, [open_port("127.0.0.1", 0), open_unix(str(path))])
        (host, port), unix = listener.addresses
        assert (host, unix) == ("127.0.0.1", (f"unix:{path}", 0))
        assert listener.shown == [f"127.0.0.1:{port}", f"unix:{path}"]
        listener.close_sockets()
        assert not path.exists()
