"""What the figures were taken on: the machine and the versions of what took part, in words for a page."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

WRITES = 200
OCTETS = 16 * 1024


def describe(folder: Path) -> dict[str, str]:
    """`folder` lies on the disk that the queues are on."""
    return {
        "Processor": f"{_processor()}, {os.cpu_count()} cores",
        "Kernel": f"{platform.system()} {platform.release()}",
        "Load before": f"{os.getloadavg()[0]:.1f} (average of a minute; figures of a busy machine say little)",
        "Disk": f"{sync_time(folder):.2f} ms to write 16 KiB and fdatasync (median of {WRITES})",
        "Python": f"{platform.python_version()} ({os.path.realpath(sys.executable)})",
        "SQLite": _sqlite(),
        "Packages": ", ".join(f"{name} {_version(name)}" for name in ("uvloop", "aiosmtpd", "aiosmtplib", "apsw")),
        "Postfix": _output("postconf", "-h", "mail_version"),
        "OpenSSL": _output("openssl", "version"),
        "The relay": f"{_version('relay-smtp')}, {_output('git', 'describe', '--always', '--dirty')}",
    }


def sync_time(folder: Path) -> float:
    """Milliseconds until 16 KiB at the end of a file are on the disk."""
    times = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(WRITES):
            start = time.perf_counter()
            file.write(b"x" * OCTETS)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _sqlite() -> str:
    import apsw

    return apsw.sqlite_lib_version()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(none)"


def _output(*command: str) -> str:
    """The first line that it prints, "(none)" where it cannot be asked."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    except (OSError, subprocess.CalledProcessError):
        return "(none)"
    return done.stdout.partition("\n")[0].strip()
