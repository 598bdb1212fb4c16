# make demo   the demo at http://127.0.0.1:8000/ (another port: make demo PORT=8001)
# make test   every check and the whole test matrix
# make coverage  the same matrix, and which branches no test has taken
# make faults the fault suite in full, about an hour: workers killed for real on each database
# make browser the browser tests in full: the console under load, with large trees and logs, Redis killed
# make oracle repeating tasks and trees in full: each minute of seven years, a storm of schedulers, 500 tasks a tree
# make check  the checks alone: lint, format, types, imports, templates, migrations
# make storm  a storm of SIGKILLs for us and for the peers: whose effects are there exactly once?
# make bench-console   the console's budgets, with a million tasks (TASKS=100000 DATABASE=sqlite)
# make bench  the benchmarks, beside every peer (bench-quick: smaller, beside the fast ones)

.DEFAULT_GOAL := demo
.NOTPARALLEL:
.DELETE_ON_ERROR:

PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
MANAGE := $(BIN)/python tests/demo/manage.py

# The first one that is new enough; the plain one if none is, so that preflight can say so.
PYTHON := $(or $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done),python3)

# A word of the shell, whatever is in it.
quoted = '$(subst ','\'',$1)'

# What preflight complains about becomes make's own, single line.
refuse = $(if $(strip $1),$(error $(strip $1)))
preflight = $(call refuse,$(shell ($(PYTHON) tests/preflight.py $1 || exit 1) 2>&1))

# What runs the benchmarks, ours and theirs; the newest Python, because one peer needs 3.12.
PEERS := .venv-peers
PEERS_PYTHON := $(or $(shell for python in python3.14 python3.13 python3.12; do \
	$$python -c '' 2>/dev/null && echo $$python && break; done),$(PYTHON))

.PHONY: coverage browser oracle bench bench-console bench-quick storm demo demo-preflight test faults check lint types imports templates migrations venv venv-preflight

demo: demo-preflight $(VENV)/.installed-demo
	@$(MANAGE) migrate --verbosity 0
	@exec $(MANAGE) demo --port $(call quoted,$(PORT))

test: check
	@$(BIN)/python tests/matrix.py

coverage: venv
	@$(BIN)/python tests/matrix.py --coverage

faults: venv
	@CQ_FAULTS_FULL=1 $(BIN)/python tests/matrix.py --lanes 1 --only tests/faults

browser: venv
	@CQ_BROWSER_FULL=1 $(BIN)/python tests/matrix.py --lanes 1 --only tests/browser

oracle: venv
	@CQ_TEST_FULL=1 $(BIN)/python -m pytest -q tests/engine/test_crontab_years.py tests/engine/test_scheduler.py
	@CQ_TEST_FULL=1 $(BIN)/python tests/matrix.py --lanes 1 --only tests/engine/test_trees_property.py

check: lint types imports templates migrations

lint: venv
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet

types: venv
	$(BIN)/mypy

imports: venv
	$(BIN)/lint-imports --no-cache

templates: venv
	$(BIN)/djade --check --target-version 5.2 $$(find templates tests/demo -path '*templates/*.html')

migrations: venv
	$(MANAGE) makemigrations --check --dry-run

venv: venv-preflight $(VENV)/.installed-dev

bench: $(PEERS)/.installed
	@$(PEERS)/bin/python tests/benchmarks/run.py

bench-quick: $(PEERS)/.installed
	@$(PEERS)/bin/python tests/benchmarks/run.py --quick

storm: $(PEERS)/.installed
	@$(PEERS)/bin/python tests/benchmarks/storm.py

bench-console: venv
	@$(BIN)/python tests/benchmarks/console/run.py --database $(or $(DATABASE),postgresql) $(if $(TASKS),--tasks $(TASKS))

$(PEERS)/.installed: tests/benchmarks/peers/requirements.txt pyproject.toml
	@echo "Installing django-cq and its peers into $(PEERS) (some minutes) ..."
	@test -x $(PEERS)/bin/pip || $(PEERS_PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/pip --disable-pip-version-check --quiet install --editable '.[postgres]' \
		--requirement tests/benchmarks/peers/requirements.txt
	@touch $@

demo-preflight:
	@$(call preflight,--port $(call quoted,$(PORT))):

venv-preflight:
	@$(call preflight):

$(BIN)/pip:
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: pyproject.toml | $(BIN)/pip
	@echo "Installing django-cq and what its demo needs into $(VENV) (a minute or two) ..."
	@$(PIP) install --editable '.[server]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/pip
	@echo "Installing django-cq and its development tools into $(VENV) (some minutes) ..."
	@$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.installed-demo
