"""`relay sendmail`: the command that cron, PHP and many others send mail with; also as a link named `sendmail`.

A message on standard input, recipients as arguments or (with -t) in its header. It is handed to the relay on
this machine by SMTP, so what exit code 0 says is what 250 says: kept. Options are those of sendmail, which no
library knows; what only concerns a queue of its own (-q, -oem, -odb, -v …) is taken and means nothing here.
"""

from __future__ import annotations

import os
import pwd
import re
import selectors
import smtplib
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

from relay.cli import submit
from relay.cli.submit import Letter, NotTaken
from relay.mail import addressees, author, encoding
from relay.mail.address import Address
from relay.mail.addressees import BadAddressees, LocalNames
from relay.mail.envelope import wishes
from relay.mail.header import Header, folded, split, value
from relay.mail.parcel import converted
from relay.mail.reply import sanitise

HELP = """\
Usage: relay sendmail [-t] [-i] [-f ADDRESS] [-F NAME] [RECIPIENT]…

Hand a message from standard input to the relay on this machine.

  -t             recipients are those of To, Cc and Bcc as well
  -i, -oi        a line with a single dot does not end the message
  -f, -r ADDR    the reverse-path; "" or "<>" is the null one. Default: who the header names, else USER@HOSTNAME
  -F NAME        the name in From, where the message has none
  -N WHEN        notifications: never, or of success,failure,delay
  -R full|hdrs   how much of the message a notification returns
  -V ID          an envelope ID for notifications
  -bm            take a message (the default)
  -bs            speak SMTP on standard input and output
  -c FILE        the configuration. Default: $RELAY_CONFIG, else /etc/relay/config.yaml
  --php          exit code 69 instead of 75, which PHP's mail() takes for success
  --             what follows are recipients
  -B -C -G -h -L -m -n -O -o… -p -q… -U -v -X -A… -d…: taken, without an effect

The relay is found by $RELAY_SMTP ("unix:/path" or "host:port"), else by the listeners of the configuration; where
this user may not read that, at localhost:25. In php.ini: sendmail_path = "relay sendmail --php -t -i"

Exit codes (sysexits.h): 0 kept; 64 usage; 65 bad message; 67 bad recipient; 69 refused; 71 input cannot be
read; 75 no relay, or try again later; 77 not allowed; 78 bad configuration.
"""

_WITH_VALUE = frozenset("ABCDFLNOVXRbcfhopr")
_WITHOUT = frozenset("GIUimntv")
_WITH_ATTACHED = frozenset("dq")
_LAST_LINE = re.compile(rb"(?:\A|(?<=\n))\.\r?\n")
_WORD = re.compile(rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")


def main(arguments: list[str]) -> int:
    """Run with what stands behind `relay sendmail`; the exit code."""
    options = Options()
    try:
        options.read(arguments)
        if options.help:
            sys.stdout.write(HELP)
            return submit.OK
        if options.mode == "i":
            return submit.OK  # newaliases: there are none
        relay = submit.find(options.config, os.environ)
        if options.mode == "s":
            return _speak(submit.connect(relay), relay.hostname)
        letter = _letter(options, _read(options), relay.hostname)
        submit.submit(submit.connect(relay), letter)
    except NotTaken as error:
        sys.stderr.write(f"relay sendmail: {error}\n")
        return submit.UNAVAILABLE if options.php and error.code == submit.TEMPFAIL else error.code
    except KeyboardInterrupt:
        return submit.TEMPFAIL
    return submit.OK


@dataclass(slots=True)
class Options:
    """What the command line says."""

    recipients: list[str] = field(default_factory=list)
    from_header: bool = False
    ignore_dots: bool = False
    reverse_path: str | None = None
    name: str = ""
    mode: str = "m"
    config: Path | None = None
    php: bool = False
    help: bool = False
    mail: dict[str, str] = field(default_factory=dict)
    rcpt: dict[str, str] = field(default_factory=dict)

    def read(self, arguments: list[str]) -> None:
        """Raises NotTaken."""
        waiting = arguments[::-1]
        while waiting:
            word = waiting.pop()
            if word == "--":
                self.recipients += waiting[::-1]
                return
            if word in ("--php", "--help"):
                setattr(self, word[2:], True)
            elif word == "--config":
                self._take("c", _next(waiting, word))
            elif word.startswith("--config="):
                self._take("c", word.partition("=")[2])
            elif word.startswith("--"):
                raise _usage(f"no such option: {word}")
            elif word.startswith("-") and len(word) > 1:
                self._letters(word[1:], waiting)
            else:
                self.recipients.append(word)

    def _letters(self, letters: str, waiting: list[str]) -> None:
        """Options behind one dash; what one with a value leaves over is its value."""
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _WITH_VALUE:
                self._take(letter, letters or _next(waiting, f"-{letter}"))
                return
            if letter in _WITH_ATTACHED:
                return
            if letter not in _WITHOUT:
                raise _usage(f"no such option: -{letter}")
            self.from_header |= letter == "t"
            self.ignore_dots |= letter == "i"

    def _take(self, letter: str, value: str) -> None:
        if letter in "fr":
            self.reverse_path = value
        elif letter == "F":
            self.name = value
        elif letter == "c":
            self.config = Path(value)
        elif letter == "o":
            self.ignore_dots |= value == "i"
        elif letter == "b":
            if value not in ("m", "s", "i"):
                raise _usage(f"-b{value}: the relay does not do that (`relay queue list` shows what waits)")
            self.mode = value
        elif letter == "N":
            if wishes(value) is None:
                raise _usage("-N: never, or a list of success,failure,delay")
            self.rcpt["NOTIFY"] = value.upper()
        elif letter == "R":
            if value.lower() not in ("full", "hdrs"):
                raise _usage("-R: full or hdrs")
            self.mail["RET"] = value.upper()
        elif letter == "V":
            if not (0 < len(value) <= 100 and value.isascii() and value.isprintable()):
                raise _usage("-V: printable ASCII, 100 characters at most")
            self.mail["ENVID"] = "".join([c if c not in "+= " else f"+{ord(c):02X}" for c in value])  # xtext, RFC 3461


def _next(waiting: list[str], option: str) -> str:
    if not waiting:
        raise _usage(f"{option} needs a value")
    return waiting.pop()


def _usage(problem: str) -> NotTaken:
    return NotTaken(submit.USAGE, f"{problem} (see relay sendmail --help)")


def _read(options: Options) -> bytes:
    """The message, with CRLF line ends and without the line that programs for mailboxes put first."""
    try:
        if options.ignore_dots:
            content = sys.stdin.buffer.read()
        else:
            lines = []
            while (line := sys.stdin.buffer.readline()) and not _LAST_LINE.fullmatch(line):
                lines.append(line)
            content = b"".join(lines)
    except OSError as error:
        raise NotTaken(submit.OSERR, f"standard input: {error.strerror}") from None
    if content.startswith(b"From "):
        content = content.partition(b"\n")[2]
    return converted(content)


def _letter(options: Options, content: bytes, hostname: str) -> Letter:
    head = content[: split(content)]
    header = Header.parse(head)
    try:
        named = addressees.recipients(header, LocalNames(hostname)) if options.from_header else ()
        reverse_path = addressees.reverse_path(header, LocalNames(hostname))
    except BadAddressees as error:
        raise NotTaken(submit.DATAERR, str(error)) from None
    recipients = dict.fromkeys([*_addresses(options.recipients, hostname), *named])
    if not recipients:
        if options.from_header:
            raise NotTaken(submit.DATAERR, "nobody is named in To, Cc or Bcc, nor as an argument")
        raise _usage("no recipients (name them, or use -t)")
    user, full_name = _me()
    if options.reverse_path is not None:
        written = options.reverse_path.strip()
        reverse_path = None if written in ("", "<>") else _addresses([written], hostname)[0]
    elif reverse_path is None and header.first(b"return-path") is None:
        reverse_path = Address(user, hostname)
    content = _with_author(content, header, head, options.name or full_name, Address(user, hostname))
    return Letter(reverse_path, tuple(recipients), content, options.mail, options.rcpt)


def _addresses(written: list[str], hostname: str) -> list[Address]:
    """The addresses of arguments, of which each may be a list; names of this machine get its domain."""
    found = []
    for text in written:
        mailboxes = author.parse(text.encode("utf-8", "replace"), local=True)
        addresses = [addressees.usable(one, LocalNames(hostname)) for one in mailboxes]
        if not addresses or None in addresses:
            raise NotTaken(submit.NOUSER, f"no usable address: {sanitise(text, 100)}")
        found += [address for address in addresses if address is not None]
    return found


def _with_author(content: bytes, header: Header, head: bytes, name: str, me: Address) -> bytes:
    """`content` with a From, if it has none, and with a domain in it: no provider takes `From: root`."""
    field = header.first(b"from")
    if field is None:
        phrase = encoding.encode_phrase(name)
        mine = folded(b"From", [phrase, f"<{me}>".encode()] if phrase else [str(me).encode()])
        return mine + (content if head else b"\r\n" + content)
    written = value(field)
    mailboxes, local = author.parse(written), _WORD.match(written)
    if len(mailboxes) == 1 and mailboxes[0].address is None and local and b"@" not in written:
        whole = b"From: %b@%b%b\r\n" % (local[0], me.domain.encode(), written[local.end() :])
        rest = author.parse(whole[6:].rstrip())
        if len(rest) == 1 and rest[0].address:
            return header.replace(field, whole).to_bytes() + content[len(head) :]
    return content


def _me() -> tuple[str, str]:
    """The login name of who runs this, and the full name."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return f"uid{os.getuid()}", ""
    return entry.pw_name, entry.pw_gecos.partition(",")[0]


def _speak(client: smtplib.SMTP, hostname: str) -> int:
    """Standard input and output are a client's, until the relay ends the session."""
    connection = client.sock
    assert connection is not None  # it greeted
    connection.settimeout(None)
    _say(f"220 {hostname} ESMTP\r\n".encode())  # the relay's own was heard already
    try:
        with selectors.PollSelector() as selector, connection:  # which takes files as well
            selector.register(connection, selectors.EVENT_READ)
            selector.register(sys.stdin, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is connection:
                        if not (said := connection.recv(65536)):
                            return submit.OK
                        _say(said)
                    elif typed := os.read(sys.stdin.fileno(), 65536):
                        connection.sendall(typed)
                    else:
                        selector.unregister(sys.stdin)
                        connection.shutdown(socket.SHUT_WR)
    except OSError:
        raise NotTaken(submit.TEMPFAIL, "the connection was lost") from None


def _say(octets: bytes) -> None:
    sys.stdout.buffer.write(octets)
    sys.stdout.buffer.flush()


def sendmail() -> None:
    """Hand a message to the relay as sendmail does.

    For cron and PHP; `relay sendmail --help` has the options.
    """
    raise SystemExit(main(sys.argv[2:]))
