"""The relay, configured as an administrator would: one listener, one upstream, one rule, metrics, log at info."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from bench.peer import ADDRESS, Peer, Site, free_port
from bench.sink import PASSWORD, USER


def configuration(folder: Path, site: Site) -> dict[str, object]:
    """What stands in its config.yaml, defaults left out."""
    upstream: dict[str, object] = {
        "host": "127.0.0.1",
        "port": site.upstream,
        "max_connections": site.connections,
    }
    if site.ca is None:
        upstream |= {"tls": "none"}
    else:
        upstream |= {"tls": "starttls", "tls_ca": str(site.ca), "username": USER, "password": PASSWORD}
    return {
        "hostname": "relay.example.com",
        "listeners": [{"name": "legacy", "listen": f"127.0.0.1:{site.port}"}],
        "upstreams": {"own": upstream},
        "senders": [{"address": ADDRESS}],
        "queue": {"store": f"sqlite:{folder}/queue.db"},
        "admin": {"listen": f"127.0.0.1:{free_port()}", "socket": f"{folder}/admin.sock"},
    }


def lay_out(folder: Path, site: Site) -> Peer:
    """Its log goes to stderr, which is a file (`Running`)."""
    folder.mkdir(mode=0o700, parents=True)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(configuration(folder, site), sort_keys=False))
    config.chmod(0o600)
    return Peer("relay", site.port, (sys.executable, "-m", "relay", "serve", "-c", str(config)))
