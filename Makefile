# Three commands do everything on a fresh machine (Debian 12, Python 3.11 with python3-venv, git, make):
#   make demo      sets up, and shows the relay at work against an upstream of its own
#   make test      sets up, and runs a test of each kind, in less than five minutes
#   make test-all  all tests
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# Each of the processes that test reads hundreds of modules: compiled once, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=
# Half of what tests take is waiting, so there are more of them at work than processors. A long one that comes late
# keeps nobody else waiting (worksteal).
PYTEST := $(BIN)/pytest -n 4 --dist worksteal

.PHONY: demo test test-all test-rest bench steps lock check torture format setup clean

demo: $(VENV)/.ready
	$(BIN)/relay demo

test: $(VENV)/.ready
	RELAY_TESTS=kinds $(PYTEST) $(ARGS)

# With every repetition and every example: tests/kit/extent.py.
test-all: $(VENV)/.ready
	RELAY_TESTS=all $(PYTEST) $(ARGS)

# What test-all has more than test.
test-rest: $(VENV)/.ready
	RELAY_TESTS=rest $(PYTEST) $(ARGS)

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The long forms of tests/torture, one at a time; root for some. Keeps what was seen, in docs/reliability.md.
torture: $(VENV)/.ready
	RELAY_TORTURE=long RELAY_TORTURE_KEEP=1 $(BIN)/pytest -n 0 -v $(or $(ARGS),tests/torture)
	$(BIN)/python -m tests.torture.page > docs/reliability.md

# The relay beside Postfix: ten minutes on a machine with nothing else to do, as root, with postfix, gcc and libssl-dev.
# Writes docs/benchmarks.md. ARGS="-w small20,lat -r 1": only these, once; ARGS=--dry writes nothing, ARGS=--help.
bench: $(VENV)/.ready
	$(BIN)/python -m bench $(ARGS)

# What a plain message costs, in calls and instructions: keeps the figures of now (Debian 12, valgrind, postfix, gcc).
steps:
	/usr/bin/python3.11 -m venv .venv-steps
	.venv-steps/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	.venv-steps/bin/python -m bench.steps --keep

# The newest versions that pyproject.toml allows, with hashes, for every Python and machine.
lock: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --generate-hashes \
		--custom-compile-command 'make lock' -o requirements.lock pyproject.toml

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,demo]'
	touch $@

clean:
	rm -rf $(VENV) .venv-steps .mypy_cache .ruff_cache .import_linter_cache build dist
