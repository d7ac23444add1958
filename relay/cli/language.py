"""What a command says, in the language of the configuration that it was given; in English until that is read."""

from __future__ import annotations

import re
from pathlib import Path

from relay.durable import read_regular
from relay.errors import BadConfig, ConfigError, RelayError
from relay.texts.language import Texts, texts_in

_chosen = "en"
_WRITTEN = re.compile(rb"""(?:^(?:\xef\xbb\xbf)?|[{,])\s*["']?language["']?[ \t]*:[ \t]*["']?(en|nl)\b""", re.MULTILINE)
_MOST = 2**20


def choose(language: str) -> None:
    """All that is said from now on is in `language`, "en" or "nl"."""
    global _chosen
    _chosen = language


def choose_of(file: Path) -> None:
    """All that is said from now on is in the language that a configuration asks for, however bad it is."""
    try:
        found = _WRITTEN.search(read_regular(file, _MOST))
    except OSError:
        return
    choose(found[1].decode() if found is not None else "en")


def texts() -> Texts:
    """The sentences of the chosen language."""
    return texts_in(_chosen)


def say(key: str, /, **values: object) -> str:
    """The sentence `key` in the chosen language, with `values` in its braces."""
    return texts()(key, **values)


def told(problem: ConfigError) -> str:
    """A problem of the configuration: where it is, what is wrong, what to do."""
    hint = f" ({_said(problem.hint)})" if problem.hint else ""
    return f"{problem.where}: {_said(problem.problem)}{hint}"


def sentence(error: RelayError) -> str:
    """What a command that was refused says: a plain sentence, or a line for each problem of the configuration."""
    if isinstance(error, BadConfig):
        return "\n".join(map(told, error.problems))
    return f"relay: {said(error)}"


def said(error: RelayError) -> str:
    """What is wrong."""
    return told(error) if isinstance(error, ConfigError) else _said(str(error))


def _said(english: str) -> str:
    if _chosen != "nl":
        return english
    from relay.texts.errors import in_dutch

    return in_dutch(english)
