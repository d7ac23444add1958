"""Sockets to listen on, opened or passed by systemd; and errors that say what to do."""

from __future__ import annotations

import errno
import multiprocessing
import os
import socket
import stat
import subprocess
import sys
import textwrap
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from relay.ingress.ports import PortError, has_family, open_port, open_unix, passed_sockets


def test_a_port_can_be_connected_to() -> None:
    with open_port("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()) as client:
        assert client.getpeername() == listener.getsockname()
        assert listener.getblocking() is False


def test_a_port_in_use_names_the_process_that_holds_it() -> None:
    with open_port("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(PortError) as caught:
            open_port("127.0.0.1", port)
    text = str(caught.value)
    assert text.startswith(f"127.0.0.1:{port} is in use by process {os.getpid()} (")
    assert text.endswith("(stop it, or choose another port under `listen`)")


def test_a_port_held_by_another_process_names_it() -> None:
    script = (
        "import socket, sys; listener = socket.create_server(('127.0.0.1', 0));"
        "print(listener.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        with pytest.raises(PortError, match=f"in use by process {other.pid} "):
            open_port("127.0.0.1", port)
        other.communicate()


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(PortError, match=r"^192\.0\.2\.1:2525 is no address of this machine"):
        open_port("192.0.2.1", 2525)


def test_a_privileged_port_is_told_to_who_lacks_the_privilege() -> None:
    def ask(answer: Connection) -> None:
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            open_port("127.0.0.1", 25).close()
        except PortError as error:
            answer.send(str(error))

    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=ask, args=(theirs,))
    child.start()
    theirs.close()
    with ours:
        assert "127.0.0.1:25 needs a privilege" in ours.recv()
    child.join()


def test_a_privilege_that_lacks_is_told_with_three_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse, raising=False)
    with pytest.raises(PortError) as caught:
        open_port("::1", 25)
    for word in ("[::1]:25", "relay.socket", "CAP_NET_BIND_SERVICE", "2525"):
        assert word in str(caught.value)


@pytest.mark.skipif(not has_family("::1"), reason="a machine without IPv6")
def test_both_families_can_stand_side_by_side_on_one_port() -> None:
    with open_port("::", 0) as six, open_port("0.0.0.0", six.getsockname()[1]) as four:
        assert six.getsockname()[1] == four.getsockname()[1]


def test_the_family_of_ipv4_is_there() -> None:
    assert has_family("127.0.0.1")


CHILD = textwrap.dedent(
    """
    import os, sys
    os.environ["LISTEN_PID"] = str(os.getpid())
    from relay.ingress.ports import PortError, passed_sockets
    for again in range(2):  # a reload opens them once more
        try:
            found = passed_sockets(sys.argv[1])
        except PortError as error:
            print(error)
        else:
            where = [one.getsockname() for one in found]
            print(*sorted(at if isinstance(at, str) else at[1] for at in where), *[one.getblocking() for one in found])
            [one.close() for one in found]
    """
)


def passed(asked: str, names: str, sockets: list[socket.socket]) -> list[str]:
    """What a child started by systemd's protocol says about the sockets called `asked`."""

    def arrange() -> None:
        copies = [os.dup2(one.fileno(), 100 + index) for index, one in enumerate(sockets)]
        for index, copy in enumerate(copies):
            os.dup2(copy, 3 + index)

    environment = os.environ | {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": names}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, asked],
        env=environment,
        pass_fds=range(3, 3 + len(sockets)),
        preexec_fn=arrange,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_sockets_of_systemd_are_found_by_name_and_can_be_opened_again() -> None:
    with open_port("127.0.0.1", 0) as one, open_port("127.0.0.1", 0) as two, open_port("127.0.0.1", 0) as three:
        ports = [each.getsockname()[1] for each in (one, two, three)]
        lines = passed("smtp", "smtp:other:smtp", [one, two, three])
        assert lines == [f"{min(ports[0], ports[2])} {max(ports[0], ports[2])} False False"] * 2


def test_a_name_that_systemd_did_not_pass_is_told_with_those_it_did() -> None:
    with open_port("127.0.0.1", 0) as one:
        lines = passed("smtp", "other", [one])
    assert lines[0] == "systemd:smtp: no socket of that name was passed (passed: other; FileDescriptorName=)"


def test_sockets_for_another_process_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "1")
    with pytest.raises(PortError, match="no sockets were passed"):
        passed_sockets("smtp")


@pytest.mark.parametrize("count", ["", "abc", "-1", "1e9", "²", "99999999999", "9" * 5000])
def test_a_number_of_sockets_that_is_none_is_none(monkeypatch: pytest.MonkeyPatch, count: str) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)
    monkeypatch.setenv("LISTEN_FDNAMES", "smtp")
    with pytest.raises(PortError, match="no socket of that name was passed"):
        passed_sockets("smtp")


def test_what_was_passed_and_is_no_socket_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "4096")
    monkeypatch.setenv("LISTEN_FDNAMES", ":" * 4095 + "smtp")
    with pytest.raises(PortError, match="systemd:smtp: what was passed is no socket: Bad file descriptor"):
        passed_sockets("smtp")


def test_a_unix_socket_is_for_its_owner_and_its_group(tmp_path: Path) -> None:
    path = str(tmp_path / "smtp.sock")
    before = os.umask(0)
    try:
        listener = open_unix(path)
    finally:
        os.umask(before)
    with listener, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        client.connect(path)
        assert listener.getblocking() is False
        listener.remove()
    assert os.listdir(tmp_path) == []


def test_a_unix_socket_that_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "smtp.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with open_unix(path) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        listener.remove()


def test_a_unix_socket_in_use_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "smtp.sock")
    with open_unix(path), pytest.raises(PortError) as caught:
        open_unix(path)
    assert str(caught.value) == f"unix:{path} is in use by another process (stop it, or choose another path)"
    assert os.path.exists(path)


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    path.write_text("important")
    with pytest.raises(PortError, match="is a file that is no socket"):
        open_unix(str(path))
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(PortError, match="is a file that is no socket"):
        open_unix(str(tmp_path / "link"))
    assert path.read_text() == "important"


def test_the_file_of_a_successor_is_not_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "smtp.sock")
    with open_unix(path) as first:
        os.unlink(path)
        with open_unix(path) as second:
            first.remove()
            assert os.path.exists(path)
            second.remove()
            second.remove()


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("{folder}/nowhere/smtp.sock", "there is no folder {folder}/nowhere"),
        ("{folder}/" + "x" * 110, "the path is too long"),
        ("{folder}/file/smtp.sock", "cannot be opened: Not a directory"),
    ],
)
def test_a_unix_socket_that_cannot_be_made_says_why(tmp_path: Path, path: str, problem: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PortError) as caught:
        open_unix(path.format(folder=tmp_path))
    assert problem.format(folder=tmp_path) in str(caught.value)


def test_a_unix_socket_in_a_folder_of_somebody_else_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse, raising=False)
    with pytest.raises(PortError, match="cannot be made: permission denied"):
        open_unix(str(tmp_path / "smtp.sock"))


def test_a_unix_socket_of_systemd_is_taken_as_it_is(tmp_path: Path) -> None:
    with open_unix(str(tmp_path / "smtp.sock")) as one:
        assert passed("smtp", "smtp", [one])[0] == f"{tmp_path}/smtp.sock False"
