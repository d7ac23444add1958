"""Measure the relay beside Postfix and a naive relay, and write docs/benchmarks.md (`make bench`).

    python -m bench [-t TABLE,...] [-w WORKLOAD,...] [-r REPETITIONS] [-s SECONDS] [--dry]

Needs root (Postfix, control groups), postfix, gcc, libc6-dev; for the table with TLS libssl-dev and libsasl2-modules.
What lacks is told, and the rest is measured. The machine should have nothing else to do meanwhile.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench import machine, page, results
from bench.build import build
from bench.runner import Plan, Runner, say
from bench.scenes import SCENES
from bench.workloads import WORKLOADS

NEEDED = {"gcc": "gcc libc6-dev", "smtp-source": "postfix"}


def main(words: list[str]) -> int:
    asked = parser().parse_args(words)
    unknown = [name for name in asked.workloads if name not in WORKLOADS]
    unknown += [name for name in asked.tables if not any(one.table.startswith(name) for one in SCENES)]
    if unknown:
        say(f"Unknown: {', '.join(unknown)}. Tables: {', '.join(s.table for s in SCENES)}; {', '.join(WORKLOADS)}.")
        return 2
    missing = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if missing:
        say(f"Nothing can be measured without these: apt-get install {' '.join(missing)}.")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left behind
    seen: list[results.Measurement] = []
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # Postfix works in it as its own user
        try:
            programs = build(folder)
        except subprocess.CalledProcessError:
            say("The programs in C could not be built (apt-get install libc6-dev?).")
            return 1
        about = machine.describe(folder)
        runner = Runner(programs, folder, Plan(frozenset(asked.workloads), asked.repetitions, asked.seconds))
        for scene in SCENES:
            if not asked.tables or any(scene.table.startswith(table) for table in asked.tables):
                seen += runner.run(scene)
    if not seen:
        say("Nothing was measured; nothing is written.")
        return 1
    command = shlex.join(["make", "bench", *([f"ARGS={shlex.join(words)}"] if words else [])])
    found = results.Results(datetime.now(UTC).date().isoformat(), command, about, tuple(runner.lacking), tuple(seen))
    if asked.dry:
        print(page.render(found))
    else:
        results.write(found)
        page.write(found)
        say(f"Written: {page.PATH}")
    return 1 if results.troubles(seen) else 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("-t", "--tables", type=_list, default=[], help="only these, by the beginning of their names")
    parser.add_argument("-w", "--workloads", type=_list, default=[], help=f"only these of {', '.join(WORKLOADS)}")
    parser.add_argument("-r", "--repetitions", type=int, default=3, help="of everything (%(default)s)")
    parser.add_argument("-s", "--seconds", type=float, default=3.0, help="for each run of a stream (%(default)s)")
    parser.add_argument("--dry", action="store_true", help="print the page, and write no file")
    return parser


def _list(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
