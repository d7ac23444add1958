"""Where in the file a problem is, and how it is told: `config.yaml:14: routes.default.upstreams`."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field

from relay.errors import ConfigError
from relay.values import frozen

Path = tuple[str | int, ...]

_SECRET = re.compile(r"(?:.*_)?(?:username|password|secret|token)")
_SECRET_WITH_MORE = re.compile(r"(?i)((?:\w*_)?(?:username|password|secret|token))\W")
_REFERENCES = frozenset({"credential", "file", "env"})
_NAMES_BELOW = frozenset({"upstreams", "routes"})  # what stands below is a name somebody chose


@frozen
class Finding:
    """One problem at one key.

    `looked_at`: other keys it was concluded from; where one of those is bad, it is not told.
    """

    path: Path
    problem: str
    hint: str = ""
    looked_at: tuple[Path, ...] = ()


@frozen
class Source:
    """The file as named on the command line, and the line of each key in it.

    `commented`: keys whose text stands there without quotes, or not at all, and ends before a comment.
    """

    file: str = ""
    lines: Mapping[Path, int] = field(default_factory=dict)
    commented: frozenset[Path] = frozenset()

    def where(self, path: Path) -> str:
        """ "config.yaml:14: routes.default.upstreams"; the line is that of the nearest key that is in the file."""
        shown = key(path)
        if not self.file:
            return shown or "configuration"
        line = self.line(path)
        start = f"{self.file}:{line}" if line else self.file
        return f"{start}: {shown}" if shown else start

    def line(self, path: Path) -> int | None:
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None

    def error(self, finding: Finding) -> ConfigError:
        return ConfigError(self.where(finding.path), finding.problem, finding.hint)


def below(path: Path, findings: Iterable[Finding]) -> Iterator[Finding]:
    """What a section finds in itself, where that section stands at `path`."""
    for each in findings:
        looked_at = tuple([(*path, *other) for other in each.looked_at])
        yield Finding((*path, *each.path), each.problem, each.hint, looked_at)


def is_secret(path: Path) -> bool:
    """True for keys whose value must not be shown, and for all that stands below them."""
    return _secret_at(path) is not None


def key(path: Path) -> str:
    """The path as people write it, ended at a secret key: below that, even a key may be a misplaced secret."""
    end = _secret_at(path)
    if end is not None:
        rest = path[end + 1 : end + 2]
        path = path[: end + 2] if rest and rest[0] in _REFERENCES else path[: end + 1]
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += f".{_shown(part)}" if shown else _shown(part)
    return shown


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'did you mean "own"?', else what is known, else nothing."""
    names = sorted(set(known))
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{lower[close[0]]}"?'
    return f"known: {', '.join(names)}" if 0 < len(names) <= 24 else ""


def quoted(word: str) -> str:
    """A word of the file in an error: printable, at most 64 characters, in quotes."""
    return json.dumps(word if len(word) <= 64 else word[:63] + "…", ensure_ascii=not word.isprintable())


def _secret_at(path: Path) -> int | None:
    for index, part in enumerate(path):
        named_by_people = index > 0 and path[index - 1] in _NAMES_BELOW and index == 1
        if isinstance(part, str) and not named_by_people and _SECRET.fullmatch(part.lower()):
            return index
    return None


def _shown(part: str) -> str:
    if found := _SECRET_WITH_MORE.match(part):  # password:geheim, where a blank is missing
        return f'"{found[1]}…"'
    return part if re.fullmatch(r"[\w-]{1,64}", part) else quoted(part)
