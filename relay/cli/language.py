"""What a command says, in the language of the configuration that it was given; in English until that is read."""

from __future__ import annotations

from relay.texts.language import Texts, texts_in

_chosen = "en"


def choose(language: str) -> None:
    """All that is said from now on is in `language`, "en" or "nl"."""
    global _chosen
    _chosen = language


def texts() -> Texts:
    """The sentences of the chosen language."""
    return texts_in(_chosen)


def say(key: str, /, **values: object) -> str:
    """The sentence `key` in the chosen language, with `values` in its braces."""
    return texts()(key, **values)
