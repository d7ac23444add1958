"""The demo's upstream is as strict as a provider: TLS, AUTH, and nobody else's sender."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TypeVar

import pytest

from relay.demo import judgement
from relay.demo.mails import MAILBOX, all_mails, own_mail
from relay.demo.scene import OWN_ACCOUNT, VENDOR_ACCOUNT
from relay.demo.upstream import Account, Authority, Upstream, running

NOW = datetime(2026, 11, 23, 21, 0, tzinfo=UTC)
AUTHORITY = Authority()
CONTEXT = ssl.create_default_context(cadata=AUTHORITY.certificate.decode())
T = TypeVar("T")


@asynccontextmanager
async def server(account: Account = OWN_ACCOUNT) -> AsyncIterator[Upstream]:
    async with running("own", account, AUTHORITY) as upstream:
        yield upstream


def logged_in(upstream: Upstream, password: str | None = None) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", upstream.port, local_hostname="relay.kantoor.example", timeout=20)
    try:
        client.starttls(context=CONTEXT)
        client.login(upstream.account.username, upstream.account.password if password is None else password)
    except BaseException:
        client.close()
        raise
    return client


async def ask(upstream: Upstream, question: Callable[[smtplib.SMTP], T]) -> T:
    """What `question` gets from a client that is logged in, asked on a thread."""

    def conversation() -> T:
        with logged_in(upstream) as client:
            return question(client)

    return await asyncio.to_thread(conversation)


@pytest.mark.asyncio
async def test_mail_from_the_account_s_own_address_is_taken_as_it_is() -> None:
    mail = own_mail(NOW)
    async with server() as upstream:
        await ask(upstream, lambda client: client.sendmail(MAILBOX, list(mail.recipients), mail.content))
    (received,) = upstream.received
    assert received.content == mail.content
    assert (received.reverse_path, received.recipients) == (MAILBOX, mail.recipients)
    assert received.tls.startswith("TLSv1.")
    assert judgement.problems(mail, upstream.received) == []


@pytest.mark.asyncio
async def test_another_reverse_path_is_refused_as_microsoft_refuses_it() -> None:
    async with server() as upstream:
        code, text = await ask(upstream, lambda client: (client.ehlo(), client.mail("jan@kantoor.example"))[1])
    assert (code, text) == (550, b"5.7.60 SMTP; Client does not have permissions to send as this sender")
    assert len(upstream.refusals) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("author", ["jan@kantoor.example", f"{MAILBOX}, jan@kantoor.example", ""])
async def test_another_author_is_refused_after_the_data(author: str) -> None:
    content = f"From: {author}\r\nSubject: x\r\n\r\nx\r\n"
    async with server() as upstream:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            await ask(upstream, lambda client: client.sendmail(MAILBOX, ["a@x.example"], content))
    assert refused.value.smtp_code == 554
    assert isinstance(refused.value.smtp_error, bytes)
    assert refused.value.smtp_error.startswith(b"5.2.252 SendAsDenied; ")
    assert upstream.received == []


@pytest.mark.asyncio
async def test_the_vendor_takes_any_sender() -> None:
    async with server(VENDOR_ACCOUNT) as upstream:
        await ask(
            upstream, lambda client: client.sendmail("a@b.example", ["c@d.example"], "From: x@y.example\r\n\r\nx\r\n")
        )
    assert len(upstream.received) == 1


@pytest.mark.asyncio
async def test_without_tls_and_without_auth_nothing_is_taken() -> None:
    def conversation(port: int) -> list[int]:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="x.example", timeout=20) as client:
            client.ehlo()
            before = client.mail(MAILBOX)[0]
            offered = client.has_extn("auth")
            client.starttls(context=CONTEXT)
            client.ehlo()
            return [before, int(offered), client.mail(MAILBOX)[0]]

    async with server() as upstream:
        assert await asyncio.to_thread(conversation, upstream.port) == [530, 0, 530]


@pytest.mark.asyncio
async def test_a_wrong_password_is_refused() -> None:
    async with server() as upstream:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            await asyncio.to_thread(logged_in, upstream, "wrong")


@pytest.mark.asyncio
async def test_the_mails_of_the_bookkeepers_would_be_refused_without_a_relay() -> None:
    def refused(client: smtplib.SMTP) -> int:
        count = 0
        for mail in all_mails(NOW):
            try:
                client.sendmail(mail.reverse_path, list(mail.recipients), mail.content)
            except smtplib.SMTPException:
                count += 1
        return count

    async with server() as upstream:
        assert await ask(upstream, refused) == 4
    assert "demo-password" not in repr(upstream)
