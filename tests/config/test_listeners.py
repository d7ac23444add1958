"""Listeners of both types: what their keys become, and what must be there outside the file."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from relay import wiring
from relay.config import outside
from relay.config.load import load, parse
from relay.config.model import PickupListener, SmtpListener
from relay.config.values import ListenAddress
from relay.policy.rate import Rate

LEAST = "upstreams:\n  own: {host: a.nl}\n"


def test_a_listener_speaks_smtp_unless_it_says_otherwise() -> None:
    text = "listeners:\n  - {type: pickup, directory: /var/spool/relay, max_message_size: 1MiB}\n  - {}\n"
    folder, door = parse(LEAST + text).listeners
    assert isinstance(folder, PickupListener)
    assert (folder.name, folder.directory, folder.max_message_size) == ("pickup", Path("/var/spool/relay"), 2**20)
    assert isinstance(door, SmtpListener)
    assert (door.name, door.type, door.tls_profile) == ("legacy", "smtp", "modern")


def test_doors_and_folders_keep_their_place_in_the_file() -> None:
    text = "listeners:\n  - {type: pickup, directory: /var/spool/relay}\n  - {type: smtp, name: door}\n"
    config = parse(LEAST + text)
    assert [(place, one.name) for place, one in config.smtp_listeners.items()] == [(1, "door")]
    assert [(place, one.name) for place, one in config.pickup_listeners.items()] == [(0, "pickup")]
    assert wiring.listener_settings(1, config).name == "door"


def test_what_a_listener_tolerates_reaches_its_sessions() -> None:
    plain = wiring.listener_settings(0, parse(LEAST))
    assert (plain.bare_newline, plain.complete_addresses, plain.proxy_protocol) == ("normalize", False, ())
    assert (plain.limits.data_rate, plain.limits.client_rate) == (100, None)
    text = (
        "listeners:\n  - bare_newline: accept-lf-dot\n    complete_addresses: true\n    proxy_protocol: 10.0.0.1\n"
        "    limits: {data_rate: 0B, client_rate: 100/min}\n"
    )
    told = wiring.listener_settings(0, parse(LEAST + text))
    assert (told.bare_newline, told.complete_addresses) == ("accept-lf-dot", True)
    assert told.proxy_protocol == (ip_network("10.0.0.1"),)
    assert (told.limits.data_rate, told.limits.client_rate) == (0, Rate(100, 60.0))


def test_the_path_of_a_unix_socket_counts_from_the_folder_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(LEAST + "listeners: [{listen: ['unix:smtp.sock', 'unix:/run/smtp.sock']}]\n")
    door = load(file).smtp_listeners[0]
    assert door.listen == (ListenAddress("unix", f"{tmp_path}/smtp.sock"), ListenAddress("unix", "/run/smtp.sock"))


def test_a_unix_socket_needs_no_allow_and_leaves_that_of_a_port_alone() -> None:
    parse(LEAST + "listeners: [{listen: 'unix:/run/smtp.sock'}]\n")
    both = (
        "listeners: [{listen: ['unix:/run/smtp.sock', '10.0.0.1:25'], allow: 10.0.0.0/8, proxy_protocol: 10.0.0.1}]\n"
    )
    assert parse(LEAST + both).smtp_listeners[0].allow == (ip_network("10.0.0.0/8"),)


def folder_problems(directory: Path, store: Path, *, serving: bool = True) -> list[str]:
    text = f"listeners: [{{type: pickup, directory: {directory}}}]\nqueue: {{store: sqlite:{store}}}\n"
    return [str(each) for each in outside.problems(parse(LEAST + text), serving=serving)]


def test_a_folder_that_can_be_made_at_the_start_is_no_problem(tmp_path: Path) -> None:
    store = tmp_path / "state" / "queue.db"
    assert folder_problems(tmp_path / "pickup", store) == []
    (tmp_path / "pickup").mkdir()
    assert folder_problems(tmp_path / "pickup", store) == []


def test_a_folder_that_cannot_be_made_or_is_none_is_a_problem(tmp_path: Path) -> None:
    store = tmp_path / "state" / "queue.db"
    where = "config.yaml:3: listeners[0].directory"
    (told,) = folder_problems(tmp_path / "none" / "pickup", store)
    lacking = f"{tmp_path}/none"
    assert (
        told == f"{where}: does not exist, and {lacking} is no folder that it could be made in (make {lacking}/pickup)"
    )
    (tmp_path / "file").write_text("")
    assert folder_problems(tmp_path / "file", store) == [f"{where}: not a folder"]
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (told,) = folder_problems(tmp_path / "link", store)
    assert told.startswith(f"{where}: a link")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    assert folder_problems(tmp_path / "lost", store) == [f"{where}: not a folder"]


def test_a_folder_whose_rights_are_wrong_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, to whom every folder is open.
    monkeypatch.setattr("os.access", lambda path, rights: False)
    store = tmp_path / "state" / "queue.db"
    (tmp_path / "pickup").mkdir()
    (told,) = folder_problems(tmp_path / "pickup", store, serving=False)
    assert "files can not be taken from it" in told
    # Whoever owns it may change its rights at any time, and is not to keep a relay from starting that has other mail.
    assert folder_problems(tmp_path / "pickup", store) == []
    (told,) = folder_problems(tmp_path / "other", store)
    assert f"can not be made in {tmp_path}" in told


def test_the_folder_of_the_queue_is_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "state")
    store = tmp_path / "state" / "queue.db"
    for directory in (tmp_path / "state", tmp_path / "state" / "pickup", tmp_path / "link", tmp_path / "link" / "in"):
        (told,) = folder_problems(directory, store)
        assert f"in the folder of the queue ({tmp_path}/state)" in told
    assert folder_problems(tmp_path / "state-of-others", store) == []
