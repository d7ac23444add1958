"""What upstreams say, and the remedy that an administrator reads."""

from __future__ import annotations

import pytest

from relay.mail.outcome import Stage, Trouble
from relay.observe.provider_texts import certificate_remedy, connection_remedy, sender_remedy
from tests.kit.sentences import EN, NL, braces

UNSUCCESSFUL = "Authentication unsuccessful"


@pytest.mark.parametrize(
    ("stage", "trouble", "reply", "remedy"),
    [
        (Stage.DNS, Trouble.TRANSIENT, (0, "", "the name smtp.exmaple.nl cannot be resolved: Name or …"), "dns"),
        *(
            (Stage.AUTH, Trouble.PERMANENT, (0, "", f"no token from login.example: {text}"), remedy)
            for text, remedy in (
                ("invalid_client: AADSTS7000222: The provided client secret keys are expired.", "token-secret-expired"),
                ("invalid_client: AADSTS7000215: Invalid client secret provided.", "token-secret-wrong"),
                ("invalid_client: AADSTS700025: Client is public.", "token-not-public"),
                ("invalid_client: AADSTS7000218: The request body must contain …", "token-public-client"),
                ("invalid_grant: AADSTS70043: The refresh token has expired", "token-login"),
                ("invalid_grant: AADSTS700082: inactive for 90 days", "token-login"),
                ("invalid_request: AADSTS50059: No tenant-identifying information found", "token-tenant"),
                ("invalid_request: AADSTS900971: No reply address provided.", "token-redirect"),
                ("unauthorized_client: AADSTS700016: Application was not found", "token-app"),
                ("invalid_client: AADSTS700024: Client assertion is not within its valid time range.", "token-clock"),
                ("invalid_client: AADSTS700027: The certificate … is not registered", "token-certificate"),
                ("invalid_grant: AADSTS65001: has not consented", "token-consent"),
                ("invalid_scope: AADSTS70011: The provided value for scope is not valid", "token-scope"),
                ("invalid_tenant: AADSTS90002: Tenant not found", "token-tenant"),
                ("invalid_grant: Invalid JWT: Token must be a short-lived token", "token-clock"),
                ("invalid_grant: Token has been expired or revoked.", "token-login"),
                ("unauthorized_client: Client is unauthorized", "token-delegation"),
                ("Connection refused", "token-endpoint"),
                ("it answered 200 with text/html, not JSON", "token-endpoint"),
                ("no answer in time", "token-endpoint"),
            )
        ),
        (Stage.AUTH, Trouble.PERMANENT, (0, "", "there is no refresh token of a@b.nl: log in once"), "token-login"),
        (
            Stage.AUTH,
            Trouble.TIMEOUT,
            (0, "", "no token within 30 s: the token endpoint does not answer"),
            "token-endpoint",
        ),
        (Stage.AUTH, Trouble.PERMANENT, (535, "5.7.3", f"{UNSUCCESSFUL} (XOAUTH2)"), "m365-token"),
        (
            Stage.AUTH,
            Trouble.PERMANENT,
            (535, "5.7.139", f"{UNSUCCESSFUL}, SmtpClientAuthentication is disabled for the Tenant. (XOAUTH2)"),
            "m365-tenant",
        ),
        (Stage.AUTH, Trouble.PERMANENT, (535, "5.7.8", "Username and Password (XOAUTH2: status 400)"), "token-refused"),
        (
            Stage.MAIL,
            Trouble.PERMANENT,
            (550, "5.7.30", "Basic authentication is not supported for Client Submission."),
            "m365-no-passwords",
        ),
        (Stage.DNS, Trouble.TIMEOUT, (0, "", "the name smtp.example.nl was not resolved within 15 s"), "dns"),
        (
            Stage.CONNECT,
            Trouble.TRANSIENT,
            (0, "", "no connection to smtp.example.nl port 587: Connection refused"),
            "connection-refused",
        ),
        (
            Stage.CONNECT,
            Trouble.TIMEOUT,
            (0, "", "no connection to smtp.example.nl port 25 within 15 s"),
            "connection-timeout",
        ),
        (
            Stage.CONNECT,
            Trouble.TRANSIENT,
            (0, "", "no connection to smtp.example.nl port 25: Network is unreachable"),
            "no-network",
        ),
        (Stage.BANNER, Trouble.TIMEOUT, (0, "", "the upstream did not answer banner within 60 s"), "port-and-tls"),
        (Stage.BANNER, Trouble.PERMANENT, (554, "5.7.1", "Service unavailable; Client host blocked"), "turned-away"),
        (Stage.BANNER, Trouble.TRANSIENT, (421, "4.4.5", "Too many connections from your host"), "throttled"),
        (Stage.EHLO, Trouble.TRANSIENT, (432, "4.3.2", "Concurrent connections limit exceeded"), "throttled"),
        (Stage.STARTTLS, Trouble.TRANSIENT, (0, "", "the upstream does not offer STARTTLS"), "no-starttls"),
        (Stage.STARTTLS, Trouble.TRANSIENT, (454, "4.7.0", "TLS not available"), "upstream"),
        (Stage.TLS, Trouble.TRANSIENT, (0, "", "the upstream's certificate has expired"), "certificate-expired"),
        (Stage.TLS, Trouble.TRANSIENT, (0, "", "the upstream's certificate is not valid yet"), "certificate-clock"),
        (Stage.TLS, Trouble.TRANSIENT, (0, "", "the upstream's certificate is self-signed"), "certificate-authority"),
        (
            Stage.TLS,
            Trouble.TRANSIENT,
            (0, "", "the upstream's certificate is signed by an unknown authority"),
            "certificate-authority",
        ),
        (
            Stage.TLS,
            Trouble.TRANSIENT,
            (0, "", "the upstream's certificate is for mail.example.nl, not for smtp.example.nl"),
            "certificate-name",
        ),
        (Stage.TLS, Trouble.TRANSIENT, (0, "", "TLS failed: wrong version number"), "port-and-tls"),
        (Stage.TLS, Trouble.TRANSIENT, (0, "", "TLS failed: tlsv1 alert protocol version"), "tls"),
        (Stage.TLS, Trouble.TRANSIENT, (0, "", "the TLS files of own cannot be used: No such file"), "tls-files"),
        (Stage.AUTH, Trouble.PERMANENT, (535, "5.7.8", "authentication failed"), "password"),
        (Stage.AUTH, Trouble.PERMANENT, (535, "5.7.3", UNSUCCESSFUL), "m365-login"),
        (
            Stage.AUTH,
            Trouble.PERMANENT,
            (535, "5.7.139", f"{UNSUCCESSFUL}, SmtpClientAuthentication is disabled for the Tenant. Visit …"),
            "m365-tenant",
        ),
        (
            Stage.AUTH,
            Trouble.PERMANENT,
            (535, "5.7.139", f"{UNSUCCESSFUL}, user is locked by your organization's security defaults policy."),
            "m365-security-defaults",
        ),
        (
            Stage.AUTH,
            Trouble.PERMANENT,
            (
                535,
                "5.7.139",
                f"{UNSUCCESSFUL}, the request did not meet the criteria to be authenticated successfully.",
            ),
            "m365-criteria",
        ),
        (
            Stage.AUTH,
            Trouble.PERMANENT,
            (550, "5.7.30", "Basic authentication is not supported for Client Submission."),
            "m365-no-passwords",
        ),
        (Stage.AUTH, Trouble.PERMANENT, (504, "5.7.4", "Unrecognized authentication type"), "mechanism"),
        (Stage.AUTH, Trouble.PERMANENT, (534, "5.7.9", "Application-specific password required."), "google-password"),
        (Stage.AUTH, Trouble.PERMANENT, (535, "5.7.8", "Username and Password not accepted."), "google-password"),
        (Stage.AUTH, Trouble.TRANSIENT, (454, "4.7.0", "Temporary authentication failure"), "login-later"),
        (Stage.AUTH, Trouble.DROPPED, (0, "", "the upstream closed the connection at auth"), "login-later"),
        (Stage.AUTH, Trouble.TRANSIENT, (0, "", "the upstream offers XOAUTH2, not PLAIN LOGIN CRAM-MD5"), "mechanism"),
        (Stage.AUTH, Trouble.TRANSIENT, (0, "", "AUTH would go over an unencrypted connection"), "mechanism"),
        (Stage.AUTH, Trouble.TRANSIENT, (0, "", "upstreams.own.password: /run/pw: No such file"), "secret"),
        (Stage.MAIL, Trouble.TRANSIENT, (421, "4.3.2", "closing"), "upstream"),
        (Stage.BANNER, Trouble.TRANSIENT, (421, "4.3.2", "Service not available"), "upstream"),
        (Stage.BANNER, Trouble.TRANSIENT, (421, "", "Server busy, try again later"), "upstream"),
        (Stage.EHLO, Trouble.TRANSIENT, (421, "4.3.2", "The maximum number of concurrent connections"), "throttled"),
        (Stage.BANNER, Trouble.PERMANENT, (554, "5.7.1", "Client host rejected"), "turned-away"),
        (Stage.TLS, Trouble.TRANSIENT, (0, "", "the upstream's key is none of those in tls_pin"), "certificate-pin"),
        (Stage.AUTH, Trouble.PERMANENT, (535, "5.0.401", "HTTP 401 Unauthorized"), "endpoint-login"),
        (Stage.AUTH, Trouble.PERMANENT, (535, "5.0.403", "HTTP 403 Forbidden"), "endpoint-login"),
        (Stage.HTTP, Trouble.TRANSIENT, (450, "4.0.308", ""), "endpoint-moved"),
        (Stage.HTTP, Trouble.TRANSIENT, (450, "4.0.429", ""), "throttled"),
        (Stage.HTTP, Trouble.TRANSIENT, (450, "4.0.503", ""), "upstream"),
        (Stage.HTTP, Trouble.TIMEOUT, (0, "", "no answer within 30 s"), "upstream"),
    ],
)
def test_the_remedy_fits_the_stage_and_the_reply(
    stage: Stage, trouble: Trouble, reply: tuple[int, str, str], remedy: str
) -> None:
    assert connection_remedy(stage, trouble, *reply) == remedy
    assert remedy in EN["remedy"]


@pytest.mark.parametrize(
    ("reply", "remedy"),
    [
        ((550, "5.7.60", "SMTP; Client does not have permissions to send as this sender"), "m365-send-as"),
        ((554, "5.2.252", "SendAsDenied; a@example.nl not allowed to send as b@example.nl"), "m365-send-as"),
        (
            (554, "5.2.0", "STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied"),
            "m365-send-as",
        ),
        ((550, "5.1.8", "Bad outbound sender"), "m365-blocked"),
        ((530, "5.7.57", "Client not authenticated to send mail"), "login-missing"),
        ((530, "5.7.0", "Authentication Required"), "login-missing"),
        ((553, "5.7.1", "Sender address rejected: not owned by user"), "sender"),
        ((553, "", ""), "sender"),
    ],
)
def test_the_remedy_for_a_refused_sender_fits_the_reply(reply: tuple[int, str, str], remedy: str) -> None:
    assert sender_remedy(*reply) == remedy
    assert remedy in EN["remedy"]


def test_trouble_with_tls_that_is_not_the_certificate_is_not_blamed_on_it() -> None:
    assert certificate_remedy("TLS failed: wrong version number") == ""
    assert certificate_remedy("the TLS files of own cannot be used: tls_certificate: No such file") == ""


@pytest.mark.parametrize("table", ["remedy", "trouble", "title"])
def test_both_languages_say_something_of_their_own_with_the_same_values(table: str) -> None:
    for key, english in EN[table].items():
        assert english != NL[table][key], key
        assert braces(english) == braces(NL[table][key]), key


def test_every_kind_of_trouble_has_a_title_and_a_sentence() -> None:
    assert EN["title"].keys() == EN["trouble"].keys()
    for kind in EN["trouble"]:
        assert all(text.endswith(".") and text[0].isupper() for text in (EN["trouble"][kind], NL["trouble"][kind])), (
            kind
        )
