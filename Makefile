# Needs make and Python 3.11 or newer with venv; everything else is installed into .venv.
#
#   PYTHON=python3.12 make test       another interpreter (.venv is rebuilt when it changes)
#   make test ARGS="tests/core -x"    arguments for the command behind the verb
#   make test JOBS=0                  the tests one after the other, in one process
#
# Nothing is written outside this folder and the temporary one.

PYTHON ?= python3
JOBS ?= auto
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
LOCK := .cache/lock
EXPORT := --quiet --frozen --no-emit-project --no-header --no-annotate

export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_USER := 0
export UV_CACHE_DIR := $(CURDIR)/.cache/uv
export PYRIGHT_PYTHON_CACHE_DIR := $(CURDIR)/.cache/pyright
# Pyright asks a registry for its newest version otherwise.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# A stamp names the interpreter and the folder, so that a change of either rebuilds .venv.
TAG := $(shell $(PYTHON) -c 'import os, sys, zlib; print("%d.%d.%d-%08x" % (*sys.version_info[:3], zlib.crc32(os.fsencode(os.getcwd()))))')
DEV := $(VENV)/.dev-$(TAG)
DEMO := $(VENV)/.demo-$(TAG)

define new-venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is %s: try PYTHON=python3.12 make ..." % sys.version.split()[0])'
@echo 'Setting up $(VENV) from $(1) (once)'
@$(PYTHON) -m venv --clear $(VENV)
@$(BIN)/python -m pip install -qq --require-hashes -r $(1)
@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation -e .
endef

.PHONY: help demo test check fix bench bench-rivals docs lock clean
.DEFAULT_GOAL := help

help: ## list these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(if $(wildcard $(DEV)),$(DEV),$(DEMO)) ## see it work, in a minute, with nothing but Python
	@$(BIN)/tasqueue demo $(ARGS)

test: $(DEV) ## run the whole test suite
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

check: $(DEV) ## lint, format, types, rings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo --cache-dir .cache/import-linter

fix: $(DEV) ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

bench: $(DEV) ## measure jobs per second on this machine
	@$(BIN)/tasqueue bench $(ARGS)

bench-rivals: $(DEV) ## measure it and ten other libraries in turn, on one server
	@PYTHONPATH=. $(BIN)/python benchmarks/rivals/run.py $(ARGS)

docs: $(DEV) ## write the tables of docs/ that are taken from the code
	@$(BIN)/python docs/tables.py

lock: $(LOCK)/bin/uv ## choose the newest versions that fit, write requirements/
	$(LOCK)/bin/uv lock --quiet --upgrade --python $(LOCK)/bin/python
	$(LOCK)/bin/uv export $(EXPORT) --all-extras --all-groups -o requirements/dev.txt
	$(LOCK)/bin/uv export $(EXPORT) --extra rich --no-default-groups --group build -o requirements/demo.txt

clean: ## remove everything that make has made
	rm -rf $(VENV) .cache .hypothesis build dist uv.lock
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEV): pyproject.toml requirements/dev.txt
	$(call new-venv,requirements/dev.txt)
	@touch $(DEMO) $(DEV)

$(DEMO): pyproject.toml requirements/demo.txt
	$(call new-venv,requirements/demo.txt)
	@touch $(DEMO)

$(LOCK)/bin/uv:
	@$(PYTHON) -m venv --clear $(LOCK)
	@$(LOCK)/bin/python -m pip install -qq uv
