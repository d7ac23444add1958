"""What a listener is configured to do, as the session needs it; what is not configured, `config.model` says."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime

from relay.mail.aliases import Aliases
from relay.policy.client import Network
from relay.policy.rate import Rate
from relay.values import frozen

IN_MEMORY = 256 * 1024  # a message up to this size is kept in memory while it arrives


@frozen
class ListenerLimits:
    """Bounds of a listener; times in seconds. `messages` None: unlimited per session.

    `client_rate`: messages of one client address, over all of its sessions; None: no limit.
    `command` is how long a complete command may take to come, `data` how long a client may be silent in
    content, `data_rate` how many octets of content a second must come on average (0: any).
    """

    sessions: int
    per_client: int
    recipients: int
    header_size: int
    header_fields: int
    errors: int
    messages: int | None
    command: float
    data: float
    data_rate: int
    client_rate: Rate | None


@frozen
class ListenerSettings:
    """`tls` is "none", "starttls" or "implicit"; `auth` "none", "any" or "users".

    `verify` judges name and password and may take its time (it runs on a thread); it must be there
    with auth users. `allow` empty: nobody.

    `bare_newline`: "normalize", "reject" or "accept-lf-dot". `complete_addresses`: an address without a
    domain gets the hostname. `aliases`: None where there are none. `proxy_protocol`: the load balancers whose PROXY
    header counts. `certificate_ends`: the end of our own certificate. `patience`: how many seconds a client waits for
    the upstream's own verdict (`reply: direct`); None: it hears 250 once the message is kept.
    """

    name: str
    hostname: str
    allow: tuple[Network, ...]
    max_message_size: int
    tls: str
    tls_context: ssl.SSLContext | None
    require_tls: bool
    auth: str
    verify: Callable[[str, str], bool] | None
    bare_newline: str
    complete_addresses: bool
    aliases: Aliases | None
    proxy_protocol: tuple[Network, ...]
    certificate_ends: datetime | None
    patience: float | None
    limits: ListenerLimits

    def __post_init__(self) -> None:
        if self.auth == "users" and self.verify is None:
            raise ValueError("auth users needs somebody who verifies")
