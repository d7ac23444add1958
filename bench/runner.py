"""One table after the other: all peers of it are up at once, and take turns.

Each repetition measures all peers one after the other, in an order that rotates, so that whatever the machine does
meanwhile befalls all of them; ratios are formed within a repetition (`results`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import trustme

from bench import naive, ours, postfix
from bench.build import Programs
from bench.peer import ADDRESS, Lacking, Peer, Running, Site, free_port
from bench.results import Measurement, rounded
from bench.scenes import Scene
from bench.sink import Offers, Sink
from bench.workloads import WORKLOADS, Bench, Failed, amount, measure

PEERS: Mapping[str, Callable[[Path, Site], Peer]] = {
    "postfix": postfix.lay_out,
    "naive": naive.lay_out,
    "relay": ours.lay_out,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done: only workloads of these names (all: none named), so often, a stream for so many seconds."""

    workloads: frozenset[str]
    repetitions: int
    seconds: float


class Runner:
    """`lacking` grows by a sentence for whatever could not be done here. `folder`: where everything lies meanwhile."""

    def __init__(self, programs: Programs, folder: Path, plan: Plan) -> None:
        self.lacking: list[str] = []
        self._programs = programs
        self._folder = folder
        self._plan = plan

    def run(self, scene: Scene) -> Iterator[Measurement]:
        workloads = [name for name in scene.workloads if not self._plan.workloads or name in self._plan.workloads]
        if not workloads:
            return
        if scene.tls and not self._programs.tls:
            self._lack("The table with TLS needs the headers of OpenSSL (apt-get install libssl-dev).")
            return
        with ExitStack() as stack:
            benches = self._set_up(scene, stack)
            for workload in workloads:
                yield from self._take_turns(scene, workload, benches)

    def _lack(self, sentence: str) -> None:
        if sentence not in self.lacking:
            self.lacking.append(sentence)
            say(sentence)

    def _set_up(self, scene: Scene, stack: ExitStack) -> list[Bench]:
        folder = self._folder / scene.table
        folder.mkdir()
        pem, ca = _certificates(folder) if scene.tls else (None, None)
        offers = Offers(chunking=scene.chunking, pem=pem, travel=scene.travel)
        benches = []
        for name in scene.peers:
            sink = stack.enter_context(Sink(self._programs, folder / f"{name}.sink", offers, ADDRESS))
            connections = scene.postfix_connections if name == "postfix" else scene.connections
            try:
                peer = PEERS[name](folder / name, Site(free_port(), sink.port, connections, ca))
                running = stack.enter_context(Running(peer, folder))
            except Lacking as lacking:
                self._lack(str(lacking))
                continue
            benches.append(Bench(running, sink, self._programs))
        return benches

    def _take_turns(self, scene: Scene, name: str, benches: list[Bench]) -> Iterator[Measurement]:
        workload = WORKLOADS[name]
        amounts: dict[str, int] = {}
        for repetition in range(self._plan.repetitions):
            turn = repetition % len(benches) if benches else 0
            for bench in benches[turn:] + benches[:turn]:
                peer = bench.running.peer.name
                try:
                    if peer not in amounts:
                        amounts[peer] = amount(bench, workload, self._plan.seconds)
                    figures = measure(bench, workload, amounts[peer])
                    one = Measurement(scene.table, name, peer, repetition, rounded(figures))
                except (Failed, Lacking) as failed:
                    one = Measurement(scene.table, name, peer, repetition, trouble=str(failed))
                said = one.trouble or " ".join(f"{key}={value:g}" for key, value in one.figures.items())
                say(f"{scene.table} {name} {repetition + 1} {peer}: {said}")
                yield one


def _certificates(folder: Path) -> tuple[Path, Path]:
    """Certificate and key of the upstream, and who signed it."""
    authority = trustme.CA()
    pem, ca = folder / "upstream.pem", folder / "ca.pem"
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    authority.cert_pem.write_to_path(str(ca))
    return pem, ca


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
