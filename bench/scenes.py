"""The tables of the benchmark: who is measured, how the upstream is reached, and what is done."""

from __future__ import annotations

from dataclasses import dataclass

EVERYWHERE = ("postfix", "relay")
HALF_MS = 500  # microseconds


@dataclass(frozen=True, slots=True)
class Scene:
    """`round_trip`: milliseconds to the upstream and back. `connections`: as many as the relay may open there.

    `postfix_connections`: as many as Postfix may.
    """

    table: str
    says: str
    workloads: tuple[str, ...]
    peers: tuple[str, ...] = EVERYWHERE
    tls: bool = False
    chunking: bool = True
    round_trip: int = 0
    connections: int = 20
    postfix_connections: int = 20

    @property
    def travel(self) -> int:
        """Microseconds, one way."""
        return self.round_trip * HALF_MS


def _far(round_trip: int, connections: int, *, chunking: bool = True) -> Scene:
    many = "1 connection" if connections == 1 else f"{connections} connections"
    return Scene(
        table=f"distance-{round_trip}-{connections}{'' if chunking else '-plain'}",
        says=f"{round_trip} ms, {many}{'' if chunking else ', the upstream without CHUNKING'}",
        workloads=("small20",),
        chunking=chunking,
        round_trip=round_trip,
        connections=connections,
        postfix_connections=connections,
    )


PLAIN = Scene(
    table="plain",
    says="on one machine, without TLS",
    workloads=("idle", "small20", "s100", "small20n", "single", "lat", "large"),
    peers=("postfix", "naive", "relay"),
    postfix_connections=50,
)
TLS = Scene(
    table="tls",
    says="with STARTTLS and AUTH PLAIN on the way out",
    workloads=("small20", "s100", "lat", "large"),
    tls=True,
    postfix_connections=50,
)
DISTANCE = (_far(30, 1), _far(30, 1, chunking=False), _far(30, 20), _far(60, 1), _far(60, 20))
SCENES = (PLAIN, TLS, *DISTANCE)
