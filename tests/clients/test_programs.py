"""Programs that send mail for a living, against a running relay: each is understood, and what it sent arrives.

Between program and relay lies a wire that remembers; what reaches the upstream is what was said, behind our
Received and whatever of Date and Message-ID the program left out.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from relay.events import RecipientDelivered
from tests.clients.wire import Wire
from tests.kit.house import JAN, PIET, Site

SUBJECT = "Factuur één: € 1.250,00 — 請求書"
ATTACHMENT = b"%PDF-1.4\r\n.\n..\r\r\n\x00\xff" + bytes(range(256)) * 40
PROGRAMS = Path(__file__).parent / "programs"
# Those who choose a sendmail of this machine find it here.
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
OURS = re.compile(rb"(?:(?:Received|Date|Message-ID): [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)+")


@dataclass(frozen=True)
class Program:
    """What to run. In words, {name} stands for PORT, SUBJECT, ATTACHMENT, FILE; `needs` is what must be there.

    `reads`: the message of FILE comes on its standard input.
    """

    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    reads: bool = False


CLASSES = "/usr/share/java/javax.mail.jar:/usr/share/java/javax.activation.jar"
KNOWN = {
    "swaks": Program(
        (
            *("swaks", "--server", "127.0.0.1:{PORT}", "--from", JAN, "--to", PIET, "--h-Subject", "{SUBJECT}"),
            *("--auth", "LOGIN", "--auth-user", "kassa", "--auth-password", "geheim"),
            *("--attach-name", "factuur.pdf", "--attach-type", "application/pdf", "--attach", "@{ATTACHMENT}"),
        )
    ),
    "curl": Program(
        (
            *("curl", "--silent", "--show-error", "smtp://127.0.0.1:{PORT}/werkplek-7", "--user", "script:geheim"),
            *("--mail-from", JAN, "--mail-rcpt", PIET, "--upload-file", "{FILE}", "--crlf"),
        )
    ),
    "smtplib": Program((sys.executable, str(PROGRAMS / "mail.py"))),
    "PHPMailer": Program(("php", str(PROGRAMS / "mail.php")), ("/usr/share/php/libphp-phpmailer/autoload.php",)),
    "Net::SMTP": Program(("perl", str(PROGRAMS / "mail.pl"))),
    "nodemailer": Program(("node", str(PROGRAMS / "mail.js")), ("/usr/share/nodejs/nodemailer/package.json",)),
    "JavaMail": Program(
        ("java", "-XX:TieredStopAtLevel=1", "-cp", CLASSES, str(PROGRAMS / "Mail.java")), tuple(CLASSES.split(":"))
    ),
    "msmtp": Program(
        (
            *("msmtp", "--file=/dev/null", "--host=127.0.0.1", "--port={PORT}", "--tls=off", f"--from={JAN}"),
            *("--auth=plain", "--user=cron", "--passwordeval=echo geheim", "--", PIET),
        ),
        reads=True,
    ),
    "smtp-source": Program(("smtp-source", "-f", JAN, "-t", PIET, "-F", "{FILE}", "inet:127.0.0.1:{PORT}")),
    "relay sendmail": Program((sys.executable, "-m", "relay", "sendmail", "-t", "-i", "-f", JAN), reads=True),
}


def a_file() -> bytes:
    """A message as programs on this machine keep them: lines end in LF."""
    message = EmailMessage(policy=policy.default.clone(linesep="\n"))
    message["From"] = "Jan Müller <jan@example.nl>"
    message["To"] = PIET
    message["Subject"] = SUBJECT
    message.set_content("Bijgaand de factuur.\n.\n..\nMet vriendelijke groet, één")
    message.add_attachment(ATTACHMENT, maintype="application", subtype="pdf", filename="factuur.pdf")
    return message.as_bytes()


async def run(program: Program, port: int, folder: Path) -> None:
    values = {
        "PORT": str(port),
        "SUBJECT": SUBJECT,
        "ATTACHMENT": str(folder / "factuur.pdf"),
        "FILE": str(folder / "factuur.eml"),
    }
    (folder / "factuur.pdf").write_bytes(ATTACHMENT)
    (folder / "factuur.eml").write_bytes(a_file())
    environment = {
        **{"PATH": PATH, "HOME": str(folder), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
        **{"NODE_PATH": "/usr/share/nodejs", "RELAY_SMTP": f"127.0.0.1:{port}"},
    }
    process = await asyncio.create_subprocess_exec(
        *(word.format(**values) for word in program.words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment | values,
        cwd=Path(__file__).parents[2],
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate(a_file() if program.reads else b"")
    assert process.returncode == 0, said.decode(errors="replace")


@pytest.mark.asyncio
@pytest.mark.parametrize("name", KNOWN)
async def test_what_a_program_sends_arrives_as_it_was_sent(name: str, site: Site) -> None:
    program = KNOWN[name]
    if shutil.which(program.words[0], path=PATH) is None:
        pytest.skip(f"{program.words[0]} is not installed")
    if absent := [path for path in program.needs if not Path(path).exists()]:
        pytest.skip(f"{', '.join(absent)} is missing")
    async with site.upstream() as own:
        site.configure(
            upstreams={"own": site.way_to(own)},
            listeners=[{"name": "legacy", "listen": "127.0.0.1:0", "auth": "any"}],
        )
        async with site.house() as house, Wire(house.port()) as wire:
            await run(program, wire.port, site.folder)
            await house.event(RecipientDelivered)
            await house.empty()
    [received] = own.messages
    sent = wire.content()
    assert (received.reverse_path, received.recipients) == (JAN, (PIET,))
    assert received.content.endswith(sent)
    assert OURS.fullmatch(received.content.removesuffix(sent))
    understood = message_from_bytes(received.content, policy=policy.default)
    assert understood["Subject"] == SUBJECT
    assert [part.get_content() for part in understood.iter_attachments()] == [ATTACHMENT]
