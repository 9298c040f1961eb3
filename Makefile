# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# Each is handed to the demo as it is; see `make demo-help`.
DATA ?=
WEIGHTS ?=
DEMO_FLAGS ?=

.PHONY: setup demo demo-help test test-all lint lock clean

setup: .venv/ready

# A hash for each file makes the install the same everywhere; the list names no address.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  f"Canopy needs Python 3.11, 3.12 or 3.13, and {sys.executable} is {v[0]}.{v[1]}: name another with make PYTHON=...")'
	@echo "setup: installing the locked packages into .venv (minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	@$(BIN)/python -m canopy.demo $(if $(DATA),--data "$(DATA)") $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(DEMO_FLAGS)

demo-help: setup
	@$(BIN)/python -m canopy.demo --help

test: setup
	$(BIN)/python -m pytest -m "not slow"

test-all: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Pins every package for Python 3.11 to 3.13 on every platform at once; needs uv.
lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --quiet --output-file requirements.lock

clean:
	rm -rf build .mypy_cache .pytest_cache .ruff_cache .hypothesis
