"""Office 365 refuses a sender: the relay repairs it by itself, says so, and does what its operator wants."""

from __future__ import annotations

import pytest

from relay.events import MessageQueued, RecipientDelivered, RecipientFailed, SenderForgotten, SenderJudged
from tests.kit.house import ACCOUNT, JAN, PIET, Site, mail
from tests.kit.upstream import KEYWORDS, Received
from tests.scenarios.desk import at_terminal, reachable
from tests.scenarios.desk import relay as run

REFUSED = "550 5.7.60 SMTP; Client does not have permissions to send as this sender"
DENIED = "554 5.2.252 SendAsDenied; relay@example.nl not allowed to send as jan@example.nl; STOREDRV.Submission"
RULE = {"name": "fallback", "address": ACCOUNT, "when": "refused", "display_name": "{name} via Administratie"}


def own_only(sender: str) -> str | None:
    return None if sender in ("", ACCOUNT) else REFUSED


def own_author_only(received: Received) -> str | None:
    head = received.content.partition(b"\r\n\r\n")[0]
    author = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"from:"))
    return None if ACCOUNT.encode() in author else DENIED


@pytest.mark.asyncio
@pytest.mark.parametrize("chunking", [False, True], ids=["by DATA", "in one write"])
@pytest.mark.parametrize("stage", ["mail", "dot"])
async def test_a_refused_sender_arrives_with_the_account_s_address_and_the_person_stays_reachable(
    site: Site, stage: str, chunking: bool
) -> None:
    terms = {"sender_allowed": own_only} if stage == "mail" else {"content_allowed": own_author_only}
    async with site.upstream(**terms, keywords=(*KEYWORDS, "CHUNKING")) as own:
        way = site.way_to(own, preset="m365", auth="auto", chunking=chunking)
        site.configure(upstreams={"own": way}, senders=[RULE])
        async with site.house() as house:
            first = await house.send(JAN, [PIET])
            await house.event(RecipientDelivered, queue_id=first)
            second = await house.send(JAN, [PIET])
            await house.event(RecipientDelivered, queue_id=second)
            judged = house.seen.all(SenderJudged)
    assert [(event.reverse_path, event.author) for event in judged] == [(JAN, JAN)]
    assert [received.reverse_path for received in own.messages] == [ACCOUNT, ACCOUNT]
    assert (own.chunks > 0) == chunking
    for received in own.messages:
        head = received.content.partition(b"\r\n\r\n")[0]
        assert b"From: Jan via Administratie <relay@example.nl>" in head
        assert b"Reply-To: Jan <jan@example.nl>" in head
        assert b"X-Original-From: Jan <jan@example.nl>" in head
    mails = [command for command in own.commands if command.startswith("MAIL")]
    assert len([command for command in mails if JAN in command]) == (1 if stage == "mail" else 2)  # confirmed once


@pytest.mark.asyncio
async def test_a_sender_with_no_rule_to_repair_it_comes_back_with_what_to_do(site: Site) -> None:
    async with site.upstream(sender_allowed=own_only) as own:
        site.configure(upstreams={"own": site.way_to(own, preset="m365", auth="auto")}, bounces={"from": ACCOUNT})
        async with site.house() as house:
            queue_id = await house.send(JAN, [PIET])
            failed = await house.event(RecipientFailed, queue_id=queue_id)
            bounce = await own.message()
    assert failed.refusal == "sender-refused"
    assert bounce.recipients == (JAN,)
    text = bounce.content.replace(b"=\r\n", b"")
    assert b"weigert jan@example.nl als afzender" in text
    assert b"refuses jan@example.nl as the sender" in text
    assert b"5.7.60" in text


@pytest.mark.asyncio
async def test_an_operator_sees_forgets_and_pins_refused_senders(site: Site) -> None:
    async with site.upstream(sender_allowed=own_only) as own:
        site.configure(upstreams={"own": site.way_to(own)}, senders=[RULE])
        async with site.house() as house:
            await reachable(site)
            nobody = await run(site, "senders", "list")
            await house.event(RecipientDelivered, queue_id=await house.send(JAN, [PIET]))
            listed = await run(site, "senders", "list")
            shown = await at_terminal(site, 80, "senders", "list")
            forgotten = await run(site, "senders", "forget", JAN)
            await house.event(SenderForgotten)
            again = await run(site, "senders", "forget", JAN)
            pinned = await run(site, "senders", "pin", "own", "els@example.nl")
            before = len(own.commands)
            await house.event(
                RecipientDelivered, queue_id=await house.send("els@example.nl", [PIET], mail(sender="els@example.nl"))
            )
            tried = [line for line in own.commands[before:] if line.startswith("MAIL")]
    assert (nobody.code, nobody.err) == (0, "no sender is known to be refused\n")
    assert listed.lines[1].split()[:2] == [JAN, "own"]
    assert all(len(line) <= 80 for line in shown.plain.splitlines())
    assert forgotten.out == "jan@example.nl: tried unchanged again at own\n"
    assert (again.code, again.err) == (4, 'relay: "jan@example.nl" is not known to be refused at any upstream\n')
    assert pinned.out == "els@example.nl: taken as refused at own until it is forgotten\n"
    assert [ACCOUNT in line for line in tried] == [True]


@pytest.mark.asyncio
async def test_what_is_remembered_is_known_after_a_restart(site: Site) -> None:
    async with site.upstream(sender_allowed=own_only) as own:
        site.configure(upstreams={"own": site.way_to(own)}, senders=[RULE])
        async with site.house() as house:
            await house.event(RecipientDelivered, queue_id=await house.send(JAN, [PIET]))
        tries = len([line for line in own.commands if line.startswith(f"MAIL FROM:<{JAN}")])
        async with site.house() as house:
            await house.event(RecipientDelivered, queue_id=await house.send(JAN, [PIET]))
            assert house.seen.all(MessageQueued)[0].rule == "fallback"
        offline = await run(site, "senders", "forget", "--all")
    assert tries == 1
    assert len([line for line in own.commands if line.startswith(f"MAIL FROM:<{JAN}")]) == 1
    assert offline.out == "jan@example.nl: tried unchanged again at own\n"
