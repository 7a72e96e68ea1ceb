# Two commands: `make demo` shows the main job on this machine, `make test` checks everything that needs no GPU.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test slow lint install dev profiles

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch goes first and alone: the constraint picks one build before any dependency can ask for another.
install: $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .

dev: $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"

demo: install
	$(BIN)/python -m benchmarks.demo

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu"

slow: dev
	$(BIN)/python -m pytest -n 2 -m "slow and not gpu"

profiles: dev
	$(BIN)/autotune profiles build
