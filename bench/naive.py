"""A relay as one would write it in forty lines: aiosmtpd in front, aiosmtplib behind, `email` for From. No queue.

    python -m bench.naive PORT UPSTREAM_PORT

What was accepted has been delivered, so that nothing is lost; but while the upstream is away, nothing is accepted.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import sys
from pathlib import Path

import aiosmtplib
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from bench.peer import ADDRESS, Peer, Site


class Forward:
    """aiosmtpd's handler: one connection to the upstream for each message."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: ARG002
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content, policy=email.policy.SMTP)
        del message["From"]
        message["From"] = ADDRESS
        await aiosmtplib.send(
            message,
            sender=ADDRESS,
            recipients=envelope.rcpt_tos,
            hostname="127.0.0.1",
            port=self._upstream,
            start_tls=False,
        )
        return "250 OK"


def lay_out(folder: Path, site: Site) -> Peer:  # noqa: ARG001
    return Peer("naive", site.port, (sys.executable, "-m", "bench.naive", str(site.port), str(site.upstream)))


if __name__ == "__main__":
    Controller(
        Forward(int(sys.argv[2])), hostname="127.0.0.1", port=int(sys.argv[1]), data_size_limit=52_428_800
    ).start()
    asyncio.new_event_loop().run_forever()
