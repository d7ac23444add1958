"""SIGTERM at any moment: what was begun ends, nothing is lost, the exit code is 0. And two relays never share."""

from __future__ import annotations

import asyncio
import signal
import socket

import pytest

from relay.events import RecipientDelivered
from tests.kit import commands
from tests.kit.house import JAN, PIET, Client, Site, free_port, mail, send
from tests.kit.process import Process
from tests.kit.upstream import SILENCE, ScriptedUpstream, Session


def configure(site: Site, own: ScriptedUpstream, *, retry: str = "1s") -> int:
    """The configuration of a process; the port of its door."""
    port = free_port()
    site.configure(
        upstreams={"own": site.way_to(own)},
        listeners=[{"name": "legacy", "listen": f"127.0.0.1:{port}"}],
        routes={"default": {"retry": retry}},
        log={"format": "json", "level": "debug"},
    )
    return port


async def all_is_delivered_after_a_restart(site: Site, count: int) -> None:
    async with site.house() as house:
        await house.event(RecipientDelivered, count)
        await house.empty()


@pytest.mark.asyncio
async def test_an_idle_session_hears_421_and_the_process_ends_with_0(site: Site) -> None:
    async with site.upstream() as own:
        port = configure(site, own)
        async with Process.serving(site) as relay:
            await send(port, JAN, [PIET])
            await own.message()
            async with Client.to(port) as client:
                relay.signal(signal.SIGTERM)
                assert (await client.reply()).startswith("421 4.3.2")
                assert await client.reply() == ""
            assert await relay.ended() == 0
            assert relay.all("stopped")
            assert relay.all("exception") == []
    assert not site.control_path.exists()


@pytest.mark.asyncio
async def test_content_in_progress_finishes_and_is_kept_before_the_process_ends(site: Site) -> None:
    async with site.upstream() as own:
        port = configure(site, own)
        async with Process.serving(site) as relay, Client.to(port) as client:
            await client.begin(JAN, [PIET])
            client.write(b"From: jan@example.nl\r\nSubject: half")
            relay.signal(signal.SIGTERM)
            await relay.line("stopping")
            with pytest.raises(ConnectionError):
                async with Client.to(port):
                    pass
            client.write(b"weg\r\n\r\nEn de rest.\r\n.\r\n")
            reply = await client.reply()
            assert reply.startswith("250 2.0.0 OK: queued as")
            assert (await client.reply()).startswith("421 4.3.2")
            assert await relay.ended() == 0
        if not own.messages:
            await all_is_delivered_after_a_restart(site, 1)
    (received,) = own.messages
    assert received.content.endswith(b"\r\n\r\nEn de rest.\r\n")


@pytest.mark.asyncio
async def test_an_attempt_past_its_final_dot_gets_its_answer_before_the_process_ends(site: Site) -> None:
    async with site.upstream() as own:
        withheld = asyncio.get_running_loop().create_future()

        def withhold(session: Session) -> object:
            withheld.set_result(session)
            return SILENCE

        own.script("dot", withhold)
        port = configure(site, own)
        async with Process.serving(site) as relay:
            await send(port, JAN, [PIET])
            session = await withheld
            relay.signal(signal.SIGTERM)
            await relay.line("stopping")
            session.writer.write(b"250 2.0.0 taken\r\n")
            assert await relay.ended() == 0
            assert relay.all("delivered", text="taken")
        async with site.house() as house:
            assert house.ledger.found == 0
    assert len(own.messages) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("stage", ["banner", "auth", "mail", "data"])
async def test_an_attempt_before_its_final_dot_is_broken_off_and_made_again_after_the_restart(
    site: Site, stage: str
) -> None:
    async with site.upstream() as own:
        reached = asyncio.Event()

        def be_silent(_: Session) -> object:
            reached.set()
            return SILENCE

        own.script(stage, be_silent)
        port = configure(site, own, retry="1h")
        async with Process.serving(site) as relay:
            await send(port, JAN, [PIET])
            await reached.wait()
            relay.signal(signal.SIGTERM)
            assert await relay.ended() == 0
            assert relay.all("exception") == []
        assert own.messages == []
        await all_is_delivered_after_a_restart(site, 1)
    assert len(own.messages) == 1


@pytest.mark.asyncio
async def test_a_silent_upstream_on_a_connection_used_before_does_not_keep_the_process(site: Site) -> None:
    async with site.upstream() as own:
        port = configure(site, own)
        async with Process.serving(site) as relay:
            await send(port, JAN, [PIET])
            await relay.line("delivered")
            reached = asyncio.Event()

            def be_silent(_: Session) -> object:
                reached.set()
                return SILENCE

            own.script("mail", be_silent, times=None)
            own.script("banner", SILENCE, times=None)
            await send(port, JAN, [PIET])
            await reached.wait()
            relay.signal(signal.SIGTERM)
            assert await relay.ended() == 0
            assert own.connections == 1
        own.unscript("mail")
        own.unscript("banner")
        await all_is_delivered_after_a_restart(site, 1)


@pytest.mark.asyncio
async def test_a_backlog_survives_a_stop_in_its_middle(site: Site) -> None:
    count = 200
    async with site.upstream() as own:
        port = configure(site, own)
        async with Process.serving(site) as relay:
            async with Client.to(port) as client:
                for number in range(count):
                    await client.send(JAN, [PIET], mail(str(number)))
            relay.signal(signal.SIGTERM)
            assert await relay.ended() == 0
        async with site.house() as house:
            await house.empty()
    assert sorted(int(one.content.partition(b"Subject: ")[2].split()[0]) for one in own.messages) == list(range(count))


@pytest.mark.asyncio
async def test_a_second_relay_on_the_same_queue_refuses_and_names_the_process(site: Site) -> None:
    async with site.upstream() as own:
        configure(site, own)
        async with Process.serving(site) as relay:
            site.configuration["listeners"][0]["listen"] = "127.0.0.1:0"
            site.write()
            code, out, err = await commands.run("serve", "-c", str(site.config_path))
            assert (code, out) == (1, "")
            assert f"{site.queue_path} is held by process {relay.pid} (" in err
            assert len(err.splitlines()) == 1


@pytest.mark.asyncio
async def test_a_port_in_use_is_told_with_the_process_that_has_it(site: Site) -> None:
    async with site.upstream() as own:
        port = configure(site, own)
        async with Process.serving(site) as relay:
            site.configuration["queue"]["store"] = f"sqlite:{site.folder}/other.db"
            site.write()
            code, out, err = await commands.run("serve", "-c", str(site.config_path))
            assert (code, out) == (1, "")
            assert f"127.0.0.1:{port} is in use by process {relay.pid} (" in err.splitlines()[-1]
            assert "Traceback" not in err


@pytest.mark.asyncio
async def test_sighup_and_relay_reload_apply_a_file_and_report_a_bad_one(site: Site) -> None:
    async with site.upstream() as own:
        port = configure(site, own)
        code, _, err = await commands.run("reload", "-c", str(site.config_path))
        assert code == 3
        assert f"no relay is running behind {site.control_path}" in err
        async with Process.serving(site) as relay:
            relay.signal(signal.SIGHUP)
            await relay.line("reloaded")
            other = free_port()
            site.configuration["listeners"][0]["listen"] = f"127.0.0.1:{other}"
            site.configuration["admin"]["allow"] = ["127.0.0.1"]
            site.write()
            async with asyncio.timeout(60):
                while not site.control_path.exists():
                    await asyncio.sleep(0.05)
            code, out, err = await commands.run("reload", "-c", str(site.config_path))
            assert (code, err) == (0, "")
            assert "admin" in out
            assert "needs a restart" in out
            await send(other, JAN, [PIET])
            with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
                probe.connect(("127.0.0.1", port))
            # The command reads the file for the socket's path, so it has to be readable; what the relay finds
            # wrong is something else.
            site.password_path.unlink()
            code, out, err = await commands.run("reload", "-c", str(site.config_path))
            assert (code, out) == (1, "")
            assert "upstreams.own.password" in err
            site.config_path.write_text("upstreams: [\n")
            relay.signal(signal.SIGHUP)
            await relay.line("reload_refused", 2)
            code, out, err = await commands.run("reload", "-c", str(site.config_path))
            assert (code, out) == (1, "")
            assert "config.yaml:" in err
            await send(other, JAN, [PIET])
            relay.signal(signal.SIGTERM)
            assert await relay.ended() == 0
