"""Logging in with tokens, the whole relay: mail leaves, waits where there is no token, and is never lost or bounced."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay.daemon import house as daemon
from relay.events import (
    AlarmRaised,
    AlarmSent,
    NotificationQueued,
    RecipientDelivered,
    RecipientFailed,
    TokenFetched,
    TokenRefused,
    UpstreamRestored,
    UpstreamSetAside,
)
from relay.mail.outcome import Stage, Trouble
from tests.kit.authority import HANG, HTML, UNAVAILABLE, Authority, Fault, refusal
from tests.kit.house import ACCOUNT, JAN, PIET, Site, mail
from tests.kit.upstream import ScriptedUpstream
from tests.scenarios.clock import Clock
from tests.scenarios.desk import relay

APP, SECRET = "0d9f1c52-6f4e", "zeer~geheim"
ADMIN = "beheer@example.nl"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(daemon, "TOKENS_EVERY", 0.02)
    return Clock.of(monkeypatch)


def m365(site: Site, entra: Authority) -> ScriptedUpstream:
    """As Microsoft's: LOGIN and XOAUTH2, no PLAIN."""
    entra.clients[APP] = SECRET
    entra.mailboxes[APP] = {ACCOUNT}
    (site.folder / "secret").write_text(SECRET + "\n")
    return site.upstream(tokens=entra.allows, mechanisms=("LOGIN",))


def way_to(site: Site, upstream: ScriptedUpstream, entra: Authority, **oauth2: Any) -> dict[str, Any]:
    way = site.way_to(upstream)
    del way["password"]
    terms = {
        "provider": "microsoft",
        "tenant": entra.tenant,
        "client_id": APP,
        "client_secret": {"file": str(site.folder / "secret")},
        "secret_expires": "2099-01-01",
        "authority": entra.url,
        "tls_ca": entra.ca,
    }
    return way | {"preset": "m365", "oauth2": terms | oauth2}


def told(site: Site, events: list[Any], entra: Authority) -> None:
    """Nothing that was told holds a secret."""
    text = "\n".join(map(str, events))
    assert not any(secret in text for secret in (SECRET, *entra.tokens))


@pytest.mark.asyncio
async def test_mail_leaves_by_a_token_and_after_a_restart_by_the_same_one(site: Site) -> None:
    async with Authority(site.certificates) as entra, m365(site, entra) as own:
        site.configure(upstreams={"own": way_to(site, own, entra)})
        async with site.house() as house:
            await house.event(TokenFetched)  # before there is any mail
            queue_id = await house.send(JAN, [PIET])
            await house.event(RecipientDelivered, queue_id=queue_id)
            told(site, house.seen.events, entra)
        await entra.go_down()
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            await house.event(RecipientDelivered, queue_id=queue_id)
            assert house.seen.all(TokenFetched) == []
        assert len(entra.asked) == 1
        assert {tried.mechanism for tried in own.auth_tries} == {"XOAUTH2"}
        assert (site.folder / "queue.db.tokens" / "own").stat().st_mode & 0o777 == 0o600


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", [None, UNAVAILABLE, HTML, HANG], ids=["down", "503", "HTML", "silent"])
async def test_while_the_token_endpoint_is_away_for_an_hour_nothing_is_lost_or_bounced_and_others_go_on(
    site: Site, clock: Clock, fault: Fault | None
) -> None:
    async with Authority(site.certificates) as entra, m365(site, entra) as own, site.upstream() as other:
        site.configure(
            upstreams={"own": way_to(site, own, entra), "other": site.way_to(other)},
            routes={"default": {"upstreams": ["own"], "retry": "1s"}, "rest": {"upstreams": ["other"], "retry": "1s"}},
            senders=[{"match": {"subject": "*rest*"}, "keep": True, "route": "rest"}],
        )
        async with site.house() as house:
            first = await house.send(JAN, [PIET])
            await house.event(RecipientDelivered, queue_id=first)
            if fault is None:
                await entra.go_down()
            else:
                entra.script(fault, times=None)
            # The token has ten minutes left: mail goes on.
            clock.ahead += timedelta(minutes=50)
            if fault is not HANG:
                await house.event(TokenRefused)
            still = await house.send(JAN, [PIET])
            await house.event(RecipientDelivered, queue_id=still)
            # An hour later it has none, and the connection that was logged in is closed by the upstream.
            clock.ahead += timedelta(minutes=60)
            await own.go_down()
            await own.come_back()
            waiting = await house.send_many([str(number) for number in range(5)])
            if fault is not HANG:
                aside = await house.event(UpstreamSetAside, upstream="own")
                assert (aside.stage, aside.trouble) == (Stage.AUTH, Trouble.TRANSIENT)
                assert aside.text.startswith("no token from 127.0.0.1: ")
            for number in range(10):
                rest = await house.send(JAN, [PIET], mail(f"rest {number}"))
                await house.event(RecipientDelivered, queue_id=rest, upstream="other")
            assert house.seen.all(UpstreamSetAside, upstream="other") == []
            assert len(own.messages) == 2
            # It is back.
            entra.unscript()
            if fault is HANG:
                await entra.go_down()  # what hangs there breaks off
            if fault is None or fault is HANG:
                await entra.come_back()
            clock.ahead += timedelta(minutes=6)
            for queue_id in waiting:
                await house.event(RecipientDelivered, queue_id=queue_id, upstream="own")
            assert house.seen.all(RecipientFailed) == []
            assert house.seen.all(NotificationQueued) == []
            assert house.ledger.delivered == 17
            told(site, house.seen.events, entra)


@pytest.mark.asyncio
async def test_a_secret_that_ended_is_loud_and_a_new_one_and_a_reload_mend_it(site: Site, clock: Clock) -> None:
    async with Authority(site.certificates) as entra, m365(site, entra) as own:
        (site.folder / "secret").write_text("een-oud-geheim")
        site.configure(upstreams={"own": way_to(site, own, entra)}, language="nl")
        ended = refusal("AADSTS7000222", "The provided client secret keys for app '0d9f' are expired.")
        entra.script(lambda form: ended if form["client_secret"] != SECRET else None, times=None)
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            aside = await house.event(UpstreamSetAside)
            assert (aside.stage, aside.trouble, aside.code) == (Stage.AUTH, Trouble.PERMANENT, 0)
            assert "AADSTS7000222" in aside.text
            raised = await house.event(AlarmRaised, cause="auth-refused:own")
            assert "Het clientgeheim is verlopen" in raised.text
            (site.folder / "secret").write_text(SECRET)
            await house.relay.reload()
            await house.event(RecipientDelivered, queue_id=queue_id)
            assert "een-oud-geheim" not in "\n".join(map(str, house.seen.events))
        assert own.auth_tries[0].accepted


@pytest.mark.asyncio
async def test_rights_that_are_missing_set_the_upstream_aside_until_they_are_given(site: Site) -> None:
    async with Authority(site.certificates) as entra, m365(site, entra) as own:
        entra.mailboxes[APP] = set()
        site.configure(upstreams={"own": way_to(site, own, entra)})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            aside = await house.event(UpstreamSetAside)
            assert (aside.code, aside.status, aside.text) == (535, "5.7.3", "Authentication unsuccessful (XOAUTH2)")
            entra.mailboxes[APP] = {ACCOUNT}
            await house.event(RecipientDelivered, queue_id=queue_id)
            await house.event(UpstreamRestored)
            assert house.seen.all(RecipientFailed) == []


@pytest.mark.asyncio
async def test_the_end_of_a_secret_is_mailed_30_7_and_1_days_before_once_each(site: Site, clock: Clock) -> None:
    async with Authority(site.certificates) as entra, m365(site, entra) as own:
        day = datetime.now(UTC).date() + timedelta(days=60)
        site.configure(
            upstreams={"own": way_to(site, own, entra, secret_expires=day.isoformat())}, bounces={"also": ADMIN}
        )
        end = datetime(day.year, day.month, day.day, tzinfo=UTC)
        async with site.house() as house:
            await house.event(TokenFetched)

            async def turn(ahead: timedelta) -> None:
                """No token is under way when the clock jumps: it would be over when it comes."""
                tokens = len(house.seen.all(TokenFetched))
                clock.ahead = ahead
                await house.event(TokenFetched, tokens + 1)
                await clock.looked()

            for number, step in enumerate((30, 7, 1), 1):
                await turn(end - timedelta(days=step) - datetime.now(UTC) + timedelta(minutes=1))
                raised = await house.event(AlarmRaised, cause=f"secret-ends:own:{step}")
                assert raised.severity == ("error" if step == 1 else "warning")
                assert f"{day}" in raised.text
                await house.event(AlarmSent, number, way="mail", reader=f"{ADMIN} by own")
                if step > 7:  # two weeks later nobody is told again
                    await turn(clock.ahead + timedelta(days=14))
                assert len(house.seen.all(AlarmSent)) == number


@pytest.mark.asyncio
async def test_a_reload_changes_the_way_to_a_token(site: Site) -> None:
    async with Authority(site.certificates) as entra, m365(site, entra) as own:
        site.configure(upstreams={"own": way_to(site, own, entra, tenant="elders")})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            assert "AADSTS90002" in (await house.event(TokenRefused)).text
            site.configuration["upstreams"]["own"]["oauth2"]["tenant"] = entra.tenant
            site.write()
            await house.relay.reload()
            await house.event(RecipientDelivered, queue_id=queue_id)
            page = house.relay.metrics.exposition()[0].decode()
            assert 'relay_oauth_refresh_total{result="ok",upstream="own"} 1.0' in page
            assert 'relay_oauth_secret_expiry_timestamp_seconds{upstream="own"} 4.070' in page
            assert 'relay_oauth_token_expiry_timestamp_seconds{upstream="own"} 1.' in page


@pytest.mark.asyncio
async def test_the_commands_show_each_step_and_what_to_do(site: Site) -> None:
    async with Authority(site.certificates) as entra, m365(site, entra) as own:
        site.configure(upstreams={"own": way_to(site, own, entra), "plain": site.way_to(own)})
        before = await relay(site, "auth", "status")
        assert before.code == 1
        assert "none: a running relay fetches one" in before.out
        good = await relay(site, "auth", "test", "own")
        assert (good.code, good.err) == (0, "")
        assert [line.split()[:2] for line in good.out.splitlines()] == [
            ["✓", step] for step in ("token", "dns", "connect", "banner", "ehlo", "starttls", "tls", "auth", "quit")
        ]
        standing = await relay(site, "auth", "status")
        assert standing.code == 0
        assert "valid until" in standing.out
        assert "ends on 2099-01-01" in standing.out
        entra.mailboxes[APP] = set()
        refused = await relay(site, "auth", "test", "own")
        assert refused.code == 1
        assert "✗ auth     535 5.7.3 Authentication unsuccessful (XOAUTH2)" in refused.out
        assert "SMTP.SendAsApp" in refused.out
        entra.script(refusal("AADSTS700025", "Client is public."))
        public = await relay(site, "auth", "test", "own")
        assert public.out.startswith("✗ token    no token from 127.0.0.1: invalid_client: AADSTS700025")
        assert "leave client_secret out" in public.out
        standing = await relay(site, "auth", "status")
        assert standing.code == 1
        assert "AADSTS700025" in standing.out
        for words, said in (
            (("auth", "test", "plain"), "relay: plain does not log in with OAuth2"),
            (("auth", "test", "owm"), 'relay: no upstream named "owm" (did you mean "own"?)'),
            (("auth", "login", "own"), "relay: own needs no login, with grant client_credentials"),
        ):
            answer = await relay(site, *words)
            assert (answer.code, answer.err.startswith(said)) == (1, True), answer
        for answer in (good, refused, public, standing):
            assert not any(secret in answer.out + answer.err for secret in (SECRET, *entra.tokens))


@pytest.mark.asyncio
async def test_a_login_by_device_code_is_taken_up_by_the_running_relay(site: Site, clock: Clock) -> None:
    async with Authority(site.certificates) as entra, m365(site, entra) as own:
        entra.clients[APP] = ""
        way = way_to(site, own, entra, grant="device_code")
        del way["oauth2"]["client_secret"], way["oauth2"]["secret_expires"]
        site.configure(upstreams={"own": way})

        def somebody_signs_in(_: dict[str, str]) -> None:
            entra.confirm(ACCOUNT)

        entra.script(somebody_signs_in, times=None)
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            assert "relay auth login" in (await house.event(UpstreamSetAside)).text
            login = await relay(site, "auth", "login", "own")
            assert login.code == 0, login
            assert "Open https://microsoft.com/devicelogin in a browser" in login.out
            assert "B2K7QX9ML" in login.out
            assert not any(token in login.out + login.err for token in entra.tokens)
            await house.event(RecipientDelivered, queue_id=queue_id)
