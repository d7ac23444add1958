"""Reading the configuration file: YAML to a Config, or all its problems at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path as FilePath

from pydantic import ValidationError

from relay.config import checks
from relay.config.document import Document, read
from relay.config.explain import Explained, explain, forgotten, without_mistakes
from relay.config.model import Config
from relay.config.problems import Finding, Path, key
from relay.config.syntax import Unreadable
from relay.durable import read_regular
from relay.errors import BadConfig, ConfigError

_LARGEST = 1024 * 1024
_UNREADABLE = {
    FileNotFoundError: "name the file with -c",
    PermissionError: "use sudo, or ask as the user that the relay runs as",
}
_ROUNDS = 4  # rounds of leaving out mistakes before the cross-checks are given up


def load(path: FilePath) -> Config:
    """The configuration in the file `path`; relative paths in it count from its folder, and are made absolute.

    Raises BadConfig with all problems; opens nothing else.
    """
    file = str(path)
    try:
        octets = read_regular(path, _LARGEST + 1)
    except OSError as error:
        hint = _UNREADABLE.get(type(error), "")
        raise BadConfig([ConfigError(file, f"cannot be read: {error.strerror or 'error'}", hint)]) from None
    if len(octets) > _LARGEST:
        raise BadConfig([ConfigError(file, "larger than 1 MiB")])
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise BadConfig([ConfigError(f"{file}:{line}", "not UTF-8", "save the file as UTF-8")]) from None
    return parse(text, file, folder=path.absolute().parent)


def parse(text: str, file: str = "config.yaml", *, folder: FilePath | None = None) -> Config:
    """The configuration written as `text`; relative paths in it are counted from `folder`. Raises BadConfig."""
    try:
        document = read(text, file)
    except Unreadable as problem:
        where = f"{file}:{problem.line}" if problem.line else file
        if problem.path:
            where += f": {key(problem.path)}"
        raise BadConfig([ConfigError(where, problem.problem, problem.hint)]) from None
    source, problems = document.source, list(document.problems)
    config, mistakes = _validated(document, {"folder": folder or FilePath()})
    known = [*(each.finding.path for each in mistakes), *document.incomplete]
    empty = forgotten(document.value, document.texts, source.commented)
    mistakes += [each for each in empty if not any(path == each.finding.path[: len(path)] for path in known)]
    problems += [source.error(each.finding) for each in mistakes if not _follows(each, mistakes, document.incomplete)]
    if config is not None:
        spoilt = [*document.incomplete, *(mistake.spoils for mistake in mistakes if mistake.spoils is not None)]
        problems += [source.error(each) for each in checks.findings(config) if not _rests_on(each, spoilt)]
    if problems or config is None:
        raise BadConfig(sorted(problems, key=lambda problem: _line_of(problem, file)))
    return config.read_from(source)


def _validated(document: Document, context: dict[str, FilePath]) -> tuple[Config | None, list[Explained]]:
    """The configuration, without its mistakes if there are any, so that the rest can be checked as well."""
    written, mistakes = document.value, None
    for _ in range(_ROUNDS):
        try:
            return Config.model_validate(written, context=context), mistakes or []
        except ValidationError as error:
            found = explain(error, written, document.texts)
            mistakes = found if mistakes is None else mistakes
            written = without_mistakes(written, found)
    return None, mistakes or []


def _follows(mistake: Explained, others: Iterable[Explained], incomplete: frozenset[Path]) -> bool:
    """True for a value that could not be read, and where what is missing stands there misspelt, is what a preset that
    is none would fill in, or may stand in what could not be read."""
    path = mistake.finding.path
    bad = [other.spoils for other in others if not other.lacks]
    in_other_words = path in bad or (*path[:-1], "preset") in bad
    return path in incomplete or (mistake.lacks and (in_other_words or path[:-1] in incomplete))


def _rests_on(finding: Finding, spoilt: list[Path]) -> bool:
    """True for what may only follow from another mistake."""
    return any(
        bad == finding.path[: len(bad)]
        or finding.path == bad[: len(finding.path)]
        or any(bad == looked_at[: len(bad)] for looked_at in finding.looked_at)
        for bad in spoilt
    )


def _line_of(problem: ConfigError, file: str) -> int:
    found = re.match(r":(\d+)", problem.where.removeprefix(file))
    return int(found[1]) if found else 0
