"""Folders of bad configurations, each with the exact errors it gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.config.load import load, parse
from relay.errors import BadConfig, ConfigError

BAD = Path(__file__).parent / "bad"


@pytest.mark.parametrize("folder", sorted(BAD.iterdir()), ids=lambda folder: folder.name)
def test_a_bad_configuration_gets_exactly_these_errors(folder: Path) -> None:
    with pytest.raises(BadConfig) as caught:
        parse((folder / "config.yaml").read_text(encoding="utf-8"))
    assert f"{caught.value}\n" == (folder / "expected.txt").read_text(encoding="utf-8")
    assert "geheim" not in str(caught.value)


def test_the_problems_are_values_in_the_order_of_the_file() -> None:
    with pytest.raises(BadConfig) as caught:
        parse('routes:\n  default: {upstreams: [owm]}\nupstreams:\n  own: {host: ""}\n', "relay.yaml")
    first, second = caught.value.problems
    assert isinstance(first, ConfigError)
    assert (first.where, first.problem) == ("relay.yaml:2: routes.default.upstreams", 'no upstream named "owm"')
    assert first.hint == 'did you mean "own"?'
    assert second.where == "relay.yaml:4: upstreams.own.host"


def test_a_file_that_is_not_there_is_named_as_it_was_given(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"^\S+/none\.yaml: cannot be read: No such file or directory"):
        load(tmp_path / "none.yaml")
    with pytest.raises(BadConfig, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_file_that_is_not_utf_8_is_told_so_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"hostname: a.example.nl\n# caf\xe9\n")
    with pytest.raises(BadConfig) as caught:
        load(file)
    assert str(caught.value) == f"{file}:2: not UTF-8 (save the file as UTF-8)"


def test_a_file_that_is_no_configuration_at_all_is_refused_early(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    for content in (
        b"x" * (1024 * 1024 + 1),
        b"a: \x00\n",
        b"[" * 100_000,
        b"{a: " * 100_000,
        b"? [a]\n: b\n",
        b"*a : b\n",
    ):
        file.write_bytes(content)
        with pytest.raises(BadConfig):
            load(file)
