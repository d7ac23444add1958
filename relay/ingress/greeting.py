"""What EHLO is answered with: the extensions that a client may use now (RFC 5321, section 4.1.1.1)."""

from __future__ import annotations

from relay.ingress.authenticate import offered
from relay.ingress.settings import ListenerSettings


def capabilities(settings: ListenerSettings, *, size: int, starttls: bool, auth: bool) -> bytes:
    """The reply, in one piece: clients were seen that read it with a single recv."""
    lines = [
        settings.hostname.encode("ascii", "replace"),
        b"SIZE %d" % size,
        b"8BITMIME",
        b"SMTPUTF8",
        b"PIPELINING",
        b"CHUNKING",
        b"DSN",
        b"ENHANCEDSTATUSCODES",
    ]
    if starttls:
        lines.append(b"STARTTLS")
    if auth:
        mechanisms = offered(settings.auth)
        lines.append(b"AUTH " + mechanisms)
        lines.append(b"AUTH=" + mechanisms)  # what old Outlook looks for
    lines.append(b"HELP")
    return b"".join([b"250-%b\r\n" % line for line in lines[:-1]]) + b"250 %b\r\n" % lines[-1]
