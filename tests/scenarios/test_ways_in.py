"""Ways into the house besides a port: folders of files, Unix sockets, load balancers; and their reloads."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from pathlib import Path

import pytest

from relay.events import (
    AlarmCleared,
    AlarmRaised,
    AlarmSent,
    ConnectionDenied,
    MessageQueued,
    MessageRefused,
    RecipientDelivered,
)
from tests.kit.house import JAN, PIET, Client, Site, free_port, mail
from tests.kit.process import Process
from tests.scenarios.clock import Clock
from tests.scenarios.desk import reachable, relay

FILE = mail().replace(b"\r\n", b"\n")  # as software writes files
PORT = {"name": "legacy", "listen": "127.0.0.1:0"}


def drop(folder: Path, name: str, content: bytes) -> None:
    """Write it elsewhere, and rename it into the folder."""
    elsewhere = folder.parent / f"{name}.part"
    elsewhere.write_bytes(content)
    elsewhere.rename(folder / name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock.of(monkeypatch)


@pytest.fixture(autouse=True)
def the_queue_has_a_folder_of_its_own(site: Site) -> None:
    site.queue_path = site.folder / "queue" / "queue.db"


def folder_of(site: Site, name: str) -> dict[str, str]:
    return {"name": name, "type": "pickup", "directory": str(site.folder / name)}


@pytest.mark.asyncio
async def test_a_file_moved_into_the_folder_is_delivered_and_gone(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, listeners=[PORT, folder_of(site, "out")])
        async with site.house() as house:
            drop(site.folder / "out", "factuur.eml", FILE)
            queued = await house.event(MessageQueued, listener="out")
            await house.event(RecipientDelivered, queue_id=queued.queue_id)
            received = await own.message()
    assert (received.reverse_path, received.recipients) == (JAN, (PIET,))
    assert received.content.endswith(b"\r\n\r\nBijgaand de factuur.\r\n")
    assert [entry.name for entry in os.scandir(site.folder / "out") if entry.name.endswith(".eml")] == []


@pytest.mark.asyncio
async def test_a_file_that_was_there_before_the_start_is_taken_at_the_start(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, listeners=[folder_of(site, "out")])
        (site.folder / "out").mkdir()
        drop(site.folder / "out", "factuur.eml", FILE)
        async with site.house() as house:
            await house.event(RecipientDelivered)


@pytest.mark.asyncio
async def test_a_broken_file_lies_in_bad_with_its_reason_and_keeps_nobody_waiting(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, listeners=[folder_of(site, "out")])
        async with site.house() as house:
            drop(site.folder / "out", "leeg.eml", b"Subject: aan niemand\n\ntekst\n")
            drop(site.folder / "out", "goed.eml", FILE)
            await house.event(MessageRefused, listener="out")
            await house.event(RecipientDelivered)
        assert (site.folder / "out" / "bad" / "leeg.eml").exists()
        assert "nobody is named" in (site.folder / "out" / "bad" / "leeg.eml.reason.txt").read_text()


@pytest.mark.asyncio
async def test_a_file_that_was_not_taken_is_a_trouble_an_alarm_and_a_mail_until_it_is_removed(
    site: Site, clock: Clock
) -> None:
    async with site.upstream() as own:
        site.configure(
            upstreams={"own": site.way_to(own)},
            listeners=[folder_of(site, "out")],
            bounces={"also": ["beheer@example.nl"]},
        )
        async with site.house() as house:
            drop(site.folder / "out", "leeg.eml", b"Subject: aan niemand\n\ntekst\n")
            raised = await house.event(AlarmRaised, cause="pickup-refused:out")
            assert (raised.severity, raised.text.count("could not be sent to anybody: 1.")) == ("error", 1)
            await house.event(AlarmSent, cause="pickup-refused:out", way="mail", reader="beheer@example.nl by own")
            await reachable(site)
            answer = await relay(site, "status")
            assert answer.code == 1
            assert any("that could not be sent to anybody: 1." in line for line in answer.lines)
            (site.folder / "out" / "bad" / "leeg.eml").unlink()
            await house.event(AlarmCleared, cause="pickup-refused:out")


STRANGER = 65534
IN_THE_WAY = """
cd "$1" || exit 1
mv bad bad.old; mkdir -m 777 bad; mv .taken .taken.old; ln -s "$2" .taken
put() { printf 'no recipients\\n' > "$1.tmp"; touch -d '1 minute ago' "$1.tmp"; mv "$1.tmp" "$1.eml"; }
for i in 1 2 3 4 5 6 7 8 9; do mkfifo -m 666 "bad/f$i.eml.reason.txt"; put "f$i"; done
ln -s "$2/queue.db" bad/x.eml.reason.txt; put x
mkfifo y.eml; ln -s "$2/queue.db" z.eml; mkdir w.eml; touch -h -d '1 minute ago' y.eml z.eml
"""


@pytest.mark.asyncio
async def test_who_may_write_the_folder_stops_neither_other_mail_nor_a_reload_nor_the_end_nor_a_start(
    site: Site,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can let another user act")
    with tempfile.TemporaryDirectory() as made:  # where another user may come
        Path(made).chmod(0o711)
        folder = Path(made) / "pickup"
        folder.mkdir()
        folder.chmod(0o770)
        os.chown(folder, STRANGER, 0)
        async with site.upstream() as own:
            pickup = {"name": "out", "type": "pickup", "directory": str(folder)}
            site.configure(upstreams={"own": site.way_to(own)}, listeners=[pickup], log={"format": "json"})
            before = None
            for _ in ("the attack", "the next start"):
                async with Process.serving(site) as process:
                    if before is None:
                        before = os.stat(site.queue_path).st_ino
                        script = ["/bin/sh", "-c", IN_THE_WAY, "sh", str(folder), str(site.queue_path.parent)]
                        stranger = await asyncio.create_subprocess_exec(
                            *script, user=STRANGER, group=STRANGER, extra_groups=[]
                        )
                        assert await stranger.wait() == 0
                        await process.line("rejected", 12)
                    drop(folder, "factuur.eml", FILE)
                    await process.line("delivered")
                    process.signal(signal.SIGHUP)
                    await process.line("reloaded")
                    process.signal(signal.SIGTERM)
                    assert await process.ended() == 0
                    assert process.all("exception") == []
                    assert len(process.all("delivered")) == 1
        assert os.stat(site.queue_path).st_ino == before
        assert site.queue_path.read_bytes().startswith(b"SQLite format 3")
        assert len(list((folder / "bad").glob("*.eml"))) == 12


@pytest.mark.asyncio
async def test_a_reload_takes_another_folder_and_leaves_the_old_one_alone(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, listeners=[folder_of(site, "old")])
        async with site.house() as house:
            drop(site.folder / "old", "een.eml", FILE)
            await house.event(RecipientDelivered)
            site.configuration["listeners"] = [folder_of(site, "new")]
            site.write()
            await house.relay.reload()
            drop(site.folder / "old", "twee.eml", FILE)
            drop(site.folder / "new", "drie.eml", FILE)
            await house.event(MessageQueued, listener="new")
            # And back: what was left alone is taken now.
            site.configuration["listeners"] = [folder_of(site, "old")]
            site.write()
            await house.relay.reload()
            await house.event(MessageQueued, 2, listener="old")
            await house.empty()


@pytest.mark.asyncio
async def test_mail_comes_through_a_unix_socket_which_is_gone_after_the_end(site: Site) -> None:
    path = site.folder / "relay.sock"
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, listeners=[{"name": "local", "listen": f"unix:{path}"}])
        async with site.house() as house:
            assert path.stat().st_mode & 0o777 == 0o660
            async with Client.to(path) as client:
                queue_id = await client.send(JAN, [PIET], mail())
            await house.event(RecipientDelivered, queue_id=queue_id)
            (queued,) = house.seen.all(MessageQueued)
            assert queued.client == "local"
    assert not path.exists()


@pytest.mark.asyncio
async def test_a_reload_moves_a_unix_socket(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(
            upstreams={"own": site.way_to(own)}, listeners=[{"name": "local", "listen": f"unix:{site.folder}/a.sock"}]
        )
        async with site.house() as house:
            site.configuration["listeners"] = [{"name": "local", "listen": f"unix:{site.folder}/b.sock"}]
            site.write()
            await house.relay.reload()
            assert not (site.folder / "a.sock").exists()
            async with Client.to(site.folder / "b.sock") as client:
                assert (await client.say("NOOP")).startswith("250")


@pytest.mark.asyncio
async def test_behind_a_load_balancer_the_clients_own_address_is_the_one_that_counts(site: Site) -> None:
    async with site.upstream() as own:
        listener = {**PORT, "proxy_protocol": ["127.0.0.1"], "allow": ["192.168.1.0/24"]}
        site.configure(upstreams={"own": site.way_to(own)}, listeners=[listener])
        async with site.house() as house:
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port())
            writer.write(b"PROXY TCP4 192.168.1.20 192.168.1.10 40000 25\r\n")
            client = Client(reader, writer)
            assert (await client.reply()).startswith("220")
            await client.say("HELO werkplek-7")
            queue_id = await client.send(JAN, [PIET], mail())
            queued = await house.event(MessageQueued, queue_id=queue_id)
            assert queued.client == "192.168.1.20"
            await house.event(RecipientDelivered, queue_id=queue_id)
            writer.transport.abort()
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port())
            writer.write(b"PROXY TCP4 203.0.113.7 192.168.1.10 40000 25\r\n")
            assert (await Client(reader, writer).reply()).startswith("554")
            await house.event(ConnectionDenied, client="203.0.113.7", reason="denied_address")
            writer.transport.abort()


@pytest.mark.asyncio
async def test_a_socket_file_that_somebody_listens_on_is_not_taken_from_him(site: Site) -> None:
    with socket.socket(socket.AF_UNIX) as somebody:
        somebody.bind(str(site.folder / "taken.sock"))
        somebody.listen()
        site.configure(
            upstreams={"own": {"host": "127.0.0.1", "port": free_port(), "tls": "none"}},
            listeners=[{"name": "local", "listen": f"unix:{site.folder}/taken.sock"}],
        )
        with pytest.raises(Exception, match=r"taken\.sock.*in use"):
            async with site.house():
                raise AssertionError("it started")
        assert (site.folder / "taken.sock").exists()
