"""How opening a connection ends early: the outcome that says how far it came, on its way up."""

from __future__ import annotations

import os
from typing import NoReturn

from relay.mail.outcome import Deferred, Stage, Trouble
from relay.mail.reply import sanitise


class Stopped(Exception):
    """The connection ends here, with this outcome."""

    def __init__(self, outcome: Deferred) -> None:
        self.outcome = outcome
        super().__init__(outcome.text)


def stop(stage: Stage, trouble: Trouble, text: str) -> NoReturn:
    """End it at `stage`: nothing was said about a message."""
    raise Stopped(Deferred(stage, trouble, sanitise(text), upstream_sick=True)) from None


def reason(error: Exception) -> str:
    """What the network says of itself."""
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)  # asyncio puts other words into strerror
    return (isinstance(error, OSError) and error.strerror) or str(error)
