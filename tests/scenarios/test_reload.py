"""A reload: the whole file is checked, then swapped, and what waits is tried at once in the new way."""

from __future__ import annotations

import asyncio
import smtplib
import ssl

import pytest

from relay.errors import BadConfig, RelayError
from relay.events import (
    ConfigReloaded,
    MessageQueued,
    RecipientDeferred,
    RecipientDelivered,
    RecipientFailed,
    ReloadRefused,
    UpstreamSetAside,
    Warned,
)
from relay.mail.outcome import Stage
from tests.admin.house import post
from tests.kit.house import ACCOUNT, JAN, PIET, Client, Site, free_port, mail
from tests.kit.upstream import SILENCE, Session

LONG_RETRY = {"default": {"retry": "1d"}}


@pytest.mark.asyncio
async def test_a_corrected_sender_rule_applies_to_mail_that_waits(site: Site) -> None:
    def own_sender_only(sender: str) -> str | None:
        return None if sender == ACCOUNT else "450 4.7.60 not allowed to send as this sender"

    async with site.upstream(sender_allowed=own_sender_only) as own:
        site.configure(upstreams={"own": site.way_to(own)}, routes=LONG_RETRY)
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            await house.event(RecipientDeferred, queue_id=queue_id)
            site.configuration["senders"] = [{"name": "mailbox", "address": ACCOUNT}]
            site.write()
            await house.relay.reload()
            delivered = await house.event(RecipientDelivered, queue_id=queue_id)
            assert (delivered.rule, delivered.attempt) == ("mailbox", 2)
    assert (await own.message()).reverse_path == ACCOUNT


@pytest.mark.asyncio
async def test_a_corrected_password_applies_to_mail_that_waits(site: Site) -> None:
    async with site.upstream() as own:
        site.set_password("verlopen")
        site.configure(upstreams={"own": site.way_to(own)}, routes=LONG_RETRY)
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            aside = await house.event(UpstreamSetAside)
            assert (aside.stage, aside.code) == (Stage.AUTH, 535)
            assert [attempt.password for attempt in own.auth_tries] == ["verlopen"]
            own.users = {ACCOUNT: "nieuw-en-goed"}
            site.set_password("nieuw-en-goed")
            await house.relay.reload()
            await house.event(RecipientDelivered, queue_id=queue_id)
            assert house.seen.all(RecipientFailed) == []


@pytest.mark.asyncio
async def test_a_bad_file_changes_nothing_and_is_reported_with_its_lines(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            good = site.config_path.read_text()
            site.config_path.write_text(good.replace('"retry": "1s"', '"retry": "1"').replace("admin", "admim"))
            with pytest.raises(BadConfig):
                await house.relay.reload()
            refused = await house.event(ReloadRefused)
            assert len(refused.problems) == 2
            line = next(n for n, text in enumerate(good.splitlines(), 1) if '"retry"' in text)
            assert any(f"config.yaml:{line}: routes.default.retry" in problem for problem in refused.problems)
            await house.send(JAN, [PIET])
            await house.event(RecipientDelivered)
            assert house.seen.all(ConfigReloaded) == []


@pytest.mark.asyncio
async def test_a_reload_without_the_password_file_is_refused_as_a_start_would_be(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            site.password_path.unlink()
            with pytest.raises(BadConfig, match=r"upstreams\.own\.password"):
                await house.relay.reload()
            assert house.seen.all(ConfigReloaded) == []
            site.set_password("")


@pytest.mark.asyncio
async def test_listeners_come_go_and_move_while_mail_flows(site: Site) -> None:
    def listener(name: str, port: int) -> dict[str, str]:
        return {"name": name, "listen": f"127.0.0.1:{port}"}

    first, second, third = free_port(), free_port(), free_port()
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, listeners=[listener("legacy", first)])
        async with site.house() as house:
            async with Client.to(first) as idle, Client.to(first) as sending:
                await sending.begin(JAN, [PIET])
                sending.write(b"From: jan@example.nl\r\n")
                moved = [listener("legacy", second), listener("scanner", third)]
                site.configuration["listeners"] = moved
                site.write()
                await house.relay.reload()
                assert (house.port("legacy"), house.port("scanner")) == (second, third)
                assert (await idle.reply()).startswith("421 4.3.2")
                sending.write(b"\r\nEen factuur.\r\n.\r\n")
                assert (await sending.reply()).startswith("250 2.0.0")
            with pytest.raises(ConnectionRefusedError):
                async with Client.to(first):
                    pass
            for port in (second, third):
                async with Client.to(port) as client:
                    await client.send(JAN, [PIET], mail())
            await house.event(MessageQueued, listener="scanner")
            site.configuration["listeners"] = [listener("scanner", third)]
            site.write()
            await house.relay.reload()
            with pytest.raises(ConnectionRefusedError):
                async with Client.to(second):
                    pass
            await house.event(RecipientDelivered, 3)


@pytest.mark.asyncio
async def test_a_port_can_change_hands_between_listeners(site: Site) -> None:
    port, other = free_port(), free_port()
    async with site.upstream() as own:
        listeners = [{"name": "old", "listen": f"127.0.0.1:{port}"}]
        site.configure(upstreams={"own": site.way_to(own)}, listeners=listeners)
        async with site.house() as house:
            site.configuration["listeners"] = [
                {"name": "new", "listen": f"127.0.0.1:{port}"},
                {"name": "old", "listen": f"127.0.0.1:{other}"},
            ]
            site.write()
            await house.relay.reload()
            async with Client.to(port) as client:
                await client.send(JAN, [PIET], mail())
            await house.event(MessageQueued, listener="new")


@pytest.mark.asyncio
async def test_a_listener_that_turns_to_implicit_tls_speaks_it_after_the_reload(site: Site) -> None:
    port = free_port()
    certificate = site.folder / "door.pem"
    certificate.write_bytes(site.certificates.good.pem)
    async with site.upstream() as own:
        door = {"name": "legacy", "listen": f"127.0.0.1:{port}"}
        site.configure(upstreams={"own": site.way_to(own)}, listeners=[door])
        async with site.house() as house:
            pem = str(certificate)
            site.configuration["listeners"] = [{**door, "tls": "implicit", "certificate": pem, "key": pem}]
            site.write()
            await house.relay.reload()
            trusted = ssl.create_default_context(cafile=site.certificates.ca_path)
            trusted.check_hostname = False

            def send() -> None:
                with smtplib.SMTP_SSL("127.0.0.1", port, context=trusted) as client:
                    client.sendmail(JAN, [PIET], mail())

            await asyncio.to_thread(send)
            await house.event(RecipientDelivered)


@pytest.mark.asyncio
async def test_a_port_that_cannot_be_had_refuses_the_reload_and_everything_stays(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as another:
        port = free_port()
        site.configure(
            upstreams={"own": site.way_to(own)}, listeners=[{"name": "legacy", "listen": f"127.0.0.1:{port}"}]
        )
        async with site.house() as house, Client.to(port) as client:
            # The second port is taken; so the first, which was given up for a moment, is opened again.
            site.configuration["listeners"] = [
                {"name": "moved", "listen": [f"127.0.0.1:{port}", f"127.0.0.1:{another.port}"]},
            ]
            site.write()
            with pytest.raises(RelayError):
                await house.relay.reload()
            refused = await house.event(ReloadRefused)
            assert f"127.0.0.1:{another.port} is in use by process" in refused.problems[0]
            assert (await client.reply()).startswith("421")
            async with Client.to(port) as again:
                await again.send(JAN, [PIET], mail())
            await house.event(MessageQueued, listener="legacy")


@pytest.mark.asyncio
async def test_an_upstream_that_is_taken_away_gets_nothing_more_and_its_mail_goes_the_other_way(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as other:
        await own.go_down()
        site.configure(
            upstreams={"own": site.way_to(own), "other": site.way_to(other)},
            routes={"default": {"upstreams": ["own"], "retry": "1d"}},
        )
        async with site.house() as house:
            await house.send_many(["1", "2", "3"])
            await house.event(UpstreamSetAside, upstream="own")
            del site.configuration["upstreams"]["own"]
            site.configuration["routes"] = LONG_RETRY
            site.write()
            await house.relay.reload()
            await house.event(RecipientDelivered, 3, upstream="other")
    assert len(other.messages) == 3


@pytest.mark.asyncio
async def test_mail_under_a_route_that_is_taken_away_moves_to_the_default(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as slow:
        await slow.go_down()
        routes = {"default": {"upstreams": ["own"], "retry": "1d"}, "mass": {"upstreams": ["slow"], "retry": "1d"}}
        site.configure(
            upstreams={"own": site.way_to(own), "slow": site.way_to(slow)},
            routes=routes,
            senders=[{"name": "mass mail", "match": {"from": JAN}, "keep": True, "route": "mass"}],
        )
        async with site.house() as house:
            await house.send_many(["1", "2", "3"])
            await house.event(UpstreamSetAside, upstream="slow")
            assert {event.route for event in house.seen.all(MessageQueued)} == {"mass"}
            del site.configuration["upstreams"]["slow"], routes["mass"], site.configuration["senders"]
            site.write()
            await house.relay.reload()
            await house.event(RecipientDelivered, 3, route="default")
            await house.empty()


@pytest.mark.asyncio
async def test_mail_under_a_route_that_was_taken_away_while_the_relay_was_down_moves_to_the_default(site: Site) -> None:
    async with site.upstream() as own:
        await own.go_down()
        site.configure(
            upstreams={"own": site.way_to(own)},
            routes={"default": {"retry": "1d"}, "mass": {"retry": "1d"}},
            senders=[{"name": "mass mail", "match": {"from": JAN}, "keep": True, "route": "mass"}],
        )
        async with site.house() as house:
            await house.send(JAN, [PIET])
            await house.event(RecipientDeferred, route="mass")
        await own.come_back()
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            await house.event(RecipientDelivered, route="default")


@pytest.mark.asyncio
async def test_a_delivery_under_way_ends_where_it_began_and_is_not_repeated(site: Site) -> None:
    async with site.upstream() as own, site.upstream() as other:
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def answer_later(session: Session) -> None:
            await go_on.wait()
            session.writer.write(b"250 2.0.0 at last\r\n")

        answers = list[asyncio.Task[None]]()

        def withhold(session: Session) -> object:
            answers.append(asyncio.create_task(answer_later(session)))
            arrived.set()
            return SILENCE

        own.script("dot", withhold)
        site.configure(upstreams={"own": site.way_to(own)}, routes=LONG_RETRY)
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            await arrived.wait()
            site.configuration["upstreams"] = {"other": site.way_to(other)}
            site.write()
            await house.relay.reload()
            go_on.set()
            delivered = await house.event(RecipientDelivered, queue_id=queue_id)
            assert (delivered.upstream, delivered.text) == ("own", "at last")
            later = await house.send(JAN, [PIET])
            assert (await house.event(RecipientDelivered, queue_id=later)).upstream == "other"
        await asyncio.gather(*answers)
    assert len(other.messages) == 1


@pytest.mark.asyncio
async def test_fewer_connections_strand_nothing_that_was_waiting_for_one(site: Site) -> None:
    async with site.upstream() as own:
        withheld = list[Session]()

        def withhold(session: Session) -> object:
            withheld.append(session)
            return SILENCE

        own.script("dot", withhold, times=3)
        site.configure(upstreams={"own": site.way_to(own)}, routes=LONG_RETRY)
        async with site.house() as house:
            await house.send_many([str(number) for number in range(20)])
            await own.until(lambda: len(withheld) == 3)
            site.configuration["upstreams"]["own"]["max_connections"] = 2
            site.write()
            await house.relay.reload()
            later = await house.send(JAN, [PIET])
            for session in withheld:  # until then there are more connections than the account may have
                session.writer.write(b"250 2.0.0 at last\r\n")
            await house.event(RecipientDelivered, queue_id=later)
            await house.event(RecipientDelivered, 21)


@pytest.mark.asyncio
async def test_keys_that_need_a_restart_are_named(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            site.configuration["queue"] = {"store": f"sqlite:{site.folder}/other.db", "min_free": "2MiB"}
            site.configuration["admin"]["allow"] = ["127.0.0.1"]
            site.write()
            needs_restart = await house.relay.reload()
            assert needs_restart == ("queue.store", "admin")
            assert (await house.event(ConfigReloaded)).needs_restart == needs_restart


@pytest.mark.asyncio
async def test_the_space_to_be_left_free_can_be_changed_while_the_relay_runs(site: Site) -> None:
    port = free_port()
    async with site.upstream() as own:
        site.configure(
            upstreams={"own": site.way_to(own)}, listeners=[{"name": "legacy", "listen": f"127.0.0.1:{port}"}]
        )
        site.configuration["queue"] = {"store": f"sqlite:{site.queue_path}", "min_free": "1000000GiB"}
        site.write()
        async with site.house() as house:
            async with Client.to(port) as client:
                assert (await client.say(f"MAIL FROM:<{JAN}>")).startswith("452 4.3.1")
            site.configuration["queue"]["min_free"] = "1MiB"
            site.write()
            assert await house.relay.reload() == ()
            async with Client.to(port) as client:
                await client.send(JAN, [PIET], mail())
            await house.event(RecipientDelivered)


@pytest.mark.asyncio
async def test_two_reloads_at_once_come_one_after_the_other(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            site.configuration["listeners"] = [{"name": "moved", "listen": "127.0.0.1:0"}]
            site.write()
            await asyncio.gather(*(house.relay.reload() for _ in range(5)))
            assert [listener.name for listener in house.relay.doors.listeners] == ["moved"]
            async with Client.to(house.port("moved")) as client:
                await client.send(JAN, [PIET], mail())
            await house.event(RecipientDelivered)


@pytest.mark.asyncio
async def test_what_is_unwise_is_said_at_the_start_and_again_after_a_reload(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own, tls_verify=False)})
        async with site.house() as house:
            assert "tls_verify" in (await house.event(Warned)).text
            await house.relay.reload()
            await house.event(Warned, 2)


@pytest.mark.asyncio
async def test_a_reload_comes_over_the_admin_socket_as_well(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            async with asyncio.timeout(60):
                while not site.control_path.exists():
                    await asyncio.sleep(0.02)
            assert site.control_path.stat().st_mode & 0o777 == 0o660
            answer = await asyncio.to_thread(post, site.control_path, "/v1/reload")
            assert answer == (200, {"version": 1, "needs_restart": []})
            site.config_path.write_text("upstreams: {}\n")
            status, document = await asyncio.to_thread(post, site.control_path, "/v1/reload")
            assert status == 422
            assert document["problems"]
            await house.event(ReloadRefused)
    assert not site.control_path.exists()
