# One entry per habit. Needs make, and a Python 3.11 or newer with venv and pip; everything else goes into .venv.
#   make test ARGS="tests/losses -k soft"      arguments for pytest
#   make demo ARGS="--out runs/mine"           arguments for understudy demo
#   make demo PYTHON=python3.12                the interpreter that .venv is made with

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
ARGS    ?=

BIN := $(VENV)/bin
# --no-compile: Python compiles what it really imports, which is a small part of torch; pip would compile all of it.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet --quiet --no-compile

.DEFAULT_GOAL := help
.PHONY: help setup demo fmt fmt-check lint types test test-extras coverage mutants docs bench check
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A stamp is touched only after its installation has succeeded, so an interrupted one is repeated.
# An environment that is there already is kept (with the torch in it), and made anew where it cannot be mended.
$(VENV)/.stamp-venv:
	@command -v $(PYTHON) >/dev/null || { echo "understudy needs Python 3.11 or newer, and '$(PYTHON)' is not here: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "understudy needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1): make PYTHON=python3.11 ..." >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null 2>&1 \
		|| { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@touch $@

$(VENV)/.stamp-core: pyproject.toml $(VENV)/.stamp-venv
	@echo "installing understudy into $(VENV) (PyTorch is the large part)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml $(VENV)/.stamp-venv
	@echo "installing understudy and its development tools into $(VENV) (PyTorch is the large part)"
	@$(PIP) --editable ".[dev]"
	@touch $(VENV)/.stamp-core $@

$(VENV)/.stamp-docs: pyproject.toml $(VENV)/.stamp-venv
	@echo "installing understudy and its documentation tools into $(VENV)"
	@$(PIP) --editable ".[docs]"
	@touch $(VENV)/.stamp-core $@

setup: $(VENV)/.stamp-dev $(VENV)/.stamp-docs ## .venv with everything a developer needs

demo: $(VENV)/.stamp-core ## teacher, assistants and student on the digits of scikit-learn
	@$(BIN)/understudy demo $(ARGS)

fmt: $(VENV)/.stamp-dev ## rewrite the sources as the formatter wants them
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

fmt-check: $(VENV)/.stamp-dev ## say which files the formatter would change
	@$(BIN)/ruff format --check .

lint: $(VENV)/.stamp-dev ## ruff's rules; the faults that `make mutants` plants have their place
	@$(BIN)/ruff check .
	@$(BIN)/python tools/mutants.py --check

types: $(VENV)/.stamp-dev ## mypy, strict
	@$(BIN)/mypy

# One thread in each of the processes: two that each start a thread per core only wait for one another.
test: export OMP_NUM_THREADS := 1
test: export OPENBLAS_NUM_THREADS := 1
test: $(VENV)/.stamp-dev ## the test suite, without the tests that take minutes (ARGS="-m slow" for those)
	@$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" $(ARGS)

# In an environment of its own: the suite above is what a user without extras has. A torchvision that was built for CUDA
# is made to load beside a CPU torch, see tools/torchvision_cpu.py.
$(VENV)-extras/.stamp: pyproject.toml
	@echo "installing understudy with all extras into $(VENV)-extras"
	@$(VENV)-extras/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)-extras
	@$(VENV)-extras/bin/python -m pip --disable-pip-version-check --no-input install --quiet --no-compile --editable ".[dev,vision,hub,export,compress,track]"
	@$(VENV)-extras/bin/python tools/torchvision_cpu.py
	@touch $@

test-extras: export OMP_NUM_THREADS := 1
test-extras: $(VENV)-extras/.stamp ## the tests of models, data and callbacks with all extras installed
	@$(VENV)-extras/bin/python -m pytest -n $(WORKERS) tests/models tests/data tests/structure tests/cli tests/deploy tests/ladder/test_given_files.py tests/ladder/test_additions.py tests/test_callbacks.py $(ARGS)

# Room by room, so that a well-tested one does not hide another. What runs in processes of its own is not counted.
ROOMS := losses teaching ladder store data
coverage: export OMP_NUM_THREADS := 1
coverage: $(VENV)/.stamp-dev ## share of lines that the tests run, in each room; less than 90 % is an error
	@$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" $(ROOMS:%=--cov=understudy.%) --cov-report= tests $(ARGS)
	@for room in $(ROOMS); do \
		share=$$($(BIN)/coverage report --include="src/understudy/$$room/*" --fail-under=90 --format=total) || low=1; \
		printf '%-10s %s %%\n' $$room "$$share"; \
	done; test -z "$$low"

mutants: $(VENV)/.stamp-dev ## plants faults in the sources and shows that the tests notice them (takes minutes)
	@$(BIN)/python tools/mutants.py --jobs $(WORKERS) $(ARGS)

# (Material for MkDocs prints a notice about its successor with every build.)
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.stamp-docs ## the documentation as a site/ folder; a broken link is an error
	@$(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

bench: $(VENV)/.stamp-core ## steps and whole ladders against a usual distillation loop (hours; ARGS=--quick for a trend)
	@$(BIN)/python -m benchmarks $(ARGS)

check: fmt-check lint types test docs ## everything that has to hold before a commit
