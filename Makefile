# TableWatcher: what developers run. Everything happens in .venv, made on first use.

PYTHON ?= python3
VENV   ?= .venv
PIP    := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# `make lint test`: side by side, for the first tier of the tests is one process, and so is the check of types.
MAKEFLAGS += --jobs=2
.DEFAULT_GOAL := help
.PHONY: help demo test lint e2e bench cluster clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## Real Postgres, NATS and HTTP endpoint: watch changes arrive (ends by itself; ARGS=--keep: goes on)
	@$(BIN)/tablewatcher demo $(if $(filter -f% --file%,$(ARGS)),,-f examples) $(ARGS)

test: $(STAMP) ## Run every tier of the tests that can run here
	@$(BIN)/python hack/tests

lint: $(STAMP) ## Style, types and import rules
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "not formatted: run $(BIN)/ruff format" >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > $(VENV)/lint-imports.log 2>&1 || { cat $(VENV)/lint-imports.log; exit 1; }
	@echo "lint: clean"

e2e: $(STAMP) ## Run the tests on a real cluster only (root; `make cluster` first)
	@$(BIN)/python hack/tests e2e

bench: $(STAMP) ## Measure throughput and latency
	@$(BIN)/python tests/benchmarks/bench.py $(ARGS)

cluster: ## Build a real single-node Kubernetes for the tests (root, Debian, Go)
	@hack/cluster/build --install

clean: ## Remove the virtual environment and caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	@find operator tests hack -name __pycache__ -type d -prune -exec rm -rf {} +

# pip 25.1 is the first that reads dependency groups.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "setting up $(VENV), once ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	  || { echo "python3 -m venv does not work here: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --editable '.[operator,demo]' --group dev
	@touch $@
