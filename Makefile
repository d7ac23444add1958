# Two commands do everything on a fresh machine (Debian 12, Python 3.11 with python3-venv, git, make):
#   make demo    sets up, and shows the relay at work against an upstream of its own
#   make test    sets up, and runs all tests
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test check torture format setup clean

demo: $(VENV)/.ready
	$(BIN)/relay demo

test: $(VENV)/.ready
	$(BIN)/pytest -n 2 $(ARGS)

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The long forms of tests/torture, one at a time; root for some. Keeps what was seen, in docs/reliability.md.
torture: $(VENV)/.ready
	RELAY_TORTURE=long RELAY_TORTURE_KEEP=1 $(BIN)/pytest -n 0 -v $(or $(ARGS),tests/torture)
	$(BIN)/python -m tests.torture.page > docs/reliability.md

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,demo]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache build dist
