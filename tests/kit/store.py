"""What a store of a test is opened with: `SqliteStore.open(path, observer=noted, **usual(now=lambda: NOON))`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from relay.queue.model import Recorded


def usual(**changed: Any) -> dict[str, Any]:
    """Room on the disk is not asked for, the history is as long as by default, and the time is that of the machine."""
    return {"min_free": 0, "history": Recorded.FATE, "now": lambda: datetime.now(UTC), **changed}
