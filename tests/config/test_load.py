"""Good configurations: what the keys become, and what they are when left out."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.load import load, parse
from relay.config.section import by_tag
from relay.config.upstreams import CaptureUpstream, SmtpUpstream, Upstream
from relay.config.values import ListenAddress
from relay.errors import BadConfig
from relay.mail.address import Address
from tests.kit.extent import examples

LEAST = "upstreams:\n  own: {host: smtp.example.nl}\n"


def test_only_upstreams_is_required() -> None:
    config = parse(LEAST)
    (listener,) = config.smtp_listeners.values()
    assert listener.name == "legacy"
    assert listener.listen == (ListenAddress("tcp", "127.0.0.1", 25), ListenAddress("tcp", "::1", 25))
    assert listener.listen_is_default
    assert listener.allow == (ip_network("127.0.0.0/8"), ip_network("::1"))
    assert listener.max_message_size == 50 * 2**20
    assert (listener.limits.sessions, listener.limits.per_client, listener.limits.messages) == (2000, 500, None)
    assert config.routes["default"].upstreams == ("own",)
    assert config.routes["default"].lifetime == timedelta(days=5)
    assert config.queue.min_free == 200 * 2**20
    assert config.admin.listen == ListenAddress("tcp", "127.0.0.1", 9125)
    assert config.bounces.from_ is None
    assert (config.bounces.also, config.bounces.delay_warning) == ((), None)
    assert (config.language, config.queue.history) == ("en", timedelta(days=14))
    assert (config.log.level, config.log.format) == ("info", "text")


def test_the_state_and_runtime_folders_of_systemd_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    assert parse(LEAST).queue.store.path == Path("/var/lib/relay/queue.db")
    assert parse(LEAST).admin.socket == Path("/run/relay/admin.sock")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/private/relay:/other")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/private/relay")
    assert parse(LEAST).queue.store.path == Path("/var/lib/private/relay/queue.db")
    assert parse(LEAST).admin.socket == Path("/run/private/relay/admin.sock")


@pytest.mark.parametrize(
    ("written", "port", "auth"),
    [
        ("tls: starttls", 587, "none"),
        ("tls: implicit", 465, "none"),
        ("tls: none", 25, "none"),
        ("port: 2525", 2525, "none"),
        ("username: u, password: p", 587, "auto"),
        ("username: u, password: p, auth: login", 587, "login"),
        ("tls: none, cleartext_auth: true, username: u, password: p", 25, "auto"),
    ],
)
def test_port_and_auth_follow_from_the_other_keys(written: str, port: int, auth: str) -> None:
    upstream = parse(f"upstreams:\n  own: {{host: smtp.example.nl, {written}}}\n").upstreams["own"]
    assert isinstance(upstream, SmtpUpstream)
    assert (upstream.port, upstream.auth) == (port, auth)
    assert (upstream.max_connections, upstream.max_recipients) == (3, 100)
    assert upstream.timeouts.final == timedelta(minutes=10)


def test_auth_without_tls_is_good_towards_this_machine_itself() -> None:
    for host in ("127.0.0.1", "localhost", '"::1"', '"[::1]"'):
        parse(f"upstreams:\n  own: {{host: {host}, port: 2525, tls: none, username: u, password: p}}\n")


def test_relative_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("geheim\n")
    file = tmp_path / "config.yaml"
    file.write_text(
        "upstreams:\n"
        "  own: {host: smtp.example.nl, username: u, password: {file: password}, tls_ca: ca.pem}\n"
        "  files: {type: capture, directory: mail}\n"
        "queue: {store: sqlite:queue.db}\n"
    )
    config = load(file)
    own, files = config.upstreams["own"], config.upstreams["files"]
    assert isinstance(own, SmtpUpstream)
    assert isinstance(files, CaptureUpstream)
    assert own.tls_ca == tmp_path / "ca.pem"
    assert own.password is not None
    assert own.password.reveal() == "geheim"
    assert files.directory == tmp_path / "mail"
    assert config.queue.store.path == tmp_path / "queue.db"
    assert config.where(("upstreams", "own", "tls_ca")) == f"{file}:2: upstreams.own.tls_ca"


def test_what_became_of_mail_need_not_be_kept() -> None:
    assert parse(LEAST + "queue: {history: null}\n").queue.history is None
    assert parse(LEAST + "queue: {history: 30d}\n").queue.history == timedelta(days=30)


def test_the_default_route_leaves_out_the_vendor_of_session_codes() -> None:
    three = "upstreams:\n  b: {host: b.nl}\n  vendor: {host: v.nl}\n  a: {host: a.nl}\n"
    assert parse(three).routes["default"].upstreams == ("b", "a")
    assert parse(three + "session_codes: {vendor: b}\n").routes["default"].upstreams == ("vendor", "a")
    assert parse("upstreams:\n  vendor: {host: v.nl}\n").routes["default"].upstreams == ("vendor",)
    assert parse(three + "routes:\n  bulk: {priority: low}\n").routes["bulk"].upstreams == ("b", "a")


def test_what_yaml_may_do_and_people_use_is_understood() -> None:
    config = parse(
        "\ufeff# a comment\n"
        "hostname: 'relay.example.nl'\n"
        "upstreams:\n"
        "  own: &own\n"
        "    host: !!str smtp.example.nl\n"
        "    tls_verify: yes\n"
        "  other: *own\n"
        "session_codes: {enabled: off}\n"
        "senders:\n"
        "- {name: '0123', address: jan@example.nl, reply_to: keep, envelope: b@example.nl}\n".replace("\ufeff", "")
    )
    assert config.upstreams["other"] == config.upstreams["own"]
    assert config.senders[0].envelope == Address("b", "example.nl")
    assert config.senders[0].reply_to == "keep"


def test_a_byte_order_mark_of_a_windows_editor_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + LEAST.replace("\n", "\r\n").encode())
    assert list(load(file).upstreams) == ["own"]


def test_nothing_of_a_configuration_can_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(LEAST).hostname = "other.example.nl"


SHAPES = (
    "{s}",
    "'{s}'",
    "{{{s}}}",
    "{{{s}: {s}}}",
    "{{{s}: a, {s}: b}}",
    "[{s}]",
    "{{fil: {s}}}",
    "{{env: {s}}}",
    "{{env: {s}, file: {s}}}",
    "{{credential: /{s}}}",
    "!{s} x",
    "*{s}",
    "|\n      {s}\n      {s}",
    "$scrypt${s}",
    "{s}: x: y",
    '"{s}',
    "@{s}",
    "%{s}",
    "[{s}",
)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("wrong", ["", "hostname: [1]\n", "hostname: a\nhostname: b\n"])
@examples(12)
@given(secret=st.from_regex(r"[0-9]{12,14}|[01]{10}:[0-5]9|q{3}[a-z]{9}|Q{3}[^\W_]{9}", fullmatch=True))
def test_a_secret_is_in_no_error_however_it_is_written(shape: str, wrong: str, secret: str) -> None:
    written = shape.format(s=secret)
    for key in ("username", "password"):
        other = "password: {env: 5}" if key == "username" else "username: 5"
        text = (
            f"{wrong}upstreams:\n  own:\n    host: smtp.example.nl\n    {other}\n    tls: none\n    {key}: {written}\n"
        )
        assert secret not in told(text)


def told(text: str) -> str:
    """All that anybody gets to see of a configuration, good or bad."""
    try:
        config = parse(text)
    except BadConfig as bad:
        return f"{bad} {bad!r} {bad.problems!r} {bad.__cause__!r}"
    return f"{config!r} {config} {config.model_dump(exclude={'upstreams': {'own': {'username'}}})}"


def test_the_configuration_can_be_shown_without_its_secrets() -> None:
    config = parse("upstreams:\n  own: {host: a.nl, username: geheim-user, password: geheim-1}\n")
    assert "geheim" not in repr(config)
    assert "geheim" not in str(config.upstreams["own"])


def test_loading_needs_neither_the_terminal_libraries_nor_servers() -> None:
    code = (
        "import sys, relay.config.load, relay.config.model\n"
        "print(*sorted({'typer', 'rich', 'aiohttp', 'aiosmtpd', 'aiosmtplib', 'asyncio'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


@pytest.mark.parametrize("kind", by_tag(Upstream))
def test_an_upstream_of_which_nothing_is_known_lacks_what_it_needs_and_nothing_more(kind: str) -> None:
    """What is missing is replaced by a sample of its kind, so that the rest of the file is checked as well."""
    needed = {key for key, field in by_tag(Upstream)[kind].model_fields.items() if field.is_required()} - {"type"}
    with pytest.raises(BadConfig) as bad:
        parse(f"upstreams:\n  own: {{type: {kind}}}\nroutes:\n  default: {{upstreams: [nobody]}}\n")
    lacking = {f"config.yaml:2: upstreams.own.{key}: missing (this key is required)" for key in needed}
    routes = 'config.yaml:4: routes.default.upstreams: no upstream named "nobody" (known: own)'
    assert {str(problem) for problem in bad.value.problems} == {*lacking, routes}


def test_an_empty_list_of_patterns_below_a_header_field_is_named_as_any_other() -> None:
    text = "upstreams:\n  own: {host: a.nl}\nsenders:\n- {keep: true, match: {header: {x-mailer: []}}}\n"
    with pytest.raises(BadConfig) as bad:
        parse(text)
    (problem,) = bad.value.problems
    assert str(problem) == "config.yaml:4: senders[0].match.header.x-mailer: must not be empty"


@pytest.mark.parametrize(
    ("rules", "patterns", "complaint"),
    [
        (1000, 4, None),
        (1001, 2, "senders: 1001 rules; there can be 1000 at most"),
        (801, 5, "senders: 4005 patterns; there can be 4000 at most"),
    ],
)
def test_a_configuration_beyond_its_limits_is_refused_with_the_number(
    rules: int, patterns: int, complaint: str | None
) -> None:
    senders = [
        {"match": {"from": [f"u{rule}.{n}@example.nl" for n in range(patterns - 1)], "client": ["::1"]}, "keep": True}
        for rule in range(rules)
    ]
    written = json.dumps({"upstreams": {"own": {"host": "smtp.example.nl"}}, "senders": senders})
    if complaint is None:
        assert len(parse(written).senders) == rules
    else:
        with pytest.raises(BadConfig) as caught:
            parse(written)
        [problem] = caught.value.problems
        assert complaint in str(problem)
