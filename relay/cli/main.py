"""The `relay` command: the table of verbs, and what they have in common.

Only the module of the verb that is asked for is imported, so that monitoring can call us often.
`serve` goes past typer altogether: a service need not carry it.
"""

from __future__ import annotations

import importlib
import io
import os
import sys

VERBS = {
    "serve": "relay.cli.serve:serve",
    "check": "relay.cli.check:check",
    "explain": "relay.cli.explain:explain",
    "schema": "relay.cli.schema:schema",
    "hash": "relay.cli.hash:hash_",
    "reload": "relay.cli.reload:reload",
    "status": "relay.cli.status:status",
    "doctor": "relay.cli.doctor.verb:doctor",
    "test": "relay.cli.follow:follow",
    "presets": "relay.cli.presets:presets",
    "queue": "relay.cli.queue:queue",
    "codes": "relay.cli.codes:codes",
    "clients": "relay.cli.clients:clients",
    "senders": "relay.cli.senders:senders",
    "auth": "relay.cli.auth:auth",
    "sendmail": "relay.cli.sendmail:sendmail",
    "demo": "relay.cli.demo:demo",
}


def main() -> None:
    """Run the verb.

    Exit codes: 0 done or good, 1 refused or found bad, 2 usage, 3 no running relay, 4 no such entry.
    """
    arguments = sys.argv[1:]
    named = os.path.basename(sys.argv[0]) == "sendmail"  # through a link, as /usr/sbin/sendmail
    if named or arguments[:1] == ["sendmail"]:  # its options are none that typer could read
        from relay.cli import sendmail

        raise SystemExit(sendmail.main(arguments if named else arguments[1:]))
    if arguments[:1] == ["serve"] and "--help" not in arguments:
        from relay.cli import serve

        raise SystemExit(serve.main(arguments[1:]))
    # A terminal that does not know a letter gets its escape; stderr does so by itself.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _typer(arguments[0] if arguments and arguments[0] in VERBS else None)
    except Exception as error:  # noqa: BLE001  # bulkhead: a person gets a sentence, whatever happens
        sys.stderr.write(f"relay: {_fault(error)}\n")
        raise SystemExit(1) from None


def _fault(error: Exception) -> str:
    """What happened, and where. What the error says may quote a secret."""
    from traceback import extract_tb

    where = [frame for frame in extract_tb(error.__traceback__) if "relay" in frame.filename][-1]
    place = f"{os.path.basename(where.filename)}:{where.lineno}"
    return f"this command has a fault of its own: {type(error).__name__} at {place}. Please report this line."


def _typer(verb: str | None) -> None:
    import typer

    from relay import __version__

    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

    def version(asked: bool) -> None:
        if asked:
            typer.echo(f"relay {__version__}")
            raise typer.Exit

    @app.callback()
    def relay(
        _: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Show the version."),
    ) -> None:
        """A local SMTP relay proxy: legacy software in front, a modern provider behind."""

    for name in [verb] if verb else VERBS:
        module, function = VERBS[name].split(":")
        command = getattr(importlib.import_module(module), function)
        if isinstance(command, typer.Typer):  # with verbs of its own
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    app(prog_name="relay")
