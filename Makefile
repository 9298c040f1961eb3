# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# Each is handed to the demo as it is; see `make demo-help`.
DATA ?=
WEIGHTS ?=
DEMO_FLAGS ?=

.PHONY: setup demo demo-help test test-all lint bench audit image image-gpu lock clean

setup: .venv/ready

# A hash for each file makes the install the same everywhere; the list names no index. It is complete, and pip resolves
# nothing: it would look at newer releases of a package that is asked for with an extra.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  f"Canopy needs Python 3.11, 3.12 or 3.13, and {sys.executable} is {v[0]}.{v[1]}: name another with make PYTHON=...")'
	@echo "setup: installing the locked packages into .venv (minutes, once)"
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	@$(BIN)/python -m canopy.demo $(if $(DATA),--data "$(DATA)") $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(DEMO_FLAGS)

demo-help: setup
	@$(BIN)/python -m canopy.demo --help

# Two modules at a time. The slow tests measure seconds, so they get the machine to themselves.
test: setup
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

test-all: test
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Benchmarks that run on this machine alone, a table each; see their headers for their other settings.
bench: setup
	$(BIN)/python -m benchmarks.preprocess --images 8000
	$(BIN)/python -m benchmarks.plan
	$(BIN)/python -m benchmarks.input
	$(BIN)/python -m benchmarks.train
	$(BIN)/python -m benchmarks.predict

# Checkov brings a hundred packages of its own, so it gets an environment of its own.
audit: .venv-checkov/ready
	.venv-checkov/bin/checkov --config-file .checkov.yaml

.venv-checkov/ready:
	$(PYTHON) -m venv .venv-checkov
	.venv-checkov/bin/python -m pip install --quiet --disable-pip-version-check checkov==3.3.30
	@touch $@

image:
	docker build -f infra/Dockerfile --target cpu -t canopy:0.1.0 --build-arg REVISION=$$(git rev-parse HEAD) .

image-gpu:
	docker build -f infra/Dockerfile --target gpu -t canopy:0.1.0-gpu --build-arg REVISION=$$(git rev-parse HEAD) .

# Pins every package for Python 3.11 to 3.13 on every platform at once, and those of the images; needs uv. What is
# pinned stays so where it still fits; LOCK_FLAGS=--upgrade takes the newest of everything.
LOCK_FLAGS ?=
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
  --no-emit-index-url --quiet $(LOCK_FLAGS)
lock:
	$(LOCK) --extra dev --output-file requirements.lock
	$(LOCK) infra/locks/cpu.in --override infra/locks/cpu.overrides --constraint requirements.lock --output-file infra/locks/cpu.lock
	$(LOCK) --extra gpu --override infra/locks/gpu.overrides --constraint requirements.lock --output-file infra/locks/gpu.lock

clean:
	rm -rf build .mypy_cache .pytest_cache .ruff_cache .hypothesis
