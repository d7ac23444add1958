"""`relay hash`: the hash of a password, for `users` of a listener."""

from __future__ import annotations

import getpass
import sys

import typer

from relay.config.password import hash_password


def hash_() -> None:
    """Hash a password for `users` in the configuration.

    It is asked for on the terminal, or read from standard input (one line).
    """
    try:
        text = _asked() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    except (EOFError, KeyboardInterrupt, UnicodeDecodeError):
        text = ""
    if not text or not text.isprintable():
        typer.echo("no password, or one with control characters", err=True)
        raise typer.Exit(1)
    typer.echo(hash_password(text))


def _asked() -> str:
    first = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != first:
        typer.echo("the two differ", err=True)
        raise typer.Exit(1)
    return first
