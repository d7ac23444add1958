"""One POST of JSON to a webhook of a service: by HTTPS, to that address and no other, and its status is the answer.

No redirect is followed, no proxy of the environment and no cookie is used. The address is a secret (whoever knows it
may write to the channel), so it is in no error. HTTP is aiohttp's.
"""

from __future__ import annotations

import asyncio
import json
import ssl

import aiohttp
from yarl import URL

from relay import __version__
from relay.errors import RelayError
from relay.mail.reply import sanitise
from relay.transport.tls import TlsTerms, build, explain

PATIENCE = 10.0  # seconds for all of it
_SHOWN = 200  # octets of an answer that refuses


async def post(url: str, document: object, *, ca: str | None) -> None:
    """`document` is what JSON has. Raises RelayError, with one sentence, when the service did not take it."""
    if not url.startswith("https://"):  # one that was kept elsewhere than in the configuration
        raise RelayError("its address is no https URL")
    try:
        async with asyncio.timeout(PATIENCE):
            context = await _context(ca)
            status, said = await _answer(URL(url, encoded=True), json.dumps(document).encode(), context)
    except TimeoutError:
        raise RelayError(f"no answer within {PATIENCE:g} s") from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise RelayError(explain(error.certificate_error, error.host, whose="the webhook's")) from None
    except aiohttp.ClientConnectorError as error:
        raise RelayError(f"no connection: {_reason(error.os_error)}") from None
    except aiohttp.ClientError as error:
        raise RelayError(f"no answer in HTTP ({type(error).__name__})") from None
    if not 200 <= status < 300:
        raise RelayError(f"it answered {status}" + (f": {said}" if said else ""))


async def _context(ca: str | None) -> ssl.SSLContext:
    try:
        return await asyncio.to_thread(build, TlsTerms(True, ca, None, None))
    except OSError as error:
        raise RelayError(f"tls_ca cannot be used: {_reason(error)}") from None


async def _answer(url: URL, body: bytes, context: ssl.SSLContext) -> tuple[int, str]:
    """The status, and the beginning of what stands behind one that refuses."""
    header = {"User-Agent": f"relay/{__version__}", "Content-Type": "application/json; charset=utf-8"}
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=1, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        trust_env=False,
    )
    async with session, session.post(url, data=body, headers=header, allow_redirects=False) as response:
        said = b"" if response.status < 300 else await response.content.read(_SHOWN)
        return response.status, sanitise(said.decode("utf-8", "replace"), _SHOWN).strip().rstrip(" .")


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'error').replace('_', ' ').lower()}"
    return error.strerror or type(error).__name__
