"""What a listener is configured to do, as the session needs it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

KIB = 1024
IN_MEMORY = 256 * KIB  # a message up to this size is kept in memory while it arrives


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a listener; times in seconds. `messages` None: unlimited per session."""

    sessions: int = 2000
    per_client: int = 500
    recipients: int = 1000
    header_size: int = 256 * KIB
    header_fields: int = 2000
    errors: int = 20
    messages: int | None = None
    command: float = 300.0
    data: float = 300.0


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """`tls` is "none", "starttls" or "implicit"; `auth` "none", "any" or "users".

    `verify` judges name and password and may take its time (it runs on a thread); it must be there
    with auth users. `allow` empty: nobody.
    """

    name: str
    hostname: str
    allow: tuple[IPv4Network | IPv6Network, ...]
    max_message_size: int
    tls: str = "none"
    tls_context: ssl.SSLContext | None = None
    require_tls: bool = False
    auth: str = "none"
    verify: Callable[[str, str], bool] | None = None
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.auth == "users" and self.verify is None:
            raise ValueError("auth users needs somebody who verifies")
