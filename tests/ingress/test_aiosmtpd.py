"""What runs of aiosmtpd while clients are served is what docs/decisions says."""

from __future__ import annotations

import base64
import gc
import re
import ssl
import sys
from pathlib import Path
from types import FrameType

import aiosmtpd
import pytest

from tests.ingress.house import Client, HouseOf, hard_reset
from tests.kit.certificates import Certificates

PAGE = Path(__file__).parents[2] / "docs/decisions/6-what-runs-of-aiosmtpd.md"
LIBRARY = str(Path(aiosmtpd.__file__).parent)
MESSAGE = b"From: jan@example.nl\r\n\r\nHallo\r\n"


async def everything(client: Client, trusting: ssl.SSLContext) -> None:
    """A session that uses all that the door can do."""
    await client.say(b"NOOP", b"VRFY jan", b"EXPN all", b"HELP", b"NONSENSE", b"HELO pc", b"STARTTLS")
    await client.start_tls(trusting)
    assert (await client.say(b"EHLO pc.example.nl"))[:3] == b"250"
    assert (await client.say(b"AUTH CRAM-MD5"))[:3] == b"504"
    assert (await client.say(b"AUTH LOGIN", b"!"))[:3] == b"501"
    assert (await client.say(b"AUTH LOGIN", base64.b64encode(b"jan"), base64.b64encode(b"fout")))[:3] == b"535"
    assert (await client.say(b"AUTH PLAIN " + base64.b64encode(b"\0jan\0goed")))[:3] == b"235"
    assert (await client.mail(MESSAGE))[:3] == b"250"
    await client.say(b"MAIL FROM:<jan@example.nl> SIZE=30", b"RCPT TO:<piet@example.com> NOTIFY=NEVER", b"RSET")
    await client.say(b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<piet@example.com>")
    assert (await client.say(b"BDAT %d LAST\r\n%b" % (len(MESSAGE), MESSAGE[:-2])))[:3] == b"250"
    assert (await client.say(b"QUIT"))[:3] == b"221"
    await client.end()


@pytest.mark.asyncio
async def test_what_runs_of_aiosmtpd_is_what_the_decision_names(house_of: HouseOf, certificates: Certificates) -> None:
    named = re.findall(r"^- `([\w.]+)`", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    ran: set[str] = set()

    def notice(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(LIBRARY):
            ran.add(frame.f_code.co_qualname)

    trusting = ssl.create_default_context(cafile=certificates.ca_path)
    tls = {"tls": "starttls", "tls_context": certificates.good.server()}
    async with house_of(auth="users", verify=lambda _, password: password == "goed", **tls) as house:
        sys.setprofile(notice)
        try:
            await everything(await house.client(), trusting)
            hard_reset(await house.client())
            await house.nobody_is_left()
            gc.collect()
        finally:
            sys.setprofile(None)
    assert sorted(ran) == sorted(named)
