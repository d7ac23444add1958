"""Ten troubles made on purpose: `relay status`, or the error at the start, names each at once, in both languages."""

from __future__ import annotations

import asyncio
import shutil
from datetime import timedelta

import pytest

from relay.errors import BadConfig
from relay.events import RecipientExpired, RecipientFailed, UpstreamSetAside
from relay.observe import needs_a_person
from tests.kit.certificates import Certificates
from tests.kit.house import JAN, PIET, Site, free_port, mail
from tests.kit.process import Process
from tests.kit.upstream import ScriptedUpstream
from tests.scenarios.desk import Answer, reachable, relay

LANGUAGES = pytest.mark.parametrize("language", ["nl", pytest.param("en", marks=pytest.mark.repetition)])
NAME = {"en": "relay 0.1.0 on relay.example.nl", "nl": "relay 0.1.0 op relay.example.nl"}
DUTCH = {"error": "fout", "warning": "waarschuwing"}
REFUSED = "550 5.7.60 SMTP; Client does not have permissions to send as this sender"


def configure(site: Site, own: ScriptedUpstream, language: str, **parts: object) -> None:
    site.configure(
        **{"language": language, "upstreams": {"own": site.way_to(own)}, "routes": {"default": {"retry": "5m"}}} | parts
    )


async def status(site: Site) -> Answer:
    await reachable(site)
    return await relay(site, "status")


def told(answer: Answer, severity: str, *, english: str, dutch: str, language: str, remedies: tuple[str, str]) -> None:
    """The first lines: how many troubles there are, this trouble, and what to do about it."""
    assert (answer.code, answer.err) == (1, "")
    verdict, trouble, remedy = answer.lines[:3]
    assert verdict == f"{NAME[language]}: 1 {severity if language == 'en' else DUTCH[severity]}"
    text = english if language == "en" else dutch
    assert trouble.startswith(f"{severity.upper():9}{text}"), trouble
    assert remedy.startswith(f"{'':9}-> {remedies[language == 'nl']}"), remedy


@LANGUAGES
@pytest.mark.asyncio
async def test_a_wrong_password_is_named_with_what_the_upstream_said(site: Site, language: str) -> None:
    site.set_password("verkeerd")
    async with site.upstream() as own:
        configure(site, own, language)
        async with site.house() as house:
            await house.send(JAN, [PIET])
            await house.event(UpstreamSetAside)
            answer = await status(site)
    told(
        answer,
        "error",
        english="The upstream own refused the login: 535 5.7.8 wrong name or password. (since ",
        dutch="Upstream own weigerde de aanmelding: 535 5.7.8 wrong name or password. (sinds ",
        language=language,
        remedies=("Check username and password of upstreams.own", "Controleer username en password van upstreams.own"),
    )
    assert "verkeerd" not in answer.out
    state = "down,-tried-in-" if language == "en" else "down,-poging-over-"
    assert any(line.startswith(f"own       {state}") for line in answer.lines)


@LANGUAGES
@pytest.mark.asyncio
async def test_an_upstream_that_is_down_is_named_with_the_host_and_port(site: Site, language: str) -> None:
    async with site.upstream() as own:
        configure(site, own, language)
        await own.go_down()
        async with site.house() as house:
            await house.send(JAN, [PIET])
            await house.event(UpstreamSetAside)
            answer = await status(site)
    said = f"no connection to 127.0.0.1 port {own.port}: Connection refused."
    told(
        answer,
        "error",
        english=f"The upstream own is not used for now: {said}",
        dutch=f"Upstream own wordt nu niet gebruikt: {said}",
        language=language,
        remedies=("Nothing answers there: check host and port", "Daar antwoordt niets: controleer host en port"),
    )


@LANGUAGES
@pytest.mark.asyncio
async def test_an_expired_certificate_of_an_upstream_is_named(
    site: Site, certificates: Certificates, language: str
) -> None:
    async with site.upstream(certificate=certificates.expired) as own:
        configure(site, own, language)
        async with site.house() as house:
            await house.send(JAN, [PIET])
            await house.event(UpstreamSetAside)
            answer = await status(site)
    told(
        answer,
        "error",
        english="The certificate of the upstream own is not accepted: the upstream's certificate has expired.",
        dutch="Het certificaat van upstream own wordt niet vertrouwd: the upstream's certificate has expired.",
        language=language,
        remedies=("The upstream's operator has to renew it", "De beheerder van de upstream moet het vernieuwen"),
    )


@LANGUAGES
@pytest.mark.asyncio
async def test_a_disk_that_is_full_or_nearly_so_is_named(site: Site, language: str) -> None:
    free = shutil.disk_usage(site.folder).free
    async with site.upstream() as own:
        for least, severity, english, dutch in (
            (2 * free, "error", "The disk of the queue has only ", "Op de schijf van de wachtrij is nog maar "),
            (3 * free // 4, "warning", "The disk of the queue has ", "Op de schijf van de wachtrij is nog "),
        ):
            queue = {"store": f"sqlite:{site.queue_path}", "min_free": f"{least // 1024}KiB"}
            configure(site, own, language, queue=queue)
            async with site.house():
                answer = await status(site)
            told(
                answer,
                severity,
                english=english,
                dutch=dutch,
                language=language,
                remedies=("Make room on the disk of the queue", "Maak ruimte op de schijf van de wachtrij"),
            )


@LANGUAGES
@pytest.mark.asyncio
async def test_a_bad_reload_is_named_with_the_line_of_the_file(site: Site, language: str) -> None:
    async with site.upstream() as own:
        configure(site, own, language)
        async with site.house() as house:
            await reachable(site)
            good = site.config_path.read_text()
            site.config_path.write_text(good.replace('"upstreams"', '"upstream"'))
            with pytest.raises(BadConfig):
                await house.relay.reload()
            site.config_path.write_text(good)
            answer = await relay(site, "status")
            assert (await relay(site, "reload")).code == 0
            assert (
                (await relay(site, "status"))
                .lines[0]
                .endswith(": all is well" if language == "en" else ": alles in orde")
            )
    problem = f"{site.config_path}:"
    told(
        answer,
        "warning",
        english=f"The changed configuration was refused and the earlier one stays in use: {problem}",
        dutch=f"De gewijzigde configuratie is geweigerd en de vorige blijft in gebruik: {problem}",
        language=language,
        remedies=("Correct the file until `relay check` finds", "Verbeter het bestand tot `relay check` niets"),
    )
    assert 'upstream: unknown key (did you mean "upstreams"?)' in answer.lines[1]


@pytest.mark.asyncio
async def test_a_file_that_has_gone_bad_is_said_before_anything_else_and_the_relay_goes_on(site: Site) -> None:
    async with site.upstream() as own:
        configure(site, own, "en")
        async with site.house():
            await reachable(site)
            site.configuration["upstream"] = site.configuration.pop("upstreams")
            site.write()
            elsewhere = await relay(site, "reload", RUNTIME_DIRECTORY="/nowhere")
            quiet = await relay(site, "status", RUNTIME_DIRECTORY=str(site.folder))
            reload = await relay(site, "reload", RUNTIME_DIRECTORY=str(site.folder))
            # Where the socket lies cannot be read from a bad file: it is looked for at the usual place.
            answer = await relay(site, "status", RUNTIME_DIRECTORY=str(site.folder))
    assert reload == elsewhere
    assert (reload.code, reload.out, reload.err.count("\n")) == (1, "", 1)
    assert 'upstream: unknown key (did you mean "upstreams"?)' in reload.err
    assert answer.code == 1
    bad, goes_on = answer.err.splitlines()
    assert bad.startswith(f"the configuration is bad: {site.config_path}:")
    assert goes_on == "The relay runs with the configuration that it read before."
    assert quiet.lines[0] == "relay 0.1.0 on relay.example.nl: all is well"
    # The relay was asked, though where it is cannot be read from such a file: the next restart would fail.
    assert answer.lines[0] == "relay 0.1.0 on relay.example.nl: 1 warning"
    assert answer.lines[1].startswith("WARNING  The changed configuration was refused")


@LANGUAGES
@pytest.mark.asyncio
async def test_session_codes_that_are_stuck_and_then_expired_are_named_first(
    site: Site, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs_a_person, "CODE_STUCK", timedelta(0))
    codes = {
        "enabled": True,
        "via_own_smtp": True,
        "fallback": False,
        "lifetime": "3s",
        "on_expire": "drop",
        "match": [{"subject": "*sessiecode*"}],
    }
    async with site.upstream() as own:
        configure(site, own, language, session_codes=codes, routes={"session-codes": {"retry": "1s"}})
        await own.go_down()
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET], mail("Uw sessiecode 482913"))
            await house.event(UpstreamSetAside)
            stuck = await status(site)
            shown = await relay(site, "queue", "show", queue_id)
            await house.event(RecipientExpired)
            expired = await status(site)
    assert stuck.code == expired.code == 1
    assert stuck.lines[1].startswith(
        "ERROR    A session code has been waiting for " if language == "en" else "ERROR    Een sessiecode wacht al "
    )
    assert any(line.startswith("ERROR    ") and " own " in line for line in stuck.lines[2:6])
    assert any(
        line.startswith(
            "ERROR    Session codes that expired before they could be delivered, in the last hour: 1."
            if language == "en"
            else "ERROR    Sessiecodes die in het afgelopen uur verliepen voordat ze bezorgd konden worden: 1."
        )
        for line in expired.lines[:5]
    ), expired.out
    assert "482913" not in stuck.out + shown.out + shown.err + expired.out
    assert ("session code" if language == "en" else "sessiecode") in shown.lines[0]


@LANGUAGES
@pytest.mark.asyncio
async def test_a_refused_sender_is_named_with_the_upstreams_words(site: Site, language: str) -> None:
    async with site.upstream(sender_allowed=lambda path: REFUSED if path == JAN else None) as own:
        configure(site, own, language)
        async with site.house() as house:
            await house.send(JAN, [PIET])
            await house.event(RecipientFailed)
            await house.empty()
            answer = await status(site)
    told(
        answer,
        "error",
        english=f"The upstream own refused the sender of a message: {REFUSED}.",
        dutch=f"Upstream own weigerde de afzender van een bericht: {REFUSED}.",
        language=language,
        remedies=("Give the account Send As on that address", "Geef het account in Microsoft 365 Verzenden als"),
    )


# What keeps the relay from starting


@pytest.mark.asyncio
async def test_a_port_in_use_is_named_at_the_start_and_no_relay_runs_then(site: Site) -> None:
    async with site.upstream() as own, ScriptedUpstream() as other:
        configure(site, own, "en", listeners=[{"name": "legacy", "listen": f"127.0.0.1:{other.port}"}])
        serve = await relay(site, "serve")
        answer = await relay(site, "status")
        queue = await relay(site, "queue", "list")
    assert (serve.code, serve.out) == (1, "")
    assert serve.err.splitlines()[-1].startswith(f"relay: 127.0.0.1:{other.port} is in use")
    assert answer.code == 3
    assert answer.lines[0] == f"no relay is running behind {site.control_path}"
    assert (queue.code, queue.out, queue.err) == (0, "", "nothing waits\n")


@pytest.mark.asyncio
async def test_a_second_relay_is_told_who_holds_the_store(site: Site) -> None:
    async with site.upstream() as own:
        configure(site, own, "en", log={"format": "json"})
        async with Process.serving(site) as first:
            second = await relay(site, "serve")
            await reachable(site)
            assert (await relay(site, "status")).code == 0  # the first goes on, and can be asked
    assert (second.code, second.out) == (1, "")
    assert second.err.startswith(f"relay: {site.queue_path} is held by process {first.pid} (")
    assert second.err.endswith(": stop that first\n")


@pytest.mark.asyncio
async def test_a_queue_that_another_holds_without_a_socket_is_said_by_every_command(site: Site) -> None:
    async with site.upstream() as own:
        configure(site, own, "en")
        async with site.house():
            await reachable(site)
            site.configuration["admin"] = {"listen": None, "socket": str(site.folder / "elsewhere.sock")}
            site.write()
            answer = await relay(site, "status")
            queue = await relay(site, "queue", "list")
    assert answer.code == 3
    assert f"the queue: {site.queue_path} is held by process " in answer.out
    assert (queue.code, queue.out) == (1, "")
    assert queue.err.startswith(f"relay: nobody answers on {site.folder}/elsewhere.sock, and {site.queue_path} is held")
    assert len(queue.err.splitlines()) == 1


@pytest.mark.asyncio
async def test_a_secret_file_that_is_missing_is_named_at_the_start_and_by_status(site: Site) -> None:
    async with site.upstream() as own:
        configure(site, own, "en")
        site.password_path.unlink()
        serve, check, answer = await asyncio.gather(relay(site, "serve"), relay(site, "check"), relay(site, "status"))
    problem = f"upstreams.own.password: password file {site.password_path} does not exist"
    assert (serve.code, serve.out) == (1, "")
    assert problem in serve.err
    assert check.code == 1
    assert problem in check.lines[0]
    assert answer.code == 3
    assert answer.lines[0] == f"no relay is running behind {site.control_path}"
    assert problem in answer.lines[1]


@LANGUAGES
@pytest.mark.asyncio
async def test_a_secret_file_that_goes_missing_while_the_relay_runs_is_named(site: Site, language: str) -> None:
    async with site.upstream() as own:
        configure(site, own, language)
        async with site.house() as house:
            site.password_path.unlink()
            await house.send(JAN, [PIET])
            await house.event(UpstreamSetAside)
            answer = await status(site)
    told(
        answer,
        "error",
        english="The upstream own ",
        dutch="Upstream own ",
        language=language,
        remedies=("Check that what upstreams.own.password names", "Controleer of wat upstreams.own.password noemt"),
    )
    assert str(site.password_path) in answer.lines[1]


@pytest.mark.asyncio
async def test_the_commands_say_in_one_sentence_that_no_relay_runs(site: Site) -> None:
    async with site.upstream() as own:
        configure(site, own, "en", listeners=[{"name": "legacy", "listen": f"127.0.0.1:{free_port()}"}])
        for words in (["reload"], ["clients"]):
            answer = await relay(site, *words)
            assert (answer.code, answer.out) == (3, "")
            assert answer.err == f"relay: no relay is running behind {site.control_path}\n"
        listed = await relay(site, "queue", "list")
    assert (listed.code, listed.out) == (1, "")
    assert listed.err == f"relay: there is no queue at {site.queue_path}: a relay makes it when it starts\n"
