"""Reading the configuration file: YAML to a Config, or all its problems at once.

YAML is read event by event, so that every key has its line, nothing is built that nobody asked for, and
neither aliases nor depth can exhaust the machine. Problems never quote a line of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml
from pydantic import ValidationError

from relay.config import checks
from relay.config.explain import Explained, Oddity, explain, without_mistakes
from relay.config.model import Config
from relay.config.problems import Finding, Path, Source, key
from relay.errors import BadConfig, ConfigError

_LARGEST = 1024 * 1024
_DEEPEST = 24
_MOST_NODES = 20_000
_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?[0-9]{1,17}\.[0-9]{1,17}")
_ODDITIES = {"int": "a number", "float": "a number", "timestamp": "a date"}
_ROUNDS = 4  # rounds of leaving out mistakes before the cross-checks are given up


@dataclass(slots=True)
class _Node:
    """A value of the file with its line; `children` pairs keys or indexes with nodes."""

    line: int
    value: Any
    text: str | None = None
    children: list[tuple[str | int, _Node]] = field(default_factory=list)
    weight: int = 1


@dataclass(frozen=True, slots=True)
class _Document:
    """The file: values (lists as tuples), the line of each key, and scalars as they stand there.

    `incomplete`: mappings with a key that could not be read, so that what they lack says nothing.
    """

    value: object
    source: Source
    texts: Mapping[Path, str]
    problems: tuple[ConfigError, ...]
    incomplete: frozenset[Path]


class _Unreadable(Exception):
    """The file ends here: what follows would be guesswork."""

    def __init__(self, line: int, problem: str, hint: str = "") -> None:
        self.line, self.problem, self.hint = line, problem, hint
        super().__init__(problem)


def load(path: FilePath) -> Config:
    """The configuration in the file `path`. Raises BadConfig with all problems; opens nothing else."""
    file = str(path)
    try:
        with path.open("rb") as stream:
            octets = stream.read(_LARGEST + 1)
    except OSError as error:
        hint = "name the file with -c" if isinstance(error, FileNotFoundError) else ""
        raise BadConfig([ConfigError(file, f"cannot be read: {error.strerror or 'error'}", hint)]) from None
    if len(octets) > _LARGEST:
        raise BadConfig([ConfigError(file, "larger than 1 MiB")])
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise BadConfig([ConfigError(f"{file}:{line}", "not UTF-8", "save the file as UTF-8")]) from None
    return parse(text, file, folder=path.parent)


def parse(text: str, file: str = "config.yaml", *, folder: FilePath | None = None) -> Config:
    """The configuration written as `text`; relative paths in it are counted from `folder`. Raises BadConfig."""
    try:
        document = _read(text, file)
    except _Unreadable as problem:
        where = f"{file}:{problem.line}" if problem.line else file
        raise BadConfig([ConfigError(where, problem.problem, problem.hint)]) from None
    source, problems = document.source, list(document.problems)
    config, mistakes = _validated(document, {"folder": folder or FilePath()})
    problems += [source.error(each.finding) for each in mistakes if not _follows(each, mistakes, document.incomplete)]
    if config is not None:
        spoilt = [mistake.spoils for mistake in mistakes if mistake.spoils is not None]
        problems += [source.error(each) for each in checks.findings(config) if not _rests_on(each, spoilt)]
    if problems or config is None:
        raise BadConfig(sorted(problems, key=lambda problem: _line_of(problem, file)))
    return config.read_from(source)


def _validated(document: _Document, context: dict[str, FilePath]) -> tuple[Config | None, list[Explained]]:
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
    """True where what is missing stands there misspelt, or may stand in what could not be read."""
    path = mistake.finding.path
    misspelt = any(path == other.spoils for other in others if not other.lacks)
    return mistake.lacks and (misspelt or path in incomplete or path[:-1] in incomplete)


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


def _read(text: str, file: str) -> _Document:
    reader: _Reader | None = None
    try:
        reader = _Reader(text)
        root = reader.document()
    except yaml.YAMLError as error:
        raise _syntax(error, text) from None
    finally:
        if reader is not None:
            reader.close()
    lines: dict[Path, int] = {}
    texts: dict[Path, str] = {}
    value = _flat(root, (), lines, texts)
    source = Source(file, lines)
    problems = [ConfigError(f"{file}:{line}: {key(path)}", what, how) for line, path, what, how in reader.problems]
    return _Document(value, source, texts, tuple(problems), frozenset(reader.incomplete))


def _flat(node: _Node, path: Path, lines: dict[Path, int], texts: dict[Path, str]) -> object:
    lines[path] = node.line
    if node.text is not None:
        texts[path] = node.text
    parts = {name: _flat(child, (*path, name), lines, texts) for name, child in node.children}
    if isinstance(node.value, dict):
        return parts
    return tuple(parts.values()) if isinstance(node.value, tuple) else node.value


def _syntax(error: yaml.YAMLError, text: str) -> _Unreadable:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        position = getattr(error, "position", None)
        line = text.encode("utf-8", "replace").count(b"\n", 0, position) + 1 if isinstance(position, int) else 0
        return _Unreadable(line, "not YAML", "are there control characters?")
    hint = 'indent with spaces, and quote what holds ": ", "#", "[", "{", "@" or "%"'
    return _Unreadable(error.problem_mark.line + 1, f"not YAML: {error.problem or 'syntax error'}", hint)


class _Reader:
    """Builds nodes from the events of one document."""

    def __init__(self, text: str) -> None:
        self._loader = yaml.CSafeLoader(text)
        self._anchors: dict[str, _Node | None] = {}
        self.problems: list[tuple[int, Path, str, str]] = []
        self.incomplete: set[Path] = set()

    def close(self) -> None:
        self._loader.dispose()

    def document(self) -> _Node:
        self._next()
        if isinstance(self._next(), yaml.StreamEndEvent):
            raise _Unreadable(0, "the file is empty", "at least upstreams is needed")
        root = self._node(self._next(), ())
        self._next()
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            raise _Unreadable(after.start_mark.line + 1, "a second document begins here", "remove the line ---")
        if not isinstance(root.value, dict):
            if root.value is None:
                raise _Unreadable(0, "the file is empty", "at least upstreams is needed")
            raise _Unreadable(root.line, "the file must be a mapping", "write keys, as in upstreams:")
        return root

    def _next(self) -> Any:
        return self._loader.get_event()

    def _node(self, event: Any, path: Path) -> _Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, line)
        if len(path) > _DEEPEST:
            raise _Unreadable(line, "nested too deeply")
        if event.tag is not None and event.tag not in (f"{_TAG}str", "!"):
            raise _Unreadable(line, "tags have no meaning here", 'remove the word that begins with "!"')
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = _Node(line, self._scalar(event), event.value)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(line, path)
        else:
            node = self._mapping(line, path)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any, line: int) -> _Node:
        known = self._anchors.get(event.anchor)
        if known is None:
            raise _Unreadable(line, "an alias of something that does not stand above it")
        return _Node(line, known.value, known.text, known.children, known.weight)

    def _sequence(self, line: int, path: Path) -> _Node:
        node = _Node(line, ())
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            number = len(node.children)
            self._add(node, number, self._node(event, (*path, number)))
        return node

    def _mapping(self, line: int, path: Path) -> _Node:
        node = _Node(line, {})
        first: dict[str, int] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            at = event.start_mark.line + 1
            name = self._key(event, at, path)
            child = self._node(self._next(), (*path, name or ""))
            child.line = at
            if name is None:
                continue
            if name in first:
                self.problems.append(
                    (at, (*path, name), f"stands here twice, first in line {first[name]}", "remove one")
                )
                continue
            first[name] = at
            self._add(node, name, child)
        return node

    def _key(self, event: Any, line: int, path: Path) -> str | None:
        if not isinstance(event, yaml.ScalarEvent):
            raise _Unreadable(
                line, "a list, a mapping or an alias cannot be a key", "quote values with braces and stars"
            )
        value = self._scalar(event)
        if isinstance(value, str):
            return value
        if isinstance(value, Oddity) and value.reads_as == "merge":
            problem, hint = "merge keys (<<) are not known here", "write the keys out"
        else:
            problem, hint = "a key that YAML does not read as text", "quote it"
        self.problems.append((line, path, problem, hint))
        self.incomplete.add(path)
        return None

    def _add(self, parent: _Node, name: str | int, child: _Node) -> None:
        parent.children.append((name, child))
        parent.weight += child.weight
        if parent.weight > _MOST_NODES:
            raise _Unreadable(child.line, "too much: aliases that multiply, or a very long list")

    def _scalar(self, event: Any) -> object:
        """The value as YAML 1.1 has it where that is what stands there, else an Oddity."""
        text: str = event.value
        if event.tag is not None:
            return text
        tag: str = self._loader.resolve(yaml.ScalarNode, text, event.implicit)  # type: ignore[no-untyped-call]
        kind = tag.removeprefix(_TAG)
        match kind:
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() in ("true", "yes", "on")
            case "int" if _INTEGER.fullmatch(text):
                return int(text)
            case "float" if _DECIMAL.fullmatch(text):
                return float(text)
        return Oddity(text, _ODDITIES.get(kind, kind))
