# Short words for people and for CI. `make` alone explains them.

CONFIG ?= configs/demo.yaml
ARGS ?=
PYTHON ?=
JOBS ?= 2
UV ?= $(shell command -v uv 2>/dev/null)
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python)
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo train test test-full check bench clean

help: ## this page
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make the environment .venv, once; PYTHON=python3.12 chooses the interpreter
	@echo "gandist is installed in .venv"

demo: $(READY) ## train on built-in data for a few minutes and say where the picture is
	@$(BIN)/gandist train
	@picture=$$(ls -t runs/demo/samples/*.png | head -n 1); echo; echo "The newest picture: $$picture"

train: $(READY) ## train CONFIG=configs/NAME.yaml, with ARGS="--section.key value ..."
	@$(BIN)/gandist train $(CONFIG) $(ARGS)

test: $(READY) ## the tests, without the long repetitions; ARGS="-k word" goes to pytest, JOBS=4 runs four files at a time
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not long" $(ARGS)

test-full: $(READY) ## every test
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile $(ARGS)

check: $(READY) ## style and types
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@echo "ruff, ruff format and mypy: nothing to say"

bench: $(READY) ## measure what the README claims, on the CPU
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

clean: ## remove the environment and all caches; runs and shards stay
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@for python in $(PYTHONS); do \
		"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && break; \
		python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo "gandist needs Python 3.11, 3.12 or 3.13; tried in vain: $(PYTHONS)" >&2; \
		echo "Install one, or say where it is: make setup PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi; \
	if [ ! -x $(BIN)/python ]; then \
		echo "Making .venv with $$python and installing gandist; the first time takes some minutes."; \
		if [ -n "$(UV)" ]; then "$(UV)" venv --quiet --python "$$python" .venv; \
		else "$$python" -m venv --clear .venv; fi || { \
			rm -rf .venv; echo "No environment could be made. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	fi
	@if [ -n "$(UV)" ]; then "$(UV)" pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else $(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check -c constraints.txt -e '.[dev]'; fi
	@touch $@
