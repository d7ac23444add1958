"""Which upstreams share an account: the same server, port and user name, whatever they are called."""

from __future__ import annotations

from relay.config.model import Config, SmtpUpstream


def account(name: str, config: Config) -> str:
    """The name of the account that the upstream `name` leads to."""
    upstream = config.upstreams[name]
    if not isinstance(upstream, SmtpUpstream):
        return name
    return f"{upstream.username or ''}@{upstream.host.lower()}:{upstream.port}"


def accounts(config: Config) -> dict[str, list[str]]:
    """The accounts, each with the names of its upstreams, in the order of the file."""
    found: dict[str, list[str]] = {}
    for name in config.upstreams:
        found.setdefault(account(name, config), []).append(name)
    return found
