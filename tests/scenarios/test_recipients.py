"""A provider that takes few recipients in one transaction: the others go at once, nobody bounces, and it is remembered.

`retry` is an hour in all of these: what did not go at once would not arrive while a test waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from relay.events import (
    NotificationQueued,
    RecipientDeferred,
    RecipientDelivered,
    RecipientFailed,
    RecipientsLimited,
    UpstreamSetAside,
    UpstreamThrottled,
)
from tests.kit.extent import kinds
from tests.kit.house import JAN, RunningHouse, Site, mail
from tests.kit.upstream import KEYWORDS, ScriptedUpstream, Session, then_drop
from tests.scenarios.desk import reachable, relay

MOST = 3
EIGHT = [f"klant{number}@example.org" for number in range(8)]
GONE = "weg@example.org"
STEP_BY_STEP = tuple(word for word in KEYWORDS if word != "PIPELINING")
IN_ONE_WRITE = (*KEYWORDS, "CHUNKING")
SAID = (
    "452 4.5.3 Too many recipients",
    "451 4.5.3 Recipient limit exceeded",
    "550 5.5.3 At most 3 recipients in one message",
    "550 Te veel ontvangers",
    "552 Too many recipients",
    "554 5.7.1 Recipient address rejected: Too many recipients, reduce to less than 4",
    "503 5.5.0 Maximum number of recipients reached",
    "421 4.5.3 Too many recipients, closing connection",
)
CASES = [
    (stage, said, keywords)
    for stage in ("rcpt", "data", "dot")
    for said in SAID
    for keywords in (KEYWORDS, STEP_BY_STEP, IN_ONE_WRITE)
    # With CHUNKING there is no DATA, and a 503 says that BDAT is not known.
    if keywords is not IN_ONE_WRITE or (stage != "data" and not said.startswith("503"))
]


class Few(ScriptedUpstream):
    """Says `said` at the fourth recipient, or at DATA or after the content where there are more than three; nowhere for
    stage "". It does not know one address."""

    def __init__(self, stage: str, said: str, **terms: Any) -> None:
        super().__init__(**terms)
        act = then_drop(said) if said.startswith("421") else said
        if stage in ("", "dot"):
            self.content_allowed = lambda received: said if stage and len(received.recipients) > MOST else None
        else:
            more = int(stage == "rcpt")
            self.script(stage, lambda session: act if len(session.recipients) + more > MOST else None, times=None)

    async def _on_rcpt(self, session: Session, argument: str) -> None:
        if GONE in argument:
            await self._send(session, b"550 5.1.1 User unknown\r\n")
        else:
            await super()._on_rcpt(session, argument)

    @property
    def got(self) -> list[str]:
        return sorted(one for received in self.messages for one in received.recipients)

    @property
    def in_vain(self) -> int:
        """Transactions that led to nothing, and recipients of others that were refused."""
        mails, rcpts = (sum(command.startswith(verb) for command in self.commands) for verb in ("MAIL", "RCPT"))
        return mails - len(self.messages) + rcpts - len(self.got)


def configured(site: Site, own: ScriptedUpstream, **settings: Any) -> None:
    site.configure(upstreams={"own": site.way_to(own, **settings)}, routes={"default": {"retry": "1h"}})


async def delivered(house: RunningHouse, recipients: Sequence[str]) -> str:
    """A message to these, and all but those who do not exist have it; its queue ID."""
    queue_id = await house.send(JAN, recipients)
    there = set(recipients) - {GONE}
    await house.seen.until(
        lambda: there <= {event.recipient for event in house.seen.all(RecipientDelivered, queue_id=queue_id)}
    )
    await house.empty()
    return queue_id


def blamed(house: RunningHouse) -> bool:
    """Whether somebody was told of a failure or a delay, or took the upstream for sick."""
    return any(house.seen.all(kind) for kind in (NotificationQueued, UpstreamSetAside, UpstreamThrottled))


def kind(case: tuple[str, str, tuple[str, ...]]) -> tuple[str, str]:
    return case[0], case[1][:3]


@pytest.mark.asyncio
@pytest.mark.parametrize("case", kinds(CASES, kind, lambda case: f"{case[0]}, {case[1]}, {len(case[2])}"))
async def test_whoever_is_one_too_many_goes_at_once_whatever_code_says_it_and_where(
    site: Site, case: tuple[str, str, tuple[str, ...]]
) -> None:
    stage, said, keywords = case
    async with Few(stage, said, keywords=keywords) as own:
        configured(site, own)
        async with site.house() as house:
            await delivered(house, EIGHT)
            assert own.got == sorted(EIGHT)
            assert not blamed(house)
            assert house.seen.all(RecipientDeferred) == []
            learnt = house.seen.all(RecipientsLimited)[-1].recipients
            assert learnt == (MOST if stage == "rcpt" or " 3 " in said else MOST - 1)  # else they are halved: 4, 2
            # The next message is right at once.
            before = own.in_vain
            await delivered(house, EIGHT)
        async with site.house() as house:  # also after a restart
            await delivered(house, EIGHT)
            assert not house.seen.all(RecipientsLimited)
    assert own.in_vain == before
    assert own.got == sorted(EIGHT * 3)


@pytest.mark.asyncio
@pytest.mark.parametrize("place", [1, 3, 6], ids=["among those taken", "the fourth", "among the others"])
@pytest.mark.parametrize("said", [SAID[0], SAID[3], SAID[7]])
@pytest.mark.parametrize("stage", ["rcpt", "data"])
async def test_one_who_is_truly_refused_bounces_alone(site: Site, stage: str, said: str, place: int) -> None:
    recipients = [*EIGHT[:place], GONE, *EIGHT[place:]]
    async with Few(stage, said) as own:
        configured(site, own)
        async with site.house() as house:
            queue_id = await delivered(house, recipients)
            assert [event.recipient for event in house.seen.all(RecipientFailed, queue_id=queue_id)] == [GONE]
            assert len(house.seen.all(NotificationQueued)) == 1
    bounces = [received for received in own.messages if received.reverse_path == ""]
    assert own.got == sorted([*EIGHT, *(one for bounce in bounces for one in bounce.recipients)])
    assert len(bounces) == 1


@pytest.mark.asyncio
async def test_data_that_is_refused_behind_one_too_many_costs_nobody_anything(site: Site) -> None:
    async with Few("rcpt", "550 5.5.3 Too many recipients") as own:
        own.script("data", "503 5.5.1 Bad sequence of commands")
        configured(site, own)
        async with site.house() as house:
            await delivered(house, EIGHT)
            assert not blamed(house)
    assert own.got == sorted(EIGHT)


@pytest.mark.asyncio
async def test_a_goodbye_for_too_many_errors_behind_one_too_many_costs_nobody_anything(site: Site) -> None:
    async with Few("", "") as own:
        said = [
            "452 4.5.3 Too many recipients",
            "452 4.5.3 Too many recipients",
            then_drop("421 4.7.0 Too many errors"),
        ]
        own.script("rcpt", *[lambda _: None] * MOST, *said)
        configured(site, own)
        async with site.house() as house:
            await delivered(house, EIGHT)
            assert not blamed(house)
            assert house.seen.all(RecipientsLimited)[-1].recipients == MOST
    assert own.got == sorted(EIGHT)


@pytest.mark.asyncio
async def test_452_without_a_word_behind_others_is_one_too_many(site: Site) -> None:
    async with Few("rcpt", "452 Requested action not taken") as own:
        configured(site, own)
        async with site.house() as house:
            await delivered(house, EIGHT)
            assert not blamed(house)
    assert own.got == sorted(EIGHT)


@pytest.mark.asyncio
async def test_a_server_that_counts_over_the_connection_gets_another_one(site: Site) -> None:
    """Four recipients are too many for a connection, in however many transactions."""
    async with Few("", "") as own:
        counted: dict[int, int] = {}

        def spent(session: Session) -> str | None:
            counted[session.number] = counted.get(session.number, 0) + 1
            return "452 4.5.3 Too many recipients" if counted[session.number] > MOST else None

        own.script("rcpt", spent, times=None)
        configured(site, own)
        async with site.house() as house:
            await delivered(house, EIGHT)
            assert not blamed(house)
    assert own.got == sorted(EIGHT)


@pytest.mark.asyncio
@pytest.mark.parametrize("said", ["550 5.5.3 Too many recipients", "452 4.5.3 Too many recipients"])
async def test_where_even_one_is_too_many_mail_waits(site: Site, said: str) -> None:
    async with ScriptedUpstream() as own:
        own.script("rcpt", said, times=None)
        configured(site, own)
        async with site.house() as house:
            await house.send(JAN, EIGHT)
            await house.event(RecipientDeferred, len(EIGHT))
            assert not house.seen.all(RecipientsLimited) + house.seen.all(RecipientFailed)


@pytest.mark.asyncio
async def test_status_shows_how_many_recipients_are_taken_at_once_also_after_a_restart(site: Site) -> None:
    async with Few("rcpt", SAID[0]) as own:
        configured(site, own, max_recipients=50)
        async with site.house() as house:
            await reachable(site)
            (before,) = (await relay(site, "status", "--json")).document["status"]["upstreams"]
            assert (before["max_recipients"], before["max_recipients_until"]) == (50, None)
            await delivered(house, EIGHT)
        async with site.house():
            await reachable(site)
            (now,) = (await relay(site, "status", "--json")).document["status"]["upstreams"]
            assert now["max_recipients"] == MOST
            assert now["max_recipients_until"] is not None
            assert f"{MOST}_recipients_at_once_until_" in (await relay(site, "status")).out


@pytest.mark.asyncio
async def test_a_pace_that_allows_no_further_transaction_now_does_not_lose_the_place(site: Site) -> None:
    async with Few("data", SAID[4]) as own:
        configured(site, own, rate="4/s")
        async with site.house() as house:
            await delivered(house, EIGHT)
            assert not house.seen.all(NotificationQueued)
    assert own.got == sorted(EIGHT)


@pytest.mark.asyncio
@pytest.mark.parametrize("said", [SAID[2], SAID[7]])
async def test_a_session_code_for_several_reaches_all_of_them(site: Site, said: str) -> None:
    async with Few("rcpt", said) as own:
        configured(site, own)
        site.configuration["session_codes"] = {"enabled": True, "via_own_smtp": True, "fallback": False}
        site.write()
        async with site.house() as house:
            await house.send(JAN, EIGHT, mail("Uw inlogcode 913-557"))
            await house.event(RecipientDelivered, len(EIGHT), session_code=True)
            await house.empty()
    assert own.got == sorted(EIGHT)


@pytest.mark.asyncio
async def test_who_waits_for_the_provider_s_own_answer_hears_that_all_were_taken(site: Site) -> None:
    async with Few("data", SAID[4]) as own:
        configured(site, own)
        site.configuration["listeners"][0]["reply"] = "direct"
        site.write()
        async with site.house() as house:
            await house.send(JAN, EIGHT)
            assert len(house.seen.all(RecipientDelivered)) == len(EIGHT)
    assert own.got == sorted(EIGHT)
