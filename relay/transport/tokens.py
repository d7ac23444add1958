"""The token of one upstream: fetched before it is needed, by one at a time, on a thread that nobody waits for twice.

What it promises:

- A token endpoint that is down or slow holds up this upstream and no other, and costs mail nothing but time: what
  comes out then is `Deferred`, and a token that still works goes on working.
- What the endpoint asks for is heeded (Retry-After), and failures are followed by growing pauses.
- A restart goes on with the token that is kept, and a login that a command wrote down is taken up at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable
from dataclasses import field, replace
from datetime import UTC, datetime
from typing import TypeVar

from relay.errors import RelayError
from relay.events import Observer, TokenFetched, TokenRefused, Warned
from relay.mail.outcome import Deferred, Stage, Trouble
from relay.mail.reply import sanitise
from relay.transport.oauth2 import Fetched, OAuth2Terms, digest, fetch
from relay.transport.token_file import Kept, TokenFile
from relay.transport.token_http import TokenTrouble
from relay.values import frozen

T = TypeVar("T")

PATIENCE = 30.0  # seconds that a connection waits for a token
AHEAD = 300.0  # seconds before its end that a token is fetched anew, at the latest
_SPENT = 0.8  # of its life
_MARGIN = 60.0  # seconds before its end that a token is not used any more
_YOUNG = 30.0  # seconds: a new token would say the same
PAUSES = (30.0, 60.0, 120.0, 300.0)  # seconds after a failure; the last one repeats


@frozen
class Token:
    """Moments are Unix times."""

    value: str = field(repr=False)
    fetched_at: float
    expires_at: float

    @property
    def ends(self) -> float:
        """When it is not used any more: a little before its end."""
        return self.expires_at - min(_MARGIN, self._life / 10)

    @property
    def due(self) -> float:
        """When the next one is fetched."""
        return min(
            self.fetched_at + self._life * _SPENT, max(self.expires_at - AHEAD, self.fetched_at + self._life / 2)
        )

    @property
    def _life(self) -> float:
        return self.expires_at - self.fetched_at


class TokenSource:
    """`fetch_one` gets a token, and blocks. `mended` is called when there is a token again after a failure."""

    def __init__(
        self,
        name: str,
        terms: OAuth2Terms,
        file: TokenFile,
        *,
        observer: Observer,
        now: Callable[[], datetime],
        fetch_one: Callable[[OAuth2Terms, str, Callable[[], float]], Fetched] = fetch,
    ) -> None:
        self.name = name
        self.terms = terms
        self.mended: Callable[[], None] = lambda: None
        self._file = file
        self._observer = observer
        self._clock = now
        self._fetch_one = fetch_one
        self._token: Token | None = None
        self._refused: str = ""  # by the upstream
        self._anew = False  # what is kept will not do
        self._stamp: object = None
        self._failures = 0
        self._trouble: TokenTrouble | None = None
        self._wait_until = 0.0  # as the endpoint said
        self._next_try = 0.0  # of those that nobody waits for
        self._work: asyncio.Task[None] | None = None

    @property
    def expires_at(self) -> datetime | None:
        """When the token in use ends; None while there is none."""
        return datetime.fromtimestamp(self._token.expires_at, UTC) if self._token is not None else None

    async def get(self, *, fresh: bool = False) -> Token | Deferred:
        """A token to log in with, or why there is none. `fresh`: one that nobody had before."""
        self._anew = fresh
        if fresh:
            self._token = None
        if fresh or self._is_news() or not self._is_good():
            await self._join()
        if self._is_good():
            assert self._token is not None
            return self._token
        return self._deferred()

    def refuse(self, token: Token) -> bool:
        """The upstream did not take it: it is not used again. True where another one may fare better at once."""
        self._refused = token.value
        if self._token is not None and self._token.value == token.value:
            self._token = None
        return self._now() - token.fetched_at > _YOUNG

    def look(self) -> None:
        """Begin to fetch the next token if it is time; called every now and then."""
        now = self._now()
        due = self._token is None or now >= self._token.due
        if self._is_news() or (due and now >= max(self._next_try, self._wait_until)):
            self._begin()

    def reload(self) -> None:
        """What was wrong may be mended: ask again."""
        self._failures, self._next_try, self._wait_until = 0, 0.0, 0.0

    # For commands

    def kept(self) -> Kept:
        """What is kept; may wait for the disk. Raises RelayError."""
        return self._file.read(self.terms.identity)

    def keep(self, fetched: Fetched) -> None:
        """Write down what a person's login brought; a running relay finds it. Raises RelayError."""
        with self._file.locked():
            self._file.write(self._fresh(fetched, ""))

    def _now(self) -> float:
        return self._clock().timestamp()

    # One at a time

    def _is_good(self) -> bool:
        return self._token is not None and self._now() < self._token.ends

    def _is_news(self) -> bool:
        return self._file.stamp() != self._stamp

    def _begin(self) -> asyncio.Task[None]:
        if self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().create_task(self._renew())
        return self._work

    async def _join(self) -> None:
        """Wait for what is under way, or begin; no longer than a connection may take."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await asyncio.shield(self._begin())

    async def _renew(self) -> None:
        before, waiting = self._token, self._now() < self._wait_until
        try:
            kept, fetched = await _on_a_thread(lambda: self._obtain(allowed=not waiting))
        except TokenTrouble as trouble:
            self._failed(trouble)
            return
        except RelayError as error:
            self._failed(TokenTrouble(str(error)))
            return
        self._stamp = self._file.stamp()
        if not kept.access_token:
            return  # the endpoint wants to be left alone, and there is nothing new
        self._token = Token(kept.access_token, kept.fetched_at, kept.expires_at)
        failed = self._trouble is not None
        if fetched or (before is None or before.value != self._token.value):
            self._failures, self._next_try, self._wait_until, self._trouble = 0, 0.0, 0.0, None
        if fetched:
            self._observer.observe(TokenFetched(self.name, datetime.fromtimestamp(kept.expires_at, UTC)))
        if failed and self._trouble is None:
            self.mended()

    def _failed(self, trouble: TokenTrouble) -> None:
        self._stamp = self._file.stamp()
        now = self._now()
        pause = PAUSES[min(self._failures, len(PAUSES) - 1)] * random.uniform(0.9, 1.1)  # noqa: S311  # jitter
        self._failures += 1
        self._trouble = trouble
        self._next_try = now + pause
        self._wait_until = now + trouble.wait if trouble.wait else 0.0
        self._observer.observe(TokenRefused(self.name, trouble.permanent, sanitise(str(trouble))))

    def _deferred(self) -> Deferred:
        trouble = self._trouble
        if trouble is None:
            text = f"no token within {PATIENCE:g} s: the token endpoint does not answer"
            return Deferred(Stage.AUTH, Trouble.TIMEOUT, text, upstream_sick=True)
        kind = Trouble.PERMANENT if trouble.permanent else Trouble.TRANSIENT
        return Deferred(Stage.AUTH, kind, sanitise(str(trouble)), upstream_sick=True)

    # On the thread

    def _obtain(self, *, allowed: bool) -> tuple[Kept, bool]:
        """What is kept if it will do, else a new token, written down; whether it was fetched now."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._file.locked())
            except RelayError as error:
                self._warn(str(error))
            kept = self._read()
            usable = bool(kept.access_token) and kept.access_token != self._refused and not self._anew
            token = Token(kept.access_token, kept.fetched_at, kept.expires_at)
            # A moment that has not come yet is of a clock that was wrong.
            if usable and kept.fetched_at <= self._now() < token.due:
                return kept, False
            if not allowed:
                return (kept if usable and self._now() < token.ends else Kept(self.terms.identity)), False
            return self._fetched(kept), True

    def _read(self) -> Kept:
        try:
            return self._file.read(self.terms.identity)
        except RelayError as error:
            if self.terms.delegated and self.terms.refresh_token is None:
                # The refresh token is in there: nothing may be written over it.
                raise TokenTrouble(str(error), permanent=True) from None
            self._warn(str(error))
            return Kept(self.terms.identity)

    def _fetched(self, kept: Kept) -> Kept:
        try:
            refresh_token, origin = self._to_spend(kept)
            fetched = self._fetch_one(self.terms, refresh_token, self._now)
        except RelayError as error:
            self._write(replace(kept, error=sanitise(str(error)), error_at=self._now()))
            raise
        fresh = self._fresh(fetched, origin)
        self._write(fresh)
        return fresh

    def _fresh(self, fetched: Fetched, origin: str) -> Kept:
        now = self._now()
        return Kept(
            identity=self.terms.identity,
            access_token=fetched.access_token,
            fetched_at=now,
            expires_at=now + fetched.lifetime,
            refresh_token=fetched.refresh_token,
            origin=origin,
        )

    def _to_spend(self, kept: Kept) -> tuple[str, str]:
        """The refresh token to spend: the one kept, unless the configuration has another than it came from."""
        if self.terms.refresh_token is None:
            return kept.refresh_token, ""
        configured = self.terms.refresh_token()
        origin = digest(configured)
        return (kept.refresh_token if kept.refresh_token and kept.origin == origin else configured), origin

    def _write(self, kept: Kept) -> None:
        """A token that cannot be kept is good all the same, until the relay ends."""
        try:
            self._file.write(kept)
        except RelayError as error:
            self._warn(str(error))

    def _warn(self, text: str) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._observer.observe, Warned(f"the tokens of {self.name}: {text}"))

    @property
    def _loop(self) -> asyncio.AbstractEventLoop | None:
        return self._work.get_loop() if self._work is not None else None


async def _on_a_thread(work: Callable[[], T]) -> T:
    """The result of `work`, on a thread of its own that nobody waits for when the process ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:  # noqa: BLE001  # it is raised where it is waited for
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name="token", daemon=True).start()
    return await future
