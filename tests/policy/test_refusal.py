"""What replies speak of: every text of the facts has its class, at every provider and where none is known."""

# ruff: noqa: E501  the texts are the providers'

from __future__ import annotations

import pytest

from relay.config.preset import table
from relay.mail.address import Address
from relay.mail.dsn_text import Action, Fate, kind_of
from relay.mail.envelope import Recipient
from relay.mail.outcome import Deferred, Delivered, Failed, Refusal, Stage, Trouble
from relay.mail.reply import Reply
from relay.policy.refusal import HTTP, Line, Table, Told
from tests.kit.sentences import EN, NL

MAIL, RCPT, DATA, DOT, AUTH = Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT, Stage.AUTH
STOREDRV = "STOREDRV.Submission.Exception:"

# What Microsoft 365 says; the last column: whether one refusal is believed at once.
M365 = [
    (MAIL, 550, "5.7.60", "SMTP; Client does not have permissions to send as this sender", Refusal.SENDER, False),
    (DOT, 554, "5.2.0", f"{STOREDRV}SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message", Refusal.SENDER, True),
    (DOT, 554, "5.2.252", "SendAsDenied; a@example.nl not allowed to send as b@example.nl; STOREDRV.Submission", Refusal.SENDER, True),
    (MAIL, 432, "4.3.2", "Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending", Refusal.THROTTLED, False),
    (DOT, 432, "4.3.2", "STOREDRV.ClientSubmit; sender thread limit exceeded", Refusal.THROTTLED, False),
    (DOT, 554, "5.2.0", f"{STOREDRV}SubmissionQuotaExceededException", Refusal.QUOTA, False),
    (DOT, 554, "5.2.2", f"mailbox full; {STOREDRV}QuotaExceededException.MapiExceptionShutoffQuotaExceeded", Refusal.MAILBOX_FULL, False),
    (AUTH, 535, "5.7.3", "Authentication unsuccessful", Refusal.AUTH, False),
    (AUTH, 535, "5.7.139", "Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.", Refusal.AUTH, False),
    (MAIL, 530, "5.7.57", "Client not authenticated to send mail", Refusal.AUTH, False),
    (MAIL, 530, "5.7.57", "SMTP; Client was not authenticated to send anonymous mail during MAIL FROM", Refusal.AUTH, False),
    (AUTH, 550, "5.7.30", "Basic authentication is not supported for Client Submission.", Refusal.AUTH, False),
    (DOT, 550, "5.1.8", "Bad outbound sender", Refusal.AUTH, False),
    (RCPT, 550, "5.7.64", "TenantAttribution; Relay Access Denied", Refusal.AUTH, False),
    (RCPT, 550, "5.7.68", "TenantInboundAttribution; Direct Send not allowed for this organization", Refusal.AUTH, False),
    (RCPT, 550, "5.1.1", "RESOLVER.ADR.RecipNotFound; not found", Refusal.RECIPIENT, False),
]  # fmt: skip
GMAIL = [
    (RCPT, 550, "5.4.5", "Daily user sending limit exceeded", Refusal.QUOTA),
    (MAIL, 550, "5.7.1", "Daily SMTP relay limit exceeded for customer", Refusal.QUOTA),
    (MAIL, 450, "4.2.1", "Peak SMTP relay limit exceeded for customer", Refusal.THROTTLED),
    (MAIL, 421, "4.7.0", "Try again later, closing connection", Refusal.THROTTLED),
    (MAIL, 421, "4.3.0", "Temporary System Problem", Refusal.TEMPORARY),
    (RCPT, 452, "4.5.3", "Your message has too many recipients", Refusal.TOO_MANY),
    (AUTH, 454, "4.7.0", "Cannot authenticate due to temporary system problem", Refusal.AUTH),
    (AUTH, 534, "5.7.9", "Application-specific password required", Refusal.AUTH),
    (AUTH, 535, "5.7.8", "Username and Password not accepted", Refusal.AUTH),
    (MAIL, 530, "5.7.0", "Authentication Required", Refusal.AUTH),
    (RCPT, 550, "5.1.1", "The email account that you tried to reach does not exist", Refusal.RECIPIENT),
    (DOT, 552, "5.7.0", "This message was blocked because its content presents a potential security issue", Refusal.CONTENT),
    (DOT, 552, "5.3.4", "Your message exceeded Google's message size limits", Refusal.TOO_LARGE),
]  # fmt: skip
OTHERS = [
    (DOT, 550, "5.7.1", "Submission not allowed for messages in which header from does not match MAIL FROM", Refusal.SENDER),
    (DOT, 554, "", "Message rejected: Email address is not verified. The following identities failed the check in region EU-WEST-1", Refusal.SENDER),
    (DOT, 550, "", "The from address does not match a verified Sender Identity.", Refusal.SENDER),
    (RCPT, 553, "5.7.1", "<jan@example.nl>: Sender address rejected: not owned by user relay@example.nl", Refusal.SENDER),
    (MAIL, 553, "", "sender rejected", Refusal.SENDER),
    (MAIL, 550, "", "no", Refusal.SENDER),
    (MAIL, 501, "5.1.7", "Invalid address", Refusal.SENDER),
    (MAIL, 421, "", "#4.4.5 Too many connections from your host", Refusal.THROTTLED),
    (RCPT, 450, "4.7.1", "Recipient address rejected: Greylisted, try again in 300 seconds", Refusal.TEMPORARY),
    (DOT, 454, "4.7.0", "Throttling failure: Maximum sending rate exceeded", Refusal.THROTTLED),
    (DOT, 454, "4.7.0", "Throttling failure: Daily message quota exceeded", Refusal.QUOTA),
    (RCPT, 550, "5.1.1", "<x@example.com>: Recipient address rejected: User unknown in virtual mailbox table", Refusal.RECIPIENT),
    (RCPT, 554, "5.7.1", "<x@example.com>: Relay access denied", Refusal.RECIPIENT),
    (RCPT, 550, "", "no", Refusal.RECIPIENT),
    (RCPT, 552, "5.2.2", "Mailbox full", Refusal.MAILBOX_FULL),
    (RCPT, 452, "4.2.2", "Over quota", Refusal.MAILBOX_FULL),
    (MAIL, 552, "5.3.4", "Message size exceeds fixed limit", Refusal.TOO_LARGE),
    (MAIL, 552, "5.3.4", "the message has 9 octets, the upstream takes at most 8", Refusal.TOO_LARGE),
    (MAIL, 550, "5.6.7", "an address needs SMTPUTF8, which the upstream does not offer", Refusal.PERMANENT),
    (DOT, 500, "5.5.2", "Line too long", Refusal.LINE_TOO_LONG),
    (DOT, 550, "", "maximum line length exceeded", Refusal.LINE_TOO_LONG),
    (DOT, 554, "5.7.1", "Spam message rejected", Refusal.CONTENT),
    (MAIL, 554, "5.7.1", "Client host rejected: blocked using zen.spamhaus.org", Refusal.PERMANENT),
    (DOT, 554, "", "Transaction failed", Refusal.PERMANENT),
    (DATA, 451, "4.3.0", "later", Refusal.TEMPORARY),
    # Of one recipient: no reason to keep all other mail from its way.
    (RCPT, 450, "4.2.1", "The user you are trying to contact is receiving mail at a rate that exceeds the rate limit", Refusal.TEMPORARY),
    (RCPT, 550, "5.7.1", "Relaying needs a login: authentication required for this recipient", Refusal.RECIPIENT),
    (RCPT, 530, "5.7.0", "Authentication required", Refusal.RECIPIENT),
    (RCPT, 550, "5.1.1", "<submissionquotaexceeded@klant.nl>: User unknown", Refusal.RECIPIENT),
    (RCPT, 550, "5.2.1", "The user has exceeded their monthly limit for incoming mail", Refusal.RECIPIENT),
    (RCPT, 450, "4.2.1", "recipient daily limit exceeded", Refusal.TEMPORARY),
    (DOT, 550, "5.1.1", "<throttling@klant.nl>: User unknown", Refusal.RECIPIENT),
    (DOT, 450, "", "<x@klant.nl>: mailbox rate limit exceeded", Refusal.TEMPORARY),
    (MAIL, 550, "5.1.8", "<throttle@eigen.nl>: Sender address rejected", Refusal.SENDER),
    (DOT, 554, "5.2.1", "<bad@x.nl>: this account is disabled", Refusal.RECIPIENT),
    (DOT, 554, "5.7.1", 'message rejected: subject "Your account has been suspended" looks like phishing', Refusal.CONTENT),
    (DOT, 554, "5.7.1", "phishing phrase: authentication required", Refusal.CONTENT),
    (DOT, 432, "4.3.2", "STOREDRV.Deliver; recipient thread limit exceeded", Refusal.TEMPORARY),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "code", "status", "text", "refusal", "confirm"), M365)
def test_what_microsoft_says_has_its_class(
    stage: Stage, code: int, status: str, text: str, refusal: Refusal, confirm: bool
) -> None:
    told = table("m365").tell(stage, Reply(code, status, text))
    assert (told.refusal, told.confirm) == (refusal, confirm)


@pytest.mark.parametrize(
    ("stage", "code", "status", "text", "confirm"),
    [
        (DOT, 554, "5.2.0", f"{STOREDRV}SendAsDeniedException.MapiExceptionSendAsDenied", True),
        (DOT, 554, "5.2.252", "not allowed to send as b@example.nl", True),
        (RCPT, 550, "5.7.60", "SMTP; Client does not have permissions to send as this sender", False),
        (MAIL, 553, "5.7.1", "Sender address rejected: not owned by user", False),
    ],
)
def test_refusals_that_come_and_go_at_microsoft_are_confirmed_without_its_preset_as_well(
    stage: Stage, code: int, status: str, text: str, confirm: bool
) -> None:
    told = table(None).tell(stage, Reply(code, status, text))
    assert (told.refusal, told.confirm) == (Refusal.SENDER, confirm)


@pytest.mark.parametrize(("stage", "code", "status", "text", "refusal"), GMAIL)
def test_what_google_says_has_its_class(stage: Stage, code: int, status: str, text: str, refusal: Refusal) -> None:
    assert table("gmail").tell(stage, Reply(code, status, text)).refusal is refusal


@pytest.mark.parametrize(
    ("stage", "code", "status", "text", "refusal"), [*OTHERS, *(case[:5] for case in M365), *GMAIL]
)
def test_without_a_preset_the_table_for_all_knows_all_of_these(
    stage: Stage, code: int, status: str, text: str, refusal: Refusal
) -> None:
    # Only Microsoft is known to mean the account by these.
    expected = {"5.7.64": Refusal.RECIPIENT, "5.7.68": Refusal.RECIPIENT}.get(status, refusal)
    assert table(None).tell(stage, Reply(code, status, text)).refusal is expected


def test_what_speaks_of_the_account_waits_whatever_its_code_is() -> None:
    quota = Failed(DOT, Reply(554, "5.2.0", f"{STOREDRV}SubmissionQuotaExceededException"))
    judged = table("m365").judge(quota)
    assert isinstance(judged, Deferred)
    assert (judged.refusal, judged.upstream_sick, judged.in_doubt) == (Refusal.QUOTA, True, False)
    assert judged.reply == quota.reply


def test_a_full_mailbox_of_the_account_waits_and_one_of_a_recipient_fails() -> None:
    ours = Failed(DOT, Reply(554, "5.2.2", f"mailbox full; {STOREDRV}QuotaExceededException"))
    theirs = Failed(RCPT, Reply(552, "5.2.2", "mailbox full"))
    assert isinstance(table("m365").judge(ours), Deferred)
    assert table("m365").judge(theirs) == theirs


def test_what_was_delivered_or_got_no_reply_has_no_class() -> None:
    taken = Delivered(Reply(250, "2.0.0", "SendAsDenied"))
    silent = Deferred(DOT, Trouble.DROPPED, "the upstream closed the connection", in_doubt=True)
    for outcome in (taken, silent):
        assert table("m365").judge(outcome) is outcome


def test_the_first_line_that_fits_speaks_and_all_of_a_line_must_fit() -> None:
    lines = (
        Line(Refusal.QUOTA, codes=("55",), statuses=("4.5",), stages=frozenset({RCPT})),
        Line(Refusal.CONTENT, texts=("limit",), confirm=True),
    )
    said = Reply(550, "5.4.5", "Limit reached")
    assert Table(lines).tell(RCPT, said) == Told(Refusal.QUOTA)
    assert Table(lines).tell(DOT, said) == Told(Refusal.CONTENT, confirm=True)
    assert Table(lines).tell(RCPT, Reply(450, "4.4.5", "x")).refusal is Refusal.TEMPORARY
    assert Table(lines[:1]).before(Table(lines[1:])) == Table(lines)


@pytest.mark.parametrize("refusal", Refusal)
def test_every_class_comes_back_to_its_sender_with_advice_in_both_languages(refusal: Refusal) -> None:
    fate = Fate(Recipient(Address.of("piet@example.com")), Action.FAILED, "own", Reply(550, "", "no"), refusal=refusal)
    for tables in (EN, NL):
        assert tables["bounce"][f"advice-{kind_of(fate)}"]
        assert tables["bounce"][f"what-{kind_of(fate)}"]


@pytest.mark.parametrize(
    ("stage", "reply", "refusal"),
    [
        (AUTH, Reply(535, "5.0.401", "HTTP 401 Unauthorized"), Refusal.AUTH),
        (DOT, Reply(535, "5.0.403", ""), Refusal.AUTH),  # as the queue keeps it, without its stage
        (Stage.HTTP, Reply(450, "4.0.429", "quota exceeded for sending"), Refusal.THROTTLED),
        (Stage.HTTP, Reply(450, "4.0.503", "sender rejected"), Refusal.TEMPORARY),
        (Stage.HTTP, Reply(550, "5.0.422", "spam"), Refusal.PERMANENT),
        (Stage.HTTP, Reply(552, "5.3.4", ""), Refusal.TOO_LARGE),
        (Stage.HTTP, Reply(554, "5.6.0", ""), Refusal.CONTENT),
    ],
)
def test_answers_of_an_endpoint_are_read_by_their_status_alone(stage: Stage, reply: Reply, refusal: Refusal) -> None:
    assert HTTP.tell(stage, reply).refusal is refusal


@pytest.mark.parametrize("piece", ["x", "<a", "<", '"', '">', "a@", ">a", "é"])
def test_words_that_upstreams_do_not_say_are_told_apart_in_linear_time(piece: str) -> None:
    assert table(None).tell(DOT, Reply(451, "4.7.1", piece * 400_000)).refusal is Refusal.TEMPORARY


@pytest.mark.parametrize(
    "words",
    [
        "<SendAsDenied@example.nl>",
        "SendAsDenied@example.nl",
        'for "SendAsDenied"',
        '"a b"@SendAsDenied.example',
        '"a"SendAsDenied@example.nl',
        "to:<SendAsDenied>",
    ],
)
def test_names_and_what_is_quoted_tell_nothing_about_a_reply(words: str) -> None:
    assert table(None).tell(DOT, Reply(550, "", f"no {words} no")).refusal is not Refusal.SENDER
