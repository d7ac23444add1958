"""Where the relay answers otherwise than aiosmtpd's tests expect, and why: the one list of it.

A reason, and the tests that fail for it. `python -m pytest tests/oracle` fails on a test that is missing here,
and on one that stands here and passes.
"""

from __future__ import annotations

# Not run at all, since it waits for what never comes.
NOT_RUN = {
    "test_smtp.py::TestSMTP::test_empty_command": (
        "An empty line is not answered: it is a line end too many, and a reply would be taken for that of "
        "the next command."
    ),
}

DEVIATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "aiosmtpd answers HELP with 250 and the syntax of each command; ours is 214, as RFC 5321, section 4.2.2 "
        "has it, whatever was asked, and before AUTH and TLS as well.",
        (
            "test_smtp.py::TestSMTP::test_help",
            "test_smtp.py::TestSMTP::test_help_[HELO]",
            "test_smtp.py::TestSMTP::test_help_[EHLO]",
            "test_smtp.py::TestSMTP::test_help_[MAIL]",
            "test_smtp.py::TestSMTP::test_help_[RCPT]",
            "test_smtp.py::TestSMTP::test_help_[DATA]",
            "test_smtp.py::TestSMTP::test_help_[RSET]",
            "test_smtp.py::TestSMTP::test_help_[NOOP]",
            "test_smtp.py::TestSMTP::test_help_[QUIT]",
            "test_smtp.py::TestSMTP::test_help_[VRFY]",
            "test_smtp.py::TestSMTP::test_help_[AUTH]",
            "test_smtp.py::TestSMTP::test_help_esmtp[MAIL]",
            "test_smtp.py::TestSMTP::test_help_esmtp[RCPT]",
            "test_smtp.py::TestSMTP::test_help_bad_arg",
            "test_smtp.py::TestRequiredAuthentication::test_help_unauthenticated",
            "test_smtp.py::TestRequiredAuthentication::test_help_authenticated",
            "test_starttls.py::TestStartTLS::test_help_starttls",
            "test_starttls.py::TestStartTLS::test_help_after_starttls",
            "test_starttls.py::TestRequireTLS::test_help_fails",
        ),
    ),
    (
        "EHLO offers other extensions, SMTPUTF8 and SIZE always, and of AUTH what the relay knows.",
        (
            "test_smtp.py::TestSMTP::test_ehlo",
            "test_smtp.py::TestAuthMechanisms::test_ehlo",
            "test_smtp.py::TestResetCommands::test_ehlo",
            "test_smtp.py::TestSMTPWithController::test_esmtp_no_size_limit",
            "test_smtp.py::TestStrictASCII::test_ehlo",
        ),
    ),
    (
        "Nobody is turned away for a missing HELO or EHLO, behind STARTTLS neither: it is a quirk.",
        (
            "test_smtp.py::TestSMTP::test_close_then_continue",
            "test_smtp.py::TestSMTP::test_no_helo[MAIL]",
            "test_starttls.py::TestStartTLS::test_failed_handshake",
            "test_starttls.py::TestTLSForgetsSessionData::test_forget_ehlo",
            "test_starttls.py::TestRequireTLS::test_helo_fails",
        ),
    ),
    (
        "HELO and EHLO without a name are taken, as devices write them: it is a quirk.",
        (
            "test_smtp.py::TestSMTP::test_helo_no_hostname",
            "test_smtp.py::TestSMTP::test_ehlo_no_hostname",
        ),
    ),
    (
        "Arguments where none belong are ignored with QUIT and RSET.",
        (
            "test_smtp.py::TestSMTP::test_quit_with_args",
            "test_smtp.py::TestSMTP::test_rset_with_arg",
        ),
    ),
    (
        "Comments, quotes within a local part, and octets behind a backslash outside of quotes are RFC 822's; the "
        "path of RFC 5321, section 4.1.2 has none of them, and who reads them differs.",
        (
            "test_smtp.py::TestSMTP::test_mail_valid_address[15]",
            "test_smtp.py::TestSMTP::test_mail_valid_address[16]",
            "test_smtp.py::TestSMTP::test_mail_valid_address[17]",
            "test_smtp.py::TestSMTP::test_mail_valid_address[18]",
            "test_smtp.py::TestSMTP::test_mail_valid_address[28]",
            "test_smtp.py::TestSMTP::test_mail_valid_address[29]",
            "test_smtp.py::TestSMTP::test_mail_valid_address[30]",
            "test_smtp.py::TestSMTP::test_mail_valid_address[31]",
            "test_smtp.py::TestSMTP::test_rcpt_valid_address[15]",
            "test_smtp.py::TestSMTP::test_rcpt_valid_address[16]",
            "test_smtp.py::TestSMTP::test_rcpt_valid_address[17]",
            "test_smtp.py::TestSMTP::test_rcpt_valid_address[18]",
            "test_smtp.py::TestSMTP::test_rcpt_valid_address[28]",
            "test_smtp.py::TestSMTP::test_rcpt_valid_address[29]",
            "test_smtp.py::TestSMTP::test_rcpt_valid_address[30]",
            "test_smtp.py::TestSMTP::test_rcpt_valid_address[31]",
        ),
    ),
    (
        "A local part of more than 128 octets is refused (RFC 5321, section 4.5.3.1.1 has 64).",
        (
            "test_smtp.py::TestSMTP::test_mail_valid_address[38]",
            "test_smtp.py::TestSMTP::test_mail_valid_address[39]",
            "test_smtp.py::TestSMTP::test_rcpt_valid_address[38]",
            "test_smtp.py::TestSMTP::test_rcpt_valid_address[39]",
            "test_smtp.py::TestSMTP::test_rcpt_valid_address[41]",
            "test_smtp.py::TestSMTP::test_rcpt_valid_address[42]",
            "test_smtp.py::TestCustomization::test_limitlocalpart",
        ),
    ),
    (
        "Unknown parameters, those of HELO clients, and odd values are ignored: an application that always sends "
        "them cannot be changed.",
        (
            "test_smtp.py::TestSMTP::test_mail_smtp_errsyntax[params_noesmtp]",
            "test_smtp.py::TestSMTP::test_mail_esmtp_errsyntax[malformed]",
            "test_smtp.py::TestSMTP::test_mail_esmtp_errsyntax[missing]",
            "test_smtp.py::TestSMTP::test_mail_esmtp_params_unrecognized",
            "test_smtp.py::TestSMTP::test_rcpt_smtp_errsyntax[params]",
            "test_smtp.py::TestSMTP::test_rcpt_unknown_params",
            "test_smtp.py::TestSMTPNonDecoding::test_mail_invalid_body_param",
            "test_smtp.py::TestSMTPWithController::test_mail_with_incompatible_smtputf8",
            "test_smtp.py::TestSMTPWithController::test_mail_invalid_body",
            "test_smtp.py::TestCustomization::test_mail_invalid_body_param",
            "test_smtp.py::TestStrictASCII::test_mail_param",
        ),
    ),
    (
        "A display name before the brackets is taken: it is a quirk.",
        (
            "test_smtp.py::TestSMTP::test_mail_smtp_errsyntax[malformed]",
            "test_smtp.py::TestSMTP::test_rcpt_smtp_errsyntax[malformed]",
            "test_smtp.py::TestSMTP::test_rcpt_esmtp_errsyntax[malformed]",
        ),
    ),
    (
        "VRFY promises nothing about anything (RFC 5321, section 3.5.3): 252.",
        ("test_smtp.py::TestSMTP::test_vrfy_not_address",),
    ),
    (
        "AUTH without EHLO or without a mechanism is 504; an AUTH that is not configured is 502, and so is STARTTLS.",
        (
            "test_smtp.py::TestSMTPAuth::test_no_ehlo",
            "test_smtp.py::TestSMTPAuth::test_helo",
            "test_smtp.py::TestSMTPAuth::test_not_enough_values",
            "test_starttls.py::TestNoTLS::test_disabled_tls",
            "test_starttls.py::TestRequireTLSAUTH::test_auth_notls",
            "test_starttls.py::TestRequireTLSAUTH::test_auth_tls",
        ),
    ),
    (
        "Mechanisms and replies of an application's own hook in aiosmtpd's handler; the relay has PLAIN and LOGIN.",
        (
            "test_smtp.py::TestSMTPAuth::test_auth_loginteract_warning",
            "test_smtp.py::TestAuthMechanisms::test_custom_mechanism",
            "test_smtp.py::TestAuthMechanisms::test_DENYFALSE",
            "test_smtp.py::TestAuthMechanisms::test_DENYMISSING",
            "test_smtp.py::TestAuthMechanisms::test_NONE",
            "test_smtp.py::TestAuthenticator::test_success",
            "test_smtp.py::TestAuthenticator::test_fail_withmesg",
        ),
    ),
    (
        "Where names and passwords are configured, mail is taken from those who gave theirs only.",
        (
            "test_smtp.py::TestSMTPWithController::test_dots_escaped",
            "test_smtp.py::TestSMTPWithController::test_bad_encodings",
        ),
    ),
    (
        "Lines of content may have any length; what the next hop cannot take is encoded on the way out.",
        (
            "test_smtp.py::TestSMTPWithController::test_data_line_too_long",
            "test_smtp.py::TestSMTPWithController::test_long_line_double_count",
            "test_smtp.py::TestSMTPWithController::test_long_line_leak",
            "test_smtp.py::TestSMTPWithController::test_too_long_line_delay_error",
            "test_smtp.py::TestSMTPWithController::test_too_long_lines_then_too_long_body",
            "test_smtp.py::TestStrictASCII::test_data",
        ),
    ),
    (
        "The text of the reply is compared, and ours is another; the code is the same.",
        (
            "test_smtp.py::TestSMTPWithController::test_too_long_body_delay_error",
            "test_smtp.py::TestCustomization::test_default_greeting",
            "test_smtp.py::TestCustomization::test_custom_greeting",
        ),
    ),
    (
        "An address is ASCII or UTF-8, else 553: no listener is only ASCII.",
        ("test_smtp.py::TestStrictASCII::test_bad_encoded_param",),
    ),
    (
        "A session that ends by its deadline is told so, with 421, before it is closed.",
        ("test_smtp.py::TestTimeout::test_timeout",),
    ),
    (
        "The hooks of aiosmtpd for commands and errors are not called: an exception is 451 and a constant text.",
        (
            "test_smtp.py::TestSMTPWithController::test_unexpected_errors",
            "test_smtp.py::TestSMTPWithController::test_unexpected_errors_unhandled",
            "test_smtp.py::TestSMTPWithController::test_unexpected_errors_custom_response",
            "test_smtp.py::TestSMTPWithController::test_exception_handler_exception",
            "test_smtp.py::TestSMTPWithController::test_exception_handler_undescribable",
            "test_smtp.py::TestSMTPWithController::test_exception_handler_multiple_connections_lost",
            "test_smtp.py::TestSleepingHandler::test_close_after_helo",
            "test_starttls.py::TestTLSEnding::test_tls_handshake_failing",
        ),
    ),
    (
        "Replies to pipelined commands go out in one write; the test counts writes.",
        (
            "test_smtp.py::TestProtocol::test_honors_mail_delimiters",
            "test_smtp.py::TestProtocol::test_empty_email",
        ),
    ),
    (
        "The test looks at private things of aiosmtpd's class: its StreamWriter, its session, its envelope.",
        (
            "test_smtp.py::TestResetCommands::test_helo",
            "test_smtp.py::TestResetCommands::test_rset",
            "test_smtp.py::TestClientCrash::test_connection_reset_during_DATA",
            "test_smtp.py::TestClientCrash::test_connection_reset_during_command",
            "test_smtp.py::TestClientCrash::test_connection_reset_in_long_command",
            "test_smtp.py::TestClientCrash::test_close_in_command",
            "test_smtp.py::TestClientCrash::test_close_in_command_2",
            "test_smtp.py::TestClientCrash::test_close_in_long_command",
            "test_smtp.py::TestClientCrash::test_close_in_data",
            "test_smtp.py::TestClientCrash::test_sockclose_after_helo",
            "test_starttls.py::TestTLSEnding::test_eof_received",
        ),
    ),
    (
        "The test reads aiosmtpd's log and warnings; the relay tells its own events, and never of a command's octets.",
        (
            "test_smtp.py::TestAuthMechanisms::test_plain1_goodcreds_sanitized_log",
            "test_smtp.py::TestAuthArgs::test_warn_authreqnotls",
            "test_smtp.py::TestAuthArgs::test_log_authmechanisms",
            "test_starttls.py::TestTLSContext::test_certreq_warn",
            "test_starttls.py::TestTLSContext::test_nocertreq_chkhost_warn",
        ),
    ),
    (
        "`command_call_limit` is no option: errors are counted instead, and a long day of NOOP is none.",
        (
            "test_smtp.py::TestLimits::test_limit_wrong_type",
            "test_smtp.py::TestLimits::test_limit_wrong_value_type",
            "test_smtp.py::TestLimits::test_all_limit_15",
            "test_smtp.py::TestLimits::test_different_limits",
            "test_smtp.py::TestLimits::test_different_limits_custom_default",
            "test_smtp.py::TestLimits::test_limit_bogus",
        ),
    ),
)
