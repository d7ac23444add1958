"""`relay check`: all that is wrong with the configuration, and what is unwise; opens no port."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import typer

from relay.cli.human import counted
from relay.cli.language import choose_of, say, told
from relay.cli.options import ConfigOption, JsonOption
from relay.cli.serve import DEFAULT_CONFIG
from relay.config import advice, outside, service
from relay.config.load import load
from relay.errors import BadConfig, ConfigError


def check(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Check the configuration: all errors at once, and warnings. Exit code 1 when it is bad."""
    choose_of(config)
    errors, warnings = judge(config)
    if as_json:
        typer.echo(_document(config, errors, warnings))
    else:
        for error in errors:
            typer.echo(told(error))
        for warning in warnings:
            typer.echo(say("check.warning", problem=told(warning)))
        typer.echo(f"{config}: {_verdict(len(errors), len(warnings))}")
    raise typer.Exit(1 if errors else 0)


def judge(file: Path) -> tuple[Sequence[ConfigError], Sequence[ConfigError]]:
    """Errors and warnings of a configuration file, as seen outside the service.

    What the installed service would lack is an error where it starts with this file.
    """
    try:
        config = load(file)
    except BadConfig as bad:
        return bad.problems, ()
    errors, warnings = outside.problems(config, serving=False), advice.warnings(config)
    installed = service.service() if "CREDENTIALS_DIRECTORY" not in os.environ else None
    if installed is None:
        return errors, [*outside.absent(config), *warnings]
    lacks = [config.source.error(each) for each in installed.lacks(config, file)]
    warnings += [config.source.error(each) for each in installed.exposes(config)]
    return ([*errors, *lacks], warnings) if installed.serves(file) else (errors, [*lacks, *warnings])


def _verdict(errors: int, warnings: int) -> str:
    if errors:
        return counted(errors, "check.bad")
    return counted(warnings, "check.remarked") if warnings else say("check.good")


def _document(file: Path, errors: Sequence[ConfigError], warnings: Sequence[ConfigError]) -> str:
    parts = {
        name: [{"where": each.where, "problem": each.problem, "hint": each.hint} for each in found]
        for name, found in (("errors", errors), ("warnings", warnings))
    }
    return json.dumps({"version": 1, "file": str(file), "good": not errors, **parts}, ensure_ascii=False)
