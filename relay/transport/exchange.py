"""One request after another over an open connection to an HTTPS endpoint: a message, and what was answered.

HTTP is aiohttp's; the connection is made and checked elsewhere (`https`), and aiohttp gets exactly that one. What it
promises:

- Nothing but the configured URL is asked: no redirect is followed, no proxy of the environment, no cookie is kept.
- It is known whether the last octet of a request has been handed over. If no status came after that, delivery is in
  doubt; before that, it is not. A connection given up is aborted.
- The status is the answer. What follows it is read up to 64 KiB and for some seconds, and can change nothing.
- An answer counts for the request that it answers: what was here before that, or takes it before all of it has arrived
  over there, delivers nothing.
- An answer has 128 KiB at most, interim ones (1xx) and header included, and what comes unasked ends the connection.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from yarl import URL

from relay import __version__
from relay.mail.outcome import Deferred, Failed, Stage, Trouble
from relay.mail.reply import Reply, sanitise
from relay.policy import fields
from relay.policy.fields import Template
from relay.policy.pattern import CodePattern
from relay.transport.answer import Answer, OnClientError, delivery
from relay.transport.credentials import Credentials
from relay.transport.kernel import unacknowledged, unread
from relay.transport.port import CALLED_OFF, PIECE, Delivery, DeliveryRequest
from relay.transport.tls import explain
from relay.values import frozen

MOST_OF_AN_ANSWER = 64 * 1024
MOST_IN_ALL = 2 * MOST_OF_AN_ANSWER
REST_OF_AN_ANSWER = 5.0  # seconds for what follows the status
GOODBYE = 1.0  # seconds for the end of TLS
_OF_CERTIFICATES = ("_CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE")
_PLAIN = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")


@frozen
class Terms:
    """What is asked, and how. `template` None: the message itself goes, not fields of it. `total`: seconds from the
    first octet of a request to the status of its answer."""

    url: str
    host: str
    method: Literal["POST", "PUT"]
    template: Template
    code_pattern: CodePattern | None
    headers: tuple[tuple[str, str], ...]
    on_client_error: OnClientError
    total: float


class Wire(ResponseHandler):
    """The connection as aiohttp has it. What comes beyond the answer to a request drops it."""

    octets_left = 0

    def data_received(self, data: bytes) -> None:
        left = self.octets_left
        self.octets_left = max(0, left - len(data))
        super().data_received(data[:left])
        if len(data) > left:
            self.set_exception(HttpProcessingError(message="the answer is too long"))
            if self.transport is not None:
                self.transport.abort()

    def unread(self) -> int:
        """Octets that came and were not read."""
        return 0 if self.transport is None else unread(self.transport.get_extra_info("socket"))

    def has_unsent(self) -> bool:
        """Whether a part of a request is not over there yet. The segment that brings an answer acknowledges what was
        read before it."""
        if self.transport is None:
            return False
        return self.transport.get_write_buffer_size() > 0 or unacknowledged(self.transport.get_extra_info("socket")) > 0


class HttpsConnection:
    """An open connection (`port.Connection`), with its credentials. Requests have one recipient each.

    `fresh`: whether those are still what the configuration has; else the connection is good for nothing more.
    """

    def __init__(
        self, wire: Wire, terms: Terms, credentials: Credentials, fresh: Callable[[], bool] = lambda: True
    ) -> None:
        self._wire = wire
        self._terms = terms
        self._credentials = credentials
        self._fresh = fresh
        self._connector = _OneConnection(wire)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            auto_decompress=False,
            trust_env=False,
        )
        self._tell_of_loss: Callable[[], None] = lambda: None
        self._ended = wire.closed
        if self._ended is not None:
            self._ended.add_done_callback(self._lost)
        self._why: BaseException | None = None
        self._closed = False
        self._answered = False  # once at least
        self._sent = False
        self._limit: asyncio.Timeout | None = None
        self._unreadable: OSError | None = None

    @property
    def usable(self) -> bool:
        return not self._closed and self._wire.is_connected() and self._fresh()

    @property
    def past_dot(self) -> bool:
        """True while a whole request is out and no status is in."""
        return self._sent

    async def deliver(self, request: DeliveryRequest) -> Delivery:
        """One request. Raises only OSError, where the content cannot be read; the connection is aborted then."""
        content: _Content | Reply
        if self._terms.template is None:
            content = _Content(request)
        else:
            content = await asyncio.to_thread(self._in_fields, request)
        if isinstance(content, Reply):
            return Delivery((Failed(Stage.HTTP, content, unasked=True),))
        self._sent, self._unreadable = False, None
        try:
            header = await self._header(request, content)
            if request.gate is not None and not await request.gate():
                return Delivery((CALLED_OFF,))
            return await self._exchange(request, content, header)
        except BaseException:
            self.abort()
            raise
        finally:
            self._sent, self._limit = False, None
            self._wire.octets_left = 0

    async def refresh(self) -> bool:
        """HTTP knows nothing that could be said without a request: the endpoint closes it when it likes."""
        if not self.usable:
            self.abort()
        return self.usable

    def when_lost(self, tell: Callable[[], None]) -> None:
        """`tell` is called once the connection has gone."""
        self._tell_of_loss = tell

    async def close(self) -> None:
        """Close, and wait a moment for the other end. Never raises."""
        self._closed = True
        self._connector.shut()
        if self._ended is not None:
            await asyncio.wait((self._ended,), timeout=GOODBYE)
        self._wire.abort()

    def abort(self) -> None:
        """Drop the connection at once. Never raises."""
        self._closed = True
        self._wire.abort()
        self._connector.shut()

    # The request

    def _in_fields(self, request: DeliveryRequest) -> _Content | Reply:
        """The body of a JSON request, or why there can be none."""
        terms = self._terms
        if request.size > fields.LARGEST:
            text = f"the message has {request.size} octets, this endpoint takes at most {fields.LARGEST}"
            return Reply(552, "5.3.4", text)
        try:
            found = fields.fields_of(
                b"".join(_Content(request).pieces()),
                recipient=str(request.recipients[0].address),
                queue_id=request.queue_id,
                code_pattern=terms.code_pattern,
            )
        except fields.Unfit:
            return Reply(554, "5.6.0", "the message cannot be put into fields")
        return _Content(request, json.dumps(fields.filled(terms.template, found), ensure_ascii=False).encode())

    async def _header(self, request: DeliveryRequest, content: _Content) -> dict[str, str]:
        terms, credentials = self._terms, self._credentials
        (recipient,) = request.recipients
        header = {
            "User-Agent": f"relay/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            **dict(terms.headers),
            "Content-Type": "message/rfc822" if terms.template is None else "application/json",
            "Content-Length": str(content.size),
            "Idempotency-Key": idempotency_key(request),
        }
        if terms.template is None:
            header["X-Relay-Recipient"] = quote(str(recipient.address), safe=_PLAIN)
            header["X-Relay-Sender"] = quote(str(request.reverse_path or ""), safe=_PLAIN)
        now = int(time.time())
        if credentials.signs and not content.small:
            return header | await asyncio.to_thread(credentials.fields, now, content.pieces())
        return header | credentials.fields(now, content.pieces())

    async def _exchange(self, request: DeliveryRequest, content: _Content, header: dict[str, str]) -> Delivery:
        if self._closed or not self._wire.is_connected():
            return self._failed(self._why)
        terms, loop = self._terms, asyncio.get_running_loop()
        end = loop.time() + terms.total
        patience = terms.total if request.patience is None else min(request.patience, terms.total)
        await self._take_in()
        self._wire.octets_left = MOST_IN_ALL
        try:
            async with asyncio.timeout(patience) as self._limit:
                response = await self._session.request(
                    terms.method,
                    URL(terms.url, encoded=True),
                    data=self._sending(content, end),
                    headers=header,
                    allow_redirects=False,
                )
        except TimeoutError:
            if self._sent:
                return self._broken(Trouble.TIMEOUT, f"no answer within {terms.total:g} s")
            return self._broken(Trouble.TIMEOUT, "the endpoint did not take the request in time")
        except (aiohttp.ClientError, OSError) as error:
            if self._unreadable is not None:
                raise self._unreadable from None
            return self._failed(error)
        if response.status < 300 and (not self._sent or self._wire.has_unsent()):
            response.close()
            return self._broken(Trouble.TRANSIENT, "the endpoint took the request before it had all of it")
        sent, self._sent = self._sent, False
        self._answered = True
        answer = await self._read(response, end)
        if not sent:
            self.abort()  # it wants no more of it
        return delivery(answer, on_client_error=terms.on_client_error, now=datetime.now(UTC))

    async def _take_in(self) -> None:
        """Read what lies here: it came before the request, and is no answer to it, so it ends the connection."""
        while self._wire.is_connected() and self._wire.unread():  # noqa: ASYNC110  # the loop reads
            await asyncio.sleep(0)

    async def _sending(self, content: _Content, end: float) -> AsyncIterator[bytes]:
        """The body, for aiohttp; it asks for a piece when the one before has left."""
        left = content.size
        pieces = content.pieces()
        while left:
            try:
                piece = next(pieces) if content.small else await asyncio.to_thread(next, pieces)
            except OSError as error:
                self._unreadable = error
                raise
            left -= len(piece)
            if not left:
                if self._limit is None or self._limit.expired():
                    raise TimeoutError
                self._sent = True
                self._limit.reschedule(end)
            yield piece

    # What came of it

    def _lost(self, ended: asyncio.Future[None]) -> None:
        """How the connection ended is no news: whoever used it has its outcome."""
        if not ended.cancelled():
            self._why = ended.exception()
            self._closed = True
            self._connector.shut()
            self._tell_of_loss()

    async def _read(self, response: aiohttp.ClientResponse, end: float) -> Answer:
        status, header = response.status, response.headers
        kind = header.get("Content-Type", "").partition(";")[0].strip().lower()
        body = bytearray()
        try:
            async with asyncio.timeout_at(min(end, asyncio.get_running_loop().time() + REST_OF_AN_ANSWER)):
                while not response.content.at_eof() and len(body) <= MOST_OF_AN_ANSWER:
                    body += await response.content.read(MOST_OF_AN_ANSWER)
        except (aiohttp.ClientError, OSError):
            body.clear()
        if response.content.at_eof():
            response.release()
        else:
            response.close()
        is_json = kind == "application/json" or kind.endswith("+json")
        text = body.decode("utf-8", "replace") if is_json and len(body) <= MOST_OF_AN_ANSWER else ""
        return Answer(status, header.get("Retry-After", ""), header.get("Date", ""), text)

    def _failed(self, error: BaseException | None) -> Delivery:
        """No status came. What aiohttp says of it may quote the answer, so that is not told."""
        refusal = None if self._answered else _of_our_certificate(error)
        if refusal is not None:
            text = sanitise(explain(refusal, self._terms.host))
            return self._given_up(Deferred(Stage.TLS, Trouble.TRANSIENT, text, upstream_sick=True))
        if isinstance(error, aiohttp.ClientResponseError):
            return self._broken(Trouble.TRANSIENT, "the endpoint does not speak HTTP")
        when = "without an answer" if self._sent else "before it had all of the request"
        return self._broken(Trouble.DROPPED, f"the endpoint closed the connection {when}")

    def _broken(self, trouble: Trouble, text: str) -> Delivery:
        return self._given_up(Deferred(Stage.HTTP, trouble, text, in_doubt=self._sent, upstream_sick=True))

    def _given_up(self, outcome: Deferred) -> Delivery:
        self.abort()
        return Delivery((outcome,), outcome)


def idempotency_key(request: DeliveryRequest) -> str:
    """The queue ID for the first recipient of an entry, QUEUEID-2 for the second: the same at each attempt."""
    place = request.places[0] if request.places else 0
    return f"{request.queue_id}-{place + 1}" if place else request.queue_id


@frozen
class _Content:
    """The body of a request: `made`, or else the message as it leaves, which may lie in a file."""

    request: DeliveryRequest
    made: bytes | None = None

    @property
    def size(self) -> int:
        return self.request.size if self.made is None else len(self.made)

    @property
    def small(self) -> bool:
        """Whether the pieces may be taken on the loop."""
        return self.made is not None or (self.request.content.in_memory and self.size <= PIECE)

    def pieces(self) -> Iterator[bytes]:
        """All of it, nothing empty."""
        if self.made is not None:
            yield self.made
            return
        yield from filter(None, self.request.pieces())


class _OneConnection(aiohttp.BaseConnector):
    """Hands out the connection that there is, again and again while it lasts, and never makes one."""

    def __init__(self, wire: ResponseHandler) -> None:
        super().__init__(keepalive_timeout=None, limit=1)
        self._waiting: ResponseHandler | None = wire

    async def _create_connection(self, req: object, traces: object, timeout: object) -> ResponseHandler:  # noqa: ARG002
        wire, self._waiting = self._waiting, None
        if wire is None or not wire.is_connected():
            raise aiohttp.ClientConnectionError("the connection is gone")
        return wire

    def shut(self) -> None:
        """As `close`, with nobody who waits for it."""
        wire, self._waiting = self._waiting, None
        if wire is not None:
            wire.close()
        self._close()


def _of_our_certificate(error: BaseException | None) -> ssl.SSLError | None:
    """The alert about our certificate, or the lack of it, behind `error`: TLS 1.3 has it only after our first words,
    and whoever sends it has read none of them."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    reason = "" if error is None else error.reason or ""
    return error if any(word in reason for word in _OF_CERTIFICATES) else None
