"""The programs in C that measure, built where they are needed: `sink`, `delay` and `latency`, a file each.

They are in C because they share the machine with what they measure.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
COMPILER = ("gcc", "-O2", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True, slots=True)
class Programs:
    """`tls`: the sink can offer STARTTLS; it needs the headers of OpenSSL (libssl-dev)."""

    sink: Path
    delay: Path
    latency: Path
    tls: bool


def build(folder: Path) -> Programs:
    """All of them, into `folder`. Raises CalledProcessError, with what the compiler said on stderr."""
    tls = _has_openssl()
    for name in ("delay", "latency"):
        _compile(folder, name)
    _compile(folder, "sink", *(("-DTLS", "-lssl", "-lcrypto") if tls else ()))
    return Programs(folder / "sink", folder / "delay", folder / "latency", tls)


def _compile(folder: Path, name: str, *options: str) -> None:
    subprocess.run([*COMPILER, "-o", str(folder / name), str(HERE / f"{name}.c"), *options], check=True)


def _has_openssl() -> bool:
    probe = subprocess.run(
        ["gcc", "-E", "-x", "c", "-"], input=b"#include <openssl/ssl.h>\n", capture_output=True, check=False
    )
    return probe.returncode == 0
