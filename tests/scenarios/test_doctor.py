"""`relay doctor` against set-ups that are broken, each in its own way: the first ✗ names the cause."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from relay.events import RecipientDelivered, UpstreamSetAside
from tests.kit.authority import Authority, refusal
from tests.kit.house import ACCOUNT, JAN, PASSWORD, PIET, Site, free_port
from tests.kit.names import NameServer
from tests.kit.upstream import STOP_READING, ScriptedUpstream
from tests.scenarios.desk import Answer, at_terminal, reachable, relay
from tests.scenarios.test_oauth2 import SECRET, m365, way_to

SECURITY_DEFAULTS = (
    "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy. "
    "Contact your administrator."
)
TOO_MANY = "432 4.3.2 Concurrent connections limit exceeded"
NOT_PERMITTED = "550 5.7.60 SMTP; Client does not have permissions to send as this sender"


def causes(answer: Answer) -> list[str]:
    """The lines that say what is bad, without the mark."""
    return [line[2:] for line in answer.plain.splitlines() if line.startswith("✗ ")]


def line_of(answer: Answer, part: str) -> str:
    return next(line for line in answer.lines if line[2:].startswith(f"{part} "))


async def the_first_is(site: Site, cause: str, *words: str) -> Answer:
    """The doctor's answer, whose first ✗ begins with `cause`, also on a terminal; nothing secret is in it."""
    answer = await relay(site, "doctor", *words)
    assert answer.code == 1, answer
    assert answer.err == ""
    assert causes(answer)[0].startswith(cause), answer.out
    assert not any(secret in answer.out for secret in (PASSWORD, SECRET, "verkeerd"))
    remedy = answer.lines[answer.lines.index(f"✗ {causes(answer)[0]}") + 1]
    assert remedy.strip().startswith("-> "), remedy
    return answer


# The ten


@pytest.mark.asyncio
async def test_a_wrong_password_is_named_and_tried_once(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        site.set_password("verkeerd")
        await the_first_is(site, "auth     535 5.7.8 ")
        assert len(own.auth_tries) == 1


@pytest.mark.asyncio
async def test_security_defaults_are_named_with_what_to_do_in_dutch(site: Site) -> None:
    async with site.upstream(mechanisms=("LOGIN",)) as own:
        own.script("auth", SECURITY_DEFAULTS, times=None)
        site.configure(upstreams={"own": site.way_to(own)}, language="nl")
        answer = await the_first_is(site, f"auth     {SECURITY_DEFAULTS}")
        assert "beveiligingsstandaarden" in answer.out


@pytest.mark.asyncio
async def test_an_expired_certificate_is_named(site: Site) -> None:
    async with site.upstream(certificate=site.certificates.expired) as own:
        site.configure(upstreams={"own": site.way_to(own)})
        await the_first_is(site, "tls      the upstream's certificate has expired")
        assert own.auth_tries == []


@pytest.mark.asyncio
@pytest.mark.parametrize(("how", "cause"), [("closed", "Connection refused"), ("blocked", "within 1 s")])
async def test_a_port_that_cannot_be_reached_is_named(site: Site, how: str, cause: str) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own, timeouts={"connect": "1s"})})
        await (own.stop_listening() if how == "closed" else own.let_nobody_in())
        answer = await the_first_is(site, f"connect  no connection to 127.0.0.1 port {own.port}")
        assert cause in causes(answer)[0]


@pytest.mark.asyncio
async def test_starttls_that_was_stripped_is_named_and_nothing_secret_goes_out(site: Site) -> None:
    async with site.upstream(tls="none") as own:
        site.configure(upstreams={"own": site.way_to(own, tls="starttls")})
        await the_first_is(site, "starttls the upstream does not offer STARTTLS")
        assert not any(command.startswith("AUTH") for command in own.commands)


@pytest.mark.asyncio
async def test_a_name_that_is_gone_is_named(site: Site) -> None:
    site.configure(upstreams={"own": {"host": "smtp.weg.invalid"}})
    await the_first_is(site, "dns      the name smtp.weg.invalid cannot be resolved")


@pytest.mark.asyncio
async def test_a_disk_that_is_nearly_full_is_named(site: Site) -> None:
    async with site.upstream() as own:
        queue = {"store": f"sqlite:{site.queue_path}", "min_free": "900TiB"}
        site.configure(upstreams={"own": site.way_to(own)}, queue=queue)
        await the_first_is(site, "disk     disk nearly full: ")


@pytest.mark.asyncio
async def test_a_sender_that_is_not_permitted_is_named_and_no_mail_is_sent(site: Site) -> None:
    async with site.upstream(sender_allowed=lambda path: NOT_PERMITTED if path == JAN else None) as own:
        site.configure(
            upstreams={"own": site.way_to(own)},
            senders=[{"address": ACCOUNT, "match": {"from": "x@*"}}, {"address": JAN}],
        )
        async with NameServer({}) as names:
            answer = await the_first_is(site, f"sender   {JAN}: {NOT_PERMITTED}", "--nameserver", names.address)
        assert f"✓ sender   {ACCOUNT} is accepted at MAIL" in answer.out
        assert own.messages == []
        assert own.resets == 2


@pytest.mark.asyncio
async def test_a_secret_that_ended_is_named_and_what_the_token_endpoint_said(site: Site) -> None:
    async with Authority(site.certificates) as entra, m365(site, entra) as own:
        entra.script(refusal("AADSTS7000222", "The provided client secret keys are expired."), times=None)
        site.configure(upstreams={"own": way_to(site, own, entra, secret_expires="2026-01-31")})
        answer = await the_first_is(site, "secret   the client secret has expired on 2026-01-31")
        assert causes(answer)[1].startswith("token    no token from 127.0.0.1: invalid_client: AADSTS7000222")
        assert line_of(answer, "auth") == "– auth     not tried without a token"
        assert len(entra.asked) == 1
        assert own.auth_tries == []


@pytest.mark.asyncio
@pytest.mark.parametrize(("ahead", "which"), [(3600, "behind"), (-3600, "ahead")])
async def test_a_clock_that_is_off_by_an_hour_is_named(site: Site, ahead: int, which: str) -> None:
    async with Authority(site.certificates) as entra, m365(site, entra) as own:
        entra.ahead = ahead
        site.configure(upstreams={"own": way_to(site, own, entra)})
        answer = await the_first_is(site, "clock    the clock of this machine is ")
        assert f" {which} (127.0.0.1)" in causes(answer)[0]


@pytest.mark.asyncio
async def test_a_token_that_the_mailbox_does_not_take_is_shown_once(site: Site) -> None:
    async with Authority(site.certificates) as entra, m365(site, entra) as own:
        entra.mailboxes.clear()
        site.configure(upstreams={"own": way_to(site, own, entra)})
        answer = await the_first_is(site, "auth     535 5.7.3 Authentication unsuccessful (XOAUTH2)")
        assert len(own.auth_tries) == 1
        assert not any(token in answer.out for token in entra.tokens)


# What is well


@pytest.mark.asyncio
async def test_where_all_is_well_each_thing_has_a_line_and_the_exit_code_is_0(site: Site) -> None:
    async with Authority(site.certificates) as entra, m365(site, entra) as own:
        site.configure(upstreams={"own": way_to(site, own, entra)}, senders=[{"address": ACCOUNT}])
        texts = {
            "example.nl": ["google-site-verification=x", "v=spf1 include:mail.example.nl -all"],
            "mail.example.nl": ["v=spf1 include:spf.protection.outlook.com -all"],
            "spf.protection.outlook.com": ["v=spf1 ip4:40.92.0.0/15 -all"],
            "_dmarc.example.nl": ["v=DMARC1; p=reject"],
            "sel.example.com": ["v=DKIM1; k=rsa; p=" + "A" * 300],
        }
        aliases = {"selector1._domainkey.example.nl": "sel.example.com"}
        async with NameServer(texts, aliases=aliases) as names:
            answer = await relay(site, "doctor", "--nameserver", names.address)
            assert (answer.code, answer.err) == (0, "")
            document = (await relay(site, "doctor", "--json", "--nameserver", names.address)).document
            screen = await at_terminal(site, 80, "doctor", "--nameserver", names.address)
        assert max(map(len, screen.plain.splitlines())) <= 80
        assert causes(answer) == []
        for line in (
            "✓ clock    as that of 127.0.0.1, within 30 s",
            "✓ ehlo     AUTH LOGIN XOAUTH2, SIZE 50 MiB",
            f"✓ auth     logged in as {ACCOUNT}",
            f"✓ sender   {ACCOUNT} is accepted at MAIL; some providers check later (relay test)",
            "✓ spf      v=spf1 include:mail.example.nl -all",
            "✓ dkim     selector1 (own)",
            "✓ dmarc    p=reject",
            "✓ aligned  by DKIM and SPF (own)",
        ):
            assert line in answer.lines, answer.out
        assert "certificate good for 127.0.0.1 and 2 more, " in line_of(answer, "tls")
        assert "TLSv1.3 by STARTTLS" in line_of(answer, "tls")
        assert (document["version"], document["good"]) == (1, True)
        own_chapter = document["chapters"][1]
        assert [finding["part"] for finding in own_chapter["findings"]] == [
            *("secret", "token", "dns", "connect", "tls", "ehlo", "auth", "sender")
        ]
        assert {finding["mark"] for finding in own_chapter["findings"]} == {"good"}
        assert own.messages == []


@pytest.mark.asyncio
async def test_a_secret_that_ends_soon_is_warned_of(site: Site) -> None:
    async with Authority(site.certificates) as entra, m365(site, entra) as own:
        day = (datetime.now(UTC) + timedelta(days=20)).date()
        site.configure(upstreams={"own": way_to(site, own, entra, secret_expires=day.isoformat())})
        answer = await relay(site, "doctor")
        assert answer.code == 0
        assert line_of(answer, "secret").startswith(f"! secret   the client secret ends on {day}, in ")


@pytest.mark.asyncio
async def test_domains_that_are_not_in_order_are_named_by_record(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(
            upstreams={"own": site.way_to(own, preset="transip", host=own.host)}, senders=[{"address": ACCOUNT}]
        )
        texts = {"example.nl": ["v=spf1 mx -all"], "_dmarc.example.nl": ["v=DMARC1; p=quarantine"]}
        async with NameServer(texts) as names:
            answer = await the_first_is(
                site, "spf      lacks include:_spf.transip.email: v=spf1 mx -all", "--nameserver", names.address
            )
            assert line_of(answer, "dkim") == "! dkim     none of transip-A, transip-B, transip-C is in DNS (own)"
            assert causes(answer)[1].startswith("aligned  not by DKIM, and not by SPF (own): SPF lacks ")
            names.texts["transip-b._domainkey.example.nl"] = ["v=DKIM1; p=MIIB"]
            better = await relay(site, "doctor", "--nameserver", names.address)
            assert "✓ aligned  by DKIM (own); SPF lacks include:_spf.transip.email" in better.lines


# Beside a running relay


@pytest.mark.asyncio
async def test_beside_a_running_relay_listeners_answer_and_the_queue_is_not_opened(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            await reachable(site)
            answer = await relay(site, "doctor")
            assert (answer.code, answer.err) == (0, "")
            assert f"✓ listener 127.0.0.1:{house.port()} (legacy) answers" in answer.lines
            assert "✓ mail     nothing waits" in answer.lines
            assert line_of(answer, "relay").startswith("✓ relay    relay ")
            assert line_of(answer, "queue").startswith("✓ queue    written and flushed in ")
            assert list(site.folder.glob("doctor-*")) == []


@pytest.mark.asyncio
async def test_beside_a_relay_that_has_all_the_connections_it_may_have_a_healthy_provider_is_well(site: Site) -> None:
    async with site.upstream() as own:
        own.script("banner", lambda _: TOO_MANY if own.open > 3 else None, times=None)
        site.configure(upstreams={"own": site.way_to(own, max_connections=3)})
        async with site.house() as house:
            await reachable(site)
            ids = await house.send_many([f"Factuur {number}" for number in range(20)])
            for queue_id in ids:
                await house.event(RecipientDelivered, queue_id=queue_id)
            idle = await relay(site, "doctor")
            # Mail that never ends: then there is nothing to lend.
            own.script("data", STOP_READING, times=None)
            await house.send_many(["Factuur"] * 6)
            await own.until(lambda: own.commands.count("DATA") == 23)
            busy = await relay(site, "doctor")
            own.unscript("data")
            own.read_on()
            await house.empty()
            after = await relay(site, "doctor")
    for answer in (idle, after):
        assert (answer.code, answer.err) == (0, "")
        assert f"✓ auth     logged in as {ACCOUNT}" in answer.lines
    assert busy.code == 0
    assert (
        "– upstream not looked at: the running relay uses all of its connections there, so mail is leaving"
        in busy.lines
    )


@pytest.mark.asyncio
async def test_a_login_that_the_running_relay_was_refused_is_not_tried_again_unless_asked(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        site.set_password("verkeerd")
        async with site.house() as house:
            await house.send(JAN, [PIET])
            await house.event(UpstreamSetAside)
            await reachable(site)
            # Whose try it was, the password tells.
            ours = site.folder / "of-the-doctor"
            ours.write_text("van-de-dokter")
            site.configuration["upstreams"]["own"]["password"] = {"file": str(ours)}
            site.write()
            answer = await the_first_is(site, "auth     535 5.7.8 ")
            assert "(said to the running relay; --auth tries it once more)" in causes(answer)[0]
            assert {tried.password for tried in own.auth_tries} == {"verkeerd"}
            await relay(site, "doctor", "--auth")
            assert [tried.password for tried in own.auth_tries].count("van-de-dokter") == 1
            ours.write_text(PASSWORD)
            assert f"✓ auth     logged in as {ACCOUNT}" in (await relay(site, "doctor", "--auth")).lines
            await house.relay.reload()
            await house.event(RecipientDelivered)


@pytest.mark.asyncio
async def test_where_no_relay_runs_a_port_that_somebody_else_holds_is_named_with_its_holder(site: Site) -> None:
    async with site.upstream() as own, ScriptedUpstream() as other:
        listeners = [{"name": "held", "listen": f"127.0.0.1:{other.port}"}, {"listen": f"127.0.0.1:{free_port()}"}]
        site.configure(upstreams={"own": site.way_to(own)}, listeners=listeners)
        answer = await the_first_is(site, f"listener 127.0.0.1:{other.port} is in use by process ")
        assert "(legacy) is free" in answer.out


# relay test


@pytest.mark.asyncio
async def test_a_test_mail_is_followed_to_its_delivery(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)}, routes={"default": {"retry": "1s"}})
        own.script("rcpt", "451 4.3.0 straks weer")
        async with site.house():
            await reachable(site)
            answer = await relay(site, "test", "--to", PIET, "--from", JAN)
        assert (answer.code, answer.err) == (0, "")
        said = answer.lines
        assert said[0].startswith("the relay said: 250 2.0.0 OK: queued as ")
        assert said[1] == "attempt 1 (own): 451 4.3.0 straks weer"
        assert said[-1].startswith("delivered (own): 250 ")
        assert own.messages[0].reverse_path == JAN
        assert b"Subject: Test of the mail relay\r\n" in own.messages[0].content


@pytest.mark.asyncio
async def test_on_a_terminal_the_same_lines_stay(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house():
            await reachable(site)
            answer = await at_terminal(site, 80, "test", "--to", PIET)
        assert answer.code == 0, answer
        assert "delivered (own): 250 " in answer.plain
        assert own.messages[0].reverse_path == ACCOUNT


@pytest.mark.asyncio
async def test_a_test_mail_that_is_refused_fails_the_command(site: Site) -> None:
    async with site.upstream() as own:
        own.script("rcpt", "550 5.1.1 no such user", times=None)
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house():
            await reachable(site)
            answer = await relay(site, "test", "--to", PIET)
        assert answer.code == 1
        assert answer.lines[-1] == "failed (own): 550 5.1.1 no such user"


@pytest.mark.asyncio
async def test_a_test_mail_that_waits_or_is_held_says_so(site: Site) -> None:
    async with site.upstream() as own:
        own.script("rcpt", "451 4.3.0 later", times=None)
        site.configure(
            upstreams={"own": site.way_to(own)},
            routes={"default": {"retry": "1h"}},
            senders=[{"match": {"from": JAN}, "hold": True}],
        )
        async with site.house():
            await reachable(site)
            waits = await relay(site, "test", "--to", PIET, "--timeout", "2s")
            held = await relay(site, "test", "--to", PIET, "--from", JAN)
        assert waits.code == 1
        assert waits.lines[-1].startswith("it still waits, the next attempt is at ")
        assert held.code == 1
        assert held.lines[-1].startswith("it is held: relay queue show ")


@pytest.mark.asyncio
async def test_without_a_running_relay_nothing_is_sent(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own)})
        answer = await relay(site, "test", "--to", PIET)
        assert answer.code == 3
        assert answer.err.startswith("relay: no relay is running")
        assert own.connections == 0


@pytest.mark.asyncio
async def test_where_the_provider_answers_directly_that_is_the_end(site: Site) -> None:
    async with site.upstream() as own:
        own.script("dot", "250 2.0.0 Ok: queued as 4F3A2")
        listeners = [{"listen": "127.0.0.1:0", "reply": "direct"}]
        site.configure(upstreams={"own": site.way_to(own)}, listeners=listeners)
        async with site.house():
            await reachable(site)
            answer = await relay(site, "test", "--to", PIET)
            assert (answer.code, answer.err) == (0, "")
            assert answer.out.startswith("the relay said: 250 2.0.0 Ok: queued as 4F3A2: relayed as ")
            own.script("rcpt", "550 5.1.1 no such user")
            refused = await relay(site, "test", "--to", PIET)
            assert (refused.code, refused.out) == (1, "")
            assert refused.err.startswith("relay: the relay refused the ")
            assert "550 5.1.1 no such user" in refused.err


@pytest.mark.asyncio
async def test_tls_files_that_are_not_there_are_named_before_anything_is_tried(site: Site) -> None:
    async with site.upstream() as own:
        site.configure(upstreams={"own": site.way_to(own, tls_ca="/nowhere/ca.pem")})
        answer = await the_first_is(site, "tls      the TLS files of own cannot be used")
        assert "connect" not in answer.out


@pytest.mark.asyncio
async def test_a_relay_that_gives_no_answer_is_no_reason_to_call_its_port_taken(site: Site) -> None:
    async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n<a>")
        writer.close()

    async with site.upstream() as own, await asyncio.start_unix_server(nonsense, site.control_path):
        site.configure(upstreams={"own": site.way_to(own)})
        answer = await relay(site, "doctor")
        assert answer.code == 0, answer
        assert line_of(answer, "relay").startswith("! relay ")
        assert line_of(answer, "mail") == "– mail     only the running relay knows what waits"
        assert line_of(answer, "listener") == "– listener only the running relay knows where it listens"
