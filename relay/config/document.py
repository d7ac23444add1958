"""A YAML file as values: the one door of yaml, for the configuration and for presets.

YAML is read event by event, so that every key has its line, nothing is built that nobody asked for, and
neither aliases nor depth can exhaust the machine. Problems never quote a line of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from relay.config.problems import Path, Source, key
from relay.config.syntax import Scalar, Stop, Unreadable, special, why
from relay.errors import ConfigError
from relay.values import frozen

_DEEPEST = 24
_MOST_NODES = 20_000
_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?[0-9]{1,17}\.[0-9]{1,17}")
_COLON = re.compile(r"\s*:")
_ODD_BLANKS = re.compile("^[^\\S ]|[^\\S ]$|^[\u200b\u2060\ufeff]|[\u200b\u2060\ufeff]$")
_TYPOGRAPHIC = re.compile("[“”„‟«»]|[‘’‚‛´].*[‘’‚‛´]$", re.DOTALL)
_COMMENT = re.compile(r"[ \t]+#")
_ODDITIES = {"int": "a number", "float": "a number", "timestamp": "a date"}


@frozen
class Oddity:
    """A scalar that YAML 1.1 turns into something else than what stands there: 0123, 1:30, 2024-01-01."""

    text: str
    reads_as: str


@dataclass(slots=True)
class _Node:
    """A value of the file with its line; `children` pairs keys or indexes with nodes."""

    line: int
    value: Any
    text: str | None = None
    children: list[tuple[str | int, _Node]] = field(default_factory=list)
    weight: int = 1


@frozen
class Document:
    """The file: values (lists as tuples), the line of each key, and scalars as they stand there.

    `incomplete`: values that could not be read, and mappings with such a key, so that what they lack says nothing.
    """

    value: object
    source: Source
    texts: Mapping[Path, str]
    problems: tuple[ConfigError, ...]
    incomplete: frozenset[Path]


def read(text: str, file: str) -> Document:
    """The one document in `text`; `file` is what problems call it. Raises Unreadable where nothing more can be said."""
    reader: _Reader | None = None
    try:
        reader = _Reader(text)
        root = reader.document()
    except yaml.YAMLError as error:
        if reader is not None and isinstance(error, yaml.MarkedYAMLError):
            raise why(reader.stop(error), text) from None
        position = getattr(error, "position", 0)
        line = text.encode("utf-8", "replace").count(b"\n", 0, position) + 1
        raise Unreadable(line, "a character that a file of text cannot have", "remove it") from None
    finally:
        if reader is not None:
            reader.close()
    lines: dict[Path, int] = {}
    texts: dict[Path, str] = {}
    value = _flat(root, (), lines, texts)
    source = Source(file, lines, frozenset(reader.commented))
    problems = [ConfigError(f"{file}:{line}: {key(path)}", what, how) for line, path, what, how in reader.problems]
    return Document(value, source, texts, tuple(problems), frozenset(reader.incomplete))


def _flat(node: _Node, path: Path, lines: dict[Path, int], texts: dict[Path, str]) -> object:
    lines[path] = node.line
    if node.text is not None:
        texts[path] = node.text
    parts = {name: _flat(child, (*path, name), lines, texts) for name, child in node.children}
    if isinstance(node.value, dict):
        return parts
    return tuple(parts.values()) if isinstance(node.value, tuple) else node.value


def _from_elsewhere(text: str) -> tuple[str, str] | None:
    """What is wrong with a text that was pasted from a web page or a word processor, and what to do."""
    if _TYPOGRAPHIC.match(text):
        return (
            "typographic quotes belong to this text",
            "write \" or '; where they are meant, put plain quotes around them",
        )
    if _ODD_BLANKS.search(text):
        return "a blank that is no space belongs to this text, as in text from a web page", "write it anew"
    return None


class _Reader:
    """Builds nodes from the events of one document."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._loader = yaml.CSafeLoader(text)
        self._anchors: dict[str, _Node | None] = {}
        self._path: Path = ()
        self._before: Path = ()
        self._last: Scalar | None = None
        self.problems: list[tuple[int, Path, str, str]] = []
        self.incomplete: set[Path] = set()
        self.commented: set[Path] = set()

    def close(self) -> None:
        self._loader.dispose()

    def stop(self, error: yaml.MarkedYAMLError) -> Stop:
        """Where the parser stopped with `error`."""
        at, begin = error.problem_mark, error.context_mark or error.problem_mark
        assert at is not None
        assert begin is not None
        return Stop(
            problem=error.problem or "syntax error",
            line=at.line + 1,
            column=at.column,
            while_=error.context or "",
            begin=begin.line + 1,
            path=self._path,
            before=self._before,
            last=self._last,
        )

    def document(self) -> _Node:
        self._next()
        if isinstance(self._next(), yaml.StreamEndEvent):
            raise Unreadable(0, "the file is empty", "at least upstreams is needed")
        root = self._node(self._next(), ())
        self._next()
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            raise Unreadable(after.start_mark.line + 1, "a second document begins here", "remove the line ---")
        if not isinstance(root.value, dict):
            if root.value is None:
                raise Unreadable(0, "the file is empty", "at least upstreams is needed")
            raise Unreadable(root.line, "the file must be a mapping", "write keys, as in upstreams:")
        return root

    def _next(self) -> Any:
        return self._loader.get_event()

    def _node(self, event: Any, path: Path) -> _Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, line, path)
        if len(path) > _DEEPEST:
            raise Unreadable(line, "nested too deeply")
        if event.tag is not None and event.tag not in (f"{_TAG}str", "!"):
            raise Unreadable(line, "tags have no meaning here", 'quote a value that begins with "!"', path)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = self._text_at(event, line, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(line, path)
        else:
            node = self._mapping(line, path)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _text_at(self, event: Any, line: int, path: Path) -> _Node:
        quoted = event.style in ("'", '"')
        self._last = Scalar(path, line, event.end_mark.line + 1, quoted)
        if event.anchor is not None and not event.value and not quoted:
            raise special(line, path)
        if not quoted and _COMMENT.match(self._text, event.end_mark.index):
            self.commented.add(path)
        if not event.style and (found := _from_elsewhere(event.value)):
            self.problems.append((line, path, *found))
            self.incomplete.add(path)
        return _Node(line, self._scalar(event), event.value)

    def _alias(self, event: Any, line: int, path: Path) -> _Node:
        known = self._anchors.get(event.anchor)
        if known is None:
            raise special(line, path)
        return _Node(line, known.value, known.text, known.children, known.weight)

    def _sequence(self, line: int, path: Path) -> _Node:
        node = _Node(line, ())
        self._path = path
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            number = len(node.children)
            self._path = (*path, number)
            self._add(node, number, self._node(event, self._path))
            self._path, self._before = path, self._path
        return node

    def _mapping(self, line: int, path: Path) -> _Node:
        node = _Node(line, {})
        first: dict[str, int] = {}
        self._path = path
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            at = event.start_mark.line + 1
            name = self._key(event, at, path)
            self._path = (*path, name or "")
            child = self._node(self._next(), (*path, name or ""))
            self._path, self._before = path, (*path, name or "")
            child.line = at
            if name is None:
                continue
            if child.text == "" and not _COLON.match(self._text, event.end_mark.index):
                hint = "write key: value; put quotes around a value that holds a comma or begins with {"
                self.problems.append(
                    (at, path, "a key without a colon, or a part of a value", hint)
                )  # may be a secret's
                self.incomplete.add(path)
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
            raise Unreadable(
                line, "a list, a mapping or an alias cannot be a key", "quote values with braces and stars", path
            )
        value = self._scalar(event)
        found = _from_elsewhere(event.value) if not event.style else None
        if found is not None:
            problem, hint = found
        elif isinstance(value, str):
            return value
        elif isinstance(value, Oddity) and value.reads_as == "merge":
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
            raise Unreadable(child.line, "too much: aliases that multiply, or a very long list")

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
