"""What is tolerated is told: one event for each message, none for a clean one."""

from __future__ import annotations

import pytest

from relay.events import ClientDescribed, QuirksTolerated, SessionEnded
from relay.ingress import replies
from relay.ingress.quirks import NONE, of_head, software
from relay.mail.quirk import Quirk
from tests.ingress.house import MESSAGE, HouseOf, hard_reset, on_both_loops
from tests.kit.sentences import EN, NL

FROM, DATE, ID = (
    b"From: jan@example.nl\r\n",
    b"Date: Tue, 24 Nov 2026 07:20:09 +0100\r\n",
    b"Message-ID: <1@example.nl>\r\n",
)
CLEAN = FROM + DATE + ID + b"\r\nHallo\r\n"
ENVELOPE = [b"MAIL FROM:<jan@example.nl>", b"RCPT TO:<piet@example.com>"]


def test_each_quirk_is_explained_in_one_sentence() -> None:
    assert EN["quirk"].keys() - {"newer"} == set(Quirk)
    assert all(sentence.endswith(".") for tables in (EN, NL) for sentence in tables["quirk"].values())


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (FROM + DATE + ID + b"\r\n", set()),
        (b"X: y\r\n" + ID.upper() + DATE.lower() + b"FROM : jan@example.nl\r\n\r\n", set()),
        (FROM + DATE + b"Message-Id\t: <1@example.nl>\r\n", set()),
        (DATE + ID + b"\r\n", {Quirk.NO_FROM}),
        (FROM + ID + b"\r\n", {Quirk.NO_DATE}),
        (FROM + DATE + b"\r\n", {Quirk.NO_MESSAGE_ID}),
        (b"X-From: a\r\nReply-Date: b\r\nX: Message-ID: c\r\n\r\n", {"no-from", "no-date", "no-message-id"}),
        (b"X: a\r\n from: b\r\n\tdate: c\r\n message-id: d\r\n", {"no-from", "no-date", "no-message-id"}),
        (b"", {"no-header", "no-from", "no-date", "no-message-id"}),
        (FROM + DATE + ID + b"Subject: caf\xe9\r\n\r\n", {Quirk.EIGHT_BIT_HEADER}),
        (FROM + DATE + ID + b"Subject: a\r\nsubject : b\r\n\r\n", {Quirk.DUPLICATE_FIELD}),
        (FROM + DATE + ID + ID, {Quirk.DUPLICATE_FIELD}),
        (FROM + DATE + ID + b"Reply-To: a\r\nX: y\r\nREPLY-TO: b\r\n", {Quirk.DUPLICATE_FIELD}),
        (FROM + DATE + ID + b"To: a\r\n To: b\r\nX-To: c\r\nResent-To: d\r\nResent-To: e\r\n", set()),
        (FROM + DATE + ID + b"Received: a\r\nReceived: b\r\nX: y\r\nX: z\r\n", set()),
    ],
)
def test_quirks_of_a_header(head: bytes, found: set[str]) -> None:
    assert of_head(head, size=1_000) == found


def test_a_header_beyond_ascii_is_right_where_smtputf8_was_asked_for() -> None:
    assert of_head(FROM + DATE + ID + "Subject: café\r\n".encode(), size=100, smtputf8=True) is NONE


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (FROM + b"X-Mailer: iMUIS 5.3\r\n\r\n", "iMUIS 5.3"),
        (FROM + b"user-agent :  Thunderbird\r\n\tfor Windows \r\nX: y\r\n", "Thunderbird\tfor Windows"),
        (FROM + b"X-Mailer: \x1b[2J\x00\xe9\r\n", "?[2J?\ufffd"),
        (FROM + b"X-Mailer: " + b"x" * 10_000 + b"\r\n", "x" * 254 + "…"),
        (FROM + b"Subject: about x-mailer: and user-agent:\r\n\r\n", ""),
        (FROM, ""),
        (b"", ""),
    ],
)
def test_the_software_of_a_client_is_what_it_says(head: bytes, name: str) -> None:
    told = software(head)
    assert told.replace(" ", "\t") == name.replace(" ", "\t")
    assert told.isprintable()


@on_both_loops
async def test_a_clean_session_tells_of_no_quirk_and_describes_its_client_once(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        for _ in range(2):
            assert (await client.mail(FROM + b"X-Mailer: iMUIS\r\n" + DATE + ID + b"\r\nHallo\r\n"))[:3] == b"250"
        client.send(b"MAIL FROM:<jan@example.nl> SIZE=1000 BODY=8BITMIME RET=HDRS ENVID=1 SMTPUTF8\r\n")
        client.send(b"RCPT TO:<piet@example.com> NOTIFY=NEVER ORCPT=rfc822;piet@example.com\r\nDATA\r\n")
        for _ in range(3):
            await client.reply()
        assert (await client.say(CLEAN + b"."))[:3] == b"250"
        await client.say(b"QUIT")
        await house.observed.until(SessionEnded)
        assert not house.observed.of(QuirksTolerated)
        (described,) = house.observed.of(ClientDescribed)
        assert described == ClientDescribed("legacy", "127.0.0.1", "pc.example.nl", "iMUIS")


COMMANDS: dict[Quirk, list[bytes]] = {
    Quirk.SPACE_IN_PATH: [b"MAIL FROM : <jan@example.nl>", ENVELOPE[1]],
    Quirk.NO_BRACKETS: [ENVELOPE[0], b"RCPT TO:piet@example.com"],
    Quirk.NAME_IN_PATH: [b'MAIL FROM:"Jan" <jan@example.nl>', ENVELOPE[1]],
    Quirk.SOURCE_ROUTE: [ENVELOPE[0], b"RCPT TO:<@a.nl,@b.nl:piet@example.com>"],
    Quirk.TRAILING_DOT: [b"MAIL FROM:<jan@example.nl.>", ENVELOPE[1]],
    Quirk.DOTS_IN_LOCAL_PART: [ENVELOPE[0], b"RCPT TO:<piet..de.vries@example.com>"],
    Quirk.EIGHT_BIT_PATH: [ENVELOPE[0], "RCPT TO:<josé@example.com>".encode()],
    Quirk.UNKNOWN_PARAMETER: [ENVELOPE[0] + b" AUTH=<>", ENVELOPE[1]],
    Quirk.BINARYMIME: [ENVELOPE[0] + b" BODY=BINARYMIME", ENVELOPE[1]],
    Quirk.SIZE_TOO_SMALL: [ENVELOPE[0] + b" SIZE=10", ENVELOPE[1]],
}  # fmt: skip


@pytest.mark.parametrize("quirk", COMMANDS)
@on_both_loops
async def test_a_quirk_of_a_command_is_told_with_its_message(house_of: HouseOf, quirk: Quirk) -> None:
    async with house_of() as house:
        client = await house.client()
        for command in COMMANDS[quirk]:
            assert (await client.say(command))[:3] == b"250"
        assert not house.observed.of(QuirksTolerated)
        await client.say(b"DATA")
        assert (await client.say(CLEAN + b"."))[:3] == b"250"
        assert house.observed.of(QuirksTolerated) == [QuirksTolerated("legacy", "127.0.0.1", (quirk,))]
        assert (await client.mail(CLEAN))[:3] == b"250"
        await client.say(b"QUIT")
        await house.observed.until(SessionEnded)
        assert len(house.observed.of(QuirksTolerated)) == 1


CONTENT: dict[Quirk, bytes] = {
    Quirk.BARE_LF: CLEAN + b"a\nb\r\n",
    Quirk.BARE_CR: CLEAN + b"a\rb\r\n",
    Quirk.LONG_LINE: CLEAN + b"x" * 2_000_000 + b"\r\n",
    Quirk.NO_FROM: DATE + ID + b"To: undisclosed-recipients:;\r\n\r\n",
    Quirk.NO_DATE: FROM + ID + b"\r\n",
    Quirk.NO_MESSAGE_ID: FROM + DATE + b"\r\n",
    Quirk.EIGHT_BIT_HEADER: FROM + DATE + ID + b"Subject: caf\xe9\r\n\r\n",
    Quirk.DUPLICATE_FIELD: FROM + DATE + ID + b"To: a@b.nl\r\nTo: c@d.nl\r\n\r\n",
    Quirk.NUL: CLEAN + b"regel\r\n" * 60_000 + b"\0\r\n" + b"regel\r\n" * 60_000,
}  # fmt: skip


@pytest.mark.parametrize("quirk", CONTENT)
@on_both_loops
async def test_a_quirk_of_the_content_is_told_when_the_message_is_taken(house_of: HouseOf, quirk: Quirk) -> None:
    async with house_of() as house:
        client = await house.client()
        house.space = False
        assert await client.say(ENVELOPE[0]) == replies.STORE_FULL
        house.space = True
        assert (await client.mail(CONTENT[quirk]))[:3] == b"250"
        assert house.observed.of(QuirksTolerated) == [QuirksTolerated("legacy", "127.0.0.1", (quirk,))]


@on_both_loops
async def test_a_message_without_a_header_is_told(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        assert (await client.mail(b"Hallo Piet\r\n"))[:3] == b"250"
        (event,) = house.observed.of(QuirksTolerated)
        assert Quirk.NO_HEADER in event.quirks


@on_both_loops
async def test_content_that_is_refused_tells_of_no_quirk(house_of: HouseOf) -> None:
    async with house_of(max_message_size=1_000) as house:
        client = await house.client()
        assert await client.mail(b"x" * 1_500 + b"\n\r\n") == replies.TOO_LARGE
        await client.say(b"QUIT")
        await house.observed.until(SessionEnded)
        assert not house.observed.of(QuirksTolerated)


@on_both_loops
async def test_a_session_without_a_greeting_and_one_in_haste_are_told(house_of: HouseOf) -> None:
    async with house_of() as house:
        silent = await house.connect()
        await silent.reply()
        assert (await silent.mail(CLEAN))[:3] == b"250"
        hasty = await house.connect()
        hasty.send(b"HELO pc\r\n" + b"\r\n".join(ENVELOPE) + b"\r\nDATA\r\n" + CLEAN + b".\r\nQUIT\r\n")
        assert (await hasty.end())[:3] == b"220"
        assert [event.quirks for event in house.observed.of(QuirksTolerated)] == [
            (Quirk.NO_HELO,),
            (Quirk.EARLY_PIPELINING,),
        ]


@on_both_loops
async def test_commands_behind_the_first_ehlo_are_told_and_behind_a_later_one_not(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.connect()
        client.send(b"EHLO pc\r\n" + b"\r\n".join(ENVELOPE) + b"\r\nDATA\r\n" + CLEAN + b".\r\n")
        assert (await client.reply())[:3] == b"220"
        for _ in range(5):
            await client.reply()
        assert [event.quirks for event in house.observed.of(QuirksTolerated)] == [(Quirk.EARLY_PIPELINING,)]
        client.send(b"EHLO pc\r\nNOOP\r\nQUIT\r\n")
        await client.end()
        await house.observed.until(SessionEnded)
        assert len(house.observed.of(QuirksTolerated)) == 1


@on_both_loops
async def test_pipelining_after_ehlo_offered_it_is_no_quirk(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.client()
        client.send(b"\r\n".join(ENVELOPE) + b"\r\nDATA\r\n" + CLEAN + b".\r\nQUIT\r\n")
        await client.end()
        await house.observed.until(SessionEnded)
        assert not house.observed.of(QuirksTolerated)


@pytest.mark.parametrize("how", ["eof", "reset"])
@on_both_loops
async def test_a_session_that_ends_without_quit_is_told(house_of: HouseOf, how: str) -> None:
    async with house_of() as house:
        client = await house.client()
        await client.say(b"MAIL FROM:<jan@example.nl>")
        if how == "eof":
            client.writer.write_eof()
        else:
            hard_reset(client)
        await house.observed.until(SessionEnded)
        assert [event.quirks for event in house.observed.of(QuirksTolerated)] == [(Quirk.NO_QUIT,)]


@on_both_loops
async def test_a_look_whether_somebody_listens_is_no_quirk(house_of: HouseOf) -> None:
    async with house_of() as house:
        client = await house.connect()
        await client.reply()
        client.writer.write_eof()
        await house.observed.until(SessionEnded)
        assert not house.observed.of(QuirksTolerated)


@on_both_loops
async def test_a_client_that_ends_its_data_with_lf_dot_lf_is_understood_where_that_is_allowed(
    house_of: HouseOf,
) -> None:
    async with house_of(bare_newline="accept-lf-dot") as house:
        client = await house.client()
        for command in (*ENVELOPE, b"DATA"):
            await client.say(command)
        client.send(CLEAN.replace(b"\r\n", b"\n") + b".\nNOOP\r\n")
        assert (await client.reply())[:3] == b"250"
        assert await client.reply() == replies.OK
        (event,) = house.observed.of(QuirksTolerated)
        assert event.quirks == (Quirk.BARE_LF, Quirk.LF_DOT)
        evil = b"\n.\nMAIL FROM:<evil@example.com>\nRCPT TO:<victim@example.com>\nDATA\nboo\n.\n\r\n"
        assert (await client.mail(CLEAN + b"x" + evil))[:3] == b"250"
        assert await client.say(b"NOOP") == replies.OK
        assert len(await house.entries()) == 2


@on_both_loops
async def test_addresses_are_completed_where_the_listener_does(house_of: HouseOf) -> None:
    async with house_of(complete_addresses=True) as house:
        client = await house.client()
        for command in (b"MAIL FROM:<jan>", b"RCPT TO:piet", b"RCPT TO:<Postmaster>", b"DATA"):
            assert (await client.say(command))[:1] in b"23"
        assert (await client.say(MESSAGE + b"."))[:3] == b"250"
        envelope = (await house.entries())[0].submission.envelope
        assert str(envelope.reverse_path) == "jan@relay.example.nl"
        assert [str(one.address) for one in envelope.recipients] == ["piet@relay.example.nl", "Postmaster"]
        (event,) = house.observed.of(QuirksTolerated)
        assert {Quirk.NO_DOMAIN, Quirk.NO_BRACKETS} <= set(event.quirks)
