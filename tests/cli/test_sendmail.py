"""`relay sendmail` against a real listener: what cron and PHP say, and the exit codes that they hear."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from relay.cli import submit
from relay.ingress.listener import Listener
from relay.ingress.ports import open_unix
from relay.mail.address import Address
from relay.mail.aliases import Aliases
from relay.queue.model import Entry
from tests.ingress.house import PATIENCE, House, a_house
from tests.kit import configured
from tests.kit.house import free_port

pytestmark = pytest.mark.asyncio

MESSAGE = (
    b"From: Jan <jan@example.nl>\nTo: Piet <piet@example.org>\nBcc: stil@example.org\nSubject: x\n\nHallo\n.\nna\n"
)
HOST = socket.gethostname() if "." in socket.gethostname() else socket.getfqdn()
ME = f"{getpass.getuser()}@{HOST}"


def case(name: str) -> bytes:
    return (Path(__file__).parent.parent / "cases" / name).read_bytes()


@dataclass
class Result:
    code: int
    out: str
    err: str


async def run(*words: str, stdin: bytes = MESSAGE, program: str = "", **environment: str) -> Result:
    command = [program] if program else [sys.executable, "-m", "relay", "sendmail"]
    inherited = {key: text for key, text in os.environ.items() if not key.startswith("RELAY_")}
    process = await asyncio.create_subprocess_exec(
        *command,
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=inherited | environment,
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    assert "Traceback" not in err.decode()
    return Result(process.returncode, out.decode(), err.decode())


class Sent:
    """A house, and what it was given."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.where = f"127.0.0.1:{house.port}"

    async def run(self, *words: str, stdin: bytes = MESSAGE) -> Result:
        return await run(*words, stdin=stdin, RELAY_SMTP=self.where)

    async def one(self, *words: str, stdin: bytes = MESSAGE) -> Entry:
        """The entry that `words` made."""
        result = await self.run(*words, stdin=stdin)
        assert (result.code, result.out, result.err) == (0, "", "")
        (entry,) = await self.house.entries()
        return entry


@asynccontextmanager
async def a_relay(folder: Path, **settings: Any) -> AsyncIterator[Sent]:
    async with a_house(folder, **settings) as house:
        yield Sent(house)


def to(entry: Entry) -> list[str]:
    return [str(one.address) for one in entry.submission.envelope.recipients]


def content(entry: Entry) -> bytes:
    return entry.content.read(0, entry.content.size)


async def test_php_sends_with_recipients_from_the_header(tmp_path: Path) -> None:
    async with a_relay(tmp_path) as relay:
        entry = await relay.one("-t", "-i")
        assert to(entry) == ["piet@example.org", "stil@example.org"]
        assert str(entry.submission.envelope.reverse_path) == "jan@example.nl"
        assert content(entry) == MESSAGE.replace(b"\n", b"\r\n")


async def test_a_byte_order_mark_before_the_header_is_dropped(tmp_path: Path) -> None:
    async with a_relay(tmp_path) as relay:
        entry = await relay.one("-t", "-i", stdin=b"\xef\xbb\xbf" + MESSAGE)
        assert to(entry) == ["piet@example.org", "stil@example.org"]
        assert content(entry) == MESSAGE.replace(b"\n", b"\r\n")


async def test_cron_sends_with_names_of_this_machine(tmp_path: Path) -> None:
    mail = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@pc> backup\n\ndone\n"
    async with a_relay(tmp_path) as relay:
        entry = await relay.one("-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root", stdin=mail)
        assert to(entry) == [f"root@{HOST}"]
        assert str(entry.submission.envelope.reverse_path) == f"root@{HOST}"
        assert content(entry).startswith(b"From: root@%b (Cron Daemon)\r\nTo: root\r\n" % HOST.encode())


async def test_mail_of_cron_for_root_reaches_whom_the_alias_names(tmp_path: Path) -> None:
    aliases = Aliases(HOST, {"root": (Address.of("admin@example.nl"),)})
    message = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@srv> backup\n\nklaar\n"
    async with a_relay(tmp_path, aliases=aliases) as sent:
        entry = await sent.one("-FCronDaemon", "-i", "-oem", "-oi", "-t", stdin=message)
        (recipient,) = entry.submission.envelope.recipients
        assert (str(recipient.address), recipient.orcpt) == ("admin@example.nl", f"rfc822;root@{HOST}")


async def test_a_message_without_header_gets_an_author(tmp_path: Path) -> None:
    async with a_relay(tmp_path) as relay:
        entry = await relay.one(
            "-F", "De Server", "piet@example.org, Anna <anna@example.org>", "root", stdin=b"Hallo\n"
        )
        assert to(entry) == ["piet@example.org", "anna@example.org", f"root@{HOST}"]
        assert str(entry.submission.envelope.reverse_path) == ME
        assert content(entry) == b"From: De Server <%b>\r\n\r\nHallo\r\n" % ME.encode()


async def test_a_message_without_from_keeps_the_rest_of_its_header(tmp_path: Path) -> None:
    async with a_relay(tmp_path) as relay:
        entry = await relay.one("piet@example.org", stdin=b"Subject: x\n\nHallo\n")
        author, _, rest = content(entry).partition(b"\r\n")
        assert author.startswith(b"From: ")
        assert ME.encode() in author
        assert rest == b"Subject: x\r\n\r\nHallo\r\n"


@pytest.mark.parametrize(("words", "rest"), [((), b""), (("-i",), b".\r\nna\r\n"), (("-oi",), b".\r\nna\r\n")])
async def test_a_single_dot_ends_the_message_unless_told_otherwise(
    tmp_path: Path, words: tuple[str, ...], rest: bytes
) -> None:
    async with a_relay(tmp_path) as relay:
        assert content(await relay.one(*words, "piet@example.org")).endswith(b"\r\n\r\nHallo\r\n" + rest)


@pytest.mark.parametrize(
    ("words", "reverse_path"),
    [
        (("-f", "Bounce <bounce@example.nl>"), "bounce@example.nl"),
        (("-fbounce@example.nl",), "bounce@example.nl"),
        (("-rbounce@example.nl",), "bounce@example.nl"),
        (("-tif", "bounce@example.nl"), "bounce@example.nl"),
        (("-f", "<>"), None),
        (("-f", ""), None),
        ((), "jan@example.nl"),
    ],
)
async def test_the_reverse_path_can_be_given(tmp_path: Path, words: tuple[str, ...], reverse_path: str | None) -> None:
    async with a_relay(tmp_path) as relay:
        envelope = (await relay.one(*words, "--", "piet@example.org")).submission.envelope
        assert (str(envelope.reverse_path) if envelope.reverse_path else None) == reverse_path


async def test_notifications_can_be_asked_for(tmp_path: Path) -> None:
    async with a_relay(tmp_path) as relay:
        entry = await relay.one("-N", "success,delay", "-R", "hdrs", "-V", "a+b=c d", "-v", "-q", "x@example.org")
        envelope = entry.submission.envelope
        assert (envelope.ret, envelope.envid) == ("hdrs", "a+2Bb+3Dc+20d")
        assert envelope.recipients[0].notify == {"success", "delay"}


async def test_addresses_and_content_beyond_ascii_go_through(tmp_path: Path) -> None:
    mail = "From: Jürgen <jürgen@example.nl>\nTo: piet@example.org\n\nGrüße\n".encode()
    async with a_relay(tmp_path) as relay:
        envelope = (await relay.one("-t", stdin=mail)).submission.envelope
        assert (str(envelope.reverse_path), envelope.smtputf8) == ("jürgen@example.nl", True)


async def test_more_recipients_than_the_relay_takes_at_once_go_in_several_messages(tmp_path: Path) -> None:
    async with a_relay(tmp_path, limits=configured.limits(recipients=2)) as relay:
        result = await relay.run(*[f"r{number}@example.org" for number in range(5)])
        assert result.code == 0
        assert [to(entry) for entry in await relay.house.entries()] == [
            ["r0@example.org", "r1@example.org"],
            ["r2@example.org", "r3@example.org"],
            ["r4@example.org"],
        ]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 64, "no recipients"),
        (("-z", "x@example.org"), 64, "no such option: -z"),
        (("--fast", "x@example.org"), 64, "no such option: --fast"),
        (("x@example.org", "-f"), 64, "-f needs a value"),
        (("-bd",), 64, "-bd: the relay does not do that"),
        (("-N", "perhaps", "x@example.org"), 64, "-N: never, or a list"),
        (("-R", "all", "x@example.org"), 64, "-R: full or hdrs"),
        (("piet@", "x@example.org"), 67, "no usable address: piet@"),
        (("-f", "@", "x@example.org"), 67, "no usable address: @"),
        (("x" * 300 + "@example.org",), 67, "no usable address"),
    ],
)
async def test_what_makes_no_sense_is_said_and_nothing_is_sent(
    tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    async with a_relay(tmp_path) as relay:
        result = await relay.run(*words)
        assert result.code == code
        assert result.err.startswith(f"relay sendmail: {says}")
        assert result.err.count("\n") == 1
        assert await relay.house.entries() == []


@pytest.mark.parametrize(
    ("written", "recipients"),
    [
        (b"Bakker, Jan <a@example.org>", ["a@example.org"]),
        (b"bakker, jan <a@example.org>", ["a@example.org"]),
        (b"Jansen BV, Administratie <a@example.org>, Piet <b@example.org>", ["a@example.org", "b@example.org"]),
        (b"&quot;Jan&quot; <a@example.org>", ["a@example.org"]),
        (b"Jan <mailto:a@example.org>; 'b@example.org'", ["a@example.org", "b@example.org"]),
        (b"a@example.org b@example.org", ["a@example.org", "b@example.org"]),
        (b"<a@example.org> <b@example.org>", ["a@example.org", "b@example.org"]),
        (b"root, a@example.org", [f"root@{HOST}", "a@example.org"]),
        (b"Beheer <root>", [f"root@{HOST}"]),
        (b"root (a@example.org)", [f"root@{HOST}"]),
    ],
)
async def test_nobody_is_written_to_whom_the_message_does_not_name(
    tmp_path: Path, written: bytes, recipients: list[str]
) -> None:
    message = case("author-with-a-comma/sendmail.eml").replace(b"Bakker, Jan <a@example.org>", written)
    async with a_relay(tmp_path) as relay:
        assert (await relay.run("-t", "-i", stdin=message)).code == 0
        (entry,) = await relay.house.entries()
        assert to(entry) == recipients


@pytest.mark.parametrize("mail", [b"From: jan@example.nl\n\nx\n", b"To: Jan Jansen, piet@example.org\n\nx\n", b""])
async def test_a_header_without_usable_recipients_is_a_bad_message(tmp_path: Path, mail: bytes) -> None:
    async with a_relay(tmp_path) as relay:
        assert (await relay.run("-t", stdin=mail)).code == 65
        assert await relay.house.entries() == []


async def test_a_message_that_is_too_large_is_a_bad_message(tmp_path: Path) -> None:
    async with a_relay(tmp_path, max_message_size=1_000) as relay:
        result = await relay.run("-i", "piet@example.org", stdin=MESSAGE + b"x" * 2_000)
        assert (result.code, "552 5.3.4 Message too large" in result.err) == (65, True)


async def test_a_machine_that_is_not_allowed_hears_so(tmp_path: Path) -> None:
    async with a_relay(tmp_path, allow=(ip_network("192.0.2.0/24"),)) as relay:
        result = await relay.run("piet@example.org")
        assert (result.code, "554 5.7.1" in result.err) == (77, True)


@pytest.mark.parametrize(("php", "code"), [((), 75), (("--php",), 69)])
async def test_no_relay_and_not_now_are_temporary_and_not_success_for_php(
    tmp_path: Path, php: tuple[str, ...], code: int
) -> None:
    result = await run(*php, "piet@example.org", RELAY_SMTP=f"127.0.0.1:{free_port()}")
    assert (result.code, "no relay answers at 127.0.0.1:" in result.err) == (code, True)
    async with a_relay(tmp_path) as relay:
        relay.house.space = False
        result = await relay.run(*php, "piet@example.org")
        assert (result.code, "452 4.3.1" in result.err) == (code, True)


async def test_it_finds_the_relay_by_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "hostname: relay.example.nl\n"
        "listeners:\n"
        f"- {{name: closed, listen: '127.0.0.1:{free_port()}'}}\n"
        "- {name: local, listen: 'unix:smtp.sock'}\n"
        "upstreams: {own: {type: capture, directory: out}}\n"
        "queue: {store: 'sqlite:queue/queue.db'}\n"
    )
    async with a_house(tmp_path) as house:
        listener = Listener(house.door, [open_unix(str(tmp_path / "smtp.sock"))])
        await listener.start()
        for words, environment in (
            (["-c", str(tmp_path / "config.yaml")], {}),
            ([], {"RELAY_CONFIG": str(tmp_path / "config.yaml")}),
        ):
            result = await run(*words, "root", stdin=b"Hallo\n", **environment)
            assert (result.code, result.err) == (0, "")
        assert [to(entry) for entry in await house.entries()] == [["root@relay.example.nl"]] * 2
        assert {entry.submission.peer.address for entry in await house.entries()} == {"local"}
        await listener.close()


async def test_a_configuration_that_was_named_must_be_good(tmp_path: Path) -> None:
    result = await run("-c", str(tmp_path / "nowhere.yaml"), "piet@example.org")
    assert (result.code, "nowhere.yaml: cannot be read" in result.err) == (78, True)
    (tmp_path / "config.yaml").write_text(
        "listeners: [{auth: users, users: [{name: a, password: {env: A}}]}]\n"
        "upstreams: {own: {type: capture, directory: out}}\n"
    )
    result = await run("-c", str(tmp_path / "config.yaml"), "piet@example.org")
    assert (result.code, "no listener takes mail from this machine" in result.err) == (78, True)


async def test_a_user_who_may_not_read_the_configuration_sends_to_port_25(tmp_path: Path) -> None:
    found = submit.find(None, {"RELAY_CONFIG": str(tmp_path / "nowhere.yaml")})
    assert (found.places, found.hostname) == ((("localhost", 25),), HOST)


async def test_the_nearest_listener_comes_first_and_those_for_others_do_not_come(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "hostname: relay.example.nl\n"
        "listeners:\n"
        "- {name: a, listen: '192.0.2.1:2525', allow: 192.0.2.0/24}\n"
        "- {name: b, listen: ['0.0.0.0:2526', '[::]:2527', 'systemd:smtp'], allow: 192.0.2.0/24}\n"
        "- {name: c, listen: '127.0.0.1:2528', auth: users, users: [{name: a, password: {env: A}}]}\n"
        "- {name: d, listen: 'unix:/run/relay/smtp.sock'}\n"
        "upstreams: {own: {type: capture, directory: out}}\n"
    )
    assert submit.find(tmp_path / "config.yaml", {}).places == (
        ("/run/relay/smtp.sock", 0),
        ("127.0.0.1", 2526),
        ("::1", 2527),
        ("localhost", 25),
        ("192.0.2.1", 2525),
    )


async def test_smtp_can_be_spoken_on_standard_input(tmp_path: Path) -> None:
    said = b"EHLO pc\r\nMAIL FROM:<a@b.nl>\r\nRCPT TO:<c@d.nl>\r\nDATA\r\n\r\nHallo\r\n.\r\nQUIT\r\n"
    async with a_relay(tmp_path) as relay:
        result = await relay.run("-bs", stdin=said)
        codes = [line[:3] for line in result.out.splitlines() if line[3:4] == " "]
        assert (result.code, codes) == (0, ["220", "250", "250", "250", "354", "250", "221"])
        assert len(await relay.house.entries()) == 1


async def test_a_link_named_sendmail_is_enough(tmp_path: Path) -> None:
    script = tmp_path / "relay"
    script.write_text(f"#!{sys.executable}\nfrom relay.cli.main import main\nmain()\n")
    script.chmod(0o755)
    (tmp_path / "sendmail").symlink_to(script)
    async with a_house(tmp_path) as house:
        environment = {"RELAY_SMTP": f"127.0.0.1:{house.port}", "PYTHONPATH": os.getcwd()}
        result = await run("serve", "-t", program=str(tmp_path / "sendmail"), **environment)
        assert (result.code, result.err) == (0, "")
        (entry,) = await house.entries()
        assert to(entry)[0] == f"serve@{HOST}"  # a name, and no command


async def test_the_options_are_told(tmp_path: Path) -> None:
    result = await run("--help")
    assert result.code == 0
    assert "sendmail_path" in result.out
    assert (await run("-bi")).code == 0  # newaliases
