"""Where answers go: a terminal (its width, its colours, a pager for what is long), or a pipe.

On a terminal rich colours the lines, so that NO_COLOR and TERM=dumb are heeded; a pipe gets plain text.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from relay.cli.table import Line, text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def width() -> int | None:
    """Of the terminal that reads our answers; None where they go to a pipe or a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def show(lines: Iterable[Line]) -> None:
    """Print the lines; through $PAGER if they are more than the terminal can show at once."""
    told = list(lines)
    if not sys.stdout.isatty():
        typer.echo("".join([f"{text(line)}\n" for line in told]), nl=False)
        return
    screen = console()
    if len(told) < shutil.get_terminal_size().lines or not sys.stdin.isatty() or (pager := _pager()) is None:
        screen.print(styled(told))
        return
    with screen.capture() as captured:
        screen.print(styled(told))
    environment = {**os.environ, "LESS": os.environ.get("LESS", "FRX")}
    with subprocess.Popen(pager, stdin=subprocess.PIPE, env=environment) as process:  # noqa: S603  the user's own choice
        octets = captured.get().encode(sys.stdout.encoding, "backslashreplace")
        while True:
            try:
                process.communicate(octets)
            except KeyboardInterrupt:  # it is meant for the pager
                octets = b""
                continue
            return


def _pager() -> list[str] | None:
    """$PAGER, else less, where there is such a program."""
    try:
        words = shlex.split(os.environ.get("PAGER", "")) or ["less"]
    except ValueError:
        return None
    return words if shutil.which(words[0]) else None


def console() -> Console:
    from rich.console import Console

    # Lines are as long as they should be: a window that has become narrower folds them by itself.
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


def styled(lines: Iterable[Line]) -> Text:
    """The lines for rich: text, never markup."""
    from rich.text import Text

    whole = Text("\n", end="\n", no_wrap=True).join([Text.assemble(*line) for line in lines])
    whole.end = "\n"
    return whole


def show_document(document: dict[str, Any]) -> None:
    """One JSON document, in ASCII: no letter of it can harm a terminal."""
    typer.echo(json.dumps(document, indent=2))


def complain(sentence: str) -> None:
    """A sentence on stderr."""
    typer.echo(sentence, err=True)


def refuse(sentence: str, code: int = 1) -> NoReturn:
    complain(sentence)
    raise typer.Exit(code)


@contextmanager
def progress(title: str) -> Iterator[Callable[[int], None]]:
    """Tells on stderr how many were done, while the block lasts, if that is a terminal; else nothing is said."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done: bar.update(task, description=f"{title}: {done}")
