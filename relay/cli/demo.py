"""`relay demo`: the relay at work on this machine, without a provider and without installing anything else."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Annotated

import typer

from relay.errors import RelayError


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the show; exit code 0 if all arrived well.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port that legacy software would send to.")] = 2525,
) -> None:
    """Show the relay at work.

    Mails of legacy software come in, and mails that a strict provider takes leave.
    """
    if importlib.util.find_spec("trustme") is None:
        typer.echo("The demo makes certificates with trustme, which is not installed: use `make demo`", err=True)
        raise typer.Exit(1)
    from rich.console import Console

    from relay.demo.show import run

    try:
        good = asyncio.run(run(Console(), once=once, port=port))
    except RelayError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(1) from None
    raise typer.Exit(0 if good else 1)
