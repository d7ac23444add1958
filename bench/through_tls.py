"""Messages from `smtp-source` through `relay serve`, STARTTLS and AUTH, to an upstream that keeps them all.

    python -m bench.through_tls [MESSAGES]

Needs Postfix's smtp-source and the [dev] packages. Says how many arrived, how many of them once and with the
rewritten From, and how fast; first the ceiling of the upstream itself, which is Python too, without the relay.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml

from tests.kit.certificates import Certificates
from tests.kit.upstream import ScriptedUpstream

SESSIONS = 20
ADDRESS = "relay@example.nl"


async def main(messages: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificates = Certificates(folder)
        async with ScriptedUpstream() as plain:
            seconds = await source(plain.port, messages, plain)
            print(f"the upstream alone, without TLS: {messages / seconds:.0f}/s")
        async with ScriptedUpstream(
            tls="starttls", certificate=certificates.good, users={ADDRESS: "secret"}
        ) as upstream:
            return await through_the_relay(folder, certificates, upstream, messages)


async def through_the_relay(folder: Path, certificates: Certificates, upstream: ScriptedUpstream, messages: int) -> int:
    config = folder / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "hostname": "relay.example.nl",
                "listeners": [{"listen": "127.0.0.1:2598"}],
                "upstreams": {
                    "own": {
                        "host": upstream.host,
                        "port": upstream.port,
                        "tls_ca": str(certificates.ca_path),
                        "username": ADDRESS,
                        "password": "secret",
                        "max_connections": SESSIONS,
                    }
                },
                "senders": [{"address": ADDRESS}],
                "queue": {"store": f"sqlite:{folder}/queue.db", "min_free": "1MiB"},
                "admin": {"listen": None, "socket": f"{folder}/admin.sock"},
                "log": {"level": "warning"},
            }
        )
    )
    relay = await asyncio.create_subprocess_exec(sys.executable, "-m", "relay", "serve", "-c", str(config))
    try:
        await accepting(2598)
        seconds = await source(2598, messages, upstream)
    finally:
        relay.terminate()
        await relay.wait()
    ids = Counter(queue_id(received.content) for received in upstream.messages)
    rewritten = sum(f"\nFrom: jan <{ADDRESS}>".encode() in received.content for received in upstream.messages)
    inside = sum(received.tls and received.user == ADDRESS for received in upstream.messages)
    print(f"through the relay: {messages / seconds:.0f}/s over {upstream.connections} connections")
    print(f"arrived {len(upstream.messages)}, different {len(ids)}, From rewritten {rewritten}, TLS and AUTH {inside}")
    return 0 if len(upstream.messages) == len(ids) == rewritten == inside == messages else 1


async def source(port: int, messages: int, upstream: ScriptedUpstream) -> float:
    """Seconds from the first connection until the last message arrived."""
    started = time.perf_counter()
    command = (
        f"smtp-source -d -s {SESSIONS} -m {messages} -l 4096 -f jan@example.nl -t piet@example.org 127.0.0.1:{port}"
    )
    process = await asyncio.create_subprocess_exec(*command.split())
    await process.wait()
    await upstream.message(messages)
    return time.perf_counter() - started


async def accepting(port: int) -> None:
    for _ in range(500):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise SystemExit("the relay did not start")


def queue_id(content: bytes) -> bytes:
    """The ID in our Received field, which is the topmost."""
    return content.split(b" id ", 1)[1].split(None, 1)[0]


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    raise SystemExit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)))
