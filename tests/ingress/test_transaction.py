"""One mail transaction, from MAIL to the envelope."""

from __future__ import annotations

import pytest

from relay.ingress import replies
from relay.ingress.transaction import Transaction
from relay.mail.address import Address
from relay.mail.aliases import Aliases
from relay.mail.envelope import Envelope, Recipient
from relay.mail.quirk import Quirk

LARGEST = 1_000


@pytest.fixture
def transaction() -> Transaction:
    return Transaction()


def mail(transaction: Transaction, argument: bytes = b"FROM:<jan@example.nl>") -> bytes:
    return transaction.mail(argument, largest=lambda: LARGEST)


def rcpt(transaction: Transaction, argument: bytes = b"TO:<piet@example.com>", *, most: int = 3) -> bytes:
    return transaction.rcpt(argument, most=most)


def test_mail_and_rcpt_make_an_envelope(transaction: Transaction) -> None:
    assert mail(transaction) == replies.SENDER_OK
    assert rcpt(transaction) == replies.RECIPIENT_OK
    assert rcpt(transaction, b"TO:<postmaster>") == replies.RECIPIENT_OK
    assert transaction.envelope() == Envelope(
        Address("jan", "example.nl"),
        (Recipient(Address("piet", "example.com")), Recipient(Address("postmaster", ""))),
    )


def test_the_null_reverse_path_is_none_in_the_envelope_and_empty_in_events(transaction: Transaction) -> None:
    assert mail(transaction, b"FROM:<>") == replies.SENDER_OK
    assert transaction.envelope().reverse_path is None
    assert transaction.reverse_path == ""


def test_dsn_parameters_are_kept(transaction: Transaction) -> None:
    mail(transaction, b"FROM:<jan@example.nl> RET=HDRS ENVID=QQ+2B314")
    rcpt(transaction, b"TO:<piet@example.com> NOTIFY=success,FAILURE ORCPT=rfc822;Piet@example.com")
    rcpt(transaction, b"TO:<klaas@example.com> NOTIFY=NEVER")
    envelope = transaction.envelope()
    assert (envelope.ret, envelope.envid) == ("hdrs", "QQ+2B314")
    assert [recipient.notify for recipient in envelope.recipients] == [{"success", "failure"}, {"never"}]
    assert [recipient.orcpt for recipient in envelope.recipients] == ["rfc822;Piet@example.com", None]


@pytest.mark.parametrize(
    "parameters",
    [
        b"RET=ALL",
        b"RET",
        b"ENVID",
        b"ENVID=",
        b"ENVID=a=b",
        b"ENVID=a+0d",
        b"ENVID=jos\xe9",
        b"ENVID=" + b"a" * 501,
        b"AUTH=<>",
        b"BODY=BINARYMIME",
        b"BODY=8BITMIME",
        b"SIZE",
        b"X-SOMETHING",
        b"BY=120;R",
    ],
)
def test_parameters_that_mean_nothing_to_us_turn_nobody_away(transaction: Transaction, parameters: bytes) -> None:
    assert mail(transaction, b"FROM:<jan@example.nl> " + parameters) == replies.SENDER_OK
    assert transaction.envelope() == Envelope(Address("jan", "example.nl"), ())


@pytest.mark.parametrize(
    "parameters",
    [
        b"NOTIFY",
        b"NOTIFY=",
        b"NOTIFY=NEVER,FAILURE",
        b"NOTIFY=MAYBE",
        b"ORCPT=",
        b"ORCPT=\xff",
        b"ORCPT=a\x85b",
        b"X=Y",
    ],
)
def test_recipient_parameters_that_mean_nothing_turn_nobody_away(transaction: Transaction, parameters: bytes) -> None:
    mail(transaction)
    assert rcpt(transaction, b"TO:<piet@example.com> " + parameters) == replies.RECIPIENT_OK
    assert transaction.recipients == [Recipient(Address("piet", "example.com"))]


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        (b"FROM:<jan@example.nl> SIZE=1000", replies.SENDER_OK),
        (b"FROM:<jan@example.nl> SIZE=0", replies.SENDER_OK),
        (b"FROM:<jan@example.nl> SIZE=1001", replies.TOO_LARGE),
        (b"FROM:<jan@example.nl> size=99999999999999999999", replies.TOO_LARGE),
        (b"FROM:<jan@example.nl> SIZE=999999999999999999999", replies.BAD_SYNTAX),
        (b"FROM:<jan@example.nl> SIZE=-1", replies.BAD_SYNTAX),
        (b"FROM:<jan@example.nl> SIZE=many", replies.BAD_SYNTAX),
        (b"TO:<jan@example.nl>", replies.BAD_SYNTAX),
        (b"", b"501 5.5.4 Syntax: MAIL FROM:<address> or RCPT TO:<address>\r\n"),
    ],
)
def test_mail_is_answered(transaction: Transaction, argument: bytes, reply: bytes) -> None:
    assert mail(transaction, argument) == reply
    assert transaction.open == (reply == replies.SENDER_OK)


@pytest.mark.parametrize(
    ("argument", "code"),
    [
        (b"TO:<>", b"553"),
        (b"TO:<jan>", b"553"),
        (b"FROM:<jan@example.nl>", b"501"),
        (b"TO:<a@b@c>", b"553"),
        (b"", b"501"),
    ],
)
def test_an_impossible_recipient_is_refused_and_the_transaction_goes_on(
    transaction: Transaction, argument: bytes, code: bytes
) -> None:
    mail(transaction)
    assert rcpt(transaction, argument)[:3] == code
    assert transaction.open
    assert rcpt(transaction) == replies.RECIPIENT_OK
    assert len(transaction.recipients) == 1


def test_a_second_mail_is_refused_and_changes_nothing(transaction: Transaction) -> None:
    mail(transaction)
    rcpt(transaction)
    before = transaction.envelope()
    assert mail(transaction, b"FROM:<klaas@example.com>") == replies.NESTED_MAIL
    assert transaction.envelope() == before


def test_a_recipient_before_mail_is_refused(transaction: Transaction) -> None:
    assert rcpt(transaction) == replies.NO_MAIL


def test_one_recipient_too_many_is_put_off(transaction: Transaction) -> None:
    mail(transaction)
    answers = [rcpt(transaction, b"TO:<r%d@example.com>" % n, most=2) for n in range(3)]
    assert answers == [replies.RECIPIENT_OK, replies.RECIPIENT_OK, replies.TOO_MANY_RECIPIENTS]
    assert len(transaction.recipients) == 2


@pytest.mark.parametrize(
    ("sender", "recipient", "smtputf8"),
    [
        ("FROM:<jan@example.nl>", "TO:<piet@example.com>", False),
        ("FROM:<jan@example.nl> SMTPUTF8", "TO:<piet@example.com>", True),
        ("FROM:<josé@example.nl>", "TO:<piet@example.com>", True),
        ("FROM:<jan@example.nl>", "TO:<piet@café.example>", True),
    ],
)
def test_an_address_beyond_ascii_asks_for_smtputf8_by_itself(
    transaction: Transaction, sender: str, recipient: str, smtputf8: bool
) -> None:
    mail(transaction, sender.encode())
    rcpt(transaction, recipient.encode())
    assert transaction.envelope().smtputf8 is smtputf8


QUIRKS = {
    (b"FROM:<jan@example.nl>", b"TO:<piet@example.com>"): set[Quirk](),
    (b"FROM:<> SIZE=1 BODY=7BIT RET=FULL ENVID=a SMTPUTF8", b"TO:<p@b.nl> NOTIFY=NEVER ORCPT=rfc822;p@b.nl"): set(),
    (b"FROM:<jos\xc3\xa9@example.nl> SMTPUTF8", b"TO:<jos\xc3\xa9@b.nl>"): set(),
    (b"FROM:<jos\xc3\xa9@example.nl>", b"TO:<p@b.nl>"): {Quirk.EIGHT_BIT_PATH},
    (b"FROM:<> BODY=BINARYMIME", b"TO:<p@b.nl>"): {Quirk.BINARYMIME},
    (b"FROM:<> BODY=9BIT", b"TO:<p@b.nl>"): {Quirk.UNKNOWN_PARAMETER},
    (b"FROM:<> AUTH=<>", b"TO:<p@b.nl>"): {Quirk.UNKNOWN_PARAMETER},
    (b"FROM:<>", b"TO:<p@b.nl> X=1"): {Quirk.UNKNOWN_PARAMETER},
    (b"FROM:<jan@a.nl.>", b"TO: p@b.nl"): {Quirk.TRAILING_DOT, Quirk.SPACE_IN_PATH, Quirk.NO_BRACKETS},
}  # fmt: skip


@pytest.mark.parametrize("commands", QUIRKS)
def test_what_was_tolerated_is_told(transaction: Transaction, commands: tuple[bytes, bytes]) -> None:
    for _ in range(2):  # the second time from memory
        assert mail(transaction, commands[0]) == replies.SENDER_OK
        assert rcpt(transaction, commands[1]) == replies.RECIPIENT_OK
        assert transaction.quirks == QUIRKS[commands]
        transaction.reset()
        assert transaction.quirks == QUIRKS[commands]  # until they were told
        transaction.quirks.clear()


def test_the_parameter_of_auth_is_no_quirk_where_auth_is_offered() -> None:
    transaction = Transaction(auth=True)
    assert mail(transaction, b"FROM:<jan@example.nl> AUTH=<>") == replies.SENDER_OK
    assert not transaction.quirks


def test_a_refused_command_tells_of_no_quirk(transaction: Transaction) -> None:
    mail(transaction, b"FROM: jan@example.nl SIZE=100000 X=Y")
    mail(transaction)
    rcpt(transaction, b"TO: jan")
    rcpt(transaction, b"FROM: jan@example.nl")
    assert not transaction.quirks


def test_an_address_without_a_domain_is_completed_where_it_shall_be() -> None:
    transaction = Transaction(complete="relay.example.nl")
    assert mail(transaction, b"FROM:<jan>") == replies.SENDER_OK
    assert rcpt(transaction, b"TO:<piet> NOTIFY=NEVER") == replies.RECIPIENT_OK
    assert rcpt(transaction, b"TO:<postmaster>") == replies.RECIPIENT_OK
    assert rcpt(transaction, b'TO:<"a@b">') == b"553 5.1.3 Address syntax\r\n"
    assert transaction.envelope() == Envelope(
        Address("jan", "relay.example.nl"),
        (Recipient(Address("piet", "relay.example.nl"), frozenset({"never"})), Recipient(Address("postmaster", ""))),
    )
    assert transaction.quirks == {Quirk.NO_DOMAIN}


def test_nothing_of_a_transaction_stays_after_a_reset(transaction: Transaction) -> None:
    mail(transaction, b"FROM:<jan@example.nl> SMTPUTF8 RET=FULL ENVID=a")
    rcpt(transaction)
    envelope = transaction.envelope()
    transaction.reset()
    assert not transaction.open
    mail(transaction, b"FROM:<>")
    assert transaction.envelope() == Envelope(None, ())
    assert len(envelope.recipients) == 1


def test_an_enormous_argument_is_not_remembered() -> None:
    from relay.ingress import transaction as module
    from relay.mail import path

    before = path._remembered.cache_info().currsize, module._remembered.cache_info().currsize
    transaction = Transaction()
    mail(transaction, b"FROM:<jan@example.nl> X=" + b"y" * 3_000)
    rcpt(transaction, b"TO:<piet@example.com> X=" + b"y" * 3_000)
    assert len(transaction.recipients) == 1
    assert (path._remembered.cache_info().currsize, module._remembered.cache_info().currsize) == before


@pytest.mark.parametrize("octet", [bytes([octet]) for octet in range(256)])
def test_no_octet_of_a_client_gets_into_a_reply(octet: bytes) -> None:
    transaction = Transaction()
    for argument in (b"FROM:<j%an@example.nl>", b"FROM:<> X=%", b"%", b"FROM:<jan@exa%mple.nl>"):
        for reply in (
            transaction.mail(argument.replace(b"%", octet), largest=lambda: LARGEST),
            transaction.rcpt(argument.replace(b"%", octet).replace(b"FROM", b"TO"), most=3),
        ):
            assert reply.endswith(b"\r\n")
            assert reply[:-2].decode("ascii").isprintable()
        transaction.reset()


ALIASES = Aliases(
    "relay.example.nl",
    {"root": (Address("admin", "example.nl"), Address("jan", "example.nl")), "a+b": (Address("root", "x.nl"),)},
)


@pytest.mark.parametrize("argument", [b"TO:<root>", b"TO:<Root@Relay.Example.NL>"])
@pytest.mark.parametrize("complete", ["", "relay.example.nl"])
def test_an_alias_gives_way_to_those_it_stands_for_and_stays_in_orcpt(argument: bytes, complete: str) -> None:
    transaction = Transaction(aliases=ALIASES, complete=complete)
    mail(transaction)
    assert rcpt(transaction, argument) == replies.RECIPIENT_OK
    written = argument[4:-1].decode().partition("@")[0]
    assert transaction.envelope().recipients == tuple(
        Recipient(address, orcpt=f"rfc822;{written}@relay.example.nl") for address in ALIASES.targets["root"]
    )
    assert transaction.quirks == set()


def test_what_an_alias_leads_to_is_not_looked_up_again_and_gets_the_mail_once() -> None:
    transaction = Transaction(
        aliases=Aliases("x.nl", {"root": (Address("jan", "x.nl"),), "jan": (Address("a", "b.nl"),)})
    )
    mail(transaction)
    for argument in (b"TO:<root>", b"TO:<root@x.nl>"):
        assert rcpt(transaction, argument) == replies.RECIPIENT_OK
    assert transaction.envelope().recipients == (Recipient(Address("jan", "x.nl"), orcpt="rfc822;root@x.nl"),)


def test_what_the_application_asked_for_holds_for_those_an_alias_stands_for() -> None:
    transaction = Transaction(aliases=ALIASES)
    mail(transaction)
    rcpt(transaction, b"TO:<a+b> NOTIFY=failure")
    rcpt(transaction, b"TO:<a+b@relay.example.nl> NOTIFY=failure ORCPT=rfc822;cron@example.nl")
    rcpt(transaction, b"TO:<root> ORCPT=rfc822;cron@example.nl")
    first, second, _ = transaction.envelope().recipients
    assert (first.notify, first.orcpt) == ({"failure"}, "rfc822;a+2Bb@relay.example.nl")
    assert second.orcpt == "rfc822;cron@example.nl"


def test_other_names_and_other_domains_are_no_aliases() -> None:
    transaction = Transaction(aliases=ALIASES)
    mail(transaction)
    assert rcpt(transaction, b"TO:<klaas>") == replies.NO_DOMAIN
    assert rcpt(transaction, b"TO:<root@elders.nl>") == replies.RECIPIENT_OK
    assert transaction.envelope().recipients == (Recipient(Address("root", "elders.nl")),)


def test_an_alias_of_more_than_there_is_room_for_is_put_off_whole() -> None:
    transaction = Transaction(aliases=ALIASES)
    mail(transaction)
    rcpt(transaction)
    assert rcpt(transaction, b"TO:<root>", most=2) == replies.TOO_MANY_RECIPIENTS
    assert len(transaction.recipients) == 1
    assert rcpt(transaction, b"TO:<root>", most=3) == replies.RECIPIENT_OK
