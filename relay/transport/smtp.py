"""The way out by SMTP: dial, banner, EHLO, STARTTLS, TLS, EHLO again, AUTH; then `transaction` takes over.

Each step has its own deadline and its own stage, and ends in the next step or in `Deferred`. What it promises:

- Nothing secret goes over a connection that was to be encrypted and is not. STARTTLS that is not offered, or
  refused, ends the connection; anything that came in the clear behind the answer to STARTTLS does too
  (RFC 3207, section 6).
- What goes wrong before AUTH at one address of the host gives way to the next, up to three, within twice the time
  for a greeting.
- A password is tried once, so that an account is not locked by guessing; a second mechanism has its turn where the
  first was refused for its own sake. One connection at a time does AUTH: those that were begun together do not try a
  wrong password each. A login that had no answer says nothing of the others.
- A connection that was not finished is dropped, also when `connect` is cancelled.
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import field, replace
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Literal, cast

from aiosmtplib.auth import auth_crammd5_verify, auth_login_encode, auth_plain_encode
from aiosmtplib.errors import SMTPException, SMTPServerDisconnected
from aiosmtplib.esmtp import parse_esmtp_extensions
from aiosmtplib.protocol import SMTPProtocol

from relay.errors import RelayError
from relay.events import ChunkingGivenUp, Observer, UpstreamConnected
from relay.mail.outcome import Deferred, Stage, Trouble
from relay.policy.login import refuses_mechanism
from relay.transport import dial, xoauth2
from relay.transport.addresses import Addresses, of_peer
from relay.transport.chunking import Chunking
from relay.transport.offers import Offers
from relay.transport.replies import ReplyReader, code_of, reply_of
from relay.transport.stopped import Stopped, reason, stop
from relay.transport.tls import TlsContext, TlsTerms, build, end_of, explain, is_wrong_name, names_of
from relay.transport.transaction import SmtpConnection, SmtpTimeouts
from relay.values import frozen

if TYPE_CHECKING:  # who logs in with a password needs none of it
    from relay.transport.tokens import Token, TokenSource

MECHANISMS = ("plain", "login", "cram-md5")
LONGEST_AUTH = 500  # octets of a line; with more, the response goes on a line of its own (RFC 4954, section 4)
_NO_EHLO = (500, 502)


@frozen
class SmtpSettings:
    """One upstream. `password` reveals the secret, is asked at each connect, and may raise RelayError.

    `auth` "none": no AUTH; "auto": the first offered of PLAIN, LOGIN, CRAM-MD5, or the next; "xoauth2": a token.
    `cleartext_auth`: AUTH may go unencrypted to a host other than this one. `tls_profile`: as in `tls.TlsTerms`.
    `hostname`: what EHLO says; without a dot, the address literal. `max_message_size` is what is known of it before,
    and while EHLO does not say. `chunking`: a message may leave in one write with its envelope, where that is offered.
    """

    name: str
    host: str
    port: int
    hostname: str
    tls: Literal["starttls", "implicit", "none"]
    tls_verify: bool
    tls_ca: str | None
    tls_certificate: str | None
    tls_key: str | None
    tls_profile: Literal["modern", "legacy"]
    auth: Literal["none", "auto", "plain", "login", "cram-md5", "xoauth2"]
    username: str | None = field(repr=False)
    password: Callable[[], str] | None = field(repr=False)
    cleartext_auth: bool
    timeouts: SmtpTimeouts
    max_message_size: int | None
    chunking: bool

    @property
    def tls_terms(self) -> TlsTerms:
        return TlsTerms(self.tls_verify, self.tls_ca, self.tls_certificate, self.tls_key, self.tls_profile)


@frozen
class Heard:
    """What a connection learned before AUTH: the TLS version ("": none), what `getpeercert` returned, EHLO's answer.

    `extensions` are keywords in lower case with their parameters, `mechanisms` those of AUTH.
    """

    version: str
    certificate: dict[str, object] | None
    extensions: dict[str, str]
    mechanisms: tuple[str, ...]


class SmtpTransport:
    """An smtp upstream (`port.Transport`). `tokens`: where those of auth "xoauth2" come from."""

    def __init__(self, settings: SmtpSettings, *, observer: Observer, tokens: TokenSource | None = None) -> None:
        self.settings = settings
        self.tokens = tokens
        self.heard: Heard | None = None  # by the last connection that came as far
        self.observer = observer
        self._dialer = dial.Dialer(settings.host, settings.port)
        self._addresses = Addresses()
        self._tls = TlsContext(settings.tls_terms)
        self._size_limit = settings.max_message_size
        self._login = asyncio.Lock()
        self._chunking = Chunking(
            wanted=settings.chunking, tell=lambda why: observer.observe(ChunkingGivenUp(settings.name, why))
        )
        self._refused: Deferred | None = None  # what was said of the last login that was refused

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def size_limit(self) -> int | None:
        """The SIZE that the last connection heard, else what was known before; None: no limit is known."""
        return self._size_limit

    def reload(self) -> None:
        """Certificates and CAs are read anew before the next connection; secrets always are. Its size limit is heard
        anew, and messages go in one write again."""
        self._tls.reload()
        self._size_limit = self.settings.max_message_size
        self._chunking.begin_anew()
        if self.tokens is not None:
            self.tokens.reload()

    async def connect(self) -> SmtpConnection | Deferred:
        """A connection past TLS and AUTH, or how far it came. Raises nothing for what an upstream or a network does."""
        if self.settings.auth != "xoauth2":
            return await self._connect(None)
        assert self.tokens is not None
        # The token comes first: an upstream should not wait for somebody else.
        token = await self.tokens.get()
        if isinstance(token, Deferred):
            return token
        outcome = await self._connect(token)
        if _refused(outcome) and self.tokens.refuse(token):
            # It was an old one: its end may have come early. A new one is tried, once.
            token = await self.tokens.get()
            if isinstance(token, Deferred):
                return token
            outcome = await self._connect(token)
            if _refused(outcome):
                self.tokens.refuse(token)
        return outcome

    async def _connect(self, token: Token | None) -> SmtpConnection | Deferred:
        try:
            return await self._open(token)
        except Stopped as stopped:
            return stopped.outcome

    async def _open(self, token: Token | None) -> SmtpConnection:
        refused_before = self._refused
        opening, heard, address = await self._reach()
        try:
            self.heard = heard
            if self.settings.auth != "none":
                await self._log_in(opening, heard.mechanisms, token, refused_before)
            offers = Offers.of(heard.extensions)
            self._size_limit = offers.size or self.settings.max_message_size
            certificate = opening.certificate()
            connection = opening.hand_over(offers, self._chunking)
        except BaseException:
            opening.drop()
            raise
        self._addresses.took(address, connection)
        self.observer.observe(UpstreamConnected(self.name, end_of(certificate)))
        return connection

    async def look_at_each(self) -> AsyncIterator[tuple[str, Heard | Deferred]]:
        """Each address of a host that has several, and how far a connection to it comes, as far as EHLO."""
        try:
            context, found = await self._context(), await self._resolve()
        except Stopped:
            return  # a connection says so, too
        for address in found if len(found) > 1 else ():
            try:
                opening, _ = await self._dial([address], math.inf)
                heard = await self._greet(opening, address, context)
            except Stopped as stopped:
                yield str(address[4][0]), stopped.outcome
            else:
                opening.drop()
                yield str(address[4][0]), heard

    async def _reach(self) -> tuple[_Opening, Heard, dial.Address]:
        """A connection past TLS and EHLO, with the first of the addresses that gets so far; else what the first said
        that said anything."""
        context = await self._context()
        now = asyncio.get_running_loop().time
        left = self._addresses.in_order(await self._resolve(), now())
        end = now() + 2 * self.settings.timeouts.greeting if len(left) > 1 else math.inf
        told: Stopped | None = None
        while left and now() < end:
            try:
                opening, address = await self._dial(left, end)
            except Stopped as stopped:
                for address in left:
                    self._addresses.failed(address, now())
                raise told or stopped from None
            try:
                return opening, await self._greet(opening, address, context), address
            except Stopped as stopped:
                self._addresses.failed(address, now())
                told = told or stopped
                left.remove(address)
            except BaseException:
                self._addresses.given_up(address, now())
                raise
        assert told is not None
        raise told

    async def _greet(self, opening: _Opening, address: dial.Address, context: ssl.SSLContext | None) -> Heard:
        """Past the banner, TLS where it is asked for, and EHLO; the connection is dropped where that fails."""
        try:
            await self._secure(opening, context)
            plainly = self.settings.tls == "none" and self.settings.auth == "none"
            extensions, mechanisms = await opening.ehlo(self.settings.hostname, or_helo=plainly)
        except _WrongName:
            opening.drop()
            names = await self._names(address, opening.end)
            text = f"the upstream's certificate is for {names or 'another name'}, not for {self.settings.host}"
            stop(Stage.TLS, Trouble.TRANSIENT, text)
        except BaseException:
            opening.drop()
            raise
        opening.end = math.inf
        return Heard(opening.version(), opening.certificate(), extensions, tuple(mechanisms))

    async def _secure(self, opening: _Opening, context: ssl.SSLContext | None) -> None:
        """Past the banner, and past TLS where it is asked for."""
        settings = self.settings
        if settings.tls == "implicit":
            assert context is not None
            await opening.start_tls_now(context, settings.host)
            await opening.banner()
        else:
            await opening.banner()
        if settings.tls == "starttls":
            assert context is not None
            extensions, _ = await opening.ehlo(settings.hostname)
            if "starttls" not in extensions:
                stop(Stage.STARTTLS, Trouble.TRANSIENT, "the upstream does not offer STARTTLS")
            await opening.ask(Stage.STARTTLS, b"STARTTLS")
            await opening.start_tls_now(context, settings.host)

    async def _context(self) -> ssl.SSLContext | None:
        if self.settings.tls == "none":
            return None
        try:
            return await self._tls.get()
        except OSError as error:
            stop(Stage.TLS, Trouble.TRANSIENT, f"the TLS files of {self.name} cannot be used: {error}")

    async def _resolve(self) -> Sequence[dial.Address]:
        timeouts = self.settings.timeouts
        host = self.settings.host
        try:
            return await self._dialer.resolve(timeouts.connect)
        except TimeoutError:
            stop(Stage.DNS, Trouble.TIMEOUT, f"the name {host} was not resolved within {timeouts.connect:g} s")
        except (OSError, UnicodeError) as error:
            stop(Stage.DNS, Trouble.TRANSIENT, f"the name {host} cannot be resolved: {reason(error)}")

    async def _dial(self, addresses: Sequence[dial.Address], end: float) -> tuple[_Opening, dial.Address]:
        """A connection to one of `addresses`, and which; what it is told until EHLO has to come before `end`."""
        timeouts, loop = self.settings.timeouts, asyncio.get_running_loop()
        where = f"{self.settings.host} port {self.settings.port}"
        allowed = min(timeouts.connect, end - loop.time())
        try:
            sock = await dial.connect(addresses, allowed)
        except TimeoutError:
            stop(Stage.CONNECT, Trouble.TIMEOUT, f"no connection to {where} within {_seconds(allowed)}")
        except OSError as error:
            stop(Stage.CONNECT, Trouble.TRANSIENT, f"no connection to {where}: {reason(error)}")
        try:
            address = of_peer(sock.getpeername(), addresses)
        except OSError:
            address = addresses[0]  # it is gone again
        opening = _Opening(sock, timeouts, end)
        try:
            await loop.create_connection(lambda: opening, sock=sock)
        except BaseException:
            sock.close()
            raise
        return opening, address

    def _nameless(self) -> ssl.SSLContext:
        context = build(self.settings.tls_terms)
        context.check_hostname = False
        return context

    async def _names(self, address: dial.Address, end: float) -> str:
        """The names in the certificate that failed for its name: a second look, as the first shows none."""
        try:
            context = await asyncio.to_thread(self._nameless)
            opening, _ = await self._dial([address], end)
        except (Stopped, OSError):
            return ""
        try:
            await self._secure(opening, context)
            return names_of(opening.certificate())
        except (Stopped, _WrongName):
            return ""
        finally:
            opening.drop()

    async def _log_in(
        self, opening: _Opening, offered: Sequence[str], token: Token | None, refused_before: Deferred | None
    ) -> None:
        """AUTH; where another was refused since this connection was begun, its answer is ours."""
        async with self._login:
            if self._refused is not None and self._refused is not refused_before:
                raise Stopped(self._refused)
            try:
                await self._authenticate(opening, offered, token)
            except Stopped as stopped:
                if stopped.outcome.reply is not None:
                    self._refused = stopped.outcome
                raise

    async def _authenticate(self, opening: _Opening, offered: Sequence[str], token: Token | None) -> None:
        settings = self.settings
        if not (opening.encrypted or opening.peer_is_here or settings.cleartext_auth):
            stop(Stage.AUTH, Trouble.TRANSIENT, "AUTH would go over an unencrypted connection")
        wanted = MECHANISMS if settings.auth == "auto" else (settings.auth,)
        both = [one for one in wanted if one in offered]
        if not both:
            words = " ".join(offered).upper() or "no AUTH"
            stop(Stage.AUTH, Trouble.TRANSIENT, f"the upstream offers {words}, not {' '.join(wanted).upper()}")
        if token is not None:
            await opening.show(token.value, settings.username or "")
            return
        try:
            password = settings.password() if settings.password is not None else ""
        except RelayError as error:
            stop(Stage.AUTH, Trouble.TRANSIENT, str(error))
        username = settings.username or ""
        try:
            await opening.authenticate(both[0], username, password)
        except Stopped as stopped:
            if len(both) == 1 or not _of_the_mechanism(stopped.outcome):
                raise
            await self._authenticate_otherwise(opening, both[1], username, password, refused=stopped)

    async def _authenticate_otherwise(
        self, opening: _Opening, mechanism: str, username: str, password: str, *, refused: Stopped
    ) -> None:
        """By the next mechanism, once; the refusal of the first stands where that one has no answer."""
        try:
            await opening.authenticate(mechanism, username, password)
        except Stopped as stopped:
            raise refused if stopped.outcome.reply is None else stopped from None


def _of_the_mechanism(outcome: Deferred) -> bool:
    return outcome.reply is not None and refuses_mechanism(outcome.reply.code, outcome.reply.text)


def _refused(outcome: SmtpConnection | Deferred) -> bool:
    """Whether the upstream did not take the token."""
    if not isinstance(outcome, Deferred) or outcome.stage is not Stage.AUTH:
        return False
    return outcome.reply is not None and outcome.reply.code == 535


def _seconds(allowed: float) -> str:
    return f"{round(allowed, 1):g} s"


class _WrongName(Exception):
    """The certificate is good, but for another name."""


class _Opening(SMTPProtocol):
    """aiosmtplib's protocol, strict: a reply for each command, no more, and nothing that is no reply.

    What breaks that drops the connection before aiosmtplib sees it. Nothing takes longer than until `end`.
    """

    def __init__(self, sock: socket.socket, timeouts: SmtpTimeouts, end: float) -> None:
        self._clock = asyncio.get_running_loop().time
        super().__init__(loop=asyncio.get_running_loop())
        self.end = end
        self._sock = sock
        self._timeouts = timeouts
        self._wire: asyncio.Transport | None = None
        self._reader = ReplyReader()
        self._reader.owed = 1  # the banner
        self._hello = b""
        self._last = b""
        self._violation: str | None = None
        self.encrypted = False

    @property
    def peer_is_here(self) -> bool:
        """True when the other end is this machine."""
        try:
            return ip_address(self._sock.getpeername()[0].partition("%")[0]).is_loopback
        except OSError:
            return False

    def certificate(self) -> dict[str, object] | None:
        return cast("dict[str, object] | None", self.transport and self.transport.get_extra_info("peercert"))

    def version(self) -> str:
        """Of TLS, as in "TLSv1.3"; "" without."""
        found = self.transport and self.transport.get_extra_info("ssl_object")
        return (found and found.version()) or ""

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)
        super().connection_made(transport)

    def write(self, data: bytes) -> None:
        self._reader.owed += 1
        super().write(data)

    def data_received(self, data: bytes) -> None:
        replies = self._reader.answers(data)
        if self._reader.broken is not None:
            self._violate(f"the upstream does not speak SMTP: {self._reader.broken}")
            return
        if not self._reader.in_step:
            self._violate("the upstream sent more than it was asked for")
            return
        if replies:
            self._last = replies[-1]
        super().data_received(data)

    def _violate(self, text: str) -> None:
        self._violation = text
        self.drop()

    def drop(self) -> None:
        """Drop the connection at once."""
        for transport in (self.transport, self._wire):
            if transport is not None:
                cast(asyncio.Transport, transport).abort()

    # The steps

    async def banner(self) -> None:
        await self._reply(Stage.BANNER, None)

    @property
    def _allowed(self) -> float:
        """Seconds for the next step."""
        return max(0.0, min(self._timeouts.greeting, self.end - self._clock()))

    async def ehlo(self, hostname: str, *, or_helo: bool = False) -> tuple[dict[str, str], list[str]]:
        """The keywords, in lower case, with their parameters; and the mechanisms of AUTH.

        `or_helo`: a server that does not know EHLO gets HELO, which has neither (RFC 5321, section 3.2).
        """
        name = hostname if "." in hostname or hostname.startswith("[") else self._literal()
        self._hello = b"EHLO %b\r\n" % name.encode("ascii", "replace")
        try:
            raw = await self.ask(Stage.EHLO, *self._hello.split())
        except Stopped as stopped:
            reply = stopped.outcome.reply
            if not or_helo or reply is None or reply.code not in _NO_EHLO:
                raise
            self._hello = b"HELO" + self._hello[4:]
            await self.ask(Stage.EHLO, *self._hello.split())
            return {}, []
        lines = [line[4:].decode("utf-8", "replace") for line in raw.split(b"\n")]
        return parse_esmtp_extensions("\n".join(lines))

    def _literal(self) -> str:
        """An address literal of this end (RFC 5321, section 4.1.3)."""
        try:
            address = ip_address(self._sock.getsockname()[0].partition("%")[0])
        except OSError:
            return "[127.0.0.1]"  # the connection is broken; the next step will say so
        return f"[IPv6:{address}]" if isinstance(address, IPv6Address) else f"[{address}]"

    async def start_tls_now(self, context: ssl.SSLContext, host: str) -> None:
        """The handshake. `encrypted` afterwards."""
        allowed = self._allowed
        self._intact(Stage.STARTTLS if self._last else Stage.TLS)
        assert self._wire is not None
        try:
            async with asyncio.timeout(allowed):
                transport = await asyncio.get_running_loop().start_tls(
                    self._wire, self, context, server_hostname=host, ssl_handshake_timeout=allowed + 5
                )
        except TimeoutError:
            stop(Stage.TLS, Trouble.TIMEOUT, f"the TLS handshake was not done within {_seconds(allowed)}")
        except OSError as error:
            if is_wrong_name(error):
                raise _WrongName from None
            dropped = isinstance(error, (ConnectionError, ssl.SSLEOFError))
            text = "the upstream closed the connection during the TLS handshake" if dropped else explain(error, host)
            stop(Stage.TLS, Trouble.DROPPED if dropped else Trouble.TRANSIENT, text)
        # An end that came before the handshake began is no error to asyncio: only a cipher proves that there was one.
        if transport is None or transport.get_extra_info("cipher") is None:
            stop(Stage.TLS, Trouble.DROPPED, "the upstream closed the connection before the TLS handshake")
        self.transport = transport
        self.encrypted = True
        self._intact(Stage.TLS)

    async def authenticate(self, mechanism: str, username: str, password: str) -> None:
        """One try."""
        secrets = [word for word in (password.encode(),) if len(word) > 3]
        match mechanism:
            case "plain":
                encoded = auth_plain_encode(username, password)
                await self._respond(b"PLAIN", encoded, b"2", (*secrets, encoded))
            case "login":
                for_name, for_password = auth_login_encode(username, password)
                secrets.append(for_password)
                await self.ask(Stage.AUTH, b"AUTH", b"LOGIN", want=b"3")
                await self.ask(Stage.AUTH, for_name, want=b"3", secrets=secrets)
                await self.ask(Stage.AUTH, for_password, secrets=secrets)
            case _:
                challenge = (await self.ask(Stage.AUTH, b"AUTH", b"CRAM-MD5", want=b"3"))[4:]
                try:
                    answer = auth_crammd5_verify(username, password, challenge)
                except SMTPException:
                    stop(Stage.AUTH, Trouble.TRANSIENT, "the upstream's CRAM-MD5 challenge is malformed")
                await self.ask(Stage.AUTH, answer, secrets=(*secrets, answer))

    async def show(self, token: str, username: str) -> None:
        """XOAUTH2, one try; a refusal says what the upstream said of the token."""
        response, said = xoauth2.initial_response(username, token), ""
        secrets = (token.encode(), response)
        try:
            raw = await self._respond(b"XOAUTH2", response, (b"2", b"3"), secrets)
            if raw.startswith(b"3"):
                said = xoauth2.told(raw[4:], token)
                await self.ask(Stage.AUTH, b"", secrets=secrets)
        except Stopped as stopped:
            if stopped.outcome.reply is None:
                raise
            reply = xoauth2.marked(stopped.outcome.reply, said)
            raise Stopped(replace(stopped.outcome, text=reply.text, reply=reply)) from None

    async def _respond(
        self, mechanism: bytes, response: bytes, want: bytes | tuple[bytes, ...], secrets: tuple[bytes, ...]
    ) -> bytes:
        """AUTH with its response at once, or behind a 334 where the line would be longer than a command may be."""
        if len(b"AUTH %b %b\r\n" % (mechanism, response)) <= LONGEST_AUTH:
            return await self.ask(Stage.AUTH, b"AUTH", mechanism, response, want=want, secrets=secrets)
        await self.ask(Stage.AUTH, b"AUTH", mechanism, want=b"3")
        return await self.ask(Stage.AUTH, response, want=want, secrets=secrets)

    async def ask(
        self,
        stage: Stage,
        *words: bytes,
        want: bytes | tuple[bytes, ...] = b"2",
        secrets: tuple[bytes, ...] | list[bytes] = (),
    ) -> bytes:
        """The reply to a command, which begins with `want`; anything else stops. `secrets` are kept out of the text."""
        return await self._reply(stage, words, want, secrets)

    async def _reply(
        self,
        stage: Stage,
        words: tuple[bytes, ...] | None,
        want: bytes | tuple[bytes, ...] = b"2",
        secrets: tuple[bytes, ...] | list[bytes] = (),
    ) -> bytes:
        allowed = self._allowed
        try:
            # Not aiosmtplib's own timeout: its wait_for can lose a cancellation that meets a reply (Python 3.11).
            async with asyncio.timeout(allowed):
                if words is None:
                    await self.read_response()
                else:
                    await self.execute_command(*words)
        except TimeoutError:
            stop(stage, Trouble.TIMEOUT, f"the upstream did not answer {stage} within {_seconds(allowed)}")
        except SMTPServerDisconnected:
            self._intact(stage)
            stop(stage, Trouble.DROPPED, f"the upstream closed the connection at {stage}")
        except SMTPException:
            stop(stage, Trouble.TRANSIENT, "the upstream does not speak SMTP: the reply is malformed")
        raw = self._last
        if not raw.startswith(want):
            for secret in secrets:
                raw = raw.replace(secret, b"[secret]")
            reply = reply_of(raw)
            trouble = Trouble.PERMANENT if code_of(raw) >= 500 else Trouble.TRANSIENT
            raise Stopped(Deferred(stage, trouble, reply.text, reply, upstream_sick=True))
        return raw

    def _intact(self, stage: Stage) -> None:
        """Stop where something came that was not asked for."""
        if self._violation is not None:
            stop(stage, Trouble.TRANSIENT, self._violation)

    def hand_over(self, offers: Offers, chunking: Chunking) -> SmtpConnection:
        """From here on the transaction protocol owns the connection."""
        if self._violation is not None or self.transport is None or self._wire is None or self._wire.is_closing():
            self._intact(Stage.AUTH)
            stop(Stage.AUTH, Trouble.DROPPED, "the upstream closed the connection before the first transaction")
        transport = cast(asyncio.Transport, self.transport)
        connection = SmtpConnection(transport, self._wire, self._sock, offers, self._hello, self._timeouts, chunking)
        transport.set_protocol(connection)
        self.transport = None
        return connection
