# `make run` and `make test` work on a fresh checkout: they create .venv from requirements.lock first, once.
# make ends with 2 whenever a command fails; call .venv/bin/sp-harness itself where its exit code matters
# (0 well, 1 a verdict fails, 2 usage, 3 infrastructure, 130 interrupted).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BEGUN := $(VENV)/.begun

MATRIX ?= matrices/pr.toml
ARGS ?=
# The first interpreter that answers and is new enough; PYTHON=... names another.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help:  ## show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1 \t\2/p' $(MAKEFILE_LIST) | expand -t 24
	@echo; echo "  MATRIX=FILE picks the matrix of 'run', ARGS='...' is handed on to the command of 'run' and 'test'."

.PHONY: run
run: $(READY)  ## set up, then run the pull request's matrix
	@$(BIN)/sp-harness run $(MATRIX) $(ARGS)

.PHONY: test
test: $(READY)  ## set up, then run the tests, three files at a time
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile $(ARGS)

.PHONY: test-browser
test-browser: $(READY)  ## test the report's pages in chromium, found on PATH; screenshots go to build/screenshots
	@$(BIN)/python -c "import playwright" 2>/dev/null || \
		$(BIN)/python -m pip install -qq --no-build-isolation --editable ".[browser]"
	@SP_HARNESS_SCREENSHOTS=build/screenshots $(BIN)/python -m pytest tests/reporters/browser $(ARGS)

SGLANG := 0.5.9 0.5.10.post1 0.5.12.post1 0.5.23

.PHONY: test-engines
test-engines: $(READY)  ## set up releases of engines in environments of their own, then run their tests
	@for version in $(SGLANG); do $(BIN)/sp-harness engines setup sglang --version $$version --cpu; done
	@$(BIN)/sp-harness engines setup xfuser --version 0.7.0 --cpu
	@$(BIN)/python -m pytest tests/engines/releases.py $(ARGS)

.PHONY: surfaces
surfaces: $(READY)  ## fuzz matrix files, run folders, goldens and command lines with 3,000 inputs (tests: 20)
	@SP_SURFACES_INPUTS=$${SP_SURFACES_INPUTS:-3000} $(BIN)/python -m pytest -s tests/cli/test_surfaces.py $(ARGS)

.PHONY: check
check: $(READY)  ## lint, formatting, imports, types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo --no-cache
	@$(BIN)/mypy

.PHONY: bench
bench: $(READY)  ## run every script in benchmarks/
	@shopt -s nullglob; scripts=(benchmarks/[!_]*.py); \
	[ $${#scripts[@]} -gt 0 ] || echo "no benchmarks yet"; \
	failed=(); for script in "$${scripts[@]}"; do \
		echo "== $$script"; $(BIN)/python "$$script" || failed+=("$$script"); \
	done; \
	[ $${#failed[@]} -eq 0 ] || { echo "failed: $${failed[*]}" >&2; exit 1; }

.PHONY: lock
lock: $(READY)  ## write requirements.lock from pyproject.toml (UPGRADE="NAME ..." takes newer versions of these)
	@CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --extra dev --strip-extras --allow-unsafe \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
		$(addprefix --upgrade-package ,$(UPGRADE)) --output-file requirements.lock pyproject.toml
	@sed -i.bak -E 's/^([A-Za-z0-9._-]+==[^+ ]+)\+[A-Za-z0-9.]+/\1/' requirements.lock && rm requirements.lock.bak

.PHONY: clean
clean:  ## remove .venv, caches and build output; reports stay
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find harness tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# .begun stands while an installation is under way and becomes .ready at its end. One that is found at the
# start was left by an interrupted set-up, and what that left behind is thrown away.
$(READY): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "sp-harness needs Python 3.11 or newer, found: $$("$(or $(PYTHON),python3)" --version 2>&1 || true)"; \
		echo "install one and name it: make PYTHON=/path/to/python3.11 ..."; exit 1; \
	fi >&2
	@if kill -0 "$$(cat $(BEGUN) 2>/dev/null)" 2>/dev/null; then \
		echo "another make (process $$(cat $(BEGUN))) is setting up $(VENV); wait for it, or delete $(VENV)" >&2; exit 1; \
	fi
	@if [ -e $(BEGUN) ]; then echo "the last set-up did not finish: starting over"; rm -rf $(VENV); fi
	@echo "setting up $(VENV) from requirements.lock (minutes the first time) ..."
	@mkdir -p $(VENV); echo $$$$ > $(BEGUN); \
	"$(PYTHON)" -m venv $(VENV); \
	$(BIN)/python -m pip install -qq -r requirements.lock; \
	$(BIN)/python -m pip install -qq --no-build-isolation --no-deps --editable .; \
	mv $(BEGUN) $(READY)
