"""HTTPS to a token endpoint, for a thread: one short request, one short answer, or `TokenTrouble`.

What it promises: the peer is verified, nothing is redirected, an answer has an end in time and in size, its lifetimes
are such, and no text of a trouble holds a secret. Proxies are those of the environment. msal and google-auth speak
through it, too, so what comes and what goes wrong is judged in one place.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from relay import figures
from relay.errors import RelayError
from relay.mail.reply import sanitise
from relay.transport.answer import asked_pause
from relay.transport.tls import explain, trusting
from relay.values import frozen

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SILENCE = 10.0  # seconds without an octet
WHOLE = 25.0  # seconds for a request, all in all
LARGEST = 256 * 1024  # octets of an answer, its header and interim answers included
MOST_PAUSE = 3600.0  # seconds that Retry-After is believed
_SKEW = 120.0  # seconds that two clocks may differ without a word about it
_SAID = 400
_LIFETIMES = ("expires_in", "ext_expires_in", "refresh_in", "interval")

# RFC 6749, section 5.2: what asking again will not change; and what a login that ended looks like.
_PERMANENT = frozenset(
    {
        *("invalid_client", "invalid_grant", "invalid_scope", "invalid_request", "invalid_resource"),
        *("unauthorized_client", "unsupported_grant_type", "access_denied", "interaction_required"),
        *("consent_required", "login_required", "org_internal", "deleted_client", "disabled_client", "invalid_tenant"),
        "admin_policy_enforced",
    }
)  # fmt: skip


class TokenTrouble(RelayError):
    """No token. `permanent`: asking again will not change that; `wait`: seconds to leave the endpoint alone."""

    def __init__(self, text: str, *, permanent: bool = False, wait: float = 0.0) -> None:
        self.permanent = permanent
        self.wait = wait
        super().__init__(text)


@frozen
class Answer:
    """What came back; `status_code`, `text` and `headers` are what msal wants of one, `data` what google-auth does."""

    status_code: int
    text: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)

    @property
    def status(self) -> int:
        return self.status_code

    @property
    def data(self) -> bytes:
        return self.text.encode()

    def raise_for_status(self) -> None:
        """Errors were raised already."""

    def json(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(self.text))


class TokenHttp:
    """`ca`: the PEM file that replaces the system's store. `secrets` are kept out of what is told.

    `lenient`: a refusal of the endpoint is an answer as well, as in a login that somebody has yet to finish.
    """

    def __init__(
        self,
        ca: str | None = None,
        *,
        secrets: Iterable[str] = (),
        lenient: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._ca = ca
        self._secrets = [secret for secret in secrets if secret]
        self._lenient = lenient
        self._now = now
        self.skew = ""
        """A word about this machine's clock, where that of the endpoint was another."""

    def hide(self, *secrets: str) -> None:
        """These are secrets, too."""
        self._secrets += [secret for secret in secrets if secret]

    # As msal calls it

    def get(self, url: str, params: Mapping[str, str] | None = None, **_: object) -> Answer:
        return self._ask(f"{url}?{urllib.parse.urlencode(params)}" if params else url, None, {})

    def post(
        self,
        url: str,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        **_: object,
    ) -> Answer:
        return self._ask(url, urllib.parse.urlencode(data or {}).encode(), headers or {})

    def close(self) -> None:
        """Nothing is kept open."""

    # As google-auth calls it

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **_: object,
    ) -> Answer:
        return self._ask(url, body if method == "POST" else None, headers or {})

    def ahead(self, url: str) -> float | None:
        """How many seconds this machine's clock is ahead of the one at `url`; None: there is none to be had."""
        if urllib.parse.urlsplit(url).scheme != "https":
            return None
        try:
            _, sent, _ = self._send(url, None, {}, trusting(self._ca))
        except (OSError, http.client.HTTPException, ValueError):
            return None
        return self._ahead(sent.get("date", ""))

    # The request

    def _ask(self, url: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        host = urllib.parse.urlsplit(url).hostname or url
        if urllib.parse.urlsplit(url).scheme != "https":  # the discovery of a stranger may name anything
            raise TokenTrouble(f"{host} is not asked for a token without TLS")
        try:
            context = trusting(self._ca)
            status, sent, text = self._send(url, body, headers, context)
        except ssl.SSLError as error:
            told = explain(error, host, whose=f"{host}'s")
            raise TokenTrouble(f"no token from {host}: {told}") from None
        except TimeoutError:
            raise TokenTrouble(f"no token from {host}: no answer in time") from None
        except OSError as error:
            raise TokenTrouble(f"no token from {host}: {self._reason(getattr(error, 'reason', error), host)}") from None
        except (http.client.HTTPException, ValueError):
            raise TokenTrouble(f"no token from {host}: what answers there does not speak HTTP") from None
        return self._judged(host, Answer(status, text, sent))

    def _send(
        self, url: str, body: bytes | None, headers: Mapping[str, str], context: ssl.SSLContext
    ) -> tuple[int, dict[str, str], str]:
        opener = urllib.request.OpenerDirector()  # with nobody who follows redirects
        opener.add_handler(urllib.request.ProxyHandler())
        opener.add_handler(_Https(context))
        request = urllib.request.Request(url, body, {"Accept": "application/json", **headers})  # noqa: S310  https only
        with opener.open(request, timeout=SILENCE) as response:
            octets = response.read(LARGEST)
        sent = {name.lower(): value for name, value in response.headers.items()}
        return response.status, sent, octets.decode("utf-8", "replace")

    @staticmethod
    def _reason(reason: object, host: str) -> str:
        if isinstance(reason, TimeoutError):
            return "no answer in time"
        if isinstance(reason, ssl.SSLError):
            return explain(reason, host, whose=f"{host}'s")
        return sanitise(getattr(reason, "strerror", None) or str(reason), _SAID)

    def _judged(self, host: str, answer: Answer) -> Answer:
        """The answer, if it is one: JSON, and not an error of the machine behind it."""
        status = answer.status_code
        self.skew = self._skew(answer.headers.get("date", ""))
        now = datetime.fromtimestamp(self._now(), UTC)
        asked = asked_pause(answer.headers.get("retry-after", ""), answer.headers.get("date", ""), now)
        wait = min(asked or 0.0, MOST_PAUSE)
        if status == 429:
            after = f" (asked again after {wait:.0f} s)" if wait else ""
            raise TokenTrouble(f"no token from {host}: too many requests{after}", wait=wait or 60.0)
        document = figures.json_of(answer.text)
        if not isinstance(document, dict):
            kind = answer.headers.get("content-type", "").partition(";")[0] or "something"
            told = f"it answered {status} with {sanitise(kind, 60)}, not JSON"
            raise TokenTrouble(f"no token from {host}: {told}", wait=wait)
        if 200 <= status < 300 or (self._lenient and status < 500):
            return replace(answer, text=json.dumps(_with_lifetimes(document)))
        word = _text(document, "error")
        raise TokenTrouble(
            self._said(host, status, document) + self.skew,
            permanent=word in _PERMANENT and status < 500,
            wait=wait,
        )

    def refusal(self, host: str, document: Mapping[str, Any]) -> TokenTrouble:
        """What a document with an error in it says, as a trouble that is there to stay."""
        return TokenTrouble(self._said(host, 0, document), permanent=True)

    def _said(self, host: str, status: int, document: Mapping[str, Any]) -> str:
        word = sanitise(_text(document, "error") or str(status), 60)
        description = _text(document, "error_description").partition("Trace ID:")[0].partition("\r\n")[0]
        for secret in self._secrets:
            description = description.replace(secret, "[secret]")
        told = sanitise(description, _SAID).strip()
        return f"no token from {host}: {word}" + (f": {told}" if told else "")

    def _ahead(self, date: str) -> float | None:
        theirs = figures.date(date)
        return None if theirs is None else self._now() - theirs.timestamp()

    def _skew(self, date: str) -> str:
        ahead = self._ahead(date)
        if ahead is None or abs(ahead) < _SKEW:
            return ""
        return f" (the clock of this machine is {abs(ahead) / 60:.0f} minutes {'ahead' if ahead > 0 else 'behind'})"


def _with_lifetimes(document: dict[str, Any]) -> dict[str, Any]:
    """`document` without the lifetimes that are none."""
    read = {name: figures.lifetime(document[name]) for name in _LIFETIMES if name in document}
    return {name: read.get(name, value) for name, value in document.items() if read.get(name, value) is not None}


def _text(document: Mapping[str, Any], name: str) -> str:
    found = document.get(name)
    return found if isinstance(found, str) else ""


class _Https(urllib.request.HTTPSHandler):
    """HTTPS by connections that end in time."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._terms = context

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Connection, end=time.monotonic() + WHOLE), request, context=self._terms)


class _Connection(http.client.HTTPSConnection):
    def __init__(self, *arguments: Any, end: float, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._create_connection = partial(_dial, end)
        self.response_class = partial(_Response, end)  # type: ignore[assignment]


def _dial(end: float, address: tuple[str, int], *_: object) -> socket.socket:
    """A connected socket, of whichever address of the name answers first; each has its time, and all together."""
    trouble = OSError("it has no address")
    for found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        try:
            return socket.create_connection((str(found[4][0]), address[1]), _left(end))
        except OSError as error:
            trouble = error
    raise trouble


def _left(end: float) -> float:
    """Seconds that may pass without an octet."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(SILENCE, left)


class _Response(http.client.HTTPResponse):
    def __init__(self, end: float, sock: socket.socket, **more: Any) -> None:
        super().__init__(sock, **more)
        self.fp.close()
        self.fp = io.BufferedReader(_Wire(end, sock))


class _Wire(io.RawIOBase):
    """What comes on `sock`, as long and as much as an answer may have."""

    def __init__(self, end: float, sock: socket.socket) -> None:
        self._end = end
        self._sock = sock
        self._octets_left = LARGEST
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._sock.settimeout(_left(self._end))
        octets = self._raw.readinto(buffer) or 0
        self._octets_left -= octets
        if self._octets_left < 0:
            raise OSError(f"the answer is larger than {LARGEST // 1024} KiB")
        return octets

    def close(self) -> None:
        self._raw.close()
        super().close()
