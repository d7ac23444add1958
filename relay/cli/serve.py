"""`relay serve`: run the relay in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

from relay.errors import BadConfig, RelayError

DEFAULT_CONFIG = Path("/etc/relay/config.yaml")


def main(arguments: list[str]) -> int:
    """Parse what stands behind `relay serve`, and run."""
    parser = argparse.ArgumentParser("relay serve", description=serve.__doc__)
    default = Path(os.environ.get("RELAY_CONFIG", DEFAULT_CONFIG))
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, default=default)
    return serve(parser.parse_args(arguments).config)


def serve(config: Path = DEFAULT_CONFIG) -> int:
    """Run the relay until SIGTERM.

    SIGHUP reads the configuration anew. Exit code 1: it could not start.
    """
    from relay.config import load, outside
    from relay.daemon import main as daemon

    try:
        loaded = load.load(config)
        missing = outside.problems(loaded, serving=True)
        if missing:
            raise BadConfig(missing)
        # What was imported and configured lives as long as the process: no collection need look at it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(daemon.serve(loaded, config))
    except RelayError as error:
        from relay.cli.language import sentence

        sys.stderr.write(f"{sentence(error)}\n")
        return 1
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
