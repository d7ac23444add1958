"""Whether a mail arrived as it should: once, by the right way, from the right sender, and otherwise untouched. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import parseaddr

from relay.demo.mails import Mail
from relay.demo.upstream import Received
from relay.mail.author import parse
from relay.mail.header import Header, split, value

# What a rewriting may change; every other field of the mail must be there, byte for byte.
_MAY_CHANGE = (b"from", b"sender")


def arrivals(mail: Mail, received: Sequence[Received]) -> list[Received]:
    """Those among `received` that are this mail, told by recipients and body."""
    body = _sent(mail)[1]
    return [one for one in received if one.body == body and set(one.recipients) <= set(mail.recipients)]


def problems(mail: Mail, received: Sequence[Received]) -> list[str]:
    """What is wrong, in words; empty when the mail arrived exactly as it should."""
    found = arrivals(mail, received)
    if not found:
        return ["it did not arrive, or its body was changed"]
    wrong = []
    arrived = sorted(recipient for one in found for recipient in one.recipients)
    if arrived != sorted(mail.recipients):
        wrong.append(f"it arrived for {', '.join(arrived)}")
    for one in found:
        wrong += _differences(mail, one)
    return wrong


def _differences(mail: Mail, one: Received) -> list[str]:
    authors = parse(value(field)) if (field := one.header.first(b"from")) else ()
    reply_to = parseaddr(one.field(b"reply-to"))[1]
    checks = {
        f"it left by {one.upstream}, not by {mail.upstream}": one.upstream == mail.upstream,
        f"its From is {one.field(b'from')}": [author.address for author in authors] == [mail.left_from],
        f"its author is called {authors[0].name if authors else 'nothing'}": bool(authors)
        and authors[0].name == mail.left_name,
        f"its reverse-path is {one.reverse_path}": one.reverse_path == mail.left_from,
        f"its Reply-To is {reply_to or 'missing'}": reply_to == mail.reply_to,
        "it came without TLS": one.tls.startswith("TLS"),
        **{f"its {name.decode()} was changed": raw in one.header.fields for name, raw in _kept(mail)},
    }
    return [problem for problem, right in checks.items() if not right]


def _kept(mail: Mail) -> list[tuple[bytes, tuple[bytes, bytes]]]:
    return [(field[0], field) for field in _sent(mail)[0].fields if field[0] not in _MAY_CHANGE]


def _sent(mail: Mail) -> tuple[Header, bytes]:
    """Header and body with line ends as RFC 5321 wants them, which is what should arrive."""
    content = mail.content.replace(b"\r\n", b"\n").removesuffix(b"\n").replace(b"\n", b"\r\n") + b"\r\n"
    length = split(content)
    return Header.parse(content[:length]), content[length:]
