"""Replies that mind how a field is written say nothing about who may send; what upstreams say, in our words."""

# ruff: noqa: E501  the texts are what they are

from __future__ import annotations

import pytest

from relay.mail.reply import Reply
from relay.policy.refusal import speaks_of_form

FORM = [
    "Messages missing a valid address in From: header, or having multiple addresses in From: header, are not accepted",  # Gmail
    "Messages with multiple addresses in From: header are not accepted",  # Gmail, nodemailer #973
    "This message is not RFC 5322 compliant, the 'From' header is missing",  # Gmail
    "Access denied, message must be RFC 5322 section 3.6.2 compliant and include a valid From address",  # Microsoft
    "syntax error in 'From' header when scanning for sender",  # Exim, header_syntax
    "syntax error in rfc822 header, check the sender address",  # FernUni Hagen
    "Your message header syntax is not valid, please check sender",  # Exim, an ACL's own words
    "From header malformed",
    "Sender address rejected: malformed header",
    "invalid sender: From could not be parsed",
    "from header contains more than one address",
    "Message rejected: two From headers",
    "from header: 8-bit data not allowed",
    "from header is empty",
    "Sender rejected, no From header",
]
WHO = [
    "Sender header address or From header address rejected: the account does not own it",
    "Client does not have permissions to send as this sender",
    "SendAsDenied; not allowed to send as; STOREDRV.Submission",
    "Sender address rejected: not owned by user",
    "The from address does not match a verified Sender Identity",
    "From header sender domain not verified",
    "Unauthorized sender address",
    "invalid sender",
    "From address not allowed for this login, the format of your account is jan@example.nl",
    "<rfc5322@example.nl>: Sender address rejected: not owned by user \"syntax\"",
    "You are not allowed to use this sender address",
    "Sender is not allowed to relay from multiple networks",
]  # fmt: skip


@pytest.mark.parametrize("text", FORM)
def test_a_reply_about_the_form_of_a_field_is_known(text: str) -> None:
    assert speaks_of_form(Reply(550, "5.7.1", text))


@pytest.mark.parametrize("text", WHO)
def test_a_reply_about_who_may_send_is_none_about_form(text: str) -> None:
    assert not speaks_of_form(Reply(550, "5.7.1", text))
