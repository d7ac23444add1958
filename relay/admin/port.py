"""How an operator's functions reach the running house."""

from __future__ import annotations

from typing import Protocol


class House(Protocol):
    """The running relay; the daemon is one."""

    async def reload(self) -> tuple[str, ...]:
        """Read the configuration anew and apply it; the keys whose change waits for a restart.

        Raises BadConfig, and changes nothing, when the file is bad.
        """
        ...
