"""How a request proves who sends it: header fields, made anew for each.

`hmac-sha256` signs a moment and the body: a request that was overheard is of use to nobody a few minutes later.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import field
from typing import Literal

from relay.values import frozen

Auth = Literal["none", "bearer", "basic", "header", "hmac-sha256"]

TIMESTAMP, SIGNATURE = "X-Relay-Timestamp", "X-Relay-Signature"


@frozen
class Credentials:
    """`secret`: the token, the password, the value of `header`, or what is signed with."""

    auth: Auth
    secret: str = field(default="", repr=False)
    username: str = field(default="", repr=False)
    header: str = ""

    @property
    def signs(self) -> bool:
        """Whether the fields depend on the body."""
        return self.auth == "hmac-sha256"

    def fields(self, timestamp: int, body: Iterable[bytes]) -> dict[str, str]:
        """The fields for a request made at `timestamp`; `body`, in pieces, is read where it is signed only."""
        match self.auth:
            case "none":
                return {}
            case "bearer":
                return {"Authorization": f"Bearer {self.secret}"}
            case "basic":
                pair = base64.b64encode(f"{self.username}:{self.secret}".encode()).decode("ascii")
                return {"Authorization": f"Basic {pair}"}
            case "header":
                return {self.header: self.secret}
            case "hmac-sha256":
                moment = str(timestamp)
                signature = hmac.new(self.secret.encode(), f"{moment}.".encode(), hashlib.sha256)
                for piece in body:
                    signature.update(piece)
                return {TIMESTAMP: moment, SIGNATURE: f"sha256={signature.hexdigest()}"}
