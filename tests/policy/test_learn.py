"""What samples of session-code mail have in common, and what of it is worth a condition."""

from __future__ import annotations

import pytest

from relay.mail.address import Address
from relay.mail.envelope import Envelope, Recipient
from relay.mail.submission import Peer, Submission
from relay.policy.learn import Kind, propose
from relay.policy.match import View
from relay.policy.pattern import pattern
from tests.queue.mail import NOON

ROBOT = "noreply@imuis.example"


def view(
    subject: str, *, sender: str = f"iMUIS <{ROBOT}>", more: str = "", recipients: int = 1, size: int = 900
) -> View:
    head = f"From: {sender}\r\nSubject: {subject}\r\n{more}\r\n".encode()
    to = tuple([Recipient(Address("r", f"x{number}.example")) for number in range(recipients)])
    return View(Submission("Q", Envelope(None, to), head, size, Peer("127.0.0.1"), "legacy", NOON))


def found(kind: Kind, key: str) -> object:
    return next((condition.value for condition in kind.conditions if condition.key == key), None)


def subject_of(*subjects: str) -> str:
    (kind,) = propose([view(subject) for subject in subjects])
    source = str(found(kind, "subject"))
    assert all(pattern(source).matches(subject) for subject in subjects)
    return source


@pytest.mark.parametrize(
    ("subjects", "expected"),
    [
        (["Uw inlogcode is 482913"], r"/(?i)^Uw inlogcode is \d{4,8}$/"),
        (["Uw inlogcode is 482913", "Uw Inlogcode is 077"], r"/(?i)^Uw inlogcode is \d{3,8}$/"),
        (["482913 is uw code", "1234567890 is uw code"], r"/(?i)^\d{4,10} is uw code$/"),
        (["Code 482-913", "Code 118204"], r"/(?i)^Code \d[\d. -]{1,12}\d$/"),
        (["Code A7F9K2", "Code 482913"], r"/(?i)^Code \w{4,10}$/"),
        (["Code: PLMNBV", "Code: AKTWQZ"], r"/(?i)^Code: \w{4,10}$/"),
        (["Code: AKTWQZ"], r"/(?i)^Code: \w{4,10}$/"),
        (["G-482913 (Google)", "G-118204 (Google)"], r"/(?i)^G-\d{4,8} \(Google\)$/"),
        (["Beste Jan, code 4829", "Beste Piet, code 1182"], r"/(?i)^Beste \w{3,10}, code \d{4,8}$/"),
        (["Beste Zoë, code 4829", "Beste Jan, code 1182"], r"/(?i)^Beste [\pL\pN_]{3,10}, code \d{4,8}$/"),
        (["Uw verificatiecode", "Uw verificatiecode"], r"/(?i)^Uw verificatiecode$/"),
    ],
)
def test_what_varies_in_subjects_becomes_a_pattern_and_what_stays_is_said(subjects: list[str], expected: str) -> None:
    assert subject_of(*subjects) == expected


def test_no_digit_of_a_sample_is_in_a_proposal() -> None:
    kinds = propose([view("Code 482913 voor 2024", more="X-Mailer: iMUIS 77341\r\n")])
    assert not {"482913", "2024", "77341"} & set("".join(map(repr, kinds)).replace("'", " ").split())
    assert "482913" not in repr(kinds)
    assert "77341" not in repr(kinds)


def test_samples_that_have_little_in_common_are_kinds_of_their_own() -> None:
    subjects = ["Uw code is 4829", "Your login code: 1182", "Uw code is 9921", "Bevestig uw adres met 5512"]
    assert [kind.samples for kind in propose([view(subject) for subject in subjects])] == [(0, 2), (1,), (3,)]


@pytest.mark.parametrize(
    ("senders", "expected"),
    [
        ([f"<{ROBOT}>", f"iMUIS <{ROBOT.upper()}>"], ROBOT),
        (["a@x.example", "b@y.example"], ("a@x.example", "b@y.example")),
        ([f"robot-{number}@x.example" for number in range(9)], "*@x.example"),
        ([f"r@x{number}.example" for number in range(9)], None),
        ([ROBOT, "undisclosed"], None),
        (["od*d@x.example"], r"/(?i)^od\*d@x\.example$/"),
    ],
)
def test_the_authors_of_the_samples_are_a_condition(senders: list[str], expected: object) -> None:
    (kind,) = propose([view("Code 4829", sender=sender) for sender in senders])
    assert found(kind, "from") == expected


@pytest.mark.parametrize(
    ("mailers", "expected"),
    [
        (["iMUIS Online 12.4", "iMUIS Online 12.5"], "iMUIS Online*"),
        (["PHPMailer", "PHPMailer"], "PHPMailer"),
        (["PHPMailer", "iMUIS"], None),
        (["7", "8"], None),
    ],
)
def test_the_software_is_a_condition_in_any_version(mailers: list[str], expected: object) -> None:
    (kind,) = propose([view("Code 4829", more=f"X-Mailer: {mailer}\r\n") for mailer in mailers])
    assert found(kind, "header") == expected


def test_size_and_recipients_leave_room() -> None:
    (kind,) = propose([view("Code 4829", size=900), view("Code 1182", size=30_000, recipients=2)])
    assert (found(kind, "max_size"), found(kind, "recipients")) == ("64KiB", 2)
    assert found(propose([view("Code 4829")])[0], "max_size") == "16KiB"


@pytest.mark.parametrize(
    ("views", "warning"),
    [
        ([view(""), view("")], "any small mail from that sender"),
        ([view("4829"), view("1182")], "no word of its own"),
        ([view("Uw code 1", sender="x"), view("Uw code 2", sender="x")], "no condition on the author"),
        ([view(f"Uw code {n}", sender=f"r{n}@x.example") for n in range(9)], "any author of that domain"),
        ([view("Uw code 4829")], "one sample only"),
    ],
)
def test_a_proposal_that_would_match_much_else_says_so(views: list[View], warning: str) -> None:
    (kind,) = propose(views)
    assert any(warning in told for told in kind.broad)


def test_a_proposal_that_is_narrow_says_nothing() -> None:
    (kind,) = propose([view("Uw inlogcode 4829"), view("Uw inlogcode 1182")])
    assert kind.broad == ()
