"""An upstream whose encryption is not what it should be gets nothing: no mail, no account, no password."""

from __future__ import annotations

import pytest

from relay.events import RecipientDelivered, UpstreamSetAside
from relay.mail.outcome import Stage
from tests.kit.house import JAN, PIET, Site
from tests.kit.upstream import ScriptedUpstream

KINDS = {
    "expired": "expired",
    "wrong_name": "mail.example.net",
    "untrusted": "unknown authority",
    "self_signed": "self-signed",
}


def nothing_left_for(upstream: ScriptedUpstream) -> None:
    assert upstream.messages == []
    assert upstream.auth_tries == []
    assert {command.partition(" ")[0] for command in upstream.commands} <= {"EHLO", "STARTTLS"}


@pytest.mark.asyncio
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize(("kind", "words"), KINDS.items())
async def test_mail_waits_for_a_good_certificate_and_then_flows_by_itself(
    site: Site, kind: str, words: str, tls: str
) -> None:
    bad = getattr(site.certificates, kind)
    async with site.upstream(tls=tls, certificate=bad) as own:
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            aside = await house.event(UpstreamSetAside, upstream="own")
            assert aside.stage is Stage.TLS
            assert words in aside.text
            nothing_left_for(own)
            await own.go_down()
            await own.come_back(site.certificates.good)
            await house.event(RecipientDelivered, queue_id=queue_id)
    assert (await own.message()).tls


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["not offered", "refused"])
async def test_without_starttls_nothing_is_sent_and_mail_flows_when_it_is_there_again(site: Site, how: str) -> None:
    async with site.upstream() as own:
        if how == "refused":
            own.script("starttls", "454 4.7.0 TLS not available", times=None)
        else:
            own.script("ehlo", "250-upstream.example\r\n250 AUTH PLAIN LOGIN", times=None)
        site.configure(upstreams={"own": site.way_to(own)})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            aside = await house.event(UpstreamSetAside, upstream="own")
            assert aside.stage is Stage.STARTTLS
            assert aside.code == (454 if how == "refused" else 0)
            nothing_left_for(own)
            own.unscript("starttls")
            own.unscript("ehlo")
            await house.event(RecipientDelivered, queue_id=queue_id)


@pytest.mark.asyncio
async def test_a_certificate_authority_that_is_trusted_by_a_reload_lets_the_mail_flow(site: Site) -> None:
    async with site.upstream() as own:
        ca_path = site.folder / "ca.pem"
        ca_path.write_bytes(site.certificates.self_signed.pem)
        way = site.way_to(own, tls_ca=str(ca_path))
        site.configure(upstreams={"own": way}, routes={"default": {"retry": "1h"}})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            assert "unknown authority" in (await house.event(UpstreamSetAside)).text
            nothing_left_for(own)
            with open(site.certificates.ca_path, "rb") as good:
                ca_path.write_bytes(good.read())
            await house.relay.reload()
            await house.event(RecipientDelivered, queue_id=queue_id)
