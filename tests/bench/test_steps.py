"""A plain message takes as many steps as it took when they were counted last, and no more.

The figures are those of one Python and of one set of libraries: Debian's Python 3.11, with the versions of
requirements.lock in an environment of their own.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.steps import differences

PYTHON = Path("/usr/bin/python3.11")
ROOT = Path(__file__).parents[2]
NEEDED = ("valgrind", "callgrind_control", "gcc")


def lacking() -> str:
    """What of all that is not on this machine."""
    if not PYTHON.exists():
        return f"{PYTHON} (Debian 12)"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if shutil.which("smtp-source", path="/usr/sbin:/usr/bin:/bin") is None:
        missing.append("smtp-source (postfix)")
    return ", ".join(missing)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's Python, with the locked versions and the relay as it is here."""
    if missing := lacking():
        pytest.skip(f"to count steps needs {missing}")
    folder = tmp_path_factory.mktemp("locked")
    made = folder / "venv" / "bin" / "python"
    subprocess.run([PYTHON, "-m", "venv", folder / "venv"], check=True)
    pip = (made, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, "--require-hashes", "-r", ROOT / "requirements.lock"], check=True, capture_output=True)
    return made


@pytest.mark.steps
@pytest.mark.repetition
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", ["--calls", "--instructions"])
def test_a_plain_message_takes_no_more_steps_than_are_kept(python: Path, what: str) -> None:
    command = [python, "-m", "bench.steps", what, "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}(`make steps` keeps the figures of now)"


def test_four_calls_more_are_a_difference_and_three_per_cent_of_the_instructions_are_none() -> None:
    kept = {"calls": 800, "loop": 1000, "writer": 100, "commits": 0.2}
    assert differences({"calls": 800, "loop": 1030, "writer": 114, "commits": 0.2}, kept) == []
    assert differences({"calls": 803}, kept) == []
    assert differences({"calls": 804}, kept) == ["804 calls on the loop, 800 are kept"]
    assert differences({"calls": 796}, kept) == ["796 calls on the loop, 800 are kept"]
    assert len(differences({"loop": 1031, "writer": 116, "commits": 0.2}, kept)) == 2


def test_what_more_commits_cost_on_a_busy_machine_is_no_difference() -> None:
    kept = {"calls": 800, "loop": 1000, "writer": 100, "commits": 0.2}
    assert differences({"loop": 1045, "writer": 165, "commits": 0.7}, kept) == []
    assert len(differences({"loop": 1048, "writer": 181, "commits": 0.7}, kept)) == 2
