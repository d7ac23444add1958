"""The units of systemd that are installed here, read as files with their drop-ins (systemd.unit(5)).

systemd itself is not asked, as it need not run, and may not have read its files since they were changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relay.durable import read_regular

# Of files with one name the first counts.
FOLDERS = tuple(map(Path, ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system")))
FOLDERS += tuple(map(Path, ("/usr/lib/systemd/system", "/lib/systemd/system")))
_LARGEST = 256 * 1024
_CONTINUED = re.compile(r"\\\n(?:[ \t]*[#;][^\n]*\n)*")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: all values of its settings, by section and key, in the order of its files."""

    name: str
    settings: Mapping[tuple[str, str], Sequence[str]]

    def all(self, section: str, key: str) -> Sequence[str]:
        """The values since the last empty one, which takes back those before it."""
        found = self.settings.get((section, key), ())
        return found[max((at for at, value in enumerate(found) if not value), default=-1) + 1 :]

    def last(self, section: str, key: str, default: str = "") -> str:
        return next(reversed(self.settings.get((section, key), ())), "") or default

    def words(self, section: str, key: str) -> list[str]:
        """The words of all values of a setting that is a list."""
        return [word for value in self.all(section, key) for word in value.split()]

    def yes(self, section: str, key: str) -> bool:
        return self.last(section, key).lower() in ("1", "yes", "y", "true", "t", "on")


def installed(name: str) -> Unit | None:
    """The unit `name`; None where there is none, it is masked, or this process may not read all of it."""
    main = [folder / name for folder in FOLDERS if os.path.lexists(folder / name)][:1]
    drop_ins: dict[str, Path] = {}
    for kind in (name, name.rpartition(".")[2]):  # relay.service.d before service.d
        for folder in FOLDERS:
            for file in _listed(folder / f"{kind}.d", ".conf"):
                drop_ins.setdefault(file.name, file)
    try:
        texts = [_text(file) for file in (*main, *(drop_ins[each] for each in sorted(drop_ins)))]
    except OSError:
        return None
    settings: dict[tuple[str, str], list[str]] = {}
    for section, key, value in (each for text in texts for each in _settings(text)):
        settings.setdefault((section, key), []).append(value)
    return Unit(name, settings) if main and texts[0] else None


def sockets_of(service: Unit) -> list[Unit]:
    """The socket units whose sockets the service gets."""
    named = {f"{service.name.rpartition('.')[0]}.socket", *service.words("Service", "Sockets")}
    names = dict.fromkeys((*sorted(named), *(file.name for each in FOLDERS for file in _listed(each, ".socket"))))
    found = [unit for name in names if (unit := installed(name)) is not None]
    return [unit for unit in found if unit.name in named or unit.last("Socket", "Service") == service.name]


def _listed(folder: Path, suffix: str) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix == suffix)
    except OSError:
        return []


def _text(file: Path) -> str:
    """What it says; nothing where a link to /dev/null masks it."""
    return "" if os.path.realpath(file) == os.devnull else read_regular(file, _LARGEST).decode("utf-8", "replace")


def _settings(text: str) -> Iterator[tuple[str, str, str]]:
    section = ""
    for line in map(str.strip, _CONTINUED.sub(" ", text.replace("\r\n", "\n")).split("\n")):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            yield section, key.strip(), value.strip()
