"""What is unwise is warned of; what is missing outside the file is an error where it has to be there."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from relay.config import advice, outside
from relay.config.load import parse

NAMED = "hostname: relay.example.nl\n"
A = "password: {env: A}"


def warned(text: str) -> list[str]:
    return [str(warning) for warning in advice.warnings(parse(text))]


def test_a_good_configuration_is_not_warned_of(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("geheim")
    (tmp_path / "password").chmod(0o600)
    text = f"{NAMED}upstreams:\n  own: {{host: a.nl, username: u, password: {{file: {tmp_path}/password}}}}\n"
    assert warned(text) == []
    assert outside.problems(parse(text), serving=True) == []


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("hostname: relay\nupstreams:\n  own: {host: a.nl}\n", "config.yaml:1: hostname: no dot in the host name"),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl, username: u, password: geheim}}\n",
            "config.yaml:3: upstreams.own.password: the password itself stands in the file",
        ),
        (
            f"{NAMED}upstreams:\n  own:\n    host: a.nl\n    tls_verify: false\n",
            "config.yaml:5: upstreams.own.tls_verify: anybody on the way",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl, tls: none, cleartext_auth: true, username: u, {A}}}\n",
            "config.yaml:3: upstreams.own.cleartext_auth: the password goes readably",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl, auth: none, username: u, password: {{env: A}}}}\n",
            "config.yaml:3: upstreams.own.auth: there is a username, and it is not used",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\n  b: {{host: b.nl}}\n"
            "routes:\n  default: {upstreams: [own]}\n",
            "config.yaml:4: upstreams.b: no route leads to this upstream",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\nroutes:\n  session-codes: {{}}\n",
            "config.yaml:5: routes.session-codes: not used",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\n  vendor: {{host: b.nl}}\nsession_codes: {{enabled: true}}\n"
            "routes:\n  session-codes: {in_doubt: hold}\n",
            "config.yaml:7: routes.session-codes.in_doubt: a session code is never held",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\nsenders: [{{keep: true}}, {{address: a@b.nl}}]\n",
            "config.yaml:4: senders[0]: this rule matches all mail",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\nlisteners: [{{auth: any}}]\n"
            "senders: [{keep: true, match: {user: jan}}]\n",
            "config.yaml:5: senders[0].match.user: with auth: any a client may call itself anything",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\nsenders: [{{keep: true, match: {{listener: legcy}}}}]\n",
            'config.yaml:4: senders[0].match.listener: no listener has such a name (did you mean "legacy"?)',
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\nlisteners:\n  - listen: 10.0.0.1:25\n    allow: 10.0.0.0/8\n"
            "    auth: users\n    users: [{name: u, password: {env: A}}]\n",
            "config.yaml:7: listeners[0].auth: without TLS only this machine itself can log in",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\nlisteners:\n  - tls: starttls\n    certificate: c.pem\n"
            "    key: k.pem\n    tls_profile: legacy\n",
            "config.yaml:8: listeners[0].tls_profile: TLS 1.0 and 1.1 protect little",
        ),
        (
            f"{NAMED}upstreams:\n  own:\n    host: a.nl\n    tls_profile: legacy\n",
            "config.yaml:5: upstreams.own.tls_profile: old cipher suites protect little",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\nlisteners:\n  - proxy_protocol: 127.0.0.1\n",
            "config.yaml:5: listeners[0].allow: the client that a PROXY header names is judged by allow",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\nsenders: [{{hold: true, match: {{session_code: true}}}}]\n",
            "config.yaml:4: senders[0].hold: a session code that waits for a person expires before",
        ),
        (
            f"{NAMED}upstreams:\n  own:\n    type: https\n    url: https://a.nl/\n",
            "config.yaml:3: upstreams.own.auth: the endpoint cannot know who sends",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{type: https, url: 'https://a.nl/', auth: bearer, token: geheim}}\n",
            "config.yaml:3: upstreams.own.token: the password itself stands in the file",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\n"
            "  b: {type: https, url: 'https://a.nl/', auth: bearer, token: {env: A}, on_client_error: next}\n"
            "routes:\n  default: {upstreams: [own, b]}\n",
            "config.yaml:4: upstreams.b.on_client_error: no route has an upstream behind this one",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\nadmin: {{listen: 0.0.0.0:9125}}\n",
            "config.yaml:4: admin.allow: only this machine itself may scrape",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\nbounces: {{also: a@b.nl}}\n",
            "config.yaml:4: bounces.also: an alarm about upstream own (its login, its certificate, an outage) has no",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl, username: a, {A}}}\n  b: {{host: a.nl, username: a, {A}}}\n"
            "alarms: {to: a@b.nl}\n",
            "config.yaml:5: alarms.to: an alarm about upstream own (its login, its certificate, an outage) has no",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\nalarms: {{to: [], upstream: own}}\n",
            "config.yaml:4: alarms.upstream: no effect, as alarms.to is empty",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\nalarms: {{command: [/nothing/there]}}\n",
            "config.yaml:4: alarms.command: there is no such program here",
        ),
        (
            f"{NAMED}upstreams:\n  own: {{host: a.nl}}\nlisteners: [{{reply: direct, patience: 101s}}]\n",
            "config.yaml:4: listeners[0].patience: most software gives up before, sends again",
        ),
    ],
)
def test_what_is_unwise_is_warned_of_with_its_place(text: str, warning: str) -> None:
    (told,) = warned(text)
    assert told.startswith(warning)
    assert "geheim" not in told


@pytest.mark.parametrize(
    "more",
    [
        "alarms: {to: a@b.nl, command: [cat]}\n",
        "alarms: {to: a@b.nl, webhook: {url: 'https://hooks.example.nl/geheim'}}\n",
        "bounces: {also: a@b.nl}\nalarms: {to: []}\n",
        "",
    ],
)
def test_alarms_that_have_a_way_of_their_own_or_no_reader_are_not_warned_of(more: str) -> None:
    assert warned(f"{NAMED}upstreams:\n  own: {{host: a.nl}}\n{more}") == []


def test_alarms_that_have_another_upstream_are_not_warned_of() -> None:
    assert warned(f"{NAMED}upstreams:\n  own: {{host: a.nl}}\n  b: {{host: b.nl}}\nbounces: {{also: a@b.nl}}\n") == []


def test_a_load_balancer_with_its_clients_named_is_not_warned_of() -> None:
    listener = "listeners: [{proxy_protocol: 127.0.0.1, allow: 10.0.0.0/8}]\n"
    assert warned(f"{NAMED}upstreams:\n  own: {{host: a.nl}}\n{listener}") == []


def test_a_folder_to_take_files_from_can_be_named_in_rules() -> None:
    folder = "listeners: [{type: pickup, directory: /var/spool/relay}]\n"
    rule = "senders: [{keep: true, match: {listener: pickup, user: jan}}]\n"
    assert warned(f"{NAMED}upstreams:\n  own: {{host: a.nl}}\n{folder}{rule}") == []


def test_a_rule_that_only_holds_may_stand_before_the_others() -> None:
    rules = "senders:\n  - {hold: true}\n  - {address: info@example.nl}\n"
    assert warned(f"{NAMED}upstreams:\n  own: {{host: a.nl}}\n{rules}") == []
    assert len(warned(f"{NAMED}upstreams:\n  own: {{host: a.nl}}\n{rules.replace('true', 'true, keep: true')}")) == 1


def test_a_secret_that_everybody_can_read_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("geheim")
    text = f"{NAMED}upstreams:\n  own: {{host: a.nl, username: u, password: {{file: {file}}}}}\n"
    for mode, count in ((0o644, 1), (0o604, 1), (0o640, 0), (0o600, 0)):
        file.chmod(mode)
        assert len(warned(text)) == count


def test_a_missing_password_file_is_an_error_and_a_missing_variable_only_in_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RELAY_PASSWORD", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    config = parse(
        f"{NAMED}upstreams:\n"
        f"  a: {{host: a.nl, username: u, password: {{file: {tmp_path}/none}}}}\n"
        "  b: {host: b.nl, username: u, password: {env: RELAY_PASSWORD}}\n"
        "  c: {host: c.nl, username: u, password: {credential: own}}\n"
    )
    assert [each.where for each in outside.problems(config, serving=False)] == ["config.yaml:3: upstreams.a.password"]
    assert len(outside.problems(config, serving=True)) == 3
    assert [each.where for each in outside.absent(config)] == [
        "config.yaml:4: upstreams.b.password",
        "config.yaml:5: upstreams.c.password",
    ]


def pair(folder: Path, name: str) -> tuple[Path, Path]:
    import trustme

    made = trustme.CA().issue_cert(f"{name}.example.nl", not_after=datetime.datetime(2090, 1, 1, tzinfo=datetime.UTC))
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    key.chmod(0o600)
    return certificate, key


def test_certificates_and_keys_must_be_there_and_belong_together(tmp_path: Path) -> None:
    (certificate, key), (_, other) = pair(tmp_path, "one"), pair(tmp_path, "two")
    text = f"{NAMED}upstreams:\n  own: {{host: a.nl}}\n"
    text += f"listeners: [{{tls: starttls, certificate: {certificate}, key: KEY}}]\n"

    def told(key: Path) -> list[str]:
        return [str(each) for each in outside.problems(parse(text.replace("KEY", str(key))), serving=True)]

    assert told(key) == []
    assert told(other) == ["config.yaml:4: listeners[0].key: the key does not belong to the certificate"]
    missing = f"{tmp_path}/none does not exist (make it, or correct the path)"
    assert told(tmp_path / "none") == [f"config.yaml:4: listeners[0].key: {missing}"]
    assert "without passphrase in PEM form" in told(certificate)[0]
    key.chmod(0o644)
    assert "can be read by everybody" in warned(text.replace("KEY", str(key)))[0]


def test_the_files_of_an_upstream_must_be_there(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path, "client")
    good = f"tls_ca: {certificate}, tls_certificate: {certificate}, tls_key: {key}"
    bad = f"tls_ca: {key}, tls_certificate: {tmp_path}/none"
    assert outside.problems(parse(f"upstreams:\n  own: {{host: a.nl, {good}}}\n"), serving=True) == []
    told = outside.problems(parse(f"upstreams:\n  own: {{host: a.nl, {bad}}}\n"), serving=True)
    assert [each.problem for each in told] == [
        f"{key} holds no certificate in PEM form",
        f"{tmp_path}/none does not exist",
    ]
    folder = outside.problems(parse(f"upstreams:\n  own: {{type: capture, directory: {key}}}\n"), serving=True)
    assert [each.problem for each in folder] == ["not a folder"]


def test_an_upstream_whose_password_file_holds_a_hash_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "hash").write_text("$scrypt$ln=14,r=8,p=5$c2FsdHNhbHQ$AAAA")
    users = f"listeners: [{{auth: users, users: [{{name: u, password: {{file: {tmp_path}/hash}}}}]}}]\n"
    own = f"upstreams:\n  own: {{host: a.nl, username: u, password: {{file: {tmp_path}/hash}}}}\n"
    told = [each.problem for each in outside.problems(parse(users + own), serving=True)]
    assert told == ["not a scrypt hash as `relay hash` writes it", f"password file {tmp_path}/hash holds a hash"]


def test_upstreams_of_one_account_are_to_say_the_same_about_its_pace() -> None:
    account = f"host: a.nl, username: u, {A}"
    text = f"{NAMED}upstreams:\n  own: {{{account}, rate: 30/min}}\n  b: {{{account}, rate: 20/min}}\n"
    assert warned(text) == [
        "config.yaml:4: upstreams.b.rate: not the same as in upstreams.own, which leads to the same account "
        "(write the same: for both the strictest counts)"
    ]
    assert warned(text.replace("20/min", "30/min")) == []
    assert warned(text.replace("b: {host: a.nl", "b: {host: b.nl")) == []


def test_the_secrets_and_files_of_an_endpoint_must_be_there(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path, "client")
    (tmp_path / "token").write_text("t0ken")
    (tmp_path / "token").chmod(0o600)

    def told(keys: str) -> list[str]:
        text = f"{NAMED}upstreams:\n  own: {{type: https, url: 'https://a.nl/', {keys}}}\n"
        return [str(each) for each in outside.problems(parse(text), serving=True)]

    assert (
        told(f"auth: bearer, token: {{file: {tmp_path}/token}}, tls_certificate: {certificate}, tls_key: {key}") == []
    )
    for auth, name in (("bearer", "token"), ("hmac-sha256", "secret"), ("basic, username: u", "password")):
        found = told(f"auth: {auth}, {name}: {{file: {tmp_path}/none}}")
        missing = f"password file {tmp_path}/none does not exist (make it, or correct the path)"
        assert found == [f"config.yaml:3: upstreams.own.{name}: {missing}"]
    assert "does not exist" in told(f"tls_ca: {tmp_path}/none")[0]
    key.chmod(0o644)
    files = f"tls_certificate: {certificate}, tls_key: {key}"
    warnings = warned(f"{NAMED}upstreams:\n  own: {{type: https, url: 'https://a.nl/', {files}}}\n")
    assert ["can be read by everybody" in warning for warning in warnings] == [True]
