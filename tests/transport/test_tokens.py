"""Tokens against an authorisation server of our own: every grant, every trouble, one fetch at a time, over restarts."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_pem_x509_certificate

from relay.events import Event, TokenFetched, TokenRefused, Warned
from relay.mail.outcome import Deferred, Stage, Trouble
from relay.transport import token_http, tokens
from relay.transport.token_file import TokenFile
from relay.transport.tokens import Token, TokenSource
from tests.kit import configured
from tests.kit.authority import HANG, HTML, UNAVAILABLE, Authority, Fault, private_key, redirect, refusal, too_many
from tests.kit.certificates import Certificates, authority
from tests.transport.conftest import Run

MAILBOX, APP, SECRET = "administratie@example.nl", "0d9f1c52-6f4e", "zeer~geheim"
KEY = "een sleutel van meer dan tweeendertig tekens"


class World:
    """An authority, a clock, and what was told."""

    def __init__(self, entra: Authority, folder: Path) -> None:
        self.entra = entra
        self.folder = folder
        self.ahead = timedelta()
        self.events: list[Event] = []
        self.mended = 0
        entra.clients[APP] = SECRET
        entra.mailboxes[APP] = {MAILBOX}

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def later(self, ahead: timedelta) -> None:
        """Time goes by, for both."""
        self.ahead += ahead
        self.entra.ahead = self.ahead.total_seconds()

    def observe(self, event: Event) -> None:
        self.events.append(event)

    def source(self, *, state_key: str | None = None, name: str = "own", **terms: Any) -> TokenSource:
        usual: dict[str, Any] = {
            "provider": "microsoft",
            "grant": "client_credentials",
            "username": MAILBOX,
            "client_id": APP,
            "client_secret": lambda: SECRET,
            "tenant": self.entra.tenant,
            "authority": self.entra.url,
            "tls_ca": self.entra.ca,
        }
        if terms.get("provider") == "google":
            usual |= {"token_url": self.entra.token_url, "scope": "https://mail.google.com/", "authority": ""}
        elif terms.get("provider") == "generic":
            usual |= {"token_url": self.entra.token_url, "authority": "", "tenant": ""}
        file = TokenFile(self.folder / "tokens" / name, state_key)
        made = TokenSource(name, configured.tokens(**usual | terms), file, observer=self, now=self.now)
        made.mended = self.count
        return made

    def count(self) -> None:
        self.mended += 1

    def all(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def in_world(run: Run, certificates: Certificates, folder: Path, scene: Any) -> None:
    async def whole() -> None:
        async with Authority(certificates) as entra:
            world = World(entra, folder)
            await scene(world)
            told = "\n".join(map(str, world.events))
            assert not any(secret in told for secret in (SECRET, *entra.tokens, *entra.refresh_tokens))

    run(whole())


async def token_of(source: TokenSource) -> Token:
    found = await source.get()
    assert isinstance(found, Token), found
    return found


async def none_of(source: TokenSource) -> Deferred:
    found = await source.get()
    assert isinstance(found, Deferred), found
    assert (found.stage, found.upstream_sick, found.reply) == (Stage.AUTH, True, None)
    return found


# The grants


def service_account(folder: Path, entra: Authority) -> str:
    pem, public = private_key()
    entra.service_accounts["relay@project.iam"] = public
    entra.mailboxes["relay@project.iam"] = {MAILBOX}
    file = folder / "service-account.json"
    account = {"type": "service_account", "client_email": "relay@project.iam", "private_key": pem}
    file.write_text(json.dumps({**account, "private_key_id": "1", "token_uri": "https://oauth2.googleapis.com/token"}))
    return str(file)


@pytest.mark.parametrize(
    "terms",
    [
        {},
        {"client_secret": None, "certificate": "app.pem"},
        {"grant": "refresh_token", "refresh_token": lambda: "the-first-one"},
        {
            "grant": "refresh_token",
            "refresh_token": lambda: "the-first-one",
            "client_id": "public",
            "client_secret": None,
        },
        {"provider": "google", "grant": "service_account", "key": "service-account.json"},
        {"provider": "google", "grant": "refresh_token", "refresh_token": lambda: "the-first-one"},
        {"provider": "generic"},
        {"provider": "generic", "client_auth": "basic", "scope": "mail.send"},
        {"provider": "generic", "grant": "refresh_token", "refresh_token": lambda: "the-first-one"},
    ],
    ids=[
        *("microsoft, secret", "microsoft, certificate", "microsoft, refresh", "microsoft, public refresh"),
        *("google, service account", "google, refresh", "generic, post", "generic, basic", "generic, refresh"),
    ],
)
def test_every_grant_brings_a_token_that_opens_the_mailbox(
    run: Run, certificates: Certificates, tmp_path: Path, terms: dict[str, Any]
) -> None:
    async def scene(world: World) -> None:
        entra = world.entra
        entra.clients["public"] = ""
        entra.refresh_tokens["the-first-one"] = MAILBOX
        given = dict(terms)
        if "certificate" in given:
            leaf = authority().issue_cert("relay.example.nl")
            given["certificate"] = str(tmp_path / "app.pem")
            leaf.private_key_and_cert_chain_pem.write_to_path(given["certificate"])
            public = load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).public_key()
            if not hasattr(public, "encrypt"):  # msal signs with RSA
                given["certificate"], public = rsa_certificate(tmp_path)
            entra.certificates[APP] = [public]
        if "key" in given:
            given["key"] = service_account(tmp_path, entra)
        source = world.source(**given)
        token = await token_of(source)
        assert entra.allows(MAILBOX, token.value)
        assert not entra.allows("directie@example.nl", token.value)
        assert 3590 < token.expires_at - world.now().timestamp() <= 3600
        assert await source.get() == token
        assert len(entra.asked) == 1
        assert [event.upstream for event in world.all(TokenFetched)] == ["own"]
        if "client_assertion" in entra.asked[0]:
            assert "client_secret" not in entra.asked[0]

    in_world(run, certificates, tmp_path, scene)


def rsa_certificate(folder: Path) -> tuple[str, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    now = datetime.now(UTC)
    signed = (
        made.serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=9))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + signed.public_bytes(serialization.Encoding.PEM)
    file = folder / "rsa.pem"
    file.write_bytes(pem)
    return str(file), key.public_key()


# Lifetimes

LIFETIMES = {
    **dict.fromkeys(
        ("1e999", "-1e999", "NaN", "-1", "0", "true", "null", '"soon"', "[3600]", "{}", '"' + "9" * 5000 + '"'), 3600
    ),
    **{"60": 60, '"60"': 60, "60.9": 60, "0.5": 1},
    **dict.fromkeys(("86401", "9007199254740991", "1000000000000000000", "9223372036854775808", "9" * 400), 86_400),
}


@pytest.mark.parametrize("provider", ["microsoft", "google", "generic"])
@pytest.mark.parametrize(("written", "seconds"), LIFETIMES.items(), ids=[written[:20] for written in LIFETIMES])
def test_a_lifetime_that_is_none_counts_as_an_hour_and_a_longer_one_as_a_day(
    run: Run, certificates: Certificates, tmp_path: Path, provider: str, written: str, seconds: int
) -> None:
    async def scene(world: World) -> None:
        more = f'"ext_expires_in": {written}, "refresh_in": {written}, "interval": {written}'
        world.entra.script(Fault(200, f'{{"access_token": "tok123", "expires_in": {written}, {more}}}'))
        login = {"grant": "refresh_token", "refresh_token": lambda: "kept"} if provider == "google" else {}
        source = world.source(provider=provider, **login)
        token = await token_of(source)
        assert token.value == "tok123"
        assert seconds - 10 < token.expires_at - token.fetched_at <= seconds
        assert source.expires_at is not None
        source.expires_at.astimezone().isoformat()
        assert source.kept().expires_at == token.expires_at
        (told,) = world.all(TokenFetched)
        told.expires_at.astimezone()

    in_world(run, certificates, tmp_path, scene)


@pytest.mark.parametrize("answer", ["[" * 100_000, '{"access_token":' * 10_000, '{"expires_in": ' + "9" * 5000 + "}"])
def test_an_answer_that_is_no_document_says_so(
    run: Run, certificates: Certificates, tmp_path: Path, answer: str
) -> None:
    async def scene(world: World) -> None:
        world.entra.script(Fault(200, answer))
        outcome = await none_of(world.source(provider="generic"))
        assert outcome.text == "no token from 127.0.0.1: it answered 200 with application/json, not JSON"

    in_world(run, certificates, tmp_path, scene)


@pytest.mark.parametrize("date", ["Tue, 01 Dec 99999999999 12:00:00 GMT", "Tue, 01 Dec 9999 12:00:00 -2359", "NaN", ""])
@pytest.mark.parametrize("retry_after", ["1e999", "NaN", "-5", "Tue, 01 Dec 99999 12:00:00 GMT", "9" * 500])
def test_a_date_that_is_none_is_no_trouble(
    run: Run, certificates: Certificates, tmp_path: Path, date: str, retry_after: str
) -> None:
    async def scene(world: World) -> None:
        fields = {"Retry-After": retry_after, "X-Date": date}
        world.entra.script(Fault(429, "", "text/plain", fields))
        outcome = await none_of(world.source(provider="generic"))
        assert outcome.text.startswith("no token from 127.0.0.1: too many requests")
        world.later(timedelta(hours=1, seconds=1))
        assert isinstance(await world.source(provider="generic").get(), Token)

    in_world(run, certificates, tmp_path, scene)


@pytest.mark.parametrize("name", ["fetched_at", "expires_at", "error_at"])
@pytest.mark.parametrize(
    "value", ["1e999", "-1e999", "NaN", "1e18", "9223372036854775808", "-1", '"x"', "null", "[1]", "true"]
)
def test_a_moment_in_a_token_file_that_is_none_costs_a_new_token_at_most(
    run: Run, certificates: Certificates, tmp_path: Path, name: str, value: str
) -> None:
    async def scene(world: World) -> None:
        first = await token_of(world.source())
        (path,) = (tmp_path / "tokens").glob("own")
        kept = json.loads(path.read_text())
        path.write_text(json.dumps({**kept, "error": "gone", name: "HERE"}).replace('"HERE"', value))
        source = world.source()
        found = source.kept()
        for moment in (found.fetched_at, found.expires_at, found.error_at):
            datetime.fromtimestamp(moment, UTC).astimezone()
        token = await token_of(source)
        assert 0 < token.expires_at - token.fetched_at <= 86_400
        assert abs(token.fetched_at - first.fetched_at) < 3600
        assert source.expires_at is not None

    in_world(run, certificates, tmp_path, scene)


# What goes wrong


@pytest.mark.parametrize(
    ("fault", "trouble", "words"),
    [
        (HTML, Trouble.TRANSIENT, "it answered 200 with text/html, not JSON"),
        (UNAVAILABLE, Trouble.TRANSIENT, "temporarily_unavailable"),
        (Fault(500, "<html>oops", "text/html"), Trouble.TRANSIENT, "it answered 500 with text/html, not JSON"),
        (Fault(200, '{"token_type": "Bearer"}'), Trouble.TRANSIENT, "no token"),
        (Fault(200, '{"access_token": "a\\u0001b", "expires_in": 60}'), Trouble.TRANSIENT, "no token"),
        (Fault(200, "x" * 300_000), Trouble.TRANSIENT, "larger than 256 KiB"),
        (redirect("https://evil.example/"), Trouble.TRANSIENT, "it answered 302"),
        (too_many(), Trouble.TRANSIENT, "too many requests"),
        (refusal("AADSTS7000222", "The provided client secret keys are expired."), Trouble.PERMANENT, "AADSTS7000222"),
        (refusal("AADSTS700025", "Client is public."), Trouble.PERMANENT, "AADSTS700025: Client is public."),
        (refusal("AADSTS50059", "No tenant.", "invalid_request"), Trouble.PERMANENT, "AADSTS50059"),
        (refusal("AADSTS900971", "No reply address.", "invalid_request"), Trouble.PERMANENT, "AADSTS900971"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("provider", ["microsoft", "google", "generic"])
def test_an_endpoint_that_gives_no_token_defers_and_is_named_and_never_quoted_beyond_its_words(
    run: Run, certificates: Certificates, tmp_path: Path, provider: str, fault: Fault, trouble: Trouble, words: str
) -> None:
    async def scene(world: World) -> None:
        world.entra.script(fault)
        world.entra.refresh_tokens["kept"] = MAILBOX
        login = {"grant": "refresh_token", "refresh_token": lambda: "kept"} if provider == "google" else {}
        source = world.source(provider=provider, **login)
        outcome = await none_of(source)
        assert outcome.trouble is trouble
        assert words in outcome.text
        assert "127.0.0.1" in outcome.text or "no token:" in outcome.text
        assert "Trace ID" not in outcome.text
        (told,) = world.all(TokenRefused)
        assert (told.permanent, told.text) == (trouble is Trouble.PERMANENT, outcome.text)
        world.later(timedelta(seconds=61))
        assert isinstance(await source.get(), Token)
        assert world.mended == 1

    in_world(run, certificates, tmp_path, scene)


@pytest.mark.parametrize("provider", ["microsoft", "generic"])
def test_an_endpoint_that_is_down_or_of_another_authority_is_told_apart(
    run: Run, certificates: Certificates, tmp_path: Path, provider: str
) -> None:
    async def scene(world: World) -> None:
        strange = world.source(provider=provider, tls_ca=None, name="strange")
        assert "signed by an unknown authority" in (await none_of(strange)).text
        await world.entra.go_down()
        assert "Connection refused" in (await none_of(world.source(provider=provider))).text

    in_world(run, certificates, tmp_path, scene)


def test_a_tenant_that_does_not_exist_is_named(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        outcome = await none_of(world.source(tenant="exmaple.nl"))
        assert "AADSTS90002" in outcome.text
        assert outcome.trouble is Trouble.PERMANENT

    in_world(run, certificates, tmp_path, scene)


def test_a_silent_endpoint_costs_a_connection_its_patience_and_the_loop_nothing(
    run: Run, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "PATIENCE", 0.2)

    async def scene(world: World) -> None:
        world.entra.script(HANG, times=None)
        source = world.source(provider="generic")
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        turning = asyncio.create_task(turn())
        outcome = await none_of(source)
        turning.cancel()
        assert (outcome.trouble, turns > 100) == (Trouble.TIMEOUT, True)
        again = await asyncio.gather(source.get(), source.get())
        assert all(isinstance(one, Deferred) for one in again)
        await world.entra.until(lambda: bool(world.entra.asked))  # its thread may be slower than our patience
        assert len(world.entra.asked) == 1  # they wait for the one that is under way
        world.entra.unscript()
        await world.entra.go_down()  # it breaks off
        await world.entra.come_back()
        monkeypatch.setattr(tokens, "PATIENCE", 20)
        assert isinstance(await source.get(), Deferred | Token)
        assert isinstance(await source.get(), Token)

    in_world(run, certificates, tmp_path, scene)


def test_an_endpoint_that_trickles_is_cut_off(
    run: Run, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_http, "WHOLE", 0.2)

    async def scene(world: World) -> None:
        world.entra.script(HANG)
        assert "no token" in (await none_of(world.source(provider="generic"))).text

    in_world(run, certificates, tmp_path, scene)


def test_retry_after_is_heeded(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        world.entra.script(too_many("120"))
        source = world.source()
        assert "asked again after 120 s" in (await none_of(source)).text
        for _ in range(3):
            await none_of(source)
            source.look()
        assert len(world.entra.asked) == 1
        world.later(timedelta(seconds=121))
        assert isinstance(await source.get(), Token)
        assert len(world.entra.asked) == 2

    in_world(run, certificates, tmp_path, scene)


def test_a_clock_that_is_wrong_is_named_as_the_cause(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        world.entra.ahead = 2 * 3600.0
        key = service_account(tmp_path, world.entra)
        outcome = await none_of(world.source(provider="google", grant="service_account", key=key))
        assert "Invalid JWT" in outcome.text
        assert outcome.text.endswith("(the clock of this machine is 120 minutes behind)")

    in_world(run, certificates, tmp_path, scene)


def test_a_secret_that_cannot_be_read_is_no_secret_told(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    from relay.config.secrets import Secret

    async def scene(world: World) -> None:
        outcome = await none_of(world.source(client_secret=Secret("file", str(tmp_path / "none")).reveal))
        assert outcome.text == f"password file {tmp_path / 'none'} does not exist"

    in_world(run, certificates, tmp_path, scene)


# Ahead of time, one at a time, over restarts


def test_many_connections_wait_for_one_fetch(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        source = world.source()
        got = await asyncio.gather(*(source.get() for _ in range(20)))
        assert len(set(got)) == 1
        assert len(world.entra.asked) == 1

    in_world(run, certificates, tmp_path, scene)


def test_the_next_token_is_there_before_the_last_one_ends(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        source = world.source()
        first = await token_of(source)
        world.later(timedelta(minutes=45))
        source.look()
        assert await source.get() == first
        assert len(world.entra.asked) == 1
        world.later(timedelta(minutes=4))  # 80 % of its hour
        source.look()
        assert await source.get() in (first, source._token)
        await world.entra.until(lambda: len(world.entra.asked) == 2)
        assert source._work is not None
        await source._work
        second = await token_of(source)
        assert second != first
        assert source.expires_at is not None
        assert source.expires_at > world.now() + timedelta(minutes=59)

    in_world(run, certificates, tmp_path, scene)


def test_a_token_that_works_goes_on_working_while_the_endpoint_is_down_with_growing_pauses(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    async def scene(world: World) -> None:
        source = world.source()
        first = await token_of(source)
        world.entra.script(UNAVAILABLE, times=None)
        world.later(timedelta(minutes=50))
        for _ in range(100):  # ten looks a minute, for nine minutes
            source.look()
            assert await source.get() == first
            if source._work is not None:
                await source._work
            world.later(timedelta(seconds=5))
        assert 4 <= len(world.all(TokenRefused)) <= 6
        world.later(timedelta(minutes=2))
        assert "temporarily_unavailable" in (await none_of(source)).text
        world.entra.unscript()
        world.later(timedelta(minutes=6))
        source.look()
        assert source._work is not None
        await source._work
        assert world.mended == 1
        assert isinstance(await source.get(), Token)

    in_world(run, certificates, tmp_path, scene)


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_a_restart_goes_on_with_the_token_that_is_kept(
    run: Run, certificates: Certificates, tmp_path: Path, key: str | None
) -> None:
    async def scene(world: World) -> None:
        first = await token_of(world.source(state_key=key))
        file = tmp_path / "tokens" / "own"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert (first.value.encode() in file.read_bytes()) is (key is None)
        await world.entra.go_down()
        assert await world.source(state_key=key).get() == first
        # Another account, or another secret of the house, gets nothing of it.
        assert isinstance(await world.source(state_key=key, username="directie@example.nl").get(), Deferred)

    in_world(run, certificates, tmp_path, scene)


def test_a_refresh_token_is_rotated_and_the_last_one_survives_a_restart(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    async def scene(world: World) -> None:
        world.entra.refresh_tokens["the-first-one"] = MAILBOX
        terms: dict[str, Any] = {"grant": "refresh_token", "refresh_token": lambda: "the-first-one"}
        for _ in range(3):
            assert isinstance(await world.source(**terms).get(), Token)
            world.later(timedelta(hours=2))
        spent = [form["refresh_token"] for form in world.entra.asked]
        assert spent[0] == "the-first-one"
        assert len(set(spent)) == 3
        # A new one in the configuration goes before what is kept.
        world.entra.refresh_tokens["a-new-one"] = MAILBOX
        terms["refresh_token"] = lambda: "a-new-one"
        assert isinstance(await world.source(**terms).get(), Token)
        assert world.entra.asked[-1]["refresh_token"] == "a-new-one"

    in_world(run, certificates, tmp_path, scene)


def test_a_login_that_ended_is_told_and_a_new_one_is_taken_up_by_the_relay_that_runs(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    async def scene(world: World) -> None:
        terms: dict[str, Any] = {"grant": "device_code", "client_id": "public", "client_secret": None}
        world.entra.clients["public"] = ""
        running = world.source(**terms)
        outcome = await none_of(running)
        assert outcome.trouble is Trouble.PERMANENT
        assert "relay auth login" in outcome.text
        from relay.transport.oauth2 import device_login

        begun = await asyncio.to_thread(device_login, running.terms)
        assert await asyncio.to_thread(begun.finish) is None
        world.entra.confirm(MAILBOX)
        fetched = await asyncio.to_thread(begun.finish)
        assert fetched is not None
        await asyncio.to_thread(world.source(**terms).keep, fetched)
        asked = len(world.entra.asked)
        running.look()
        assert (await token_of(running)).value == fetched.access_token
        assert len(world.entra.asked) == asked
        assert world.mended == 1
        # When it ends, the refresh token of that login is spent.
        world.later(timedelta(hours=2))
        assert isinstance(await running.get(), Token)
        world.entra.refresh_tokens.clear()
        world.later(timedelta(hours=2))
        assert "AADSTS70043" in (await none_of(running)).text

    in_world(run, certificates, tmp_path, scene)


def test_a_login_at_google_ends_with_the_pasted_address(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    from relay.transport.oauth2 import browser_login
    from relay.transport.token_http import TokenTrouble

    async def scene(world: World) -> None:
        source = world.source(provider="google", grant="refresh_token")
        begun = browser_login(source.terms)
        assert begun.url.startswith("https://accounts.google.com/o/oauth2/v2/auth?")
        for pasted, words in (
            ("127.0.0.1", "no code"),
            ("http://127.0.0.1:1/?error=access_denied", "access_denied"),
            ("http://127.0.0.1:1/?code=x&state=y", "another login"),
        ):
            with pytest.raises(TokenTrouble, match=words):
                begun.finish(pasted)
        pasted = world.entra.consent(begun.url, MAILBOX)
        await asyncio.to_thread(source.keep, await asyncio.to_thread(begun.finish, pasted))
        assert world.entra.allows(MAILBOX, (await token_of(source)).value)
        world.later(timedelta(hours=2))
        assert world.entra.allows(MAILBOX, (await token_of(source)).value)
        assert [form["grant_type"] for form in world.entra.asked] == ["authorization_code", "refresh_token"]

    in_world(run, certificates, tmp_path, scene)


def test_what_is_encrypted_with_another_key_is_neither_used_nor_written_over(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    async def scene(world: World) -> None:
        terms: dict[str, Any] = {"grant": "device_code", "client_id": "public", "client_secret": None}
        world.entra.clients["public"] = ""
        world.entra.refresh_tokens["kept"] = MAILBOX
        from relay.transport.oauth2 import Fetched

        await asyncio.to_thread(world.source(state_key=KEY, **terms).keep, Fetched("x", 1.0, "kept"))
        before = (tmp_path / "tokens" / "own").read_bytes()
        for key in (None, KEY + "x"):
            outcome = await none_of(world.source(state_key=key, **terms))
            assert "state-key" in outcome.text
            assert (tmp_path / "tokens" / "own").read_bytes() == before
        assert isinstance(await world.source(state_key=KEY, **terms).get(), Token)

    in_world(run, certificates, tmp_path, scene)


def test_a_login_that_was_written_down_in_clear_is_encrypted_by_the_relay(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    async def scene(world: World) -> None:
        terms: dict[str, Any] = {"grant": "device_code", "client_id": "public", "client_secret": None}
        from relay.transport.oauth2 import Fetched

        await asyncio.to_thread(world.source(**terms).keep, Fetched("een-token", 3600.0, "kept"))
        file = tmp_path / "tokens" / "own"
        assert b"een-token" in file.read_bytes()
        assert (await token_of(world.source(state_key=KEY, **terms))).value == "een-token"
        assert b"een-token" not in file.read_bytes()

    in_world(run, certificates, tmp_path, scene)


def test_a_folder_that_cannot_be_written_costs_a_warning_and_no_mail(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    async def scene(world: World) -> None:
        (tmp_path / "tokens").write_text("no folder")
        source = world.source()
        assert isinstance(await source.get(), Token)
        await asyncio.sleep(0)
        assert world.all(Warned)
        assert "cannot be" in world.all(Warned)[0].text

    in_world(run, certificates, tmp_path, scene)


def test_nothing_of_a_token_reaches_a_log(
    run: Run, certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(world: World) -> None:
        world.entra.script(HTML)
        source = world.source()
        await none_of(source)
        token = await token_of(source)
        assert token.value not in repr(token)
        assert SECRET not in repr(source.terms)
        assert token.value not in caplog.text
        assert "Wi-Fi" not in caplog.text

    with caplog.at_level(logging.DEBUG):
        in_world(run, certificates, tmp_path, scene)
