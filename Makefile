# Everything a developer, or CI, runs. `make` alone says what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.requirements

# Ray's own helpers, and processes that our tests start, must find this Python first.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup develop demo check lint unit test reliability bench reference wheel clean

help: ## This text
	@echo "ScheduleMesh: one scheduler above every Ray cluster you own."
	@echo
	@echo "Start here:"
	@echo "  make demo     two local Ray clusters, a control plane, and a program that uses both"
	@echo
	@echo "Then:"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "The first build takes some minutes; later ones only what changed."
	@echo "After \`make setup\`, \`source $(BIN)/activate\` puts \`schedulemesh\` and Python on your path."

setup: develop ## Python environment in .venv, Rust build, both joined

$(STAMP): scripts/requirements-dev.txt scripts/venv.sh
	@scripts/venv.sh "$(PYTHON)" "$(VENV)"

develop: $(STAMP)
	@scripts/develop.sh "$(VENV)"

demo: develop ## The whole story in two minutes: routing, actors, failures, kill -9, recovery
	@$(BIN)/python examples/demo.py

check: develop lint unit ## What must be green before every commit (no Ray; under two minutes when warm)

lint: develop
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff check python examples scripts
	$(BIN)/ruff format --check python examples scripts
	$(BIN)/mypy
	$(BIN)/python scripts/check_docs.py

unit: develop
	@scripts/rust-tests.sh
	$(BIN)/python -m pytest -q -m "not ray" python/tests

test: check ## Everything, real Ray clusters, examples and documents included
	$(BIN)/python -m pytest -q -m ray python/tests

reliability: ## Thousands of simulated worlds, planted faults, 200 kills of the real server; writes the report
	@scripts/reliability.sh

bench: develop ## Measure against native Ray and bare SQLite, as ratios in one run
	@scripts/bench.sh "$(VENV)"

reference: develop ## Write docs/reference anew from the code
	UPDATE_EXPECT=1 scripts/rust-tests.sh -E 'test(reference) + test(openapi)'

wheel: $(STAMP) ## The package that users install, in dist/
	@scripts/wheel.sh "$(VENV)"

clean: ## Remove everything that was built or installed here
	cargo clean
	rm -rf $(VENV) dist build schedulemesh.data python/schedulemesh/_native*.so
	find python examples -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf .mypy_cache .pytest_cache .ruff_cache
