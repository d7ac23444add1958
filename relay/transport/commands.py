"""The envelope as commands: MAIL and RCPT with the parameters an upstream offers.

SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), RET, ENVID, NOTIFY and ORCPT (RFC 3461).
"""

from __future__ import annotations

from relay.mail.envelope import NOTIFY, Recipient
from relay.mail.reply import Reply
from relay.transport.offers import Offers
from relay.transport.port import DeliveryRequest

WHOLE = 256 * 1024  # up to this size a message in memory is sent in one write
NOT_A_COMMAND = Reply(553, "5.1.3", "an address of the envelope cannot be put into an SMTP command")


def commands(request: DeliveryRequest, offers: Offers) -> list[bytes] | Reply:
    """MAIL, then one RCPT for each recipient, each with its CRLF; or our own refusal, where this
    upstream cannot carry the message."""
    size = request.size
    if offers.size and size > offers.size:
        text = f"the message has {size} octets, the upstream takes at most {offers.size}"
        return Reply(552, "5.3.4", text)
    mail = f"MAIL FROM:<{request.reverse_path or ''}>"
    receivers = [f"RCPT TO:<{recipient.address}>" for recipient in request.recipients]
    if offers.size is not None:
        mail += f" SIZE={size}"
    if offers.eightbit and _may_be_8bit(request):
        mail += " BODY=8BITMIME"
    if request.smtputf8:
        mail += " SMTPUTF8"
    if offers.dsn:
        if request.ret:
            mail += f" RET={request.ret.upper()}"
        if request.envid:
            mail += f" ENVID={request.envid}"
        receivers = [line + _dsn(recipient) for line, recipient in zip(receivers, request.recipients, strict=True)]
    # The grammar of paths lets none of these through; a command is the last place to be sure of it.
    if not (_fits_a_line(mail) and all(map(_fits_a_line, receivers))):
        return NOT_A_COMMAND
    return [f"{line}\r\n".encode() for line in (mail, *receivers)]


def reports(request: DeliveryRequest, offers: Offers) -> bool:
    """True when the upstream gets DSN parameters of this request, and with them the duty to report."""
    return offers.dsn and bool(
        request.ret or request.envid or any(r.notify is not None or r.orcpt for r in request.recipients)
    )


def _fits_a_line(line: str) -> bool:
    return line.isprintable() or not any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in line)


def _may_be_8bit(request: DeliveryRequest) -> bool:
    content = request.content
    if not content.in_memory or content.size > WHOLE:
        return True
    return not (request.head.isascii() and content.read(request.body_offset, content.size).isascii())


def _dsn(recipient: Recipient) -> str:
    parameters = ""
    if recipient.notify is not None:
        wanted = ",".join(word.upper() for word in NOTIFY if word in recipient.notify)
        parameters = f" NOTIFY={wanted}" if wanted else ""
    return f"{parameters} ORCPT={recipient.orcpt}" if recipient.orcpt else parameters
